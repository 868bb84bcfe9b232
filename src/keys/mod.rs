//! Signature keys: algorithms, JWK sets, and the set of one issuer as the data plane sees it.
//!
//! Keys belong to one issuer; there is no lookup across issuers. Fetching is `feeds`' business.

mod algorithm;

pub use algorithm::Algorithm;
