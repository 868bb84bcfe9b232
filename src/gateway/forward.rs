//! The forwarding step: the request as the API gets it, and its response as the client gets it.
//!
//! Takes a [`Permit`], so that nothing is forwarded without one. Order matters: first everything that only the
//! gateway may say is removed, then the gateway says it, so that no client header can remove or outdo ours.

use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, EXPECT, HOST, HeaderName};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, Version};
use http_body::Body as _;
use hyper::upgrade::OnUpgrade;
use tokio::time::Sleep;

use super::awaiting;
use super::body::ResponseBody;
use super::core::Core;
use super::credential::TokenSource;
use super::exchange::{self, Exchange};
use super::extended_connect;
use super::peer::{Inbound, Peer};
use super::reserved::strip_response;
use super::route::{HostHeader, Route};
use super::sanitize::CleanRequest;
use super::scribe::Scribe;
use super::trailers::{self, Withheld};
use super::websocket::{self, Ends};
use crate::catalogue::Reason;
use crate::policy::Permit;
use crate::rejection::Rejection;
use crate::telemetry::trace::{TRACEPARENT, TRACESTATE};
use crate::upstream::{
    BodyLimits, Client, HandshakeKey, Outgoing, Protocol, RequestBody, UpstreamBody, UpstreamError, mark,
};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TE: HeaderName = HeaderName::from_static("te");

/// Sends the request to the route's upstream and returns the head of its response, body streaming behind.
pub async fn forward(
    core: &Core,
    route: &Route,
    permit: Permit,
    request: CleanRequest,
    peer: &Peer,
    inbound: &Inbound,
    exchange: &mut Exchange,
) -> Result<Served, Rejection> {
    // What is prepared and what is made of the answer are no part of this future: there is one for each request in
    // flight, and it moves.
    let Prepared { client, outgoing, asked } =
        prepare(core, route, permit, request, peer, inbound, exchange)?;
    let progress = Rc::clone(&outgoing.progress);
    let total = outgoing.timeouts.total;
    let mut deadline = total.map(|total| Box::pin(tokio::time::sleep(total)));
    // The wait for the answer has none only where the API speaks gRPC: what the client calls its request is its own
    // word.
    let mut none = None;
    let deadline_of_head = if asked.is_sparse { &mut none } else { &mut deadline };
    let token = exchange.token.as_ref();
    let watch = || exchange::watch(core, Some(route), token);
    let sent_in_time = {
        // Boxed on its own: the allocator is quick up to 1 KiB, and that is what the parts have, but not the whole.
        let mut sending = Box::pin(client.send(outgoing, &mut exchange.lane));
        awaiting::in_time(sending.as_mut(), &progress, deadline_of_head, watch).await
    };
    if let (Err(refused), Some(lane), Some(total)) = (&sent_in_time, &exchange.lane, total)
        && refused.reason() == Reason::UpstreamTotalTimeout
    {
        client.overdue(lane, &progress, total);
    }
    let response = sent_in_time?.map_err(|error| refusal(&error))?;
    progress.answered();
    exchange.first_byte = exchange.forwarded_at.map(|sent| sent.until(core.clock.monotonic()));
    asked.answered(response, route, deadline)
}

/// A request as the API gets it.
struct Prepared<'c> {
    client: &'c Client,
    outgoing: Outgoing,
    asked: Asked,
}

/// What has to be known of a request when its answer comes.
struct Asked {
    /// It may take its time between messages.
    is_sparse: bool,
    /// The client's end, if it asks for a WebSocket.
    upgrade: Option<OnUpgrade>,
    /// It asks for one by HTTP/2.
    is_extended_connect: bool,
    key: Option<HandshakeKey>,
}

#[expect(clippy::needless_pass_by_value, reason = "a permit is spent on one request")]
fn prepare<'c>(
    core: &'c Core,
    route: &Route,
    permit: Permit,
    request: CleanRequest,
    peer: &Peer,
    inbound: &Inbound,
    exchange: &mut Exchange,
) -> Result<Prepared<'c>, Rejection> {
    let Some(client) = route.upstream().and_then(|place| core.upstream(place)) else {
        return Err(Rejection::new(Reason::Internal).log("the route's upstream does not exist"));
    };
    let is_websocket = websocket::is_asked_for(&request, inbound);
    let is_extended_connect = request.is_extended_connect();
    let (mut parts, authority, incoming) = request.into_parts();
    let key = if is_extended_connect { HandshakeKey::of(&parts.headers) } else { None };
    let limits = BodyLimits {
        max_bytes: route.max_body,
        idle: core.limits.body_idle,
        least_rate: route.body_rate,
        // To an API that does not speak it, gRPC would be no more than a word.
        is_sparse: is_grpc(&parts.headers) && client.upstream().settings.protocol == Protocol::Http2,
    };
    check_length(&parts.headers, limits)?;
    let has_body = !incoming.is_end_stream();
    let trailers = if has_body { trailers::passing(&parts.headers, &core.reserved) } else { Vec::new() };
    {
        let scribe = &mut Scribe::new();
        edit_request(core, route, &mut parts, scribe, &authority, peer, exchange)?;
        if permit.vouches()
            && let Err(refused) = tell_identity(route, &permit, &mut parts.headers, scribe, peer)
        {
            exchange.overlook(route, refused)?;
        }
    }
    trailers::announce(&trailers, &mut parts.headers);
    let upgrade = parts.extensions.remove::<OnUpgrade>().filter(|_| is_websocket);
    if is_websocket {
        mark(&mut parts.headers);
    }
    let (body, progress) = RequestBody::new(incoming, limits, trailers);
    exchange.body = Some(Rc::clone(&progress));
    exchange.forwarded_at = Some(core.clock.monotonic());
    let outgoing = Outgoing {
        request: Box::new(Request::from_parts(parts, body)),
        progress,
        own_host: route.host == HostHeader::Upstream,
        is_upgrade: is_websocket,
        timeouts: route.timeouts,
    };
    let asked = Asked { is_sparse: limits.is_sparse, upgrade, is_extended_connect, key };
    Ok(Prepared { client, outgoing, asked })
}

impl Asked {
    /// The answer as the client gets it.
    fn answered(
        self,
        mut response: Response<UpstreamBody>,
        route: &Route,
        deadline: Option<Pin<Box<Sleep>>>,
    ) -> Result<Served, Rejection> {
        let listed = strip_response(response.headers_mut(), &route.identity_headers);
        let withheld = Withheld::of_response(listed, response.headers_mut(), &route.identity_headers);
        let is_answer_grpc = is_grpc(response.headers());
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            if self.is_extended_connect {
                extended_connect::check_refusal(response.status())?;
            }
            let response = respond(response, withheld, is_answer_grpc, deadline);
            return Ok(Served { response, websocket: None });
        }
        let Some(upgrade) = self.upgrade else {
            return Err(Rejection::new(Reason::BadResponse).log("the API switched protocols unasked"));
        };
        let in_use = response.body_mut().take_in_use();
        let ends = Ends::join(upgrade, &mut response, in_use);
        let mut response = websocket::accepted(response);
        if self.is_extended_connect {
            response = extended_connect::accepted(response, self.key.as_ref())?;
        }
        Ok(Served { response, websocket: Some(Box::new(ends)) })
    }
}

/// The answer for the client. What is made to last has no deadline.
fn respond(
    response: Response<UpstreamBody>,
    withheld: Withheld,
    is_grpc: bool,
    deadline: Option<Pin<Box<Sleep>>>,
) -> Response<ResponseBody> {
    let lasts = is_grpc || has_type(response.headers(), b"text/event-stream");
    let deadline = deadline.filter(|_| !lasts);
    response.map(|body| ResponseBody::upstream(body, withheld, is_grpc).until(deadline))
}

fn is_grpc(headers: &HeaderMap) -> bool {
    has_type(headers, b"application/grpc")
}

fn has_type(headers: &HeaderMap, kind: &[u8]) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(kind))
}

/// How long a client that met an upstream without room or health is told to wait, at the least.
const RETRY_AFTER: Duration = Duration::from_secs(1);

fn refusal(error: &UpstreamError) -> Rejection {
    let rejection = Rejection::new(error.reason()).log(error.to_string());
    match error {
        UpstreamError::NoHealthyEndpoint { .. }
        | UpstreamError::Busy { .. }
        | UpstreamError::NoStream { .. } => rejection.retry_after(RETRY_AFTER),
        _ => rejection,
    }
}

/// What came of forwarding: a response and, if it switches protocols, the two ends to be joined behind it.
pub struct Served {
    /// The response for the client.
    pub response: Response<ResponseBody>,
    /// The ends of an accepted WebSocket connection.
    pub websocket: Option<Box<Ends>>,
}

impl Served {
    /// A response without anything behind it.
    pub fn answer(response: Response<ResponseBody>) -> Self {
        Self { response, websocket: None }
    }
}

/// A body that says beforehand that it is too large is refused before the API hears of it.
fn check_length(headers: &HeaderMap, limits: BodyLimits) -> Result<(), Rejection> {
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    match (announced, limits.max_bytes) {
        (Some(length), Some(most)) if length > most => Err(Reason::BodyTooLarge.into()),
        _ => Ok(()),
    }
}

fn edit_request(
    core: &Core,
    route: &Route,
    parts: &mut Parts,
    scribe: &mut Scribe,
    authority: &HeaderValue,
    peer: &Peer,
    exchange: &Exchange,
) -> Result<(), Rejection> {
    let accepts_trailers =
        parts.headers.get(&TE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"trailers"));
    let headers = &mut parts.headers;
    core.reserved.strip(headers, &route.allow_override_headers);
    headers.remove(EXPECT);
    if accepts_trailers {
        // The one use of TE that crosses a proxy; gRPC servers insist on it (RFC 9110 section 10.1.4).
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    remove_credential(route, headers);
    join_cookies(headers);

    headers.insert(HOST, authority.clone());
    exchange.provenance.tell(headers, scribe, peer, authority)?;
    let defect = |_| Rejection::new(Reason::Internal);
    let request_id = [exchange.request_id.as_str().as_bytes()];
    headers.insert(X_REQUEST_ID, scribe.write(request_id).map_err(defect)?);
    if let Some(traceparent) = exchange.trace.header_parts() {
        headers.insert(TRACEPARENT, scribe.write(traceparent).map_err(defect)?);
    }
    if !exchange.trace.continued() {
        headers.remove(TRACESTATE);
    }
    let target = std::mem::take(&mut parts.uri).into_parts().path_and_query;
    parts.uri = target.map(Uri::from).unwrap_or_default();
    parts.version = Version::HTTP_11;
    Ok(())
}

/// All identity headers, or none: the API must not decide by some of them.
fn tell_identity(
    route: &Route,
    permit: &Permit,
    headers: &mut HeaderMap,
    scribe: &mut Scribe,
    peer: &Peer,
) -> Result<(), Rejection> {
    let claims = permit.token().map(|token| token.claims());
    for identity in &route.identity_headers {
        match identity.value(scribe, claims, peer.certificate()) {
            Ok(Some(value)) => drop(headers.insert(identity.header.clone(), value)),
            Ok(None) => {}
            Err(refused) => {
                for identity in &route.identity_headers {
                    headers.remove(&identity.header);
                }
                return Err(refused);
            }
        }
    }
    Ok(())
}

/// The API gets the token only where the route says so: it needs none to do its work, and cannot lose what it never
/// had. On a public route an Authorization header is none of the gateway's business and passes.
fn remove_credential(route: &Route, headers: &mut HeaderMap) {
    if route.forward_token || matches!(route.access, crate::policy::Access::Public) {
        return;
    }
    headers.remove(AUTHORIZATION);
    let TokenSource::Cookie(name) = &route.token_from else { return };
    let kept: Vec<HeaderValue> = headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| {
            let pairs = value.to_str().ok()?.split(';').map(|pair| pair.trim_matches([' ', '\t']));
            let others: Vec<&str> = pairs
                .filter(|pair| {
                    pair.split_once('=').is_none_or(|(key, _)| key.trim_end_matches([' ', '\t']) != &**name)
                })
                .collect();
            HeaderValue::from_str(&others.join("; ")).ok().filter(|value| !value.is_empty())
        })
        .collect();
    headers.remove(COOKIE);
    for value in kept {
        headers.append(COOKIE, value);
    }
}

/// HTTP/2 may split cookies over several fields, HTTP/1.1 may not (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let crumbs: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if crumbs.len() > 1
        && let Ok(joined) = HeaderValue::from_maybe_shared(Bytes::from(crumbs.join(&b"; "[..])))
    {
        headers.insert(COOKIE, joined);
    }
}
