//! Tokens: good by default, and bent as a test wants.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};
use valgate::clock::Clock;

use super::Signer;

/// The `iss` of [`Token::new`].
pub const ISSUER: &str = "https://id.example.com/";

/// A token to be signed.
#[derive(Clone, Debug)]
pub struct Token {
    /// The members of its header besides `alg` and `kid`, or in their place.
    pub header: Map<String, Value>,
    /// Its claims.
    pub claims: Map<String, Value>,
}

impl Token {
    /// An ordinary access token of [`ISSUER`] for the audience `orders-api`, issued a minute ago and good for an
    /// hour, with a `jti` of its own.
    pub fn new() -> Self {
        let mut random = [0; 8];
        aws_lc_rs::rand::fill(&mut random).unwrap();
        let claims = json!({
            "iss": ISSUER,
            "aud": "orders-api",
            "sub": "alice",
            "client_id": "shop",
            "scope": "orders:read",
            "jti": base64url(&random),
            "iat": now() - 60,
            "exp": now() + 3600,
        });
        let Value::Object(claims) = claims else { unreachable!() };
        Self { header: Map::new(), claims }
    }

    /// Sets a claim.
    #[must_use]
    pub fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.claims.insert(name.to_owned(), value.into());
        self
    }

    /// Leaves a claim out.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.claims.remove(name);
        self
    }

    /// Sets a member of the header; null leaves it out.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.header.insert(name.to_owned(), value.into());
        self
    }

    /// The claim as text.
    pub fn text(&self, name: &str) -> String {
        self.claims[name].as_str().unwrap().to_owned()
    }

    /// Signs it.
    pub fn sign(&self, signer: &Signer) -> String {
        jws(self.header_text(signer), self.claims_text(), signer)
    }

    /// The header as JSON.
    pub fn header_text(&self, signer: &Signer) -> String {
        let mut header = Map::new();
        header.insert("alg".to_owned(), signer.algorithm.into());
        header.insert("kid".to_owned(), signer.kid.as_str().into());
        header.extend(self.header.clone());
        header.retain(|_, value| !value.is_null());
        Value::Object(header).to_string()
    }

    /// The claims as JSON.
    pub fn claims_text(&self) -> String {
        Value::Object(self.claims.clone()).to_string()
    }
}

/// A compact JWS over exactly these bytes.
pub fn jws(header: impl AsRef<[u8]>, claims: impl AsRef<[u8]>, signer: &Signer) -> String {
    let input = format!("{}.{}", base64url(header.as_ref()), base64url(claims.as_ref()));
    let signature = signer.sign(input.as_bytes());
    format!("{input}.{}", base64url(&signature))
}

/// Seconds since 1970.
pub fn now() -> i64 {
    Clock::system().wall().0
}

/// Base64url without padding (RFC 7515 section 2).
pub fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
