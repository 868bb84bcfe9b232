//! The codes: what the client should do. See [`super::Reason`] for what caused the refusal.

use std::fmt;

use http::StatusCode;

use super::Reason;

/// A public, stable refusal code. Its number, title and status are contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the table below gives each its title and summary")]
pub enum Code {
    MissingToken,
    MalformedCredentials,
    InvalidToken,
    InsufficientScope,
    AccessDenied,
    StepUpRequired,
    NoSuchRoute,
    MethodNotAllowed,
    BadRequest,
    RequestTooLarge,
    TooManyFailedAttempts,
    RequestTimeout,
    MisdirectedRequest,
    NotSupported,
    ClientClosed,
    KeysUnavailable,
    RevocationStatusUnavailable,
    IntrospectionUnavailable,
    UpstreamUnreachable,
    UpstreamTimeout,
    BadUpstreamResponse,
    NoHealthyUpstream,
    Overloaded,
    ShuttingDown,
    InternalError,
}

/// The `grpc-status` values that valgate gives (<https://grpc.io/docs/guides/status-codes/>).
mod grpc {
    pub const INVALID_ARGUMENT: u8 = 3;
    pub const DEADLINE_EXCEEDED: u8 = 4;
    pub const PERMISSION_DENIED: u8 = 7;
    pub const RESOURCE_EXHAUSTED: u8 = 8;
    pub const UNIMPLEMENTED: u8 = 12;
    pub const INTERNAL: u8 = 13;
    pub const UNAVAILABLE: u8 = 14;
    pub const UNAUTHENTICATED: u8 = 16;
}

struct Row {
    number: &'static str,
    title: &'static str,
    status: StatusCode,
    grpc: u8,
    summary: &'static str,
}

const fn row(
    number: &'static str,
    title: &'static str,
    status: StatusCode,
    grpc: u8,
    summary: &'static str,
) -> Row {
    Row { number, title, status, grpc, summary }
}

impl Code {
    /// All codes, in the order of their numbers.
    pub const ALL: [Self; 25] = [
        Self::MissingToken,
        Self::MalformedCredentials,
        Self::InvalidToken,
        Self::InsufficientScope,
        Self::AccessDenied,
        Self::StepUpRequired,
        Self::NoSuchRoute,
        Self::MethodNotAllowed,
        Self::BadRequest,
        Self::RequestTooLarge,
        Self::TooManyFailedAttempts,
        Self::RequestTimeout,
        Self::MisdirectedRequest,
        Self::NotSupported,
        Self::ClientClosed,
        Self::KeysUnavailable,
        Self::RevocationStatusUnavailable,
        Self::IntrospectionUnavailable,
        Self::UpstreamUnreachable,
        Self::UpstreamTimeout,
        Self::BadUpstreamResponse,
        Self::NoHealthyUpstream,
        Self::Overloaded,
        Self::ShuttingDown,
        Self::InternalError,
    ];

    #[rustfmt::skip]
    const fn row(self) -> Row {
        match self {
            Self::MissingToken => row("VAL-010", "Missing Token", StatusCode::UNAUTHORIZED, grpc::UNAUTHENTICATED,
                "The route requires a token and the request carried none."),
            Self::MalformedCredentials => row("VAL-011", "Malformed Credentials", StatusCode::BAD_REQUEST, grpc::INVALID_ARGUMENT,
                "The request carried credentials, but not one well-formed bearer token."),
            Self::InvalidToken => row("VAL-020", "Invalid Token", StatusCode::UNAUTHORIZED, grpc::UNAUTHENTICATED,
                "The token is not acceptable here: get a new one, for this API, from its issuer."),
            Self::InsufficientScope => row("VAL-030", "Insufficient Scope", StatusCode::FORBIDDEN, grpc::PERMISSION_DENIED,
                "The token is valid but lacks a scope that this route requires."),
            Self::AccessDenied => row("VAL-031", "Access Denied", StatusCode::FORBIDDEN, grpc::PERMISSION_DENIED,
                "The token is valid but a rule of this route denies access."),
            Self::StepUpRequired => row("VAL-032", "Step-up Required", StatusCode::UNAUTHORIZED, grpc::UNAUTHENTICATED,
                "Reserved: a fresher or stronger login is needed (RFC 9470)."),
            Self::NoSuchRoute => row("VAL-040", "No Such Route", StatusCode::NOT_FOUND, grpc::UNIMPLEMENTED,
                "No route of the gateway matches this host and path; what no route matches is refused."),
            Self::MethodNotAllowed => row("VAL-041", "Method Not Allowed", StatusCode::METHOD_NOT_ALLOWED, grpc::UNIMPLEMENTED,
                "The path is served, but not with this method; `Allow` lists the methods that are."),
            Self::BadRequest => row("VAL-042", "Bad Request", StatusCode::BAD_REQUEST, grpc::INVALID_ARGUMENT,
                "The request could be read in more than one way, or is not valid HTTP, and is refused rather than guessed at."),
            Self::RequestTooLarge => row("VAL-043", "Request Too Large", StatusCode::PAYLOAD_TOO_LARGE, grpc::RESOURCE_EXHAUSTED,
                "A part of the request is larger than the gateway allows."),
            Self::TooManyFailedAttempts => row("VAL-044", "Too Many Failed Attempts", StatusCode::TOO_MANY_REQUESTS, grpc::RESOURCE_EXHAUSTED,
                "Too many forged, malformed or unknown tokens came from this client."),
            Self::RequestTimeout => row("VAL-045", "Request Timeout", StatusCode::REQUEST_TIMEOUT, grpc::DEADLINE_EXCEEDED,
                "The client took too long to send the request."),
            Self::MisdirectedRequest => row("VAL-046", "Misdirected Request", StatusCode::MISDIRECTED_REQUEST, grpc::INVALID_ARGUMENT,
                "The request's host is not the one that the TLS connection was made for."),
            Self::NotSupported => row("VAL-047", "Not Supported", StatusCode::NOT_IMPLEMENTED, grpc::UNIMPLEMENTED,
                "The request uses a feature of HTTP that the gateway does not carry."),
            Self::ClientClosed => row("VAL-049", "Client Closed", client_closed_request(), grpc::UNAVAILABLE,
                "The client went away before the response was complete; seen in logs only."),
            Self::KeysUnavailable => row("VAL-050", "Keys Unavailable", StatusCode::SERVICE_UNAVAILABLE, grpc::UNAVAILABLE,
                "The issuer's signing keys cannot be had at the moment, so the token could not be judged. The token is not at fault."),
            Self::RevocationStatusUnavailable => row("VAL-051", "Revocation Status Unavailable", StatusCode::SERVICE_UNAVAILABLE, grpc::UNAVAILABLE,
                "Whether the token was revoked cannot be told at the moment. The token is not at fault."),
            Self::IntrospectionUnavailable => row("VAL-052", "Introspection Unavailable", StatusCode::SERVICE_UNAVAILABLE, grpc::UNAVAILABLE,
                "The issuer's introspection endpoint cannot be reached. The token is not at fault."),
            Self::UpstreamUnreachable => row("VAL-060", "Upstream Unreachable", StatusCode::BAD_GATEWAY, grpc::UNAVAILABLE,
                "The request was allowed, but the API behind the gateway could not be reached."),
            Self::UpstreamTimeout => row("VAL-061", "Upstream Timeout", StatusCode::GATEWAY_TIMEOUT, grpc::DEADLINE_EXCEEDED,
                "The request was allowed, but the API behind the gateway did not answer in time."),
            Self::BadUpstreamResponse => row("VAL-062", "Bad Upstream Response", StatusCode::BAD_GATEWAY, grpc::UNAVAILABLE,
                "The request was allowed, but the API behind the gateway answered with something that is not valid HTTP."),
            Self::NoHealthyUpstream => row("VAL-063", "No Healthy Upstream", StatusCode::SERVICE_UNAVAILABLE, grpc::UNAVAILABLE,
                "The request was allowed, but no endpoint of the API behind the gateway is healthy."),
            Self::Overloaded => row("VAL-064", "Overloaded", StatusCode::SERVICE_UNAVAILABLE, grpc::UNAVAILABLE,
                "The gateway sheds load rather than queue without bound."),
            Self::ShuttingDown => row("VAL-070", "Shutting Down", StatusCode::SERVICE_UNAVAILABLE, grpc::UNAVAILABLE,
                "This gateway is stopping; another one will take the request."),
            Self::InternalError => row("VAL-090", "Internal Error", StatusCode::INTERNAL_SERVER_ERROR, grpc::INTERNAL,
                "A defect in the gateway. The request was not forwarded."),
        }
    }

    /// `VAL-020`.
    pub const fn number(self) -> &'static str {
        self.row().number
    }

    /// `Invalid Token`.
    pub const fn title(self) -> &'static str {
        self.row().title
    }

    /// The usual HTTP status; some reasons have one of their own, see [`Reason::status`].
    pub const fn status(self) -> StatusCode {
        self.row().status
    }

    /// The usual `grpc-status`; some reasons have one of their own, see [`Reason::grpc_status`].
    pub const fn grpc_status(self) -> u8 {
        self.row().grpc
    }

    /// One sentence for a person.
    pub const fn summary(self) -> &'static str {
        self.row().summary
    }

    /// The code with this number; `VAL-` and case are optional.
    pub fn find(number: &str) -> Option<Self> {
        let digits = number.trim().to_ascii_uppercase();
        let digits = digits.strip_prefix("VAL-").unwrap_or(&digits).to_owned();
        Self::ALL.into_iter().find(|code| code.number().strip_prefix("VAL-") == Some(digits.as_str()))
    }

    /// The reasons for which this code is given.
    pub fn reasons(self) -> impl Iterator<Item = Reason> {
        Reason::ALL.iter().copied().filter(move |reason| reason.code() == self)
    }
}

/// `VAL-020 - Invalid Token`, as text, the command line and logs show it.
impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} - {}", self.number(), self.title())
    }
}

/// 499, nginx's status for a client that went away; never sent, since nobody is there to read it.
const fn client_closed_request() -> StatusCode {
    match StatusCode::from_u16(499) {
        Ok(status) => status,
        Err(_) => StatusCode::BAD_REQUEST,
    }
}
