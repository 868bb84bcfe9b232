//! What a source says: this fact is revoked until then, or no longer. Knows nothing of how it is stored.

use crate::clock::UnixSeconds;

use super::facts::FactKind;

/// One revocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What is revoked.
    pub target: Target,
    /// Whose tokens; `None` means those of every issuer bound to the feed.
    pub issuer: Option<String>,
    /// Only tokens issued before this (`iat` < `before`), and tokens without `iat`. `None` means every token that has
    /// the target.
    pub before: Option<UnixSeconds>,
    /// When the entry may be forgotten, which is when the last token that it concerns has expired. `None` means never.
    pub expires: Option<UnixSeconds>,
}

/// A fact that tokens may have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// The token whose `jti` this is (RFC 7519 section 4.1.7).
    Jti(String),
    /// All tokens of the session whose `sid` this is (`OpenID` Connect Front-Channel Logout 1.0 section 3).
    Sid(String),
    /// All tokens of the subject (RFC 7519 section 4.1.2).
    Sub(String),
    /// All tokens issued to the client (RFC 9068 section 2.2: `client_id`).
    Client(String),
    /// All tokens signed by the key with this id (RFC 7515 section 4.1.4).
    Kid(String),
    /// All tokens of the issuer.
    Issuer,
}

/// What can happen to an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// From now on the entry holds.
    Revoke(Entry),
    /// From now on no entry with this target holds.
    Lift {
        /// What is no longer revoked.
        target: Target,
        /// Whose tokens; `None` means those of every issuer bound to the feed.
        issuer: Option<String>,
    },
}

impl Target {
    /// The target of this kind with this value, which a whole issuer has none of.
    pub fn new(kind: FactKind, value: &str) -> Self {
        let value = value.to_owned();
        match kind {
            FactKind::Jti => Self::Jti(value),
            FactKind::Sid => Self::Sid(value),
            FactKind::Sub => Self::Sub(value),
            FactKind::Client => Self::Client(value),
            FactKind::Kid => Self::Kid(value),
            FactKind::Issuer => Self::Issuer,
        }
    }

    /// Its kind and its value, which a whole issuer has none of.
    pub fn parts(&self) -> (FactKind, &str) {
        match self {
            Self::Jti(value) => (FactKind::Jti, value),
            Self::Sid(value) => (FactKind::Sid, value),
            Self::Sub(value) => (FactKind::Sub, value),
            Self::Client(value) => (FactKind::Client, value),
            Self::Kid(value) => (FactKind::Kid, value),
            Self::Issuer => (FactKind::Issuer, ""),
        }
    }
}
