//! One entry of a revocation document: forgiving in what does not matter, strict in what would revoke less.

use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::clock::UnixSeconds;
use crate::revocation::{Change, Entry, Target};

/// Reads an entry, or says what is wrong with it. Fails only where the JSON itself does.
pub(super) struct EntrySeed;

/// The value of a member, whatever its type.
pub(super) enum Loose {
    Null,
    Bool(bool),
    /// Rounded up: a later cut-off and a later end revoke more.
    Number(i64),
    Text(String),
    Other,
}

impl Loose {
    pub(super) fn is_one(&self) -> bool {
        matches!(self, Self::Number(1))
    }
}

/// What an entry changes, and since when by its source's word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Dated {
    pub(in super::super) change: Change,
    /// Told for people and for measuring: of another type, it is left out.
    pub(in super::super) revoked_at: Option<UnixSeconds>,
}

type Read = Result<Dated, &'static str>;

#[derive(Default)]
struct Members {
    target: Option<Target>,
    issuer: Option<String>,
    before: Option<UnixSeconds>,
    expires: Option<UnixSeconds>,
    lift: bool,
    revoked_at: Option<UnixSeconds>,
}

impl Members {
    fn take(&mut self, member: Member, value: Loose) -> Result<(), &'static str> {
        match (member, value) {
            // Many serializers write what is absent as null or false.
            (_, Loose::Null) | (Member::All, Loose::Bool(false)) | (Member::Unknown, _) => Ok(()),
            (Member::RevokedAt, at) => {
                self.revoked_at = seconds(&at).ok();
                Ok(())
            }
            (Member::Jti, value) => self.aim(text(value)?, Target::Jti),
            (Member::Sid, value) => self.aim(text(value)?, Target::Sid),
            (Member::Sub, value) => self.aim(text(value)?, Target::Sub),
            (Member::Client, value) => self.aim(text(value)?, Target::Client),
            (Member::Kid, value) => self.aim(text(value)?, Target::Kid),
            (Member::All, Loose::Bool(true)) => self.aim(String::new(), |_| Target::Issuer),
            (Member::All, _) => Err("'all' must be true"),
            (Member::Iss, value) => once(&mut self.issuer, text(value)?),
            (Member::Exp, value) => once(&mut self.expires, seconds(&value)?),
            (Member::Before, value) => once(&mut self.before, seconds(&value)?),
            (Member::Lift, Loose::Bool(lift)) => {
                self.lift = lift;
                Ok(())
            }
            (Member::Lift, _) => Err("'lift' must be true or false"),
        }
    }

    fn aim(&mut self, value: String, target: impl Fn(String) -> Target) -> Result<(), &'static str> {
        match self.target.replace(target(value)) {
            None => Ok(()),
            Some(_) => Err("it has more than one of jti, sid, sub, client, kid and all"),
        }
    }

    fn finish(self) -> Read {
        let Self { target, issuer, before, expires, lift, revoked_at } = self;
        let target = target.ok_or("it has none of jti, sid, sub, client, kid and all")?;
        let change = if lift {
            Change::Lift { target, issuer }
        } else {
            Change::Revoke(Entry { target, issuer, before, expires })
        };
        Ok(Dated { change, revoked_at })
    }
}

fn once<T>(member: &mut Option<T>, value: T) -> Result<(), &'static str> {
    match member.replace(value) {
        None => Ok(()),
        Some(_) => Err("a member occurs twice"),
    }
}

fn text(value: Loose) -> Result<String, &'static str> {
    match value {
        Loose::Text(text) if text.is_empty() => Err("a value is empty"),
        Loose::Text(text) if text.len() > MAX_VALUE_BYTES => Err("a value is longer than any token"),
        Loose::Text(text) => Ok(text),
        _ => Err("jti, sid, sub, client, kid and iss must be strings"),
    }
}

fn seconds(value: &Loose) -> Result<UnixSeconds, &'static str> {
    match value {
        Loose::Number(seconds) => Ok(UnixSeconds(*seconds)),
        _ => Err("exp and before must be numbers of seconds since 1970"),
    }
}

/// The largest token that a gateway accepts by default.
const MAX_VALUE_BYTES: usize = 16 * 1024;

impl<'de> DeserializeSeed<'de> for EntrySeed {
    type Value = Read;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Read, D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// Each method beside `visit_map` takes something that is not an object, and so not an entry.
impl<'de> Visitor<'de> for EntrySeed {
    type Value = Read;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an entry")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Read, A::Error> {
        let mut members = Members::default();
        let mut fault = None;
        while let Some(member) = map.next_key::<Member>()? {
            if let Err(reason) = members.take(member, map.next_value()?) {
                fault.get_or_insert(reason);
            }
        }
        Ok(fault.map_or_else(|| members.finish(), Err))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Read, E> {
        Ok(Err(NOT_AN_OBJECT))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Read, E> {
        Ok(Err(NOT_AN_OBJECT))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Read, E> {
        Ok(Err(NOT_AN_OBJECT))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Read, E> {
        Ok(Err(NOT_AN_OBJECT))
    }

    fn visit_str<E>(self, _: &str) -> Result<Read, E> {
        Ok(Err(NOT_AN_OBJECT))
    }

    fn visit_unit<E>(self) -> Result<Read, E> {
        Ok(Err(NOT_AN_OBJECT))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Read, A::Error> {
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Err(NOT_AN_OBJECT))
    }
}

const NOT_AN_OBJECT: &str = "it is not an object";

#[derive(Clone, Copy)]
enum Member {
    Jti,
    Sid,
    Sub,
    Client,
    Kid,
    All,
    Iss,
    Exp,
    Before,
    Lift,
    RevokedAt,
    Unknown,
}

impl<'de> Deserialize<'de> for Member {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;

        impl Visitor<'_> for Name {
            type Value = Member;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a member")
            }

            fn visit_str<E>(self, name: &str) -> Result<Member, E> {
                Ok(match name {
                    "jti" => Member::Jti,
                    "sid" => Member::Sid,
                    "sub" => Member::Sub,
                    "client" => Member::Client,
                    "kid" => Member::Kid,
                    "all" => Member::All,
                    "iss" => Member::Iss,
                    "exp" => Member::Exp,
                    "before" => Member::Before,
                    "lift" => Member::Lift,
                    "revoked_at" => Member::RevokedAt,
                    _ => Member::Unknown,
                })
            }
        }

        deserializer.deserialize_str(Name)
    }
}

impl<'de> Deserialize<'de> for Loose {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Loose;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_unit<E>(self) -> Result<Loose, E> {
                Ok(Loose::Null)
            }

            fn visit_bool<E>(self, value: bool) -> Result<Loose, E> {
                Ok(Loose::Bool(value))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Loose, E> {
                Ok(Loose::Number(value))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Loose, E> {
                Ok(Loose::Number(i64::try_from(value).unwrap_or(i64::MAX)))
            }

            #[allow(clippy::cast_possible_truncation, reason = "the cast saturates, as it should")]
            fn visit_f64<E>(self, value: f64) -> Result<Loose, E> {
                Ok(Loose::Number(value.ceil() as i64))
            }

            fn visit_str<E>(self, value: &str) -> Result<Loose, E> {
                Ok(Loose::Text(value.to_owned()))
            }

            fn visit_string<E>(self, value: String) -> Result<Loose, E> {
                Ok(Loose::Text(value))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Loose, A::Error> {
                while elements.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Loose::Other)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Loose, A::Error> {
                while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Loose::Other)
            }
        }

        deserializer.deserialize_any(Any)
    }
}
