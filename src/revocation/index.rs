//! The exact, in-memory index of one feed's revocations: lock-free for readers, one writer at a time.
//!
//! 256 shards, each a [`Table`] behind a pointer, so that growing one copies a 256th; a snapshot replaces all of them
//! behind one pointer, so that readers see the old set or the new. 32 to 39 bytes an entry. Knows nothing of where
//! entries come from, nor whether they are fresh.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::clock::UnixSeconds;

use super::entry::Change;
use super::facts::{FactHasher, FactKey, FactKeys, FactKind};
use super::staged::{Binding, Full, Pushed, Record, Staged};
use super::table::{Put, Table};

/// See the module.
pub struct Index {
    binding: Arc<Binding>,
    issuers: ArcSwap<Vec<String>>,
    shards: ArcSwap<Shards>,
    generation: AtomicU64,
    writer: Mutex<()>,
}

/// Why a token is revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit {
    /// By which of its facts.
    pub kind: FactKind,
    /// It was issued before this; `None` if it does not matter when.
    pub before: Option<UnixSeconds>,
}

struct Shards {
    tables: Box<[ArcSwap<Table>]>,
    /// The kinds of facts that may occur: what no entry speaks of need not be looked up.
    kinds: AtomicU8,
}

impl Index {
    /// An empty index.
    ///
    /// `issuers` are those that the feed speaks for, spelled as in their tokens' `iss`. Entries stay in force for
    /// `leeway` after their end; it must be no less than the largest leeway of these issuers, or a revoked token is
    /// accepted in its last seconds.
    pub fn new(
        hasher: FactHasher,
        issuers: impl IntoIterator<Item = String>,
        leeway: Duration,
        max_entries: usize,
    ) -> Self {
        let binding = Binding { hasher, leeway, max_entries };
        Self::bound(Arc::new(binding), issuers.into_iter().collect::<Vec<_>>().into())
    }

    /// An empty index that is read in the same way, to judge or gather what is not to be in force yet.
    #[must_use]
    pub fn empty_like(&self) -> Self {
        Self::bound(Arc::clone(&self.binding), self.issuers())
    }

    fn bound(binding: Arc<Binding>, issuers: Arc<Vec<String>>) -> Self {
        Self {
            binding,
            issuers: ArcSwap::new(issuers),
            shards: ArcSwap::from_pointee(Shards::with_room_for(&[0; SHARDS])),
            generation: AtomicU64::new(0),
            writer: Mutex::new(()),
        }
    }

    /// Whether a token with these facts is revoked at `now`. Takes no lock, allocates nothing.
    pub fn check(&self, keys: &FactKeys, iat: Option<UnixSeconds>, now: UnixSeconds) -> Option<Hit> {
        let shards = self.shards.load();
        let kinds = shards.kinds.load(Ordering::Acquire);
        // In an index of many gigabytes each look-up waits for memory. The processor waits for all of them at once as long
        // as they stand side by side: first the tables, whose guards are barriers, then where each search begins.
        let tables = keys.each().map(|(kind, key)| {
            let key = key.filter(|_| kinds & kind.bit() != 0)?;
            Some((kind, key, shards.of(key)?.load()))
        });
        let may_be_there =
            tables.each_ref().map(|found| found.as_ref().is_some_and(|(_, key, table)| table.may_have(*key)));
        tables.iter().zip(may_be_there).filter(|(_, may_be_there)| *may_be_there).find_map(|(found, _)| {
            let (kind, key, table) = found.as_ref()?;
            let term = table.strictest(*key, now)?;
            term.revokes(iat).then(|| Hit { kind: *kind, before: term.before() })
        })
    }

    /// Changes with every change of the index that could make a live token revoked. To be read *before* a check whose
    /// answer is to be kept: then nothing that comes after goes unnoticed.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// How many entries there are, counting those whose end has passed and that are not yet forgotten.
    pub fn len(&self) -> usize {
        self.shards.load().tables.iter().map(|table| table.load().live()).sum()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether any entry holds at `now`.
    pub fn any_holds(&self, now: UnixSeconds) -> bool {
        let shards = self.shards.load();
        shards.tables.iter().any(|table| table.load().entries().any(|(_, term)| term.holds_at(now)))
    }

    /// An empty list of changes for this index.
    pub fn stage(&self) -> Staged {
        Staged::new(Arc::clone(&self.binding), self.issuers())
    }

    /// Puts one change in force.
    ///
    /// # Errors
    /// As [`Self::merge`].
    pub fn apply(&self, change: &Change) -> Result<Pushed, Full> {
        let mut staged = self.stage();
        let pushed = staged.push(change)?;
        self.merge(&staged)?;
        Ok(pushed)
    }

    /// Puts changes in force, in their order, on top of what is there. Applying them again changes nothing.
    /// Says whether anything changed.
    ///
    /// # Errors
    /// [`Full`]: there would be too many entries; none of the changes is in force.
    pub fn merge(&self, staged: &Staged) -> Result<bool, Full> {
        let _writer = self.write();
        self.check_room_for(staged)?;
        let shards = self.shards.load();
        shards.kinds.fetch_or(staged.kinds(), Ordering::Release);
        let mut changed = false;
        for record in staged.records() {
            changed |= shards.write(*record);
        }
        if changed {
            self.generation.fetch_add(1, Ordering::Release);
        }
        Ok(changed)
    }

    /// Whether [`Self::merge`] would find room.
    ///
    /// # Errors
    /// As [`Self::merge`].
    pub fn check_room_for(&self, staged: &Staged) -> Result<(), Full> {
        let max_entries = self.binding.max_entries;
        if staged.revocations() > 0 && self.len().saturating_add(staged.revocations()) > max_entries {
            return Err(Full { max_entries });
        }
        Ok(())
    }

    /// Puts the changes in force as all there is: what they do not say is lifted. Readers see all of the old or all
    /// of the new.
    pub fn replace(&self, staged: &Staged) {
        self.replace_with(staged, Vec::new);
    }

    /// The same, with what `late` gives on top, in its order. That is asked for when nobody else writes any more until
    /// all is in force: what was merged before can be in it, and what is merged after stays.
    pub fn replace_with(&self, staged: &Staged, late: impl FnOnce() -> Vec<Arc<Staged>>) {
        let mut sizes = [0; SHARDS];
        for record in staged.records() {
            if let Some(size) = sizes.get_mut(shard(record.key)) {
                *size += 1;
            }
        }
        let shards = Shards::with_room_for(&sizes);
        shards.kinds.store(staged.kinds(), Ordering::Release);
        for record in staged.records() {
            shards.write(*record);
        }
        let old = {
            let _writer = self.write();
            for late in late() {
                shards.kinds.fetch_or(late.kinds(), Ordering::Release);
                for record in late.records() {
                    shards.write(*record);
                }
            }
            let old = self.shards.swap(Arc::new(shards));
            self.generation.fetch_add(1, Ordering::Release);
            old
        };
        // The last owner frees hundreds of megabytes: better this thread than one that serves requests.
        for _ in 0..1_000 {
            if Arc::strong_count(&old) == 1 {
                break;
            }
            std::thread::yield_now();
        }
    }

    /// Forgets entries whose end passed some time before `now`, and counts them. Takes a pass over the whole index, so
    /// not for a thread that serves requests.
    pub fn forget_expired(&self, now: UnixSeconds) -> usize {
        let _writer = self.write();
        let now = now.minus(FORGET_AFTER);
        let shards = self.shards.load();
        let mut forgotten = 0;
        for slot in &shards.tables {
            let table = slot.load();
            forgotten += table.forget_expired(now);
            if table.is_sparse() {
                slot.store(Arc::new(table.rebuilt()));
            }
        }
        forgotten
    }

    /// Which kinds of facts may occur; goes with [`Self::for_each_record`].
    pub fn kinds(&self) -> u8 {
        self.shards.load().kinds.load(Ordering::Acquire)
    }

    /// Shows all entries, in no particular order, to be written down. Returns what `see` returns first as an error.
    ///
    /// # Errors
    /// Those of `see`.
    pub fn for_each_record<E>(&self, mut see: impl FnMut(Record) -> Result<(), E>) -> Result<(), E> {
        let shards = self.shards.load();
        for table in &shards.tables {
            for (key, term) in table.load().entries() {
                see(Record { key, term })?;
            }
        }
        Ok(())
    }

    /// Whether the index says as much already.
    pub fn covers(&self, record: Record) -> bool {
        let shards = self.shards.load();
        shards.of(record.key).is_some_and(|table| table.load().covers(record.key, record.term))
    }

    /// The issuers that the feed speaks for.
    pub fn issuers(&self) -> Arc<Vec<String>> {
        self.issuers.load_full()
    }

    /// From now on the feed speaks for these issuers too. What is in force says nothing of them yet.
    pub fn also_speak_for(&self, issuers: &[String]) {
        self.issuers.rcu(|known| {
            let new = issuers.iter().filter(|issuer| !known.contains(issuer));
            known.iter().chain(new).cloned().collect::<Vec<_>>()
        });
    }

    /// How long entries stay in force after their end.
    pub fn leeway(&self) -> Duration {
        self.binding.leeway
    }

    /// The hasher whose [`FactKeys`] this index understands.
    pub fn hasher(&self) -> &FactHasher {
        &self.binding.hasher
    }

    fn write(&self) -> MutexGuard<'_, ()> {
        // Each write leaves the tables whole at every step, so a writer that panicked left nothing broken.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Index")
            .field("issuers", &self.issuers())
            .field("len", &self.len())
            .field("generation", &self.generation())
            .finish_non_exhaustive()
    }
}

impl Shards {
    fn with_room_for(sizes: &[usize; SHARDS]) -> Self {
        let tables = sizes.iter().map(|size| ArcSwap::from_pointee(Table::with_room_for(*size))).collect();
        Self { tables, kinds: AtomicU8::new(0) }
    }

    fn of(&self, key: FactKey) -> Option<&ArcSwap<Table>> {
        self.tables.get(shard(key))
    }

    fn write(&self, Record { key, term }: Record) -> bool {
        let Some(slot) = self.of(key) else { return false };
        let table = slot.load();
        if term.is_lifted() {
            return table.lift(key);
        }
        match table.put(key, term) {
            Put::Changed => true,
            Put::Covered => false,
            Put::NoRoom => {
                let larger = table.rebuilt();
                let put = larger.put(key, term);
                slot.store(Arc::new(larger));
                put == Put::Changed
            }
        }
    }
}

/// By bits that do not decide the place within the shard.
fn shard(key: FactKey) -> usize {
    usize::from(key.high.to_le_bytes()[0])
}

const SHARDS: usize = 256;
/// A wall clock that jumps ahead and is set right within this time costs no revocation.
const FORGET_AFTER: Duration = Duration::from_secs(15 * 60);

#[cfg(test)]
mod tests;
