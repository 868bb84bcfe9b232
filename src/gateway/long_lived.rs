//! Responses that go on for long: WebSocket, server-sent events, gRPC streams. They end with their token.
//!
//! A response registers when it first has to wait for more, so that the short ones pay nothing. What was registered
//! is looked at several times a second: the token's end is a comparison, and its revocation is only looked up when a
//! feed has changed since the request's own check, so that no revocation falls between the two. Whoever withdraws a key
//! revokes what it signed. Where the issuer was asked about the token, it is asked again whenever its word has run out.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::task::Waker;
use std::time::Duration;

use tokio::sync::Notify;

use crate::catalogue::Reason;
use crate::clock::{Clock, Monotonic};
use crate::revocation::{LiveToken, RevocationPolicies};
use crate::token::Issuers;

/// How often the long-lived responses are looked at: a revocation ends them well within a second.
pub const SWEEP: Duration = Duration::from_millis(200);

/// At the least between two questions about one response, however short the issuer's word holds.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// The long-lived responses of one core.
#[derive(Debug, Default)]
pub struct LongLived(RefCell<Vec<Weak<Stream>>>);

/// One long-lived response; watched for as long as it is held.
#[derive(Debug)]
pub struct Stream {
    token: LiveToken,
    seen: Cell<u64>,
    /// When the issuer is to be asked again, where it was asked; `None` while it is.
    ask_at: Cell<Option<Monotonic>>,
    ended: Cell<Option<Ending>>,
    waker: RefCell<Option<Waker>>,
    changed: Notify,
}

/// Why a response was ended before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The token's lifetime is over.
    Expired,
    /// The token was revoked, or the key that signed it withdrawn.
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
            ask_at: Cell::new(token.confirmed_until()),
            ended: Cell::new(None),
            waker: RefCell::new(None),
            changed: Notify::new(),
        });
        self.0.borrow_mut().push(Rc::downgrade(&stream));
        stream
    }

    /// Ends those whose token has ended, and forgets those that are over. Of those that are returned the issuer is to
    /// be asked, by its stream.
    pub fn sweep(
        &self,
        revocation: &RevocationPolicies,
        issuers: &Issuers,
        clock: &Clock,
    ) -> Vec<Rc<Stream>> {
        let (mut ended, mut unconfirmed) = (Vec::new(), Vec::new());
        let now = clock.monotonic();
        self.0.borrow_mut().retain(|stream| {
            let Some(stream) = stream.upgrade() else { return false };
            let Some(ending) = stream.judge(revocation, issuers, clock) else {
                if stream.ask_at.get().is_some_and(|at| at <= now) {
                    stream.ask_at.set(None);
                    unconfirmed.push(stream);
                }
                return true;
            };
            ended.push((stream, ending));
            false
        });
        // Woken only now, since what is woken may register anew.
        for (stream, ending) in ended {
            stream.end(ending);
        }
        unconfirmed
    }
}

impl Stream {
    fn judge(&self, revocation: &RevocationPolicies, issuers: &Issuers, clock: &Clock) -> Option<Ending> {
        let leeway = self.token.issuer().expectations.leeway;
        if clock.wall() >= self.token.expires().plus(leeway) {
            return Some(Ending::Expired);
        }
        if self.token.is_key_withdrawn(issuers) {
            return Some(Ending::Revoked);
        }
        match revocation.recheck(&self.token, self.seen.get(), clock) {
            Ok(generation) => {
                self.seen.set(generation);
                None
            }
            Err(_) => Some(Ending::Revoked),
        }
    }

    /// Asks the issuer again, which is one of these today, and ends the response if it no longer stands behind the
    /// token. While it cannot be asked, what was let in stays, as with a feed.
    pub async fn confirm(&self, issuers: &Issuers, clock: &Clock) {
        let soon = |clock: &Clock| Monotonic(clock.monotonic().0.saturating_add(ASK_AGAIN));
        match self.token.confirm(issuers).await {
            Ok(Some(until)) => self.ask_at.set(Some(until.max(soon(clock)))),
            Ok(None) => self.end(Ending::Revoked),
            Err(_) => self.ask_at.set(Some(soon(clock))),
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
