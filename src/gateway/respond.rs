//! The refusal as a response: problem+json (RFC 9457) with a challenge (RFC 6750), or what the client can read
//! better: a page for a browser, trailers-only for gRPC.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, RETRY_AFTER, VARY, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use serde::Serialize;

use super::body::ResponseBody;
use super::grpc;
use crate::catalogue::Reason;
use crate::config::settings::ErrorDetail;
use crate::rejection::Rejection;

/// In which form a client wants to be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `application/problem+json`, the contract.
    Problem,
    /// `text/html`, for a person with a browser.
    Page,
    /// `text/plain`, for who asks for it.
    Text,
    /// gRPC trailers-only (status 200, `grpc-status`).
    Grpc,
}

impl Form {
    /// What the request's headers ask for. Only a client that prefers a page to everything gets one.
    pub fn of(headers: &HeaderMap) -> Self {
        let starts = |value: Option<&HeaderValue>, prefix: &str| {
            value
                .and_then(|value| value.as_bytes().get(..prefix.len()))
                .is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
        };
        let accept = headers.get(ACCEPT);
        if starts(headers.get(CONTENT_TYPE), "application/grpc") {
            Self::Grpc
        } else if starts(accept, "text/html") {
            Self::Page
        } else if starts(accept, "text/plain") {
            Self::Text
        } else {
            Self::Problem
        }
    }
}

/// The members of a problem document (RFC 9457 section 3).
#[derive(Serialize)]
struct Problem<'p> {
    r#type: String,
    title: &'p str,
    status: u16,
    code: &'p str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'p str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    request_id: &'p str,
}

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// How much a client is told, and where it can read more.
#[derive(Clone, Copy, Debug)]
pub struct Disclosure<'a> {
    /// How much.
    pub detail: ErrorDetail,
    /// What stands before a code in the `type` of a problem, if not what makes it a URN.
    pub documents: Option<&'a str>,
}

/// Without documents of the operator's own, since none of ours is sure to be there.
const NOT_DOCUMENTED: &str = "urn:valgate:error:";

/// Renders a refusal.
pub fn refuse(
    rejection: &Rejection,
    form: Form,
    disclosure: Disclosure<'_>,
    request_id: &str,
) -> Response<ResponseBody> {
    let reason = rejection.reason();
    let sentence = (disclosure.detail == ErrorDetail::Full).then(|| sentence(rejection));
    let (status, kind, body) =
        match form {
            Form::Problem => {
                ("application/problem+json", problem(rejection, sentence.as_deref(), disclosure, request_id))
                    .in_status(reason)
            }
            Form::Page => ("text/html; charset=utf-8", page(rejection, sentence.as_deref(), request_id))
                .in_status(reason),
            Form::Text => ("text/plain; charset=utf-8", text(rejection, sentence.as_deref(), request_id))
                .in_status(reason),
            Form::Grpc => (StatusCode::OK, "application/grpc", String::new()),
        };
    let mut response = Response::new(ResponseBody::full(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(VARY, HeaderValue::from_static("Accept"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    put(headers, REQUEST_ID, request_id);
    if reason.status() == StatusCode::UNAUTHORIZED || reason.bearer_error().is_some() {
        put(headers, WWW_AUTHENTICATE, &challenge(rejection, sentence.as_deref()));
    }
    if let Some(allow) = rejection.allow_text() {
        put(headers, ALLOW, allow);
    }
    if let Some(wait) = rejection.wait().or_else(|| usual_wait(reason)) {
        put(headers, RETRY_AFTER, &wait.as_secs().max(1).to_string());
    }
    if form == Form::Grpc {
        grpc::put_status(headers, reason, sentence.as_deref());
    }
    response
}

/// Where waiting helps and nobody knows for how long.
fn usual_wait(reason: Reason) -> Option<Duration> {
    let helps = matches!(reason.status(), StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS);
    helps.then_some(Duration::from_secs(5))
}

trait InStatus {
    fn in_status(self, reason: Reason) -> (StatusCode, &'static str, String);
}

impl InStatus for (&'static str, String) {
    fn in_status(self, reason: Reason) -> (StatusCode, &'static str, String) {
        (reason.status(), self.0, self.1)
    }
}

/// What is wrong, and what to do.
pub(super) fn sentence(rejection: &Rejection) -> String {
    let reason = rejection.reason();
    format!("{} {}", as_sentence(rejection.hint_text().unwrap_or(reason.cause())), reason.remedy())
}

/// A hint may be a mere clause.
pub(super) fn as_sentence(text: &str) -> String {
    let mut sentence = String::with_capacity(text.len() + 1);
    sentence.push_str(text);
    if let Some(first) = sentence.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    if !text.ends_with('.') {
        sentence.push('.');
    }
    sentence
}

fn problem(
    rejection: &Rejection,
    sentence: Option<&str>,
    disclosure: Disclosure<'_>,
    request_id: &str,
) -> String {
    let (code, reason) = (rejection.code(), rejection.reason());
    let problem = Problem {
        r#type: format!("{}{}", disclosure.documents.unwrap_or(NOT_DOCUMENTED), code.number()),
        title: code.title(),
        status: reason.status().as_u16(),
        code: code.number(),
        reason: (disclosure.detail == ErrorDetail::Full).then(|| reason.name()),
        detail: sentence.map(str::to_owned),
        request_id,
    };
    serde_json::to_string(&problem).unwrap_or_default()
}

fn text(rejection: &Rejection, sentence: Option<&str>, request_id: &str) -> String {
    let mut text = format!("{}\n", rejection.code());
    if let Some(sentence) = sentence {
        let _ = writeln!(text, "{sentence}");
    }
    let _ = writeln!(text, "request id: {request_id}");
    text
}

fn page(rejection: &Rejection, sentence: Option<&str>, request_id: &str) -> String {
    let code = rejection.code();
    format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{code}</title>\n\
         <body style=\"font:16px/1.5 system-ui,sans-serif;max-width:40em;margin:4em auto;padding:0 1em\">\n\
         <h1 style=\"font-size:1.4em\">{code}</h1>\n<p>{}</p>\n<p><small>Request id <code>{}</code></small></p>\n</body></html>\n",
        escaped(sentence.unwrap_or_default()),
        escaped(request_id)
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// `Bearer`, with `error` only where the standard has one: without credentials, or with those of another scheme,
/// the challenge carries no error (RFC 6750 section 3.1).
fn challenge(rejection: &Rejection, sentence: Option<&str>) -> String {
    let mut challenge = "Bearer realm=\"valgate\"".to_owned();
    if let Some(error) = rejection.reason().bearer_error() {
        let _ = write!(challenge, ", error=\"{error}\"");
        if let Some(sentence) = sentence {
            let _ = write!(challenge, ", error_description=\"{}\"", quotable(sentence));
        }
    }
    if let Some(scope) = rejection.scope_text() {
        let _ = write!(challenge, ", scope=\"{}\"", quotable(scope));
    }
    challenge
}

/// The characters that `error_description` and `scope` may have (RFC 6750 section 3).
fn quotable(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|byte| matches!(byte, b' ' | b'!' | b'#'..=b'[' | b']'..=b'~')) {
        return Cow::Borrowed(text);
    }
    text.chars()
        .map(|c| match c {
            '"' | '\\' => '\'',
            ' '..='~' => c,
            _ => '?',
        })
        .collect()
}

fn put(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::{Disclosure, Form, refuse};
    use crate::catalogue::Reason;
    use crate::config::settings::ErrorDetail;
    use crate::rejection::Rejection;

    const FULL: Disclosure<'_> = Disclosure { detail: ErrorDetail::Full, documents: None };
    const CODE_ONLY: Disclosure<'_> = Disclosure { detail: ErrorDetail::CodeOnly, documents: None };

    #[test]
    fn a_challenge_has_an_error_only_where_rfc_6750_has_one() {
        let challenge = |reason| {
            let response = refuse(&Rejection::new(reason), Form::Problem, FULL, "id");
            response.headers().get("www-authenticate").map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(challenge(Reason::Missing).unwrap(), "Bearer realm=\"valgate\"");
        assert_eq!(challenge(Reason::NotBearer).unwrap(), "Bearer realm=\"valgate\"");
        assert!(challenge(Reason::Empty).unwrap().contains("error=\"invalid_request\""));
        assert!(challenge(Reason::Expired).unwrap().contains("error=\"invalid_token\""));
        assert!(challenge(Reason::InsufficientScope).unwrap().contains("error=\"insufficient_scope\""));
        assert_eq!(challenge(Reason::NoRoute), None);
        assert_eq!(challenge(Reason::KeysNotLoaded), None);
    }

    #[test]
    fn code_only_says_nothing_else() {
        let rejection = Rejection::new(Reason::Revoked);
        let response = refuse(&rejection, Form::Problem, CODE_ONLY, "id");
        let challenge = response.headers()["www-authenticate"].to_str().unwrap();
        assert_eq!(challenge, "Bearer realm=\"valgate\", error=\"invalid_token\"");
        let body = super::problem(&rejection, None, CODE_ONLY, "id");
        assert!(!body.contains("revoked") && body.contains("VAL-020"), "{body}");
    }

    #[test]
    fn a_type_leads_to_where_the_code_is_documented() {
        let rejection = Rejection::new(Reason::Expired);
        let documents = Some("https://docs.example.com/errors#");
        let documented = super::problem(&rejection, None, Disclosure { documents, ..FULL }, "id");
        assert!(documented.contains("\"type\":\"https://docs.example.com/errors#VAL-020\""), "{documented}");
        let not = super::problem(&rejection, None, FULL, "id");
        assert!(not.contains("\"type\":\"urn:valgate:error:VAL-020\""), "{not}");
    }

    #[test]
    fn waiting_is_advised_where_it_helps() {
        let wait = |rejection: Rejection| {
            let response = refuse(&rejection, Form::Problem, FULL, "id");
            response.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned())
        };
        for reason in Reason::ALL.iter().filter(|reason| reason.status() == 503) {
            assert!(wait((*reason).into()).is_some(), "{reason:?}");
        }
        let known = Rejection::new(Reason::NotYetValid).retry_after(std::time::Duration::from_secs(7));
        assert_eq!(wait(known).as_deref(), Some("7"));
        assert_eq!(wait(Reason::Expired.into()), None);
    }

    #[test]
    fn the_form_follows_the_client() {
        let form = |name: &'static str, value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            Form::of(&headers)
        };
        assert_eq!(form("accept", "text/html,application/xhtml+xml,*/*;q=0.8"), Form::Page);
        assert_eq!(form("accept", "*/*"), Form::Problem);
        assert_eq!(form("accept", "application/json, text/html"), Form::Problem);
        assert_eq!(form("content-type", "application/grpc+proto"), Form::Grpc);
        assert_eq!(form("accept", "text/plain"), Form::Text);
    }
}
