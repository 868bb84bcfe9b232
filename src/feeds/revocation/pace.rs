//! When to ask the source again. Pure: chance is passed in.

use std::time::Duration;

/// A share of one, in 256ths.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chance(pub(super) u8);

impl Chance {
    pub(super) fn draw() -> Self {
        let mut byte = [0];
        // Without randomness the jitter is gone, which is no reason not to ask.
        let _ = aws_lc_rs::rand::fill(&mut byte);
        Self(byte.first().copied().unwrap_or_default())
    }

    fn of(self, whole: Duration) -> Duration {
        whole * u32::from(self.0) / 256
    }
}

/// After a success without long poll: the interval, up to a tenth earlier, so that a fleet does not ask in step.
pub(super) fn after_success(interval: Duration, chance: Chance) -> Duration {
    interval.saturating_sub(chance.of(interval / 10)).max(LEAST_PAUSE)
}

/// After `failures` in a row, of which there is at least one: doubled each time and capped, of which between half and
/// all is waited.
pub(super) fn after_failure(failures: u32, chance: Chance) -> Duration {
    let doubled = FIRST_BACK_OFF * 2_u32.saturating_pow(failures.saturating_sub(1).min(16));
    let capped = doubled.min(LONGEST_BACK_OFF);
    capped / 2 + chance.of(capped / 2)
}

/// Between the end of a long poll and the next: changes in a burst arrive together, and a server that answers at once
/// is not asked in a tight loop.
pub(super) const LEAST_PAUSE: Duration = Duration::from_millis(50);
const FIRST_BACK_OFF: Duration = Duration::from_millis(250);
/// A source that is back must be noticed soon.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_grows_to_its_cap_and_intervals_are_never_exceeded() {
        let millis = |failures, chance| after_failure(failures, Chance(chance)).as_millis();
        assert_eq!([1, 2, 3, 5, 6, u32::MAX].map(|n| millis(n, 0)), [125, 250, 500, 2000, 2500, 2500]);
        assert!(millis(u32::MAX, 255) < 5000);
        let second = Duration::from_secs(1);
        assert_eq!(after_success(second, Chance(0)), second);
        assert!(after_success(second, Chance(255)) > Duration::from_millis(900));
        assert_eq!(after_success(Duration::ZERO, Chance(255)), LEAST_PAUSE);
    }
}
