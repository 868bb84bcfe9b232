//! The status lists of the configuration, started: one task for each issuer whose tokens may refer to lists.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use tokio::task::{JoinSet, spawn_blocking};

use crate::clock::Clock;
use crate::config::{Config, settings};
use crate::feeds::jwks::KeyFeed;
use crate::feeds::status_list::{StatusListFeed, StatusListFeedSettings, StatusListStats, tidy_status_lists};
use crate::keys::KeySource;
use crate::revocation::{StatusListSettings, StatusLists};
use crate::telemetry::metrics::{Metrics, Registration};

use super::sources::{Ground, Purpose, fetch_settings, key_feed_settings};

/// The lists of this issuer's tokens, verified by `keys` unless they have keys of their own, and the numbers for metrics;
/// `None` if its tokens' references are not looked at.
pub fn start(
    issuer: &settings::Issuer,
    keys: &Arc<KeySource>,
    ground: &Ground,
    tasks: &mut JoinSet<()>,
) -> Result<Option<(Arc<StatusLists>, Arc<StatusListStats>)>> {
    let revocation = issuer.revocation.as_ref();
    let Some(settings) = revocation.and_then(|revocation| revocation.status_list.as_ref()) else {
        return Ok(None);
    };
    let keys = match &settings.keys {
        None => Arc::clone(keys),
        Some(keys) => {
            let name = format!("{}.status_list", issuer.name);
            let state_dir = ground.state_dir.as_deref();
            let feed = KeyFeed::new(key_feed_settings(name, issuer, keys, state_dir), ground.clock.clone())?;
            let source = feed.source();
            tasks.spawn(feed.run());
            source
        }
    };
    let port = StatusLists::new(StatusListSettings {
        allowed: settings.allowed.clone(),
        required: settings.required,
        max_lists: settings.max_lists,
        wait: settings.wait,
    });
    let feed_settings = StatusListFeedSettings {
        name: issuer.name.clone(),
        issuer: settings.keys.is_none().then(|| issuer.issuer.clone()),
        fetch: fetch_settings(&settings.transport),
        refresh_interval: settings.refresh_interval,
        max_size: settings.transport.max_size,
        algorithms: issuer.algorithms.clone(),
        state_dir: ground.state_dir.clone(),
    };
    let feed = StatusListFeed::new(feed_settings, port, keys, ground.clock.clone())?;
    let numbers = (feed.lists(), feed.stats());
    tasks.spawn(feed.run());
    Ok(Some(numbers))
}

/// Removes copies of lists that are of no use any more, in the background.
pub fn tidy(config: &Config, ground: &Ground) {
    let Some(directory) = ground.state_dir.clone().filter(|_| ground.purpose == Purpose::Serve) else {
        return;
    };
    let settings =
        config.issuers.iter().filter_map(|issuer| issuer.revocation.as_ref()?.status_list.as_ref());
    // Room for those of lists that changed hands meanwhile.
    let most = settings.map(|settings| settings.max_lists).sum::<usize>().saturating_mul(2);
    // Who has none configured may have them again tomorrow.
    if most > 0 && !IS_TIDYING.swap(true, Ordering::AcqRel) {
        let clock = ground.clock.clone();
        drop(spawn_blocking(move || {
            tidy_status_lists(&directory, most, &clock);
            IS_TIDYING.store(false, Ordering::Release);
        }));
    }
}

/// A disk that hangs holds up one thread, however often the configuration is changed meanwhile.
static IS_TIDYING: AtomicBool = AtomicBool::new(false);

/// Shows on the metrics page how current the lists are.
pub fn register(
    issuer: &str,
    lists: &Arc<StatusLists>,
    stats: &Arc<StatusListStats>,
    metrics: &Metrics,
    clock: &Clock,
) -> Vec<Registration> {
    let labels = [("issuer", issuer)];
    let (ok, failed) = (Arc::clone(stats), Arc::clone(stats));
    let (counted, aged) = (Arc::clone(lists), Arc::clone(lists));
    let clock = clock.clone();
    vec![
        metrics.register_counter(
            "status_list_refreshes",
            "Fetches of status lists that succeeded.",
            &labels,
            move || ok.refreshes_ok.load(Ordering::Relaxed),
        ),
        metrics.register_counter(
            "status_list_refresh_failures",
            "Fetches of status lists that failed.",
            &labels,
            move || failed.refreshes_failed.load(Ordering::Relaxed),
        ),
        metrics.register_gauge(
            "status_lists",
            "Status lists that are followed.",
            &labels,
            #[allow(clippy::cast_precision_loss, reason = "a small count")]
            move || counted.tracked().len() as f64,
        ),
        metrics.register_gauge(
            "status_list_age_seconds",
            "Time since the least recently confirmed of the followed status lists was confirmed; absent without any.",
            &labels,
            move || {
                let oldest = aged.tracked().iter().filter_map(|list| list.age(clock.monotonic())).max();
                oldest.map_or(f64::NAN, |age| age.as_secs_f64())
            },
        ),
    ]
}
