//! The key ids that a provider was asked for and did not have. Bounded: the oldest make room.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use crate::clock::Monotonic;

/// Enough for the bogus ids of many confused clients; a flood of random ones is held off by the cooldown.
const MOST: usize = 256;

/// Ids are kept as keyed hashes, since tokens choose their length.
#[derive(Debug)]
pub(super) struct UnknownKids {
    hasher: RandomState,
    lifetime: Duration,
    kids: VecDeque<(Monotonic, u64)>,
}

impl UnknownKids {
    pub(super) fn new(lifetime: Duration) -> Self {
        Self { hasher: RandomState::new(), lifetime, kids: VecDeque::new() }
    }

    pub(super) fn contains(&self, kid: &str, now: Monotonic) -> bool {
        let hash = self.hasher.hash_one(kid);
        self.kids.iter().any(|(until, known)| *known == hash && now < *until)
    }

    pub(super) fn insert(&mut self, kid: &str, now: Monotonic) {
        if self.contains(kid, now) {
            return;
        }
        while self.kids.len() >= MOST || self.kids.front().is_some_and(|(until, _)| *until <= now) {
            self.kids.pop_front();
        }
        let until = Monotonic(now.0.saturating_add(self.lifetime));
        self.kids.push_back((until, self.hasher.hash_one(kid)));
    }

    pub(super) fn clear(&mut self) {
        self.kids.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_for_its_time_and_never_more_than_its_bound() {
        let at = |seconds| Monotonic(Duration::from_secs(seconds));
        let mut kids = UnknownKids::new(Duration::from_secs(30));
        kids.insert("a", at(0));
        assert!(kids.contains("a", at(29)) && !kids.contains("a", at(30)) && !kids.contains("b", at(0)));
        for number in 0..1000 {
            kids.insert(&number.to_string(), at(1));
        }
        assert!(!kids.contains("a", at(1)) && kids.contains("999", at(1)));
        assert_eq!(kids.kids.len(), MOST);
        kids.insert("last", at(60));
        assert_eq!(kids.kids.len(), 1, "what is over goes");
        kids.clear();
        assert!(!kids.contains("last", at(60)));
    }
}
