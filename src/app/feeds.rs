//! The revocation feeds of the configuration, started.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::config::Config;
use crate::config::settings::{self, FeedIndex, FeedSource, HttpFeed};
use crate::events::Inbox;
use crate::feeds::revocation::{
    DEFAULT_INTERVAL, DEFAULT_MAX_BYTES, DEFAULT_MAX_ENTRIES, RevocationFeed, RevocationFeedSettings,
    RevocationFeedStats, RevocationSource, SignedSettings,
};
use crate::revocation::{FactHasher, FeedState, Freshness};
use crate::telemetry::metrics::{Metrics, Registration};
use crate::token::Issuer;

use super::sources::Purpose;
use super::{engines, events};

/// What feeds are started with.
pub struct Surroundings<'a> {
    pub config: &'a Config,
    pub purpose: Purpose,
    /// At their places in the configuration.
    pub issuers: &'a [Arc<Issuer>],
    pub hasher: &'a FactHasher,
    pub clock: &'a Clock,
    pub metrics: &'a Metrics,
}

/// The started feeds.
#[derive(Default)]
pub struct Feeds {
    /// What the data plane reads, at their places in the configuration.
    pub states: Vec<Arc<FeedState>>,
    /// Where can be written to those that can be, at their places.
    pub inboxes: Vec<Option<Inbox>>,
    /// Keeps their series on the metrics page.
    pub registrations: Vec<Registration>,
}

/// Restores each feed from its copy on disk and starts its task.
pub async fn start(surroundings: &Surroundings<'_>, tasks: &mut JoinSet<()>) -> Result<Feeds> {
    let mut feeds = Feeds::default();
    for (place, feed) in surroundings.config.feeds.iter().enumerate() {
        let place = FeedIndex(place);
        let started = match &feed.source {
            FeedSource::Http(http) => {
                let source = (http_source(http, surroundings)?, http.interval);
                read(surroundings, place, feed, source, &mut feeds, tasks).await
            }
            FeedSource::File { path, interval } => {
                let file = RevocationSource::File { path: path.clone(), max_bytes: DEFAULT_MAX_BYTES };
                read(surroundings, place, feed, (file, *interval), &mut feeds, tasks).await
            }
            FeedSource::Valkey { valkey, prefix } => {
                let valkey =
                    RevocationSource::Valkey { valkey: Box::new(valkey.clone()), prefix: prefix.clone() };
                read(surroundings, place, feed, (valkey, DEFAULT_INTERVAL), &mut feeds, tasks).await
            }
            FeedSource::Nats { nats, bucket } => {
                let nats = RevocationSource::Nats { nats: Box::new(nats.clone()), bucket: bucket.clone() };
                read(surroundings, place, feed, (nats, DEFAULT_INTERVAL), &mut feeds, tasks).await
            }
            FeedSource::Events(source) => {
                events::start(surroundings, place, feed, source, &mut feeds, tasks).await
            }
        };
        started.with_context(|| format!("feed {}", feed.name))?;
    }
    Ok(feeds)
}

/// The issuers that are revoked by a feed, and the largest of their leeways.
pub fn bound(config: &Config, place: FeedIndex) -> (Vec<String>, Duration) {
    let is_bound = |issuer: &&settings::Issuer| {
        issuer.revocation.as_ref().is_some_and(|revocation| revocation.feeds.contains(&place))
    };
    let bound: Vec<&settings::Issuer> = config.issuers.iter().filter(is_bound).collect();
    let leeway = bound.iter().map(|issuer| issuer.leeway).max().unwrap_or(Duration::ZERO);
    (bound.iter().map(|issuer| issuer.issuer.clone()).collect(), leeway)
}

/// Starts the task of a feed that asks its source.
async fn read(
    surroundings: &Surroundings<'_>,
    place: FeedIndex,
    feed: &settings::Feed,
    (source, interval): (RevocationSource, Duration),
    feeds: &mut Feeds,
    tasks: &mut JoinSet<()>,
) -> Result<()> {
    let &Surroundings { config, hasher, clock, .. } = surroundings;
    let (issuers, leeway) = bound(config, place);
    let settings = RevocationFeedSettings {
        name: feed.name.clone(),
        source,
        interval,
        issuers,
        leeway,
        max_entries: DEFAULT_MAX_ENTRIES,
        state_dir: config.state_dir.clone(),
    };
    let mut task = RevocationFeed::new(settings, hasher.clone(), clock.clone())?;
    task.restore().await;
    let engine = engines::writable(feed, clock)?;
    feeds.inboxes.push(engine.map(|engine| events::write_behind(task.state(), engine, tasks)));
    feeds.states.push(task.state());
    feeds.registrations.extend(register(&feed.name, &task.state(), &task.stats(), surroundings));
    tasks.spawn(task.run());
    Ok(())
}

fn http_source(http: &HttpFeed, surroundings: &Surroundings<'_>) -> Result<RevocationSource> {
    let signed = match &http.signed {
        None => None,
        Some(signed) => {
            let issuer = surroundings.issuers.get(signed.signed_by.0).context("its issuer does not exist")?;
            Some(Box::new(SignedSettings {
                keys: Arc::clone(&issuer.keys),
                algorithms: issuer.expectations.algorithms.clone(),
                issuer: issuer.url.to_string(),
                audience: signed.audience.clone(),
                max_age: signed.max_age,
                leeway: issuer.expectations.leeway,
            }))
        }
    };
    Ok(RevocationSource::Http {
        url: http.url.clone(),
        long_poll: http.long_poll,
        authorization: http.authorization.clone(),
        signed,
        fetch: Box::new(engines::fetch_settings(http)),
    })
}

type Read = fn(&RevocationFeedStats) -> &AtomicU64;

/// The series of one feed.
pub fn register(
    feed: &str,
    state: &Arc<FeedState>,
    counts: &Arc<RevocationFeedStats>,
    surroundings: &Surroundings<'_>,
) -> Vec<Registration> {
    let &Surroundings { metrics, clock, .. } = surroundings;
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
