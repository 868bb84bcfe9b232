//! The key that signs answers, for gateways that reach the server over a transport that is not to be trusted.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};

/// The media type of a signed answer, and without `application/` its `typ`.
pub(super) const SIGNED: &str = "application/valgate-feed+jwt";

/// Signs answers as an issuer, for an audience.
pub struct FeedSigner {
    pair: Pair,
    kid: String,
    issuer: String,
    audience: String,
}

enum Pair {
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl FeedSigner {
    /// Signs with the PKCS#8 private key (P-256 or Ed25519) in this PEM text.
    ///
    /// # Errors
    /// What is wrong with the key.
    pub fn from_pem(pem: &[u8], issuer: String, audience: String) -> Result<Self, &'static str> {
        let key = PrivatePkcs8KeyDer::from_pem_slice(pem).map_err(
            |_| "it is not a PKCS#8 private key in PEM: make one by 'openssl genpkey -algorithm ed25519'",
        )?;
        let key = key.secret_pkcs8_der();
        let pair = Ed25519KeyPair::from_pkcs8(key)
            .map(Pair::Ed25519)
            .or_else(|_| EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key).map(Pair::P256))
            .map_err(|_| "it is neither an Ed25519 nor a P-256 key")?;
        let public = match &pair {
            Pair::P256(pair) => digest(&SHA256, pair.public_key().as_ref()),
            Pair::Ed25519(pair) => digest(&SHA256, pair.public_key().as_ref()),
        };
        let kid = encoded(public.as_ref().get(..12).unwrap_or_default());
        Ok(Self { pair, kid, issuer, audience })
    }

    /// The public key as a JWK set (RFC 7517 section 5).
    pub fn jwks(&self) -> Value {
        let key = match &self.pair {
            Pair::Ed25519(pair) => json!({
                "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": self.kid,
                "x": encoded(pair.public_key().as_ref()),
            }),
            Pair::P256(pair) => {
                // Uncompressed: 4, x, y (SEC 1 section 2.3.3).
                let point = pair.public_key().as_ref().get(1..).unwrap_or_default();
                let (x, y) = point.split_at(point.len() / 2);
                json!({
                    "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": self.kid,
                    "x": encoded(x), "y": encoded(y),
                })
            }
        };
        json!({ "keys": [key] })
    }

    /// The members that a signed document has beside the usual.
    pub(super) fn claims(&self, now: i64, serial: u64) -> [(&'static str, Value); 4] {
        [
            ("iss", self.issuer.as_str().into()),
            ("aud", self.audience.as_str().into()),
            ("iat", now.into()),
            ("serial", serial.into()),
        ]
    }

    /// The document as a compact JWS (RFC 7515 section 7.1); `None` if it cannot be signed.
    pub(super) fn sign(&self, document: &[u8]) -> Option<String> {
        let algorithm = match self.pair {
            Pair::P256(_) => "ES256",
            Pair::Ed25519(_) => "EdDSA",
        };
        let header = json!({ "typ": "valgate-feed+jwt", "alg": algorithm, "kid": self.kid }).to_string();
        let mut jws = format!("{}.{}", encoded(header.as_bytes()), encoded(document));
        let signature = match &self.pair {
            Pair::P256(pair) => pair.sign(&SystemRandom::new(), jws.as_bytes()).ok()?.as_ref().to_vec(),
            Pair::Ed25519(pair) => pair.sign(jws.as_bytes()).as_ref().to_vec(),
        };
        jws.push('.');
        jws.push_str(&encoded(&signature));
        Some(jws)
    }
}

impl fmt::Debug for FeedSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FeedSigner")
            .field("kid", &self.kid)
            .field("issuer", &self.issuer)
            .finish_non_exhaustive()
    }
}

fn encoded(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
