//! What was learned of tokens a moment ago, by a keyed hash of each. Bounded: the oldest make room.
//!
//! Of inactive ones, so that who goes on sending one costs the issuer one question in a while. Of active ones, so that
//! an asker whose ask arrives just after the shared question was answered, before the answer is where it looked, does
//! not ask anew.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use siphasher::sip128::{Hasher128, SipHasher13};

use crate::clock::Monotonic;

pub(super) struct Recent<V> {
    /// A secret: no client can make two tokens meet.
    hasher: SipHasher13,
    lifetime: Duration,
    most: usize,
    known: HashMap<u128, (Monotonic, V)>,
    /// In the order of their ends, since all last equally long.
    order: VecDeque<(Monotonic, u128)>,
}

impl<V> Recent<V> {
    pub(super) fn new(lifetime: Duration, most: usize) -> Self {
        let seed = RandomState::new();
        let hasher = SipHasher13::new_with_keys(seed.hash_one(0_u8), seed.hash_one(1_u8));
        Self { hasher, lifetime, most, known: HashMap::new(), order: VecDeque::new() }
    }

    pub(super) fn get(&self, token: &str, now: Monotonic) -> Option<&V> {
        self.known.get(&self.key(token)).filter(|(until, _)| now < *until).map(|(_, value)| value)
    }

    /// Remembers what was asked at `asked_at`.
    pub(super) fn insert(&mut self, token: &str, asked_at: Monotonic, value: V) {
        while self.order.front().is_some_and(|(until, _)| *until <= asked_at)
            || self.order.len() >= self.most.max(1)
        {
            let Some((until, key)) = self.order.pop_front() else { break };
            // One that was asked about again has a later end, which stands further back.
            if self.known.get(&key).is_some_and(|(known_until, _)| *known_until == until) {
                self.known.remove(&key);
            }
        }
        let (key, until) = (self.key(token), Monotonic(asked_at.0.saturating_add(self.lifetime)));
        self.known.insert(key, (until, value));
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
        let mut recent = Recent::new(Duration::from_secs(5), 3);
        recent.insert("a", at(0), 1);
        assert_eq!(recent.get("a", at(4)), Some(&1));
        assert_eq!((recent.get("a", at(5)), recent.get("b", at(0))), (None, None));
        for (second, token) in ["b", "c", "d"].into_iter().enumerate() {
            recent.insert(token, at(second as u64), 2);
        }
        assert_eq!(recent.get("a", at(2)), None, "the oldest made room");
        assert_eq!(recent.get("d", at(2)), Some(&2));
        for number in 0..1000 {
            recent.insert(&number.to_string(), at(3), number);
        }
        assert!(recent.known.len() <= 3 && recent.order.len() <= 3);
    }

    #[test]
    fn one_that_was_asked_about_again_lasts_from_then() {
        let mut recent = Recent::new(Duration::from_secs(5), 10);
        recent.insert("a", at(0), ());
        recent.insert("a", at(4), ());
        recent.insert("b", at(6), ());
        assert!(recent.get("a", at(8)).is_some());
        assert!(recent.get("a", at(9)).is_none());
    }

    #[test]
    fn what_lasts_for_no_time_is_not_remembered() {
        let mut recent = Recent::new(Duration::ZERO, 10);
        recent.insert("a", at(1), ());
        assert!(recent.get("a", at(1)).is_none());
    }
}
