//! The idle HTTP/1.1 connections of one core to one endpoint, and leave to make more of either version.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::client::conn::http1;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::body::RequestBody;
use super::multiplexed::SharedPool;
use super::patience::Patience;
use crate::clock::{Clock, Monotonic};

/// Connections to one endpoint.
#[derive(Debug)]
pub(super) struct EndpointPool {
    idle: RefCell<Vec<Idle>>,
    pub http2: SharedPool,
    /// Permits to connect.
    connecting: Arc<Semaphore>,
    /// Those who wait for a connection to come back, the first in front.
    waiting: RefCell<VecDeque<oneshot::Sender<Connection>>>,
    max_idle: usize,
    idle_for: Duration,
    clock: Clock,
}

/// An HTTP/1.1 connection with what stays with it from request to request.
#[derive(Debug)]
pub(super) struct Connection {
    pub sender: http1::SendRequest<RequestBody>,
    pub patience: Patience,
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: Monotonic,
}

/// A connection in use by one request.
#[derive(Debug)]
pub(super) struct Lease {
    pub connection: Connection,
    pool: Rc<EndpointPool>,
}

/// How a request comes by a connection when none is idle.
#[derive(Debug)]
pub(super) enum Turn {
    /// One has come back.
    Returned(Lease),
    /// It may make one, for as long as it holds this.
    Connect(OwnedSemaphorePermit),
}

/// How many HTTP/1.1 connections are made at the same time. Whoever comes later waits for one of them or for one that
/// comes back, whichever is first: when a core is too slow for its load, a connection for each request in flight would
/// cost it more than the requests do.
const CONNECTS: usize = 64;

/// For how long a connection may take to become usable again after its response was read to the end.
const SETTLE: Duration = Duration::from_secs(1);

impl EndpointPool {
    /// Without connections. Where one may turn out to be HTTP/2 and serve all, `may_share`, they are made one by one.
    pub fn new(max_idle: usize, idle_for: Duration, may_share: bool, clock: Clock) -> Self {
        Self {
            idle: RefCell::default(),
            http2: SharedPool::default(),
            connecting: Arc::new(Semaphore::new(if may_share { 1 } else { CONNECTS })),
            waiting: RefCell::default(),
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
        while let Some(Idle { connection, since }) = idle.pop() {
            if since.until(now) >= self.idle_for {
                idle.clear();
                return None;
            }
            if connection.sender.is_ready() {
                return Some(Lease { connection, pool: Rc::clone(self) });
            }
        }
        None
    }

    /// Waits for a connection to come back, if it `takes_used` ones, or for leave to make one. The caller bounds the
    /// time.
    pub async fn turn(self: &Rc<Self>, takes_used: bool) -> Turn {
        if let Ok(permit) = Arc::clone(&self.connecting).try_acquire_owned() {
            return Turn::Connect(permit);
        }
        if !takes_used {
            return Turn::Connect(self.leave_to_connect().await);
        }
        let (waiter, returned) = oneshot::channel();
        {
            let mut waiting = self.waiting.borrow_mut();
            // Those at the front have waited for longest, and may have given up.
            while waiting.front().is_some_and(oneshot::Sender::is_closed) {
                waiting.pop_front();
            }
            waiting.push_back(waiter);
        }
        tokio::select! {
            biased;
            Ok(connection) = returned => Turn::Returned(Lease { connection, pool: Rc::clone(self) }),
            permit = self.leave_to_connect() => Turn::Connect(permit),
        }
    }

    async fn leave_to_connect(&self) -> OwnedSemaphorePermit {
        match Arc::clone(&self.connecting).acquire_owned().await {
            Ok(permit) => permit,
            // It is never closed.
            Err(_) => std::future::pending().await,
        }
    }

    /// A new connection, for the request that made it.
    pub fn lease(self: &Rc<Self>, sender: http1::SendRequest<RequestBody>) -> Lease {
        let connection = Connection { sender, patience: Patience::default() };
        Lease { connection, pool: Rc::clone(self) }
    }

    /// Closes what has been idle for too long.
    pub fn prune(&self) {
        let now = self.clock.monotonic();
        self.idle
            .borrow_mut()
            .retain(|idle| idle.since.until(now) < self.idle_for && !idle.connection.sender.is_closed());
        self.http2.prune();
    }

    fn put(&self, connection: Connection) {
        let mut connection = connection;
        loop {
            let Some(first) = self.waiting.borrow_mut().pop_front() else { break };
            match first.send(connection) {
                Ok(()) => return,
                Err(unwanted) => connection = unwanted,
            }
        }
        let mut idle = self.idle.borrow_mut();
        if idle.len() < self.max_idle {
            idle.push(Idle { connection, since: self.clock.monotonic() });
        }
    }
}

impl Lease {
    /// Returns the connection after its response was read to the end.
    pub fn give_back(mut self) {
        if self.connection.sender.is_ready() {
            self.pool.put(self.connection);
        } else if !self.connection.sender.is_closed() {
            // Its task has yet to notice that the exchange is over, or the request's body is still being sent.
            tokio::task::spawn_local(async move {
                if let Ok(Ok(())) = tokio::time::timeout(SETTLE, self.connection.sender.ready()).await {
                    self.pool.put(self.connection);
                }
            });
        }
    }
}
