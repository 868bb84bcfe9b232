//! Puts in force at this gateway what it is told rather than what it hears, and writes it to where all gateways hear
//! of it.
//!
//! Here first, so that a revocation counts at once whatever becomes of the engine; the sender is only told that it is
//! done when somebody keeps it. Writing twice does no harm, so a sender may simply try again.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tracing::warn;

use super::RevocationFeed;
use super::keeper::{Keeper, What};
use super::replica::Replica;
use super::stats::RevocationFeedStats;
use super::store::Store;
use crate::clock::{Clock, Monotonic};
use crate::revocation::{Change, Fact, FactHasher, FeedState, Index, Revocation, RevocationEngine};

/// The writing side of one feed.
#[derive(Debug)]
pub struct FeedWriter {
    state: Arc<FeedState>,
    engine: Option<Arc<dyn RevocationEngine>>,
    holder: Holder,
}

/// Who keeps the index current, and keeps its copy.
#[derive(Debug)]
enum Holder {
    /// The task that reads the engine.
    Reader(Keeper),
    /// This writer.
    Own(Box<Own>),
}

/// What a feed has that hears of its revocations from nobody else.
#[derive(Debug)]
struct Own {
    replica: Replica,
    currency: Currency,
    forgot_at: Monotonic,
}

/// When a feed that is told counts as heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Currency {
    /// As long as the gateway runs: who has something to tell tells it.
    Always,
    /// When something arrives, or its source was asked and had nothing.
    WhenHeard,
}

/// What a feed needs that is told.
#[derive(Clone, Debug)]
pub struct ToldFeedSettings {
    /// Its name in the configuration.
    pub name: String,
    /// What the copy on disk is only good for: where its revocations come from.
    pub origin: String,
    /// The issuers that it speaks for.
    pub issuers: Vec<String>,
    /// The largest leeway of these issuers.
    pub leeway: Duration,
    /// The most entries to hold.
    pub max_entries: usize,
    /// Where they are kept; without it a restart forgets them, unless an engine has them.
    pub state_dir: Option<PathBuf>,
    /// When it counts as heard.
    pub currency: Currency,
}

impl FeedWriter {
    /// For a feed that reads `engine`: what is written comes back from there.
    pub fn for_engine(feed: &RevocationFeed, engine: Arc<dyn RevocationEngine>) -> Self {
        Self {
            state: feed.state(),
            engine: Some(engine),
            holder: Holder::Reader(feed.replica.keeper.clone()),
        }
    }

    /// For a feed that is told, with what it was told before a restart. It is the only one that knows, unless `engine`
    /// is given the same.
    pub async fn told(
        settings: ToldFeedSettings,
        engine: Option<Arc<dyn RevocationEngine>>,
        hasher: FactHasher,
        clock: Clock,
    ) -> Self {
        let ToldFeedSettings { name, origin, issuers, leeway, max_entries, state_dir, currency } = settings;
        let index = Index::new(hasher, issuers, leeway, max_entries);
        if state_dir.is_none() && engine.is_none() {
            warn!(
                feed = name,
                "the feed {name} has neither state_dir nor write_to: a restart forgets what it was told"
            );
        }
        let store = state_dir.map(|directory| Store::new(&directory, &name, &origin, &index).durable());
        let state = Arc::new(FeedState::new(name, index));
        let forgot_at = clock.monotonic();
        let mut replica = Replica::new(Arc::clone(&state), clock, store);
        replica.restore().await;
        replica.rely_on_copy();
        let own = Own { replica, currency, forgot_at };
        let mut writer = Self { state, engine, holder: Holder::Own(Box::new(own)) };
        writer.keep_house().await;
        writer
    }

    /// The readers' side.
    pub fn state(&self) -> &Arc<FeedState> {
        &self.state
    }

    /// The numbers for metrics; those of a feed that reads an engine are counted where it reads.
    pub fn stats(&self) -> Option<Arc<RevocationFeedStats>> {
        self.own().map(|own| Arc::clone(&own.replica.stats))
    }

    /// Puts these revocations in force.
    ///
    /// # Errors
    /// Why they may not last; they can be in force all the same.
    pub async fn revoke(&mut self, revocations: &[Revocation]) -> Result<(), String> {
        let changes = revocations.iter().map(|revocation| Change::Revoke(revocation.entry.clone()));
        let kept = self.put_in_force(changes).await?;
        match &self.engine {
            Some(engine) => engine.revoke(revocations).await.map_err(|error| error.to_string()),
            None if kept => Ok(()),
            None => Err("state_dir cannot be written to".to_owned()),
        }
    }

    /// Takes back every revocation of these facts.
    ///
    /// # Errors
    /// Why some may still be in force.
    pub async fn lift(&mut self, facts: &[Fact]) -> Result<(), String> {
        if let Some(engine) = &self.engine {
            engine.lift(facts).await.map_err(|error| error.to_string())?;
        }
        let lift = |Fact { target, issuer }: Fact| Change::Lift { target, issuer };
        self.put_in_force(facts.iter().cloned().map(lift)).await.map(drop)
    }

    /// The source was heard, whether or not it had something to tell.
    pub fn heard(&mut self) {
        if let Some(own) = self.own() {
            own.replica.heard_now();
        }
    }

    /// To be called every second or so.
    pub async fn keep_house(&mut self) {
        let Holder::Own(own) = &mut self.holder else { return };
        if own.currency == Currency::Always {
            own.replica.heard_now();
        }
        let now = own.replica.clock.monotonic();
        if own.forgot_at.until(now) >= FORGET_EVERY {
            own.forgot_at = now;
            own.replica.forget_expired().await;
        }
    }

    /// Whether it is kept on this machine, where it should be.
    async fn put_in_force(&mut self, changes: impl Iterator<Item = Change>) -> Result<bool, String> {
        let mut staged = self.state.index().stage();
        for change in changes {
            staged.push(&change).map_err(|full| full.to_string())?;
        }
        match &mut self.holder {
            Holder::Own(own) => own.replica.put(staged).await.map_err(|full| full.to_string()),
            // The reader may be at the same index: each change is whole, and what a snapshot from before this one
            // leaves out comes again with the next delta.
            Holder::Reader(keeper) => {
                let index = self.state.index();
                index.check_room_for(&staged).map_err(|full| full.to_string())?;
                let staged = Arc::new(staged);
                if !keeper.before(What::Changes(Arc::clone(&staged)), None).await {
                    keeper.missed();
                }
                index.merge(&staged).map(|_| true).map_err(|full| full.to_string())
            }
        }
    }

    fn own(&self) -> Option<&Own> {
        match &self.holder {
            Holder::Own(own) => Some(own),
            Holder::Reader(_) => None,
        }
    }
}

const FORGET_EVERY: Duration = Duration::from_secs(60);
