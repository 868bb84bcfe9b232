//! What a feed counts, for metrics and status.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use super::lag::Lag;
use crate::clock::UnixSeconds;

/// The counters of one feed since the gateway started.
#[derive(Debug, Default)]
pub struct RevocationFeedStats {
    /// Snapshots put in force.
    pub snapshots: AtomicU64,
    /// Deltas put in force.
    pub deltas: AtomicU64,
    /// Times the source said that nothing changed, or said the same again.
    pub unchanged: AtomicU64,
    /// Failed attempts to hear the source.
    pub failures: AtomicU64,
    /// Entries put in force, each delivery counted.
    pub applied: AtomicU64,
    /// Entries skipped as broken.
    pub broken: AtomicU64,
    /// Entries skipped since the feed does not speak for their issuer.
    pub foreign: AtomicU64,
    /// Entries forgotten after their end.
    pub forgotten: AtomicU64,
    /// Failed attempts to keep the copy on disk.
    pub store_failures: AtomicU64,
    /// How long revocations took to be in force.
    pub lag: Lag,
    last_success: AtomicI64,
}

impl RevocationFeedStats {
    /// When the source was last heard, if it ever was, by the wall clock.
    pub fn last_success(&self) -> Option<UnixSeconds> {
        match self.last_success.load(Ordering::Relaxed) {
            0 => None,
            seconds => Some(UnixSeconds(seconds)),
        }
    }

    pub(super) fn succeeded(&self, now: UnixSeconds) {
        self.last_success.store(now.0, Ordering::Relaxed);
    }

    /// Counts.
    pub(in super::super) fn add(counter: &AtomicU64, by: u64) {
        counter.fetch_add(by, Ordering::Relaxed);
    }
}
