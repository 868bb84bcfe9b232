//! The forms of an answer: JSON, text, or a problem (RFC 9457).

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;

/// An answer, whole.
pub type Answer = Response<Full<Bytes>>;

/// Plain text.
pub const TEXT: &str = "text/plain; charset=utf-8";

/// The document of a refusal (RFC 9457 section 3).
#[derive(Serialize)]
struct Problem<'p> {
    title: &'p str,
    status: u16,
    detail: &'p str,
}

/// An answer of this media type. Never to be cached: it is about this moment.
pub fn of(status: StatusCode, media_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// A value as JSON.
pub fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    match serde_json::to_vec_pretty(value) {
        Ok(mut body) => {
            body.push(b'\n');
            of(status, "application/json", body)
        }
        Err(_) => problem(StatusCode::INTERNAL_SERVER_ERROR, "The answer cannot be written as JSON."),
    }
}

/// What is wrong with the call, and what would be right.
pub fn problem(status: StatusCode, detail: &str) -> Answer {
    let title = status.canonical_reason().unwrap_or("Error");
    let body = serde_json::to_vec(&Problem { title, status: status.as_u16(), detail }).unwrap_or_default();
    of(status, "application/problem+json", body)
}

/// A method that the path does not have (RFC 9110 section 15.5.6).
pub fn method_not_allowed(allowed: &str) -> Answer {
    let mut answer = problem(StatusCode::METHOD_NOT_ALLOWED, &format!("This path answers to: {allowed}."));
    if let Ok(value) = HeaderValue::from_str(allowed) {
        answer.headers_mut().insert(ALLOW, value);
    }
    answer
}
