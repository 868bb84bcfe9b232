//! Keeps the copy of a feed for a restart: what changes is written down before it is in force, so that a gateway that
//! is killed in between never accepts again what it refused, although its source is away.
//!
//! The disk has its time, and no more: one that hangs or fails holds no revocation up for longer than that once, and
//! not at all after that. The copy is *behind* then, which is said, until all of the index could be written anew.
//! Knows nothing of sources, nor what documents mean.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::{info, warn};

use super::replica::Position;
use super::stats::RevocationFeedStats as Stats;
use super::store::{Restored, Store};
use crate::clock::UnixSeconds;
use crate::feeds::kept::at_the_disk;
use crate::revocation::{FeedState, Staged};

/// The way to the copy, for all who change the index. Clones lead to the same one.
#[derive(Clone, Debug)]
pub(super) struct Keeper(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    state: Arc<FeedState>,
    stats: Arc<Stats>,
    /// Locked by whoever writes, on a blocking thread, for as long as the disk takes.
    copy: Arc<Mutex<KeptCopy>>,
    /// How many changes came in force that are not written down.
    missed: AtomicU64,
    /// How many of them a copy of the whole index has made up for since.
    made_up: AtomicU64,
    complained: AtomicBool,
    /// That the copy cannot be followed was said.
    lost_sight: AtomicBool,
    is_durable: bool,
}

#[derive(Debug)]
struct KeptCopy {
    store: Store,
    stand: Option<Stand>,
}

/// How far the copy goes.
#[derive(Clone, Debug)]
pub(super) struct Stand {
    pub(super) position: Position,
    /// When the source was last heard.
    pub(super) heard_at: UnixSeconds,
}

/// What is to be written down.
#[derive(Clone, Debug)]
pub(super) enum What {
    /// Changes that come on top of what is in force.
    Changes(Arc<Staged>),
    /// All that will be in force.
    Snapshot(Arc<Staged>),
    /// All that is in force.
    Index,
}

/// How an attempt to write went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    Yes,
    /// There is nothing yet that changes could follow.
    NothingToFollow,
    No,
}

impl Keeper {
    /// Without a store nothing is kept, and nobody expects it.
    pub(super) fn new(state: Arc<FeedState>, stats: Arc<Stats>, store: Option<Store>) -> Self {
        Self(store.map(|store| {
            Arc::new(Inner {
                state,
                stats,
                is_durable: store.is_durable(),
                copy: Arc::new(Mutex::new(KeptCopy { store, stand: None })),
                missed: AtomicU64::new(0),
                made_up: AtomicU64::new(0),
                complained: AtomicBool::new(false),
                lost_sight: AtomicBool::new(false),
            })
        }))
    }

    /// Whether nobody else has what is kept.
    pub(super) fn is_durable(&self) -> bool {
        self.0.as_ref().is_some_and(|inner| inner.is_durable)
    }

    /// Brings the index back. A journal that is torn is made whole, so that the next change can be added to it.
    pub(super) async fn load(&self) -> io::Result<Option<Restored>> {
        let Some(inner) = &self.0 else { return Ok(None) };
        let mut copy = Arc::clone(&inner.copy).lock_owned().await;
        let state = Arc::clone(&inner.state);
        let loading = tokio::task::spawn_blocking(move || {
            let restored = copy.store.load(state.index())?;
            copy.stand = restored.as_ref().map(|restored| restored.stand.clone());
            io::Result::Ok(restored)
        });
        let restored = loading.await.map_err(io::Error::other)??;
        if let Some(Restored { stand, torn: true }) = &restored {
            inner.write(What::Index, Some(stand.clone()), inner.patience()).await;
        }
        Ok(restored)
    }

    /// Writes down what is about to come in force; `stand` where the source says how far that goes. Whether it is on
    /// record now, where there is a place for it; if not, it has to be in force without.
    pub(super) async fn before(&self, what: What, stand: Option<Stand>) -> bool {
        let Some(inner) = &self.0 else { return true };
        if inner.is_behind() {
            return false;
        }
        let patience = inner.patience().saturating_add(per_records(what.len()));
        matches!(inner.write(what, stand, patience).await, Written::Yes)
    }

    /// To be called once the changes are in force, with what [`Self::before`] said of them. Writes all of the index
    /// down where that is due. Whether the changes are on record.
    pub(super) async fn after(&self, kept: bool, stand: Stand) -> bool {
        let Some(inner) = &self.0 else { return true };
        if !kept {
            self.missed();
        }
        // Where somebody writes already, whether these changes are seen cannot be known.
        let is_long = inner.copy.try_lock().map(|copy| copy.store.is_long());
        if !is_long.is_ok_and(|is_long| is_long || inner.is_behind()) {
            return kept;
        }
        let patience = if kept { inner.patience() } else { PATIENCE };
        matches!(inner.write(What::Index, Some(stand), patience).await, Written::Yes) || kept
    }

    /// Has what another process adds to the copy put in force here, as soon as the disk gives it. Whoever asks again
    /// waits until that is done.
    pub(super) fn follow(&self) -> Option<JoinHandle<()>> {
        let inner = Arc::clone(self.0.as_ref()?);
        let following = at_the_disk(move || inner.follow());
        Some(tokio::spawn(async move { _ = following.await }))
    }

    /// Something is in force that could not be written down.
    pub(super) fn missed(&self) {
        if let Some(inner) = &self.0 {
            inner.missed.fetch_add(1, Ordering::AcqRel);
        }
    }
}

impl Inner {
    async fn write(&self, what: What, stand: Option<Stand>, patience: Duration) -> Written {
        let Ok(mut copy) = timeout(patience, Arc::clone(&self.copy).lock_owned()).await else {
            self.failed(&"the disk does not answer");
            return Written::No;
        };
        let missed = self.missed.load(Ordering::Acquire);
        let is_whole = !matches!(what, What::Changes(_));
        let state = Arc::clone(&self.state);
        let writing = tokio::task::spawn_blocking(move || copy.write(&state, &what, stand));
        let Ok(written) = timeout(patience, writing).await else {
            self.failed(&"the disk does not answer in time");
            return Written::No;
        };
        match written.map_err(io::Error::other).flatten() {
            Ok(written) => {
                if is_whole {
                    self.made_up.fetch_max(missed, Ordering::AcqRel);
                }
                self.succeeded();
                written
            }
            Err(error) => {
                self.failed(&error);
                Written::No
            }
        }
    }

    fn follow(&self) {
        // Whoever writes now finds out by itself what others have written.
        let Ok(mut copy) = self.copy.try_lock() else { return };
        let feed = self.state.name();
        match copy.store.follow(self.state.index()) {
            Ok(changed) => {
                self.lost_sight.store(false, Ordering::Relaxed);
                if changed {
                    info!(feed, "what another process was told for the feed {feed} is in force here too");
                }
            }
            Err(error) if !self.lost_sight.swap(true, Ordering::Relaxed) => warn!(
                feed, %error,
                "the copy of the revocation feed {feed} in state_dir cannot be read: what another process is told is \
                 not in force here; it is tried again every second; check the disk and its permissions"
            ),
            Err(_) => {}
        }
    }

    /// Something is in force that is not on record.
    fn is_behind(&self) -> bool {
        self.missed.load(Ordering::Acquire) != self.made_up.load(Ordering::Acquire)
    }

    /// How long whoever wants to write waits for whoever writes, who may be writing all there is.
    fn patience(&self) -> Duration {
        PATIENCE.saturating_add(per_records(self.state.index().len()))
    }

    fn succeeded(&self) {
        if !self.is_behind() && self.complained.swap(false, Ordering::Relaxed) {
            let feed = self.state.name();
            info!(feed, "the copy of the revocation feed {feed} is kept again");
        }
    }

    fn failed(&self, error: &dyn std::fmt::Display) {
        Stats::add(&self.stats.store_failures, 1);
        if !self.complained.swap(true, Ordering::Relaxed) {
            let feed = self.state.name();
            warn!(
                feed, %error,
                "the copy of the revocation feed {feed} cannot be kept in state_dir: revocations are in force, but a \
                 restart begins without them until the feed is heard; check space, permissions and the disk"
            );
        }
    }
}

impl KeptCopy {
    fn write(&mut self, state: &FeedState, what: &What, stand: Option<Stand>) -> io::Result<Written> {
        let Some(stand) = stand.or_else(|| self.stand.clone()) else { return Ok(Written::NothingToFollow) };
        match what {
            What::Changes(changes) => self.store.keep(state.index(), Some(changes), &stand)?,
            What::Snapshot(staged) => self.store.keep_snapshot(staged, &stand)?,
            What::Index => self.store.keep(state.index(), None, &stand)?,
        }
        self.stand = Some(stand);
        Ok(Written::Yes)
    }
}

impl What {
    fn len(&self) -> usize {
        match self {
            Self::Changes(staged) | Self::Snapshot(staged) => staged.records().len(),
            Self::Index => 0,
        }
    }
}

/// A disk that writes 24 MB/s is in time.
fn per_records(records: usize) -> Duration {
    Duration::from_micros(u64::try_from(records).unwrap_or(u64::MAX))
}

/// A revocation is to be in force within a second.
const PATIENCE: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests;
