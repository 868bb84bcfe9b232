//! The signature algorithms that valgate verifies (RFC 7518 section 3.1, RFC 8037, RFC 9864). No HMAC: a shared
//! secret would let every gateway mint tokens. No `none`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A JWS `alg` value that an issuer may be configured for.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[allow(missing_docs, reason = "the names are the standard's")]
pub enum Algorithm {
    #[serde(rename = "RS256")]
    Rs256,
    #[serde(rename = "RS384")]
    Rs384,
    #[serde(rename = "RS512")]
    Rs512,
    #[serde(rename = "PS256")]
    Ps256,
    #[serde(rename = "PS384")]
    Ps384,
    #[serde(rename = "PS512")]
    Ps512,
    #[serde(rename = "ES256")]
    Es256,
    #[serde(rename = "ES384")]
    Es384,
    #[serde(rename = "ES512")]
    Es512,
    /// RFC 8037; with us always the curve Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
    /// RFC 9864, the fully-specified name of the same.
    #[serde(rename = "Ed25519")]
    Ed25519,
}

impl Algorithm {
    /// All of them, in the order of the standard's table.
    pub const ALL: [Self; 11] = [
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Es256,
        Self::Es384,
        Self::Es512,
        Self::EdDsa,
        Self::Ed25519,
    ];

    /// The `alg` value; case-sensitive (RFC 7515 section 4.1.1).
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Es512 => "ES512",
            Self::EdDsa => "EdDSA",
            Self::Ed25519 => "Ed25519",
        }
    }

    /// The algorithm of this name, if it is one of ours.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    /// `EdDSA` and `Ed25519` name the same computation: a key or a configuration that says one means both.
    pub fn same_as(self, other: Self) -> bool {
        let plain = |algorithm| if algorithm == Self::EdDsa { Self::Ed25519 } else { algorithm };
        plain(self) == plain(other)
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
