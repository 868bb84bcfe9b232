//! Signed statements of an issuer that are no access tokens: security events, logout tokens, signed feeds.
//!
//! Each kind is asked for by its type (RFC 8725 section 3.11), so that none passes for another, and none of these
//! types is one that [`super::Verifier`] accepts. Keys are chosen as for access tokens. Knows nothing of what a
//! statement says.

use std::fmt;

use super::claims::Claims;
use super::compact::Compact;
use super::json;
use crate::clock::{Clock, Monotonic};
use crate::keys::{Algorithm, KeyMiss, KeySource, KeyState, LookAgain};

/// What a statement must be.
#[derive(Clone, Debug)]
pub struct StatementRules {
    /// Accepted types (header `typ`), in lower case and without `application/`.
    pub types: &'static [&'static str],
    /// Whether one without type, or of the type `JWT`, is accepted too.
    pub allow_untyped: bool,
    /// Accepted algorithms.
    pub algorithms: Vec<Algorithm>,
}

/// Why a statement is not believed. Shown to whoever sent it: names no key and quotes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StatementFault {
    /// Not a compact JWS with JSON claims; in words.
    Malformed(String),
    /// Of another type (`typ`).
    WrongType,
    /// Signed with an algorithm that is not accepted, or that does not fit the key.
    AlgorithmNotAllowed,
    /// Signed with a key that the issuer does not publish.
    UnknownKey,
    /// The signature does not match.
    SignatureMismatch,
    /// The issuer's keys cannot be had: nobody's fault but the provider's.
    KeysUnavailable,
}

impl fmt::Display for StatementFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(why) => write!(f, "it is malformed: {why}"),
            Self::WrongType => f.write_str("its type (header typ) is not the one that is expected here"),
            Self::AlgorithmNotAllowed => {
                f.write_str("its algorithm (alg) is not accepted, or does not fit the key")
            }
            Self::UnknownKey => f.write_str("it names a key (kid) that its issuer does not publish"),
            Self::SignatureMismatch => f.write_str("its signature does not match"),
            Self::KeysUnavailable => f.write_str("the issuer's keys cannot be had at the moment"),
        }
    }
}

/// The claims of a statement that the owner of these keys signed; see [`verify_payload`].
///
/// # Errors
/// [`StatementFault`]
pub async fn verify_statement(
    text: &str,
    rules: &StatementRules,
    keys: &KeySource,
    clock: &Clock,
) -> Result<Claims, StatementFault> {
    let payload = verify_payload(text, rules, keys, clock).await?;
    json::object(&payload)
        .map(Claims::new)
        .map_err(|why| StatementFault::Malformed(format!("its claims are {why}")))
}

/// The payload of a statement that the owner of these keys signed, whatever is in it. Asks for the keys once more,
/// together with all others who do, if the one that the statement names is not known; or if it names none and the one
/// that fits did not sign it, as after a rotation.
///
/// # Errors
/// [`StatementFault`]
pub async fn verify_payload(
    text: &str,
    rules: &StatementRules,
    keys: &KeySource,
    clock: &Clock,
) -> Result<Vec<u8>, StatementFault> {
    let first = judge(text, rules, &keys.current(), clock.monotonic());
    let kid = Compact::parse(text).ok().and_then(|compact| compact.header.key_id);
    match first {
        Err(StatementFault::UnknownKey | StatementFault::KeysUnavailable) => {}
        Err(StatementFault::SignatureMismatch) if kid.is_none() => {}
        judged => return judged,
    }
    match keys.look_again(kid.as_deref()).await {
        LookAgain::Refreshed => judge(text, rules, &keys.current(), clock.monotonic()),
        LookAgain::Failed | LookAgain::TimedOut => Err(StatementFault::KeysUnavailable),
    }
}

fn judge(
    text: &str,
    rules: &StatementRules,
    keys: &KeyState,
    now: Monotonic,
) -> Result<Vec<u8>, StatementFault> {
    let compact = Compact::parse(text).map_err(StatementFault::Malformed)?;
    let fits = match compact.header.media_type().as_deref() {
        None | Some("jwt") => rules.allow_untyped,
        Some(kind) => rules.types.contains(&kind),
    };
    if !fits {
        return Err(StatementFault::WrongType);
    }
    let algorithm = Algorithm::from_name(&compact.header.algorithm)
        .filter(|algorithm| rules.algorithms.iter().any(|accepted| accepted.same_as(*algorithm)))
        .ok_or(StatementFault::AlgorithmNotAllowed)?;
    let set = keys.keys(now).ok_or(StatementFault::KeysUnavailable)?;
    let key = set.select(compact.header.key_id.as_deref(), algorithm).map_err(|miss| match miss {
        KeyMiss::AlgorithmMismatch => StatementFault::AlgorithmNotAllowed,
        KeyMiss::NoKid | KeyMiss::UnknownKid => StatementFault::UnknownKey,
    })?;
    if key.verify(algorithm, compact.signing_input, &compact.signature) {
        Ok(compact.payload)
    } else {
        Err(StatementFault::SignatureMismatch)
    }
}
