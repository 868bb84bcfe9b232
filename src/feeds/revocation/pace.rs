//! When to ask the source again. Pure: chance is passed in.

use std::time::Duration;

use crate::feeds::back_off::Chance;

/// After a success without long poll: the interval, up to a tenth earlier, so that a fleet does not ask in step.
pub(super) fn after_success(interval: Duration, chance: Chance) -> Duration {
    interval.saturating_sub(chance.of(interval / 10)).max(LEAST_PAUSE)
}

/// After a long poll that began so long ago. What comes alone finds the next one waiting already; changes in a burst
/// arrive together, and a server that answers at once is not asked in a tight loop.
pub(in crate::feeds) fn after_long_poll(took: Duration) -> Duration {
    APART.saturating_sub(took)
}

/// Between two questions, where the server does not hold them back.
pub(super) const LEAST_PAUSE: Duration = Duration::from_millis(50);
/// From the begin of a long poll to that of the next: what a revocation waits for at most while others come all the time.
const APART: Duration = Duration::from_millis(20);

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

    #[test]
    fn only_long_polls_that_were_answered_at_once_are_held_apart() {
        assert_eq!(after_long_poll(Duration::ZERO), APART);
        assert_eq!(after_long_poll(APART / 4), APART * 3 / 4);
        assert_eq!(after_long_poll(Duration::from_secs(30)), Duration::ZERO);
    }
}
