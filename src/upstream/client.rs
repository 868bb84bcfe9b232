//! Sending a request to an upstream: choose an endpoint, take or make a connection, send, wait for the response.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body::Body;

use super::body::{BodyProgress, RequestBody, UpstreamBody, stalled};
use super::connect::{Connected, connect};
use super::error::UpstreamError;
use super::pool::{EndpointPool, Lease};
use super::settings::{Endpoint, Protocol, Upstream};
use crate::clock::Clock;

/// One core's way to one upstream.
#[derive(Debug)]
pub struct Client {
    upstream: Arc<Upstream>,
    pools: Vec<Rc<EndpointPool>>,
    turn: Cell<usize>,
}

impl Client {
    /// A client without connections yet.
    pub fn new(upstream: Arc<Upstream>, clock: &Clock) -> Self {
        let pool = || Rc::new(EndpointPool::new(upstream.max_idle, upstream.timeouts.idle, clock.clone()));
        let pools = upstream.endpoints.iter().map(|_| pool()).collect();
        Self { upstream, pools, turn: Cell::new(0) }
    }

    /// What is configured of the upstream.
    pub fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }

    /// The endpoint whose turn it is.
    pub fn next_endpoint(&self) -> usize {
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        turn % self.upstream.endpoints.len().max(1)
    }

    /// The endpoint at this place.
    pub fn endpoint(&self, place: usize) -> Option<&Endpoint> {
        self.upstream.endpoints.get(place)
    }

    /// Sends a request in origin-form with its `Host` set, and waits for the head of the response.
    pub async fn send(
        &self,
        place: usize,
        request: Request<RequestBody>,
        progress: &BodyProgress,
    ) -> Result<Response<UpstreamBody>, UpstreamError> {
        let (Some(endpoint), Some(pool)) = (self.endpoint(place), self.pools.get(place)) else {
            return Err(self.no_endpoint());
        };
        let exchange = self.exchange(endpoint, pool, with_framing(request), progress);
        // A failure of the request's own body shows as an error of the connection that it was sent on.
        let response =
            exchange.await.map_err(|error| progress.failure().map_or(error, UpstreamError::RequestBody))?;
        check_head(&response)?;
        Ok(response)
    }

    /// Sends a request that asks to switch protocols, which HTTP/1.1 alone can, on a connection of its own.
    pub async fn send_upgrade(
        &self,
        place: usize,
        request: Request<RequestBody>,
        progress: &BodyProgress,
    ) -> Result<Response<UpstreamBody>, UpstreamError> {
        let (Some(endpoint), Some(pool)) = (self.endpoint(place), self.pools.get(place)) else {
            return Err(self.no_endpoint());
        };
        match Box::pin(connect(&self.upstream, endpoint, Protocol::Http1)).await? {
            Connected::Http1(sender) => {
                let response = self.send_on(pool.lease(sender), request, progress).await?;
                if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                    check_head(&response)?;
                }
                Ok(response)
            }
            Connected::Http2(_) => Err(UpstreamError::NoUpgrade),
        }
    }

    async fn send_on(
        &self,
        mut lease: Lease,
        request: Request<RequestBody>,
        progress: &BodyProgress,
    ) -> Result<Response<UpstreamBody>, UpstreamError> {
        let sending = lease.sender.send_request(to_http1(request));
        let response = self.in_time(progress, sending).await??;
        Ok(response.map(|body| UpstreamBody::new(body, Some(lease))))
    }

    fn no_endpoint(&self) -> UpstreamError {
        UpstreamError::Connect {
            endpoint: self.upstream.name.to_string(),
            cause: std::io::Error::other("the upstream has no endpoint"),
        }
    }

    async fn exchange(
        &self,
        endpoint: &Endpoint,
        pool: &Rc<EndpointPool>,
        request: Request<RequestBody>,
        progress: &BodyProgress,
    ) -> Result<Response<UpstreamBody>, UpstreamError> {
        let mut request = request;
        // Idle connections may turn out to be closed; what was not sent comes back and goes to the next one.
        while let Some(mut lease) = pool.take() {
            let repeated = repeatable(&request);
            let sending = lease.sender.try_send_request(request);
            match self.in_time(progress, sending).await? {
                Ok(response) => return Ok(response.map(|body| UpstreamBody::new(body, Some(lease)))),
                Err(mut error) => match (error.take_message(), repeated) {
                    (Some(unsent), _) => request = unsent,
                    (None, Some(repeated)) if has_died(error.error()) => {
                        // Once, and on a new connection: the other idle ones are likely to be dead too.
                        request = repeated;
                        break;
                    }
                    (None, _) => return Err(error.into_error().into()),
                },
            }
        }
        if let Some(mut sender) = self.open_http2(pool) {
            match self.in_time(progress, sender.try_send_request(to_http2(request, endpoint))).await? {
                Ok(response) => return Ok(response.map(|body| UpstreamBody::new(body, None))),
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(error.into_error().into()),
                },
            }
        }
        // Boxed, here and where else a request leaves the warm path: else each one carries the room for it.
        match Box::pin(self.connect(endpoint, pool)).await? {
            Connected::Http1(sender) => self.send_on(pool.lease(sender), request, progress).await,
            Connected::Http2(mut sender) => {
                let sending = sender.send_request(to_http2(request, endpoint));
                let response = self.in_time(progress, sending).await??;
                Ok(response.map(|body| UpstreamBody::new(body, None)))
            }
        }
    }

    fn open_http2(
        &self,
        pool: &EndpointPool,
    ) -> Option<hyper::client::conn::http2::SendRequest<RequestBody>> {
        if self.upstream.protocol == Protocol::Http1 {
            return None;
        }
        pool.http2.borrow().as_ref().filter(|sender| !sender.is_closed()).cloned()
    }

    /// A new connection; one at a time where HTTP/2 is possible, since all can share it.
    async fn connect(&self, endpoint: &Endpoint, pool: &EndpointPool) -> Result<Connected, UpstreamError> {
        let may_share = self.upstream.protocol == Protocol::Http2
            || (self.upstream.protocol == Protocol::Auto && endpoint.tls.is_some());
        let _one_at_a_time = if may_share { Some(pool.connecting.lock().await) } else { None };
        if let Some(sender) = self.open_http2(pool) {
            return Ok(Connected::Http2(sender));
        }
        let connected = connect(&self.upstream, endpoint, self.upstream.protocol).await?;
        if let Connected::Http2(sender) = &connected {
            *pool.http2.borrow_mut() = Some(sender.clone());
        }
        Ok(connected)
    }

    /// Waits for the response's head no longer than the response time-out after the request's body has come to
    /// rest, so that a long upload is not taken for a slow answer.
    async fn in_time<F: Future>(
        &self,
        progress: &BodyProgress,
        sending: F,
    ) -> Result<F::Output, UpstreamError> {
        tokio::select! {
            biased;
            outcome = sending => Ok(outcome),
            () = stalled(progress, self.upstream.timeouts.response) => Err(UpstreamError::ResponseTimeout),
        }
    }

    /// Closes connections that have been idle for too long; to be called now and then.
    pub fn prune(&self) {
        self.pools.iter().for_each(|pool| pool.prune());
    }
}

/// A copy of a request that may be sent a second time: safe (RFC 9110 section 9.2.1) and without a body. An upstream
/// may close an idle connection in the very moment in which a request is sent on it, which is nobody's fault and
/// none of the client's business.
fn repeatable(request: &Request<RequestBody>) -> Option<Request<RequestBody>> {
    if !request.method().is_safe() {
        return None;
    }
    let mut copy = Request::new(request.body().repeated()?);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    copy.headers_mut().clone_from(request.headers());
    Some(copy)
}

/// Whether the connection ended, as opposed to an answer that makes no sense.
fn has_died(error: &hyper::Error) -> bool {
    error.is_incomplete_message() || error.is_closed() || error.is_canceled() || UpstreamError::is_io(error)
}

/// Says how a body of unknown length is framed. hyper would leave the body of a GET or HEAD away without a word.
fn with_framing(mut request: Request<RequestBody>) -> Request<RequestBody> {
    let body = request.body();
    if !body.is_end_stream() && body.size_hint().exact().is_none() {
        request.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    request
}

/// What hyper lets pass in a response, but would come out at the client as something else.
fn check_head(response: &Response<UpstreamBody>) -> Result<(), UpstreamError> {
    if response.status().is_informational() {
        return Err(UpstreamError::UnfitResponse("101 although no upgrade was asked for"));
    }
    let headers = response.headers();
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => {
            let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
            if lengths.next().is_some() && lengths.next().is_some() {
                return Err(UpstreamError::UnfitResponse("more than one Content-Length"));
            }
            Ok(())
        }
        // RFC 9112 section 6.3: a sign of response splitting.
        (Some(_), _) if headers.contains_key(CONTENT_LENGTH) => {
            Err(UpstreamError::UnfitResponse("both Content-Length and Transfer-Encoding"))
        }
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        (Some(_), _) => Err(UpstreamError::UnfitResponse("a Transfer-Encoding other than chunked")),
    }
}

/// HTTP/2 names scheme and authority in pseudo-headers (RFC 9113 section 8.3.1), which hyper takes from the URI.
fn to_http2(mut request: Request<RequestBody>, endpoint: &Endpoint) -> Request<RequestBody> {
    request.headers_mut().remove(TRANSFER_ENCODING);
    let host = request.headers_mut().remove(http::header::HOST);
    let authority = host.as_ref().unwrap_or(&endpoint.authority).as_bytes().to_owned();
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme =
        Some(if endpoint.tls.is_some() { http::uri::Scheme::HTTPS } else { http::uri::Scheme::HTTP });
    parts.authority = http::uri::Authority::from_maybe_shared(authority).ok();
    if let Ok(uri) = http::Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    *request.version_mut() = http::Version::HTTP_2;
    request
}

/// Undoes [`to_http2`] for a request that an HTTP/2 connection gave back unsent.
fn to_http1(mut request: Request<RequestBody>) -> Request<RequestBody> {
    if let Some(authority) = request.uri().authority().map(|authority| authority.as_str().to_owned()) {
        if let Ok(host) = http::HeaderValue::from_str(&authority) {
            request.headers_mut().insert(http::header::HOST, host);
        }
        let target = request.uri().path_and_query().cloned();
        *request.uri_mut() = target.map(http::Uri::from).unwrap_or_default();
    }
    *request.version_mut() = http::Version::HTTP_11;
    with_framing(request)
}
