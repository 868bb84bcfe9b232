//! What a feed shares with the requests that rely on it: its index, and how long ago it was last heard from.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use crate::clock::Monotonic;

use super::index::Index;

/// The state of one feed: written by its task, read by every request.
#[derive(Debug)]
pub struct FeedState {
    name: String,
    index: Index,
    /// Milliseconds of monotonic time; below zero for what a restart brought back from before the clock was made.
    heard_at: AtomicI64,
    /// Whether a copy from before a restart may still be on its way into the index.
    restoring: watch::Sender<bool>,
}

/// How current the copy of a feed is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Nothing was ever loaded: what is revoked is unknown.
    NotLoaded,
    /// Heard from within the permitted time.
    Fresh {
        /// How long ago.
        age: Duration,
    },
    /// Not heard from for longer than that.
    Stale {
        /// How long ago.
        age: Duration,
    },
}

impl FeedState {
    /// A feed that was not heard from yet.
    pub fn new(name: impl Into<String>, index: Index) -> Self {
        let restoring = watch::Sender::new(false);
        Self { name: name.into(), index, heard_at: AtomicI64::new(NEVER), restoring }
    }

    /// Its name in the configuration.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it revokes.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// The index is what the source says at `now`.
    pub fn heard(&self, now: Monotonic) {
        self.heard_at.store(millis(now.0), Ordering::Release);
    }

    /// The index is what the source said `age` before `now`, as with a copy from disk; `None` if the age cannot be
    /// told, which counts as stale under every limit.
    pub fn heard_before(&self, now: Monotonic, age: Option<Duration>) {
        let at = age.map_or(UNKNOWN, |age| millis(now.0).saturating_sub(millis(age)).max(UNKNOWN));
        self.heard_at.store(at, Ordering::Release);
    }

    /// There may be a copy from before a restart. Until [`Self::restored`], what it revokes is not known, and no policy
    /// lets anybody in without it.
    pub fn restores(&self) {
        self.restoring.send_replace(true);
    }

    /// What was kept is in the index, or is not to be had.
    pub fn restored(&self) {
        self.restoring.send_replace(false);
    }

    /// Whether what was kept is not in the index yet.
    pub fn is_restoring(&self) -> bool {
        *self.restoring.borrow()
    }

    /// Resolves once [`Self::is_restoring`] is no longer so.
    pub async fn until_restored(&self) {
        // The sender is here and cannot be gone.
        let _ = self.restoring.subscribe().wait_for(|restoring| !restoring).await;
    }

    /// Whether there is anything to rely on, however old.
    pub fn is_loaded(&self) -> bool {
        self.heard_at.load(Ordering::Acquire) != NEVER
    }

    /// How current the index is at `now`, when `max_staleness` is permitted.
    pub fn freshness(&self, now: Monotonic, max_staleness: Duration) -> Freshness {
        let heard_at = self.heard_at.load(Ordering::Acquire);
        if heard_at == NEVER {
            return Freshness::NotLoaded;
        }
        let age = millis(now.0).saturating_sub(heard_at);
        let age = Duration::from_millis(u64::try_from(age).unwrap_or(0));
        if heard_at != UNKNOWN && age <= max_staleness {
            Freshness::Fresh { age }
        } else {
            Freshness::Stale { age }
        }
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

const NEVER: i64 = i64::MIN;
const UNKNOWN: i64 = i64::MIN + 1;

#[cfg(test)]
mod tests {
    use super::super::facts::FactHasher;
    use super::*;

    const MAX: Duration = Duration::from_secs(60);

    fn feed() -> FeedState {
        FeedState::new(
            "logout",
            Index::new(FactHasher::random(), ["https://a".to_owned()], Duration::ZERO, 10),
        )
    }

    fn at(seconds: u64) -> Monotonic {
        Monotonic(Duration::from_secs(seconds))
    }

    #[test]
    fn ages_from_the_last_time_it_was_heard() {
        let feed = feed();
        assert_eq!(feed.freshness(at(0), MAX), Freshness::NotLoaded);
        assert!(!feed.is_loaded());
        feed.heard(at(10));
        assert_eq!(feed.freshness(at(10), MAX), Freshness::Fresh { age: Duration::ZERO });
        assert_eq!(feed.freshness(at(70), MAX), Freshness::Fresh { age: MAX });
        assert_eq!(feed.freshness(at(71), MAX), Freshness::Stale { age: Duration::from_secs(61) });
    }

    #[test]
    fn a_copy_from_disk_counts_with_its_age() {
        let feed = feed();
        feed.heard_before(at(1), Some(Duration::from_secs(50)));
        assert_eq!(feed.freshness(at(1), MAX), Freshness::Fresh { age: Duration::from_secs(50) });
        assert!(matches!(feed.freshness(at(12), MAX), Freshness::Stale { .. }));
    }

    #[test]
    fn an_age_that_cannot_be_told_is_stale_under_every_limit() {
        let feed = feed();
        feed.heard_before(at(1), None);
        assert!(feed.is_loaded());
        assert!(matches!(feed.freshness(at(1), Duration::MAX), Freshness::Stale { .. }));
    }
}
