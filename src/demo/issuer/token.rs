//! Tokens of the development issuer: good by default, and bent in whatever way a refusal is to be shown.
//!
//! Knows nothing of how the gateway judges them.

use aws_lc_rs::hmac;
use serde_json::{Map, Value};

use super::SigningKey;
use super::keys::base64url;

/// Which of the issuer's keys signs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyChoice {
    /// The ES256 key that it signs with at present.
    #[default]
    Current,
    /// The ES256 key that the next rotation brings into use; not published before.
    Next,
    /// The RS256 key, which rotation leaves alone.
    Rsa,
}

/// What a token shall say where it differs from an ordinary access token of this issuer.
#[derive(Clone, Debug, Default)]
pub struct TokenRequest {
    pub(super) claims: Map<String, Value>,
    pub(super) header: Map<String, Value>,
    pub(super) key: KeyChoice,
}

impl TokenRequest {
    /// An ordinary token: `iss`, `aud`, `sub`, `client_id`, `scope`, `jti`, `iat`, `exp`.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a claim; `Value::Null` leaves it out.
    #[must_use]
    pub fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.claims.insert(name.to_owned(), value.into());
        self
    }

    /// Sets a member of the header; `Value::Null` leaves it out.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.header.insert(name.to_owned(), value.into());
        self
    }

    /// Signs with another of the issuer's keys.
    #[must_use]
    pub fn key(mut self, key: KeyChoice) -> Self {
        self.key = key;
        self
    }
}

/// A compact JWS (RFC 7515 section 7.1) over exactly these bytes, whether they make sense or not.
pub fn sign_raw(header: &str, payload: &str, key: &SigningKey) -> anyhow::Result<String> {
    let signing_input = signing_input(header, payload);
    let signature = key.sign(signing_input.as_bytes())?;
    Ok(format!("{signing_input}.{}", base64url(&signature)))
}

/// A compact JWS with HMAC-SHA-256 under `secret`: what an attacker makes who hopes that the gateway takes a
/// public key for a shared secret (RFC 8725 section 2.1).
pub fn sign_hmac(header: &str, payload: &str, secret: &[u8]) -> String {
    let signing_input = signing_input(header, payload);
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), signing_input.as_bytes());
    format!("{signing_input}.{}", base64url(tag.as_ref()))
}

/// `defaults`, changed as `overrides` say.
pub(super) fn merge(mut defaults: Map<String, Value>, overrides: &Map<String, Value>) -> Map<String, Value> {
    for (name, value) in overrides {
        if value.is_null() {
            defaults.remove(name);
        } else {
            defaults.insert(name.clone(), value.clone());
        }
    }
    defaults
}

fn signing_input(header: &str, payload: &str) -> String {
    format!("{}.{}", base64url(header.as_bytes()), base64url(payload.as_bytes()))
}
