//! The first step: a request that every server on the way must read alike, or a refusal.
//!
//! Framing is settled before (HTTP/1.1 by the guard in front of hyper, HTTP/2 by its frames); here it is target,
//! host and the headers whose meaning must be single. What only the gateway may say is removed by [`super::forward`],
//! which works from [`CleanRequest`] alone.

use http::header::{AUTHORIZATION, CONTENT_LENGTH, COOKIE, EXPECT, HOST};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version};
use http_body::Body;

use super::core::RequestLimits;
use super::extended_connect;
use crate::catalogue::Reason;
use crate::rejection::Rejection;
use crate::upstream::ClientBody;

/// A request with one reading: one host, a target in origin-form, no method or expectation that is not carried. Its
/// body is not looked at.
#[derive(Debug)]
pub struct CleanRequest<B = ClientBody> {
    /// Boxed, since it is large and goes from step to step.
    request: Box<Request<B>>,
    authority: HeaderValue,
    host: Box<str>,
}

impl<B> CleanRequest<B> {
    /// Checks a request, or says why it is refused.
    pub fn sanitize(mut request: Box<Request<B>>, limits: RequestLimits) -> Result<Self, Rejection> {
        extended_connect::read(&mut request)?;
        check_method(request.method())?;
        if request.uri().path_and_query().is_some_and(|target| target.as_str().len() > limits.uri) {
            return Err(Reason::UriTooLong.into());
        }
        check_headers(request.headers(), limits.header_count)?;
        check_target(request.uri())?;
        check_expectation(request.headers())?;
        let authority = authority(&request)?;
        let host = host_of(&authority)?;
        Ok(Self { request, authority, host })
    }

    /// The path as it came, without the query.
    pub fn path(&self) -> &str {
        self.request.uri().path()
    }

    /// Path and query as they came.
    pub fn target(&self) -> &str {
        self.request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str)
    }

    /// The host in lower case, without port.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The host as the client wrote it, with port.
    pub fn authority(&self) -> &HeaderValue {
        &self.authority
    }

    /// The method.
    pub fn method(&self) -> &Method {
        self.request.method()
    }

    /// The headers as they came.
    pub fn headers(&self) -> &HeaderMap {
        self.request.headers()
    }

    /// Whether it asks for a WebSocket in the form of HTTP/2.
    pub fn is_extended_connect(&self) -> bool {
        extended_connect::is_extended(&self.request)
    }

    /// The request without what could say who sends it.
    #[must_use]
    pub fn without_credentials(mut self) -> Self {
        self.request.headers_mut().remove(AUTHORIZATION);
        self.request.headers_mut().remove(COOKIE);
        self
    }

    /// Takes the request apart for forwarding: head, authority, body.
    pub fn into_parts(self) -> (Parts, HeaderValue, B) {
        let (parts, body) = self.request.into_parts();
        (parts, self.authority, body)
    }
}

impl<B: Body> CleanRequest<B> {
    /// Whether a body follows.
    pub fn has_body(&self) -> bool {
        !self.request.body().is_end_stream()
    }
}

fn check_method(method: &Method) -> Result<(), Rejection> {
    // A tunnel would carry what nobody has authorized; TRACE would show the client what the gateway added.
    if matches!(*method, Method::CONNECT | Method::TRACE) {
        return Err(Reason::MethodNotSupported.into());
    }
    Ok(())
}

/// What the guard has already seen to on HTTP/1.1, and nobody on HTTP/2.
fn check_headers(headers: &HeaderMap, most: usize) -> Result<(), Rejection> {
    // HTTP/2 may split one Cookie header into many (RFC 9113 section 8.2.3).
    let crumbs = headers.get_all(COOKIE).iter().count();
    if headers.len() - crumbs.saturating_sub(1) > most {
        return Err(Reason::HeadersTooLarge.into());
    }
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let length = lengths.next().map(HeaderValue::as_bytes);
    let is_plain = |digits: &[u8]| !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    if lengths.next().is_some() || !length.is_none_or(is_plain) {
        return Err(Rejection::new(Reason::AmbiguousFraming)
            .hint("The request's Content-Length is not one plain decimal number."));
    }
    Ok(())
}

fn check_target(uri: &Uri) -> Result<(), Rejection> {
    let Some(target) = uri.path_and_query() else {
        return Err(Rejection::new(Reason::IllegalTarget).hint("The request target has no path."));
    };
    // `OPTIONS *` is about the server as a whole; no route is.
    if target.as_str() == "*" {
        return Err(Reason::NoRoute.into());
    }
    if target.as_str().bytes().any(|byte| byte <= b' ' || byte >= 0x7f || byte == b'#') {
        return Err(Rejection::new(Reason::IllegalTarget)
            .hint("The request target contains a character that must be percent-encoded."));
    }
    Ok(())
}

/// RFC 9110 section 10.1.1. `100-continue` itself is answered by hyper when the body is first asked for.
fn check_expectation(headers: &HeaderMap) -> Result<(), Rejection> {
    let known = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if headers.get_all(EXPECT).iter().all(known) { Ok(()) } else { Err(Reason::ExpectationUnknown.into()) }
}

/// The one authority of the request: from `Host`, from the target (absolute-form or `:authority`), or from both if
/// they agree to the byte but for case (RFC 9112 section 3.2, RFC 9113 section 8.3.1).
fn authority<B>(request: &Request<B>) -> Result<HeaderValue, Rejection> {
    let refuse = |hint: &'static str| Rejection::new(Reason::IllegalTarget).hint(hint);
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(refuse("There is more than one Host header."));
    }
    let target = request.uri().authority().map(http::uri::Authority::as_str);
    match (host, target) {
        (None, None) => Err(refuse("The request names no host.")),
        (Some(host), None) if request.version() < Version::HTTP_2 => Ok(host.clone()),
        (Some(host), None) => Ok(host.clone()),
        (None, Some(target)) => {
            HeaderValue::from_str(target).map_err(|_| refuse("The request's authority is not a host."))
        }
        (Some(host), Some(target)) => {
            if host.as_bytes().eq_ignore_ascii_case(target.as_bytes()) {
                Ok(host.clone())
            } else {
                Err(refuse("The Host header and the request target name different hosts."))
            }
        }
    }
}

/// The host in lower case and without port, if the authority is one (RFC 3986 section 3.2.2) without user
/// information.
pub(super) fn host_of(authority: &HeaderValue) -> Result<Box<str>, Rejection> {
    let refuse = || {
        Rejection::new(Reason::IllegalTarget)
            .hint("The Host header is not a host name with an optional port.")
    };
    let text = authority.to_str().map_err(|_| refuse())?;
    let (name, port) = if let Some(rest) = text.strip_prefix('[') {
        let (address, after) = rest.split_once(']').ok_or_else(refuse)?;
        address.parse::<std::net::Ipv6Addr>().map_err(|_| refuse())?;
        (text.get(..address.len() + 2).ok_or_else(refuse)?, after)
    } else {
        let colon = text.bytes().position(|byte| byte == b':').unwrap_or(text.len());
        text.split_at_checked(colon).unwrap_or_default()
    };
    let port_is_good = match port.strip_prefix(':') {
        None => port.is_empty(),
        Some(digits) => {
            !digits.is_empty()
                && digits.bytes().all(|byte| byte.is_ascii_digit())
                && digits.parse::<u16>().is_ok()
        }
    };
    // The dot that DNS lets stand at the end makes no other host of it, so it must not make other rules apply.
    let name = name.strip_suffix('.').unwrap_or(name);
    let name_is_good = !name.is_empty()
        && !has_empty_label(name.as_bytes())
        && name.len() <= 255
        && (name.starts_with('[')
            || name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')));
    if port_is_good && name_is_good { Ok(name.to_ascii_lowercase().into()) } else { Err(refuse()) }
}

fn has_empty_label(name: &[u8]) -> bool {
    name.starts_with(b".") || name.ends_with(b".") || name.windows(2).any(|pair| pair == b"..")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::host_of;

    #[test]
    fn hosts_are_read_without_port_in_lower_case() {
        for (text, host) in [
            ("API.example.com", "api.example.com"),
            ("a:8443", "a"),
            ("127.0.0.1:80", "127.0.0.1"),
            ("[::1]:443", "[::1]"),
            ("[2001:DB8::1]", "[2001:db8::1]"),
            ("a_b.c", "a_b.c"),
            ("A.b.:80", "a.b"),
        ] {
            assert_eq!(&*host_of(&HeaderValue::from_static(text)).unwrap(), host);
        }
    }

    #[test]
    fn what_is_not_one_host_is_refused() {
        for text in [
            "",
            ":80",
            "a:",
            "a:b",
            "a:70000",
            "a:+1",
            "u@a",
            "a/b",
            "a b",
            "a,b",
            "a?b",
            "a#b",
            "[::1",
            "[x]",
            "::1",
            "[::1]x",
            "a:80:80",
            "a%41",
            ".",
            "a..",
            ".a",
            "a..b",
            "[::1%25eth0]",
        ] {
            assert!(host_of(&HeaderValue::from_static(text)).is_err(), "{text:?}");
        }
    }
}
