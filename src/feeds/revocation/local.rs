//! What this gateway has put in force of its own in the index of a feed that it reads, for as long as an answer of the
//! source may come that was given without it: such an answer must not undo it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::clock::Monotonic;
use crate::revocation::Staged;

/// See the module. Clones lead to the same.
#[derive(Clone, Debug, Default)]
pub(super) struct LocalChanges(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    count: u64,
    records: usize,
    changes: VecDeque<Local>,
}

#[derive(Debug)]
struct Local {
    number: u64,
    staged: Arc<Staged>,
    /// When the source had it; `None` while it is being written there.
    written_at: Option<Monotonic>,
}

impl LocalChanges {
    /// To be called before the changes are in force.
    pub(super) fn begin(&self, staged: &Arc<Staged>) {
        let mut inner = self.lock();
        inner.count += 1;
        inner.records += staged.records().len();
        let number = inner.count;
        inner.changes.push_back(Local { number, staged: Arc::clone(staged), written_at: None });
        while inner.records > MOST_RECORDS && inner.changes.len() > 1 {
            inner.forget_oldest();
        }
    }

    /// The source has all that was begun, or never will.
    pub(super) fn written(&self, now: Monotonic) {
        for local in &mut self.lock().changes {
            local.written_at.get_or_insert(now);
        }
    }

    /// What an answer may lack that was asked for then, in order, and a mark for [`Self::since`]. Forgets the rest.
    pub(super) fn after(&self, asked_at: Monotonic) -> (Vec<Arc<Staged>>, u64) {
        let mut inner = self.lock();
        let is_known = |local: &Local| local.written_at.is_some_and(|written| written < asked_at);
        while inner.changes.front().is_some_and(is_known) {
            inner.forget_oldest();
        }
        (inner.changes.iter().map(|local| Arc::clone(&local.staged)).collect(), inner.count)
    }

    /// What was begun after the mark was given.
    pub(super) fn since(&self, mark: u64) -> Vec<Arc<Staged>> {
        let inner = self.lock();
        let later = inner.changes.iter().filter(|local| local.number > mark);
        later.map(|local| Arc::clone(&local.staged)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Each change leaves the list whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn forget_oldest(&mut self) {
        if let Some(local) = self.changes.pop_front() {
            self.records -= local.staged.records().len();
        }
    }
}

/// 24 MB, for a source that answers nobody while it is written to.
const MOST_RECORDS: usize = 1_000_000;
