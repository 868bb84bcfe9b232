//! `feeds`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    BackchannelLogout, ClientCertificate, DurationText, NatsFeed, Proxy, SecretText, SetPoll, SetPush,
    SignedFeed, SizeText, Valkey,
};

/// Where revocations come from. Exactly one source.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Feed {
    /// Name for issuers, logs and metrics: letters, digits, `.`, `_`, `-`.
    pub name: String,
    /// The HTTP feed that docs/revocation-feed.md describes.
    pub http: Option<HttpFeed>,
    /// A file in the same format.
    pub file: Option<FileFeed>,
    /// Valkey or Redis, as docs/revocation-valkey.md describes.
    pub valkey: Option<Valkey>,
    /// NATS `JetStream`, as docs/revocation-nats.md describes.
    pub nats: Option<NatsFeed>,
    /// Security Event Tokens by push (RFC 8935).
    pub set_push: Option<SetPush>,
    /// Security Event Tokens by poll (RFC 8936).
    pub set_poll: Option<SetPoll>,
    /// `OpenID` Connect back-channel logout.
    pub backchannel_logout: Option<BackchannelLogout>,
}

impl Feed {
    /// Whether revocations can be written to its engine, for all gateways that read it.
    pub fn is_writable(&self) -> bool {
        let is_engine = self.file.is_some() || self.valkey.is_some() || self.nats.is_some();
        is_engine || self.http.as_ref().is_some_and(|http| http.write_authorization.is_some())
    }
}

/// A feed by HTTP.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpFeed {
    /// URL of the feed.
    pub url: String,
    /// How long the server may hold an answer back until something is revoked. With it a revocation arrives at
    /// once; without it, after `interval`.
    pub long_poll: Option<DurationText>,
    /// How often to ask, when there is no long poll or the server does not support it.
    #[serde(default = "default_interval")]
    pub interval: DurationText,
    /// Longest time that one answer may take, beyond the time of the long poll.
    #[serde(default = "default_timeout")]
    pub timeout: DurationText,
    /// Largest answer that is read. A snapshot takes about 100 bytes for each revocation.
    #[serde(default = "default_max_size")]
    pub max_size: SizeText,
    /// Value of the `Authorization` header: `Bearer ${FEED_TOKEN}`, or `file:PATH` of a file that holds it.
    pub authorization: Option<SecretText>,
    /// Value of the `Authorization` header for writing: lets `valgate revoke`, the admin listener, `write_to` and
    /// `revocation_endpoint` revoke by this feed. For a server that takes revocations, as `valgate feed serve` does.
    pub write_authorization: Option<SecretText>,
    /// The server signs its answers: for a transport that is not to be trusted.
    pub signed: Option<SignedFeed>,
    /// PEM file with certificate authorities to trust for this feed, instead of the system's.
    pub ca: Option<String>,
    /// Certificate to show to the server.
    pub client_certificate: Option<ClientCertificate>,
    /// Proxy on the way to the server.
    pub proxy: Option<Proxy>,
    /// Fetch by `http://` from addresses other than loopback. Whoever is on the way can then lift revocations.
    #[serde(default)]
    pub insecure_allow_http: bool,
}

/// A feed in a file.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileFeed {
    /// The file, replaced by renaming a complete new one over it. Relative to the configuration file.
    pub path: String,
    /// How often to look whether it changed.
    #[serde(default = "default_file_interval")]
    pub interval: DurationText,
}

fn default_interval() -> DurationText {
    "5s".into()
}

fn default_timeout() -> DurationText {
    "10s".into()
}

fn default_max_size() -> SizeText {
    "1GiB".into()
}

fn default_file_interval() -> DurationText {
    "1s".into()
}
