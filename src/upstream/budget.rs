//! The retry budget of one core: retries are a share of the requests, so that an upstream in trouble gets little more
//! than its usual load, and a minimum for the time when there are few requests.

use std::cell::Cell;
use std::time::Duration;

use crate::clock::Monotonic;

/// One retry costs this much; a request earns as many as the budget has percent.
const PRICE: u64 = 100;

/// What may be saved up: the share of the last this many requests.
const MEMORY: u64 = 1_000;

/// How many retries may be made.
#[derive(Debug)]
pub(super) struct Budget {
    percent: u64,
    /// In each second.
    least: u64,
    earned: Cell<u64>,
    /// Of the minimum, in the second that began at `since`.
    used: Cell<u64>,
    since: Cell<Monotonic>,
}

impl Budget {
    pub fn new(percent: u32, least: u32) -> Self {
        let (percent, least) = (u64::from(percent), u64::from(least));
        Self { percent, least, earned: Cell::new(0), used: Cell::new(0), since: Cell::default() }
    }

    /// Notes a request.
    pub fn earn(&self) {
        let most = self.percent.saturating_mul(MEMORY);
        self.earned.set(self.earned.get().saturating_add(self.percent).min(most));
    }

    /// Takes a retry out of the budget, if there is one.
    pub fn spend(&self, now: Monotonic) -> bool {
        if let Some(left) = self.earned.get().checked_sub(PRICE) {
            self.earned.set(left);
            return true;
        }
        if self.since.get().until(now) >= Duration::from_secs(1) {
            self.since.set(now);
            self.used.set(0);
        }
        let used = self.used.get();
        self.used.set(used.saturating_add(1).min(self.least));
        used < self.least
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Budget;
    use crate::clock::Monotonic;

    #[test]
    fn retries_are_a_share_of_the_requests_and_a_minimum_in_each_second() {
        let budget = Budget::new(20, 3);
        let at = |seconds| Monotonic(Duration::from_secs(seconds));
        let spent = |now| std::iter::repeat_with(|| budget.spend(now)).take_while(|spent| *spent).count();
        assert_eq!(spent(at(10)), 3, "the minimum");
        assert_eq!(spent(at(10)), 0);
        assert_eq!(spent(at(11)), 3, "of the next second");
        (0..100).for_each(|_| budget.earn());
        assert_eq!(spent(at(11)), 20, "a fifth of a hundred");
        (0..1_000_000).for_each(|_| budget.earn());
        assert_eq!(spent(at(11)), 200, "no more is saved up");
        assert!(!Budget::new(0, 0).spend(at(1)));
    }
}
