//! What the gateway runs on at this moment: the configuration and what was made of it. All endpoints look here, so that
//! a new configuration shows everywhere at once.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use serde_json::Value;

use super::endpoints::WritableFeed;
use crate::clock::UnixSeconds;
use crate::gateway::Explainer;
use crate::revocation::FeedState;
use crate::token::Issuer;

/// The configuration in force. Clones share it.
#[derive(Clone, Debug)]
pub struct InForce(Arc<ArcSwap<Generation>>);

/// One configuration, and what the sources have made of it.
#[derive(Debug)]
pub struct Generation {
    /// Counts the configurations since the start, from 1.
    pub number: u64,
    /// When it came into force.
    pub loaded_at: UnixSeconds,
    /// As it stands in the file, secrets masked.
    pub document: Value,
    /// The issuers, with their keys.
    pub issuers: Vec<Arc<Issuer>>,
    /// The feeds.
    pub feeds: Vec<Arc<FeedState>>,
    /// Those of them that can be written to.
    pub writable_feeds: Vec<WritableFeed>,
    /// Why it accepts and refuses.
    pub explainer: Explainer,
}

impl InForce {
    /// Starts with this one.
    pub fn new(first: Generation) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(first)))
    }

    /// The one of this moment. Not to be held across an await.
    pub fn current(&self) -> Guard<Arc<Generation>> {
        self.0.load()
    }

    /// Puts another one in its place.
    pub fn replace(&self, next: Generation) {
        self.0.store(Arc::new(next));
    }
}
