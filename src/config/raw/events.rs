//! `feeds` that identity providers tell of sessions and accounts, and `routes` that take revocations.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ClientCertificate, DurationText, Proxy, SecretText, SizeText};

/// Security Event Tokens that a transmitter pushes (RFC 8935, SSF 1.0), to the route that `receives` this feed.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetPush {
    /// Name of the issuer whose keys sign the events, and whose `issuer` is their `iss`. A transmitter with keys of
    /// its own is an issuer of its own, which no route requires.
    pub signed_by: String,
    /// Of these, `aud` of the events must have one.
    pub audiences: Vec<String>,
    /// Value of the `Authorization` header that the transmitter sends: `Bearer ${SET_TOKEN}`, or `file:PATH`.
    pub authorization: SecretText,
    /// Which claim of the tokens a subject is.
    #[serde(default)]
    pub subjects: Subjects,
    /// Longest lifetime of the tokens concerned: a revocation is forgotten so long after its event.
    #[serde(default = "default_token_lifetime")]
    pub token_lifetime: DurationText,
    /// The feed counts as heard only while events arrive, verification events among them; so `max_staleness` tells
    /// a stream that has dried up. Without it, the feed is current as long as the gateway runs.
    #[serde(default)]
    pub heartbeat: bool,
    /// Name of a feed to whose engine the revocations are written too, so that all gateways hear of them.
    pub write_to: Option<String>,
}

/// Security Event Tokens that are fetched from a transmitter (RFC 8936, SSF 1.0).
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetPoll {
    /// URL of the transmitter's poll endpoint.
    pub url: String,
    /// As in `set_push`.
    pub signed_by: String,
    /// As in `set_push`.
    pub audiences: Vec<String>,
    /// Value of the `Authorization` header: `Bearer ${SET_TOKEN}`, or `file:PATH` of a file that holds it.
    pub authorization: Option<SecretText>,
    /// How long the transmitter may hold its answer back until there are events.
    #[serde(default = "default_long_poll")]
    pub long_poll: DurationText,
    /// How often to ask a transmitter that answers at once without events.
    #[serde(default = "default_interval")]
    pub interval: DurationText,
    /// Longest time that one answer may take, beyond the time of the long poll.
    #[serde(default = "default_timeout")]
    pub timeout: DurationText,
    /// Largest answer that is read.
    #[serde(default = "default_max_size")]
    pub max_size: SizeText,
    /// PEM file with certificate authorities to trust for this transmitter, instead of the system's.
    pub ca: Option<String>,
    /// Certificate to show to the transmitter.
    pub client_certificate: Option<ClientCertificate>,
    /// Proxy on the way to the transmitter.
    pub proxy: Option<Proxy>,
    /// Fetch by `http://` from addresses other than loopback. The credential can then be read on the way.
    #[serde(default)]
    pub insecure_allow_http: bool,
    /// As in `set_push`.
    #[serde(default)]
    pub subjects: Subjects,
    /// As in `set_push`.
    #[serde(default = "default_token_lifetime")]
    pub token_lifetime: DurationText,
    /// As in `set_push`.
    pub write_to: Option<String>,
}

/// Logout tokens that a provider sends (`OpenID` Connect Back-Channel Logout 1.0), to the route that `receives` this
/// feed.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BackchannelLogout {
    /// Name of the issuer that signs the logout tokens.
    pub signed_by: String,
    /// Ids of the clients for which logout is told; of these, `aud` must have one.
    pub audiences: Vec<String>,
    /// Longest lifetime of the tokens concerned: a revocation is forgotten so long after the logout.
    #[serde(default = "default_token_lifetime")]
    pub token_lifetime: DurationText,
    /// Accept logout tokens without `typ`, or of the type `JWT`, as older providers send them.
    #[serde(default)]
    pub allow_untyped: bool,
    /// As in `set_push`.
    pub write_to: Option<String>,
}

/// Which claim of the tokens each format of subject identifiers (RFC 9493) is. `iss_sub` is always `sub`, and of a
/// complex subject the session is `sid`, the user as below, the application `client`.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Subjects {
    pub opaque: SubjectFact,
    pub email: SubjectFact,
    pub account: SubjectFact,
    pub phone_number: SubjectFact,
    pub did: SubjectFact,
    pub uri: SubjectFact,
}

impl Default for Subjects {
    fn default() -> Self {
        let none = SubjectFact::None;
        Self {
            opaque: SubjectFact::Sub,
            email: none,
            account: none,
            phone_number: none,
            did: none,
            uri: none,
        }
    }
}

/// A claim of tokens.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SubjectFact {
    None,
    Sub,
    Sid,
    Jti,
    Client,
}

/// The answers of a signed feed: JWS of the type `valgate-feed+jwt`, so that nobody on the way can change or replay
/// them.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SignedFeed {
    /// Name of the issuer whose keys sign the feed, and whose `issuer` is its `iss`.
    pub signed_by: String,
    /// What its `aud` must be or have.
    pub audience: String,
    /// How old a signature may be. An answer that is held back on the way is refused after this.
    #[serde(default = "default_signature_age")]
    pub max_age: DurationText,
}

/// A route where a bearer takes back its own token or session, in the manner of RFC 7009.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RevocationEndpoint {
    /// What a request revokes: its own `token` (by `jti`), or its whole `session` (by `sid`).
    pub revokes: Revokes,
    /// Name of the feed to whose engine it is written.
    pub feed: String,
    /// Longest lifetime of the tokens of a session: its revocation is forgotten after this.
    #[serde(default = "default_token_lifetime")]
    pub token_lifetime: DurationText,
}

/// What a bearer revokes.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Revokes {
    Token,
    Session,
}

fn default_token_lifetime() -> DurationText {
    "24h".into()
}

fn default_long_poll() -> DurationText {
    "30s".into()
}

fn default_interval() -> DurationText {
    "5s".into()
}

fn default_timeout() -> DurationText {
    "10s".into()
}

fn default_max_size() -> SizeText {
    "1MiB".into()
}

fn default_signature_age() -> DurationText {
    "5m".into()
}
