//! How the gateway proves to the endpoint who it is (RFC 6749 section 2.3.1, RFC 7523 section 2.2, RFC 8705 section 2).

use std::fmt;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair as RsaKeyPair;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    Ed25519KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::HeaderValue;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use serde_json::json;
use url::form_urlencoded::{Serializer, byte_serialize};

use crate::clock::Clock;
use crate::keys::Algorithm;

/// What the gateway shows of itself. `Debug` shows no secret.
#[derive(Clone)]
pub enum Credentials {
    /// Client id and secret in the `Authorization` header.
    Basic {
        /// The client's id.
        client_id: String,
        /// Its secret.
        secret: String,
    },
    /// Client id and secret in the form.
    Post {
        /// The client's id.
        client_id: String,
        /// Its secret.
        secret: String,
    },
    /// A JWT that the client signs.
    PrivateKeyJwt(ClientAssertion),
    /// The client id alone: the TLS certificate of the connection proves it.
    Certificate {
        /// The client's id.
        client_id: String,
    },
}

/// What a client assertion is made of.
#[derive(Clone)]
pub struct ClientAssertion {
    /// The client's id: `iss` and `sub`.
    pub client_id: String,
    /// For whom it is: `aud`.
    pub audience: String,
    /// The key's id at the issuer.
    pub key_id: Option<String>,
    /// How to sign.
    pub algorithm: Algorithm,
    /// The private key in PEM form.
    pub private_key: Vec<u8>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Basic { .. } => "Basic",
            Self::Post { .. } => "Post",
            Self::PrivateKeyJwt(_) => "PrivateKeyJwt",
            Self::Certificate { .. } => "Certificate",
        })
    }
}

/// Why the credentials cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum CredentialsError {
    #[error(
        "the private key of the client cannot be used with {0}; it must be an unencrypted PEM key of that kind"
    )]
    PrivateKey(&'static str),
    #[error("client assertions cannot be signed with {0}; use RS256, PS256, ES256, ES384 or EdDSA")]
    Algorithm(&'static str),
    #[error("a client assertion could not be signed")]
    Signing,
}

/// Credentials ready to be shown.
pub(super) enum Proof {
    Header(HeaderValue),
    Form(Vec<(&'static str, String)>),
    Assertion(Box<Signer>),
}

pub(super) struct Signer {
    assertion: ClientAssertion,
    key: SigningKey,
    clock: Clock,
}

enum SigningKey {
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
    Rsa(RsaKeyPair, &'static dyn RsaEncoding),
}

/// A server must accept it for as long as a slow request takes, and no thief for longer.
const ASSERTION_SECONDS: i64 = 60;

impl Proof {
    pub(super) fn new(credentials: Credentials, clock: &Clock) -> Result<Self, CredentialsError> {
        Ok(match credentials {
            Credentials::Basic { client_id, secret } => Self::Header(basic(&client_id, &secret)),
            Credentials::Post { client_id, secret } => {
                Self::Form(vec![("client_id", client_id), ("client_secret", secret)])
            }
            Credentials::Certificate { client_id } => Self::Form(vec![("client_id", client_id)]),
            Credentials::PrivateKeyJwt(assertion) => {
                let key = SigningKey::read(&assertion)?;
                Self::Assertion(Box::new(Signer { assertion, key, clock: clock.clone() }))
            }
        })
    }

    /// The `Authorization` header, if that is where the proof is.
    pub(super) fn header(&self) -> Option<&HeaderValue> {
        match self {
            Self::Header(value) => Some(value),
            Self::Form(_) | Self::Assertion(_) => None,
        }
    }

    /// Adds the proof to a form, if that is where it is.
    pub(super) fn complete(&self, form: &mut Serializer<'_, String>) -> Result<(), CredentialsError> {
        match self {
            Self::Header(_) => {}
            Self::Form(fields) => {
                form.extend_pairs(fields);
            }
            Self::Assertion(signer) => {
                form.append_pair("client_id", &signer.assertion.client_id);
                form.append_pair(
                    "client_assertion_type",
                    "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
                );
                form.append_pair("client_assertion", &signer.sign()?);
            }
        }
        Ok(())
    }
}

/// Both parts are form-encoded first (RFC 6749 section 2.3.1).
fn basic(client_id: &str, secret: &str) -> HeaderValue {
    let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
    let pair = format!("{}:{}", encoded(client_id), encoded(secret));
    let mut value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(pair)))
        .unwrap_or_else(|_| HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}

impl Signer {
    fn sign(&self) -> Result<String, CredentialsError> {
        let mut id = [0; 16];
        aws_lc_rs::rand::fill(&mut id).map_err(|_| CredentialsError::Signing)?;
        let ClientAssertion { client_id, audience, key_id, algorithm, .. } = &self.assertion;
        let mut header = json!({ "alg": algorithm.name(), "typ": "JWT" });
        if let (Some(key_id), Some(header)) = (key_id, header.as_object_mut()) {
            header.insert("kid".to_owned(), key_id.as_str().into());
        }
        let now = self.clock.wall().0;
        let claims = json!({
            "iss": client_id, "sub": client_id, "aud": audience,
            "jti": URL_SAFE_NO_PAD.encode(id), "iat": now, "exp": now.saturating_add(ASSERTION_SECONDS),
        });
        let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let input = format!("{}.{}", part(&header), part(&claims));
        let signature = self.key.sign(input.as_bytes()).ok_or(CredentialsError::Signing)?;
        Ok(format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

impl SigningKey {
    fn read(assertion: &ClientAssertion) -> Result<Self, CredentialsError> {
        let name = assertion.algorithm.name();
        let unusable = || CredentialsError::PrivateKey(name);
        let der = PrivateKeyDer::from_pem_slice(&assertion.private_key).map_err(|_| unusable())?;
        let ec = |kind: &'static EcdsaSigningAlgorithm| {
            EcdsaKeyPair::from_private_key_der(kind, der.secret_der())
                .or_else(|_| EcdsaKeyPair::from_pkcs8(kind, der.secret_der()))
                .map(Self::Ec)
                .map_err(|_| unusable())
        };
        let rsa = |encoding: &'static dyn RsaEncoding| {
            RsaKeyPair::from_pkcs8(der.secret_der())
                .or_else(|_| RsaKeyPair::from_der(der.secret_der()))
                .map(|key| Self::Rsa(key, encoding))
                .map_err(|_| unusable())
        };
        match assertion.algorithm {
            Algorithm::Es256 => ec(&ECDSA_P256_SHA256_FIXED_SIGNING),
            Algorithm::Es384 => ec(&ECDSA_P384_SHA384_FIXED_SIGNING),
            Algorithm::Rs256 => rsa(&RSA_PKCS1_SHA256),
            Algorithm::Ps256 => rsa(&RSA_PSS_SHA256),
            Algorithm::EdDsa | Algorithm::Ed25519 => {
                Ed25519KeyPair::from_pkcs8(der.secret_der()).map(Self::Ed).map_err(|_| unusable())
            }
            _ => Err(CredentialsError::Algorithm(name)),
        }
    }

    fn sign(&self, input: &[u8]) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        match self {
            Self::Ec(key) => Some(key.sign(&random, input).ok()?.as_ref().to_vec()),
            Self::Ed(key) => Some(key.sign(input).as_ref().to_vec()),
            Self::Rsa(key, encoding) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(*encoding, &random, input, &mut signature).ok()?;
                Some(signature)
            }
        }
    }
}
