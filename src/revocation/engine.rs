//! The port through which revocations are written to a place that keeps them for a fleet, and read back: Valkey, NATS,
//! a feed server, a file.
//!
//! What is written here arrives at the gateways through the feed that reads the same place. Whoever writes (a command,
//! the admin listener, a bearer that logs out) knows this trait and not the engine.

use std::fmt;
use std::pin::Pin;

use crate::clock::UnixSeconds;

use super::entry::{Entry, Target};

/// A place that keeps revocations. All methods are bounded in time by the engine's own settings.
pub trait RevocationEngine: fmt::Debug + Send + Sync {
    /// Puts these revocations in force, in their order, beside those that are. One that is covered already changes
    /// nothing. Returns once the engine has acknowledged all of them; after an error some may be in force, and doing
    /// it again does no harm.
    fn revoke<'a>(&'a self, revocations: &'a [Revocation]) -> EngineFuture<'a, ()>;

    /// Takes back every revocation of these facts; how many there were. As for [`Self::revoke`], doing it again after
    /// an error does no harm.
    fn lift<'a>(&'a self, facts: &'a [Fact]) -> EngineFuture<'a, usize>;

    /// The revocations of exactly this fact. Those of the same target for every issuer are another fact.
    fn look_up<'a>(&'a self, fact: &'a Fact) -> EngineFuture<'a, Vec<Revocation>>;

    /// One page of what is in force, in the engine's order. `after` is [`Page::next`] of the page before. What changes
    /// meanwhile may be on a page or not, and may be there twice.
    fn list<'a>(&'a self, after: Option<&'a str>) -> EngineFuture<'a, Page>;
}

/// What an engine answers in the end.
pub type EngineFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, EngineError>> + Send + 'a>>;

/// A revocation as an engine keeps it: the entry, and what people want to know about it later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// What is in force.
    pub entry: Entry,
    /// Why, in the words of who did it. Never evaluated.
    pub reason: Option<String>,
    /// When it was written.
    pub revoked_at: Option<UnixSeconds>,
}

/// What can be revoked and lifted: a target, for one issuer or for every issuer that is bound to the feed (`None`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Fact {
    /// What.
    pub target: Target,
    /// Whose tokens.
    pub issuer: Option<String>,
}

/// A part of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// What is on it.
    pub revocations: Vec<Revocation>,
    /// How many entries of the engine were left out since they cannot be read.
    pub broken: usize,
    /// Where the next page begins; `None` on the last.
    pub next: Option<String>,
}

/// Why an engine did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// It cannot be reached, does not answer in time, or refuses: the message says what and what to do. Nothing of a
    /// secret is in it.
    #[error("{0}")]
    Unavailable(String),
    /// What was asked makes no sense to it: a value that is empty or too long, a cursor that it never gave.
    #[error("{0}")]
    Unusable(String),
    /// The engine can be read but not be written by this gateway, as with a feed that others serve.
    #[error("{0}")]
    ReadOnly(String),
}

impl Entry {
    /// What the entry revokes.
    pub fn fact(&self) -> Fact {
        Fact { target: self.target.clone(), issuer: self.issuer.clone() }
    }

    /// One entry for two of the same fact: each token that either revokes is revoked, for as long as either says. Both
    /// must revoke by cut-off, or neither.
    #[must_use]
    pub fn merged(self, other: &Self) -> Self {
        let before = self.before.zip(other.before).map(|(one, other)| one.max(other));
        let expires = self.expires.zip(other.expires).map(|(one, other)| one.max(other));
        Self { before, expires, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(before: Option<i64>, expires: Option<i64>) -> Entry {
        Entry {
            target: Target::Sub("u1".to_owned()),
            issuer: None,
            before: before.map(UnixSeconds),
            expires: expires.map(UnixSeconds),
        }
    }

    #[test]
    fn of_two_entries_the_stricter_of_each_remains() {
        let rows = [
            ((None, Some(5)), (None, Some(7)), (None, Some(7))),
            ((None, Some(5)), (None, None), (None, None)),
            ((Some(3), Some(9)), (Some(4), Some(8)), (Some(4), Some(9))),
        ];
        for (one, other, both) in rows {
            let [one, other, both] = [one, other, both].map(|(before, expires)| entry(before, expires));
            assert_eq!(one.clone().merged(&other), both);
            assert_eq!(other.merged(&one), both);
        }
    }
}
