//! Spans of requests, and conduct that is told as suspicious.

use std::time::Duration;

use http::HeaderMap;
use url::Url;

use super::Transport;

/// Spans for an OpenTelemetry collector.
#[derive(Clone, Debug)]
pub struct Tracing {
    /// Where they are posted to.
    pub endpoint: Url,
    /// What the collector wants to see, marked sensitive so that it is never printed.
    pub headers: HeaderMap,
    /// How many of the traces that begin here are recorded, in millionths.
    pub sample: u32,
    /// Whether a caller's trace is recorded if the caller records it.
    pub follow_callers: bool,
    /// Attributes of the resource, `service.name` among them.
    pub resource: Vec<(String, String)>,
    /// Whether the path is recorded.
    pub url_path: bool,
    /// Whether the client's address is recorded.
    pub client_address: bool,
    /// Claims that are recorded.
    pub claims: Vec<String>,
    /// How many spans may wait.
    pub queue: usize,
    /// How the collector is reached.
    pub transport: Transport,
}

/// From which number on conduct is told as suspicious; 0: it is not watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patterns {
    /// The time over which is counted.
    pub window: Duration,
    /// Refused tokens of one client.
    pub failures_by_client: u32,
    /// Refused tokens that claim to be of one subject.
    pub failures_by_subject: u32,
    /// Clients that send the same valid token.
    pub addresses_of_token: u32,
    /// Uses of a revoked token.
    pub uses_after_revocation: u32,
}
