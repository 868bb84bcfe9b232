//! The life of a request, on one page.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONNECTION, HeaderName, LOCATION, ORIGIN, STRICT_TRANSPORT_SECURITY};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;

use super::body::ResponseBody;
use super::core::Core;
use super::credential::{self, Sender};
use super::exchange::Exchange;
use super::failed_attempts::FailedAttempts;
use super::forward::{Served, forward};
use super::peer::{Inbound, Peer};
use super::respond::{Form, refuse};
use super::route::{Route, Service};
use super::sanitize::CleanRequest;
use crate::catalogue::Reason;
use crate::cors::{AnsweredBy, Cors, Preflight, Sharing};
use crate::policy::{Access, Permit};
use crate::rejection::Rejection;
use crate::telemetry::metrics::Protocol;
use crate::upstream::ClientBody;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The gateway as one core has it: everything that a request needs, reached without a lock. A request is
/// served to its end by the configuration that was in force when it began.
#[derive(Clone, Debug)]
pub struct Gateway(Rc<RefCell<Rc<Core>>>);

impl Gateway {
    /// A gateway on this core's state.
    pub fn new(core: Core) -> Self {
        Self(Rc::new(RefCell::new(Rc::new(core))))
    }

    /// The state of this core as it is now.
    pub fn core(&self) -> Rc<Core> {
        Rc::clone(&self.0.borrow())
    }

    /// Has requests from now on, on open connections too, served by this state.
    pub fn publish(&self, core: Core) {
        self.0.replace(Rc::new(core));
    }

    /// Serves one request. It comes boxed, since it is large and goes from step to step.
    pub async fn handle(
        &self,
        peer: &Peer,
        request: Box<Request<Incoming>>,
        inbound: Inbound,
    ) -> Response<ResponseBody> {
        let core = self.core();
        let form = Form::of(request.headers());
        let origin = sole(request.headers(), &ORIGIN);
        let mut exchange = Box::new(Exchange::begin(&core, peer, &request, &inbound));
        let outcome = if let Some(rejection) = inbound.violation() {
            Err(rejection)
        } else {
            let request = with_body(request, &inbound, &mut exchange);
            serve(&core, peer, request, &inbound, &mut exchange).await
        };
        match outcome.map_err(|rejection| inbound.blame(rejection)) {
            Ok(Served { mut response, websocket: Some(ends) }) => {
                let has_connection = inbound.is_http1();
                let Some(tunnel) = inbound.tunnel() else {
                    let unasked = Rejection::new(Reason::Internal).log("the connection cannot be upgraded");
                    return answer(&core, peer, form, Err(unasked), exchange);
                };
                response.headers_mut().insert(X_REQUEST_ID, exchange.request_id.header_value());
                if has_connection {
                    peer.activity.speaks(Protocol::Upgraded);
                }
                exchange.answered(response.status(), None);
                ends.carry(exchange, tunnel);
                response
            }
            Ok(Served { response, .. }) => answer(&core, peer, form, Ok(response), exchange),
            Err(rejection) => {
                exchange.share_refusal(origin);
                answer(&core, peer, form, Err(rejection), exchange)
            }
        }
    }

    /// Sends a request on to the same URL with `https` on this port (RFC 9110 section 15.4.9). One that came to a trusted
    /// proxy by HTTPS has arrived: it is served, or it would be sent round for ever.
    pub async fn redirect(
        &self,
        peer: &Peer,
        request: Box<Request<Incoming>>,
        inbound: Inbound,
        port: u16,
    ) -> Response<ResponseBody> {
        let core = self.core();
        if core.trusted_proxies.provenance(peer, request.headers()).is_https {
            return self.handle(peer, request, inbound).await;
        }
        let form = Form::of(request.headers());
        let mut exchange = Box::new(Exchange::begin(&core, peer, &request, &inbound));
        let outcome = match inbound.violation() {
            Some(rejection) => Err(rejection),
            None => CleanRequest::sanitize(with_body(request, &inbound, &mut exchange), core.limits)
                .and_then(|clean| to_https(&clean, port)),
        };
        answer(&core, peer, form, outcome, exchange)
    }
}

/// The value of a header that is there once.
fn sole(headers: &HeaderMap, name: &HeaderName) -> Option<HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none()).cloned()
}

/// The request with what becomes of its body if nobody wants it.
fn with_body(
    request: Box<Request<Incoming>>,
    inbound: &Inbound,
    exchange: &mut Exchange,
) -> Box<Request<ClientBody>> {
    exchange.ends_with_body = inbound.ends_with_body_of(&request);
    Box::new((*request).map(|incoming| ClientBody::new(incoming, !exchange.ends_with_body)))
}

fn answer(
    core: &Core,
    peer: &Peer,
    form: Form,
    outcome: Result<Response<ResponseBody>, Rejection>,
    mut exchange: Box<Exchange>,
) -> Response<ResponseBody> {
    let is_of_api = outcome.is_ok() && exchange.first_byte.is_some();
    let mut response = match outcome {
        Ok(mut response) => {
            if let (Some(route), Some(token)) = (&exchange.route, &exchange.token) {
                let headers = response.headers_mut();
                route.expiry_hints.put(headers, token.issuer().id, token.expires(), &core.clock);
            }
            exchange.answered(response.status(), None);
            response
        }
        Err(rejection) => {
            let disclosure = core.disclosure(exchange.route.as_deref());
            let response = refuse(&rejection, form, disclosure, exchange.request_id.as_str());
            exchange.answered(response.status(), Some(rejection));
            response
        }
    };
    let headers = response.headers_mut();
    headers.insert(X_REQUEST_ID, exchange.request_id.header_value());
    if exchange.ends_connection() {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if let Some(sharing) = &exchange.sharing {
        sharing.tell(headers, is_of_api);
    }
    if let Some(hsts) = &peer.hsts {
        headers.insert(STRICT_TRANSPORT_SECURITY, hsts.clone());
    }
    response.map(|body| body.observed(exchange))
}

/// The redirect itself. Not cached: the configuration may change.
fn to_https(request: &CleanRequest, port: u16) -> Result<Response<ResponseBody>, Rejection> {
    let port = if port == 443 { String::new() } else { format!(":{port}") };
    let location = format!("https://{}{port}{}", request.host(), request.target());
    let location = HeaderValue::from_str(&location).map_err(|_| Rejection::new(Reason::IllegalTarget))?;
    let mut response = Response::new(ResponseBody::full(Bytes::new()));
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    response.headers_mut().insert(LOCATION, location);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Takes the request on and serves it, or refuses it where there is too much to do.
async fn serve(
    core: &Core,
    peer: &Peer,
    request: Box<Request<ClientBody>>,
    inbound: &Inbound,
    exchange: &mut Exchange,
) -> Result<Served, Rejection> {
    let _admitted = core.overload.admit(&core.clock, &core.metrics).await?;
    // Boxed, so that those who stand in line have no room for it: they are many, and push what is in use out of the
    // processor's cache.
    Box::pin(take_steps(core, peer, request, inbound, exchange)).await
}

/// The steps in their order. Each takes what only the step before can make; `?` is the only way out.
async fn take_steps(
    core: &Core,
    peer: &Peer,
    request: Box<Request<ClientBody>>,
    inbound: &Inbound,
    exchange: &mut Exchange,
) -> Result<Served, Rejection> {
    let request = CleanRequest::sanitize(request, core.limits)?;
    check_direction(core, peer, &request)?;
    if let Some(asked) = preflight(core, &request) {
        // Boxed, here and below, so that no other request has room for it.
        return Box::pin(serve_preflight(core, peer, asked, request, inbound, exchange)).await;
    }
    let route = core.routes.find(&request)?;
    exchange.route = Some(Arc::clone(route));
    exchange.sharing = route.cors.as_ref().map(|cors| cors.judge(request.headers()));
    let permit = match permit(core, peer, route, &request, exchange).await {
        Ok(permit) => permit,
        Err(refused) => {
            exchange.overlook(route, refused).map_err(|refused| count_failure(core, refused, exchange))?
        }
    };
    exchange.judged = true;
    match &route.service {
        Service::Upstream(_) => forward(core, route, permit, request, peer, inbound, exchange).await,
        Service::Receive(receiver) => Box::pin(receiver.receive(core, request)).await.map(Served::answer),
        Service::Decision => Err(Reason::NoRoute.into()),
        Service::Revoke(revocation) => revocation.revoke(core, &permit, &request).await.map(Served::answer),
    }
}

/// A browser's question on behalf of a page, the route that it asks about, and what that has to say to it.
type AskedPreflight<'c> = (Preflight, &'c Arc<Route>, &'c Arc<Cors>);

/// A browser's question, if the route that it asks about has an answer to it. Browsers send it without a token.
fn preflight<'c>(core: &'c Core, request: &CleanRequest) -> Option<AskedPreflight<'c>> {
    let preflight = Preflight::of(request.method(), request.headers(), request.has_body())?;
    let route = core.routes.find_for(request, &preflight.method).ok()?;
    Some((preflight, route, route.cors.as_ref()?))
}

async fn serve_preflight(
    core: &Core,
    peer: &Peer,
    (preflight, route, cors): AskedPreflight<'_>,
    request: CleanRequest,
    inbound: &Inbound,
    exchange: &mut Exchange,
) -> Result<Served, Rejection> {
    let sharing = cors.judge(request.headers());
    exchange.route = Some(Arc::clone(route));
    exchange.sharing = Some(sharing.clone());
    match cors.preflights_answered_by() {
        AnsweredBy::Gateway => answer_preflight(&sharing),
        AnsweredBy::Api => {
            let permit = Permit::preflight(&preflight);
            forward(core, route, permit, request.without_credentials(), peer, inbound, exchange).await
        }
    }
}

fn answer_preflight(sharing: &Sharing) -> Result<Served, Rejection> {
    if !sharing.is_allowed() {
        return Err(Reason::OriginNotAllowed.into());
    }
    let mut response = Response::new(ResponseBody::full(Bytes::new()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    sharing.answer_preflight(response.headers_mut());
    Ok(Served { response, websocket: None })
}

/// Leave to be forwarded: by the operator's word for a public route, by a client certificate or by a live token that
/// the policy accepts for any other.
pub(super) async fn permit<B>(
    core: &Core,
    peer: &Peer,
    route: &Route,
    request: &CleanRequest<B>,
    exchange: &mut Exchange,
) -> Result<Permit, Rejection> {
    let policy = match &route.access {
        Access::Public => {
            return Permit::public(&route.access).ok_or_else(|| Reason::Internal.into());
        }
        Access::Certificate(rules) => return rules.admit(peer.certificate()).map(Permit::certificate),
        Access::Require(policy) => policy,
    };
    let from = Sender {
        is_https: exchange.provenance.is_https,
        is_trusted_page: exchange.sharing.as_ref().is_some_and(Sharing::is_allowed_credentials),
    };
    let shown = credential::extract(request, &route.token_from, from, core.limits.token)
        .map_err(|rejection| with_scope(rejection, policy))?;
    let begun = core.clock.still();
    let live = core.authenticator.authenticate(shown, &policy.issuers, &begun, &mut exchange.insight).await;
    let begun = begun.monotonic();
    (exchange.judged_at, exchange.judging) = (Some(begun), begun.until(core.clock.monotonic()));
    let live = live.inspect_err(|refused| exchange.token_refused(shown, route, refused))?;
    exchange.token = Some(live.clone());
    policy
        .authorize(live, peer.certificate())
        .inspect_err(|refused| exchange.token_refused(shown, route, refused))
}

/// Who fails too often to show a token that anybody issued is told to wait, where the operator wants that.
fn count_failure(core: &Core, refused: Rejection, exchange: &Exchange) -> Rejection {
    match core.failed_attempts_limits {
        Some(limits) if FailedAttempts::counts(refused.reason()) => {
            core.metrics.failed_attempt();
            let client = exchange.provenance.client_address.ip();
            core.failed_attempts.count(limits, client, core.clock.monotonic(), refused)
        }
        _ => refused,
    }
}

/// Who sent no token is told which scope to ask for (RFC 6750 section 3).
fn with_scope(rejection: Rejection, policy: &crate::policy::Policy) -> Rejection {
    match policy.scope_text() {
        Some(scope) if rejection.reason() == Reason::Missing => rejection.scope(scope),
        _ => rejection,
    }
}

fn check_direction(core: &Core, peer: &Peer, request: &CleanRequest) -> Result<(), Rejection> {
    let server_name = peer.tls.as_ref().and_then(|tls| tls.server_name.as_deref());
    if server_name.is_some_and(|name| core.routes.is_misdirected(name, request.host())) {
        return Err(Reason::SniMismatch.into());
    }
    Ok(())
}
