//! `upstreams`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CertifiedKey, DurationText, Reserved};

/// An API behind the gateway.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// Name for routes, logs and metrics: letters, digits, `.`, `_`, `-`.
    pub name: String,
    /// URLs of its endpoints, scheme, host and port only: `http://127.0.0.1:8000`, or the absolute path of a Unix
    /// socket: `unix:/run/orders.sock`. Several are used in turn.
    pub endpoints: Vec<Endpoint>,
    /// The version of HTTP that is spoken. `auto`: by ALPN on `https`, HTTP/1.1 on `http`. `http2` on `http` is
    /// h2c with prior knowledge, which gRPC servers want.
    #[serde(default)]
    pub protocol: Protocol,
    /// For endpoints with `https`.
    pub tls: Option<UpstreamTls>,
    /// How long the API may take.
    #[serde(default)]
    pub timeouts: UpstreamTimeouts,
    /// Idle connections that each worker keeps for the next request.
    #[serde(default = "default_max_idle_connections")]
    pub max_idle_connections: u64,
    /// How an endpoint is chosen.
    pub balancing: Option<Reserved>,
    /// Asking endpoints whether they are well.
    pub health_check: Option<Reserved>,
    /// Sending a request again when an endpoint failed.
    pub retries: Option<Reserved>,
    /// Bounds on connections and requests in flight.
    pub limits: Option<Reserved>,
}

/// An endpoint: a URL, or a mapping with more.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Endpoint {
    /// Its URL.
    Url(#[schemars(extend("x-expects" = "a URL"))] String),
    /// With more.
    Detailed(DetailedEndpoint),
}

/// An endpoint with more than its URL.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DetailedEndpoint {
    /// Its URL.
    pub url: String,
    /// Its share of the requests.
    pub weight: Option<Reserved>,
}

/// The version of HTTP towards an upstream.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    #[default]
    Auto,
    Http1,
    Http2,
}

/// TLS towards an upstream.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpstreamTls {
    /// PEM file with the certificate authorities to trust instead of the system's.
    pub ca: Option<String>,
    /// The name that the certificate must bear, if it is not the endpoint's host.
    pub server_name: Option<String>,
    /// The gateway's own certificate (mutual TLS), for endpoints that ask for one.
    pub client_certificate: Option<CertifiedKey>,
}

/// How long an upstream may take.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct UpstreamTimeouts {
    /// To accept a connection, with TLS. Longer than a lost packet and its repetition.
    pub connect: DurationText,
    /// From the end of the request to the first byte of the answer.
    pub response: DurationText,
    /// How long an idle connection is kept. Shorter than the upstream's own, or requests meet closed doors.
    pub idle: DurationText,
}

impl Endpoint {
    /// Its URL, as written.
    pub fn url(&self) -> &str {
        match self {
            Self::Url(url) | Self::Detailed(DetailedEndpoint { url, .. }) => url,
        }
    }
}

impl Default for UpstreamTimeouts {
    fn default() -> Self {
        Self { connect: "5s".into(), response: "60s".into(), idle: "60s".into() }
    }
}

fn default_max_idle_connections() -> u64 {
    1024
}
