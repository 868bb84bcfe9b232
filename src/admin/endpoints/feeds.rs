//! `/feeds`: the revocation feeds, and when each was last heard.

use std::time::Duration;

use http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;

use super::now;
use crate::admin::answer::json;
use crate::admin::in_force::InForce;
use crate::admin::{Call, Endpoint, Operation, Reply};
use crate::clock::{Clock, Monotonic};
use crate::revocation::{FeedState, Freshness};

/// The endpoint.
#[derive(Debug)]
pub struct Feeds {
    /// Whose feeds.
    pub in_force: InForce,
    /// For ages.
    pub clock: Clock,
}

/// All feeds.
#[derive(Serialize, JsonSchema)]
struct FeedReport {
    feeds: Vec<Feed>,
}

/// One feed.
#[derive(Serialize, JsonSchema)]
struct Feed {
    /// Its name in the configuration.
    name: String,
    /// Whether there is anything to rely on, however old.
    loaded: bool,
    /// Seconds since it was last heard; absent if never, or if that cannot be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    age_seconds: Option<u64>,
    /// Entries in force.
    entries: u64,
    /// Changes whenever the entries do.
    generation: u64,
    /// The issuers whose tokens it may revoke.
    issuers: Vec<String>,
}

impl Endpoint for Feeds {
    fn path(&self) -> &'static str {
        "/feeds"
    }

    fn operations(&self) -> Vec<Operation> {
        vec![Operation::get::<FeedReport>("The revocation feeds, with their age.")]
    }

    fn answer<'c>(&'c self, _: &'c Call) -> Reply<'c> {
        let time = self.clock.monotonic();
        let feeds = self.in_force.current().feeds.iter().map(|feed| report(feed, time)).collect();
        now(json(StatusCode::OK, &FeedReport { feeds }))
    }
}

fn report(feed: &FeedState, now: Monotonic) -> Feed {
    let index = feed.index();
    Feed {
        name: feed.name().to_owned(),
        loaded: feed.is_loaded(),
        age_seconds: match feed.freshness(now, Duration::MAX) {
            Freshness::Fresh { age } => Some(age.as_secs()),
            Freshness::NotLoaded | Freshness::Stale { .. } => None,
        },
        entries: index.len() as u64,
        generation: index.generation(),
        issuers: index.issuers().to_vec(),
    }
}
