//! The local copy of a feed: which documents it takes over, and how it outlives a restart.
//!
//! What changes is kept first and then put in force. Large work runs on a blocking thread. Knows nothing of how
//! documents arrive.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, error, info, warn};

use super::document::{Document, Entries, Kind};
use super::error::{Misfit, SyncError};
use super::keeper::{Keeper, Stand, What};
use super::local::LocalChanges;
use super::stats::RevocationFeedStats as Stats;
use super::store::{Restored, Store};
use crate::clock::{Clock, Monotonic, UnixSeconds};
use crate::revocation::{FeedState, Freshness, Full, Staged};

#[derive(Debug)]
pub(super) struct Replica {
    pub(super) state: Arc<FeedState>,
    pub(super) stats: Arc<Stats>,
    pub(super) clock: Clock,
    position: Option<Position>,
    /// The digest of the snapshot in force, if nothing came on top of it.
    snapshot_in_force: Option<[u8; 32]>,
    pub(super) keeper: Keeper,
    /// What others put in force in the same index.
    pub(super) local: LocalChanges,
    /// When the source was asked for what is taken over next.
    asked_at: Monotonic,
    /// What was brought back and is not relied on yet.
    restored: Option<RestoredCopy>,
    kept_at: Option<Monotonic>,
    noted: Noted,
}

/// A copy from disk: what it revokes is revoked; that the rest is not, it can only say as of when it was kept.
#[derive(Clone, Debug)]
pub(super) struct RestoredCopy {
    state: Arc<FeedState>,
    at: Monotonic,
    age: Option<Duration>,
}

impl RestoredCopy {
    /// Has it count with its age, unless the source was heard since.
    pub(super) fn rely_on(&self) {
        if !self.state.is_loaded() {
            self.state.heard_before(self.at, self.age);
        }
    }
}

/// Where in the feed's history the copy stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) epoch: String,
    pub(super) cursor: Option<String>,
}

/// What a document changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    Unchanged,
    Snapshot,
    Delta,
}

/// What was complained about, so that each is said once.
#[derive(Debug, Default)]
struct Noted {
    broken: bool,
    foreign: bool,
}

impl Replica {
    pub(super) fn new(state: Arc<FeedState>, clock: Clock, store: Option<Store>) -> Self {
        let stats = Arc::<Stats>::default();
        let keeper = Keeper::new(Arc::clone(&state), Arc::clone(&stats), store);
        let asked_at = clock.monotonic();
        Self {
            state,
            stats,
            clock,
            position: None,
            snapshot_in_force: None,
            keeper,
            local: LocalChanges::default(),
            asked_at,
            restored: None,
            kept_at: None,
            noted: Noted::default(),
        }
    }

    /// Where the next delta begins, if the source counts.
    pub(super) fn cursor(&self) -> Option<&str> {
        self.position.as_ref()?.cursor.as_deref()
    }

    /// The history that the copy follows.
    pub(super) fn epoch(&self) -> Option<&str> {
        Some(self.position.as_ref()?.epoch.as_str())
    }

    /// For how long the source was not heard, a copy from disk included; `None` if that cannot be told.
    pub(super) fn silence(&self) -> Option<Duration> {
        let now = self.clock.monotonic();
        match self.state.freshness(now, Duration::MAX) {
            Freshness::Fresh { age } => Some(age),
            Freshness::Stale { .. } => None,
            Freshness::NotLoaded => {
                let RestoredCopy { at, age, .. } = self.restored.as_ref()?;
                Some(age.as_ref()?.saturating_add(at.until(now)))
            }
        }
    }

    /// The source is asked now. Who asks in several steps says so before the first: it is better to take a change for
    /// unknown to the source that it knows than the other way round.
    pub(super) fn asks(&mut self) {
        self.asked_at = self.clock.monotonic();
    }

    pub(super) fn stage(&self) -> Staged {
        self.state.index().stage()
    }

    /// Brings back what was kept before a restart. What it revokes is in force; it counts as loaded only once it is
    /// [relied on](Self::rely_on_copy).
    pub(super) async fn restore(&mut self) {
        let restored = self.keeper.load().await;
        let feed = self.state.name();
        match restored {
            Ok(None) => {}
            Ok(Some(Restored { stand: Stand { position, heard_at }, torn })) => {
                let age = age(heard_at, self.clock.wall());
                self.position = Some(position);
                let state = Arc::clone(&self.state);
                self.restored = Some(RestoredCopy { state, at: self.clock.monotonic(), age });
                let entries = self.state.index().len();
                info!(
                    feed,
                    entries,
                    age_seconds = age.map(|age| age.as_secs()),
                    "restored the revocation feed {feed}"
                );
                if torn && self.keeper.is_durable() {
                    error!(
                        feed,
                        "the journal of the feed {feed} is damaged: a last batch that was cut off was never \
                         acknowledged and comes again, but what followed a damaged one is lost; the journal is put \
                         aside in state_dir as .unreadable"
                    );
                } else if torn {
                    warn!(
                        feed,
                        "the last changes of the feed {feed} were not kept completely; they are fetched again"
                    );
                }
            }
            Err(error) if self.keeper.is_durable() => error!(
                feed, %error,
                "what the feed {feed} was told before this start cannot be read and is NOT in force: tokens that \
                 were revoked then are accepted until they expire; restore state_dir with its revocation.key, or have \
                 the provider tell it again"
            ),
            Err(error) => warn!(
                feed, %error,
                "the kept copy of the revocation feed {feed} cannot be used; the feed is loaded anew"
            ),
        }
    }

    /// The copy that was brought back, if one was.
    pub(super) fn restored(&self) -> Option<RestoredCopy> {
        self.restored.clone()
    }

    /// Has the copy that was brought back count: the source cannot be heard.
    pub(super) fn rely_on_copy(&self) {
        self.restored.iter().for_each(RestoredCopy::rely_on);
    }

    /// Takes over a document that the source sent at `as_of`, when asked for what came since `asked`.
    pub(super) async fn take(
        &mut self,
        document: Document,
        asked: Option<&str>,
        as_of: Monotonic,
    ) -> Result<Taken, SyncError> {
        self.judge(&document, asked)?;
        let Document { kind, epoch, cursor, mut entries, digest, .. } = document;
        let position = Position { epoch, cursor };
        let repeated = kind == Kind::Snapshot && digest.is_some() && self.snapshot_in_force == digest;
        if repeated || (kind == Kind::Delta && entries.staged.records().is_empty()) {
            self.count(&entries, false);
            self.position = Some(position);
            self.unchanged(as_of).await;
            return Ok(Taken::Unchanged);
        }
        if kind == Kind::Delta {
            self.state.index().check_room_for(&entries.staged).map_err(Misfit::Full)?;
        }
        let (local, mark) = self.local.after(self.asked_at);
        local.iter().try_for_each(|local| entries.staged.append(local)).map_err(Misfit::Full)?;
        let staged = Arc::new(std::mem::replace(&mut entries.staged, self.stage()));
        let what = match kind {
            Kind::Snapshot => What::Snapshot(Arc::clone(&staged)),
            Kind::Delta => What::Changes(Arc::clone(&staged)),
        };
        let kept = self.keeper.before(what, Some(self.stand(&position))).await;
        let (state, late) = (Arc::clone(&self.state), self.local.clone());
        let applied = blocking(move || match kind {
            Kind::Snapshot => {
                state.index().replace_with(&staged, || late.since(mark));
                Ok(true)
            }
            Kind::Delta => {
                let changed = state.index().merge(&staged)?;
                late.since(mark).iter().try_for_each(|late| state.index().merge(late).map(drop))?;
                Ok(changed)
            }
        });
        let changed = self.in_force(applied.await)?;
        // What came meanwhile is on record before the document, if at all, and would be undone by it.
        let kept = kept && self.local.since(mark).is_empty();
        self.position = Some(position.clone());
        self.observe(kind, &entries, changed);
        self.heard(as_of);
        self.count(&entries, changed);
        let taken = match kind {
            Kind::Snapshot => {
                self.snapshot_in_force = digest;
                Stats::add(&self.stats.snapshots, 1);
                Taken::Snapshot
            }
            Kind::Delta => {
                self.snapshot_in_force = None;
                Stats::add(&self.stats.deltas, 1);
                if changed { Taken::Delta } else { Taken::Unchanged }
            }
        };
        self.kept(kept, &position).await;
        Ok(taken)
    }

    /// Puts changes in force that no document brought, on top of what is there. Whether they are kept for a restart,
    /// where there is a place for it.
    pub(super) async fn put(&mut self, staged: Staged) -> Result<bool, Full> {
        self.state.index().check_room_for(&staged)?;
        let told = || Position { epoch: TOLD.to_owned(), cursor: None };
        let position = self.position.get_or_insert_with(told).clone();
        let staged = Arc::new(staged);
        let what = What::Changes(Arc::clone(&staged));
        let kept = self.keeper.before(what, Some(self.stand(&position))).await;
        self.state.index().merge(&staged).inspect_err(|_| self.keeper.missed())?;
        Stats::add(&self.stats.applied, staged.records().len() as u64);
        Ok(self.kept(kept, &position).await)
    }

    /// The source says at `as_of` that the copy is current.
    pub(super) async fn unchanged(&mut self, as_of: Monotonic) {
        self.heard(as_of);
        Stats::add(&self.stats.unchanged, 1);
        // So that a restart does not take the copy for older than it is.
        if self.kept_at.is_none_or(|at| at.until(self.clock.monotonic()) >= KEEP_AGE_EVERY) {
            let what = What::Changes(Arc::new(self.stage()));
            let Some(position) = self.position.clone() else { return };
            let kept = self.keeper.before(what, Some(self.stand(&position))).await;
            self.kept(kept, &position).await;
        }
    }

    /// Forgets entries whose end has passed.
    pub(super) async fn forget_expired(&self) {
        let (state, now) = (Arc::clone(&self.state), self.clock.wall());
        if let Ok(forgotten) = blocking(move || state.index().forget_expired(now)).await {
            Stats::add(&self.stats.forgotten, forgotten as u64);
        }
    }

    fn judge(&self, document: &Document, asked: Option<&str>) -> Result<(), Misfit> {
        let epoch = self.position.as_ref().map(|position| position.epoch.as_str());
        let same_epoch = epoch == Some(document.epoch.as_str());
        match document.kind {
            Kind::Snapshot => {
                let index = self.state.index();
                let is_empty = document.entries.total == 0 && !document.surely_empty;
                if is_empty && same_epoch && index.any_holds(self.clock.wall()) {
                    return Err(Misfit::SuddenlyEmpty);
                }
            }
            Kind::Delta if asked.is_none() => return Err(Misfit::UnaskedDelta),
            Kind::Delta if !same_epoch => return Err(Misfit::OtherEpoch),
            Kind::Delta if document.since.as_deref() != asked => return Err(Misfit::OtherDelta),
            Kind::Delta => {}
        }
        Ok(())
    }

    /// A snapshot also has what came with those before; new is what was revoked since the source was last heard.
    fn observe(&self, kind: Kind, entries: &Entries, changed: bool) {
        let since = match kind {
            Kind::Delta => None,
            Kind::Snapshot => Some(self.stats.last_success().unwrap_or(UnixSeconds(i64::MAX))),
        };
        if changed {
            self.stats.lag.observe(&entries.moments, since, self.clock.wall());
        }
    }

    fn heard(&self, as_of: Monotonic) {
        self.state.heard(as_of);
        self.stats.succeeded(self.clock.wall());
    }

    fn count(&mut self, entries: &Entries, changed: bool) {
        let feed = self.state.name();
        let Entries { total, broken, foreign, first_broken, .. } = *entries;
        let applied = if changed { total - broken - foreign } else { 0 };
        Stats::add(&self.stats.applied, applied);
        Stats::add(&self.stats.broken, broken);
        Stats::add(&self.stats.foreign, foreign);
        debug!(feed, applied, broken, foreign, "heard the revocation feed {feed}");
        if let Some((number, reason)) = first_broken.filter(|_| !self.noted.broken) {
            self.noted.broken = true;
            warn!(
                feed,
                broken,
                total,
                "{broken} entries of the revocation feed {feed} are broken and not in force; the first is number \
                 {number}: {reason}"
            );
        }
        if foreign > 0 && !self.noted.foreign {
            self.noted.foreign = true;
            info!(
                feed, foreign, issuers = ?self.state.index().issuers(),
                "{foreign} entries of the revocation feed {feed} are about other issuers than those bound to it and \
                 are left out; 'iss' must be spelled as in the tokens"
            );
        }
    }

    /// Whether the work was done. What is on record and not in force has to be written over.
    fn in_force(&self, applied: io::Result<Result<bool, Full>>) -> Result<bool, SyncError> {
        let applied =
            applied.map_err(SyncError::Interrupted).and_then(|merged| Ok(merged.map_err(Misfit::Full)?));
        applied.inspect_err(|_| self.keeper.missed())
    }

    fn stand(&self, position: &Position) -> Stand {
        Stand { position: position.clone(), heard_at: self.clock.wall() }
    }

    /// What [`Keeper::before`] said of changes, once they are in force. Whether they are on record in the end.
    async fn kept(&mut self, kept: bool, position: &Position) -> bool {
        let kept = self.keeper.after(kept, self.stand(position)).await;
        self.kept_at = Some(self.clock.monotonic());
        kept
    }
}

/// The age of what was heard then; `None` if the clock was set back since, for then it cannot be told.
fn age(heard_at: UnixSeconds, now: UnixSeconds) -> Option<Duration> {
    u64::try_from(now.0.checked_sub(heard_at.0)?).ok().map(Duration::from_secs)
}

/// Runs large work where it holds nobody up.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
}

/// The epoch of what no document brought.
const TOLD: &str = "told";
const KEEP_AGE_EVERY: Duration = Duration::from_secs(15);
