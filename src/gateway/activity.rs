//! Whether a connection is serving requests: from a request's first byte to the last of its response.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use tokio::sync::Notify;

use crate::clock::Monotonic;
use crate::telemetry::metrics::{ConnectionState, OpenConnection, Protocol};

/// What one connection is doing.
#[derive(Debug)]
pub struct Activity {
    requests: Cell<u32>,
    quiet_since: Cell<Monotonic>,
    became_quiet: Notify,
    protocol: Cell<Protocol>,
    open: RefCell<Option<OpenConnection>>,
    is_disowned: Cell<bool>,
    disowned: Notify,
}

/// A request in progress, until dropped.
#[derive(Debug)]
pub struct Busy {
    activity: Rc<Activity>,
}

impl Activity {
    /// A connection that has just been made.
    pub fn new(now: Monotonic) -> Rc<Self> {
        Rc::new(Self {
            requests: Cell::new(0),
            quiet_since: Cell::new(now),
            became_quiet: Notify::new(),
            protocol: Cell::new(Protocol::Unknown),
            open: RefCell::new(None),
            is_disowned: Cell::new(false),
            disowned: Notify::new(),
        })
    }

    /// Since when it serves no request; `None` while it serves one.
    pub fn quiet_since(&self) -> Option<Monotonic> {
        (self.requests.get() == 0).then(|| self.quiet_since.get())
    }

    /// Has the connection counted as what it is doing, from now on.
    pub fn count(&self, open: OpenConnection) {
        self.open.replace(Some(open));
    }

    /// The connection speaks this from now on.
    pub fn speaks(&self, protocol: Protocol) {
        self.protocol.set(protocol);
        self.note();
    }

    fn note(&self) {
        let state = if self.requests.get() > 0 { ConnectionState::Active } else { ConnectionState::Idle };
        if let Some(open) = self.open.borrow_mut().as_mut() {
            open.becomes(self.protocol.get(), state);
        }
    }

    /// The client certificate by which the connection was let in is not accepted any more: all that goes on has to end.
    pub fn disown(&self) {
        self.is_disowned.set(true);
        self.disowned.notify_waiters();
    }

    /// Whether that has happened.
    pub fn is_disowned(&self) -> bool {
        self.is_disowned.get()
    }

    /// Resolves when no request is in progress.
    pub async fn quiet(&self) {
        while self.quiet_since().is_none() {
            self.became_quiet.notified().await;
        }
    }

    /// Notes a request until what is returned is dropped.
    pub fn busy(self: &Rc<Self>) -> Busy {
        self.requests.set(self.requests.get().saturating_add(1));
        self.note();
        Busy { activity: Rc::clone(self) }
    }
}

impl Busy {
    /// Whether the request's connection has lost its certificate.
    pub fn is_disowned(&self) -> bool {
        self.activity.is_disowned()
    }

    /// Resolves when it has.
    pub async fn disowned(&self) {
        loop {
            let disowned = self.activity.disowned.notified();
            if self.is_disowned() {
                return;
            }
            disowned.await;
        }
    }

    /// Says when the request came to its end, shortly before it is dropped.
    pub fn ends(&self, now: Monotonic) {
        self.activity.quiet_since.set(now);
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.activity.requests.set(self.activity.requests.get().saturating_sub(1));
        self.activity.note();
        self.activity.became_quiet.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::telemetry::metrics::Metrics;

    #[test]
    fn a_connection_is_counted_as_what_it_is_doing() {
        let metrics = Metrics::new();
        let core = metrics.core();
        let shows = |protocol: &str, state: &str| {
            let series =
                format!("valgate_connections{{listener=\"l\",protocol=\"{protocol}\",state=\"{state}\"}} 1");
            metrics.render().unwrap().lines().any(|line| line == series)
        };
        let clock = Clock::system();
        let activity = Activity::new(clock.monotonic());
        activity.count(core.connection(metrics.listener("l")));
        assert!(shows("unknown", "handshake"));
        activity.speaks(Protocol::Http2);
        assert!(shows("http/2", "idle"));
        let busy = [activity.busy(), activity.busy()];
        assert!(shows("http/2", "active") && !shows("http/2", "idle"));
        drop(busy);
        assert!(shows("http/2", "idle") && !shows("http/2", "active"));
    }
}
