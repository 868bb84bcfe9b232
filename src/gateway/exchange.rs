//! One request from its first byte to the last of its response: what is known of it, and the one place that writes
//! it down. Whatever becomes of the request, exactly one log line and one set of metrics come of it.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::ORIGIN;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version};

use super::activity::Busy;
use super::authenticate::{Insight, Temperature};
use super::core::{Core, RequestLimits};
use super::explain::RefusedToken;
use super::forwarded::Provenance;
use super::long_lived::{Ending, Stream};
use super::peer::{Inbound, Peer};
use super::refusals::{Cut, Examined, Noted};
use super::route::Route;
use super::sanitize::host_of;
use crate::catalogue::Reason;
use crate::certificate::ClientCertificate;
use crate::clock::{Clock, Monotonic};
use crate::cors::Sharing;
use crate::policy::{Enforcement, Permit};
use crate::rejection::Rejection;
use crate::revocation::LiveToken;
use crate::telemetry::access_log::{Auth, Outcome, Record};
use crate::telemetry::spans::{Finished, Phase, Recording, Scheme, UpstreamCall};
use crate::telemetry::trace::{RequestId, TraceContext};
use crate::token::{Claims, Compact, Fingerprint, Presented, VerifiedToken};
use crate::upstream::{BodyProgress, Lane};

/// What is known of one request so far. Dropped without a word of how it ended, it counts as left by its client.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "four facts that have nothing to do with each other")]
pub struct Exchange {
    core: Rc<Core>,
    started: Monotonic,
    listener: Rc<str>,
    busy: Busy,
    method: Method,
    uri: Uri,
    host: Option<http::HeaderValue>,
    version: Version,
    /// The guard refused the request; what is at hand only stands in for it.
    is_stand_in: bool,
    /// The connection cannot go on behind the request's body unless somebody wants all of it.
    pub ends_with_body: bool,
    /// The id that the client, the API and the log see.
    pub request_id: RequestId,
    /// The W3C trace context that is passed on.
    pub trace: TraceContext,
    certificate: Option<Rc<ClientCertificate>>,
    /// Where the request comes from.
    pub provenance: Provenance,
    /// The route, once it is found.
    pub route: Option<Arc<Route>>,
    /// Who may read the answer, where the route says so.
    pub sharing: Option<Sharing>,
    /// The token, once it is known to be live.
    pub token: Option<LiveToken>,
    fingerprint: Option<Fingerprint>,
    /// Whose the refused token claims to be, where that is watched.
    claimed_subject: Option<String>,
    examined: Option<Arc<Examined>>,
    /// What came to light while the token was judged.
    pub insight: Insight,
    /// When that began.
    pub judged_at: Option<Monotonic>,
    /// How long it took.
    pub judging: Duration,
    /// Which endpoint of the upstream the request went to, the last if it went to several.
    pub lane: Option<Rc<Lane>>,
    /// When the request was sent to the upstream.
    pub forwarded_at: Option<Monotonic>,
    /// How long the upstream took to the first byte of its response.
    pub first_byte: Option<Duration>,
    /// The request's body.
    pub body: Option<Rc<BodyProgress>>,
    rejection: Option<Rejection>,
    /// It was let through, or would have been refused, by what its route requires.
    pub judged: bool,
    /// What it would have been refused for, had its route been enforced.
    overlooked: Option<Rejection>,
    status: Option<StatusCode>,
    sent: u64,
    recording: Option<Box<Recording>>,
    is_written: bool,
}

impl Exchange {
    /// Begins an exchange.
    pub(super) fn begin<B>(
        core: &Rc<Core>,
        peer: &Peer,
        request: &http::Request<B>,
        inbound: &Inbound,
    ) -> Self {
        let headers: &HeaderMap = request.headers();
        let (request_id, trace, recording) = core.identify(headers);
        Self {
            core: Rc::clone(core),
            started: core.clock.monotonic(),
            listener: Rc::clone(&peer.listener),
            busy: peer.activity.busy(),
            method: request.method().clone(),
            uri: request.uri().clone(),
            host: headers.get(http::header::HOST).cloned(),
            version: request.version(),
            is_stand_in: inbound.violation().is_some(),
            ends_with_body: false,
            request_id,
            trace,
            certificate: peer.tls.as_ref().and_then(|tls| tls.certificate.clone()),
            provenance: core.trusted_proxies.provenance(peer, headers),
            route: None,
            sharing: None,
            token: None,
            fingerprint: None,
            claimed_subject: None,
            examined: None,
            insight: Insight::default(),
            judged_at: None,
            judging: Duration::ZERO,
            lane: None,
            forwarded_at: None,
            first_byte: None,
            body: None,
            rejection: None,
            judged: false,
            overlooked: None,
            status: None,
            sent: 0,
            recording,
            is_written: false,
        }
    }

    /// Whether the connection may end behind a response that begins now, so that it has to say so (RFC 9112 section 9.6).
    pub(super) fn ends_connection(&self) -> bool {
        self.ends_with_body && !self.body.as_ref().is_some_and(|body| body.is_finished())
    }

    /// Notes which token was refused, and why if refusals are kept.
    pub(super) fn token_refused(&mut self, shown: Presented<'_>, route: &Route, refused: &Rejection) {
        let Some(token) = shown.token() else { return };
        let fingerprint = self.insight.fingerprint.unwrap_or_else(|| token.fingerprint());
        self.fingerprint = Some(fingerprint);
        if self.core.patterns.is_some() {
            let claims = Compact::parse(token.expose()).and_then(|compact| compact.claims()).map(Claims::new);
            self.claimed_subject = claims.ok().and_then(|claims| claims.subject().map(str::to_owned));
        }
        let Some(refusals) = &self.core.refusals else { return };
        let answer = self.insight.answer.take().or_else(|| self.verified().and_then(VerifiedToken::answer));
        let refused = RefusedToken {
            token,
            route,
            refused,
            answer: answer.as_ref(),
            certificate: self.certificate.as_deref(),
        };
        self.examined = refusals.examine(&self.core.explainer, refused, fingerprint);
    }

    /// The token that its issuer stands behind, whether it was let through or not.
    fn verified(&self) -> Option<&VerifiedToken> {
        self.token.as_deref().or(self.insight.verified.as_ref())
    }

    /// Lets the request go on in spite of a refusal where the route is in shadow mode, and notes why it should not
    /// have; elsewhere the refusal stands.
    pub(super) fn overlook(&mut self, route: &Route, refused: Rejection) -> Result<Permit, Rejection> {
        match Permit::unenforced(route.enforcement, &refused) {
            Some(permit) => {
                self.overlooked.get_or_insert(refused);
                Ok(permit)
            }
            None => Err(refused),
        }
    }

    /// Notes what the client is answered.
    pub(super) fn answered(&mut self, status: StatusCode, rejection: Option<Rejection>) {
        self.status = Some(status);
        self.rejection = rejection;
    }

    /// Lets the page that asked read a refusal that came before the route was found, if the route that its host and path
    /// lead to would: a page shall see that its method is wrong or the gateway overloaded.
    pub(super) fn share_refusal(&mut self, origin: Option<HeaderValue>) {
        let (None, None, Some(origin)) = (&self.route, &self.sharing, origin) else { return };
        let authority = self.uri.authority().and_then(|name| HeaderValue::from_str(name.as_str()).ok());
        let host = self.host.clone().or(authority).and_then(|authority| host_of(&authority).ok());
        let route = host.and_then(|host| self.core.routes.nearest(&host, self.uri.path(), &self.method));
        let cors = route.and_then(|route| route.cors.as_ref());
        self.sharing = cors.map(|cors| cors.judge(&HeaderMap::from_iter([(ORIGIN, origin)])));
    }

    /// Counts bytes of the response's body.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }

    /// The response was handed over whole.
    pub(super) fn completed(mut self: Box<Self>) {
        self.write(Outcome::Completed, None);
    }

    /// Has the response ended together with its token; `None` where there is no token, or nothing is enforced.
    pub(super) fn watch(&self) -> Option<Rc<Stream>> {
        watch(&self.core, self.route.as_deref(), self.token.as_ref())
    }

    /// The response was ended because its token was.
    pub(super) fn cut(mut self: Box<Self>, ending: Ending) {
        let outcome = match ending {
            Ending::Expired => Outcome::TokenExpired,
            Ending::Revoked => Outcome::TokenRevoked,
        };
        self.write(outcome, Some(ending.reason()));
    }

    /// The response was a WebSocket that was ended because nothing passed on it.
    pub(super) fn fell_idle(mut self: Box<Self>) {
        self.write(Outcome::Idle, None);
    }

    /// Resolves when the client certificate of its connection is not accepted any more.
    pub(super) async fn disowned(&self) {
        self.busy.disowned().await;
    }

    /// The response was a WebSocket that was ended because its connection lost its certificate.
    pub(super) fn lost_certificate(mut self: Box<Self>) {
        self.write(Outcome::CertificateEnded, Some(Reason::CertificateEnded));
    }

    /// The response was ended because it was not complete in time.
    pub(super) fn timed_out(mut self: Box<Self>) {
        self.write(Outcome::TimedOut, Some(Reason::UpstreamTotalTimeout));
    }

    /// Time, and the bounds on requests.
    pub(super) fn clock_and_limits(&self) -> (Clock, RequestLimits) {
        (self.core.clock.clone(), self.core.limits)
    }

    /// The upstream broke off in the middle of its response.
    pub(super) fn upstream_aborted(mut self: Box<Self>) {
        self.write(Outcome::UpstreamAborted, Some(Reason::UpstreamReset));
    }

    fn write(&mut self, outcome: Outcome, late: Option<Reason>) {
        if std::mem::replace(&mut self.is_written, true) {
            return;
        }
        // Also a request by HTTP/2 could go on without it, and without an eye on its token.
        match (&self.body, outcome) {
            (Some(body), Outcome::Completed) => body.ends_soon(),
            (Some(body), _) => body.abort(late.unwrap_or(Reason::ClientClosed)),
            (None, _) => {}
        }
        let core = Rc::clone(&self.core);
        let now = core.clock.monotonic();
        self.busy.ends(now);
        let duration = self.started.until(now);
        let reason = self.rejection.as_ref().map(Rejection::reason).or(late);
        let received = self.body.as_ref().map_or(0, |body| body.bytes());
        let auth = match self.insight.temperature {
            None => Auth::None,
            Some(Temperature::Warm) => Auth::Warm,
            Some(Temperature::Cold) => Auth::Cold,
        };

        let (examined, recording) = (self.examined.take(), self.recording.take());
        let route = self.route.as_deref();
        let token = self.verified();
        core.count(route, reason, self.status, duration);
        if self.judged && route.is_some_and(|route| route.enforcement == Enforcement::Shadow) {
            core.count_shadow(route, self.overlooked.as_ref().map(Rejection::reason));
        }
        core.metrics.bytes(received, self.sent);
        if self.insight.temperature.is_some() {
            core.count_authentication(self.token.as_ref().map(|live| live.issuer().id), auth, self.judging);
        }
        if let (Some(route), Some(first_byte)) = (route, self.first_byte) {
            core.count_upstream(route, first_byte);
        }

        let fingerprint = self.fingerprint.or_else(|| token.map(VerifiedToken::fingerprint));
        let endpoint = self.lane.as_ref().map(|lane| lane.endpoint());
        let upstream =
            route.filter(|_| endpoint.is_some()).and_then(|route| core.upstream(route.upstream()?));
        let client = self.provenance.client_address;
        let mut record =
            Record::new(core.clock.timestamp(), self.request_id.as_str(), &self.listener, client);
        record.trace_id = Some(self.trace.trace_id());
        record.protocol = Some(self.version);
        if !self.is_stand_in {
            record.method = Some(self.method.as_str().as_bytes());
            let authority = self.uri.authority().map(|authority| authority.as_str().as_bytes());
            record.host = self.host.as_ref().map(http::HeaderValue::as_bytes).or(authority);
            record.path = Some(self.uri.path().as_bytes());
        }
        record.route = route.map(|route| &*route.name);
        record.upstream = upstream.map(|client| &*client.upstream().settings.name);
        record.endpoint = endpoint.and_then(|endpoint| endpoint.authority.to_str().ok());
        record.status = self.status;
        record.reason = reason;
        record.shadow = self.overlooked.as_ref().map(Rejection::reason);
        record.detail = self.rejection.as_ref().or(self.overlooked.as_ref()).and_then(Rejection::log_text);
        record.issuer = token.map(|token| &*token.issuer().name);
        record.sub = token.and_then(|token| token.claims().subject());
        record.client_id = token.and_then(|token| token.claims().client());
        record.jti = token.and_then(|token| token.claims().token_id());
        record.kid = token.and_then(|token| token.key_id());
        record.token = fingerprint.as_ref().map(Fingerprint::as_str);
        record.certificate = self.certificate.as_deref().map(ClientCertificate::principal);
        record.auth = auth;
        record.bytes_in = received;
        record.bytes_out = self.sent;
        record.duration = duration;
        record.upstream_ttfb = self.first_byte;
        record.outcome = outcome;
        core.log(&record);
        if let Some(patterns) = &core.patterns {
            patterns.observe(&record, self.claimed_subject.as_deref(), core.clock.monotonic());
        }
        if let Some(recording) = recording {
            self.finish_recording(*recording, &core, &record);
        }
        self.keep_refusal(&core, &record, examined);
    }

    fn finish_recording(&self, recording: Recording, core: &Core, record: &Record<'_>) {
        let since = |moment: Monotonic| self.started.until(moment);
        let scheme = |is_secure| if is_secure { Scheme::Https } else { Scheme::Http };
        let call = self.forwarded_at.zip(self.lane.as_ref()).map(|(sent, lane)| {
            let endpoint = lane.endpoint();
            let socket = endpoint.socket.as_ref().and_then(|path| path.to_str());
            UpstreamCall {
                name: record.upstream.unwrap_or_default(),
                host: socket.unwrap_or(&endpoint.host),
                port: endpoint.socket.is_none().then_some(endpoint.port),
                scheme: scheme(endpoint.tls.is_some()),
                begun: since(sent),
                first_byte: self.first_byte,
            }
        });
        recording.finish(&Finished {
            record,
            trace: &self.trace,
            scheme: scheme(self.provenance.is_https),
            template: self.route.as_deref().map(|route| &*route.template),
            judged: self.judged_at.map(|begun| Phase { begun: since(begun), took: self.judging }),
            claims: self.token.as_ref().map(|token| token.claims().all()),
            judging: core.ids.borrow_mut().span_id(),
            call,
        });
    }

    fn keep_refusal(&self, core: &Core, record: &Record<'_>, examined: Option<Arc<Examined>>) {
        let (Some(refusals), Some(rejection)) =
            (&core.refusals, self.rejection.as_ref().or(self.overlooked.as_ref()))
        else {
            return;
        };
        refusals.keep(Noted {
            at: record.time,
            request_id: self.request_id,
            client: self.provenance.client_address,
            method: Cut::new(self.method.as_str().as_bytes()),
            host: record.host.map(Cut::new),
            path: Cut::new(self.uri.path().as_bytes()),
            route: self.route.clone(),
            enforced: self.rejection.is_some(),
            rejection: rejection.without_log(),
            log: rejection.log_text().map(|log| Cut::new(log.as_bytes())),
            token: self.fingerprint.or_else(|| self.verified().map(VerifiedToken::fingerprint)),
            examined,
        });
    }
}

/// Has an exchange ended together with its token; `None` where there is no token, or nothing is enforced.
pub(super) fn watch(core: &Core, route: Option<&Route>, token: Option<&LiveToken>) -> Option<Rc<Stream>> {
    if route.is_some_and(|route| route.enforcement == Enforcement::Shadow) {
        return None;
    }
    Some(core.long_lived.watch(token?))
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let (outcome, reason) = if self.busy.is_disowned() {
            (Outcome::CertificateEnded, Reason::CertificateEnded)
        } else {
            (Outcome::ClientClosed, Reason::ClientClosed)
        };
        self.write(outcome, Some(reason));
    }
}
