//! Trailers (RFC 9110 section 6.5): fields that follow a body, long after the head was judged. Of a request only those
//! pass that the head announced, and of them none that could change what the judged head means. Of a response all pass
//! but those that its head could not have said either.

use http::header::{HeaderName, TRAILER};
use http::{HeaderMap, HeaderValue};

use super::identity::IdentityHeader;
use super::reserved::{ReservedNames, is_hop_by_hop, listed_in_connection};

/// The most fields of a request that are let through.
const MOST: usize = 16;

/// By these a request is framed, routed, authenticated, conditioned or read (RFC 9110 section 6.5.1).
const NEVER_OF_REQUESTS: [&str; 28] = [
    "accept",
    "age",
    "authorization",
    "cache-control",
    "content-encoding",
    "content-length",
    "content-location",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "expect",
    "expires",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "location",
    "max-forwards",
    "origin",
    "pragma",
    "range",
    "referer",
    "set-cookie",
    // Set by the gateway, or checked with the head.
    "traceparent",
    "tracestate",
];

/// By these a response is framed, cached, read or shared with others, or they are what the gateway itself says.
const NEVER_OF_RESPONSES: [&str; 17] = [
    "age",
    "cache-control",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "date",
    "expires",
    "host",
    "location",
    "retry-after",
    "set-cookie",
    "strict-transport-security",
    "token-expires-in",
    "vary",
    "www-authenticate",
    "x-request-id",
];

/// The names of the fields that may follow the body of a request with these headers.
pub fn passing(headers: &HeaderMap, reserved: &ReservedNames) -> Vec<HeaderName> {
    if !headers.contains_key(TRAILER) {
        return Vec::new();
    }
    let listed = listed_in_connection(headers);
    let mut names: Vec<HeaderName> = Vec::new();
    for name in announced(headers) {
        // An unusual spelling may be read as another name behind us.
        let is_usual = name.as_str().bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        let may_pass = is_usual
            && !reserved.has(&name)
            && !listed.contains(&name)
            && !NEVER_OF_REQUESTS.contains(&name.as_str());
        if may_pass && names.len() < MOST && !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// Tells the API which fields follow the body (RFC 9110 section 6.6.2).
pub fn announce(names: &[HeaderName], headers: &mut HeaderMap) {
    for name in names {
        headers.append(TRAILER, HeaderValue::from(name.clone()));
    }
}

fn announced(headers: &HeaderMap) -> impl Iterator<Item = HeaderName> {
    let values = headers.get_all(TRAILER).iter().filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
}

/// What may not follow the body of one response, besides what may follow none.
#[derive(Debug, Default)]
pub struct Withheld {
    /// What the API's `Connection` header named.
    listed: Vec<HeaderName>,
}

impl Withheld {
    /// From what the head's `Connection` header named; has the head announce no more than will follow.
    pub fn of_response(
        listed: Vec<HeaderName>,
        headers: &mut HeaderMap,
        identity: &[IdentityHeader],
    ) -> Self {
        let withheld = Self { listed };
        if announced(headers).any(|name| withheld.has(&name, identity)) {
            let left: Vec<_> = announced(headers).filter(|name| !withheld.has(name, identity)).collect();
            headers.remove(TRAILER);
            announce(&left, headers);
        }
        withheld
    }

    /// Removes what may not follow the body of a response on a route with these identity headers.
    pub fn strip(&self, trailers: &mut HeaderMap, identity: &[IdentityHeader]) {
        // In nearly all of them there is nothing to remove.
        while let Some(name) = trailers.keys().find(|name| self.has(name, identity)).cloned() {
            trailers.remove(name);
        }
    }

    fn has(&self, name: &HeaderName, identity: &[IdentityHeader]) -> bool {
        is_hop_by_hop(name)
            || NEVER_OF_RESPONSES.contains(&name.as_str())
            || name.as_str().starts_with("access-control-")
            || self.listed.contains(name)
            || identity.iter().any(|identity| identity.header == name)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use http::header::{HeaderName, TRAILER};

    use super::{ReservedNames, Withheld, passing};

    #[test]
    fn announced_fields_pass_unless_they_could_change_the_head() {
        let reserved = ReservedNames::new([&HeaderName::from_static("x-auth-subject")]);
        let mut headers = HeaderMap::new();
        for value in [
            "X-Checksum, authorization",
            "x-auth-subject,X-Forwarded-For , Content-Length",
            "x_sum, x-checksum",
            "traceparent, X-Http-Method-Override, X-Original-URL, cookie, connection, x-private",
        ] {
            headers.append(TRAILER, value.parse().unwrap());
        }
        headers.insert("connection", "TE, X-Private".parse().unwrap());
        assert_eq!(passing(&headers, &reserved), [HeaderName::from_static("x-checksum")]);
    }

    #[test]
    fn what_the_gateway_itself_says_of_a_response_does_not_follow_it() {
        let mut trailers = HeaderMap::new();
        for name in
            ["token-expires-in", "access-control-allow-methods", "x-request-id", "grpc-status", "x-sum"]
        {
            trailers.insert(name, "1".parse().unwrap());
        }
        Withheld::default().strip(&mut trailers, &[]);
        let mut left: Vec<_> = trailers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["grpc-status", "x-sum"]);
    }
}
