//! The opening handshake of a WebSocket, by HTTP/1.1 (RFC 6455 section 4) and by HTTP/2 (RFC 8441 section 5): what proves
//! that the other end has understood it, and the one form in terms of the other.
//!
//! HTTP/1.1 is the form that everything between the two ends knows. HTTP/2 is turned into it where it comes in, and out
//! of it where it goes out.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use hyper::ext::Protocol;

use super::body::RequestBody;

const WEBSOCKET: &str = "websocket";

/// RFC 6455 section 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The nonce of a handshake by HTTP/1.1.
#[derive(Debug)]
pub struct HandshakeKey(HeaderValue);

impl HandshakeKey {
    /// A fresh one; `None` if the system has no randomness to give.
    pub fn random() -> Option<Self> {
        let mut nonce = [0; 16];
        rand::fill(&mut nonce).ok()?;
        HeaderValue::from_str(&STANDARD.encode(nonce)).ok().map(Self)
    }

    /// The one of a handshake.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        headers.get(SEC_WEBSOCKET_KEY).cloned().map(Self)
    }

    /// The value of `Sec-WebSocket-Key`.
    pub fn value(&self) -> &HeaderValue {
        &self.0
    }

    /// Whether a response answers the handshake with this key, and not one that somebody remembered.
    pub fn is_accepted_by(&self, headers: &HeaderMap) -> bool {
        headers.get(SEC_WEBSOCKET_ACCEPT).is_some_and(|accept| accept.as_bytes() == self.accept().as_bytes())
    }

    /// What `Sec-WebSocket-Accept` answers it with.
    pub fn accept(&self) -> String {
        let proof = [self.0.as_bytes(), GUID].concat();
        STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &proof))
    }
}

/// Marks a handshake, or the answer that accepts it, as HTTP/1.1 does.
pub fn mark(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(WEBSOCKET));
}

/// Removes what belongs to the handshake by HTTP/1.1 alone.
pub fn unmark(headers: &mut HeaderMap) {
    for name in [CONNECTION, UPGRADE, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_ACCEPT] {
        headers.remove(name);
    }
}

/// Whether this is the protocol that an extended CONNECT asks for.
pub fn is_websocket(protocol: &Protocol) -> bool {
    protocol.as_str() == WEBSOCKET
}

/// A handshake in the form of HTTP/2.
pub(super) fn to_extended_connect(request: &mut http::Request<RequestBody>) {
    *request.method_mut() = Method::CONNECT;
    unmark(request.headers_mut());
    request.extensions_mut().insert(Protocol::from_static(WEBSOCKET));
}

/// An answer by HTTP/2 in the form of HTTP/1.1. Any but the one that accepts stays as it is.
pub(super) fn from_extended_connect<B>(mut response: Response<B>, key: &HandshakeKey) -> Response<B> {
    if response.status() == StatusCode::OK
        && let Ok(accept) = HeaderValue::from_str(&key.accept())
    {
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        mark(response.headers_mut());
        response.headers_mut().insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_belongs_to_its_key() {
        // The example of RFC 6455 section 1.3.
        let key = HandshakeKey(HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
        let mut headers = HeaderMap::new();
        assert!(!key.is_accepted_by(&headers));
        headers.insert(SEC_WEBSOCKET_ACCEPT, HeaderValue::from_static("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert!(key.is_accepted_by(&headers));
        let other = HandshakeKey::random().unwrap();
        assert_eq!(other.value().len(), 24);
        assert!(!other.is_accepted_by(&headers));
    }
}
