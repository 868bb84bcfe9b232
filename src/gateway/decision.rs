//! Decisions for another proxy: it describes a request, and is told whether the request may pass. The steps are those
//! of [`handle`](super::handle); in the place of forwarding stand the headers for the proxy to forward with.
//!
//! Whoever may ask says what is asked about, so only proxies in the configured networks are answered.

use std::rc::Rc;
use std::sync::Arc;

use http::header::{CACHE_CONTROL, HeaderName};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use ipnet::IpNet;

use super::body::ResponseBody;
use super::core::Core;
use super::description::Description;
use super::exchange::Exchange;
use super::ext_authz;
use super::ext_authz_http;
use super::handle::{Gateway, permit};
use super::peer::{Inbound, Peer};
use super::respond::{Form, refuse};
use super::route::{Route, Service};
use super::sanitize::CleanRequest;
use super::scribe::Scribe;
use crate::catalogue::Reason;
use crate::config::settings::DecisionProtocol;
use crate::policy::{Access, Permit};
use crate::rejection::Rejection;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The body of a refusal for a proxy that drops bodies.
const X_VALGATE_PROBLEM: HeaderName = HeaderName::from_static("x-valgate-problem");

/// How a listener answers proxies that ask.
#[derive(Debug)]
pub struct Decisions {
    protocol: DecisionProtocol,
    from: Vec<IpNet>,
}

/// A request that may pass.
#[derive(Debug, Default)]
pub(super) struct Allowed {
    /// What the proxy is to tell the API; in place of what the client says there.
    pub(super) headers: HeaderMap,
    /// What the proxy is to leave out.
    pub(super) removed: Vec<HeaderName>,
}

impl Decisions {
    /// Answers proxies in these networks.
    pub fn new(protocol: DecisionProtocol, from: Vec<IpNet>) -> Self {
        Self { protocol, from }
    }

    fn check_asker(&self, asker: &Peer) -> Result<(), Rejection> {
        let address = asker.address.ip().to_canonical();
        if self.from.iter().any(|network| network.contains(&address)) {
            return Ok(());
        }
        Err(Reason::ProxyNotTrusted.into())
    }

    /// The request that the proxy asks about.
    async fn described(
        &self,
        core: &Core,
        asker: &Peer,
        ask: Request<Incoming>,
    ) -> Result<Description, Rejection> {
        self.check_asker(asker)?;
        match &self.protocol {
            DecisionProtocol::ForwardAuth | DecisionProtocol::AuthRequest => {
                Description::from_forwarded(ask.headers())
            }
            DecisionProtocol::IngressNginx => Description::from_original(ask.headers()),
            DecisionProtocol::ExtAuthz => ext_authz::read(core, ask).await,
            DecisionProtocol::ExtAuthzHttp { path_prefix } => Description::from_head(&ask, path_prefix),
        }
    }

    /// A refusal's form. Its status is the verdict, so it is never gRPC's trailers-only, whose status is 200.
    fn form(&self, headers: &HeaderMap) -> Form {
        match (&self.protocol, Form::of(headers)) {
            // Envoy puts the body into `grpc-message`.
            (DecisionProtocol::ExtAuthz | DecisionProtocol::ExtAuthzHttp { .. }, Form::Grpc) => Form::Text,
            (DecisionProtocol::AuthRequest, _) | (_, Form::Grpc) => Form::Problem,
            (_, form) => form,
        }
    }
}

impl Gateway {
    /// Answers a proxy that asks whether a request may pass.
    pub async fn decide(
        &self,
        asker: &Peer,
        ask: Request<Incoming>,
        inbound: Inbound,
        decisions: &Decisions,
    ) -> Response<ResponseBody> {
        let core = self.core();
        let stand_in = stand_in(&ask);
        let described = match inbound.violation() {
            Some(rejection) => Err(rejection),
            None => {
                decisions.described(&core, asker, ask).await.map_err(|rejection| inbound.blame(rejection))
            }
        };
        // What TLS tells is about the proxy, not about its client.
        let client =
            Peer::new(asker.address, Rc::clone(&asker.listener), None, None, Rc::clone(&asker.activity));
        let request = described.as_ref().map_or(&stand_in, |described| &described.request);
        let form = decisions.form(request.headers());
        let mut exchange = Box::new(Exchange::begin(&core, &client, request, &inbound));
        let outcome = match described {
            Ok(Description { request, provenance }) => {
                exchange.provenance = provenance;
                judge(&core, &client, request, decisions, &mut exchange).await
            }
            Err(rejection) => Err(rejection),
        };
        let (mut verdict, removed) = match outcome {
            Ok(Allowed { headers, removed }) => {
                exchange.answered(StatusCode::OK, None);
                (allowed(headers), removed)
            }
            Err(rejection) => {
                let disclosure = core.disclosure(exchange.route.as_deref());
                let mut refusal = refuse(&rejection, form, disclosure, exchange.request_id.as_str());
                if let Some(sharing) = &exchange.sharing {
                    sharing.tell(refusal.headers_mut(), false);
                }
                exchange.answered(refusal.status(), Some(rejection));
                (refusal, Vec::new())
            }
        };
        verdict.headers_mut().insert(X_REQUEST_ID, exchange.request_id.header_value());
        let response = match decisions.protocol {
            DecisionProtocol::ForwardAuth => verdict,
            DecisionProtocol::AuthRequest => with_problem_in_header(verdict),
            DecisionProtocol::IngressNginx => with_known_status(verdict),
            DecisionProtocol::ExtAuthz => ext_authz::answer(&verdict, &removed),
            DecisionProtocol::ExtAuthzHttp { .. } => ext_authz_http::answer(verdict, &removed),
        };
        response.map(|body| body.observed(exchange))
    }
}

/// The steps, as far as a proxy can take part in them.
async fn judge(
    core: &Core,
    client: &Peer,
    request: Request<()>,
    decisions: &Decisions,
    exchange: &mut Exchange,
) -> Result<Allowed, Rejection> {
    let _admitted = core.overload.admit(&core.clock, &core.metrics).await?;
    let request = CleanRequest::sanitize(Box::new(request), core.limits)?;
    let route = core.routes.find(&request)?;
    if !matches!(route.service, Service::Upstream(_) | Service::Decision) {
        return Err(Reason::NoRoute.into());
    }
    exchange.route = Some(Arc::clone(route));
    exchange.sharing = route.cors.as_ref().map(|cors| cors.judge(request.headers()));
    let permit = match permit(core, client, route, &request, exchange).await {
        Ok(permit) => permit,
        Err(refused) => exchange.overlook(route, refused)?,
    };
    exchange.judged = true;
    match decisions.protocol {
        DecisionProtocol::ForwardAuth | DecisionProtocol::AuthRequest | DecisionProtocol::IngressNginx => {
            refuse_spoofed(core, route, &request)?;
            Ok(Allowed { headers: identity(route, &permit)?, removed: Vec::new() })
        }
        DecisionProtocol::ExtAuthz | DecisionProtocol::ExtAuthzHttp { .. } => {
            let headers = identity(route, &permit)?;
            let removed = removed(core, route, &request, &headers);
            Ok(Allowed { headers, removed })
        }
    }
}

/// A proxy that cannot be told to remove a header would pass it on.
fn refuse_spoofed(core: &Core, route: &Route, request: &CleanRequest<()>) -> Result<(), Rejection> {
    match core.reserved.sent_by_client(request.headers(), &route.allow_override_headers).next() {
        Some(name) => Err(Rejection::new(Reason::IllegalHeader)
            .hint("The request carries a header that only the gateway or the proxy may set.")
            .log(format!("the client sent {name}"))),
        None => Ok(()),
    }
}

/// What the proxy is to leave out: what the client may not say, and the token. Identity headers are named even if the
/// client sent none that the proxy has shown.
fn removed(core: &Core, route: &Route, request: &CleanRequest<()>, told: &HeaderMap) -> Vec<HeaderName> {
    let sent = core.reserved.sent_by_client(request.headers(), &route.allow_override_headers);
    let keeps_token = route.forward_token || matches!(route.access, Access::Public);
    let token = (!keeps_token).then_some(http::header::AUTHORIZATION);
    let identity = route.identity_headers.iter().map(|identity| &identity.header);
    let mut removed: Vec<HeaderName> =
        sent.chain(identity).filter(|name| !told.contains_key(*name)).cloned().chain(token).collect();
    removed.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
    removed.dedup();
    removed
}

fn identity(route: &Route, permit: &Permit) -> Result<HeaderMap, Rejection> {
    let claims = permit.token().map(|token| token.claims());
    let (mut headers, mut scribe) = (HeaderMap::new(), Scribe::new());
    for identity in &route.identity_headers {
        if let Some(value) = identity.value(&mut scribe, claims, None)? {
            headers.insert(identity.header.clone(), value);
        }
    }
    Ok(headers)
}

fn allowed(headers: HeaderMap) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::full(bytes::Bytes::new()));
    *response.headers_mut() = headers;
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn with_problem_in_header(mut verdict: Response<ResponseBody>) -> Response<ResponseBody> {
    if !verdict.status().is_success()
        && let Ok(problem) = HeaderValue::from_bytes(verdict.body().said())
    {
        verdict.headers_mut().insert(X_VALGATE_PROBLEM, problem);
    }
    verdict
}

/// ingress-nginx knows 401 and 403; all else is an error of its own to it, with status 500, which would blame the
/// server for what the client did.
fn with_known_status(mut verdict: Response<ResponseBody>) -> Response<ResponseBody> {
    if verdict.status().is_client_error() && verdict.status() != StatusCode::UNAUTHORIZED {
        *verdict.status_mut() = StatusCode::FORBIDDEN;
    }
    verdict
}

/// What is written down where no request could be made out.
fn stand_in(ask: &Request<Incoming>) -> Request<()> {
    let mut stand_in = Request::new(());
    *stand_in.method_mut() = ask.method().clone();
    *stand_in.uri_mut() = ask.uri().clone();
    *stand_in.version_mut() = ask.version();
    *stand_in.headers_mut() = ask.headers().clone();
    stand_in
}
