//! The engines of the configuration's feeds: what commands and the gateway write revocations to.

use std::sync::Arc;

use anyhow::{Result, bail};

use crate::clock::Clock;
use crate::config::settings::{Feed, FeedSource};
use crate::feeds::revocation::{DEFAULT_MAX_BYTES, FileEngine, HttpEngine, NatsEngine, ValkeyEngine};
use crate::revocation::RevocationEngine;

use super::sources::fetch_settings;

/// The engine of a feed, to be read and, if the feed has what is needed for it, written.
///
/// # Errors
/// A certificate that cannot be used, or a feed that only a running gateway knows.
pub fn engine(feed: &Feed, clock: &Clock) -> Result<Arc<dyn RevocationEngine>> {
    Ok(match &feed.source {
        FeedSource::Http(http) => Arc::new(HttpEngine::new(
            http.url.clone(),
            http.authorization.clone(),
            http.write_authorization.clone(),
            &fetch_settings(&http.transport),
        )?),
        FeedSource::File { path, .. } => {
            Arc::new(FileEngine::new(path.clone(), DEFAULT_MAX_BYTES, clock.clone()))
        }
        FeedSource::Valkey { valkey, prefix } => Arc::new(ValkeyEngine::new(valkey.clone(), prefix)),
        FeedSource::Nats { nats, bucket } => {
            Arc::new(NatsEngine::new(nats.clone(), bucket.clone(), clock.clone()))
        }
        FeedSource::Events(_) => bail!(
            "the feed {} is told by a provider and kept by each gateway; name a feed that has an engine, or ask the \
             gateway's admin listener",
            feed.name
        ),
    })
}

/// The engine of a feed that may be written to; `None` if the feed is told, or only read.
///
/// # Errors
/// As [`engine`].
pub fn writable(feed: &Feed, clock: &Clock) -> Result<Option<Arc<dyn RevocationEngine>>> {
    match &feed.source {
        FeedSource::Events(_) => Ok(None),
        FeedSource::Http(http) if http.write_authorization.is_none() => Ok(None),
        _ => engine(feed, clock).map(Some),
    }
}
