//! A request as another proxy describes it. What is missing, said twice or cannot be read refuses the request: a gap
//! would be filled by what the proxy's client says.

use std::net::IpAddr;

use http::header::{CONTENT_LENGTH, HOST, HeaderName, TRANSFER_ENCODING};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderValue, Method, Request, Uri};

use super::forwarded::Provenance;
use crate::catalogue::Reason;
use crate::rejection::Rejection;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
const X_ORIGINAL_METHOD: HeaderName = HeaderName::from_static("x-original-method");
const X_ORIGINAL_URI: HeaderName = HeaderName::from_static("x-original-uri");
const X_ORIGINAL_URL: HeaderName = HeaderName::from_static("x-original-url");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

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
    pub fn from_forwarded(headers: &HeaderMap) -> Result<Self, Rejection> {
        let line = Line {
            method: one(headers, &X_FORWARDED_METHOD)?,
            target: one(headers, &X_FORWARDED_URI)?,
            host: one(headers, &X_FORWARDED_HOST)?,
            scheme: one(headers, &X_FORWARDED_PROTO)?,
            client: nearest(one(headers, &X_FORWARDED_FOR)?),
        };
        Self::new(line, headers.clone())
    }

    /// From the headers that ingress-nginx sends, beside those of the request itself: `X-Original-URL` with scheme,
    /// host and target, `X-Original-Method` and `X-Real-IP`. It lets other descriptions of its client's pass, so
    /// those have to agree.
    pub fn from_original(headers: &HeaderMap) -> Result<Self, Rejection> {
        let (scheme, rest) =
            one(headers, &X_ORIGINAL_URL)?.split_once("://").ok_or_else(|| illegal("x-original-url"))?;
        let (host, target) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let line = Line {
            method: one(headers, &X_ORIGINAL_METHOD)?,
            target,
            host,
            scheme,
            client: one(headers, &X_REAL_IP)?,
        };
        for (name, said) in [
            (X_FORWARDED_METHOD, line.method),
            (X_FORWARDED_URI, line.target),
            (X_FORWARDED_HOST, line.host),
            (X_FORWARDED_PROTO, line.scheme),
            (X_ORIGINAL_URI, line.target),
        ] {
            if headers.get_all(&name).iter().any(|value| value.as_bytes() != said.as_bytes()) {
                return Err(Rejection::new(Reason::IllegalDescription)
                    .hint("The request carries a header that describes another one.")
                    .log(format!("{name} and what ingress-nginx says differ")));
            }
        }
        let mut headers_of_request = headers.clone();
        for name in [X_ORIGINAL_METHOD, X_ORIGINAL_URI, X_ORIGINAL_URL] {
            headers_of_request.remove(name);
        }
        Self::new(line, headers_of_request)
    }

    /// From the head that Envoy sends in the request's place: its method, its path behind a prefix, its headers.
    /// Envoy itself sets `X-Forwarded-Proto`, and the last address in `X-Forwarded-For`.
    pub fn from_head<B>(ask: &Request<B>, path_prefix: &str) -> Result<Self, Rejection> {
        let headers = ask.headers();
        let target = ask.uri().path_and_query().map_or("", PathAndQuery::as_str);
        let authority = ask.uri().authority().map(Authority::as_str);
        let line = Line {
            method: ask.method().as_str(),
            target: target.strip_prefix(path_prefix).ok_or_else(|| illegal("path, without its prefix,"))?,
            host: authority.map_or_else(|| one(headers, &HOST), Ok)?,
            scheme: one(headers, &X_FORWARDED_PROTO)?,
            client: nearest(one(headers, &X_FORWARDED_FOR)?),
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
    let parsed = text.parse::<PathAndQuery>().ok().filter(|parsed| parsed.as_str() == text);
    parsed.map(Uri::from).ok_or_else(|| Reason::IllegalTarget.into())
}

/// The last address of a list: the proxy's own word.
fn nearest(list: &str) -> &str {
    list.rsplit(',').next().unwrap_or_default().trim()
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
    use http::{HeaderMap, Request};

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
        Description::from_forwarded(&headers(&fields)).map_err(|rejection| rejection.reason())
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
            let missing = Description::from_forwarded(&headers(&fields)).unwrap_err();
            assert_eq!(missing.reason(), Reason::IllegalDescription, "{name}");
            fields.extend([(*name, *value), (*name, *value)]);
            let twice = Description::from_forwarded(&headers(&fields)).unwrap_err();
            assert_eq!(twice.reason(), Reason::IllegalDescription, "{name}");
        }
    }

    const OF_INGRESS: [(&str, &str); 4] = [
        ("x-original-url", "https://api.example.com:8443/orders?page=2"),
        ("x-original-method", "POST"),
        ("x-real-ip", "198.51.100.7"),
        ("host", "valgate"),
    ];

    #[test]
    fn what_ingress_nginx_says_is_the_request() {
        let Description { request, provenance } = Description::from_original(&headers(&OF_INGRESS)).unwrap();
        assert_eq!(request.method(), "POST");
        assert_eq!(request.uri(), "/orders?page=2");
        assert_eq!(request.headers()["host"], "api.example.com:8443");
        assert!(!request.headers().contains_key("x-original-url"));
        assert!(provenance.is_https);
        assert_eq!(provenance.client_address.ip().to_string(), "198.51.100.7");
        for index in 0..3 {
            let (left_out, repeated) = (headers(&OF_INGRESS), OF_INGRESS[index]);
            let mut without = left_out.clone();
            without.remove(repeated.0);
            assert!(Description::from_original(&without).is_err(), "{repeated:?}");
            let mut twice = left_out;
            twice.append(repeated.0, repeated.1.parse().unwrap());
            assert!(Description::from_original(&twice).is_err(), "{repeated:?}");
        }
        for url in ["", "/orders", "https://", "https://api.example.com", "ftp://api.example.com/"] {
            let mut odd = headers(&OF_INGRESS);
            odd.insert("x-original-url", url.parse().unwrap());
            assert!(Description::from_original(&odd).is_err(), "{url}");
        }
    }

    #[test]
    fn two_descriptions_agree_or_refuse() {
        for (name, same, other) in [
            ("x-forwarded-method", "POST", "GET"),
            ("x-forwarded-uri", "/orders?page=2", "/status"),
            ("x-forwarded-host", "api.example.com:8443", "api.example.com"),
            ("x-forwarded-proto", "https", "http"),
            ("x-original-uri", "/orders?page=2", "/orders"),
        ] {
            let mut both = headers(&OF_INGRESS);
            both.append(name, same.parse().unwrap());
            assert!(Description::from_original(&both).is_ok(), "{name}");
            both.append(name, other.parse().unwrap());
            let refused = Description::from_original(&both).unwrap_err();
            assert_eq!(refused.reason(), Reason::IllegalDescription, "{name}");
        }
    }

    #[test]
    fn the_head_that_envoy_sends_is_the_request() {
        let ask = |uri: &str, fields: &[(&'static str, &str)]| {
            let mut ask = Request::new(());
            *ask.uri_mut() = uri.parse().unwrap();
            *ask.headers_mut() = headers(fields);
            ask
        };
        let told = [
            ("host", "api.example.com"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-for", "::1, 198.51.100.7"),
        ];
        let described = Description::from_head(&ask("/check/orders?page=2", &told), "/check").unwrap();
        assert_eq!(described.request.uri(), "/orders?page=2");
        assert_eq!(described.request.headers()["host"], "api.example.com");
        assert_eq!(described.provenance.client_address.ip().to_string(), "198.51.100.7");
        let by_http2 = Description::from_head(&ask("http://a.example/orders", &told[1..]), "").unwrap();
        assert_eq!(by_http2.request.headers()["host"], "a.example");
        for uri in ["/orders", "/check", "/checkorders", "/CHECK/orders"] {
            assert!(Description::from_head(&ask(uri, &told), "/check").is_err(), "{uri}");
        }
        for index in 0..told.len() {
            let mut part = told.to_vec();
            part.remove(index);
            assert!(Description::from_head(&ask("/orders", &part), "").is_err(), "{index}");
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
