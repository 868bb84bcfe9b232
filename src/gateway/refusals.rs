//! The last refusals, kept in memory for whoever asks why. Each core writes a ring of its own; only the admin listener
//! reads them all. Nothing secret is in it: tokens by their fingerprint, claims as the configuration allows.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use super::explain::{Explainer, NOT_SHOWN, Shown, brief};
use super::explanation::{CheckReport, Refusal};
use super::route::Route;
use crate::clock::Monotonic;
use crate::rejection::Rejection;
use crate::token::{BearerToken, Claims, Compact};

/// How many refusals a second each core explains check by check. The rest are kept with their reason alone, so that an
/// attack pays for its own signatures only once.
const EXPLAINED_A_SECOND: u32 = 20;

/// Claims of one token that are kept.
const MAX_CLAIMS: usize = 64;

/// A refused request.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct RefusedRequest {
    /// When the refusal was written down (RFC 3339).
    pub at: String,
    /// What the client and the log have it under.
    pub request_id: String,
    /// The client's address.
    pub client: String,
    /// The method.
    pub method: String,
    /// The host that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The path without its query, cut if it is long.
    pub path: String,
    /// The route's name, if one was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// `false` if the route is in shadow mode: the request went on to the API all the same.
    pub enforced: bool,
    /// What the client was told; `detail` in full, whatever `error_detail` let it see.
    pub refusal: Refusal,
    /// What only the log has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
    /// What stands for the token, if one was looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The token's claims: values of those that `admin.refusals.claims` lists, `(not shown)` for all others.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub claims: Map<String, Value>,
    /// Every check of the token; empty if there was none, or if there were too many refusals in that second.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<CheckReport>,
}

/// The rings of all cores. Clones share them.
#[derive(Clone, Debug)]
pub struct Refusals {
    rings: Arc<[Ring]>,
    keep: usize,
    claims: Arc<[String]>,
}

type Ring = Mutex<VecDeque<Arc<RefusedRequest>>>;

impl Refusals {
    /// Empty rings of this size for each core; the claims are those that are kept with their values.
    pub fn new(cores: usize, keep: usize, claims: &[String]) -> Self {
        Self { rings: (0..cores).map(|_| Ring::default()).collect(), keep, claims: claims.into() }
    }

    /// The newest first, at most so many, of those that `wanted` picks.
    pub fn latest(&self, most: usize, wanted: impl Fn(&RefusedRequest) -> bool) -> Vec<Arc<RefusedRequest>> {
        let mut found: Vec<_> = Vec::new();
        for ring in self.rings.iter() {
            let ring = ring.lock().unwrap_or_else(PoisonError::into_inner);
            found.extend(ring.iter().rev().filter(|refused| wanted(refused)).take(most).cloned());
        }
        found.sort_by(|one, other| other.at.cmp(&one.at));
        found.truncate(most);
        found
    }

    /// The part of one core.
    pub fn of_core(&self, core: usize) -> CoreRefusals {
        CoreRefusals { all: self.clone(), core, explained: Cell::default() }
    }
}

/// One core's way to write refusals down.
#[derive(Debug)]
pub struct CoreRefusals {
    all: Refusals,
    core: usize,
    /// The second, and how many were explained in it.
    explained: Cell<(u64, u32)>,
}

/// What a refused token said, and which checks it failed.
#[derive(Debug, Default)]
pub struct Examined {
    claims: Map<String, Value>,
    checks: Vec<CheckReport>,
}

impl CoreRefusals {
    /// Looks at a token that was just refused; `None` if there were too many within this second.
    pub(super) fn examine(
        &self,
        explainer: &Explainer,
        token: BearerToken<'_>,
        route: &Route,
        refused: &Rejection,
    ) -> Option<Box<Examined>> {
        if !self.may_explain(explainer.clock.monotonic()) {
            return None;
        }
        let claims = Compact::parse(token.expose()).and_then(|compact| compact.claims()).map(Claims::new);
        let claims = claims.map(|claims| self.redacted(&claims)).unwrap_or_default();
        let checks = explainer.explain_refused(token, route, refused, Shown::Only(&self.all.claims));
        Some(Box::new(Examined { claims, checks }))
    }

    /// Keeps a refusal; the oldest goes.
    pub(super) fn keep(&self, mut refused: RefusedRequest, examined: Option<Box<Examined>>) {
        if let Some(examined) = examined {
            refused.claims = examined.claims;
            refused.checks = examined.checks;
        }
        let Some(ring) = self.all.rings.get(self.core) else { return };
        // Taken by this core and, when an operator asks, by the admin listener.
        let mut ring = ring.lock().unwrap_or_else(PoisonError::into_inner);
        while ring.len() >= self.all.keep.max(1) {
            ring.pop_front();
        }
        ring.push_back(Arc::new(refused));
    }

    fn may_explain(&self, now: Monotonic) -> bool {
        let second = now.0.as_secs();
        let (last, explained) = self.explained.get();
        let explained = if last == second { explained } else { 0 };
        self.explained.set((second, explained.saturating_add(1)));
        explained < EXPLAINED_A_SECOND
    }

    fn redacted(&self, claims: &Claims) -> Map<String, Value> {
        let shown = |(name, value): (&String, &Value)| {
            let value = match value {
                _ if !self.all.claims.contains(name) => NOT_SHOWN.into(),
                Value::Number(_) | Value::Bool(_) | Value::Null => value.clone(),
                Value::String(text) => brief(text).into(),
                nested => brief(&nested.to_string()).into(),
            };
            (brief(name), value)
        };
        claims.all().iter().take(MAX_CLAIMS).map(shown).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(at: &str, request_id: &str) -> RefusedRequest {
        RefusedRequest {
            at: at.to_owned(),
            request_id: request_id.to_owned(),
            client: String::new(),
            method: String::new(),
            host: None,
            path: String::new(),
            route: None,
            enforced: true,
            refusal: Refusal::of(&crate::catalogue::Reason::Missing.into()),
            log: None,
            token: None,
            claims: Map::new(),
            checks: Vec::new(),
        }
    }

    #[test]
    fn the_newest_of_all_cores_are_found_and_the_oldest_go() {
        let refusals = Refusals::new(2, 2, &[]);
        let put = |core: usize, at: &str, id: &str| {
            let mut ring = refusals.rings[core].lock().unwrap();
            ring.push_back(Arc::new(refused(at, id)));
        };
        put(0, "1", "a");
        put(1, "2", "b");
        put(0, "3", "c");
        let ids = |most: usize| -> Vec<String> {
            refusals.latest(most, |_| true).iter().map(|refused| refused.request_id.clone()).collect()
        };
        assert_eq!(ids(9), ["c", "b", "a"]);
        assert_eq!(ids(2), ["c", "b"]);
        assert_eq!(refusals.latest(9, |refused| refused.request_id == "b").len(), 1);
    }
}
