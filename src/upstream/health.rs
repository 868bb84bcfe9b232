//! Whether a member may be used: what active checks say of it, and whether it was ejected because requests failed.
//!
//! Atomics that all cores read with each choice among several members. They are written by the control runtime after
//! a check that changed something, and by a core when a request fails or is the first to succeed again.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::settings::Ejection;
use crate::clock::Monotonic;

/// What is known of one member.
#[derive(Debug, Default)]
pub struct Health {
    /// Active checks have failed.
    unhealthy: AtomicBool,
    /// Requests that failed in a row.
    failures: AtomicU32,
    /// The end of the ejection, in milliseconds of the monotonic clock; 0 if it is not ejected.
    ejected_until: AtomicU64,
    /// How often in a row it was ejected.
    times: AtomicU32,
}

/// How a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It may be used.
    Healthy,
    /// Active checks have failed.
    Unhealthy,
    /// Requests have failed.
    Ejected,
}

impl Health {
    /// How it is at this moment.
    pub fn state(&self, now: impl FnOnce() -> Monotonic) -> State {
        if self.unhealthy.load(Ordering::Relaxed) {
            return State::Unhealthy;
        }
        // Read first, so that no clock is while nothing is wrong.
        let until = self.ejected_until.load(Ordering::Relaxed);
        if until != 0 && until > millis(now()) { State::Ejected } else { State::Healthy }
    }

    /// Notes what active checks have come to. Whether that is news.
    pub fn checked(&self, is_healthy: bool) -> bool {
        self.unhealthy.swap(!is_healthy, Ordering::Relaxed) == is_healthy
    }

    /// Notes a request that succeeded. True for the one that ends an ejection whose time is over.
    pub fn succeeded(&self) -> bool {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
        if self.ejected_until.load(Ordering::Relaxed) == 0 {
            return false;
        }
        self.times.store(0, Ordering::Relaxed);
        self.ejected_until.swap(0, Ordering::Relaxed) != 0
    }

    /// Notes a request that failed. True if the member has failed often enough to be ejected.
    pub fn failed(&self, ejection: &Ejection) -> bool {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        ejection.consecutive_failures > 0 && failures >= ejection.consecutive_failures
    }

    /// Ejects it: for twice as long each time in a row. Returns for how long, or `None` if another core was faster.
    pub fn eject(&self, ejection: &Ejection, now: Monotonic) -> Option<Duration> {
        let now = millis(now);
        let until = self.ejected_until.load(Ordering::Relaxed);
        if until > now {
            return None;
        }
        let times = self.times.load(Ordering::Relaxed).min(31);
        let time = ejection.time.saturating_mul(1 << times).min(ejection.max_time);
        let end = now.saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)).max(1);
        self.ejected_until.compare_exchange(until, end, Ordering::Relaxed, Ordering::Relaxed).ok()?;
        self.times.store(times + 1, Ordering::Relaxed);
        // One more failure after its time is enough: it is on probation.
        self.failures.store(ejection.consecutive_failures.saturating_sub(1), Ordering::Relaxed);
        Some(time)
    }
}

fn millis(at: Monotonic) -> u64 {
    u64::try_from(at.0.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Ejection, Health, State};
    use crate::clock::Monotonic;

    const EJECTION: Ejection = Ejection {
        consecutive_failures: 3,
        time: Duration::from_secs(10),
        max_time: Duration::from_secs(30),
        max_percent: 50,
    };

    fn at(seconds: u64) -> Monotonic {
        Monotonic(Duration::from_secs(seconds))
    }

    #[test]
    fn failures_in_a_row_eject_and_a_success_between_them_does_not() {
        let health = Health::default();
        assert!(!health.failed(&EJECTION) && !health.failed(&EJECTION));
        health.succeeded();
        assert!(!health.failed(&EJECTION) && !health.failed(&EJECTION));
        assert!(health.failed(&EJECTION));
    }

    #[test]
    fn ejections_grow_to_their_bound_and_a_success_begins_anew() {
        let health = Health::default();
        let mut now = 1;
        for seconds in [10, 20, 30, 30] {
            assert_eq!(health.eject(&EJECTION, at(now)), Some(Duration::from_secs(seconds)));
            assert_eq!(health.eject(&EJECTION, at(now)), None, "ejected already");
            assert_eq!(health.state(|| at(now + seconds - 1)), State::Ejected);
            now += seconds;
            assert_eq!(health.state(|| at(now)), State::Healthy);
            assert!(health.failed(&EJECTION), "on probation one failure is enough");
        }
        assert!(health.succeeded());
        assert!(!health.succeeded(), "told once");
        assert_eq!(health.eject(&EJECTION, at(now)), Some(Duration::from_secs(10)));
    }

    #[test]
    fn checks_are_news_only_when_they_change_something() {
        let health = Health::default();
        assert!(!health.checked(true));
        assert!(health.checked(false));
        assert!(!health.checked(false));
        assert_eq!(health.state(|| at(0)), State::Unhealthy);
        assert!(health.checked(true));
    }
}
