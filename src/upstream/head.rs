//! Heads of requests and responses at the border to hyper: what it would frame, take or let pass otherwise than meant.

use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{HeaderValue, Method, Request, Response};
use http_body::Body;

use super::body::RequestBody;
use super::error::UpstreamError;
use super::settings::Endpoint;

/// A request on its way through the attempts. Boxed, since it is large and goes from step to step.
pub(super) type Sending = Box<Request<RequestBody>>;

/// The same request for one more attempt. Its body must be repeatable still when that begins.
pub(super) fn again(request: &Request<RequestBody>) -> Sending {
    let mut copy = Box::new(Request::new(request.body().again()));
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    copy.headers_mut().clone_from(request.headers());
    copy
}

/// Whether doing it twice is as good as doing it once (RFC 9110 section 9.2.2). Where that is so, a request may be
/// sent again although the first may have been processed.
pub(super) fn is_idempotent(method: &Method) -> bool {
    method.is_safe() || *method == Method::PUT || *method == Method::DELETE
}

/// Says how a body of unknown length is framed. hyper would leave the body of a GET or HEAD away without a word.
pub(super) fn with_framing(mut request: Sending) -> Sending {
    let body = request.body();
    if !body.is_end_stream() && body.size_hint().exact().is_none() {
        // Where fields follow the body, its length has to give way.
        request.headers_mut().remove(CONTENT_LENGTH);
        request.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    request
}

/// What hyper lets pass in a response, but would come out at the client as something else.
pub(super) fn check<B>(response: &Response<B>) -> Result<(), UpstreamError> {
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
pub(super) fn to_http2(mut request: Sending, endpoint: &Endpoint) -> Sending {
    request.headers_mut().remove(TRANSFER_ENCODING);
    let host = request.headers_mut().remove(HOST);
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
pub(super) fn to_http1(mut request: Sending) -> Sending {
    if let Some(authority) = request.uri().authority().map(|authority| authority.as_str().to_owned()) {
        if let Ok(host) = HeaderValue::from_str(&authority) {
            request.headers_mut().insert(HOST, host);
        }
        let target = request.uri().path_and_query().cloned();
        *request.uri_mut() = target.map(http::Uri::from).unwrap_or_default();
    }
    *request.version_mut() = http::Version::HTTP_11;
    with_framing(request)
}
