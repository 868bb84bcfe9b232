//! Which statements were seen before, by their `jti`: within bounds, the oldest are forgotten first.
//!
//! Applying a statement twice changes nothing, since what it revokes depends on its own times alone. So what is
//! forgotten here, or by a restart, costs some work and no security.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};

/// The ids of the last statements.
#[derive(Debug)]
pub struct Seen {
    hasher: (RandomState, RandomState),
    known: HashSet<u128>,
    order: VecDeque<u128>,
    most: usize,
}

impl Seen {
    /// Remembers this many.
    pub fn new(most: usize) -> Self {
        let hasher = (RandomState::new(), RandomState::new());
        Self { hasher, known: HashSet::new(), order: VecDeque::new(), most }
    }

    /// Whether it was seen before.
    pub fn has(&self, jti: &str) -> bool {
        self.known.contains(&self.hash(jti))
    }

    /// Remembers it; only once it is dealt with, so that a sender may try again.
    pub fn remember(&mut self, jti: &str) {
        let hash = self.hash(jti);
        if !self.known.insert(hash) {
            return;
        }
        self.order.push_back(hash);
        if self.order.len() > self.most
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    fn hash(&self, jti: &str) -> u128 {
        let (high, low) = (self.hasher.0.hash_one(jti), self.hasher.1.hash_one(jti));
        u128::from(high) << 64 | u128::from(low)
    }
}

#[cfg(test)]
mod tests {
    use super::Seen;

    #[test]
    fn it_knows_the_last_ones_and_no_more() {
        let mut seen = Seen::new(2);
        for jti in ["a", "b", "b", "c"] {
            seen.remember(jti);
        }
        assert_eq!(["a", "b", "c"].map(|jti| seen.has(jti)), [false, true, true]);
    }
}
