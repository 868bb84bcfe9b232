//! Bounds on what clients may send, hold and take time for.

use std::time::Duration;

/// How much of anything a client may send or hold. Sizes in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The request's URI.
    pub uri: usize,
    /// All headers of a request together.
    pub headers: usize,
    /// Number of headers of a request.
    pub header_count: usize,
    /// The token; at most `headers`.
    pub token: usize,
    /// The request's body; none: unbounded.
    pub body: Option<u64>,
    /// Bytes of a body in a second, at the least; 0: any number.
    pub body_rate: u64,
    /// Open connections of all clients together.
    pub connections: usize,
    /// Requests at the same time on one HTTP/2 connection.
    pub concurrent_streams: u32,
    /// Frames that carry nothing of a request in a second on one HTTP/2 connection.
    pub control_frames: u32,
}

/// When requests are refused because there are too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overload {
    /// Requests that wait for the head of their answer, of all clients together.
    pub requests: usize,
    /// For which ready work may wait for its worker.
    pub delay: Duration,
}

/// When a client is told to wait because its tokens are no good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailedAttempts {
    /// Failures in one window that are borne.
    pub limit: u32,
    /// How long a window lasts.
    pub window: Duration,
    /// Clients that are remembered.
    pub clients: usize,
}

/// How long anything may take on the side of the clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For all headers of a request to arrive.
    pub header: Duration,
    /// Between two parts of a body.
    pub body_idle: Duration,
    /// For a connection without a request.
    pub idle: Duration,
    /// For a WebSocket on which nothing passes.
    pub websocket_idle: Duration,
    /// For the TLS handshake.
    pub handshake: Duration,
    /// For requests in flight after a stop was asked for.
    pub drain: Duration,
    /// For those who have not heard yet that a stop was asked for.
    pub drain_delay: Duration,
    /// For one more request on an idle connection after a stop was asked for.
    pub drain_idle: Duration,
}
