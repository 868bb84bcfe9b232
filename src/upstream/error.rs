//! What can go wrong on the way to an upstream, told apart truthfully.

use super::stats::Failure;
use crate::catalogue::Reason;

/// Why no response came.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// No endpoint may be used.
    #[error("no endpoint of upstream {upstream} is healthy")]
    NoHealthyEndpoint {
        /// The upstream's name.
        upstream: String,
    },
    /// The upstream has as much to do as it may be given.
    #[error("upstream {upstream} has reached {limit}")]
    Busy {
        /// The upstream's name.
        upstream: String,
        /// The field of the configuration that says how much.
        limit: &'static str,
    },
    /// The name has no address.
    #[error("cannot resolve {endpoint}: {cause}")]
    Resolve {
        /// `host:port`.
        endpoint: String,
        /// What the system's resolver said.
        cause: std::io::Error,
    },
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
    /// All streams of all HTTP/2 connections are in use, and none came free in time.
    #[error(
        "no HTTP/2 stream to {endpoint} came free within the connect time-out: it takes too few at a time"
    )]
    NoStream {
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
    /// A new connection ended before anything could be sent on it.
    #[error("connection closed before the request was sent")]
    ClosedAtOnce,
    /// The upstream said that it did not look at the request: `REFUSED_STREAM`, or a `GOAWAY` that leaves it out.
    #[error("the upstream refused the request unprocessed: {0}")]
    Refused(hyper::Error),
    /// No response in time.
    #[error("no response within the response time-out")]
    ResponseTimeout,
    /// Bytes that are not an HTTP response.
    #[error("not a valid HTTP response: {0}")]
    BadResponse(hyper::Error),
    /// The upstream speaks only HTTP/2, and does not take extended CONNECT.
    #[error("the upstream speaks only HTTP/2, and does not take WebSockets over it (RFC 8441)")]
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
            Self::NoHealthyEndpoint { .. } => Reason::NoHealthyEndpoint,
            Self::Busy { .. } | Self::NoStream { .. } => Reason::UpstreamBusy,
            Self::Resolve { .. } => Reason::UpstreamResolve,
            Self::Connect { .. } => Reason::UpstreamConnect,
            Self::ConnectTimeout { .. } => Reason::UpstreamConnectTimeout,
            Self::Tls { .. } => Reason::UpstreamTls,
            Self::Reset(_) | Self::ClosedAtOnce | Self::Refused(_) => Reason::UpstreamReset,
            Self::ResponseTimeout => Reason::UpstreamResponseTimeout,
            Self::BadResponse(_) | Self::UnfitResponse(_) | Self::NoUpgrade => Reason::BadResponse,
            Self::RequestBody(reason) => *reason,
        }
    }

    /// How it counts against the endpoint; `None` where the endpoint is not at fault.
    pub(super) fn failure(&self) -> Option<Failure> {
        match self {
            Self::NoHealthyEndpoint { .. }
            | Self::Busy { .. }
            | Self::NoStream { .. }
            | Self::Refused(_)
            | Self::NoUpgrade
            | Self::RequestBody(_) => None,
            Self::Resolve { .. } | Self::Connect { .. } | Self::ConnectTimeout { .. } => {
                Some(Failure::Connect)
            }
            Self::Tls { .. } => Some(Failure::Tls),
            Self::Reset(_) | Self::ClosedAtOnce => Some(Failure::Reset),
            Self::ResponseTimeout => Some(Failure::Timeout),
            Self::BadResponse(_) | Self::UnfitResponse(_) => Some(Failure::BadResponse),
        }
    }

    /// Whether a request that failed of this was certainly not processed (RFC 9113 section 8.7).
    fn was_refused(error: &hyper::Error) -> bool {
        let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<h2::Error>());
        cause.is_some_and(|cause| {
            cause.is_remote() && (cause.is_go_away() || cause.reason() == Some(h2::Reason::REFUSED_STREAM))
        })
    }

    /// Whether the operating system or TLS reported an error, rather than hyper itself.
    pub(super) fn is_io(error: &hyper::Error) -> bool {
        std::error::Error::source(error).is_some_and(<dyn std::error::Error>::is::<std::io::Error>)
    }
}

impl From<hyper::Error> for UpstreamError {
    fn from(error: hyper::Error) -> Self {
        if error.is_parse() || error.is_parse_status() || error.is_parse_too_large() {
            Self::BadResponse(error)
        } else if Self::was_refused(&error) {
            Self::Refused(error)
        } else {
            Self::Reset(error)
        }
    }
}
