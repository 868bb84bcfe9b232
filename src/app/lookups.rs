//! What is looked up for the tokens of one issuer, at the issuer's, on its register or in its status lists: the tasks that do it, until
//! dropped. They last as long as the issuer, which is replaced when anything about it changes.

use std::fmt;
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result};
use tokio::task::JoinSet;

use super::sources::Ground;
use super::{introspection, registry, status_lists};
use crate::clock::Clock;
use crate::config::settings;
use crate::feeds::introspection::IntrospectionStats;
use crate::feeds::registry::RegistryStats;
use crate::feeds::status_list::StatusListStats;
use crate::keys::KeySource;
use crate::revocation::StatusLists;
use crate::telemetry::metrics::{Metrics, Registration};
use crate::token::Introspection;

/// See the module.
pub struct Lookups {
    introspection: Option<Arc<IntrospectionStats>>,
    registry: Option<Arc<RegistryStats>>,
    status_lists: Option<(Arc<StatusLists>, Arc<StatusListStats>)>,
    registrations: OnceLock<Vec<Registration>>,
    _tasks: JoinSet<()>,
}

impl Lookups {
    /// Starts what this issuer needs, which may be nothing; and gives the port through which it is asked.
    ///
    /// # Errors
    /// A certificate or key that cannot be used.
    pub fn start(
        issuer: &settings::Issuer,
        keys: &Arc<KeySource>,
        ground: &Ground,
    ) -> Result<(Option<Introspection>, Self)> {
        let clock = &ground.clock;
        let mut tasks = JoinSet::new();
        let asked = introspection::start(issuer, keys, clock, &mut tasks).context("introspection")?;
        let status_lists = status_lists::start(issuer, keys, ground, &mut tasks).context("status lists")?;
        let (port, introspection) = asked.unzip();
        // The configuration has made sure that there is one of them at the most.
        let (registered, registry) = registry::start(issuer, clock, &mut tasks).unzip();
        Ok((
            port.or(registered),
            Self { introspection, registry, status_lists, registrations: OnceLock::new(), _tasks: tasks },
        ))
    }

    /// The lists that the issuer's tokens refer to, if those are looked at.
    pub fn status_lists(&self) -> Option<Arc<StatusLists>> {
        self.status_lists.as_ref().map(|(lists, _)| Arc::clone(lists))
    }

    /// Shows on the metrics page what they do, from now on.
    pub fn register(&self, issuer: &str, metrics: &Metrics, clock: &Clock) {
        self.registrations.get_or_init(|| {
            let asked =
                self.introspection.as_ref().map(|stats| introspection::register(issuer, stats, metrics));
            let lists = self
                .status_lists
                .as_ref()
                .map(|(lists, stats)| status_lists::register(issuer, lists, stats, metrics, clock));
            let registered = self.registry.as_ref().map(|stats| registry::register(issuer, stats, metrics));
            asked.into_iter().chain(registered).chain(lists).flatten().collect()
        });
    }
}

impl fmt::Debug for Lookups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lookups").finish_non_exhaustive()
    }
}
