//! How long revocations take: from the moment at which each was made, as its source says, until it is in force here.
//! Moments are whole seconds, since that is what sources tell.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::UnixSeconds;

/// When the revocations of one document were made. Of very many moments the latest are kept: it is they that are new.
#[derive(Clone, Debug, Default)]
pub(super) struct Moments(BTreeMap<i64, u64>);

/// How many revocations took how long.
#[derive(Debug, Default)]
pub struct Lag {
    counts: [AtomicU64; BOUNDS.len() + 1],
    seconds: AtomicU64,
}

/// In seconds. A source that pushes should stay within the first; one that is polled, within its interval.
const BOUNDS: [u64; 8] = [1, 2, 5, 10, 30, 60, 300, 3600];
const MOST_MOMENTS: usize = 1024;

impl Moments {
    /// One more; of one that does not say when, nothing can be told.
    pub(super) fn add(&mut self, at: Option<UnixSeconds>) {
        let Some(UnixSeconds(at)) = at else { return };
        let is_full = self.0.len() >= MOST_MOMENTS;
        if is_full && self.0.first_key_value().is_some_and(|(first, _)| at < *first) {
            return;
        }
        *self.0.entry(at).or_default() += 1;
        if self.0.len() > MOST_MOMENTS {
            self.0.pop_first();
        }
    }
}

impl Lag {
    /// These are in force now; only those count that were made at `since` or later.
    pub(super) fn observe(&self, moments: &Moments, since: Option<UnixSeconds>, now: UnixSeconds) {
        for (at, count) in moments.0.range(since.map_or(i64::MIN, |since| since.0)..) {
            // A source whose clock is ahead took no time.
            let took = u64::try_from(now.0.saturating_sub(*at)).unwrap_or(0);
            let place = BOUNDS.iter().position(|bound| took <= *bound).unwrap_or(BOUNDS.len());
            if let Some(cell) = self.counts.get(place) {
                cell.fetch_add(*count, Ordering::Relaxed);
            }
            self.seconds.fetch_add(took.saturating_mul(*count), Ordering::Relaxed);
        }
    }

    /// The sum of all, and the number of those up to each bound and beyond the one before it.
    #[allow(clippy::cast_precision_loss, reason = "seconds and counts are far below 2^52")]
    pub fn read(&self) -> (f64, Vec<(f64, u64)>) {
        let bounds = BOUNDS.iter().map(|bound| *bound as f64).chain([f64::INFINITY]);
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed));
        (self.seconds.load(Ordering::Relaxed) as f64, bounds.zip(counts).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixSeconds = UnixSeconds(1_800_000_000);

    fn moments(ages: impl IntoIterator<Item = i64>) -> Moments {
        let mut moments = Moments::default();
        for age in ages {
            moments.add(Some(UnixSeconds(NOW.0 - age)));
        }
        moments
    }

    #[test]
    fn each_is_counted_by_its_age_and_one_of_the_future_took_no_time() {
        let lag = Lag::default();
        let mut some = moments([0, 1, 2, 30, 31, 100_000, -5]);
        some.add(None);
        lag.observe(&some, None, NOW);
        let (sum, counts) = lag.read();
        assert_eq!(counts.iter().map(|(_, count)| *count).collect::<Vec<_>>(), [3, 1, 0, 0, 1, 1, 0, 0, 1]);
        assert!((sum - 100_064.0).abs() < 0.5, "{sum}");
        lag.observe(&moments([10, 20, 30]), Some(UnixSeconds(NOW.0 - 20)), NOW);
        assert_eq!(lag.read().1.iter().map(|(_, count)| *count).sum::<u64>(), 7 + 2, "not what is older");
    }

    #[test]
    fn of_very_many_moments_the_latest_are_kept() {
        let most = i64::try_from(MOST_MOMENTS).unwrap();
        for ages in [(0..3 * most).collect::<Vec<_>>(), (0..3 * most).rev().collect()] {
            let kept = moments(ages).0;
            assert_eq!(kept.len(), MOST_MOMENTS);
            assert_eq!(kept.last_key_value(), Some((&NOW.0, &1)));
            assert_eq!(kept.first_key_value(), Some((&(NOW.0 - most + 1), &1)));
        }
    }
}
