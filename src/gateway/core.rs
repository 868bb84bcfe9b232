//! What one core has at hand for its requests: shared by them all, touched by no other thread.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, StatusCode};

use super::authenticate::Authenticator;
use super::explain::Explainer;
use super::failed_attempts::{FailedAttempts, FailedAttemptsLimits};
use super::forwarded::TrustedProxies;
use super::long_lived::LongLived;
use super::overload::Overload;
use super::refusals::CoreRefusals;
use super::reserved::ReservedNames;
use super::respond::Disclosure;
use super::route::{Route, Routes};
use crate::catalogue::Reason;
use crate::clock::Clock;
use crate::config::settings::ErrorDetail;
use crate::events::{Body, Inbox, Receipt, Refusal};
use crate::telemetry::access_log::{Auth, CoreLog, Record};
use crate::telemetry::audit_log::CoreAudit;
use crate::telemetry::metrics::{self, CoreMetrics};
use crate::telemetry::patterns::{CorePatterns, Patterns};
use crate::telemetry::spans::{Recording, Tracer};
use crate::telemetry::trace::{IdGenerator, RequestId, TraceContext};
use crate::token::IssuerId;
use crate::upstream::Client;

/// The state of one core under one configuration. What outlives that is shared with the next one's.
#[derive(Debug)]
pub struct Core {
    /// Time.
    pub clock: Clock,
    /// The routes.
    pub routes: Arc<Routes>,
    /// Who tells tokens apart.
    pub authenticator: Authenticator,
    /// The clients of the upstreams, by their place in the configuration.
    pub upstreams: Vec<Rc<Client>>,
    /// Where revocations are handed in, by the place of the feed in the configuration.
    pub inboxes: Arc<[Option<Inbox>]>,
    /// The names that no client may send.
    pub reserved: Arc<ReservedNames>,
    /// Whose word on where requests come from counts.
    pub trusted_proxies: Arc<TrustedProxies>,
    /// The bounds on requests.
    pub limits: RequestLimits,
    /// Whether it can take on more.
    pub overload: Rc<Overload>,
    /// Those whose tokens were refused of late.
    pub failed_attempts: FailedAttempts,
    /// How often they may be; none: as often as they like.
    pub failed_attempts_limits: Option<FailedAttemptsLimits>,
    /// How much a client is told that is refused before a route is known.
    pub error_detail: ErrorDetail,
    /// What stands before a code in the `type` of a problem, if not what makes it a URN.
    pub error_documents: Option<Arc<str>>,
    /// This core's counters.
    pub metrics: Rc<CoreMetrics>,
    /// Where each route, upstream and issuer is counted.
    pub metric_ids: MetricIds,
    /// This core's part of the access log.
    pub access_log: Rc<RefCell<CoreLog>>,
    /// This core's part of the audit log, where there is one.
    pub audit_log: Option<Rc<RefCell<CoreAudit>>>,
    /// This core's long-lived responses.
    pub long_lived: Rc<LongLived>,
    /// Who says why a token was refused.
    pub explainer: Explainer,
    /// This core's part of the refusals that are kept, where they are.
    pub refusals: Option<Rc<CoreRefusals>>,
    /// Who decides which requests are recorded, where any are.
    pub tracer: Option<Rc<Tracer>>,
    /// Who watches for suspicious conduct, where that is wanted.
    pub patterns: Option<Rc<CorePatterns>>,
    /// What all cores know of it.
    pub all_patterns: Patterns,
    /// Where request ids come from.
    pub ids: Rc<RefCell<IdGenerator>>,
}

/// Bounds on every request.
#[derive(Clone, Copy, Debug)]
pub struct RequestLimits {
    /// The longest path and query, in bytes.
    pub uri: usize,
    /// The most headers.
    pub header_count: usize,
    /// The largest token, in bytes.
    pub token: usize,
    /// How long a client may pause in a body.
    pub body_idle: Duration,
    /// How long nothing may pass on a WebSocket.
    pub websocket_idle: Duration,
}

/// Where things are counted, by their place in the configuration.
#[derive(Clone, Debug, Default)]
pub struct MetricIds {
    /// Routes.
    pub routes: Vec<metrics::RouteId>,
    /// Upstreams.
    pub upstreams: Vec<metrics::UpstreamId>,
    /// Issuers.
    pub issuers: Vec<metrics::IssuerId>,
}

impl Core {
    /// The client of the upstream at this place in the configuration.
    pub fn upstream(&self, place: usize) -> Option<&Client> {
        self.upstreams.get(place).map(|client| &**client)
    }

    /// Hands something in to the feed at this place, and waits for the word that it is in force.
    pub(super) async fn hand_in(&self, feed: usize, body: Body) -> Receipt {
        match self.inboxes.get(feed) {
            Some(Some(inbox)) => inbox.send(body).await,
            _ => Err(Refusal::Unavailable("nothing can be written to this feed".to_owned())),
        }
    }

    pub(super) fn identify(&self, headers: &HeaderMap) -> (RequestId, TraceContext, Option<Box<Recording>>) {
        let mut ids = self.ids.borrow_mut();
        let (request_id, mut trace) = (ids.request_id(), ids.trace_context(headers));
        let tracer = self.tracer.as_ref();
        let recording = tracer.and_then(|tracer| tracer.begin(&mut trace, headers, &mut ids));
        (request_id, trace, recording)
    }

    /// What a client is told that was refused on this route, or before one was known.
    pub(super) fn disclosure(&self, route: Option<&Route>) -> Disclosure<'_> {
        Disclosure {
            detail: route.map_or(self.error_detail, |route| route.error_detail),
            documents: self.error_documents.as_deref(),
        }
    }

    pub(super) fn log(&self, record: &Record<'_>) {
        self.access_log.borrow_mut().write(record);
        if let Some(audit) = &self.audit_log {
            audit.borrow_mut().request(record, self.clock.monotonic());
        }
    }

    pub(super) fn count(
        &self,
        route: Option<&Route>,
        reason: Option<Reason>,
        status: Option<StatusCode>,
        duration: Duration,
    ) {
        let id = route.and_then(|route| self.metric_ids.routes.get(usize::from(route.id.0)).copied());
        self.metrics.request(id, reason, status, duration);
    }

    pub(super) fn count_shadow(&self, route: Option<&Route>, reason: Option<Reason>) {
        let id = route.and_then(|route| self.metric_ids.routes.get(usize::from(route.id.0)).copied());
        if let Some(id) = id {
            self.metrics.shadow(id, reason);
        }
    }

    pub(super) fn count_authentication(&self, issuer: Option<IssuerId>, auth: Auth, duration: Duration) {
        let id = issuer.and_then(|issuer| self.metric_ids.issuers.get(usize::from(issuer.0)).copied());
        self.metrics.authenticated(id, auth, duration);
    }

    pub(super) fn count_upstream(&self, route: &Route, first_byte: Duration) {
        if let Some(id) = route.upstream().and_then(|place| self.metric_ids.upstreams.get(place)) {
            self.metrics.upstream_answered(*id, first_byte);
        }
    }
}
