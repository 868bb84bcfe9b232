//! The idle HTTP/1.1 connections of one core to one endpoint, and its shared HTTP/2 connection.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use tokio::sync::Mutex;

use super::body::RequestBody;
use crate::clock::{Clock, Monotonic};

/// Connections to one endpoint.
#[derive(Debug)]
pub(super) struct EndpointPool {
    idle: RefCell<Vec<Idle>>,
    pub http2: RefCell<Option<http2::SendRequest<RequestBody>>>,
    /// Held while an HTTP/2 connection is made, so that a burst makes one and not hundreds.
    pub connecting: Mutex<()>,
    max_idle: usize,
    idle_for: Duration,
    clock: Clock,
}

#[derive(Debug)]
struct Idle {
    sender: http1::SendRequest<RequestBody>,
    since: Monotonic,
}

/// A connection in use by one request.
#[derive(Debug)]
pub(super) struct Lease {
    pub sender: http1::SendRequest<RequestBody>,
    pool: Rc<EndpointPool>,
}

/// For how long a connection may take to become usable again after its response was read to the end.
const SETTLE: Duration = Duration::from_secs(1);

impl EndpointPool {
    pub fn new(max_idle: usize, idle_for: Duration, clock: Clock) -> Self {
        Self {
            idle: RefCell::default(),
            http2: RefCell::default(),
            connecting: Mutex::default(),
            max_idle,
            idle_for,
            clock,
        }
    }

    /// The connection that was used last: the one least likely to be closed by the other side, while the others
    /// may grow old and go.
    pub fn take(self: &Rc<Self>) -> Option<Lease> {
        let now = self.clock.monotonic();
        let mut idle = self.idle.borrow_mut();
        while let Some(Idle { sender, since }) = idle.pop() {
            if since.until(now) >= self.idle_for {
                idle.clear();
                return None;
            }
            if sender.is_ready() {
                return Some(Lease { sender, pool: Rc::clone(self) });
            }
        }
        None
    }

    pub fn lease(self: &Rc<Self>, sender: http1::SendRequest<RequestBody>) -> Lease {
        Lease { sender, pool: Rc::clone(self) }
    }

    /// Closes what has been idle for too long.
    pub fn prune(&self) {
        let now = self.clock.monotonic();
        self.idle
            .borrow_mut()
            .retain(|idle| idle.since.until(now) < self.idle_for && !idle.sender.is_closed());
        self.http2.borrow_mut().take_if(|sender| sender.is_closed());
    }

    fn put(&self, sender: http1::SendRequest<RequestBody>) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < self.max_idle {
            idle.push(Idle { sender, since: self.clock.monotonic() });
        }
    }
}

impl Lease {
    /// Returns the connection after its response was read to the end.
    pub fn give_back(mut self) {
        if self.sender.is_ready() {
            self.pool.put(self.sender);
        } else if !self.sender.is_closed() {
            // Its task has yet to notice that the exchange is over, or the request's body is still being sent.
            tokio::task::spawn_local(async move {
                if let Ok(Ok(())) = tokio::time::timeout(SETTLE, self.sender.ready()).await {
                    self.pool.put(self.sender);
                }
            });
        }
    }
}
