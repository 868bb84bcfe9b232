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
    /// Longest time for a connection with TLS to be made.
    pub connect_timeout: Duration,
    /// Longest time from the end of the request to the first byte of the answer.
    pub response_timeout: Duration,
    /// How long an idle connection is kept.
    pub idle_timeout: Duration,
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
    /// The share of healthy endpoints below which all are used, in percent.
    pub panic_percent: u32,
}

/// How an endpoint is chosen among those that may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BalancingMethod {
    /// Of two, the one with fewer requests in flight.
    LeastRequest,
    /// In turn.
    RoundRobin,
}

/// How endpoints are asked whether they are well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// Path and query.
    pub path: PathAndQuery,
    /// The `Host`, if not the endpoint's.
    pub host: Option<Authority>,
    /// From one check to the next.
    pub interval: Duration,
    /// For the answer; at most the interval.
    pub timeout: Duration,
    /// Good checks in a row that make healthy.
    pub healthy_after: u32,
    /// Failed checks in a row that make unhealthy.
    pub unhealthy_after: u32,
    /// Of a healthy endpoint; empty: 200 to 299.
    pub statuses: Vec<StatusCode>,
}

/// When an endpoint is left alone that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ejection {
    /// Failures in a row; 0: never.
    pub consecutive_failures: u32,
    /// For how long at first.
    pub time: Duration,
    /// For how long at most; not less than `time`.
    pub max_time: Duration,
    /// The most endpoints at the same time, in percent.
    pub max_percent: u32,
}

/// When a request is sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retries {
    /// How often; 0: never.
    pub attempts: u32,
    /// Of the requests, in percent.
    pub budget_percent: u32,
    /// In a second, by each worker.
    pub budget_min: u32,
    /// Bytes of a body that are kept.
    pub buffer: usize,
    /// After which an idempotent request is sent again.
    pub statuses: Vec<StatusCode>,
    /// Whether a gRPC call is that was answered UNAVAILABLE.
    pub grpc_unavailable: bool,
}

/// How much may be in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpstreamLimits {
    /// Requests; none: unbounded.
    pub requests: Option<u32>,
    /// HTTP/1.1 connections in use; none: unbounded.
    pub connections: Option<usize>,
    /// Requests that wait for a connection.
    pub pending: usize,
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

/// The version of HTTP towards an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// By ALPN with TLS, HTTP/1.1 without.
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2; without TLS by prior knowledge (RFC 9113 section 3.3).
    Http2,
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
