//! Request trailers (RFC 9110 section 6.5): fields that follow the body, long after the head was judged. Only those
//! pass that the head announced, and of them none that could change what the judged head means.

use http::header::{HeaderName, TRAILER};
use http::{HeaderMap, HeaderValue};

use super::reserved::ReservedNames;

/// The most fields that are let through.
const MOST: usize = 16;

/// By these a message is framed, routed, authenticated, conditioned or read (RFC 9110 section 6.5.1).
const NEVER: [&str; 26] = [
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
];

/// The names of the fields that may follow the body of a request with these headers.
pub fn passing(headers: &HeaderMap, reserved: &ReservedNames) -> Vec<HeaderName> {
    let mut names: Vec<HeaderName> = Vec::new();
    let announced = headers.get_all(TRAILER).iter().filter_map(|value| value.to_str().ok());
    for name in announced.flat_map(|value| value.split(',')) {
        let Ok(name) = HeaderName::from_bytes(name.trim().as_bytes()) else { continue };
        // An unusual spelling may be read as another name behind us.
        let is_usual = name.as_str().bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        let may_pass = is_usual && !reserved.has(&name) && !NEVER.contains(&name.as_str());
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

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use http::header::{HeaderName, TRAILER};

    use super::{ReservedNames, passing};

    #[test]
    fn announced_fields_pass_unless_they_could_change_the_head() {
        let reserved = ReservedNames::new([&HeaderName::from_static("x-auth-subject")]);
        let mut headers = HeaderMap::new();
        for value in [
            "X-Checksum, authorization",
            "x-auth-subject,X-Forwarded-For , Content-Length",
            "x_sum, x-checksum",
        ] {
            headers.append(TRAILER, value.parse().unwrap());
        }
        assert_eq!(passing(&headers, &reserved), [HeaderName::from_static("x-checksum")]);
    }
}
