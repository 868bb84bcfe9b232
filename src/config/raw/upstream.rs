//! `upstreams`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CertifiedKey, DurationText, SizeText};

/// An API behind the gateway.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// Name for routes, logs and metrics: letters, digits, `.`, `_`, `-`.
    pub name: String,
    /// URLs of its endpoints, scheme, host and port only: `http://127.0.0.1:8000`, or the absolute path of a Unix
    /// socket: `unix:/run/orders.sock`. Each address of a host name is balanced and judged on its own.
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
    /// How often host names are resolved again. Until a name is resolved for the first time, each connection does it;
    /// when it can be resolved no longer, the last addresses stay in use.
    #[serde(default = "default_resolve_interval")]
    pub resolve_interval: DurationText,
    /// How an endpoint is chosen.
    #[serde(default)]
    pub balancing: Balancing,
    /// Asking endpoints whether they are well. Without it they are believed to be.
    pub health_check: Option<HealthCheck>,
    /// Leaving an endpoint alone for a while whose requests fail.
    #[serde(default)]
    pub ejection: Ejection,
    /// Sending a request again when an endpoint failed.
    #[serde(default)]
    pub retries: Retries,
    /// Bounds on connections and requests in flight.
    #[serde(default)]
    pub limits: UpstreamLimits,
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
    /// Its share of the requests, in relation to the weights of the others: 1 to 1000. Of a name with several
    /// addresses, each has this weight.
    #[serde(default = "default_weight")]
    pub weight: u64,
}

/// How an endpoint is chosen.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Balancing {
    /// `least_request`: of two drawn at random by weight, the one with fewer requests in flight. `round_robin`: in
    /// turn, by weight. Each worker goes by what it has sent itself.
    pub method: BalancingMethod,
    /// When less than this share of the endpoints, in percent, is healthy, health is ignored and all are used: the few
    /// would break down too, or the check is what is wrong. `0` means never: with no healthy endpoint, requests get
    /// VAL-063.
    pub panic_percent: u64,
}

/// How an endpoint is chosen among those that may be used.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BalancingMethod {
    #[default]
    LeastRequest,
    RoundRobin,
}

/// Asking endpoints whether they are well.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HealthCheck {
    /// What is asked for by `GET`, path and query.
    pub path: String,
    /// The `Host` of checks, if not that of the endpoint.
    pub host: Option<String>,
    /// From one check to the next, of each address.
    #[serde(default = "default_check_interval")]
    pub interval: DurationText,
    /// For the answer, connection included. At most the interval.
    #[serde(default = "default_check_timeout")]
    pub timeout: DurationText,
    /// Good checks in a row after which an unhealthy endpoint is healthy.
    #[serde(default = "default_healthy_after")]
    pub healthy_after: u64,
    /// Failed checks in a row after which a healthy endpoint is unhealthy. The very first check decides at once.
    #[serde(default = "default_unhealthy_after")]
    pub unhealthy_after: u64,
    /// The statuses of a healthy endpoint. Empty: 200 to 299.
    #[serde(default)]
    pub statuses: Vec<u64>,
}

/// Leaving an endpoint alone for a while whose requests fail: no connection, no answer, no HTTP, or 502, 503, 504.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Ejection {
    /// Failures in a row after which it is ejected. `0` turns this off.
    pub consecutive_failures: u64,
    /// For how long at first; twice as long each time that follows, until it has answered again.
    pub time: DurationText,
    /// For how long at most.
    pub max_time: DurationText,
    /// The share of the endpoints, in percent, that may be ejected at the same time. With `50`, the only endpoint of
    /// an upstream is never ejected.
    pub max_percent: u64,
}

/// Sending a request again. Only where that is safe: it was never sent, the upstream said that it did not process it
/// (HTTP/2), or the connection was lost without an answer and it is idempotent. Time-outs are not repeated.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Retries {
    /// How often, each time to another endpoint. `0` turns this off.
    pub attempts: u64,
    /// Retries in relation to requests, in percent, so that an upstream in trouble gets no more than so much more.
    pub budget_percent: u64,
    /// Retries in a second that each worker may make beyond that, for when there are few requests.
    pub budget_min: u64,
    /// The most bytes of a request's body that are kept for another attempt; when more was sent, there is none.
    pub buffer: SizeText,
    /// Statuses after which an idempotent request is sent again, such as `[502, 503]`.
    pub statuses: Vec<u64>,
    /// Whether a gRPC call is sent again that was answered `UNAVAILABLE` without a message. Right where the API never
    /// says so of a call that it has begun.
    pub grpc_unavailable: bool,
}

/// Bounds on what the upstream is given at a time. What is beyond gets VAL-064.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct UpstreamLimits {
    /// Requests in flight from all workers, open WebSocket connections included. Without it there is no limit.
    pub requests: Option<u64>,
    /// HTTP/1.1 connections in use; each worker has an even share, at least one. Without it there are as many as
    /// requests.
    pub connections: Option<u64>,
    /// Requests that wait for one of `connections`; each worker has an even share. They wait for `timeouts.connect` at
    /// the most.
    pub pending: u64,
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
    /// From sending the request to the last byte of the answer, all attempts together. Not for what is made to
    /// last: a WebSocket, server-sent events, gRPC. Without it there is no limit, since downloads may be long.
    pub total: Option<DurationText>,
    /// How long an idle connection is kept. Shorter than the upstream's own, or requests meet closed doors.
    pub idle: DurationText,
}

impl Endpoint {
    /// Its share of the requests.
    pub fn weight(&self) -> u64 {
        match self {
            Self::Url(_) => default_weight(),
            Self::Detailed(DetailedEndpoint { weight, .. }) => *weight,
        }
    }

    /// Its URL, as written.
    pub fn url(&self) -> &str {
        match self {
            Self::Url(url) | Self::Detailed(DetailedEndpoint { url, .. }) => url,
        }
    }
}

impl Default for UpstreamTimeouts {
    fn default() -> Self {
        Self { connect: "5s".into(), response: "60s".into(), total: None, idle: "60s".into() }
    }
}

impl Default for Ejection {
    fn default() -> Self {
        Self { consecutive_failures: 5, time: "30s".into(), max_time: "5m".into(), max_percent: 50 }
    }
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            attempts: 1,
            budget_percent: 20,
            budget_min: 3,
            buffer: "64KiB".into(),
            statuses: Vec::new(),
            grpc_unavailable: false,
        }
    }
}

impl Default for UpstreamLimits {
    fn default() -> Self {
        Self { requests: None, connections: None, pending: 1024 }
    }
}

fn default_max_idle_connections() -> u64 {
    1024
}

fn default_resolve_interval() -> DurationText {
    "30s".into()
}

fn default_weight() -> u64 {
    1
}

fn default_check_interval() -> DurationText {
    "10s".into()
}

fn default_check_timeout() -> DurationText {
    "2s".into()
}

fn default_healthy_after() -> u64 {
    2
}

fn default_unhealthy_after() -> u64 {
    3
}
