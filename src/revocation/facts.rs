//! The facts of a token by which it can be revoked, and their keyed hashes, by which an index finds them.
//!
//! 128 bits and a secret key: nobody who chooses a `sub` or `jti` can make two facts collide, and at ten million
//! entries the odds of a chance collision are below one in 10^24. Knows nothing of entries and indexes.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::num::NonZeroU64;

use siphasher::sip128::{Hasher128, SipHasher13};

use crate::clock::UnixSeconds;

/// What a verified token says about itself.
#[derive(Clone, Copy, Default)]
pub struct TokenFacts<'a> {
    /// Who issued it: the value that was compared with the configured issuer.
    pub issuer: &'a str,
    /// Its id.
    pub jti: Option<&'a str>,
    /// Its session.
    pub sid: Option<&'a str>,
    /// Its subject.
    pub sub: Option<&'a str>,
    /// The client that it was issued to: `client_id` or `azp`.
    pub client: Option<&'a str>,
    /// The id of the key that signed it.
    pub kid: Option<&'a str>,
    /// When it was issued.
    pub iat: Option<UnixSeconds>,
}

/// The kind of a fact. The discriminants are part of the hash and of the record on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FactKind {
    /// A token's id.
    Jti = 1,
    /// A session.
    Sid = 2,
    /// A subject.
    Sub = 3,
    /// A client.
    Client = 4,
    /// A signing key.
    Kid = 5,
    /// An issuer as a whole.
    Issuer = 6,
}

impl FactKind {
    /// The name of the claim, or `issuer`: for reasons, logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Jti => "jti",
            Self::Sid => "sid",
            Self::Sub => "sub",
            Self::Client => "client",
            Self::Kid => "kid",
            Self::Issuer => "issuer",
        }
    }

    pub(super) fn bit(self) -> u8 {
        1 << (self as u8)
    }
}

/// The hashes of a token's facts: computed once, when it is verified, and kept with its verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FactKeys {
    jti: Option<FactKey>,
    sid: Option<FactKey>,
    sub: Option<FactKey>,
    client: Option<FactKey>,
    kid: Option<FactKey>,
    issuer: FactKey,
}

impl FactKeys {
    /// Widest first: the reason that a refusal names is the one that concerns most tokens.
    pub(super) fn each(&self) -> [(FactKind, Option<FactKey>); 6] {
        [
            (FactKind::Issuer, Some(self.issuer)),
            (FactKind::Kid, self.kid),
            (FactKind::Client, self.client),
            (FactKind::Sub, self.sub),
            (FactKind::Sid, self.sid),
            (FactKind::Jti, self.jti),
        ]
    }
}

/// The keyed hash of one fact. `low` is never zero, which leaves zero to mean an empty slot of a table.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct FactKey {
    pub(super) high: u64,
    pub(super) low: NonZeroU64,
}

/// Not the hash itself: beside known facts it would tell about the key.
impl fmt::Debug for FactKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FactKey")
    }
}

/// Turns facts into [`FactKeys`]. One per process: indexes and tokens must be hashed under the same key.
#[derive(Clone)]
pub struct FactHasher(SipHasher13);

impl FactHasher {
    /// A hasher with a key that nobody else knows.
    pub fn random() -> Self {
        let seed = RandomState::new();
        let key = (u128::from(seed.hash_one(0_u8)) << 64) | u128::from(seed.hash_one(1_u8));
        Self::with_key(key.to_le_bytes())
    }

    /// A hasher with a given key, so that what was hashed before a restart is found after it. The key is a secret.
    pub fn with_key(key: [u8; 16]) -> Self {
        Self(SipHasher13::new_with_key(&key))
    }

    /// The secret key, to be kept where only the gateway can read it.
    pub fn key(&self) -> [u8; 16] {
        self.0.key()
    }

    /// The hashes of a token's facts.
    pub fn keys(&self, facts: &TokenFacts<'_>) -> FactKeys {
        let key = |kind, value: Option<&str>| value.map(|value| self.fact(kind, facts.issuer, value));
        FactKeys {
            jti: key(FactKind::Jti, facts.jti),
            sid: key(FactKind::Sid, facts.sid),
            sub: key(FactKind::Sub, facts.sub),
            client: key(FactKind::Client, facts.client),
            kid: key(FactKind::Kid, facts.kid),
            issuer: self.fact(FactKind::Issuer, facts.issuer, ""),
        }
    }

    /// Each part goes in behind its length, so that no two different facts read alike.
    pub(super) fn fact(&self, kind: FactKind, issuer: &str, value: &str) -> FactKey {
        let mut hasher = self.0;
        hasher.write_u8(kind as u8);
        for part in [issuer, value] {
            hasher.write_u64(part.len() as u64);
            hasher.write(part.as_bytes());
        }
        let hash = hasher.finish128();
        FactKey { high: hash.h2, low: NonZeroU64::new(hash.h1).unwrap_or(NonZeroU64::MIN) }
    }
}

impl fmt::Debug for FactHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FactHasher(secret)")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn facts_that_could_run_into_each_other_differ() {
        let hasher = FactHasher::random();
        let facts = [
            (FactKind::Jti, "https://a", "b"),
            (FactKind::Sid, "https://a", "b"),
            (FactKind::Jti, "https://ab", ""),
            (FactKind::Jti, "https://", "ab"),
            (FactKind::Issuer, "https://a", ""),
            (FactKind::Jti, "", "https://ab"),
        ];
        let keys: HashSet<(u64, u64)> = facts
            .iter()
            .map(|(kind, issuer, value)| hasher.fact(*kind, issuer, value))
            .map(|key| (key.high, key.low.get()))
            .collect();
        assert_eq!(keys.len(), facts.len());
    }

    #[test]
    fn the_same_key_gives_the_same_hashes_and_another_gives_others() {
        let facts = TokenFacts { issuer: "https://a", sub: Some("u1"), ..TokenFacts::default() };
        let hasher = FactHasher::random();
        assert_eq!(hasher.keys(&facts), FactHasher::with_key(hasher.key()).keys(&facts));
        assert_ne!(hasher.keys(&facts), FactHasher::random().keys(&facts));
    }

    #[test]
    fn neither_key_nor_hash_shows_in_debug() {
        let hasher = FactHasher::with_key([7; 16]);
        let keys = hasher.keys(&TokenFacts { issuer: "https://a", sub: Some("u1"), ..TokenFacts::default() });
        let shown = format!("{hasher:?} {keys:?}");
        assert!(!shown.chars().any(|c| c.is_ascii_digit()), "{shown}");
    }
}
