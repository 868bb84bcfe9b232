//! Upstreams.

use std::path::PathBuf;
use std::time::Duration;

use http::StatusCode;
use http::uri::{Authority, PathAndQuery};
use rustls_pki_types::ServerName;

use super::CertifiedKey;

/// An API behind the gateway.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// Name in logs and metrics.
    pub name: String,
    /// At least one, none twice.
    pub endpoints: Vec<Endpoint>,
    /// The version of HTTP that is spoken.
    pub protocol: Protocol,
    /// For endpoints with TLS.
    pub tls: UpstreamTls,
    /// How long to wait for it.
    pub timeouts: UpstreamTimeouts,
    /// Idle connections that each worker keeps.
    pub max_idle_connections: usize,
    /// How often names are resolved again.
    pub resolve_interval: Duration,
    /// How an endpoint is chosen.
    pub balancing: Balancing,
    /// How endpoints are asked whether they are well; none: not at all.
    pub health_check: Option<HealthCheck>,
    /// When an endpoint is left alone that fails.
    pub ejection: Ejection,
    /// When a request is sent again.
    pub retries: Retries,
    /// How much may be in flight.
    pub limits: UpstreamLimits,
}

/// How an endpoint is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Balancing {
    /// Among those that may be used.
    pub method: BalancingMethod,
    /// When fewer endpoints than this share, in percent, are healthy, health is ignored and all are used.
    pub panic_percent: u32,
}

/// How an endpoint is chosen among those that may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BalancingMethod {
    /// Of two drawn by weight, the one with fewer requests of this core in flight for its weight.
    LeastRequest,
    /// In turn, by weight.
    RoundRobin,
}

/// How endpoints are asked whether they are well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is asked for, by GET.
    pub path: PathAndQuery,
    /// The `Host`; `None` for that of the endpoint.
    pub host: Option<Authority>,
    /// From one check to the next.
    pub interval: Duration,
    /// For a check, connection included.
    pub timeout: Duration,
    /// Good checks in a row that make an unhealthy endpoint healthy.
    pub healthy_after: u32,
    /// Failed checks in a row that make a healthy endpoint unhealthy.
    pub unhealthy_after: u32,
    /// The statuses of a healthy endpoint; empty for 200 to 299.
    pub statuses: Vec<StatusCode>,
}

/// When an endpoint that fails is left alone for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ejection {
    /// Failures in a row; 0 for never.
    pub consecutive_failures: u32,
    /// For how long at first; twice as long each time that follows.
    pub time: Duration,
    /// For how long at most.
    pub max_time: Duration,
    /// The most endpoints that are left alone at the same time, in percent.
    pub max_percent: u32,
}

/// When a request is sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retries {
    /// How often, beyond the first time; 0 for never.
    pub attempts: u32,
    /// Retries in relation to requests, in percent, over all requests of a core.
    pub budget_percent: u32,
    /// Retries that each core may make in a second however few requests there are.
    pub budget_min: u32,
    /// The most bytes of a request's body that are kept so that it can be sent again.
    pub buffer: usize,
    /// Statuses after which an idempotent request is sent again.
    pub statuses: Vec<StatusCode>,
    /// Whether a gRPC call is sent again that was answered UNAVAILABLE without a message.
    pub grpc_unavailable: bool,
}

/// How much an upstream may be given at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpstreamLimits {
    /// Requests in flight from all cores; `None` for no bound but those of the clients.
    pub requests: Option<u32>,
    /// HTTP/1.1 connections in use by one core; `None` for as many as there are requests.
    pub connections: Option<usize>,
    /// Requests of one core that wait for one of them.
    pub pending: usize,
}

/// How long to wait for an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpstreamTimeouts {
    /// For a connection, TLS included.
    pub connect: Duration,
    /// From the request sent to the first byte of the response.
    pub response: Duration,
    /// From the request sent to the last byte of the response; none: as long as it takes.
    pub total: Option<Duration>,
    /// For which an unused connection is kept.
    pub idle: Duration,
}

/// Which HTTP an upstream is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/2 where TLS negotiates it, else HTTP/1.1.
    Auto,
    /// HTTP/1.1 only.
    Http1,
    /// HTTP/2 only; without TLS by prior knowledge (RFC 9113 section 3.3).
    Http2,
}

/// One server of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The Unix socket on which it listens, in place of host and port.
    pub socket: Option<PathBuf>,
    /// Whether TLS is spoken.
    pub tls: bool,
    /// Host without brackets: a name or an IP address.
    pub host: String,
    /// Port, that of the scheme if none was written.
    pub port: u16,
    /// Host and port as `Host` or `:authority` has them, without the scheme's own port.
    pub authority: Authority,
    /// Its share of the requests; at least 1.
    pub weight: u32,
}

/// TLS towards an upstream.
#[derive(Clone, Debug, Default)]
pub struct UpstreamTls {
    /// Authorities to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// The name that certificates must bear, if not the endpoint's host.
    pub server_name: Option<ServerName<'static>>,
    /// The gateway's own certificate.
    pub client_certificate: Option<CertifiedKey>,
}
