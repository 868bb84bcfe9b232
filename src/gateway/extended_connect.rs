//! Extended CONNECT (RFC 8441): how a WebSocket is opened by HTTP/2. Read as the handshake by HTTP/1.1 that it stands
//! for, so that the same routes, rules and limits apply to both, and no step has to tell them apart.

use http::header::{SEC_WEBSOCKET_KEY, UPGRADE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::ext::Protocol;

use super::body::ResponseBody;
use crate::catalogue::Reason;
use crate::rejection::Rejection;
use crate::upstream::{HandshakeKey, is_websocket, unmark};

/// Marks a request that came as an extended CONNECT.
#[derive(Clone, Copy, Debug)]
struct Extended;

/// Turns an extended CONNECT into a GET that asks for a WebSocket. Any other request stays as it is: a plain CONNECT has
/// no `:protocol`.
pub fn read<B>(request: &mut Request<B>) -> Result<(), Rejection> {
    if *request.method() != Method::CONNECT {
        return Ok(());
    }
    let Some(protocol) = request.extensions_mut().remove::<Protocol>() else { return Ok(()) };
    if !is_websocket(&protocol) {
        return Err(Rejection::new(Reason::MethodNotSupported)
            .hint("The only :protocol that CONNECT can ask for here is websocket."));
    }
    let key = HandshakeKey::random()
        .ok_or_else(|| Rejection::new(Reason::Internal).log("the system has no randomness to give"))?;
    *request.method_mut() = Method::GET;
    request.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
    request.headers_mut().insert(SEC_WEBSOCKET_KEY, key.value().clone());
    request.extensions_mut().insert(Extended);
    Ok(())
}

/// Whether the request came as an extended CONNECT.
pub fn is_extended<B>(request: &Request<B>) -> bool {
    request.extensions().get::<Extended>().is_some()
}

/// A 2xx would tell the client that the WebSocket is open.
pub fn check_refusal(status: StatusCode) -> Result<(), Rejection> {
    if status.is_success() {
        return Err(Rejection::new(Reason::BadResponse)
            .log(format!("the API answered a WebSocket handshake with {}", status.as_u16())));
    }
    Ok(())
}

/// The API's acceptance as the client gets it. The client has shown no key and cannot check the answer to ours.
pub fn accepted(
    mut response: Response<ResponseBody>,
    key: Option<&HandshakeKey>,
) -> Result<Response<ResponseBody>, Rejection> {
    if !key.is_some_and(|key| key.is_accepted_by(response.headers())) {
        return Err(Rejection::new(Reason::BadResponse).log(
            "the API accepted a WebSocket handshake with a Sec-WebSocket-Accept that is not its answer",
        ));
    }
    *response.status_mut() = StatusCode::OK;
    unmark(response.headers_mut());
    Ok(response)
}
