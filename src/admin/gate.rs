//! Who may ask: whoever reaches the private door, by its place (loopback, a Unix socket), and shows what the
//! configuration demands (a token; a client certificate is TLS's business).
//!
//! A web page that the operator has open reaches loopback too, so requests that a browser makes for a page are refused,
//! and those to a name that is not this host's own (DNS rebinding).

use std::net::IpAddr;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{Digest, SHA256, digest};
use http::header::{AUTHORIZATION, HOST, HeaderValue, ORIGIN, WWW_AUTHENTICATE};
use http::{HeaderMap, StatusCode};

use super::answer::{Answer, problem};

/// The demands on every request.
#[derive(Clone, Debug)]
pub struct Gate {
    token: Option<Digest>,
    only_local_names: bool,
}

impl Gate {
    /// `token` is what requests must carry as `Authorization: Bearer`, if there is one; `only_local_names` that they
    /// must address an IP address or `localhost`, as on a loopback address without further proof.
    pub fn new(token: Option<&HeaderValue>, only_local_names: bool) -> Self {
        Self { token: token.map(|token| digest(&SHA256, token.as_bytes())), only_local_names }
    }

    /// Whether whoever passes has shown the token.
    pub fn demands_token(&self) -> bool {
        self.token.is_some()
    }

    /// The refusal of a request that may not pass.
    pub fn refusal(&self, headers: &HeaderMap) -> Option<Answer> {
        if comes_from_a_page(headers) {
            return Some(problem(StatusCode::FORBIDDEN, "Requests of web pages are not answered here."));
        }
        if self.only_local_names && !is_local(headers) {
            let detail = "Address this listener as localhost or by its IP address.";
            return Some(problem(StatusCode::FORBIDDEN, detail));
        }
        match &self.token {
            Some(token) if !carries(headers, token) => Some(unauthorized()),
            _ => None,
        }
    }
}

/// Browsers say so on what pages send (Fetch Metadata), and older ones on what could change anything.
fn comes_from_a_page(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    headers.contains_key(ORIGIN) || site.is_some_and(|site| site != b"none")
}

fn is_local(headers: &HeaderMap) -> bool {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let authority = host.and_then(|host| host.parse::<http::uri::Authority>().ok());
    authority.is_some_and(|authority| {
        let name = authority.host();
        let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
        name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
    })
}

/// Compares digests, in constant time: neither length nor content of the token shows in how long it takes.
fn carries(headers: &HeaderMap, token: &Digest) -> bool {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    let Some((scheme, given)) = value.as_bytes().split_at_checked("Bearer ".len()) else { return false };
    let given = digest(&SHA256, given);
    scheme.eq_ignore_ascii_case(b"Bearer ") && verify_slices_are_equal(given.as_ref(), token.as_ref()).is_ok()
}

fn unauthorized() -> Answer {
    let detail = "Send the token of admin.token as 'Authorization: Bearer'.";
    let mut answer = problem(StatusCode::UNAUTHORIZED, detail);
    answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"valgate admin\""));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn status(gate: &Gate, lines: &[(&'static str, &'static str)]) -> StatusCode {
        gate.refusal(&headers(lines)).map_or(StatusCode::OK, |answer| answer.status())
    }

    #[test]
    fn a_token_is_demanded_whole_and_once() {
        let gate = Gate::new(Some(&HeaderValue::from_static("s3cret-s3cret-s3cret")), false);
        assert_eq!(status(&gate, &[("authorization", "Bearer s3cret-s3cret-s3cret")]), StatusCode::OK);
        assert_eq!(status(&gate, &[("authorization", "bearer s3cret-s3cret-s3cret")]), StatusCode::OK);
        for wrong in ["Bearer s3cret-s3cret-s3cre", "Bearer ", "s3cret-s3cret-s3cret", "Basic x", ""] {
            assert_eq!(status(&gate, &[("authorization", wrong)]), StatusCode::UNAUTHORIZED, "{wrong}");
        }
        assert_eq!(status(&gate, &[]), StatusCode::UNAUTHORIZED);
        let twice = [("authorization", "Bearer s3cret-s3cret-s3cret"); 2];
        assert_eq!(status(&gate, &twice), StatusCode::UNAUTHORIZED);
        assert!(!format!("{gate:?}").contains("s3cret"));
    }

    #[test]
    fn web_pages_and_foreign_names_are_kept_out() {
        let gate = Gate::new(None, true);
        for good in ["localhost:9191", "127.0.0.1:9191", "[::1]:9191", "127.0.0.1"] {
            assert_eq!(status(&gate, &[("host", good)]), StatusCode::OK, "{good}");
        }
        for bad in ["rebound.example.com:9191", "127.0.0.1.example.com", ""] {
            assert_eq!(status(&gate, &[("host", bad)]), StatusCode::FORBIDDEN, "{bad}");
        }
        let page = [("host", "localhost"), ("origin", "https://example.com")];
        assert_eq!(status(&gate, &page), StatusCode::FORBIDDEN);
        assert_eq!(
            status(&gate, &[("host", "localhost"), ("sec-fetch-site", "cross-site")]),
            StatusCode::FORBIDDEN
        );
        assert_eq!(status(&gate, &[("host", "localhost"), ("sec-fetch-site", "none")]), StatusCode::OK);
    }
}
