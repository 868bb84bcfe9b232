//! The revocation feeds of the configuration, started.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::config::Config;
use crate::config::settings::FeedIndex;
use crate::revocation::{FactHasher, FeedState, Index};
use crate::telemetry::metrics::{Metrics, Registration};

/// The most entries that one feed may bring: what a gateway with some gigabytes of memory can hold.
const MAX_ENTRIES: usize = 20_000_000;

/// The feeds' states, at their places in the configuration.
pub fn start_feeds(
    config: &Config,
    hasher: &FactHasher,
    _clock: &Clock,
    _metrics: &Metrics,
    _tasks: &mut JoinSet<()>,
    _registrations: &mut Vec<Registration>,
) -> Result<Vec<Arc<FeedState>>> {
    let mut states = Vec::new();
    for (place, feed) in config.feeds.iter().enumerate() {
        let bound = |issuer: &&crate::config::settings::Issuer| {
            issuer.revocation.as_ref().is_some_and(|revocation| revocation.feeds.contains(&FeedIndex(place)))
        };
        let issuers: Vec<_> = config.issuers.iter().filter(bound).collect();
        let leeway = issuers.iter().map(|issuer| issuer.leeway).max().unwrap_or(Duration::ZERO);
        let urls = issuers.iter().map(|issuer| issuer.issuer.clone());
        let index = Index::new(hasher.clone(), urls, leeway, MAX_ENTRIES);
        states.push(Arc::new(FeedState::new(feed.name.clone(), index)));
    }
    Ok(states)
}
