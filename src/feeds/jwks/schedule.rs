//! When to refresh next. Pure: chance is passed in.

use std::time::Duration;

use crate::feeds::back_off::Chance;

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

impl RefreshIntervals {
    /// After a success: ahead of the answer's expiry, by a tenth to a fifth, so that a fleet of gateways does not ask
    /// in step.
    pub(super) fn after_success(self, max_age: Option<Duration>, chance: Chance) -> Duration {
        let lifetime = max_age.unwrap_or(self.usual).min(self.most).max(self.least.min(self.usual));
        lifetime * 8 / 10 + chance.of(lifetime / 10)
    }
}

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
}
