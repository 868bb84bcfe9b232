//! Revocations in a Valkey or Redis (docs/revocation-valkey.md): what is in force in a hash, each change in a stream.
//!
//! ```text
//! valkey/source    the hash once, then the stream -> replica
//! valkey/engine    written and read by people
//! valkey/write.lua how a change enters hash and stream together
//! ```

mod engine;
mod source;

use crate::revocation::{Entry, Fact, Target};

pub use engine::ValkeyEngine;
pub(super) use source::ValkeySource;

/// The names of the keys of one list. The braces keep them in one slot of a cluster.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    /// A hash: what is in force, by [`field`], and the epoch.
    entries: String,
    /// A sorted set: when each field may go.
    expiry: String,
    /// A stream: what changed, in order.
    changes: String,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        let key = |name| format!("{{{prefix}}}:{name}");
        Self { entries: key("entries"), expiry: key("expiry"), changes: key("changes") }
    }
}

/// Names and values, as Redis answers with them.
type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// The field of the hash that names the list's history; no entry's field is without blanks.
const EPOCH: &str = "epoch";
/// The member of a change in the stream.
const ENTRY: &str = "entry";

/// The field of an entry: what it revokes, for whom (`*` for every issuer), and for a cut-off `<`. Bare revocations and
/// cut-offs of one fact stand beside each other, since neither covers the other.
fn field(fact: &Fact, is_cutoff: bool) -> String {
    let (kind, value) = match &fact.target {
        Target::Jti(value) => ("jti", value.as_str()),
        Target::Sid(value) => ("sid", value.as_str()),
        Target::Sub(value) => ("sub", value.as_str()),
        Target::Client(value) => ("client", value.as_str()),
        Target::Kid(value) => ("kid", value.as_str()),
        Target::Issuer => ("all", ""),
    };
    let issuer = fact
        .issuer
        .as_deref()
        .map_or("*".to_owned(), |issuer| issuer.replace('%', "%25").replace(' ', "%20").replace('*', "%2A"));
    format!("{kind}{} {issuer} {value}", if is_cutoff { "<" } else { "" })
}

fn field_of(entry: &Entry) -> String {
    field(&entry.fact(), entry.before.is_some())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn different_facts_have_different_fields() {
        let fact = |target, issuer: Option<&str>| Fact { target, issuer: issuer.map(str::to_owned) };
        let text = |text: &str| text.to_owned();
        let facts = [
            fact(Target::Jti(text("a")), None),
            fact(Target::Sid(text("a")), None),
            fact(Target::Jti(text("a")), Some("a")),
            fact(Target::Jti(text("a")), Some("*")),
            fact(Target::Jti(text("b c")), Some("a")),
            fact(Target::Jti(text("c")), Some("a b")),
            fact(Target::Jti(text("c")), Some("a%20b")),
            fact(Target::Issuer, None),
            fact(Target::Issuer, Some("a")),
        ];
        let fields: HashSet<String> =
            facts.iter().flat_map(|fact| [field(fact, false), field(fact, true)]).collect();
        assert_eq!(fields.len(), 2 * facts.len());
        assert_eq!(field(&facts[0], true), "jti< * a");
    }
}
