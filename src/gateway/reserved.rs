//! The header names that no client may send to the API: what the gateway itself says there, and what could change
//! how the API reads the request.
//!
//! Names are compared as a CGI-like server would see them: without case, and with every character that is not a
//! letter or digit as one and the same. `X_Auth_Subject` and `x-auth.subject` are spellings of `X-Auth-Subject`.

use std::collections::HashSet;

use http::HeaderMap;
use http::header::{HeaderName, TRAILER};

use super::identity::IdentityHeader;

/// Names that are removed from every request on every route unless a route lets them pass.
const ALWAYS: [&str; 46] = [
    // Said by the gateway.
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-path",
    "x-forwarded-proto",
    "x-forwarded-protocol",
    "x-forwarded-scheme",
    "x-forwarded-server",
    "x-forwarded-ssl",
    "x-forwarded-uri",
    "x-forwarded-method",
    "x-forwarded-client-cert",
    "x-forwarded-user",
    "x-forwarded-email",
    "x-real-ip",
    "x-client-ip",
    "true-client-ip",
    "cf-connecting-ip",
    "front-end-https",
    "client-cert",
    "client-cert-chain",
    "x-client-cert",
    "x-client-certificate",
    "x-ssl-cert",
    "x-ssl-client-cert",
    "x-ssl-client-verify",
    "x-ssl-client-dn",
    "x-ssl-client-s-dn",
    "ssl-client-cert",
    "ssl-client-verify",
    "x-forwarded-tls-client-cert",
    "x-forwarded-tls-client-cert-info",
    "x-arr-clientcert",
    "x-amzn-mtls-clientcert",
    "x-request-id",
    // They change what a request means behind the rules that judged it.
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
    "x-original-url",
    "x-original-uri",
    "x-rewrite-url",
    "x-original-method",
    "x-envoy-original-path",
    // RFC 3875 turns it into HTTP_PROXY (CVE-2016-5385).
    "proxy",
];

/// RFC 9110 section 7.6.1 and its older kin: about one connection, never forwarded.
const HOP_BY_HOP: [&str; 10] = [
    "connection",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Of the names above, those that a proxy may well say itself when it asks for a decision.
const OF_PROXIES: [&str; 12] = [
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-method",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-proto",
    "x-forwarded-scheme",
    "x-forwarded-server",
    "x-forwarded-uri",
    "x-real-ip",
    "x-request-id",
];

/// The set of reserved names of one configuration.
#[derive(Debug)]
pub struct ReservedNames {
    /// In the folded form of [`fold`].
    folded: HashSet<Box<[u8]>>,
    /// The same names in canonical spelling, by length: the quick look compares a header with a few of them.
    canonical: Vec<Vec<HeaderName>>,
}

impl ReservedNames {
    /// The names that are always reserved and the identity headers of all routes.
    pub fn new<'n>(identity_headers: impl IntoIterator<Item = &'n HeaderName>) -> Self {
        let identity: Vec<HeaderName> = identity_headers.into_iter().cloned().collect();
        let fixed = ALWAYS.iter().chain(&HOP_BY_HOP).map(|name| HeaderName::from_static(name));
        let canonical: HashSet<HeaderName> = identity.into_iter().chain(fixed).collect();
        let framing = ["host", "content-length", "authorization", "cookie", "content-type"];
        let folded = canonical.iter().map(|name| fold(name.as_str())).chain(framing.map(fold)).collect();
        Self { folded, canonical: by_length(canonical) }
    }

    /// Whether a header of this name is removed.
    pub fn has(&self, name: &HeaderName) -> bool {
        if self.canonical.get(name.as_str().len()).is_some_and(|names| names.contains(name)) {
            return true;
        }
        // Only an unusual spelling needs the slow comparison. `content_length` is an alias of a name that is not
        // reserved itself, and is removed all the same.
        let usual = name.as_str().bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        !usual && self.folded.contains(&fold(name.as_str()))
    }

    /// The headers that a client has no business sending and another proxy would pass on. What the route allows by
    /// name is not among them.
    pub fn sent_by_client<'h>(
        &self,
        headers: &'h HeaderMap,
        allowed: &[HeaderName],
    ) -> impl Iterator<Item = &'h HeaderName> {
        headers.keys().filter(move |name| {
            let is_of_proxy = OF_PROXIES.contains(&name.as_str()) || HOP_BY_HOP.contains(&name.as_str());
            self.has(name) && !is_of_proxy && !allowed.contains(name)
        })
    }

    /// Removes what is reserved, and what the `Connection` header names as being about this connection alone.
    /// What the route allows by name stays.
    pub fn strip(&self, headers: &mut HeaderMap, allowed: &[HeaderName]) {
        let listed = listed_in_connection(headers);
        let reserved: Vec<HeaderName> =
            headers.keys().filter(|name| self.has(name) && !allowed.contains(name)).cloned().collect();
        for name in listed.iter().chain(&reserved) {
            headers.remove(name);
        }
    }
}

/// Removes what concerns only the connection to the upstream from a response (RFC 9110 section 7.6.1), and what is
/// between the gateway and the API: an API that sends back what it was told would tell clients, and caches on the way, who
/// somebody is. Returns what the API's `Connection` header named: it may not come as a trailer either.
pub fn strip_response(headers: &mut HeaderMap, identity: &[IdentityHeader]) -> Vec<HeaderName> {
    for identity in identity {
        headers.remove(&identity.header);
    }
    let listed = listed_in_connection(headers);
    for name in &listed {
        headers.remove(name);
    }
    // hyper frames the response itself; of the trailers that it announces some are passed on.
    let is_removed = |name: &HeaderName| name != TRAILER && is_hop_by_hop(name);
    // In nearly every response there is nothing to remove.
    while let Some(name) = headers.keys().find(|name| is_removed(name)).cloned() {
        headers.remove(name);
    }
    listed
}

/// Whether a field of this name is about one connection.
pub fn is_hop_by_hop(name: &HeaderName) -> bool {
    HOP_BY_HOP.contains(&name.as_str())
}

fn by_length(names: HashSet<HeaderName>) -> Vec<Vec<HeaderName>> {
    let mut sorted = Vec::new();
    for name in names {
        let length = name.as_str().len();
        if sorted.len() <= length {
            sorted.resize(length + 1, Vec::new());
        }
        sorted.get_mut(length).into_iter().for_each(|names: &mut Vec<_>| names.push(name.clone()));
    }
    sorted
}

/// What the `Connection` header names, but for what no message can do without.
pub fn listed_in_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    headers
        .get_all(http::header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
        .filter(|name| *name != http::header::HOST && *name != http::header::CONTENT_LENGTH)
        .collect()
}

fn fold(name: &str) -> Box<[u8]> {
    name.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'-' })
        .collect()
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use http::header::HeaderName;

    use super::{ReservedNames, strip_response};

    #[test]
    fn every_spelling_of_a_reserved_name_is_removed_and_others_stay() {
        let names = ReservedNames::new([&HeaderName::from_static("x-auth-subject")]);
        for name in [
            "X-Auth-Subject",
            "x_auth_subject",
            "X-Auth_Subject",
            "x.auth.subject",
            "X~Auth-Subject",
            "X-FORWARDED-FOR",
            "x_forwarded_for",
            "Content_Length",
            "transfer_encoding",
            "X-HTTP-Method-Override",
            "Proxy",
            "Upgrade",
        ] {
            assert!(names.has(&name.parse().unwrap()), "{name}");
        }
        for name in ["accept", "content-length", "host", "x-auth", "x-auth-subject-2", "x_custom", "cookie"] {
            assert!(!names.has(&name.parse().unwrap()), "{name}");
        }
    }

    #[test]
    fn a_proxy_may_say_what_its_client_may_not() {
        let names = ReservedNames::new([&HeaderName::from_static("x-auth-subject")]);
        let mut headers = HeaderMap::new();
        let of_proxy = ["x-forwarded-for", "x-real-ip", "connection", "te", "x-request-id", "accept"];
        let of_client = [
            "client-cert",
            "x-auth-subject",
            "x-forwarded-user",
            "x-http-method-override",
            "x-original-url",
            "x_auth_subject",
            "x_forwarded_for",
        ];
        for name in of_proxy.iter().chain(&of_client) {
            headers.insert(HeaderName::from_static(name), "1".parse().unwrap());
        }
        let sent = |allowed: &[HeaderName]| {
            let mut names: Vec<_> =
                names.sent_by_client(&headers, allowed).map(ToString::to_string).collect();
            names.sort_unstable();
            names
        };
        assert_eq!(sent(&[]), of_client);
        assert!(!sent(&["x-original-url".parse().unwrap()]).contains(&"x-original-url".to_owned()));
    }

    #[test]
    fn connection_names_what_goes_but_not_host_or_framing() {
        let names = ReservedNames::new([]);
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Private, host,content-length"),
            ("x-private", "1"),
            ("host", "h"),
            ("content-length", "3"),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        names.strip(&mut headers, &[]);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["content-length", "host"]);
    }

    #[test]
    fn a_response_loses_what_is_about_the_connection_and_keeps_the_rest() {
        let mut headers = HeaderMap::new();
        for name in [
            "connection",
            "keep-alive",
            "transfer-encoding",
            "upgrade",
            "x-private",
            "trailer",
            "te",
            "x-api",
        ] {
            headers.append(name, "x-private".parse().unwrap());
            headers.append(name, "2".parse().unwrap());
        }
        strip_response(&mut headers, &[]);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["trailer", "x-api"]);
    }
}
