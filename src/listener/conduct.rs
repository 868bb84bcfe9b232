//! What an HTTP/2 client is noticed for below the level of requests, where no line of the access log comes of it.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use crate::telemetry::metrics::{CoreMetrics, ProtocolError};

/// How one client behaves.
#[derive(Debug)]
pub struct Conduct {
    client: SocketAddr,
    listener: Arc<str>,
    metrics: Rc<CoreMetrics>,
    is_flood: Cell<bool>,
    was_told: Cell<bool>,
}

impl Conduct {
    /// Nothing to be noticed so far.
    pub fn new(client: SocketAddr, listener: Arc<str>, metrics: Rc<CoreMetrics>) -> Self {
        Self { client, listener, metrics, is_flood: Cell::new(false), was_told: Cell::new(false) }
    }

    /// Notes a stream that was reset with this error code. Those that tell of a malformed message, or of a breach of the
    /// rules, are counted; the first of a connection is logged.
    pub fn stream_reset(&self, code: h2::Reason) {
        use h2::Reason;
        if matches!(code, Reason::NO_ERROR | Reason::CANCEL | Reason::REFUSED_STREAM | Reason::INTERNAL_ERROR)
        {
            return;
        }
        self.metrics.protocol_error(ProtocolError::Http2Stream);
        if !self.was_told.replace(true) {
            let (client, listener) = (self.client, &self.listener);
            tracing::info!(%client, %listener, error = code.description(), ?code, "a malformed stream was reset");
        }
    }

    /// Notes that the client floods the connection.
    pub fn floods(&self) {
        self.is_flood.set(true);
    }

    /// Whether it does.
    pub fn is_flood(&self) -> bool {
        self.is_flood.get()
    }
}
