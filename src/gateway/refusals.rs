//! The last refusals, kept in memory for whoever asks why. Each core writes a ring of its own; only the admin listener
//! reads them all. Nothing secret is in it: tokens by their fingerprint, claims as the configuration allows.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use super::explain::{Explainer, RefusedToken};
use super::explanation::{CheckReport, Refusal};
use super::route::Route;
use super::wording::{MAX_SHOWN, NOT_SHOWN, Shown, brief};
use crate::catalogue::Reason;
use crate::certificate::ClientCertificate;
use crate::clock::{Monotonic, rfc3339};
use crate::rejection::Rejection;
use crate::route::RouteId;
use crate::telemetry::trace::RequestId;
use crate::token::{Answer, Claims, Compact, Fingerprint};

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
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub claims: Map<String, Value>,
    /// Every check of the token; empty if there was none, or if there were too many refusals in that second.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<CheckReport>,
}

/// A refused request as it is noted: facts, which become texts when somebody asks for them.
#[derive(Debug)]
pub(super) struct Noted {
    pub at: Duration,
    pub request_id: RequestId,
    pub client: SocketAddr,
    pub method: Cut,
    pub host: Option<Cut>,
    pub path: Cut,
    pub route: Option<Arc<Route>>,
    pub enforced: bool,
    pub rejection: Rejection,
    pub log: Option<Cut>,
    pub token: Option<Fingerprint>,
    pub examined: Option<Arc<Examined>>,
}

/// As much of a text as is ever shown.
#[derive(Debug)]
pub(super) struct Cut(Box<[u8]>);

/// The rings of all cores. Clones share them.
#[derive(Clone, Debug)]
pub struct Refusals {
    rings: Arc<[Ring]>,
    keep: usize,
    claims: Arc<[String]>,
}

type Ring = Mutex<VecDeque<Arc<Noted>>>;

impl Refusals {
    /// Empty rings of this size for each core; the claims are those that are kept with their values.
    pub fn new(cores: usize, keep: usize, claims: &[String]) -> Self {
        Self { rings: (0..cores).map(|_| Ring::default()).collect(), keep, claims: claims.into() }
    }

    /// The newest first, at most so many, of those that `wanted` picks.
    pub fn latest(&self, most: usize, wanted: impl Fn(&RefusedRequest) -> bool) -> Vec<RefusedRequest> {
        let mut noted: Vec<Arc<Noted>> = Vec::new();
        for ring in self.rings.iter() {
            noted.extend(ring.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned());
        }
        // Put into words only now, while no core waits for its ring.
        noted.sort_by_key(|noted| Reverse(noted.at));
        noted.iter().map(|noted| noted.in_words()).filter(wanted).take(most).collect()
    }

    /// The part of one core.
    pub fn of_core(&self, core: usize) -> CoreRefusals {
        CoreRefusals { all: self.clone(), core, explained: Cell::default(), last: RefCell::default() }
    }
}

/// One core's way to write refusals down.
#[derive(Debug)]
pub struct CoreRefusals {
    all: Refusals,
    core: usize,
    /// The second, and how many were explained in it.
    explained: Cell<(u64, u32)>,
    last: RefCell<Option<LastExamined>>,
}

/// The refusal that was examined last: a client that asks again with the same token is refused for the same reason.
#[derive(Debug)]
struct LastExamined {
    second: u64,
    route: RouteId,
    token: Fingerprint,
    certificate: Option<ClientCertificate>,
    reason: Reason,
    found: Arc<Examined>,
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
        refused: RefusedToken<'_>,
        fingerprint: Fingerprint,
    ) -> Option<Arc<Examined>> {
        let now = explainer.clock.monotonic();
        let (route, reason) = (refused.route.id, refused.refused.reason());
        let same = |last: &&LastExamined| {
            (last.second, last.route, last.token, last.reason)
                == (now.0.as_secs(), route, fingerprint, reason)
                && last.certificate.as_ref() == refused.certificate
        };
        if let Some(last) = self.last.borrow().as_ref().filter(same) {
            return Some(Arc::clone(&last.found));
        }
        if !self.may_explain(now) {
            return None;
        }
        let said = Compact::parse(refused.token.expose()).and_then(|compact| compact.claims());
        let claims = match (said, refused.answer) {
            (Ok(claims), _) => self.redacted(&Claims::new(claims)),
            // Those of an opaque token are with its issuer.
            (Err(_), Some(Answer::Active(active))) => self.redacted(&Claims::new(active.claims.clone())),
            (Err(_), _) => Map::default(),
        };
        let checks = explainer.explain_refused(refused, Shown::Only(&self.all.claims));
        let found = Arc::new(Examined { claims, checks });
        self.last.replace(Some(LastExamined {
            second: now.0.as_secs(),
            route,
            token: fingerprint,
            certificate: refused.certificate.cloned(),
            reason,
            found: Arc::clone(&found),
        }));
        Some(found)
    }

    /// Keeps a refusal; the oldest goes.
    pub(super) fn keep(&self, refused: Noted) {
        let Some(ring) = self.all.rings.get(self.core) else { return };
        let refused = Arc::new(refused);
        // Taken by this core and, when an operator asks, by the admin listener.
        let mut ring = ring.lock().unwrap_or_else(PoisonError::into_inner);
        while ring.len() >= self.all.keep.max(1) {
            ring.pop_front();
        }
        ring.push_back(refused);
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

impl Noted {
    fn in_words(&self) -> RefusedRequest {
        let (claims, checks) = match self.examined.as_deref() {
            Some(examined) => (examined.claims.clone(), examined.checks.clone()),
            None => Default::default(),
        };
        RefusedRequest {
            at: rfc3339(self.at),
            request_id: self.request_id.to_string(),
            client: self.client.to_string(),
            method: self.method.in_words(),
            host: self.host.as_ref().map(Cut::in_words),
            path: self.path.in_words(),
            route: self.route.as_ref().map(|route| route.name.to_string()),
            enforced: self.enforced,
            refusal: Refusal::of(&self.rejection),
            log: self.log.as_ref().map(Cut::in_words),
            token: self.token.as_ref().map(Fingerprint::to_string),
            claims,
            checks,
        }
    }
}

impl Cut {
    /// No character has more than four bytes, and one more than is shown tells that something was cut off.
    pub fn new(text: &[u8]) -> Self {
        Self(text.get(..4 * (MAX_SHOWN + 1)).unwrap_or(text).into())
    }

    fn in_words(&self) -> String {
        brief(&String::from_utf8_lossy(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::trace::IdGenerator;

    fn noted(at: u64, path: &str, ids: &mut IdGenerator) -> Arc<Noted> {
        Arc::new(Noted {
            at: Duration::from_secs(at),
            request_id: ids.request_id(),
            client: "192.0.2.1:5".parse().unwrap(),
            method: Cut::new(b"GET"),
            host: None,
            path: Cut::new(path.as_bytes()),
            route: None,
            enforced: true,
            rejection: Reason::Missing.into(),
            log: None,
            token: None,
            examined: None,
        })
    }

    #[test]
    fn the_newest_of_all_cores_are_found_and_the_oldest_go() {
        let (refusals, mut ids) = (Refusals::new(2, 2, &[]), IdGenerator::new());
        let mut put = |core: usize, at: u64, path: &str| {
            refusals.rings[core].lock().unwrap().push_back(noted(at, path, &mut ids));
        };
        put(0, 1, "/a");
        put(1, 2, "/b");
        put(0, 3, "/c");
        let paths = |most: usize| -> Vec<String> {
            refusals.latest(most, |_| true).into_iter().map(|refused| refused.path).collect()
        };
        assert_eq!(paths(9), ["/c", "/b", "/a"]);
        assert_eq!(paths(2), ["/c", "/b"]);
        assert_eq!(refusals.latest(9, |refused| refused.path == "/b").len(), 1);
    }

    #[test]
    fn what_is_cut_reads_as_if_it_were_not() {
        for text in ["/short".to_owned(), "x".repeat(9 * MAX_SHOWN), "\u{1f512}".repeat(2 * MAX_SHOWN)] {
            assert_eq!(Cut::new(text.as_bytes()).in_words(), brief(&text));
        }
    }
}
