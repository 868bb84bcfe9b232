//! What can go wrong on the way to an upstream, told apart truthfully.

use crate::catalogue::Reason;

/// Why no response came.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// No connection.
    #[error("cannot connect to {endpoint}: {cause}")]
    Connect {
        /// `host:port`.
        endpoint: String,
        /// What the operating system said.
        cause: std::io::Error,
    },
    /// No connection in time.
    #[error("no connection to {endpoint} within the connect time-out")]
    ConnectTimeout {
        /// `host:port`.
        endpoint: String,
    },
    /// The TLS handshake failed.
    #[error("TLS handshake with {endpoint} failed: {cause}")]
    Tls {
        /// `host:port`.
        endpoint: String,
        /// What the TLS library said.
        cause: std::io::Error,
    },
    /// The connection ended without a response.
    #[error("connection closed before a response: {0}")]
    Reset(hyper::Error),
    /// No response in time.
    #[error("no response within the response time-out")]
    ResponseTimeout,
    /// Bytes that are not an HTTP response.
    #[error("not a valid HTTP response: {0}")]
    BadResponse(hyper::Error),
    /// The upstream speaks only HTTP/2, which cannot switch protocols.
    #[error("the upstream speaks only HTTP/2, over which a WebSocket cannot be opened")]
    NoUpgrade,
    /// An HTTP response whose head cannot be passed on.
    #[error("not an acceptable HTTP response: {0}")]
    UnfitResponse(&'static str),
    /// The request's own body failed; the upstream is not at fault.
    #[error("the request's body failed: {0:?}")]
    RequestBody(Reason),
}

impl UpstreamError {
    /// The reason that the client is given.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Connect { .. } => Reason::UpstreamConnect,
            Self::ConnectTimeout { .. } => Reason::UpstreamConnectTimeout,
            Self::Tls { .. } => Reason::UpstreamTls,
            Self::Reset(_) => Reason::UpstreamReset,
            Self::ResponseTimeout => Reason::UpstreamResponseTimeout,
            Self::BadResponse(_) | Self::UnfitResponse(_) | Self::NoUpgrade => Reason::BadResponse,
            Self::RequestBody(reason) => *reason,
        }
    }
}

impl UpstreamError {
    /// Whether the operating system or TLS reported an error, rather than hyper itself.
    pub(super) fn is_io(error: &hyper::Error) -> bool {
        std::error::Error::source(error).is_some_and(<dyn std::error::Error>::is::<std::io::Error>)
    }
}

impl From<hyper::Error> for UpstreamError {
    fn from(error: hyper::Error) -> Self {
        if error.is_parse() || error.is_parse_status() || error.is_parse_too_large() {
            Self::BadResponse(error)
        } else {
            Self::Reset(error)
        }
    }
}
