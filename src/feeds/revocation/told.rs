//! What a feed knows that is told: nobody could be asked for it again, so it outlives every configuration that has a feed
//! of this name and origin, and, with a state directory, the process.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use super::lag::Moments;
use super::replica::Replica;
use super::stats::RevocationFeedStats;
use super::store::Store;
use crate::clock::{Clock, Monotonic};
use crate::revocation::{FactHasher, FeedState, Full, Index, Staged};

/// See the module. Clones lead to the same.
#[derive(Clone, Debug)]
pub struct Told {
    state: Arc<FeedState>,
    stats: Arc<RevocationFeedStats>,
    clock: Clock,
    origin: String,
    is_kept: bool,
    /// Whoever tells it something waits for the disk in here, one after the other.
    own: Arc<Mutex<Own>>,
}

#[derive(Debug)]
struct Own {
    replica: Replica,
    forgot_at: Monotonic,
    /// Whoever looks what another process was told, which takes as long as the disk.
    following: Option<JoinHandle<()>>,
}

/// What a feed needs that is told.
#[derive(Clone, Debug)]
pub struct ToldFeedSettings {
    /// Its name in the configuration.
    pub name: String,
    /// What it is only good for: where its revocations come from.
    pub origin: String,
    /// The issuers that it speaks for.
    pub issuers: Vec<String>,
    /// The largest leeway that these issuers can ever have: what is told now is in force for so long after its end.
    pub leeway: Duration,
    /// The most entries to hold.
    pub max_entries: usize,
    /// Where they are kept; without it a restart forgets them, unless an engine has them.
    pub state_dir: Option<PathBuf>,
}

impl Told {
    /// Nothing yet: until [`Self::restore`] nobody is let in by it.
    pub fn new(settings: ToldFeedSettings, hasher: FactHasher, clock: Clock) -> Self {
        let ToldFeedSettings { name, origin, issuers, leeway, max_entries, state_dir } = settings;
        let index = Index::new(hasher, issuers, leeway, max_entries);
        let store = state_dir.map(|directory| Store::durable(&directory, &name, &origin, &index));
        let is_kept = store.is_some();
        let state = Arc::new(FeedState::new(name, index));
        state.restores();
        let replica = Replica::new(Arc::clone(&state), clock.clone(), store);
        let (stats, forgot_at) = (Arc::clone(&replica.stats), clock.monotonic());
        let own = Arc::new(Mutex::new(Own { replica, forgot_at, following: None }));
        Self { state, stats, clock, origin, is_kept, own }
    }

    /// Brings back what was told before a restart, if that was kept and nobody has yet. What is told meanwhile has to wait.
    pub async fn restore(&self) {
        let mut own = self.own.lock().await;
        if self.state.is_restoring() {
            own.replica.restore().await;
            own.replica.rely_on_copy();
        }
    }

    /// Where it comes from.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Whether a restart brings it back.
    pub fn is_kept(&self) -> bool {
        self.is_kept
    }

    /// The readers' side.
    pub fn state(&self) -> &Arc<FeedState> {
        &self.state
    }

    /// The numbers for metrics.
    pub fn stats(&self) -> &Arc<RevocationFeedStats> {
        &self.stats
    }

    /// Whoever tells was heard at `as_of`, whether or not there was something to tell.
    pub fn heard(&self, as_of: Monotonic) {
        self.state.heard(as_of);
        self.stats.succeeded(self.clock.wall());
    }

    /// Puts changes in force. Whether they are kept for a restart, where there is a place for it.
    pub(super) async fn put(&self, staged: Staged, moments: &Moments) -> Result<bool, Full> {
        let kept = self.own.lock().await.replica.put(staged).await?;
        self.stats.lag.observe(moments, None, self.clock.wall());
        Ok(kept)
    }

    /// To be called every second or so.
    pub(super) async fn keep_house(&self) {
        let mut own = self.own.lock().await;
        // While one process takes over from another, both are told: what one has acknowledged holds at the other.
        if own.following.as_ref().is_none_or(JoinHandle::is_finished) {
            own.following = own.replica.keeper.follow();
        }
        let now = self.clock.monotonic();
        if own.forgot_at.until(now) >= FORGET_EVERY {
            own.forgot_at = now;
            own.replica.forget_expired().await;
        }
    }
}

const FORGET_EVERY: Duration = Duration::from_secs(60);
