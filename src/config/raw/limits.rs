//! `limits`, `timeouts`, `overload` and `failed_attempts`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DurationText, SizeText};

/// How much of anything a client may send or hold.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// The request's URI. What browsers and most servers bear.
    pub uri: SizeText,
    /// All headers of a request together. Room for large cookies beside a large token.
    pub headers: SizeText,
    /// Number of headers of a request.
    pub header_count: u64,
    /// The token. Four times what issuers with many groups send.
    pub token: SizeText,
    /// The request's body. Without it there is no limit, since bodies are streamed and never held.
    pub body: Option<SizeText>,
    /// Of a body, in a second, at the least: on average over the time that the client was waited for, of which
    /// `timeouts.body_idle` is free. Ends bodies that trickle in. Until the API has begun to answer, and not for gRPC to
    /// an upstream with `protocol: http2`. `0B` turns this off.
    pub body_rate: SizeText,
    /// Open connections of all clients together; idle ones are closed first when it is reached.
    pub connections: u64,
    /// Requests at the same time on one HTTP/2 connection (RFC 9113 section 5.1.2).
    pub concurrent_streams: u64,
    /// HTTP/2 frames that carry nothing of a request (PING, SETTINGS, resets, windows, empty ones) in a second on one
    /// connection, and 50 more for each frame of a response. Beyond it the connection is a flood, and ended.
    pub control_frames: u64,
}

/// How long anything may take on the side of the clients.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// For all headers of a request to arrive. Ends slow-header attacks.
    pub header: DurationText,
    /// Between two parts of a body.
    pub body_idle: DurationText,
    /// How long a connection without a request is kept. Longer than the 60 s of common load balancers, so that
    /// they close first.
    pub idle: DurationText,
    /// How long a WebSocket may go without a byte in either direction, pings included. Longer than applications pause
    /// between their own.
    pub websocket_idle: DurationText,
    /// For the TLS handshake.
    pub handshake: DurationText,
    /// How long requests in flight may go on after a stop was asked for. Whoever asks must wait a little longer
    /// before killing: in Kubernetes, `terminationGracePeriodSeconds: 35`.
    pub drain: DurationText,
    /// How long new connections are still taken after a stop was asked for, while `/readyz` says no already: balancers
    /// and Kubernetes' own proxies hear late of a gateway that goes, and what they send meanwhile would be refused.
    pub drain_delay: DurationText,
    /// How long an idle HTTP/1.1 connection is kept after a stop was asked for, in case its client is just sending
    /// one more request, whose answer then says `Connection: close`. Closing at once would break such requests.
    pub drain_idle: DurationText,
}

/// When requests are refused (VAL-064), so that the others are answered in time. A worker that is late takes on fewer
/// requests at a time; those beyond stand in line.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Overload {
    /// Requests that wait for the head of their answer, of all clients together; each worker has an even share. Room for
    /// slow APIs, and a bound on the memory that they cost. Four times as many may stand in line.
    pub requests: u64,
    /// For how long a request stands in line before it is refused. A worker that is late refuses only as many as leave
    /// time for answers, a thousand a second. Longer than bursts last, far less than clients wait.
    pub delay: DurationText,
}

/// When a client is told to wait (VAL-044) because too many of its tokens were forged, malformed or unknown. Missing and
/// expired tokens do not count, and a valid token passes all the same. A client is an IPv4 address or an IPv6 /64, as
/// `forwarded` has it.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FailedAttempts {
    /// Failures in one window that a client is told the reason of. More than a broken client makes before somebody
    /// looks at it.
    pub limit: u64,
    /// How long a window lasts. It begins with the first failure, and `Retry-After` says when it ends.
    pub window: DurationText,
    /// Clients that are remembered, of all workers together; beyond it the oldest windows are forgotten. Some 100 bytes
    /// each.
    pub clients: u64,
}

impl Default for FailedAttempts {
    fn default() -> Self {
        Self { limit: 20, window: "1m".into(), clients: 10_000 }
    }
}

impl Default for Overload {
    fn default() -> Self {
        Self { requests: 10_000, delay: "250ms".into() }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            uri: "8KiB".into(),
            headers: "64KiB".into(),
            header_count: 100,
            token: "16KiB".into(),
            body: None,
            body_rate: "240B".into(),
            connections: 10_000,
            concurrent_streams: 100,
            control_frames: 1_000,
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            header: "10s".into(),
            body_idle: "30s".into(),
            idle: "75s".into(),
            websocket_idle: "1h".into(),
            handshake: "10s".into(),
            drain: "30s".into(),
            drain_delay: "0s".into(),
            drain_idle: "500ms".into(),
        }
    }
}
