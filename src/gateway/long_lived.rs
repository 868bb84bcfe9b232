//! Responses that go on for long: WebSocket, server-sent events, gRPC streams. They end with their token.
//!
//! A response registers when it first has to wait for more, so that the short ones pay nothing. What was registered
//! is looked at several times a second: the token's end is a comparison, and its revocation is only looked up when a
//! feed has changed since the request's own check, so that no revocation falls between the two.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::task::Waker;
use std::time::Duration;

use tokio::sync::Notify;

use crate::catalogue::Reason;
use crate::clock::Clock;
use crate::revocation::{LiveToken, RevocationPolicies};

/// How often the long-lived responses are looked at: a revocation ends them well within a second.
pub const SWEEP: Duration = Duration::from_millis(200);

/// The long-lived responses of one core.
#[derive(Debug, Default)]
pub struct LongLived(RefCell<Vec<Weak<Stream>>>);

/// One long-lived response; watched for as long as it is held.
#[derive(Debug)]
pub struct Stream {
    token: LiveToken,
    seen: Cell<u64>,
    ended: Cell<Option<Ending>>,
    waker: RefCell<Option<Waker>>,
    changed: Notify,
}

/// Why a response was ended before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The token's lifetime is over.
    Expired,
    /// The token was revoked.
    Revoked,
}

impl Ending {
    /// The reason that the client is given.
    pub const fn reason(self) -> Reason {
        match self {
            Self::Expired => Reason::Expired,
            Self::Revoked => Reason::Revoked,
        }
    }
}

impl LongLived {
    /// Watches a response on behalf of this token.
    pub fn watch(&self, token: &LiveToken) -> Rc<Stream> {
        let stream = Rc::new(Stream {
            token: token.clone(),
            seen: Cell::new(token.generation()),
            ended: Cell::new(None),
            waker: RefCell::new(None),
            changed: Notify::new(),
        });
        self.0.borrow_mut().push(Rc::downgrade(&stream));
        stream
    }

    /// Ends those whose token has ended, and forgets those that are over.
    pub fn sweep(&self, revocation: &RevocationPolicies, clock: &Clock) {
        let mut ended = Vec::new();
        self.0.borrow_mut().retain(|stream| {
            let Some(stream) = stream.upgrade() else { return false };
            let Some(ending) = stream.judge(revocation, clock) else { return true };
            ended.push((stream, ending));
            false
        });
        // Woken only now, since what is woken may register anew.
        for (stream, ending) in ended {
            stream.end(ending);
        }
    }
}

impl Stream {
    fn judge(&self, revocation: &RevocationPolicies, clock: &Clock) -> Option<Ending> {
        let leeway = self.token.issuer().expectations.leeway;
        if clock.wall() >= self.token.expires().plus(leeway) {
            return Some(Ending::Expired);
        }
        match revocation.recheck(&self.token, self.seen.get(), clock) {
            Ok(generation) => {
                self.seen.set(generation);
                None
            }
            Err(_) => Some(Ending::Revoked),
        }
    }

    fn end(&self, ending: Ending) {
        self.ended.set(Some(ending));
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
        self.changed.notify_waiters();
    }

    /// Whether the response has to end; if not yet, `waker` is woken when it has to.
    pub fn poll_ended(&self, waker: &Waker) -> Option<Ending> {
        if let Some(ending) = self.ended.get() {
            return Some(ending);
        }
        let mut held = self.waker.borrow_mut();
        if !held.as_ref().is_some_and(|held| held.will_wake(waker)) {
            *held = Some(waker.clone());
        }
        None
    }

    /// Resolves when the response has to end.
    pub async fn ended(&self) -> Ending {
        loop {
            let changed = self.changed.notified();
            if let Some(ending) = self.ended.get() {
                return ending;
            }
            changed.await;
        }
    }
}
