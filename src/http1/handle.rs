//! What the two ends of one connection tell each other past the parser: the guard, which sees bytes, and the
//! service, which sees requests.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};

use super::violation::Violation;

/// The service's end. One for each connection; clones are the same one.
#[derive(Clone, Debug)]
pub struct GuardHandle(Arc<Shared>);

impl GuardHandle {
    /// To be called first at each call of the service, once: takes the next request that the guard released.
    ///
    /// # Errors
    /// The violation, if this is the request that the guard refused. What hyper hands to the service then is a
    /// stand-in, to be ignored; the answer is all that matters, and hyper closes the connection behind it.
    pub fn begin(&self) -> Result<Turn, Violation> {
        let ordinal = self.0.begun.fetch_add(1, Ordering::AcqRel) + 1;
        if let Some(refusal) = self.0.refusal.get()
            && refusal.ordinal == ordinal
            && !refusal.in_body
        {
            return Err(refusal.violation);
        }
        // Cannot be while hyper parses as the guard does. If it ever does not, the request was not checked.
        if ordinal > self.0.released.load(Ordering::Acquire) {
            return Err(Violation::malformed("the parser saw a request that the guard did not"));
        }
        Ok(Turn {
            shared: Arc::clone(&self.0),
            ordinal,
            offers_upgrade: self.0.crossroads.load(Ordering::Acquire) == ordinal,
        })
    }

    /// The violation that ended this connection, if one did, whether or not it came to an answer: a client that
    /// leaves, or says `Connection: close`, before its bad request's turn gets none. For the log, at the end.
    pub fn violation(&self) -> Option<Violation> {
        self.0.refusal.get().map(|refusal| refusal.violation)
    }

    /// The same, if it was in a request's head, so that nothing else tells of it unless its turn came.
    pub fn violation_of_head(&self) -> Option<Violation> {
        self.0.refusal.get().filter(|refusal| !refusal.in_body).map(|refusal| refusal.violation)
    }

    /// Whether the parser holds nothing of this connection, so that it could be taken away and another put in its place:
    /// every request that was released has begun, the next has not sent a byte, all that was written has left, and it has
    /// not begun to close. What is still to be written, the service has to know itself.
    pub fn is_at_rest(&self) -> bool {
        let shared = &self.0;
        shared.awaits_head.load(Ordering::Acquire)
            && !shared.is_ending.load(Ordering::Acquire)
            && !shared.owes_flush.load(Ordering::Acquire)
            && shared.begun.load(Ordering::Acquire) == shared.released.load(Ordering::Acquire)
    }

    pub(super) fn new() -> (Self, Arc<Shared>) {
        let shared = Arc::new(Shared::default());
        (Self(Arc::clone(&shared)), shared)
    }
}

/// One request's turn on its connection. Keep it until the response is complete.
///
/// If the request offered an upgrade, the guard holds back what follows it until the turn says what that is:
/// [`Turn::tunnel`], or dropped, another request.
#[derive(Debug)]
pub struct Turn {
    shared: Arc<Shared>,
    ordinal: u64,
    offers_upgrade: bool,
}

impl Turn {
    /// Which request on the connection this is, from 1.
    pub fn ordinal(&self) -> u64 {
        self.ordinal
    }

    /// Whether the head carried `Upgrade` in HTTP/1.1, so that a 101 may answer it.
    pub fn offers_upgrade(&self) -> bool {
        self.offers_upgrade
    }

    /// Why the body ended in an error, if the client's framing was to blame. Ask when reading the body fails; if no
    /// response has begun, this is the one to give.
    pub fn body_violation(&self) -> Option<Violation> {
        let refusal = self.shared.refusal.get()?;
        (refusal.ordinal == self.ordinal && refusal.in_body).then_some(refusal.violation)
    }

    /// The upgrade is accepted: from the end of this request on, the guard passes all bytes as they are. To be called
    /// before the 101 is handed to hyper. False, and without effect, if the request did not offer an upgrade: then
    /// there must be no 101.
    pub fn tunnel(self) -> bool {
        if self.offers_upgrade {
            self.shared.tunnel.store(self.ordinal, Ordering::Release);
        }
        // Dropping wakes the guard, which looks for a tunnel first.
        self.offers_upgrade
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.offers_upgrade {
            self.shared.declined.store(self.ordinal, Ordering::Release);
            self.shared.wake();
        }
    }
}

/// What both ends see. Ordinals count from 1; 0 is none.
#[derive(Debug, Default)]
pub(super) struct Shared {
    released: AtomicU64,
    begun: AtomicU64,
    /// The last released request that offers an upgrade.
    crossroads: AtomicU64,
    tunnel: AtomicU64,
    declined: AtomicU64,
    /// The last read found nothing where a head is to begin.
    awaits_head: AtomicBool,
    /// Bytes were written that have not been flushed since.
    owes_flush: AtomicBool,
    /// The parser has begun to close it.
    is_ending: AtomicBool,
    refusal: OnceLock<Refusal>,
    waker: Mutex<Option<Waker>>,
}

#[derive(Debug)]
struct Refusal {
    ordinal: u64,
    in_body: bool,
    violation: Violation,
}

/// What became of an offered upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Tunnel,
    Http,
}

impl Shared {
    /// Head number `ordinal` goes to the parser.
    pub(super) fn release(&self, ordinal: u64, offers_upgrade: bool) {
        if offers_upgrade {
            self.crossroads.store(ordinal, Ordering::Release);
        }
        self.released.store(ordinal, Ordering::Release);
    }

    /// Head number `ordinal`, or its body, is refused. The first refusal stands.
    pub(super) fn refuse(&self, ordinal: u64, in_body: bool, violation: Violation) {
        _ = self.refusal.set(Refusal { ordinal, in_body, violation });
    }

    /// Whether the last read found nothing where a head is to begin.
    pub(super) fn awaits_head(&self, awaits: bool) {
        self.awaits_head.store(awaits, Ordering::Release);
    }

    /// Whether bytes were written that have not been flushed since.
    pub(super) fn owes_flush(&self, owes: bool) {
        self.owes_flush.store(owes, Ordering::Release);
    }

    /// The parser has begun to close the connection: whatever the client sends now is for nobody (RFC 9112 section 9.6).
    pub(super) fn ends(&self) {
        self.is_ending.store(true, Ordering::Release);
    }

    /// Waits for what becomes of the upgrade that request number `ordinal` offers.
    pub(super) fn poll_direction(&self, cx: &Context<'_>, ordinal: u64) -> Poll<Direction> {
        if let Some(direction) = self.direction(ordinal) {
            return Poll::Ready(direction);
        }
        self.lock_waker().replace(cx.waker().clone());
        // Once more, in case it was decided before the waker stood there.
        self.direction(ordinal).map_or(Poll::Pending, Poll::Ready)
    }

    fn direction(&self, ordinal: u64) -> Option<Direction> {
        // A turn that chose the tunnel declines too when it is dropped, afterwards.
        let declined = self.declined.load(Ordering::Acquire) >= ordinal;
        if self.tunnel.load(Ordering::Acquire) == ordinal {
            Some(Direction::Tunnel)
        } else {
            declined.then_some(Direction::Http)
        }
    }

    fn wake(&self) {
        if let Some(waker) = self.lock_waker().take() {
            waker.wake();
        }
    }

    fn lock_waker(&self) -> std::sync::MutexGuard<'_, Option<Waker>> {
        self.waker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
