//! What a connection that failed below HTTP is counted as.
//!
//! Knows nothing of the connection but the error that its library gave.

use std::io;

use crate::telemetry::metrics::{ProtocolError, TlsResult};

/// What an error of the HTTP library counts as.
pub fn kind(error: &hyper::Error, is_http2: bool) -> ProtocolError {
    if error.is_timeout() {
        ProtocolError::HeaderTimeout
    } else if error.is_incomplete_message() {
        ProtocolError::UnexpectedEnd
    } else if is_http2 {
        ProtocolError::Http2
    } else if error.is_parse() {
        ProtocolError::Http1
    } else {
        ProtocolError::Io
    }
}

/// Whether the client did not read, see [`super::linger`].
pub fn has_stalled(error: &hyper::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        let io = inner.downcast_ref::<io::Error>();
        let by_http2 = inner.downcast_ref::<h2::Error>().and_then(h2::Error::get_io);
        if let Some(io) = io.or(by_http2) {
            return io.kind() == io::ErrorKind::TimedOut;
        }
        cause = inner.source();
    }
    false
}

/// Whether the library gave up on a client that resets its streams again and again (CVE-2023-44487).
pub fn is_rapid_reset(error: &hyper::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<h2::Error>());
    cause.is_some_and(|cause| {
        cause.is_go_away() && cause.is_library() && cause.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM)
    })
}

/// What a TLS handshake that ended in this error counts as.
pub fn of_handshake(error: &io::Error) -> TlsResult {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    match cause {
        Some(rustls::Error::AlertReceived(_)) => TlsResult::ClientAlert,
        Some(rustls::Error::NoCertificatesPresented | rustls::Error::InvalidCertificate(_)) => {
            TlsResult::ClientCertificate
        }
        Some(_) => TlsResult::Protocol,
        None => TlsResult::ClientClosed,
    }
}
