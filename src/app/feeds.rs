//! The revocation feeds of the configuration, started.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::config::Config;
use crate::config::settings::{self, FeedIndex, FeedSource};
use crate::feeds::fetch::{FetchSettings, TrustAnchors};
use crate::feeds::revocation::{
    DEFAULT_INTERVAL, DEFAULT_MAX_BYTES, DEFAULT_MAX_ENTRIES, RevocationFeed, RevocationFeedSettings,
    RevocationFeedStats, RevocationSource,
};
use crate::revocation::{FactHasher, FeedState, Freshness};
use crate::telemetry::metrics::{Metrics, Registration};

/// Restores each feed from its copy on disk and starts its task. The states are at their places in the
/// configuration.
pub async fn start(
    config: &Config,
    hasher: &FactHasher,
    clock: &Clock,
    metrics: &Metrics,
    tasks: &mut JoinSet<()>,
) -> Result<(Vec<Arc<FeedState>>, Vec<Registration>)> {
    let (mut states, mut registrations) = (Vec::new(), Vec::new());
    for (place, feed) in config.feeds.iter().enumerate() {
        let settings = feed_settings(config, FeedIndex(place), feed);
        let mut task = RevocationFeed::new(settings, hasher.clone(), clock.clone())
            .with_context(|| format!("feed {}", feed.name))?;
        task.restore().await;
        states.push(task.state());
        registrations.extend(register(&feed.name, &task.state(), &task.stats(), metrics, clock));
        tasks.spawn(task.run());
    }
    Ok((states, registrations))
}

fn feed_settings(config: &Config, place: FeedIndex, feed: &settings::Feed) -> RevocationFeedSettings {
    let is_bound = |issuer: &&settings::Issuer| {
        issuer.revocation.as_ref().is_some_and(|revocation| revocation.feeds.contains(&place))
    };
    let bound: Vec<&settings::Issuer> = config.issuers.iter().filter(is_bound).collect();
    let (source, interval) = match &feed.source {
        FeedSource::Http(http) => {
            let fetch = FetchSettings {
                ca: http.ca.clone().map(TrustAnchors::File),
                timeout: http.timeout,
                max_bytes: DEFAULT_MAX_BYTES,
                allow_http: http.insecure_allow_http,
                ..FetchSettings::default()
            };
            let source = RevocationSource::Http {
                url: http.url.clone(),
                long_poll: http.long_poll,
                authorization: http.authorization.clone(),
                fetch: Box::new(fetch),
            };
            (source, http.interval)
        }
        FeedSource::File { path, interval } => {
            (RevocationSource::File { path: path.clone(), max_bytes: DEFAULT_MAX_BYTES }, *interval)
        }
        FeedSource::Valkey { valkey, prefix } => {
            let source =
                RevocationSource::Valkey { valkey: Box::new(valkey.clone()), prefix: prefix.clone() };
            (source, DEFAULT_INTERVAL)
        }
        FeedSource::Nats { nats, bucket } => {
            let source = RevocationSource::Nats { nats: Box::new(nats.clone()), bucket: bucket.clone() };
            (source, DEFAULT_INTERVAL)
        }
    };
    RevocationFeedSettings {
        name: feed.name.clone(),
        source,
        interval,
        issuers: bound.iter().map(|issuer| issuer.issuer.clone()).collect(),
        leeway: bound.iter().map(|issuer| issuer.leeway).max().unwrap_or(Duration::ZERO),
        max_entries: DEFAULT_MAX_ENTRIES,
        state_dir: config.state_dir.clone(),
    }
}

type Read = fn(&RevocationFeedStats) -> &AtomicU64;

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
