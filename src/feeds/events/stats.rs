//! What a feed of events counts, for metrics.

use std::sync::atomic::{AtomicU64, Ordering};

/// The counters of one feed since the gateway started.
#[derive(Debug, Default)]
pub struct EventStats {
    /// Statements accepted, verification events and repeated ones among them.
    pub accepted: AtomicU64,
    /// Statements refused: not authenticated, not signed well, or against the rules.
    pub refused: AtomicU64,
    /// Statements that had been accepted before.
    pub repeated: AtomicU64,
    /// Events about a subject that no fact of tokens is mapped to: they revoke nothing.
    pub unmapped: AtomicU64,
    /// Events of types that revoke nothing.
    pub ignored: AtomicU64,
}

impl EventStats {
    pub(super) fn one(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
