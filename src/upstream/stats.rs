//! What is counted of an upstream and its endpoints: read by scrapes. Per core where it is counted with each request,
//! global where only failures are counted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What is counted of one configured endpoint, over all of its addresses.
#[derive(Debug, Default)]
pub struct EndpointStats {
    cores: Mutex<Vec<Arc<CoreCount>>>,
    /// Sent by cores or to addresses that are gone.
    retired: AtomicU64,
    failed: [AtomicU64; Failure::ALL.len()],
    /// How often it was ejected.
    pub ejections: Counter,
    /// Active checks that failed.
    pub failed_checks: Counter,
}

/// What is counted of one upstream.
#[derive(Debug, Default)]
pub struct UpstreamStats {
    /// Requests that were sent again.
    pub retries: Counter,
    /// Requests that would have been sent again, had the budget allowed it.
    pub retries_over_budget: Counter,
    /// Requests turned away because `limits.requests` were in flight.
    pub over_requests: Counter,
    /// Requests turned away because `limits.pending` were waiting, or after having waited too long.
    pub over_pending: Counter,
    /// Failed resolutions of a name.
    pub failed_resolutions: Counter,
}

/// A counter that is seldom written.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

/// How an attempt at an endpoint failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection.
    Connect,
    /// No TLS.
    Tls,
    /// The connection ended without a response.
    Reset,
    /// No response in time.
    Timeout,
    /// No HTTP response.
    BadResponse,
    /// 502, 503 or 504.
    Status,
}

/// One core's count of requests to one member: written by that core alone, read by it to balance and by scrapes.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct CoreCount {
    in_flight: AtomicU64,
    sent: AtomicU64,
}

impl EndpointStats {
    /// A count for one more core, or for one more address.
    pub fn count(&self) -> Arc<CoreCount> {
        let count = Arc::new(CoreCount::default());
        let mut cores = self.cores.lock().unwrap_or_else(PoisonError::into_inner);
        cores.push(Arc::clone(&count));
        count
    }

    /// Takes in a count that is written no longer.
    pub fn retire(&self, count: &Arc<CoreCount>) {
        let mut cores = self.cores.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = cores.iter().position(|other| Arc::ptr_eq(other, count)) {
            self.retired.fetch_add(cores.swap_remove(place).sent.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    /// Requests sent to the endpoint, retries included.
    pub fn sent(&self) -> u64 {
        self.sum(|count| &count.sent).saturating_add(self.retired.load(Ordering::Relaxed))
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> u64 {
        self.sum(|count| &count.in_flight)
    }

    /// Counts a failed attempt.
    pub fn failed(&self, failure: Failure) {
        if let Some(counter) = self.failed.get(failure as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Attempts that failed in this way.
    pub fn failures(&self, failure: Failure) -> u64 {
        self.failed.get(failure as usize).map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    fn sum(&self, which: impl Fn(&CoreCount) -> &AtomicU64) -> u64 {
        let cores = self.cores.lock().unwrap_or_else(PoisonError::into_inner);
        cores.iter().map(|count| which(count).load(Ordering::Relaxed)).sum()
    }
}

impl Counter {
    /// One more.
    pub fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How many there were.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Failure {
    /// All of them, in the order of their discriminants.
    pub const ALL: &'static [Self] =
        &[Self::Connect, Self::Tls, Self::Reset, Self::Timeout, Self::BadResponse, Self::Status];

    /// As the metric's label has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
            Self::BadResponse => "bad_response",
            Self::Status => "status",
        }
    }
}

impl CoreCount {
    /// Requests in flight, as the core that counts them sees it.
    pub fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// One more request is in flight. For the counting core alone, as [`Self::end`].
    pub fn begin(&self) {
        // With one writer a load and a store lose nothing, and the cache line stays with its core.
        self.in_flight.store(self.in_flight() + 1, Ordering::Relaxed);
        self.sent.store(self.sent.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// One request less is in flight.
    pub fn end(&self) {
        self.in_flight.store(self.in_flight().saturating_sub(1), Ordering::Relaxed);
    }
}
