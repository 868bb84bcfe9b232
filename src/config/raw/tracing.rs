//! `tracing`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ClientCertificate, DurationText, Proxy, SecretText, ShareText};

/// Spans of requests for an OpenTelemetry collector, by OTLP over HTTP.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tracing {
    /// URL to which spans are posted, whole: `https://collector.example.com:4318/v1/traces`.
    pub endpoint: String,
    /// Headers that the collector wants to see, such as `Authorization: Bearer ${COLLECTOR_TOKEN}`.
    #[serde(default)]
    pub headers: BTreeMap<String, SecretText>,
    /// How many of the traces that begin here are recorded: `100%`, `1%`, `0.1%`.
    #[serde(default = "default_sample")]
    pub sample: ShareText,
    /// A trace that a caller began is recorded if the caller records it. `false`: `sample` decides for those too, so
    /// that no client makes the gateway and the APIs behind it record.
    #[serde(default = "yes")]
    pub follow_callers: bool,
    /// `service.name` of the spans.
    #[serde(default = "default_service_name")]
    pub service_name: String,
    /// Further attributes of the resource, such as `deployment.environment.name: production`.
    #[serde(default)]
    pub resource: BTreeMap<String, String>,
    /// Record the path of the request, without its query. `false` where paths say who somebody is.
    #[serde(default = "yes")]
    pub url_path: bool,
    /// Record the client's address.
    #[serde(default = "yes")]
    pub client_address: bool,
    /// Claims of accepted tokens that are recorded, as `valgate.claim.NAME`. None, since a trace is read by many.
    #[serde(default)]
    pub claims: Vec<String>,
    /// How many spans may wait for the collector. What comes while so many do is dropped and counted.
    #[serde(default = "default_queue")]
    pub queue: u64,
    /// Longest time that one delivery may take.
    #[serde(default = "default_timeout")]
    pub timeout: DurationText,
    /// PEM file with certificate authorities to trust for the collector, instead of the system's.
    pub ca: Option<String>,
    /// Certificate to show to the collector.
    pub client_certificate: Option<ClientCertificate>,
    /// Proxy on the way to the collector.
    pub proxy: Option<Proxy>,
    /// Deliver by `http://` to addresses other than loopback. Whoever is on the way can then read the spans and the
    /// headers.
    #[serde(default)]
    pub insecure_allow_http: bool,
}

/// Which conduct is told as suspicious. Nobody is refused for it.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Patterns {
    /// The time over which is counted.
    pub window: DurationText,
    /// Refused tokens of one client (an IPv4 address or an IPv6 /64). `0`: not watched.
    pub failures_by_client: u64,
    /// Refused tokens that claim to be of one subject, whether they are or not. `0`: not watched.
    pub failures_by_subject: u64,
    /// Clients that send one and the same valid token, estimated. At most 100. `0`: not watched.
    pub addresses_of_token: u64,
    /// Uses of one token after it was revoked. `0`: not watched.
    pub uses_after_revocation: u64,
}

impl Default for Patterns {
    fn default() -> Self {
        Self {
            window: "10m".into(),
            failures_by_client: 50,
            failures_by_subject: 50,
            addresses_of_token: 10,
            uses_after_revocation: 5,
        }
    }
}

fn default_sample() -> ShareText {
    "1%".into()
}

fn yes() -> bool {
    true
}

fn default_service_name() -> String {
    "valgate".to_owned()
}

fn default_queue() -> u64 {
    8192
}

fn default_timeout() -> DurationText {
    "10s".into()
}
