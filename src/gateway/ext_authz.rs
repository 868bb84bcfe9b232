//! Envoy's external authorization by gRPC: `envoy.service.auth.v3.Authorization/Check`, of whose messages only the
//! fields in use are declared; what else comes is skipped.

use std::collections::BTreeMap;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use prost::Message;

use super::body::ResponseBody;
use super::core::Core;
use super::description::{Description, Line};
use super::grpc;
use crate::catalogue::Reason;
use crate::rejection::Rejection;
use crate::upstream::{BodyLimits, ClientBody, RequestBody};

/// Far more than the head of any request that passes the limits; bodies are not asked for.
const MAX_BYTES: u64 = 256 * 1024;
const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";
/// The flag and length before a gRPC message.
const PREFIX: usize = 5;

/// Reads the request that Envoy asks about.
pub async fn read(core: &Core, ask: Request<Incoming>) -> Result<Description, Rejection> {
    let (parts, incoming) = ask.into_parts();
    let kind = parts.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    if parts.method != Method::POST || parts.uri.path() != CHECK || !kind.starts_with(b"application/grpc") {
        return Err(Reason::NoRoute.into());
    }
    let limits = BodyLimits::within(MAX_BYTES, core.limits.body_idle);
    let (body, progress) = RequestBody::new(ClientBody::new(incoming, false), limits, Vec::new());
    let body = tokio::time::timeout(core.limits.body_idle, body.collect()).await;
    let Ok(body) = body else { return Err(Reason::BodyTimeout.into()) };
    let body = body.map_err(|_| progress.failure().unwrap_or(Reason::ClientClosed))?.to_bytes();
    describe(&body)
}

/// Tells Envoy the verdict. A refusal is a verdict too, so the call itself succeeds.
pub fn answer(verdict: &Response<ResponseBody>, removed: &[HeaderName]) -> Response<ResponseBody> {
    let headers = verdict.headers().iter().map(|(name, value)| HeaderValueOption::replacing(name, value));
    let (code, outcome) = if verdict.status().is_success() {
        let headers_to_remove = removed.iter().map(ToString::to_string).collect();
        // They go into the request, where this one would be about the API's answer.
        let headers = headers.filter(|option| option.name() != CACHE_CONTROL.as_str());
        (GRPC_OK, Outcome::Ok(OkResponse { headers: headers.collect(), headers_to_remove }))
    } else {
        let status = Some(HttpStatus { code: i32::from(verdict.status().as_u16()) });
        let body = String::from_utf8_lossy(verdict.body().said()).into_owned();
        (GRPC_PERMISSION_DENIED, Outcome::Denied(DeniedResponse { status, headers: headers.collect(), body }))
    };
    let message = CheckResponse { status: Some(Status { code }), outcome: Some(outcome) };
    let mut response = Response::new(ResponseBody::message(framed(&message), grpc::ok_trailers()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

const GRPC_OK: i32 = 0;
const GRPC_PERMISSION_DENIED: i32 = 7;

fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(PREFIX + length);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    bytes.put_slice(&message.encode_to_vec());
    bytes.freeze()
}

/// The one message of the call, uncompressed.
fn unframed(body: &[u8]) -> Option<&[u8]> {
    let (prefix, message) = body.split_first_chunk::<PREFIX>()?;
    let [flag, length @ ..] = *prefix;
    (flag == 0 && usize::try_from(u32::from_be_bytes(length)).ok()? == message.len()).then_some(message)
}

fn describe(body: &[u8]) -> Result<Description, Rejection> {
    let illegal = |what: &str| Rejection::new(Reason::IllegalDescription).log(what.to_owned());
    let message = unframed(body).ok_or_else(|| illegal("the question is not one plain gRPC message"))?;
    let check = CheckRequest::decode(message).map_err(|_| illegal("the question is no CheckRequest"))?;
    let attributes = check.attributes.ok_or_else(|| illegal("the question has no attributes"))?;
    let http = attributes.request.and_then(|request| request.http);
    let http = http.ok_or_else(|| illegal("the question is about no HTTP request"))?;
    let source = attributes.source.and_then(|peer| peer.address).and_then(|address| address.socket);
    let source = source.ok_or_else(|| illegal("the question names no source address"))?;
    let mut headers = HeaderMap::new();
    for (name, value) in &http.headers {
        // Pseudo-headers are told in fields of their own.
        if name.starts_with(':') {
            continue;
        }
        let name = HeaderName::from_bytes(name.as_bytes());
        let value = HeaderValue::from_bytes(value.as_bytes());
        let (Ok(name), Ok(value)) = (name, value) else { return Err(Reason::IllegalHeader.into()) };
        headers.append(name, value);
    }
    let line = Line {
        method: &http.method,
        target: &http.path,
        host: &http.host,
        scheme: &http.scheme,
        client: &source.address,
    };
    Description::new(line, headers)
}

impl HeaderValueOption {
    /// In place of what the request or response has under the name.
    fn replacing(name: &HeaderName, value: &HeaderValue) -> Self {
        let header = HeaderText {
            key: name.to_string(),
            value: String::from_utf8_lossy(value.as_bytes()).into_owned(),
        };
        Self { header: Some(header), append: Some(false), append_action: OVERWRITE_IF_EXISTS_OR_ADD }
    }

    fn name(&self) -> &str {
        self.header.as_ref().map_or("", |header| &header.key)
    }
}

const OVERWRITE_IF_EXISTS_OR_ADD: i32 = 2;

// --- envoy/service/auth/v3/external_auth.proto and what it is made of ---

#[derive(Clone, PartialEq, Message)]
struct CheckRequest {
    #[prost(message, optional, tag = "1")]
    attributes: Option<AttributeContext>,
}

#[derive(Clone, PartialEq, Message)]
struct AttributeContext {
    #[prost(message, optional, tag = "1")]
    source: Option<Source>,
    #[prost(message, optional, tag = "4")]
    request: Option<AttributeRequest>,
}

#[derive(Clone, PartialEq, Message)]
struct Source {
    #[prost(message, optional, tag = "1")]
    address: Option<Address>,
}

#[derive(Clone, PartialEq, Message)]
struct Address {
    #[prost(message, optional, tag = "1")]
    socket: Option<SocketAddress>,
}

#[derive(Clone, PartialEq, Message)]
struct SocketAddress {
    #[prost(string, tag = "2")]
    address: String,
}

#[derive(Clone, PartialEq, Message)]
struct AttributeRequest {
    #[prost(message, optional, tag = "2")]
    http: Option<HttpRequest>,
}

#[derive(Clone, PartialEq, Message)]
struct HttpRequest {
    #[prost(string, tag = "2")]
    method: String,
    #[prost(btree_map = "string, string", tag = "3")]
    headers: BTreeMap<String, String>,
    #[prost(string, tag = "4")]
    path: String,
    #[prost(string, tag = "5")]
    host: String,
    #[prost(string, tag = "6")]
    scheme: String,
}

#[derive(Clone, PartialEq, Message)]
struct CheckResponse {
    #[prost(message, optional, tag = "1")]
    status: Option<Status>,
    #[prost(oneof = "Outcome", tags = "2, 3")]
    outcome: Option<Outcome>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Outcome {
    #[prost(message, tag = "2")]
    Denied(DeniedResponse),
    #[prost(message, tag = "3")]
    Ok(OkResponse),
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
}

#[derive(Clone, PartialEq, Message)]
struct DeniedResponse {
    #[prost(message, optional, tag = "1")]
    status: Option<HttpStatus>,
    #[prost(message, repeated, tag = "2")]
    headers: Vec<HeaderValueOption>,
    #[prost(string, tag = "3")]
    body: String,
}

#[derive(Clone, PartialEq, Message)]
struct OkResponse {
    #[prost(message, repeated, tag = "2")]
    headers: Vec<HeaderValueOption>,
    #[prost(string, repeated, tag = "5")]
    headers_to_remove: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct HttpStatus {
    #[prost(int32, tag = "1")]
    code: i32,
}

#[derive(Clone, PartialEq, Message)]
struct HeaderValueOption {
    #[prost(message, optional, tag = "1")]
    header: Option<HeaderText>,
    /// `google.protobuf.BoolValue`.
    #[prost(message, optional, tag = "2")]
    append: Option<bool>,
    #[prost(int32, tag = "3")]
    append_action: i32,
}

#[derive(Clone, PartialEq, Message)]
struct HeaderText {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::{
        Address, AttributeContext, AttributeRequest, CheckRequest, HttpRequest, SocketAddress, Source,
        describe, framed,
    };
    use crate::catalogue::Reason;

    fn question() -> CheckRequest {
        let socket = SocketAddress { address: "198.51.100.7".to_owned() };
        let http = HttpRequest {
            method: "GET".to_owned(),
            headers: [(":path", "/orders"), ("authorization", "Bearer a.b.c")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            path: "/orders?page=2".to_owned(),
            host: "api.example.com".to_owned(),
            scheme: "https".to_owned(),
        };
        CheckRequest {
            attributes: Some(AttributeContext {
                source: Some(Source { address: Some(Address { socket: Some(socket) }) }),
                request: Some(AttributeRequest { http: Some(http) }),
            }),
        }
    }

    #[test]
    fn a_question_describes_a_request() {
        let description = describe(&framed(&question())).unwrap();
        assert_eq!(description.request.uri(), "/orders?page=2");
        assert_eq!(description.request.headers()["authorization"], "Bearer a.b.c");
        assert_eq!(description.request.headers()["host"], "api.example.com");
        assert!(description.provenance.is_https);
    }

    #[test]
    fn a_question_cut_short_anywhere_is_none() {
        let whole = framed(&question());
        for end in 0..whole.len() {
            let reason = describe(&whole[..end]).unwrap_err().reason();
            assert_eq!(reason, Reason::IllegalDescription, "{end} bytes");
        }
        let mut compressed = whole.to_vec();
        compressed[0] = 1;
        assert!(describe(&compressed).is_err());
        let no_http = CheckRequest { attributes: Some(AttributeContext::default()) };
        assert!(describe(&framed(&no_http)).is_err());
        assert!(CheckRequest::decode(&[][..]).is_ok());
    }
}
