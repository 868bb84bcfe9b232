//! Puts in force at this gateway what it is told rather than what it hears, and writes it to where all gateways hear
//! of it.
//!
//! Here first, so that a revocation counts at once whatever becomes of the engine; the sender is only told that it is
//! done when somebody keeps it. Writing twice does no harm, so a sender may simply try again.

use std::sync::Arc;

use tracing::warn;

use super::RevocationFeed;
use super::keeper::{Keeper, What};
use super::lag::Moments;
use super::local::LocalChanges;
use super::told::Told;
use crate::clock::Clock;
use crate::revocation::{Change, Fact, FeedState, Full, Revocation, RevocationEngine, Staged};

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
    Reader { keeper: Keeper, local: LocalChanges, clock: Clock },
    /// Whoever tells.
    Told { told: Told, currency: Currency, clock: Clock },
}

/// When a feed that is told counts as heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Currency {
    /// As long as the gateway runs: who has something to tell tells it.
    Always,
    /// When a statement arrives that is believed.
    WhenTold,
    /// When somebody else says so, who asks the source.
    WhenAsked,
}

impl FeedWriter {
    /// For a feed that reads `engine`: what is written comes back from there.
    pub fn for_engine(feed: &RevocationFeed, engine: Arc<dyn RevocationEngine>) -> Self {
        let replica = &feed.replica;
        Self {
            state: feed.state(),
            engine: Some(engine),
            holder: Holder::Reader {
                keeper: replica.keeper.clone(),
                local: replica.local.clone(),
                clock: replica.clock.clone(),
            },
        }
    }

    /// For a feed that is told. What it was told is only here, unless `engine` is given the same. Returns once what was
    /// kept over a restart is in force.
    pub async fn told(
        told: Told,
        currency: Currency,
        engine: Option<Arc<dyn RevocationEngine>>,
        clock: Clock,
    ) -> Self {
        let state = Arc::clone(told.state());
        if !told.is_kept() && engine.is_none() {
            let feed = state.name();
            warn!(
                feed,
                "the feed {feed} has neither state_dir nor write_to: a restart forgets what it was told"
            );
        }
        told.restore().await;
        let mut writer = Self { state, engine, holder: Holder::Told { told, currency, clock } };
        writer.keep_house().await;
        // Not before it counts as heard, where it does by itself: whoever waits for this finds it current.
        writer.state.restored();
        writer
    }

    /// The readers' side.
    pub fn state(&self) -> &Arc<FeedState> {
        &self.state
    }

    /// Puts these revocations in force.
    ///
    /// # Errors
    /// Why they may not last; they can be in force all the same.
    pub async fn revoke(&mut self, revocations: &[Revocation]) -> Result<(), String> {
        let changes = revocations.iter().map(|revocation| Change::Revoke(revocation.entry.clone()));
        let mut moments = Moments::default();
        for revocation in revocations {
            moments.add(revocation.revoked_at);
        }
        let put = self.put_in_force(changes, &moments).await;
        let outcome = match (put, &self.engine) {
            (Err(full), _) => Err(full.to_string()),
            (Ok(_), Some(engine)) => engine.revoke(revocations).await.map_err(|error| error.to_string()),
            (Ok(true), None) => Ok(()),
            (Ok(false), None) => Err("state_dir cannot be written to".to_owned()),
        };
        self.written();
        outcome
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
        let put = self.put_in_force(facts.iter().cloned().map(lift), &Moments::default()).await;
        self.written();
        put.map(drop).map_err(|full| full.to_string())
    }

    /// A statement arrived that is believed, whether or not it revokes.
    pub fn heard(&mut self) {
        if let Holder::Told { told, currency: Currency::WhenTold, clock } = &self.holder {
            told.heard(clock.monotonic());
        }
    }

    /// To be called every second or so.
    pub async fn keep_house(&mut self) {
        let Holder::Told { told, currency, clock } = &self.holder else { return };
        if *currency == Currency::Always {
            told.heard(clock.monotonic());
        }
        told.keep_house().await;
    }

    /// Whether it is kept on this machine, where it should be.
    async fn put_in_force(
        &mut self,
        changes: impl Iterator<Item = Change>,
        moments: &Moments,
    ) -> Result<bool, Full> {
        let mut staged = self.state.index().stage();
        for change in changes {
            staged.push(&change)?;
        }
        match &self.holder {
            Holder::Told { told, .. } => told.put(staged, moments).await,
            Holder::Reader { keeper, local, .. } => self.put_beside(keeper, local, staged).await,
        }
    }

    /// In an index of which somebody else takes care, who may be at it now.
    async fn put_beside(&self, keeper: &Keeper, local: &LocalChanges, staged: Staged) -> Result<bool, Full> {
        let index = self.state.index();
        index.check_room_for(&staged)?;
        let staged = Arc::new(staged);
        if !keeper.before(What::Changes(Arc::clone(&staged)), None).await {
            keeper.missed();
        }
        local.begin(&staged);
        index.merge(&staged).map(|_| true)
    }

    /// The engine has what was put in force, or never will.
    fn written(&self) {
        if let Holder::Reader { local, clock, .. } = &self.holder {
            local.written(clock.monotonic());
        }
    }
}
