//! The keys of one issuer, to be selected by what a token's header names. Immutable once made.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Algorithm, Kid, Thumbprint, VerificationKey};

/// An issuer's verification keys.
#[derive(Debug, Default)]
pub struct KeySet {
    keys: Vec<Arc<VerificationKey>>,
    by_kid: HashMap<Kid, Vec<Arc<VerificationKey>>>,
}

/// Why no key was selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyMiss {
    /// The set has no key of this `kid`: it may have been published since, see
    /// [`KeySource::look_again`](super::KeySource::look_again).
    UnknownKid,
    /// The token names no `kid`, and the keys that fit its algorithm are none or several.
    NoKid,
    /// The key of this `kid` is not for this algorithm.
    AlgorithmMismatch,
}

impl KeySet {
    /// A set of these keys; one that stands there twice is kept once.
    pub fn new(keys: Vec<VerificationKey>) -> Self {
        let mut set = Self::default();
        for key in keys {
            if set.keys.iter().any(|known| **known == key) {
                continue;
            }
            let key = Arc::new(key);
            if let Some(kid) = key.kid() {
                set.by_kid.entry(kid.into()).or_default().push(Arc::clone(&key));
            }
            set.keys.push(key);
        }
        set
    }

    /// The one key that a token with this header can mean. An unknown `kid` is never tried against other keys.
    ///
    /// # Errors
    /// See [`KeyMiss`].
    pub fn select(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<&Arc<VerificationKey>, KeyMiss> {
        let Some(kid) = kid else {
            let mut fitting = self.keys.iter().filter(|key| key.algorithms().contains(&algorithm));
            let first = fitting.next().ok_or(KeyMiss::NoKid)?;
            let alone = fitting.all(|other| other.thumbprint() == first.thumbprint());
            return if alone { Ok(first) } else { Err(KeyMiss::NoKid) };
        };
        let named = self.by_kid.get(kid).ok_or(KeyMiss::UnknownKid)?;
        named.iter().find(|key| key.algorithms().contains(&algorithm)).ok_or(KeyMiss::AlgorithmMismatch)
    }

    /// Whether a key of the set has this `kid`.
    pub fn has_kid(&self, kid: &str) -> bool {
        self.by_kid.contains_key(kid)
    }

    /// Whether the set holds this very key, under whatever name.
    pub fn contains_thumbprint(&self, thumbprint: Thumbprint) -> bool {
        self.keys.iter().any(|key| key.thumbprint() == thumbprint)
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The keys in the issuer's order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<VerificationKey>> {
        self.keys.iter()
    }

    /// Whether both hold the same keys under the same names for the same algorithms, in any order.
    pub fn same_keys(&self, other: &Self) -> bool {
        self.keys.len() == other.keys.len() && self.without(other).next().is_none()
    }

    /// The keys of this set that `other` does not hold: arrivals or departures, as one asks.
    pub fn without<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a Arc<VerificationKey>> {
        self.keys.iter().filter(|key| !other.keys.contains(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::testing::Signer;

    #[test]
    fn selection_is_by_kid_and_algorithm() {
        let (a, b) = (Signer::p256(), Signer::p256());
        let set = KeySet::new(vec![
            a.named_key(Some("a")),
            b.named_key(Some("b")),
            Signer::rsa().named_key(Some("r")),
            Signer::ed25519().named_key(None),
        ]);
        assert_eq!(set.len(), 4);
        let found = |kid, algorithm| set.select(kid, algorithm).map(|key| key.thumbprint());
        assert_eq!(found(Some("a"), Algorithm::Es256), Ok(a.key().thumbprint()));
        assert_eq!(found(Some("b"), Algorithm::Es256), Ok(b.key().thumbprint()));
        assert_eq!(found(Some("b"), Algorithm::Es384), Err(KeyMiss::AlgorithmMismatch));
        assert_eq!(found(Some("a"), Algorithm::Rs256), Err(KeyMiss::AlgorithmMismatch));
        assert_eq!(found(Some("A"), Algorithm::Es256), Err(KeyMiss::UnknownKid));
        assert_eq!(found(Some(""), Algorithm::Es256), Err(KeyMiss::UnknownKid));
        assert_eq!(found(None, Algorithm::Es256), Err(KeyMiss::NoKid), "two fit");
        assert_eq!(found(None, Algorithm::Es512), Err(KeyMiss::NoKid), "none fits");
        assert!(found(None, Algorithm::Rs256).is_ok(), "one fits");
        assert!(found(None, Algorithm::Ed25519).is_ok(), "one fits");
    }

    #[test]
    fn the_same_key_under_two_names_is_one_for_a_token_without_kid() {
        let signer = Signer::p256();
        let set = KeySet::new(vec![signer.named_key(Some("old")), signer.named_key(Some("new"))]);
        assert!(set.select(None, Algorithm::Es256).is_ok());
        assert_eq!(set.len(), 2);
    }

    #[test]
    fn one_kid_may_name_keys_of_different_algorithms() {
        let (ec, rsa) = (Signer::p256(), Signer::rsa());
        let set = KeySet::new(vec![ec.named_key(Some("k")), rsa.named_key(Some("k"))]);
        assert_eq!(set.select(Some("k"), Algorithm::Es256).unwrap().thumbprint(), ec.key().thumbprint());
        assert_eq!(set.select(Some("k"), Algorithm::Ps512).unwrap().thumbprint(), rsa.key().thumbprint());
    }

    #[test]
    fn sets_are_compared_by_content_not_order() {
        let (a, b) = (Signer::p256(), Signer::p384());
        let set = |keys: &[(&Signer, &str)]| {
            KeySet::new(keys.iter().map(|(signer, kid)| signer.named_key(Some(kid))).collect())
        };
        let one = set(&[(&a, "a"), (&b, "b")]);
        assert!(one.same_keys(&set(&[(&b, "b"), (&a, "a")])));
        assert!(one.same_keys(&set(&[(&b, "b"), (&a, "a"), (&a, "a")])), "a duplicate adds nothing");
        assert!(!one.same_keys(&set(&[(&a, "a")])));
        assert!(!one.same_keys(&set(&[(&a, "a"), (&b, "renamed")])));
        let next = set(&[(&a, "a")]);
        let departed: Vec<_> = one.without(&next).map(|key| key.kid().unwrap()).collect();
        assert_eq!(departed, ["b"]);
        assert!(one.contains_thumbprint(a.key().thumbprint()));
        assert!(!one.contains_thumbprint(Signer::p256().key().thumbprint()));
    }
}
