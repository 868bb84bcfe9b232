//! The gateway as a receiver: security events by push (RFC 8935) and back-channel logout.
//!
//! Reads the body, hands it to the feed's task, answers as the standards say. Who may send and what is believed, the
//! feed knows.

use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_LANGUAGE, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{Method, Response, StatusCode};
use http_body_util::BodyExt as _;
use serde::Serialize;

use super::body::ResponseBody;
use super::core::Core;
use super::sanitize::CleanRequest;
use crate::catalogue::Reason;
use crate::events::{Body, Delivery, Fault, Refusal};
use crate::rejection::Rejection;
use crate::upstream::{BodyLimits, RequestBody};

/// Where the deliveries of one feed go.
#[derive(Clone, Debug)]
pub struct Receiver {
    /// The place of the feed in the configuration.
    pub feed: usize,
    /// What it takes.
    pub accepts: Accepts,
}

/// What a feed takes, and so how it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepts {
    /// Security Event Tokens.
    SecurityEvents,
    /// Logout tokens.
    LogoutTokens,
}

/// RFC 8935 section 2.3, and the members that OAuth errors have (`OpenID` Connect Back-Channel Logout section 2.8).
#[derive(Serialize)]
struct Problem<'p> {
    #[serde(skip_serializing_if = "Option::is_none")]
    err: Option<&'p str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'p str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'p str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_description: Option<&'p str>,
}

impl Receiver {
    /// Takes one delivery. Answers once it is in force and kept.
    pub(super) async fn receive(
        &self,
        core: &Core,
        request: CleanRequest,
    ) -> Result<Response<ResponseBody>, Rejection> {
        if *request.method() != Method::POST {
            return Err(Rejection::new(Reason::MethodNotAllowed).allow("POST"));
        }
        let (parts, _, incoming) = request.into_parts();
        let limits = BodyLimits::within(MAX_BYTES, core.limits.body_idle);
        let (body, progress) = RequestBody::new(incoming, limits, Vec::new());
        let body = tokio::time::timeout(core.limits.body_idle, body.collect()).await;
        let Ok(body) = body else { return Err(Reason::BodyTimeout.into()) };
        let body = body.map_err(|_| progress.failure().unwrap_or(Reason::ClientClosed))?.to_bytes();
        let media_type =
            parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let media_type = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let mut credentials = parts.headers.get_all(AUTHORIZATION).iter();
        let authorization = credentials.next().filter(|_| credentials.next().is_none());
        let delivery = Delivery {
            authorization: authorization.map(|value| Bytes::copy_from_slice(value.as_bytes())),
            media_type,
            body,
        };
        Ok(match core.hand_in(self.feed, Body::Statement(delivery)).await {
            Ok(()) => self.accepted(),
            Err(refusal) => self.refused(&refusal),
        })
    }

    fn accepted(&self) -> Response<ResponseBody> {
        match self.accepts {
            Accepts::SecurityEvents => answer(StatusCode::ACCEPTED, Bytes::new()),
            Accepts::LogoutTokens => answer(StatusCode::OK, Bytes::new()),
        }
    }

    fn refused(&self, refusal: &Refusal) -> Response<ResponseBody> {
        match refusal {
            Refusal::Fault(fault) => self.problem(StatusCode::BAD_REQUEST, fault),
            Refusal::Unauthenticated => {
                let fault = Fault::new(
                    "authentication_failed",
                    "the Authorization header is not the one that this endpoint is configured for",
                );
                let mut response = self.problem(StatusCode::UNAUTHORIZED, &fault);
                response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
                response
            }
            Refusal::Unavailable(why) => {
                tracing::warn!(
                    error = why,
                    "what a provider sent could not be put in force; it is asked to send it again"
                );
                let mut response = answer(StatusCode::SERVICE_UNAVAILABLE, Bytes::new());
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
                response
            }
        }
    }

    fn problem(&self, status: StatusCode, fault: &Fault) -> Response<ResponseBody> {
        let Fault { code, description } = fault;
        let of_set = self.accepts == Accepts::SecurityEvents;
        let problem = Problem {
            err: of_set.then_some(code),
            error: (!of_set).then_some("invalid_request"),
            description: of_set.then_some(description),
            error_description: (!of_set).then_some(description),
        };
        let mut response = answer(status, serde_json::to_vec(&problem).unwrap_or_default().into());
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CONTENT_LANGUAGE, HeaderValue::from_static("en"));
        response
    }
}

fn answer(status: StatusCode, body: Bytes) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::full(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Far more than any event or logout token has.
const MAX_BYTES: u64 = 64 * 1024;
