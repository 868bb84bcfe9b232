//! A request as another proxy describes it. What is missing, said twice or cannot be read refuses the request: a gap
//! would be filled by what the proxy's client says.

use std::net::IpAddr;

use http::header::{CONTENT_LENGTH, HOST, HeaderName, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, Request, Uri};

use super::forwarded::Provenance;
use crate::catalogue::Reason;
use crate::rejection::Rejection;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");

/// A request that was described, and where it comes from.
#[derive(Debug)]
pub struct Description {
    /// Its head.
    pub request: Request<()>,
    /// Its client.
    pub provenance: Provenance,
}

/// The parts of a description that are not headers.
#[derive(Clone, Copy, Debug)]
pub struct Line<'d> {
    /// The method.
    pub method: &'d str,
    /// Path and query.
    pub target: &'d str,
    /// The host, with port if it was named.
    pub host: &'d str,
    /// `https` or `http`, or what a WebSocket says in their place.
    pub scheme: &'d str,
    /// The client's address.
    pub client: &'d str,
}

impl Description {
    /// From the headers that Traefik and Caddy send, beside those of the request itself.
    pub fn from_headers(headers: &HeaderMap) -> Result<Self, Rejection> {
        let line = Line {
            method: one(headers, &X_FORWARDED_METHOD)?,
            target: one(headers, &X_FORWARDED_URI)?,
            host: one(headers, &X_FORWARDED_HOST)?,
            scheme: one(headers, &X_FORWARDED_PROTO)?,
            // The last is the proxy's own word.
            client: one(headers, &X_FORWARDED_FOR)?.rsplit(',').next().unwrap_or_default().trim(),
        };
        Self::new(line, headers.clone())
    }

    /// From its parts. Headers about the connection that the question came on are left out.
    pub fn new(line: Line<'_>, mut headers: HeaderMap) -> Result<Self, Rejection> {
        let method = Method::from_bytes(line.method.as_bytes()).map_err(|_| illegal("method"))?;
        let is_https = match line.scheme {
            "https" | "wss" => true,
            "http" | "ws" => false,
            _ => return Err(illegal("scheme")),
        };
        let client: IpAddr = line.client.parse().map_err(|_| illegal("client address"))?;
        let host = HeaderValue::from_str(line.host).map_err(|_| illegal("host"))?;
        for name in [CONTENT_LENGTH, TRANSFER_ENCODING] {
            headers.remove(name);
        }
        headers.insert(HOST, host);
        let mut request = Request::new(());
        *request.method_mut() = method;
        *request.uri_mut() = target(line.target)?;
        *request.headers_mut() = headers;
        Ok(Self { request, provenance: Provenance::told(client, is_https) })
    }
}

/// Path and query. A `Uri` would quietly leave a fragment out, and with it a part of what the proxy forwards.
fn target(text: &str) -> Result<Uri, Rejection> {
    let is_plain = text.bytes().all(|byte| byte > b' ' && byte < 0x7f && byte != b'#');
    if !text.starts_with('/') || !is_plain {
        return Err(Rejection::new(Reason::IllegalTarget)
            .hint("The request target is no path, or contains a character that must be percent-encoded."));
    }
    let parsed = text.parse::<http::uri::PathAndQuery>().ok().filter(|parsed| parsed.as_str() == text);
    parsed.map(Uri::from).ok_or_else(|| Reason::IllegalTarget.into())
}

/// The one value of a header.
fn one<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<&'h str, Rejection> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().map_err(|_| illegal(name.as_str())),
        (Some(_), Some(_)) => {
            Err(Rejection::new(Reason::IllegalDescription).log(format!("there is more than one {name}")))
        }
        (None, _) => Err(Rejection::new(Reason::IllegalDescription).log(format!("there is no {name}"))),
    }
}

fn illegal(what: &str) -> Rejection {
    Rejection::new(Reason::IllegalDescription).log(format!("the {what} cannot be read"))
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::Description;
    use crate::catalogue::Reason;

    const WHOLE: [(&str, &str); 6] = [
        ("x-forwarded-method", "POST"),
        ("x-forwarded-uri", "/orders?page=2"),
        ("x-forwarded-host", "api.example.com:8443"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-for", "203.0.113.9, 198.51.100.7"),
        ("host", "valgate"),
    ];

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn with(name: &str, value: &str) -> Result<Description, Reason> {
        let fields = WHOLE.map(|(field, old)| (field, if field == name { value } else { old }));
        Description::from_headers(&headers(&fields)).map_err(|rejection| rejection.reason())
    }

    #[test]
    fn a_whole_description_is_the_request_that_it_describes() {
        let Description { request, provenance } = with("host", "valgate").unwrap();
        assert_eq!(request.method(), "POST");
        assert_eq!(request.uri(), "/orders?page=2");
        assert_eq!(request.headers()["host"], "api.example.com:8443");
        assert!(provenance.is_https);
        assert_eq!(provenance.client_address.ip().to_string(), "198.51.100.7");
        assert!(!with("x-forwarded-proto", "ws").unwrap().provenance.is_https);
    }

    #[test]
    fn gaps_and_repetitions_refuse() {
        for (index, (name, value)) in WHOLE.iter().enumerate().take(5) {
            let mut fields = WHOLE.to_vec();
            fields.remove(index);
            let missing = Description::from_headers(&headers(&fields)).unwrap_err();
            assert_eq!(missing.reason(), Reason::IllegalDescription, "{name}");
            fields.extend([(*name, *value), (*name, *value)]);
            let twice = Description::from_headers(&headers(&fields)).unwrap_err();
            assert_eq!(twice.reason(), Reason::IllegalDescription, "{name}");
        }
    }

    #[test]
    fn what_cannot_be_read_refuses() {
        for (name, value) in [
            ("x-forwarded-method", "GE T"),
            ("x-forwarded-proto", "ftp"),
            ("x-forwarded-for", "unknown"),
            ("x-forwarded-for", ""),
        ] {
            assert_eq!(with(name, value).unwrap_err(), Reason::IllegalDescription, "{name}: {value}");
        }
        for target in ["", "*", "orders", "http://other/orders", "/a#/../b", "/a b", "/a\u{e9}"] {
            assert!(with("x-forwarded-uri", target).is_err(), "{target}");
        }
    }
}
