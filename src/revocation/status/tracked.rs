//! One list that is followed: the copy at hand, how old it is, and whether anybody still needs it.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::watch;

use super::list::StatusList;
use crate::clock::{Clock, Monotonic, UnixSeconds};

/// A list by its URI.
#[derive(Debug)]
pub struct TrackedList {
    uri: Box<str>,
    copy: ArcSwapOption<Copy>,
    needed_until: AtomicI64,
    /// Whether fetching it was tried at all, with whatever outcome.
    tried: watch::Sender<bool>,
    /// The same, for requests, which take no lock.
    was_tried: AtomicBool,
    /// Whether a copy from before a restart may still be read.
    is_restoring: AtomicBool,
    /// When a request first waited for it.
    awaited: OnceLock<Monotonic>,
}

/// A list as it was fetched.
#[derive(Clone, Debug)]
pub struct Copy {
    /// What it says.
    pub list: Arc<StatusList>,
    /// When its publisher last confirmed it, or a restart brought it back.
    pub heard: Monotonic,
    /// How old it was then.
    pub age: Duration,
    /// When it was made (`iat`).
    pub issued_at: UnixSeconds,
    /// When it stops to count, however recently it was fetched (`exp`).
    pub expires: Option<UnixSeconds>,
}

/// What a list says of one token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// 0: in force.
    Valid,
    /// Anything else: 1 invalid, 2 suspended, others that nobody here knows.
    NotValid(u8),
    /// In force, but by a copy that is too old to rely on.
    Stale,
    /// There is no copy.
    NotLoaded,
    /// The list does not reach that far.
    OutOfRange,
}

impl TrackedList {
    pub(super) fn new(uri: &str, until: UnixSeconds) -> Self {
        Self {
            uri: uri.into(),
            copy: ArcSwapOption::empty(),
            needed_until: AtomicI64::new(until.0),
            tried: watch::Sender::new(false),
            was_tried: AtomicBool::new(false),
            is_restoring: AtomicBool::new(false),
            awaited: OnceLock::new(),
        }
    }

    /// Where it is published, as tokens name it.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// The status at this index, by a copy that may be as old as `max_staleness`. What is known not to be valid is told
    /// however old the knowledge.
    pub fn status(&self, index: u64, clock: &Clock, max_staleness: Duration) -> Status {
        let copy = self.copy.load();
        let Some(copy) = copy.as_deref() else { return Status::NotLoaded };
        match copy.list.get(index) {
            // One that is too old may have grown since.
            None | Some(0) if copy.is_stale(clock, max_staleness) => Status::Stale,
            None => Status::OutOfRange,
            Some(0) => Status::Valid,
            Some(other) => Status::NotValid(other),
        }
    }

    /// Whether nothing is known of it yet.
    pub fn is_empty(&self) -> bool {
        self.copy.load().is_none()
    }

    /// Resolves once fetching it was tried; `wait` after the first request began to wait for it, for all of them
    /// together; or at once, if it is not the first and the publisher `is_slow`.
    pub(super) async fn first_try(&self, now: Monotonic, wait: Duration, is_slow: bool) {
        let mut tried = self.tried.subscribe();
        let mut is_first = false;
        let since = *self.awaited.get_or_init(|| {
            is_first = true;
            now
        });
        let left = wait.saturating_sub(since.until(now));
        if left.is_zero() || (is_slow && !is_first) {
            return;
        }
        let _ = tokio::time::timeout(left, tried.wait_for(|tried| *tried)).await;
    }

    /// Whether there is nothing to wait for. A copy from before a restart is not enough: what was revoked while the gateway
    /// was away is not in it, and its publisher is being asked.
    pub fn was_tried(&self) -> bool {
        self.was_tried.load(Ordering::Acquire)
    }

    pub(super) fn tried(&self) {
        self.was_tried.store(true, Ordering::Release);
        self.tried.send_if_modified(|tried| !std::mem::replace(tried, true));
    }

    /// Whether what was known before a restart is still being read: until then nobody can say that nothing is known.
    pub fn is_restoring(&self) -> bool {
        self.is_restoring.load(Ordering::Acquire)
    }

    /// Notes whether a copy from before a restart may still be read.
    pub fn restores(&self, is_restoring: bool) {
        self.is_restoring.store(is_restoring, Ordering::Release);
    }

    /// When the copy at hand was made.
    pub fn issued_at(&self) -> Option<UnixSeconds> {
        self.copy.load().as_deref().map(|copy| copy.issued_at)
    }

    /// How long ago its publisher last confirmed it.
    pub fn age(&self, now: Monotonic) -> Option<Duration> {
        self.copy.load().as_deref().map(|copy| copy.age.saturating_add(copy.heard.until(now)))
    }

    /// The copy at hand was confirmed.
    pub fn confirm(&self, now: Monotonic) {
        if let Some(copy) = self.copy.load_full() {
            self.copy.store(Some(Arc::new(Copy {
                heard: now,
                age: Duration::ZERO,
                list: Arc::clone(&copy.list),
                issued_at: copy.issued_at,
                expires: copy.expires,
            })));
        }
    }

    pub(super) fn replace(&self, copy: Copy) -> bool {
        let list = Arc::clone(&copy.list);
        let before = self.copy.swap(Some(Arc::new(copy)));
        before.is_none_or(|before| before.list != list)
    }

    pub(super) fn need_until(&self, until: UnixSeconds) {
        self.needed_until.fetch_max(until.0, Ordering::AcqRel);
    }

    pub(super) fn is_needed(&self, now: UnixSeconds) -> bool {
        now.0 < self.needed_until.load(Ordering::Acquire)
    }
}

impl Copy {
    fn is_stale(&self, clock: &Clock, max_staleness: Duration) -> bool {
        self.age.saturating_add(self.heard.until(clock.monotonic())) > max_staleness
            || self.expires.is_some_and(|expires| clock.wall() >= expires)
    }
}
