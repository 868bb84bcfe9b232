//! `/shadow`: whom the routes in shadow mode would have refused.

use std::sync::Arc;

use http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::now;
use crate::admin::answer::json;
use crate::admin::in_force::InForce;
use crate::admin::{Call, Endpoint, Operation, Reply};
use crate::policy::Enforcement;
use crate::telemetry::metrics::{Metrics, ShadowCounts};

/// The endpoint.
#[derive(Debug)]
pub struct Shadow {
    /// Which routes are in shadow mode.
    pub in_force: InForce,
    /// What became of their requests.
    pub metrics: Arc<Metrics>,
}

/// What would have been refused since the process began.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct ShadowReport {
    /// The routes with `enforce: false`, in the order of the configuration.
    pub routes: Vec<ShadowRoute>,
}

/// What became of one route's requests.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct ShadowRoute {
    /// Its name.
    pub route: String,
    /// Requests that would have been let through.
    pub admitted: u64,
    /// Requests that would have been refused.
    pub refused: u64,
    /// Why, the most frequent first.
    pub causes: Vec<ShadowCause>,
}

/// One reason for which requests would have been refused.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct ShadowCause {
    /// The code, such as VAL-020.
    pub code: String,
    /// Its title.
    pub title: String,
    /// The reason.
    pub reason: String,
    /// What is wrong and what to do next.
    pub remedy: String,
    /// How many requests.
    pub requests: u64,
}

impl Endpoint for Shadow {
    fn path(&self) -> &'static str {
        "/shadow"
    }

    fn operations(&self) -> Vec<Operation> {
        vec![Operation::get::<ShadowReport>(
            "Whom the routes with `enforce: false` would have refused since the process began.",
        )]
    }

    fn answer<'c>(&'c self, _: &'c Call) -> Reply<'c> {
        let counted = self.metrics.shadow();
        let generation = self.in_force.current();
        let routes = generation.explainer.routes.all().iter();
        let routes = routes.filter(|route| route.enforcement == Enforcement::Shadow).map(|route| {
            let counts = counted.iter().find(|counts| *counts.route == *route.name);
            ShadowRoute::new(&route.name, counts)
        });
        now(json(StatusCode::OK, &ShadowReport { routes: routes.collect() }))
    }
}

impl ShadowRoute {
    fn new(route: &str, counts: Option<&ShadowCounts>) -> Self {
        let mut refused = counts.map(|counts| counts.refused.clone()).unwrap_or_default();
        refused.sort_by_key(|(_, requests)| std::cmp::Reverse(*requests));
        Self {
            route: route.to_owned(),
            admitted: counts.map_or(0, |counts| counts.admitted),
            refused: refused.iter().map(|(_, requests)| requests).sum(),
            causes: refused
                .into_iter()
                .map(|(reason, requests)| ShadowCause {
                    code: reason.code().number().to_owned(),
                    title: reason.code().title().to_owned(),
                    reason: reason.name().to_owned(),
                    remedy: reason.remedy().to_owned(),
                    requests,
                })
                .collect(),
        }
    }
}
