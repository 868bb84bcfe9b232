//! Private keys of every kind, and the JWKs they are published as.

use std::sync::LazyLock;

use aws_lc_rs::encoding::{AsBigEndian, EcPublicKeyUncompressedBin};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{self as lc, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair};
use serde_json::{Value, json};

use super::base64url;

/// A private key with its id and the algorithm that it signs with.
pub struct Signer {
    /// Its `kid`.
    pub kid: String,
    /// Its `alg`.
    pub algorithm: &'static str,
    pair: Pair,
}

enum Pair {
    Rsa(&'static RsaKeyPair),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

impl Signer {
    /// Every algorithm that the gateway knows.
    pub const ALGORITHMS: [&'static str; 11] =
        ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"];

    /// A new key; but all RSA keys are one, since they are slow to make.
    pub fn new(algorithm: &'static str, kid: &str) -> Self {
        static RSA: LazyLock<RsaKeyPair> = LazyLock::new(|| RsaKeyPair::generate(KeySize::Rsa2048).unwrap());
        let ec = |parameters| Pair::Ec(EcdsaKeyPair::generate(parameters).unwrap());
        let pair = match algorithm {
            "ES256" => ec(&lc::ECDSA_P256_SHA256_FIXED_SIGNING),
            "ES384" => ec(&lc::ECDSA_P384_SHA384_FIXED_SIGNING),
            "ES512" => ec(&lc::ECDSA_P521_SHA512_FIXED_SIGNING),
            "EdDSA" | "Ed25519" => Pair::Ed(Ed25519KeyPair::generate().unwrap()),
            _ => Pair::Rsa(&RSA),
        };
        Self { kid: kid.to_owned(), algorithm, pair }
    }

    /// An ES256 key.
    pub fn es256(kid: &str) -> Self {
        Self::new("ES256", kid)
    }

    /// The same key under another id or for another algorithm.
    #[must_use]
    pub fn rsa_as(&self, algorithm: &'static str) -> Self {
        let Pair::Rsa(pair) = self.pair else { panic!("not an RSA key") };
        Self { kid: self.kid.clone(), algorithm, pair: Pair::Rsa(pair) }
    }

    /// The public key with `kid`, `use` and `alg`.
    pub fn jwk(&self) -> Value {
        let mut jwk = self.bare_jwk();
        jwk["use"] = "sig".into();
        jwk["alg"] = self.algorithm.into();
        jwk
    }

    /// The public key with `kid` alone.
    pub fn bare_jwk(&self) -> Value {
        let kid = &self.kid;
        match &self.pair {
            Pair::Rsa(pair) => {
                let n = base64url(pair.public_key().modulus().big_endian_without_leading_zero());
                let e = base64url(pair.public_key().exponent().big_endian_without_leading_zero());
                json!({ "kty": "RSA", "kid": kid, "n": n, "e": e })
            }
            Pair::Ec(pair) => {
                let point: EcPublicKeyUncompressedBin<'_> = pair.public_key().as_be_bytes().unwrap();
                let (x, y) = point.as_ref()[1..].split_at(point.as_ref().len() / 2);
                let curve = match self.algorithm {
                    "ES256" => "P-256",
                    "ES384" => "P-384",
                    _ => "P-521",
                };
                json!({ "kty": "EC", "kid": kid, "crv": curve, "x": base64url(x), "y": base64url(y) })
            }
            Pair::Ed(pair) => {
                json!({ "kty": "OKP", "kid": kid, "crv": "Ed25519", "x": base64url(pair.public_key().as_ref()) })
            }
        }
    }

    /// A JWK set with this key alone.
    pub fn jwks(&self) -> Value {
        json!({ "keys": [self.jwk()] })
    }

    /// The signature in the form that JWS wants (RFC 7518 section 3).
    pub fn sign(&self, input: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Rsa(pair) => {
                let encoding: &'static dyn lc::RsaEncoding = match self.algorithm {
                    "RS256" => &lc::RSA_PKCS1_SHA256,
                    "RS384" => &lc::RSA_PKCS1_SHA384,
                    "RS512" => &lc::RSA_PKCS1_SHA512,
                    "PS256" => &lc::RSA_PSS_SHA256,
                    "PS384" => &lc::RSA_PSS_SHA384,
                    _ => &lc::RSA_PSS_SHA512,
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(encoding, &random, input, &mut signature).unwrap();
                signature
            }
            Pair::Ec(pair) => pair.sign(&random, input).unwrap().as_ref().to_vec(),
            Pair::Ed(pair) => pair.sign(input).as_ref().to_vec(),
        }
    }
}
