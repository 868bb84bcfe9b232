//! Issuers, their keys, and how their tokens are revoked.

use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use super::{FeedIndex, Introspection, Transport, Valkey};
use crate::keys::Algorithm;
use crate::token::Binding;

impl Issuer {
    /// The largest tolerance on times that can be configured.
    pub const MOST_LEEWAY: Duration = Duration::from_secs(5 * 60);
}

/// Who may issue tokens, for whom, and how that is verified.
#[derive(Clone, Debug)]
pub struct Issuer {
    /// Name in logs and metrics; fit for a file name.
    pub name: String,
    /// What `iss` must be, byte for byte (RFC 7519 section 4.1.1).
    pub issuer: String,
    /// Where signature keys come from; none: it signs nothing.
    pub keys: Option<KeySettings>,
    /// What `aud` must hold.
    pub audiences: Audiences,
    /// Accepted algorithms; at least one, none twice.
    pub algorithms: Vec<Algorithm>,
    /// Tolerance on `exp`, `nbf`, `iat`.
    pub leeway: Duration,
    /// Longest accepted time from `iat` to `exp`.
    pub max_lifetime: Option<Duration>,
    /// Claims that must be there, beside `exp`, `iss`, `aud`; none twice.
    pub required_claims: Vec<String>,
    /// Rules by name.
    pub profile: Option<Profile>,
    /// What becomes of tokens that are bound to a client certificate.
    pub binding: Binding,
    /// How revoked tokens are recognized; none: not at all.
    pub revocation: Option<Revocation>,
    /// How it is asked about tokens; none: not at all.
    pub introspection: Option<Introspection>,
    /// Whether clients are told that a token ends soon, unless the route says otherwise.
    pub expiry_hint: Option<ExpiryHint>,
    /// Where its tokens are registered; none: nowhere.
    pub registry: Option<Registry>,
}

/// What a client is told before its token expires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpiryHint {
    /// How long before.
    pub within: Duration,
    /// Where to renew.
    pub renew_at: Option<Url>,
}

/// A register of issued tokens.
#[derive(Clone, Debug)]
pub struct Registry {
    /// Where it is.
    pub valkey: Valkey,
    /// What the names of its keys begin with.
    pub prefix: String,
    /// How long a token that was found is not looked up again.
    pub cache: Duration,
    /// Take every token for registered while it cannot be asked.
    pub accept_when_unavailable: bool,
}

/// What `aud` must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audiences {
    /// At least one of these; never empty.
    AnyOf(Vec<String>),
    /// Whatever: the operator waived the check.
    NotChecked,
}

/// Rules by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// JWT access tokens (RFC 9068).
    Rfc9068,
}

/// Where signature keys come from, and how they are kept fresh.
#[derive(Clone, Debug)]
pub struct KeySettings {
    /// The source.
    pub location: JwksLocation,
    /// How often they are fetched when the answer does not say.
    pub refresh_interval: Duration,
    /// How long the last good ones serve when fetching fails.
    pub max_stale: Duration,
    /// Shortest time between two fetches for unknown key ids.
    pub cooldown: Duration,
    /// How long a key id that the provider does not have is not asked for again.
    pub unknown_kid_ttl: Duration,
    /// How long a request waits for keys.
    pub wait: Duration,
    /// How the provider is reached; `max_size` bounds files too.
    pub transport: Transport,
}

/// The source of a key set.
#[derive(Clone, Debug)]
pub enum JwksLocation {
    /// At this URL.
    Url(Url),
    /// Where the issuer's metadata say.
    Discovery(MetadataLocation),
    /// In this file.
    File(PathBuf),
    /// A JWK set as JSON text (RFC 7517 section 5).
    Inline(String),
}

/// Where the issuer's metadata are.
#[derive(Clone, Debug)]
pub enum MetadataLocation {
    /// Where the standards say, from this issuer URL (`OpenID` Connect Discovery section 4, RFC 8414 section 3).
    WellKnown(Url),
    /// At this URL.
    Url(Url),
}

/// How revoked tokens are recognized.
#[derive(Clone, Debug)]
pub struct Revocation {
    /// The feeds that may revoke; none twice.
    pub feeds: Vec<FeedIndex>,
    /// The lists that tokens refer to; without them there is at least one feed.
    pub status_list: Option<StatusList>,
    /// How old the newest contact may be before `when_stale` applies.
    pub max_staleness: Duration,
    /// What happens then.
    pub when_stale: WhenStale,
}

/// Token Status Lists.
#[derive(Clone, Debug)]
pub struct StatusList {
    /// Where lists may be: URLs, or beginnings of URLs that end in `/`; at least one.
    pub allowed: Vec<Url>,
    /// Whether every token must name a list.
    pub required: bool,
    /// Where the keys of the lists are, if they are not the issuer's.
    pub keys: Option<KeySettings>,
    /// How often a list is fetched that does not say.
    pub refresh_interval: Duration,
    /// How long a request waits for a list.
    pub wait: Duration,
    /// How many lists are kept; at least one.
    pub max_lists: usize,
    /// How the lists are reached; `max_size` bounds them inflated.
    pub transport: Transport,
}

/// What happens to tokens while a feed is out of contact for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenStale {
    /// None passes.
    Reject,
    /// All pass.
    Accept,
    /// Those pass whose `iat` is at most this long ago.
    AcceptIssuedWithin(Duration),
}
