//! Names that HTTP gives a syntax or a meaning: headers, cookies, methods, scopes, hosts.

use http::{HeaderName, Method};

/// Headers that carry the message or its routing, or that the gateway sets itself. An identity in one of them
/// would break the one or the other.
const TAKEN_HEADERS: [&str; 27] = [
    "accept-encoding",
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "date",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "set-cookie",
    "te",
    "trailer",
    "traceparent",
    "tracestate",
    "transfer-encoding",
    "upgrade",
    "via",
    "www-authenticate",
    "x-real-ip",
    "x-request-id",
];

/// Why a header cannot carry an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeaderFault {
    /// Not a token (RFC 9110 section 5.1).
    Syntax,
    /// With `_`, which many servers read as `-`.
    Underscore,
    /// It has another meaning.
    Taken,
}

/// A header that tells the API who calls.
pub(super) fn identity_header(name: &str) -> Result<HeaderName, HeaderFault> {
    let header = header(name).ok_or(HeaderFault::Syntax)?;
    if header.as_str().contains('_') {
        return Err(HeaderFault::Underscore);
    }
    if TAKEN_HEADERS.contains(&header.as_str()) || header.as_str().starts_with("x-forwarded-") {
        return Err(HeaderFault::Taken);
    }
    Ok(header)
}

/// A header's name (RFC 9110 section 5.1).
pub(super) fn header(name: &str) -> Option<HeaderName> {
    HeaderName::from_bytes(name.as_bytes()).ok()
}

/// Whether `name` is a cookie's name: a token (RFC 6265 section 4.1.1).
pub(super) fn is_cookie_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(is_token_byte)
}

/// Whether `scope` is one scope (RFC 6749 section 3.3).
pub(super) fn is_scope(scope: &str) -> bool {
    !scope.is_empty() && scope.bytes().all(|b| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e))
}

/// A method that can be forwarded; methods are case-sensitive and all registered ones are in capitals.
pub(super) fn method(name: &str) -> Result<Method, &'static str> {
    if matches!(name.to_ascii_uppercase().as_str(), "CONNECT" | "TRACE") {
        return Err("the gateway does not carry CONNECT and TRACE: remove it");
    }
    let well_formed = !name.is_empty() && name.bytes().all(|b| is_token_byte(b) && !b.is_ascii_lowercase());
    Method::from_bytes(name.as_bytes())
        .ok()
        .filter(|_| well_formed)
        .ok_or("methods are words in capitals: `GET`, `POST`, `PUT`, `PATCH`, `DELETE`, `OPTIONS`")
}

/// Whether `host` is a host name or an IPv4 address, in lower case and without port.
pub(super) fn is_host(host: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    host.len() <= 253 && host.split('.').all(label)
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::{HeaderFault, identity_header, is_cookie_name, is_host, is_scope, method};

    #[test]
    fn identity_headers() {
        assert!(identity_header("X-Auth-Subject").is_ok());
        for (name, fault) in [
            ("Authorization", HeaderFault::Taken),
            ("x-forwarded-user", HeaderFault::Taken),
            ("Transfer-Encoding", HeaderFault::Taken),
            ("X_Auth", HeaderFault::Underscore),
            ("X Auth", HeaderFault::Syntax),
            ("", HeaderFault::Syntax),
        ] {
            assert_eq!(identity_header(name), Err(fault), "{name}");
        }
    }

    #[test]
    fn words_of_the_standards() {
        assert!(is_scope("orders:read") && is_scope("https://x/y") && is_scope("!#[]~"));
        assert!(
            !is_scope("") && !is_scope("a b") && !is_scope("a\"b") && !is_scope("a\\b") && !is_scope("ä")
        );
        assert!(is_cookie_name("__Host-session") && !is_cookie_name("a b") && !is_cookie_name("a=b"));
        assert!(method("GET").is_ok() && method("PROPFIND").is_ok() && method("M-SEARCH").is_ok());
        assert!(
            method("get").is_err()
                && method("TRACE").is_err()
                && method("G T").is_err()
                && method("").is_err()
        );
        assert!(is_host("api.example.com") && is_host("localhost") && is_host("10.0.0.1"));
        assert!(!is_host("api.example.com:8443") && !is_host("a..b") && !is_host("") && !is_host("-a.b"));
    }
}
