//! One shard of an index: an open-addressing hash table of atomics with lock-free readers and one writer at a time.
//!
//! A slot gets its key once and keeps it as long as the table lives; only its term changes, in one store. So a reader
//! never sees half an entry and never waits. 24 bytes a slot; at most three quarters of them are used. A fact may
//! have several slots: one for each *step* of entries of which none covers the other (one is stricter, the other
//! holds longer), so that what holds stays exact when one of them ends. Knows nothing of issuers and sources.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::clock::UnixSeconds;

use super::facts::FactKey;
use super::term::Term;

/// See the module.
pub(super) struct Table {
    slots: Box<[Slot]>,
    used: AtomicUsize,
    live: AtomicUsize,
}

#[derive(Default)]
struct Slot {
    /// Zero while the slot is free. Stored last, so that whoever sees it sees the rest.
    low: AtomicU64,
    high: AtomicU64,
    term: AtomicU64,
}

/// What became of a new entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Put {
    Changed,
    /// What is there already revokes as much for as long.
    Covered,
    /// The table must be rebuilt first.
    NoRoom,
}

impl Table {
    /// An empty table of which five eighths are used when it holds `entries`: 38 bytes for each, and a look-up in vain
    /// takes four steps on average, most of them in the same cache line.
    pub(super) fn with_room_for(entries: usize) -> Self {
        let slots = (entries.saturating_mul(8) / 5).max(MIN_SLOTS);
        Self {
            slots: std::iter::repeat_with(Slot::default).take(slots).collect(),
            used: AtomicUsize::new(0),
            live: AtomicUsize::new(0),
        }
    }

    /// Whether there can be entries for the fact: false if the first place to look at is free.
    pub(super) fn may_have(&self, key: FactKey) -> bool {
        self.chain(key).next().is_some_and(|slot| slot.low.load(Ordering::Acquire) != 0)
    }

    /// The strictest entry for the fact that holds at `now`.
    pub(super) fn strictest(&self, key: FactKey, now: UnixSeconds) -> Option<Term> {
        self.slots_of(key).map(Slot::term).filter(|term| term.holds_at(now)).reduce(Term::stricter)
    }

    /// Adds an entry. One writer at a time.
    ///
    /// The new term goes into the last slot that it may take, and only then are those that it covers lifted: a reader
    /// walks in the same order, so at no moment does it miss both the old and the new.
    pub(super) fn put(&self, key: FactKey, term: Term) -> Put {
        let (mut steps, mut last, mut reusable) = (0, None, None);
        for slot in self.slots_of(key) {
            let present = slot.term();
            if !present.is_lifted() && present.covers(term) {
                return Put::Covered;
            }
            if present.is_lifted() || term.covers(present) {
                reusable = Some(slot);
            }
            steps += 1;
            last = Some(slot);
        }
        if term.is_lifted() {
            return Put::Covered;
        }
        let (target, term) = match (reusable, last) {
            (Some(slot), _) => (slot, term),
            // A feed cannot make the chain that readers walk long: beyond the limit two steps become one that
            // covers both, which is stricter than either, never weaker.
            (None, Some(slot)) if steps >= MAX_STEPS => (slot, slot.term().join(term)),
            (None, _) => return self.insert(key, term),
        };
        if target.term().is_lifted() {
            self.live.fetch_add(1, Ordering::Relaxed);
        }
        target.set_term(term);
        for slot in self.slots_of(key).filter(|slot| !std::ptr::eq(*slot, target)) {
            if term.covers(slot.term()) {
                self.clear(slot);
            }
        }
        Put::Changed
    }

    /// Whether an entry says as much already.
    pub(super) fn covers(&self, key: FactKey, term: Term) -> bool {
        self.slots_of(key).map(Slot::term).any(|present| !present.is_lifted() && present.covers(term))
    }

    /// Ends all entries for the fact and says whether there were any. One writer at a time.
    pub(super) fn lift(&self, key: FactKey) -> bool {
        let mut lifted = false;
        for slot in self.slots_of(key) {
            lifted |= self.clear(slot);
        }
        lifted
    }

    /// Ends all entries that no longer hold at `now` and counts them. One writer at a time.
    pub(super) fn forget_expired(&self, now: UnixSeconds) -> usize {
        self.slots.iter().filter(|slot| !slot.term().holds_at(now) && self.clear(slot)).count()
    }

    /// All entries, in no particular order.
    pub(super) fn entries(&self) -> impl Iterator<Item = (FactKey, Term)> {
        self.slots
            .iter()
            .filter_map(|slot| Some((slot.key()?, slot.term())))
            .filter(|(_, term)| !term.is_lifted())
    }

    /// How many entries there are.
    pub(super) fn live(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }

    /// Whether a rebuilt table would be less than half as large.
    pub(super) fn is_sparse(&self) -> bool {
        self.slots.len() > MIN_SLOTS && self.live().saturating_mul(5) < self.slots.len()
    }

    /// A table with the same entries and room for more.
    pub(super) fn rebuilt(&self) -> Self {
        let table = Self::with_room_for(self.live().saturating_add(1));
        for (key, term) in self.entries() {
            table.put(key, term);
        }
        table
    }

    fn insert(&self, key: FactKey, term: Term) -> Put {
        let used = self.used.load(Ordering::Relaxed);
        if used.saturating_add(1).saturating_mul(4) > self.slots.len().saturating_mul(3) {
            return Put::NoRoom;
        }
        let Some(slot) = self.chain(key).find(|slot| slot.key().is_none()) else { return Put::NoRoom };
        slot.set_term(term);
        slot.high.store(key.high, Ordering::Relaxed);
        slot.low.store(key.low.get(), Ordering::Release);
        self.used.fetch_add(1, Ordering::Relaxed);
        self.live.fetch_add(1, Ordering::Relaxed);
        Put::Changed
    }

    fn clear(&self, slot: &Slot) -> bool {
        if slot.term().is_lifted() {
            return false;
        }
        slot.set_term(Term::LIFTED);
        self.live.fetch_sub(1, Ordering::Relaxed);
        true
    }

    fn slots_of(&self, key: FactKey) -> impl Iterator<Item = &Slot> {
        self.chain(key)
            .map_while(|slot| Some((slot.key()?, slot)))
            .filter(move |(present, _)| *present == key)
            .map(|(_, slot)| slot)
    }

    /// The slots from the key's own place on, once around.
    fn chain(&self, key: FactKey) -> impl Iterator<Item = &Slot> {
        let place = (u128::from(key.low.get()) * self.slots.len() as u128) >> 64;
        let (before, after) = self.slots.split_at(usize::try_from(place).unwrap_or(0).min(self.slots.len()));
        after.iter().chain(before)
    }
}

impl Slot {
    fn key(&self) -> Option<FactKey> {
        let low = NonZeroU64::new(self.low.load(Ordering::Acquire))?;
        Some(FactKey { high: self.high.load(Ordering::Relaxed), low })
    }

    fn term(&self) -> Term {
        Term::from_word(self.term.load(Ordering::Acquire))
    }

    fn set_term(&self, term: Term) {
        self.term.store(term.word(), Ordering::Release);
    }
}

/// A shard of a small feed: a few cache lines.
const MIN_SLOTS: usize = 8;
/// Entries for one fact of which none covers another. Two or three occur in practice.
const MAX_STEPS: usize = 8;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn key(low: u64) -> FactKey {
        FactKey { high: 1, low: NonZeroU64::new(low).unwrap() }
    }

    fn term(before: i64, expires: i64) -> Term {
        Term::new(Some(UnixSeconds(before)), Some(UnixSeconds(expires)), Duration::ZERO)
    }

    fn strictest_before(table: &Table, now: i64) -> Option<i64> {
        table.strictest(key(9), UnixSeconds(now)).and_then(Term::before).map(|before| before.0)
    }

    #[test]
    fn steps_hold_exactly_until_each_ends() {
        let table = Table::with_room_for(10);
        assert_eq!(table.put(key(9), term(50, 100)), Put::Changed);
        assert_eq!(table.put(key(9), term(40, 200)), Put::Changed);
        assert_eq!(table.put(key(9), term(30, 150)), Put::Covered);
        assert_eq!(table.live(), 2);
        assert_eq!(strictest_before(&table, 99), Some(50));
        assert_eq!(strictest_before(&table, 100), Some(40));
        assert_eq!(strictest_before(&table, 200), None);

        assert_eq!(table.put(key(9), term(60, 300)), Put::Changed);
        assert_eq!((table.live(), strictest_before(&table, 250)), (1, Some(60)));
    }

    #[test]
    fn a_ninth_step_only_makes_it_stricter() {
        let table = Table::with_room_for(20);
        for step in 0..20 {
            table.put(key(9), term(100 - step, 100 + step));
        }
        assert!(table.live() <= MAX_STEPS);
        for step in 0..20 {
            assert!(strictest_before(&table, 99 + step).unwrap() >= 100 - step);
        }
    }

    #[test]
    fn keys_that_share_a_place_do_not_mix_and_the_chain_wraps() {
        let table = Table::with_room_for(4);
        for low in [u64::MAX, u64::MAX - 1, u64::MAX - 2] {
            assert_eq!(table.put(key(low), term(1, i64::try_from(low % 1000).unwrap() + 1)), Put::Changed);
        }
        assert!(table.lift(key(u64::MAX - 1)));
        assert!(!table.lift(key(u64::MAX - 1)));
        assert!(table.strictest(key(u64::MAX), UnixSeconds(0)).is_some());
        assert!(table.strictest(key(u64::MAX - 1), UnixSeconds(0)).is_none());
        assert!(table.strictest(key(u64::MAX - 2), UnixSeconds(0)).is_some());
    }

    #[test]
    fn says_when_it_is_full_and_grows_by_rebuilding() {
        let table = Table::with_room_for(0);
        let fitting = (1..100).take_while(|low| table.put(key(*low), term(1, 2)) == Put::Changed).count();
        assert_eq!(fitting, MIN_SLOTS * 3 / 4);
        let larger = table.rebuilt();
        assert_eq!(larger.put(key(99), term(1, 2)), Put::Changed);
        assert_eq!(larger.live(), fitting + 1);
    }

    #[test]
    fn a_reader_never_misses_a_fact_while_its_steps_change() {
        let table = Table::with_room_for(20);
        table.put(key(9), term(1, 1));
        table.put(key(9), term(0, 2_000));
        let done = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while done.load(Ordering::Relaxed) == 0 {
                    assert!(table.strictest(key(9), UnixSeconds(0)).is_some());
                }
            });
            for round in 1..20_000 {
                let (before, expires) = [(3, 1), (2, 2), (1, 3), (4, 4)][round % 4];
                let generation = i64::try_from(round / 4).unwrap() * 10;
                table.put(key(9), term(generation + before, generation + expires));
            }
            done.store(1, Ordering::Relaxed);
        });
    }
}
