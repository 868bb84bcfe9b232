//! From the bytes of a JWK set (RFC 7517) to keys that are fit to verify with.
//!
//! One unusable key is skipped and named, never the whole set; what is no set at all, or holds nothing usable, is an
//! error, so that it cannot replace good keys. The crate `jsonwebtoken` models a single key; what it is too lenient
//! about (duplicate members, sizes, encodings, sound numbers) is checked here and in [`VerificationKey::new`].

mod members;
#[cfg(test)]
mod tests;

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, KeyOperations, PublicKeyUse};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Algorithm, KeyMaterial, Kid, VerificationKey};
use members::Members;

/// How large a set may be.
#[derive(Clone, Copy, Debug)]
pub struct JwksLimits {
    /// Bytes of the document.
    pub bytes: usize,
    /// Keys in the set, usable or not.
    pub keys: usize,
}

impl Default for JwksLimits {
    /// 1 MiB and 512 keys: the largest public sets have some dozens.
    fn default() -> Self {
        Self { bytes: 1 << 20, keys: 512 }
    }
}

/// What a set held.
#[derive(Debug)]
pub struct ParsedSet {
    /// The usable keys, in the set's order; never empty.
    pub keys: Vec<VerificationKey>,
    /// The others.
    pub skipped: Vec<SkippedKey>,
    /// The keys whose private half the issuer published too. They are used, since refusing them would turn the
    /// issuer's leak into an outage, but whoever runs the issuer must hear of it.
    pub leaked: Vec<Option<Kid>>,
}

/// A key that is not used, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkippedKey {
    /// Its identifier, where it could be read.
    pub kid: Option<Kid>,
    /// What is wrong with it.
    pub why: Unusable,
}

/// Why a whole set is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum JwksError {
    #[error("the key set has {actual} bytes; at most {limit} are accepted")]
    TooLarge { actual: usize, limit: usize },
    #[error("the key set is not JSON ({at}); the URL probably leads to another document")]
    NotJson { at: String },
    #[error("the document is JSON but no JWK set: it needs one member 'keys' that is an array ({at})")]
    NotASet { at: String },
    #[error("the key set has {actual} keys; at most {limit} are accepted")]
    TooManyKeys { actual: usize, limit: usize },
    #[error("the key set is empty; an empty set never replaces good keys")]
    Empty,
    #[error("the key set has no usable key: {}", list(.skipped))]
    NothingUsable { skipped: Vec<SkippedKey> },
}

/// Why one key of a set is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
#[non_exhaustive]
pub enum Unusable {
    #[error("it is not a JSON object")]
    NotAnObject,
    #[error("its member '{0}' stands there twice")]
    DuplicateMember(String),
    #[error("its member '{0}' is missing or is not a string")]
    NotAString(&'static str),
    #[error("its kid has more than 512 bytes")]
    KidTooLong,
    #[error("its member 'key_ops' is not an array of strings")]
    KeyOperationsNotAnArray,
    #[error("it is symmetric (kty oct); a published secret is none, and shared secrets are not accepted")]
    Symmetric,
    #[error("its type (kty) {0} is not supported")]
    Type(String),
    #[error("its curve (crv) {0} is not supported for its type")]
    Curve(String),
    #[error("its algorithm (alg) {0} is not supported")]
    Algorithm(String),
    #[error("its algorithm (alg) does not fit its type or curve")]
    AlgorithmDoesNotFit,
    #[error("none of its algorithms is among those configured for the issuer")]
    AlgorithmNotAccepted,
    #[error("its use is not 'sig'")]
    NotForSignatures,
    #[error("its key_ops do not include 'verify'")]
    NotForVerification,
    #[error("its member '{0}' is not base64url without padding")]
    NotBase64(&'static str),
    #[error("its modulus has {bits} bits; at least 2048 are needed")]
    ModulusTooSmall { bits: usize },
    #[error("its modulus has {bits} bits; at most 8192 are accepted")]
    ModulusTooLarge { bits: usize },
    #[error("its exponent is even, less than 65537, or too large")]
    WeakExponent,
    #[error("its coordinate {name} has {actual} bytes instead of {expected}")]
    CoordinateLength { name: &'static str, actual: usize, expected: usize },
    #[error("its point is not on the curve")]
    NotOnCurve,
    #[error("its point is of small order: anyone could sign")]
    WeakPoint,
    #[error("its numbers are not a key")]
    NotAKey,
    #[error("another key has the same kid and algorithm; which of them a token means cannot be told")]
    AmbiguousKid,
}

impl Unusable {
    /// The names of [`Self::name`], for metrics.
    pub const NAMES: [&'static str; 7] =
        ["malformed", "symmetric", "unsupported", "not_accepted", "other_use", "weak", "ambiguous_kid"];

    /// What is wrong in a word, of a small set.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::NotAnObject
            | Self::DuplicateMember(_)
            | Self::NotAString(_)
            | Self::KidTooLong
            | Self::KeyOperationsNotAnArray
            | Self::NotBase64(_)
            | Self::CoordinateLength { .. }
            | Self::AlgorithmDoesNotFit
            | Self::NotAKey => "malformed",
            Self::Symmetric => "symmetric",
            Self::Type(_) | Self::Curve(_) | Self::Algorithm(_) => "unsupported",
            Self::AlgorithmNotAccepted => "not_accepted",
            Self::NotForSignatures | Self::NotForVerification => "other_use",
            Self::ModulusTooSmall { .. }
            | Self::ModulusTooLarge { .. }
            | Self::WeakExponent
            | Self::NotOnCurve
            | Self::WeakPoint => "weak",
            Self::AmbiguousKid => "ambiguous_kid",
        }
    }
}

/// Reads a JWK set, keeping the keys that can serve one of the `accepted` algorithms.
///
/// Keys that share a `kid` stay if no algorithm is common to them, or if they are the same key; otherwise a token
/// could mean either, and neither is used.
///
/// # Errors
/// See [`JwksError`].
pub fn parse_jwks(bytes: &[u8], accepted: &[Algorithm], limits: JwksLimits) -> Result<ParsedSet, JwksError> {
    if bytes.len() > limits.bytes {
        return Err(JwksError::TooLarge { actual: bytes.len(), limit: limits.bytes });
    }
    let document: Document<'_> = serde_json::from_slice(bytes).map_err(|error| {
        let at = format!("line {}, column {}", error.line(), error.column());
        if error.is_data() { JwksError::NotASet { at } } else { JwksError::NotJson { at } }
    })?;
    if document.keys.is_empty() {
        return Err(JwksError::Empty);
    }
    if document.keys.len() > limits.keys {
        return Err(JwksError::TooManyKeys { actual: document.keys.len(), limit: limits.keys });
    }
    let mut set = ParsedSet { keys: Vec::new(), skipped: Vec::new(), leaked: Vec::new() };
    for raw in document.keys {
        let members = match Members::read(raw.get()) {
            Ok(members) => members,
            Err(why) => {
                set.skipped.push(SkippedKey { kid: None, why });
                continue;
            }
        };
        if members.has_private_half() {
            set.leaked.push(members.kid());
        }
        match usable_key(&members, accepted) {
            Ok(key) => set.keys.push(key),
            Err(why) => set.skipped.push(SkippedKey { kid: members.kid(), why }),
        }
    }
    set.drop_ambiguous();
    if set.keys.is_empty() {
        return Err(JwksError::NothingUsable { skipped: set.skipped });
    }
    Ok(set)
}

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    keys: Vec<&'a RawValue>,
}

impl ParsedSet {
    fn drop_ambiguous(&mut self) {
        let ambiguous: Vec<bool> = self
            .keys
            .iter()
            .map(|key| key.kid().is_some() && self.keys.iter().any(|other| confusable(key, other)))
            .collect();
        let mut ambiguous = ambiguous.into_iter();
        self.keys.retain(|key| {
            let drop = ambiguous.next().unwrap_or(true);
            if drop {
                self.skipped.push(SkippedKey { kid: key.kid().map(Into::into), why: Unusable::AmbiguousKid });
            }
            !drop
        });
    }
}

fn confusable(one: &VerificationKey, other: &VerificationKey) -> bool {
    one.kid() == other.kid()
        && one.thumbprint() != other.thumbprint()
        && one.algorithms().iter().any(|algorithm| other.algorithms().contains(algorithm))
}

fn usable_key(members: &Members, accepted: &[Algorithm]) -> Result<VerificationKey, Unusable> {
    let jwk = members.model()?;
    if jwk.common.public_key_use.is_some_and(|purpose| purpose != PublicKeyUse::Signature) {
        return Err(Unusable::NotForSignatures);
    }
    if jwk.common.key_operations.is_some_and(|operations| !operations.contains(&KeyOperations::Verify)) {
        return Err(Unusable::NotForVerification);
    }
    let material = match &jwk.algorithm {
        AlgorithmParameters::RSA(rsa) => {
            KeyMaterial::Rsa { n: decode("n", &rsa.n)?, e: decode("e", &rsa.e)? }
        }
        AlgorithmParameters::EllipticCurve(ec) => {
            let (x, y) = (decode("x", &ec.x)?, decode("y", &ec.y)?);
            match ec.curve {
                EllipticCurve::P256 => KeyMaterial::P256 { x, y },
                EllipticCurve::P384 => KeyMaterial::P384 { x, y },
                EllipticCurve::P521 => KeyMaterial::P521 { x, y },
                _ => return Err(members.unsupported()),
            }
        }
        AlgorithmParameters::OctetKeyPair(okp) if okp.curve == EllipticCurve::Ed25519 => {
            KeyMaterial::Ed25519 { x: decode("x", &okp.x)? }
        }
        _ => return Err(members.unsupported()),
    };
    let own = members.algorithm()?;
    let key = VerificationKey::new(members.kid(), &material, own.as_ref().map(std::slice::from_ref))?;
    let served: Vec<Algorithm> = key
        .algorithms()
        .iter()
        .copied()
        .filter(|algorithm| accepted.iter().any(|other| other.same_as(*algorithm)))
        .collect();
    match served.len() {
        0 => Err(Unusable::AlgorithmNotAccepted),
        all if all == key.algorithms().len() => Ok(key),
        _ => VerificationKey::new(members.kid(), &material, Some(&served)),
    }
}

fn decode(name: &'static str, text: &str) -> Result<Vec<u8>, Unusable> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| Unusable::NotBase64(name))
}

fn list(skipped: &[SkippedKey]) -> String {
    let mut shown: Vec<String> = skipped.iter().take(SHOWN_KEYS).map(ToString::to_string).collect();
    if skipped.len() > SHOWN_KEYS {
        shown.push(format!("and {} more", skipped.len() - SHOWN_KEYS));
    }
    shown.join("; ")
}

/// `key "2024-01": its use is not 'sig'`; a `kid` is foreign text, so it is quoted, escaped and cut.
impl fmt::Display for SkippedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kid {
            Some(kid) => write!(f, "key {}: {}", quoted(kid), self.why),
            None => write!(f, "a key without kid: {}", self.why),
        }
    }
}

/// Foreign text, fit for a log line or a message.
fn quoted(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARACTERS) {
        Some((end, _)) => format!("{:?}...", text.get(..end).unwrap_or_default()),
        None => format!("{text:?}"),
    }
}

/// Enough to see what is wrong; a set of hundreds must not fill a log line.
const SHOWN_KEYS: usize = 5;
const SHOWN_CHARACTERS: usize = 64;
