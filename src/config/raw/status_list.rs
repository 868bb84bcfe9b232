//! `issuers[].revocation.status_list`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{ClientCertificate, DurationText, Keys, Proxy, SizeText};

/// Token Status Lists: tokens name a list and their place in it (`status.status_list`), and the issuer publishes the
/// list.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StatusList {
    /// Where lists may be: URLs, or beginnings of URLs that end in `/`. A token that names another place is refused, since
    /// it must not choose where the gateway connects.
    pub allowed: Vec<String>,
    /// Refuse tokens that name no list.
    #[serde(default)]
    pub required: bool,
    /// Where the keys come from that lists are signed with, if they are not those of the issuer's tokens.
    pub keys: Option<Keys>,
    /// How often a list is fetched when it does not say (`ttl`), and at least.
    #[serde(default = "default_refresh_interval")]
    pub refresh_interval: DurationText,
    /// How long requests wait for a list that nobody has asked for before, from the first of them.
    #[serde(default = "default_wait")]
    pub wait: DurationText,
    /// How many lists are kept at a time. Those of no token that was seen lately make room.
    #[serde(default = "default_max_lists")]
    pub max_lists: u64,
    /// Largest list, inflated: 8 MiB hold the status of 64 million tokens at one bit each.
    #[serde(default = "default_max_size")]
    pub max_size: SizeText,
    /// Longest time that one fetch may take.
    #[serde(default = "default_timeout")]
    pub timeout: DurationText,
    /// PEM file with certificate authorities to trust for these lists, instead of the system's.
    pub ca: Option<String>,
    /// Certificate to show where lists are fetched.
    pub client_certificate: Option<ClientCertificate>,
    /// Proxy on the way to the lists.
    pub proxy: Option<Proxy>,
    /// Fetch by `http://` from addresses other than loopback. Whoever is on the way can then hold new lists back.
    #[serde(default)]
    pub insecure_allow_http: bool,
}

fn default_refresh_interval() -> DurationText {
    "5m".into()
}

fn default_wait() -> DurationText {
    "3s".into()
}

fn default_max_lists() -> u64 {
    100
}

fn default_max_size() -> SizeText {
    "8MiB".into()
}

fn default_timeout() -> DurationText {
    "10s".into()
}
