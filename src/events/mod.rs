//! What identity providers tell about sessions and accounts, as revocations.
//!
//! Security Event Tokens (RFC 8417; CAEP and RISC as profiled by SSF 1.0) and `OpenID` Connect logout tokens come
//! with their claims verified (see [`crate::token::verify_statement`]) and leave as
//! [`Revocation`](crate::revocation::Revocation) values. The [`Inbox`] is how the data plane hands what it received to the task that owns a feed. Pure: knows
//! neither HTTP nor files.
//!
//! ```text
//! claims -> SecurityEvent::read | LogoutToken::read -> revocations -> index of the feed
//! ```

mod inbox;
mod logout_token;
mod replay;
mod security_event;
mod subject;

pub use inbox::{Body, Delivery, Inbox, Mail, Receipt, Refusal};
pub use logout_token::LogoutToken;
pub use replay::Seen;
pub use security_event::{EventRules, Notice, SecurityEvent};
pub use subject::SubjectMapping;

/// Why the claims of a statement are not accepted (RFC 8935 section 2.4: the codes are the standard's).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The registered error code.
    pub code: &'static str,
    /// What is wrong and what to do, for whoever runs the sender. Quotes nothing from the statement.
    pub description: String,
}

impl Fault {
    /// A fault with a registered code.
    pub fn new(code: &'static str, description: impl Into<String>) -> Self {
        Self { code, description: description.into() }
    }
}

const INVALID_REQUEST: &str = "invalid_request";
const INVALID_ISSUER: &str = "invalid_issuer";
const INVALID_AUDIENCE: &str = "invalid_audience";
