//! Revocations in a key-value bucket of NATS `JetStream` (docs/revocation-nats.md): one key for each fact, so that the
//! bucket is the snapshot and its stream the changes.

mod engine;
mod source;

use aws_lc_rs::digest::{Context, SHA256};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use crate::revocation::{Fact, Target};

pub use engine::NatsEngine;
pub(super) use source::NatsSource;

/// The key of a fact: the kind, and a hash, since values may hold what keys may not, and keys show in many places. Bare
/// revocations and cut-offs of one fact stand beside each other, since neither covers the other.
fn key(fact: &Fact, is_cutoff: bool) -> String {
    let (kind, value) = match &fact.target {
        Target::Jti(value) => ("jti", value.as_str()),
        Target::Sid(value) => ("sid", value.as_str()),
        Target::Sub(value) => ("sub", value.as_str()),
        Target::Client(value) => ("client", value.as_str()),
        Target::Kid(value) => ("kid", value.as_str()),
        Target::Issuer => ("all", ""),
    };
    let mut context = Context::new(&SHA256);
    context.update(fact.issuer.as_deref().unwrap_or_default().as_bytes());
    context.update(b"\n");
    context.update(value.as_bytes());
    let hash = BASE64_URL_SAFE_NO_PAD.encode(context.finish());
    format!("{kind}{}.{hash}", if is_cutoff { "-before" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_the_documented_one() {
        // printf '\n0b6a4c1e' | openssl dgst -sha256 -binary | base64 | tr '+/' '-_' | tr -d =
        let fact = Fact { target: Target::Jti("0b6a4c1e".to_owned()), issuer: None };
        assert_eq!(key(&fact, false), "jti.5ttZ19ezQLa5isPFqv5JF3I6qcmjT25-RJgJLdoUhhA");
        assert_eq!(key(&Fact { issuer: Some("i".to_owned()), ..fact }, true).len(), "jti-before.".len() + 43);
    }
}
