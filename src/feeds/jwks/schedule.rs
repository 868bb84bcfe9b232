//! When to refresh next. Pure: chance is passed in.

use std::time::Duration;

/// How often an issuer's keys are refreshed when nothing asks for it.
#[derive(Clone, Copy, Debug)]
pub struct RefreshIntervals {
    /// When the provider does not say how long its answer lasts.
    pub usual: Duration,
    /// However short-lived the provider calls its answer.
    pub least: Duration,
    /// However long-lived: a removed key must stop within this.
    pub most: Duration,
}

impl Default for RefreshIntervals {
    fn default() -> Self {
        Self {
            usual: Duration::from_secs(5 * 60),
            least: Duration::from_secs(60),
            most: Duration::from_secs(60 * 60),
        }
    }
}

/// A share of one, in 256ths.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chance(pub(super) u8);

impl Chance {
    pub(super) fn draw() -> Self {
        let mut byte = [0];
        // Without randomness the jitter is gone, which is no reason not to refresh.
        let _ = aws_lc_rs::rand::fill(&mut byte);
        Self(byte.first().copied().unwrap_or_default())
    }

    fn of(self, whole: Duration) -> Duration {
        whole * u32::from(self.0) / 256
    }
}

impl RefreshIntervals {
    /// After a success: ahead of the answer's expiry, by a tenth to a fifth, so that a fleet of gateways does not ask
    /// in step.
    pub(super) fn after_success(self, max_age: Option<Duration>, chance: Chance) -> Duration {
        let lifetime = max_age.unwrap_or(self.usual).min(self.most).max(self.least.min(self.usual));
        lifetime * 8 / 10 + chance.of(lifetime / 10)
    }
}

/// After `failures` in a row, of which there is at least one: doubled each time and capped, of which between half and
/// all is waited.
pub(super) fn after_failure(failures: u32, chance: Chance) -> Duration {
    let doubled = FIRST_BACK_OFF * 2_u32.saturating_pow(failures.saturating_sub(1).min(16));
    let capped = doubled.min(LONGEST_BACK_OFF);
    capped / 2 + chance.of(capped / 2)
}

const FIRST_BACK_OFF: Duration = Duration::from_millis(250);
/// A provider that is back must be noticed soon, by gateways that have no keys at all.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refreshes_come_ahead_of_expiry_and_within_bounds() {
        let secs = Duration::from_secs;
        let tight = RefreshIntervals { usual: secs(10), ..RefreshIntervals::default() };
        let cases = [
            ("nothing said", RefreshIntervals::default(), None, 240, 270),
            ("within bounds", RefreshIntervals::default(), Some(secs(600)), 480, 540),
            ("no-store", RefreshIntervals::default(), Some(secs(0)), 48, 54),
            ("a year", RefreshIntervals::default(), Some(secs(31_536_000)), 2880, 3240),
            ("the operator wants it more often", tight, Some(secs(0)), 8, 9),
        ];
        for (name, intervals, max_age, from, to) in cases {
            assert_eq!(intervals.after_success(max_age, Chance(0)), secs(from), "{name}");
            let latest = intervals.after_success(max_age, Chance(255));
            assert!(latest > secs(from) && latest < secs(to), "{name}: {latest:?}");
        }
    }

    #[test]
    fn back_off_doubles_up_to_five_seconds() {
        let millis = |failures, chance| after_failure(failures, Chance(chance)).as_millis();
        assert_eq!(
            [1, 2, 3, 4, 5, 6, 7, u32::MAX].map(|n| millis(n, 0)),
            [125, 250, 500, 1000, 2000, 2500, 2500, 2500]
        );
        assert!((4980..=5000).contains(&millis(u32::MAX, 255)));
    }
}
