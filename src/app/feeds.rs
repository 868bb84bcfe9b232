//! The revocation feeds of the configuration, started.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::task::JoinSet;

use super::sources::Ground;
use crate::clock::Clock;
use crate::config::settings::{self, FeedIndex, FeedSource};
use crate::config::{Config, Identity};
use crate::feeds::fetch::{FetchSettings, TrustAnchors};
use crate::feeds::revocation::{
    DEFAULT_INTERVAL, DEFAULT_MAX_BYTES, DEFAULT_MAX_ENTRIES, RevocationFeed, RevocationFeedSettings,
    RevocationFeedStats, RevocationSource,
};
use crate::revocation::{FeedState, Freshness};
use crate::telemetry::metrics::{Metrics, Registration};

/// The task that keeps one feed's index current, until dropped.
#[derive(Debug)]
pub struct FeedTask {
    /// What the configuration says of the feed and of the issuers that it speaks for.
    pub identity: Vec<Identity>,
    /// What the data plane reads.
    pub state: Arc<FeedState>,
    counts: Arc<RevocationFeedStats>,
    registrations: OnceLock<Vec<Registration>>,
    _task: JoinSet<()>,
}

impl FeedTask {
    /// What the task of the feed at this place depends on.
    pub fn identity(config: &Config, place: usize) -> Vec<Identity> {
        let of_feed = config.document.identity("feeds", place, &[]);
        let of_issuer = |issuer| config.document.identity("issuers", issuer, &["issuer", "leeway"]);
        let is_bound = |(_, issuer): &(usize, &settings::Issuer)| bound_to(issuer, FeedIndex(place));
        let issuers = config.issuers.iter().enumerate().filter(is_bound);
        [of_feed].into_iter().chain(issuers.map(|(place, _)| of_issuer(place))).collect()
    }

    /// Restores the feed at this place in the configuration from its copy on disk and starts its task.
    pub async fn start(config: &Config, place: usize, ground: &Ground) -> Result<Self> {
        let identity = Self::identity(config, place);
        let settings = feed_settings(config, FeedIndex(place), ground.state_dir.as_deref())?;
        let mut feed = RevocationFeed::new(settings, ground.hasher.clone(), ground.clock.clone())?;
        feed.restore().await;
        let (state, counts) = (feed.state(), feed.stats());
        let mut task = JoinSet::new();
        task.spawn(feed.run());
        Ok(Self { identity, state, counts, registrations: OnceLock::new(), _task: task })
    }

    /// Puts the feed on the metrics page, if it is not there.
    pub fn register(&self, metrics: &Metrics, clock: &Clock) {
        self.registrations
            .get_or_init(|| register(self.state.name(), &self.state, &self.counts, metrics, clock));
    }
}

fn bound_to(issuer: &settings::Issuer, place: FeedIndex) -> bool {
    issuer.revocation.as_ref().is_some_and(|revocation| revocation.feeds.contains(&place))
}

fn feed_settings(
    config: &Config,
    place: FeedIndex,
    state_dir: Option<&Path>,
) -> Result<RevocationFeedSettings> {
    let feed = config.feeds.get(place.0).context("no such feed")?;
    let bound: Vec<&settings::Issuer> =
        config.issuers.iter().filter(|issuer| bound_to(issuer, place)).collect();
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
    Ok(RevocationFeedSettings {
        name: feed.name.clone(),
        source,
        interval,
        issuers: bound.iter().map(|issuer| issuer.issuer.clone()).collect(),
        leeway: bound.iter().map(|issuer| issuer.leeway).max().unwrap_or(Duration::ZERO),
        max_entries: DEFAULT_MAX_ENTRIES,
        state_dir: state_dir.map(Path::to_owned),
    })
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
