//! The revocation feeds of the configuration, started.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::task::JoinSet;

use super::sources::{Ground, fetch_settings};
use super::{engines, events};
use crate::clock::Clock;
use crate::config::settings::{self, FeedIndex, FeedSource, HttpFeed};
use crate::config::{Config, Identity};
use crate::events::Inbox;
use crate::feeds::events::EventStats;
use crate::feeds::revocation::{
    DEFAULT_INTERVAL, DEFAULT_MAX_BYTES, DEFAULT_MAX_ENTRIES, RevocationFeed, RevocationFeedSettings,
    RevocationFeedStats, RevocationSource, SignedSettings, Told,
};
use crate::keys::KeySource;
use crate::revocation::{FeedState, Freshness, RevocationEngine};
use crate::telemetry::metrics::{Metrics, Registration};

/// The task that keeps one feed's index current, until dropped.
#[derive(Debug)]
pub struct FeedTask {
    /// What the configuration says of the feed, and of all that it refers to or speaks for.
    pub identity: Vec<Identity>,
    /// What the data plane reads.
    pub state: Arc<FeedState>,
    /// Where revocations are handed in; `None` if the feed is only read.
    pub inbox: Option<Inbox>,
    /// What they are kept in; `None` for a feed that is told.
    pub engine: Option<Arc<dyn RevocationEngine>>,
    /// What it was told and nobody else knows; `None` for a feed that asks its source.
    pub(super) told: Option<Told>,
    pub(super) stats: Arc<RevocationFeedStats>,
    pub(super) event_stats: Option<Arc<EventStats>>,
    pub(super) registrations: OnceLock<Vec<Registration>>,
    pub(super) _task: JoinSet<()>,
}

impl FeedTask {
    /// What the task of the feed at this place depends on.
    pub fn identity(config: &Config, place: usize) -> Vec<Identity> {
        let feed = |place| config.document.identity("feeds", place, &[]);
        let mut identity = vec![feed(place)];
        for (issuer, settings) in config.issuers.iter().enumerate() {
            if bound_to(settings, FeedIndex(place)) {
                identity.push(config.document.identity("issuers", issuer, &["issuer", "leeway"]));
            }
        }
        let (signer, shared) = match config.feeds.get(place).map(|feed| &feed.source) {
            Some(FeedSource::Events(source)) => (Some(source.signed_by), source.write_to),
            Some(FeedSource::Http(http)) => (http.signed.as_ref().map(|signed| signed.signed_by), None),
            _ => (None, None),
        };
        let fields = ["name", "issuer", "keys", "algorithms", "leeway"];
        identity.extend(signer.map(|signer| config.document.identity("issuers", signer.0, &fields)));
        identity.extend(shared.map(|shared| feed(shared.0)));
        identity
    }

    /// Starts the task of the feed at this place in the configuration, which begins with its copy on disk. `keys` are those
    /// of the issuers, at their places; `before` has the feeds of the configuration before.
    pub fn start(
        config: &Config,
        place: usize,
        ground: &Ground,
        keys: &[Arc<KeySource>],
        before: &[Arc<Self>],
    ) -> Result<Self> {
        let place = FeedIndex(place);
        let feed = config.feeds.get(place.0).context("no such feed")?;
        match &feed.source {
            FeedSource::Http(http) => {
                let source = http_source(http, config, keys)?;
                Self::read(config, place, feed, (source, http.interval), ground)
            }
            FeedSource::File { path, interval } => {
                let source = RevocationSource::File { path: path.clone(), max_bytes: DEFAULT_MAX_BYTES };
                Self::read(config, place, feed, (source, *interval), ground)
            }
            FeedSource::Valkey { valkey, prefix } => {
                let source =
                    RevocationSource::Valkey { valkey: Box::new(valkey.clone()), prefix: prefix.clone() };
                Self::read(config, place, feed, (source, DEFAULT_INTERVAL), ground)
            }
            FeedSource::Nats { nats, bucket } => {
                let source = RevocationSource::Nats { nats: Box::new(nats.clone()), bucket: bucket.clone() };
                Self::read(config, place, feed, (source, DEFAULT_INTERVAL), ground)
            }
            FeedSource::Events(source) => {
                let before = before.iter().find(|task| task.state.name() == feed.name);
                let before = before.and_then(|task| task.told.as_ref());
                events::start(config, place, feed, source, ground, keys, before)
            }
        }
    }

    /// Starts the task of a feed that asks its source.
    fn read(
        config: &Config,
        place: FeedIndex,
        feed: &settings::Feed,
        (source, interval): (RevocationSource, Duration),
        ground: &Ground,
    ) -> Result<Self> {
        let (issuers, leeway) = bound(config, place);
        let settings = RevocationFeedSettings {
            name: feed.name.clone(),
            source,
            interval,
            issuers,
            leeway,
            max_entries: DEFAULT_MAX_ENTRIES,
            state_dir: ground.state_dir.clone(),
        };
        let mut reader = RevocationFeed::new(settings, ground.hasher.clone(), ground.clock.clone())?;
        let (state, counts) = (reader.state(), reader.stats());
        let mut task = JoinSet::new();
        let engine = engines::writable(feed, &ground.clock)?;
        let inbox = engine.clone().map(|engine| events::write_behind(&reader, engine, &mut task));
        task.spawn(async move {
            reader.restore().await;
            reader.run().await;
        });
        Ok(Self {
            identity: Self::identity(config, place.0),
            state,
            inbox,
            engine,
            told: None,
            stats: counts,
            event_stats: None,
            registrations: OnceLock::new(),
            _task: task,
        })
    }

    /// Puts the feed on the metrics page, if it is not there.
    pub fn register(&self, metrics: &Metrics, clock: &Clock) {
        self.registrations.get_or_init(|| {
            let mut all = register(self.state.name(), &self.state, &self.stats, metrics, clock);
            let of_events = self.event_stats.iter();
            all.extend(of_events.flat_map(|stats| events::register(self.state.name(), stats, metrics)));
            all
        });
    }
}

/// The issuers that are revoked by a feed, and the largest of their leeways.
pub fn bound(config: &Config, place: FeedIndex) -> (Vec<String>, Duration) {
    let bound: Vec<&settings::Issuer> =
        config.issuers.iter().filter(|issuer| bound_to(issuer, place)).collect();
    let leeway = bound.iter().map(|issuer| issuer.leeway).max().unwrap_or(Duration::ZERO);
    (bound.iter().map(|issuer| issuer.issuer.clone()).collect(), leeway)
}

fn bound_to(issuer: &settings::Issuer, place: FeedIndex) -> bool {
    issuer.revocation.as_ref().is_some_and(|revocation| revocation.feeds.contains(&place))
}

fn http_source(http: &HttpFeed, config: &Config, keys: &[Arc<KeySource>]) -> Result<RevocationSource> {
    let signed = match &http.signed {
        None => None,
        Some(signed) => {
            let issuer = config.issuers.get(signed.signed_by.0).context("its issuer does not exist")?;
            Some(Box::new(SignedSettings {
                keys: keys.get(signed.signed_by.0).cloned().context("its issuer has no keys")?,
                algorithms: issuer.algorithms.clone(),
                issuer: issuer.issuer.clone(),
                audience: signed.audience.clone(),
                max_age: signed.max_age,
                leeway: issuer.leeway,
            }))
        }
    };
    Ok(RevocationSource::Http {
        url: http.url.clone(),
        long_poll: http.long_poll,
        authorization: http.authorization.clone(),
        signed,
        fetch: Box::new(fetch_settings(&http.transport)),
    })
}

type Read = fn(&RevocationFeedStats) -> &AtomicU64;

/// The series of one feed.
fn register(
    feed: &str,
    state: &Arc<FeedState>,
    counts: &Arc<RevocationFeedStats>,
    metrics: &Metrics,
    clock: &Clock,
) -> Vec<Registration> {
    let labels = [("feed", feed)];
    let counters: [(&str, &str, Read); 8] = [
        ("feed_snapshots", "Snapshots of a revocation feed put in force.", |stats| &stats.snapshots),
        ("feed_deltas", "Deltas of a revocation feed put in force.", |stats| &stats.deltas),
        ("feed_unchanged", "Times a revocation feed said that nothing changed.", |stats| &stats.unchanged),
        ("feed_failures", "Failed attempts to hear a revocation feed.", |stats| &stats.failures),
        ("feed_applied", "Entries of a revocation feed put in force.", |stats| &stats.applied),
        ("feed_broken_entries", "Entries of a revocation feed skipped as broken.", |stats| &stats.broken),
        (
            "feed_foreign_entries",
            "Entries of a revocation feed about issuers that are not bound to it.",
            |stats| &stats.foreign,
        ),
        ("feed_store_failures", "Failed attempts to keep a feed's copy on disk.", |stats| {
            &stats.store_failures
        }),
    ];
    let mut registrations: Vec<Registration> = counters
        .into_iter()
        .map(|(name, help, read)| {
            let counts = Arc::clone(counts);
            metrics.register_counter(name, help, &labels, move || read(&counts).load(Ordering::Relaxed))
        })
        .collect();
    let entries = Arc::clone(state);
    registrations.push(metrics.register_gauge(
        "feed_entries",
        "Entries that a revocation feed has in force.",
        &labels,
        #[allow(clippy::cast_precision_loss, reason = "a count of entries")]
        move || entries.index().len() as f64,
    ));
    let lag = Arc::clone(counts);
    registrations.push(metrics.register_histogram(
        "feed_lag_seconds",
        "Time from when a revocation was made, as its source says, until it was in force.",
        &labels,
        move || lag.lag.read(),
    ));
    let (state, clock) = (Arc::clone(state), clock.clone());
    registrations.push(metrics.register_gauge(
        "feed_staleness_seconds",
        "Time since a revocation feed was last heard; absent before the first time.",
        &labels,
        move || match state.freshness(clock.monotonic(), Duration::MAX) {
            Freshness::NotLoaded => f64::NAN,
            Freshness::Fresh { age } | Freshness::Stale { age } => age.as_secs_f64(),
        },
    ));
    registrations
}
