//! When to ask the source again. Pure: chance is passed in.

use std::time::Duration;

use crate::feeds::back_off::Chance;

/// After a success without long poll: the interval, up to a tenth earlier, so that a fleet does not ask in step.
pub(super) fn after_success(interval: Duration, chance: Chance) -> Duration {
    interval.saturating_sub(chance.of(interval / 10)).max(LEAST_PAUSE)
}

/// Between the end of a long poll and the next: changes in a burst arrive together, and a server that answers at once
/// is not asked in a tight loop.
pub(super) const LEAST_PAUSE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_never_exceeded() {
        let second = Duration::from_secs(1);
        assert_eq!(after_success(second, Chance(0)), second);
        assert!(after_success(second, Chance(255)) > Duration::from_millis(900));
        assert_eq!(after_success(Duration::ZERO, Chance(255)), LEAST_PAUSE);
    }
}
