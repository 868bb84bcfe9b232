//! Bearer tokens: from bytes that a stranger sent to claims that an issuer stands behind.
//!
//! Sans-I/O: [`Verifier::verify`] answers *verified*, *refused*, or *needs* (this issuer's keys, freshly, or its word
//! on this token), and the caller does the waiting. `jsonwebtoken` and `aws-lc-rs` check signatures; every claim check is ours, total and
//! strictly typed, since libraries tend to take an absent or oddly typed claim for a passed one. Knows nothing of
//! HTTP, of revocation, of routes.

mod bearer;
mod checks;
mod claims;
mod compact;
mod header;
mod introspection;
mod issuer;
mod json;
mod opaque;
mod statement;
#[cfg(test)]
mod tests;
mod verified;
mod verify;

pub use bearer::{BearerToken, Fingerprint, Presented};
pub use checks::{Check, CollectAll, Examiner, FailFast, Finding};
pub use claims::{Claims, scalar_text};
pub use compact::Compact;
pub use header::Header;
pub use introspection::{
    ActiveToken, Answer, Ask, Asks, IntrospectedTokens, Introspection, Introspector, TokenText, unavailable,
};
pub use issuer::{Audiences, Binding, Expectations, Issuer, IssuerId, IssuerSet, Issuers, Profile};
pub use json::object as json_object;
pub use statement::{StatementFault, StatementRules, verify_payload, verify_statement};
pub use verified::VerifiedToken;
pub use verify::{Inputs, LookedAgain, Need, Verdict, Verifier};
