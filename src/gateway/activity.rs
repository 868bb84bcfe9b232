//! Whether a connection is serving requests: from a request's first byte to the last of its response.

use std::cell::Cell;
use std::rc::Rc;

use tokio::sync::Notify;

use crate::clock::{Clock, Monotonic};

/// What one connection is doing.
#[derive(Debug)]
pub struct Activity {
    requests: Cell<u32>,
    quiet_since: Cell<Monotonic>,
    became_quiet: Notify,
}

/// A request in progress, until dropped.
#[derive(Debug)]
pub struct Busy {
    activity: Rc<Activity>,
    clock: Clock,
}

impl Activity {
    /// A connection that has just been made.
    pub fn new(now: Monotonic) -> Rc<Self> {
        Rc::new(Self { requests: Cell::new(0), quiet_since: Cell::new(now), became_quiet: Notify::new() })
    }

    /// Since when it serves no request; `None` while it serves one.
    pub fn quiet_since(&self) -> Option<Monotonic> {
        (self.requests.get() == 0).then(|| self.quiet_since.get())
    }

    /// Resolves when no request is in progress.
    pub async fn quiet(&self) {
        while self.quiet_since().is_none() {
            self.became_quiet.notified().await;
        }
    }

    /// Notes a request until what is returned is dropped.
    pub fn busy(self: &Rc<Self>, clock: &Clock) -> Busy {
        self.requests.set(self.requests.get().saturating_add(1));
        Busy { activity: Rc::clone(self), clock: clock.clone() }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.activity.requests.set(self.activity.requests.get().saturating_sub(1));
        self.activity.quiet_since.set(self.clock.monotonic());
        self.activity.became_quiet.notify_waiters();
    }
}
