//! How long to wait after a failure, and chance, so that a fleet of gateways does not ask in step. Pure: chance is
//! drawn by the caller.

use std::time::Duration;

/// A share of one, in 256ths.
#[derive(Clone, Copy, Debug)]
pub struct Chance(pub(super) u8);

impl Chance {
    /// Anew.
    pub fn draw() -> Self {
        let mut byte = [0];
        // Without randomness the jitter is gone, which is no reason not to ask.
        let _ = aws_lc_rs::rand::fill(&mut byte);
        Self(byte.first().copied().unwrap_or_default())
    }

    /// This share of the whole.
    pub fn of(self, whole: Duration) -> Duration {
        whole * u32::from(self.0) / 256
    }
}

/// After `failures` in a row, of which there is at least one: doubled each time and capped, of which between half and
/// all is waited.
pub fn after_failure(failures: u32, chance: Chance) -> Duration {
    let doubled = FIRST_BACK_OFF * 2_u32.saturating_pow(failures.saturating_sub(1).min(16));
    let capped = doubled.min(LONGEST_BACK_OFF);
    capped / 2 + chance.of(capped / 2)
}

const FIRST_BACK_OFF: Duration = Duration::from_millis(250);
/// A source that is back must be noticed soon, by gateways that have no keys at all.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

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
