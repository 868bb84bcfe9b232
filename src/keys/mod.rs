//! Signature keys: algorithms, JWK sets, and the set of one issuer as the data plane sees it.
//!
//! Keys belong to one issuer; there is no lookup across issuers. Fetching is `feeds`' business.

mod algorithm;
mod jwk;
mod key;
mod set;
mod source;
#[cfg(test)]
pub(crate) mod testing;
mod unknown;

pub use algorithm::Algorithm;
pub use jwk::{JwksError, JwksLimits, ParsedSet, SkippedKey, Unusable, parse_jwks};
pub use key::{KeyMaterial, Kid, Thumbprint, VerificationKey};
pub use set::{KeyMiss, KeySet};
pub use source::{KeyFeedHandle, KeySource, KeySourceSettings, KeyState, LookAgain};
