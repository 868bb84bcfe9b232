//! The development issuer's signing keys and their public halves as JWKs (RFC 7517, RFC 7518 section 6).
//!
//! Made at start, held in memory, gone with the process. Knows nothing of tokens: it signs bytes.

use anyhow::{Context, anyhow};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::keys::Algorithm;

/// A private key with its id.
pub struct SigningKey {
    kid: String,
    pair: Pair,
}

enum Pair {
    Es256(EcdsaKeyPair),
    Rs256(RsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl SigningKey {
    /// A new P-256 key, for ES256.
    pub fn es256(kid: impl Into<String>) -> anyhow::Result<Self> {
        let pair =
            EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).context("generating a P-256 key")?;
        Ok(Self { kid: kid.into(), pair: Pair::Es256(pair) })
    }

    /// A new RSA key of 2048 bits, for RS256. Takes a tenth of a second or so.
    pub fn rs256(kid: impl Into<String>) -> anyhow::Result<Self> {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).context("generating an RSA key")?;
        Ok(Self { kid: kid.into(), pair: Pair::Rs256(pair) })
    }

    /// A new Ed25519 key (RFC 8037).
    pub fn ed25519(kid: impl Into<String>) -> anyhow::Result<Self> {
        let pair = Ed25519KeyPair::generate().context("generating an Ed25519 key")?;
        Ok(Self { kid: kid.into(), pair: Pair::Ed25519(pair) })
    }

    /// The key's id.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The algorithm that it signs with.
    pub fn algorithm(&self) -> Algorithm {
        match self.pair {
            Pair::Es256(_) => Algorithm::Es256,
            Pair::Rs256(_) => Algorithm::Rs256,
            Pair::Ed25519(_) => Algorithm::EdDsa,
        }
    }

    /// The public key as a JWK with `kid`, `use` and `alg`.
    pub fn jwk(&self) -> Value {
        let mut jwk = match &self.pair {
            Pair::Es256(pair) => {
                // SEC 1 section 2.3.3, uncompressed: 0x04, x, y.
                let coordinates = pair.public_key().as_ref().get(1..).unwrap_or_default();
                let (x, y) = coordinates.split_at(coordinates.len() / 2);
                json!({ "kty": "EC", "crv": "P-256", "x": base64url(x), "y": base64url(y) })
            }
            Pair::Rs256(pair) => {
                let public = pair.public_key();
                let modulus = base64url(public.modulus().big_endian_without_leading_zero());
                let exponent = base64url(public.exponent().big_endian_without_leading_zero());
                json!({ "kty": "RSA", "n": modulus, "e": exponent })
            }
            Pair::Ed25519(pair) => {
                json!({ "kty": "OKP", "crv": "Ed25519", "x": base64url(pair.public_key().as_ref()) })
            }
        };
        if let Value::Object(members) = &mut jwk {
            members.insert("kid".to_owned(), self.kid.clone().into());
            members.insert("use".to_owned(), "sig".into());
            members.insert("alg".to_owned(), self.algorithm().name().into());
        }
        jwk
    }

    /// The signature over `message`, in the form that JWS wants (RFC 7518 section 3).
    pub fn sign(&self, message: &[u8]) -> anyhow::Result<Vec<u8>> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Es256(pair) => Ok(pair.sign(&random, message).context("signing")?.as_ref().to_vec()),
            Pair::Rs256(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).context("signing")?;
                Ok(signature)
            }
            Pair::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
        }
    }
}

/// A name that nobody has used or can guess, for key ids, token ids and epochs.
pub(in crate::demo) fn random_name() -> anyhow::Result<String> {
    let mut bytes = [0; 12];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| anyhow!("the system gives no random bytes"))?;
    Ok(base64url(&bytes))
}

pub(super) fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
