//! Changes that wait to be put in force together: hashed as they arrive, 24 bytes each, whatever their text.
//!
//! A source pushes a whole document here while it reads it; only when the document proved sound does the index take
//! them over. Also the form in which an index is kept on disk. Knows nothing of documents and files.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use super::entry::{Change, Target};
use super::facts::{FactHasher, FactKey, FactKind};
use super::term::Term;

/// See the module.
#[derive(Debug)]
pub struct Staged {
    binding: Arc<Binding>,
    issuers: Arc<Vec<String>>,
    records: Vec<Record>,
    kinds: u8,
    revocations: usize,
}

/// What every entry of an index is read with.
#[derive(Debug)]
pub(super) struct Binding {
    pub(super) hasher: FactHasher,
    pub(super) leeway: Duration,
    pub(super) max_entries: usize,
}

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It waits.
    Staged,
    /// It is about an issuer that the feed does not speak for; it was left out.
    ForeignIssuer,
}

/// The index would hold more entries than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "more than {max_entries} revocations; raise the limit if that is right, or let entries expire sooner"
)]
pub struct Full {
    /// The limit.
    pub max_entries: usize,
}

/// One change, hashed. Only an index with the same [`FactHasher`], issuers and leeway can make sense of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    pub(super) key: FactKey,
    pub(super) term: Term,
}

impl Staged {
    pub(super) fn new(binding: Arc<Binding>, issuers: Arc<Vec<String>>) -> Self {
        Self { binding, issuers, records: Vec::new(), kinds: 0, revocations: 0 }
    }

    /// Adds a change. An entry without issuer counts once for each issuer bound to the feed.
    ///
    /// # Errors
    /// [`Full`]: the changes alone are more than the index may hold.
    pub fn push(&mut self, change: &Change) -> Result<Pushed, Full> {
        let issuers = Arc::clone(&self.issuers);
        let (target, issuer, term) = match change {
            Change::Revoke(entry) => {
                let term = Term::new(entry.before, entry.expires, self.binding.leeway);
                if term.is_lifted() {
                    return Ok(Pushed::Staged);
                }
                (&entry.target, entry.issuer.as_deref(), term)
            }
            Change::Lift { target, issuer } => (target, issuer.as_deref(), Term::LIFTED),
        };
        let mut pushed = Pushed::ForeignIssuer;
        for bound in issuers.iter().filter(|bound| issuer.is_none_or(|issuer| issuer == bound.as_str())) {
            self.push_for(bound, target, term)?;
            pushed = Pushed::Staged;
        }
        Ok(pushed)
    }

    /// Adds a change that was written down before; `kinds` as in [`Self::kinds`].
    ///
    /// # Errors
    /// As [`Self::push`].
    pub fn push_record(&mut self, record: Record, kinds: u8) -> Result<(), Full> {
        let max_entries = self.binding.max_entries;
        if self.records.len() >= max_entries {
            return Err(Full { max_entries });
        }
        self.kinds |= kinds;
        self.revocations += usize::from(!record.term.is_lifted());
        self.records.push(record);
        Ok(())
    }

    /// Adds the changes of another list after these.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub fn append(&mut self, other: &Self) -> Result<(), Full> {
        other.records.iter().try_for_each(|record| self.push_record(*record, other.kinds))
    }

    /// The changes, in order.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Which kinds of facts occur, as a set of bits to be kept with the records.
    pub fn kinds(&self) -> u8 {
        self.kinds
    }

    /// How many of the changes revoke.
    pub fn revocations(&self) -> usize {
        self.revocations
    }

    fn push_for(&mut self, issuer: &str, target: &Target, term: Term) -> Result<(), Full> {
        let (kind, value) = target.parts();
        let key = self.binding.hasher.fact(kind, issuer, value);
        self.push_record(Record { key, term }, FactKind::bit(kind))
    }
}

impl Record {
    /// How it is written down.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let words = [self.key.high, self.key.low.get(), self.term.word()];
        for (chunk, word) in bytes.chunks_exact_mut(8).zip(words) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// Reads what [`Self::to_bytes`] wrote; `None` for what it never writes.
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Option<Self> {
        let mut words = bytes.chunks_exact(8).map(|chunk| chunk.try_into().map(u64::from_le_bytes));
        let mut word = || words.next()?.ok();
        let (high, low) = (word()?, NonZeroU64::new(word()?)?);
        Some(Self { key: FactKey { high, low }, term: Term::from_word(word()?) })
    }

    /// The length of a record.
    pub const BYTES: usize = 24;
}
