//! What a peer did wrong on the wire.

use std::fmt;

use crate::catalogue::Reason;
use crate::rejection::Rejection;

/// A breach of HTTP/1.1's rules, or of those that the guard adds to leave one reading only.
///
/// The detail is fixed text: nothing that the peer sent can get into a log or an answer through it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation {
    reason: Reason,
    detail: &'static str,
}

impl Violation {
    pub(super) const fn new(reason: Reason, detail: &'static str) -> Self {
        Self { reason, detail }
    }

    /// Where the body ends is in doubt.
    pub(super) const fn framing(detail: &'static str) -> Self {
        Self::new(Reason::AmbiguousFraming, detail)
    }

    pub(super) const fn header(detail: &'static str) -> Self {
        Self::new(Reason::IllegalHeader, detail)
    }

    pub(super) const fn target(detail: &'static str) -> Self {
        Self::new(Reason::IllegalTarget, detail)
    }

    pub(super) const fn malformed(detail: &'static str) -> Self {
        Self::new(Reason::MalformedRequest, detail)
    }

    pub(super) const fn headers_too_large(detail: &'static str) -> Self {
        Self::new(Reason::HeadersTooLarge, detail)
    }

    /// The cause, as the error catalogue names it.
    pub const fn reason(self) -> Reason {
        self.reason
    }

    /// What exactly was wrong, in a clause; fit for the client and for the log.
    pub const fn detail(self) -> &'static str {
        self.detail
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason.name(), self.detail)
    }
}

impl std::error::Error for Violation {}

impl From<Violation> for Rejection {
    fn from(violation: Violation) -> Self {
        Self::new(violation.reason).hint(format!("The request cannot be accepted: {}.", violation.detail))
    }
}
