//! The circuit breaker: an endpoint that keeps failing is left alone for a while, then tried with a single token. Pure.

use std::time::Duration;

use crate::clock::Monotonic;

/// When to stop asking, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct BreakerSettings {
    /// Failures in a row after which nothing is asked any more.
    pub failures: u32,
    /// How long.
    pub pause: Duration,
}

#[derive(Debug)]
pub(super) struct Breaker {
    settings: BreakerSettings,
    failures: u32,
    retry_at: Monotonic,
    trying: bool,
}

impl Breaker {
    pub(super) fn new(settings: BreakerSettings) -> Self {
        Self { settings, failures: 0, retry_at: Monotonic::default(), trying: false }
    }

    /// Whether to ask now. An ask that is admitted must be followed by [`Self::succeeded`] or [`Self::failed`].
    pub(super) fn admits(&mut self, now: Monotonic) -> bool {
        if !self.is_open() {
            return true;
        }
        let admitted = !self.trying && now >= self.retry_at;
        self.trying |= admitted;
        admitted
    }

    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
        self.trying = false;
    }

    pub(super) fn failed(&mut self, now: Monotonic) {
        self.failures = self.failures.saturating_add(1);
        self.trying = false;
        self.retry_at = Monotonic(now.0.saturating_add(self.settings.pause));
    }

    pub(super) fn is_open(&self) -> bool {
        self.failures >= self.settings.failures
    }

    /// How long until the endpoint is tried again.
    pub(super) fn left(&self, now: Monotonic) -> Duration {
        now.until(self.retry_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Monotonic {
        Monotonic(Duration::from_secs(seconds))
    }

    #[test]
    fn opens_after_failures_in_a_row_and_closes_on_a_single_success() {
        let mut breaker = Breaker::new(BreakerSettings { failures: 2, pause: Duration::from_secs(5) });
        breaker.failed(at(0));
        breaker.succeeded();
        breaker.failed(at(0));
        assert!(breaker.admits(at(0)), "not two in a row");
        breaker.failed(at(1));
        assert!(!breaker.admits(at(5)));
        assert_eq!(breaker.left(at(2)), Duration::from_secs(4));
        assert!(breaker.admits(at(6)), "one is let through");
        assert!(!breaker.admits(at(6)), "and no other beside it");
        breaker.failed(at(7));
        assert!(!breaker.admits(at(11)));
        assert!(breaker.admits(at(12)));
        breaker.succeeded();
        assert!(!breaker.is_open() && breaker.admits(at(12)) && breaker.admits(at(12)));
    }
}
