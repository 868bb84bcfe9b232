//! Issuers, their keys, and how their tokens are revoked.

use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use super::FeedIndex;
use crate::keys::Algorithm;
use crate::token::Binding;

/// Who may issue tokens, for whom, and how that is verified.
#[derive(Clone, Debug)]
pub struct Issuer {
    /// Name in logs and metrics; fit for a file name.
    pub name: String,
    /// What `iss` must be, byte for byte (RFC 7519 section 4.1.1).
    pub issuer: String,
    /// Where signature keys come from.
    pub keys: KeySettings,
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
    /// Longest time of one fetch.
    pub timeout: Duration,
    /// Authorities to trust beside the system's.
    pub ca: Option<PathBuf>,
    /// Whether `http://` is allowed to addresses other than loopback.
    pub insecure_allow_http: bool,
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
    /// The feeds that may revoke; at least one, none twice.
    pub feeds: Vec<FeedIndex>,
    /// How old the newest contact may be before `when_stale` applies.
    pub max_staleness: Duration,
    /// What happens then.
    pub when_stale: WhenStale,
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
