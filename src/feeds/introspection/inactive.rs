//! The tokens that were found inactive a moment ago, by a keyed hash: who goes on sending one costs the issuer one
//! request in a while. Bounded: the oldest make room.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use siphasher::sip128::{Hasher128, SipHasher13};

use crate::clock::Monotonic;

pub(super) struct Inactive {
    /// A secret: no client can make two tokens meet.
    hasher: SipHasher13,
    lifetime: Duration,
    most: usize,
    until: HashMap<u128, Monotonic>,
    /// In the order of their ends, since all last equally long.
    order: VecDeque<(Monotonic, u128)>,
}

impl Inactive {
    pub(super) fn new(lifetime: Duration, most: usize) -> Self {
        let seed = RandomState::new();
        let hasher = SipHasher13::new_with_keys(seed.hash_one(0_u8), seed.hash_one(1_u8));
        Self { hasher, lifetime, most, until: HashMap::new(), order: VecDeque::new() }
    }

    pub(super) fn contains(&self, token: &str, now: Monotonic) -> bool {
        self.until.get(&self.key(token)).is_some_and(|until| now < *until)
    }

    pub(super) fn insert(&mut self, token: &str, now: Monotonic) {
        while self.order.front().is_some_and(|(until, _)| *until <= now)
            || self.order.len() >= self.most.max(1)
        {
            let Some((until, key)) = self.order.pop_front() else { break };
            // One that was found inactive again has a later end, which stands further back.
            if self.until.get(&key) == Some(&until) {
                self.until.remove(&key);
            }
        }
        let (key, until) = (self.key(token), Monotonic(now.0.saturating_add(self.lifetime)));
        self.until.insert(key, until);
        self.order.push_back((until, key));
    }

    fn key(&self, token: &str) -> u128 {
        let mut hasher = self.hasher;
        hasher.write(token.as_bytes());
        hasher.finish128().as_u128()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Monotonic {
        Monotonic(Duration::from_secs(seconds))
    }

    #[test]
    fn holds_for_its_time_and_never_more_than_its_bound() {
        let mut inactive = Inactive::new(Duration::from_secs(5), 3);
        inactive.insert("a", at(0));
        assert!(inactive.contains("a", at(4)));
        assert!(!inactive.contains("a", at(5)) && !inactive.contains("b", at(0)));
        for (second, token) in ["b", "c", "d"].into_iter().enumerate() {
            inactive.insert(token, at(second as u64));
        }
        assert!(!inactive.contains("a", at(2)), "the oldest made room");
        assert!(inactive.contains("d", at(2)));
        for number in 0..1000 {
            inactive.insert(&number.to_string(), at(3));
        }
        assert!(inactive.until.len() <= 3 && inactive.order.len() <= 3);
    }

    #[test]
    fn one_that_was_found_inactive_again_lasts_from_then() {
        let mut inactive = Inactive::new(Duration::from_secs(5), 10);
        inactive.insert("a", at(0));
        inactive.insert("a", at(4));
        inactive.insert("b", at(6));
        assert!(inactive.contains("a", at(8)));
        assert!(!inactive.contains("a", at(9)));
    }
}
