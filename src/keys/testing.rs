//! Private keys for tests: one of each kind, made once per process, and the JWKs they are published as.

use std::sync::LazyLock;

use aws_lc_rs::encoding::AsBigEndian;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{self as lc, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::{Algorithm, KeyMaterial, VerificationKey};

/// A private key.
pub(crate) enum Signer {
    Rsa(&'static RsaKeyPair),
    Ec(EcdsaKeyPair, &'static str),
    Ed(Ed25519KeyPair),
}

impl Signer {
    /// The same key each time: RSA keys are slow to make.
    pub(crate) fn rsa() -> Self {
        static KEY: LazyLock<RsaKeyPair> = LazyLock::new(|| RsaKeyPair::generate(KeySize::Rsa2048).unwrap());
        Self::Rsa(&KEY)
    }

    pub(crate) fn p256() -> Self {
        Self::Ec(EcdsaKeyPair::generate(&lc::ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(), "P-256")
    }

    pub(crate) fn p384() -> Self {
        Self::Ec(EcdsaKeyPair::generate(&lc::ECDSA_P384_SHA384_FIXED_SIGNING).unwrap(), "P-384")
    }

    pub(crate) fn p521() -> Self {
        Self::Ec(EcdsaKeyPair::generate(&lc::ECDSA_P521_SHA512_FIXED_SIGNING).unwrap(), "P-521")
    }

    pub(crate) fn ed25519() -> Self {
        Self::Ed(Ed25519KeyPair::generate().unwrap())
    }

    pub(crate) fn one_of_each() -> [Self; 5] {
        [Self::rsa(), Self::p256(), Self::p384(), Self::p521(), Self::ed25519()]
    }

    /// A signature in the form that JWS does not use.
    pub(crate) fn p256_der_signature(input: &[u8]) -> (Vec<u8>, VerificationKey) {
        let pair = EcdsaKeyPair::generate(&lc::ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let signature = pair.sign(&SystemRandom::new(), input).unwrap().as_ref().to_vec();
        (signature, Self::Ec(pair, "P-256").key())
    }

    pub(crate) fn fits(&self, algorithm: Algorithm) -> bool {
        let name = algorithm.name();
        match self {
            Self::Rsa(_) => name.starts_with("RS") || name.starts_with("PS"),
            Self::Ec(_, "P-256") => name == "ES256",
            Self::Ec(_, "P-384") => name == "ES384",
            Self::Ec(_, _) => name == "ES512",
            Self::Ed(_) => name.starts_with("Ed"),
        }
    }

    pub(crate) fn sign(&self, algorithm: Algorithm, input: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(pair) => {
                let encoding: &'static dyn lc::RsaEncoding = match algorithm {
                    Algorithm::Rs256 => &lc::RSA_PKCS1_SHA256,
                    Algorithm::Rs384 => &lc::RSA_PKCS1_SHA384,
                    Algorithm::Rs512 => &lc::RSA_PKCS1_SHA512,
                    Algorithm::Ps256 => &lc::RSA_PSS_SHA256,
                    Algorithm::Ps384 => &lc::RSA_PSS_SHA384,
                    _ => &lc::RSA_PSS_SHA512,
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(encoding, &random, input, &mut signature).unwrap();
                signature
            }
            Self::Ec(pair, _) => pair.sign(&random, input).unwrap().as_ref().to_vec(),
            Self::Ed(pair) => pair.sign(input).as_ref().to_vec(),
        }
    }

    pub(crate) fn material(&self) -> KeyMaterial {
        match self {
            Self::Rsa(pair) => KeyMaterial::Rsa {
                n: pair.public_key().modulus().big_endian_without_leading_zero().to_vec(),
                e: pair.public_key().exponent().big_endian_without_leading_zero().to_vec(),
            },
            Self::Ec(pair, curve) => {
                let point: aws_lc_rs::encoding::EcPublicKeyUncompressedBin<'_> =
                    pair.public_key().as_be_bytes().unwrap();
                let (x, y) = point.as_ref()[1..].split_at(point.as_ref().len() / 2);
                let (x, y) = (x.to_vec(), y.to_vec());
                match *curve {
                    "P-256" => KeyMaterial::P256 { x, y },
                    "P-384" => KeyMaterial::P384 { x, y },
                    _ => KeyMaterial::P521 { x, y },
                }
            }
            Self::Ed(pair) => KeyMaterial::Ed25519 { x: pair.public_key().as_ref().to_vec() },
        }
    }

    pub(crate) fn key(&self) -> VerificationKey {
        self.named_key(None)
    }

    pub(crate) fn named_key(&self, kid: Option<&str>) -> VerificationKey {
        VerificationKey::new(kid.map(Into::into), &self.material(), None).unwrap()
    }

    /// The public key as a JWK.
    pub(crate) fn jwk(&self, kid: &str) -> Value {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match self.material() {
            KeyMaterial::Rsa { n, e } => {
                json!({ "kty": "RSA", "kid": kid, "n": encode(&n), "e": encode(&e) })
            }
            KeyMaterial::P256 { x, y } | KeyMaterial::P384 { x, y } | KeyMaterial::P521 { x, y } => {
                let Self::Ec(_, curve) = self else { unreachable!() };
                json!({ "kty": "EC", "kid": kid, "crv": curve, "x": encode(&x), "y": encode(&y) })
            }
            KeyMaterial::Ed25519 { x } => {
                json!({ "kty": "OKP", "kid": kid, "crv": "Ed25519", "x": encode(&x) })
            }
        }
    }
}

/// A JWK set of these keys.
pub(crate) fn jwks(keys: &[Value]) -> Vec<u8> {
    json!({ "keys": keys }).to_string().into_bytes()
}
