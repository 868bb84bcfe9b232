//! Cross-origin requests of browsers (the Fetch standard, fetch.spec.whatwg.org, section "HTTP CORS protocol"): which
//! pages may call a route, and the headers that tell a browser so. Pure: headers in, headers out.
//!
//! This keeps no request away from the API; it lets a page's script send it and read the answer, refusals included.

use std::sync::Arc;
use std::time::Duration;

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_METHOD, HeaderName, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Method};

/// What a route says of pages of other origins.
#[derive(Clone, Debug)]
pub struct Cors {
    origins: Origins,
    methods: HeaderValue,
    headers: HeaderValue,
    exposed: HeaderValue,
    credentials: bool,
    max_age: HeaderValue,
    preflight: AnsweredBy,
}

/// Which pages may call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origins {
    /// All.
    Any,
    /// Those of these origins.
    Listed(Vec<OriginPattern>),
}

/// One origin, or all on hosts below one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OriginPattern {
    /// `https://app.example.com`.
    Exact(String),
    /// `https://*.example.com:8443`, as what stands before the asterisk and what stands behind it.
    Below(String, String),
}

/// Who answers a preflight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnsweredBy {
    /// The gateway.
    Gateway,
    /// The API, to which it is forwarded without a token. Then the API's own CORS headers count, and those of the
    /// gateway stand on its refusals alone.
    Api,
}

/// A browser's question whether it may send a request. Made by [`Preflight::of`] alone.
#[derive(Clone, Debug)]
pub struct Preflight {
    /// The method of the request that it would send.
    pub method: Method,
}

/// What becomes of one request by its route's [`Cors`].
#[derive(Clone, Debug)]
pub struct Sharing {
    cors: Arc<Cors>,
    /// The value of `Access-Control-Allow-Origin`; `None` if the request's origin may not read the answer.
    allowed: Option<HeaderValue>,
}

impl Cors {
    /// From lists of names that are known to be valid; `exposed` gets what refusals carry besides.
    pub fn new(
        origins: Origins,
        methods: &[Method],
        headers: &[HeaderName],
        exposed: &[HeaderName],
        (credentials, max_age, preflight): (bool, Duration, AnsweredBy),
    ) -> Self {
        let always = ["x-request-id", "www-authenticate", "retry-after"].map(HeaderName::from_static);
        let others = always.iter().filter(|name| !exposed.contains(name));
        Self {
            origins,
            methods: list(methods.iter().map(Method::as_str)),
            headers: list(headers.iter().map(HeaderName::as_str)),
            exposed: list(exposed.iter().chain(others).map(HeaderName::as_str)),
            credentials,
            max_age: HeaderValue::from(max_age.as_secs()),
            preflight,
        }
    }

    /// Who answers preflights.
    pub fn preflights_answered_by(&self) -> AnsweredBy {
        self.preflight
    }

    /// Judges a request by its `Origin`.
    pub fn judge(self: &Arc<Self>, headers: &HeaderMap) -> Sharing {
        let mut origins = headers.get_all(ORIGIN).iter();
        let origin = origins.next().filter(|_| origins.next().is_none());
        let allowed = match (&self.origins, origin) {
            (Origins::Any, _) => Some(HeaderValue::from_static("*")),
            (Origins::Listed(patterns), Some(origin)) => {
                let text = origin.to_str().unwrap_or_default();
                patterns.iter().any(|pattern| pattern.matches(text)).then(|| origin.clone())
            }
            (Origins::Listed(_), None) => None,
        };
        Sharing { cors: Arc::clone(self), allowed }
    }
}

impl OriginPattern {
    fn matches(&self, origin: &str) -> bool {
        match self {
            Self::Exact(exact) => origin == exact,
            Self::Below(before, behind) => {
                let host =
                    origin.strip_prefix(before.as_str()).and_then(|rest| rest.strip_suffix(behind.as_str()));
                host.is_some_and(|host| {
                    !host.is_empty()
                        && host
                            .bytes()
                            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(&b))
                })
            }
        }
    }
}

impl Preflight {
    /// A preflight names an origin and one method, and has no body.
    pub fn of(method: &Method, headers: &HeaderMap, has_body: bool) -> Option<Self> {
        if *method != Method::OPTIONS || has_body || !headers.contains_key(ORIGIN) {
            return None;
        }
        let mut methods = headers.get_all(ACCESS_CONTROL_REQUEST_METHOD).iter();
        let asked = methods.next().filter(|_| methods.next().is_none())?;
        Some(Self { method: Method::from_bytes(asked.as_bytes()).ok()? })
    }
}

impl Sharing {
    /// Whether a page of the request's origin may read the answer.
    pub fn is_allowed(&self) -> bool {
        self.allowed.is_some()
    }

    /// Whether such a page may send cookies along.
    pub fn is_allowed_credentials(&self) -> bool {
        self.cors.credentials && self.is_allowed()
    }

    /// The answer to a preflight: what a page of this origin may send.
    pub fn answer_preflight(&self, headers: &mut HeaderMap) {
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, self.cors.methods.clone());
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, self.cors.headers.clone());
        headers.insert(ACCESS_CONTROL_MAX_AGE, self.cors.max_age.clone());
    }

    /// Tells the browser who may read this answer, in place of what the API says, unless that is left to the API and
    /// the answer is its own.
    pub fn tell(&self, headers: &mut HeaderMap, is_of_api: bool) {
        if is_of_api && self.cors.preflight == AnsweredBy::Api {
            return;
        }
        for name in
            [ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_EXPOSE_HEADERS]
        {
            headers.remove(name);
        }
        if self.cors.origins != Origins::Any {
            vary_by_origin(headers);
        }
        let Some(origin) = &self.allowed else { return };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, self.cors.exposed.clone());
        if self.cors.credentials {
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
    }
}

/// A cache must not give one origin's answer to another (RFC 9110 section 12.5.5).
fn vary_by_origin(headers: &mut HeaderMap) {
    let names = |value: &HeaderValue| {
        let mut names = value.to_str().unwrap_or_default().split(',').map(str::trim);
        names.any(|name| name == "*" || name.eq_ignore_ascii_case("origin"))
    };
    if !headers.get_all(VARY).iter().any(names) {
        headers.append(VARY, HeaderValue::from_static("Origin"));
    }
}

fn list<'n>(names: impl Iterator<Item = &'n str>) -> HeaderValue {
    let text = names.collect::<Vec<_>>().join(", ");
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::OriginPattern;

    #[test]
    fn an_origin_is_matched_whole() {
        let exact = OriginPattern::Exact("https://app.test".to_owned());
        let below = OriginPattern::Below("https://".to_owned(), ".app.test:8443".to_owned());
        assert!(exact.matches("https://app.test") && below.matches("https://a.b.app.test:8443"));
        for origin in
            ["http://app.test", "https://app.test:443", "https://app.test.evil", "https://x.app.test", "null"]
        {
            assert!(!exact.matches(origin), "{origin}");
        }
        for origin in [
            "https://.app.test:8443",
            "https://app.test:8443",
            "https://evil/.app.test:8443",
            "https://evil:1@x.app.test:8443",
            "https://evil#.app.test:8443",
            "https://xapp.test:8443",
            "https://x.app.test",
            "http://x.app.test:8443",
            "https://x.app.test:84430",
        ] {
            assert!(!below.matches(origin), "{origin}");
        }
    }
}
