//! The members of one JWK: each at most once, the private ones noticed and left behind.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use jsonwebtoken::jwk::Jwk;
use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use super::{Unusable, quoted};
use crate::keys::{Algorithm, Kid};

/// The members that matter to a public key.
pub(super) struct Members {
    public: BTreeMap<String, Value>,
    private_half: bool,
}

impl Members {
    pub(super) fn read(json: &str) -> Result<Self, Unusable> {
        let all: Unique = serde_json::from_str(json).map_err(|_| Unusable::NotAnObject)?;
        if let Some(name) = all.duplicate {
            return Err(Unusable::DuplicateMember(name));
        }
        Ok(Self { public: all.public, private_half: all.private_half })
    }

    pub(super) fn has_private_half(&self) -> bool {
        self.private_half
    }

    /// The `kid` member, unless it is too long to be repeated in logs and status.
    pub(super) fn kid(&self) -> Option<Kid> {
        self.kid_text().filter(|kid| kid.len() <= MAX_KID_BYTES).map(Into::into)
    }

    fn kid_text(&self) -> Option<&str> {
        self.public.get("kid").and_then(Value::as_str)
    }

    /// The `alg` member. Read here, since the model knows fewer algorithms than we do.
    pub(super) fn algorithm(&self) -> Result<Option<Algorithm>, Unusable> {
        match self.public.get("alg") {
            None => Ok(None),
            Some(Value::String(name)) => {
                Algorithm::from_name(name).map(Some).ok_or_else(|| Unusable::Algorithm(quoted(name)))
            }
            Some(_) => Err(Unusable::NotAString("alg")),
        }
    }

    /// The key as `jsonwebtoken` sees it.
    pub(super) fn model(&self) -> Result<Jwk, Unusable> {
        for name in ["kid", "use"] {
            if self.public.get(name).is_some_and(|value| !value.is_string()) {
                return Err(Unusable::NotAString(name));
            }
        }
        if self.kid_text().is_some_and(|kid| kid.len() > MAX_KID_BYTES) {
            return Err(Unusable::KidTooLong);
        }
        self.algorithm()?;
        if let Some(operations) = self.public.get("key_ops") {
            let strings = operations.as_array().is_some_and(|all| all.iter().all(Value::is_string));
            if !strings {
                return Err(Unusable::KeyOperationsNotAnArray);
            }
        }
        let object = Value::Object(self.public.clone().into_iter().collect());
        Jwk::deserialize(object).map_err(|_| self.unsupported())
    }

    /// What keeps the model from being a key that we know.
    pub(super) fn unsupported(&self) -> Unusable {
        let text = |name: &'static str| {
            self.public.get(name).and_then(Value::as_str).ok_or(Unusable::NotAString(name))
        };
        let (kty, needed): (_, &[&'static str]) = match text("kty") {
            Err(why) => return why,
            Ok("oct") => return Unusable::Symmetric,
            Ok("RSA") => ("RSA", &["n", "e"]),
            Ok("EC") => ("EC", &["crv", "x", "y"]),
            Ok("OKP") => ("OKP", &["crv", "x"]),
            Ok(other) => return Unusable::Type(quoted(other)),
        };
        if let Some(why) = needed.iter().find_map(|name| text(name).err()) {
            return why;
        }
        match text("crv") {
            Ok(curve) if kty != "RSA" => Unusable::Curve(quoted(curve)),
            _ => Unusable::NotAKey,
        }
    }
}

/// A JSON object read member by member. Serde's own maps silently keep the last of several (RFC 7517 section 4
/// leaves the choice; two readers that choose differently see different keys).
#[derive(Default)]
struct Unique {
    public: BTreeMap<String, Value>,
    private_half: bool,
    duplicate: Option<String>,
}

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(UniqueVisitor)
    }
}

struct UniqueVisitor;

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = Unique;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JWK, which is an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Unique, A::Error> {
        let mut seen = HashSet::new();
        let mut members = Unique::default();
        while let Some(name) = map.next_key::<String>()? {
            if PUBLIC.contains(&name.as_str()) {
                members.public.insert(name.clone(), map.next_value()?);
            } else {
                members.private_half |= PRIVATE.contains(&name.as_str());
                map.next_value::<IgnoredAny>()?;
            }
            if seen.len() > MAX_MEMBERS {
                return Err(A::Error::custom("too many members"));
            }
            if let Some(twice) = seen.replace(name) {
                members.duplicate.get_or_insert(quoted_name(&twice));
            }
        }
        Ok(members)
    }
}

fn quoted_name(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(32).collect()
}

/// RFC 7517 section 4 and RFC 7518 section 6: what a public signature key is made of.
const PUBLIC: [&str; 10] = ["kty", "use", "key_ops", "alg", "kid", "crv", "x", "y", "n", "e"];
/// RFC 7518 sections 6.2.2 and 6.3.2; `k` is the whole of a symmetric key.
const PRIVATE: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];
/// Thumbprints and UUIDs have some fifty.
const MAX_KID_BYTES: usize = 512;
/// A JWK has some fifteen; more are no key.
const MAX_MEMBERS: usize = 256;
