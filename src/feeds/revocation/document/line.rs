//! One entry as a text of its own: how engines keep revocations and how people export them.
//!
//! The same members as in a document, and two that only people read: `reason` and `revoked_at`.

use serde::Deserialize;
use serde::de::DeserializeSeed as _;
use serde_json::{Map, Value};

use crate::clock::UnixSeconds;
use crate::revocation::{Change, EngineError, Fact, Revocation, Target};

use super::entry::{Dated, EntrySeed};

/// The entry on one line, members in a fixed order.
pub fn revocation_line(revocation: &Revocation) -> String {
    let Revocation { entry, reason, revoked_at } = revocation;
    let mut members = fact(&entry.fact());
    let mut add = |name: &str, value: Value| drop(members.insert(name.to_owned(), value));
    if let Some(UnixSeconds(before)) = entry.before {
        add("before", before.into());
    }
    if let Some(UnixSeconds(expires)) = entry.expires {
        add("exp", expires.into());
    }
    if let Some(reason) = reason {
        add("reason", reason.as_str().into());
    }
    if let Some(UnixSeconds(at)) = revoked_at {
        add("revoked_at", (*at).into());
    }
    Value::Object(members).to_string()
}

/// What a reader of the feed would find wrong with these revocations.
///
/// # Errors
/// The fault of the first that has one, without its values.
pub fn check_revocations(revocations: &[Revocation]) -> Result<(), &'static str> {
    revocations
        .iter()
        .try_for_each(|revocation| parse_change(revocation_line(revocation).as_bytes()).map(drop))
}

/// The line that takes back every revocation of the fact.
pub fn lift_line(lifted: &Fact) -> String {
    let mut members = fact(lifted);
    members.insert("lift".to_owned(), true.into());
    Value::Object(members).to_string()
}

/// What a line changes.
///
/// # Errors
/// What is wrong with it, without its values.
pub fn parse_change(line: &[u8]) -> Result<Change, &'static str> {
    parse_dated(line).map(|dated| dated.change)
}

/// The same, and when it was made.
pub(in super::super) fn parse_dated(line: &[u8]) -> Result<Dated, &'static str> {
    let mut json = serde_json::Deserializer::from_slice(line);
    let dated = EntrySeed.deserialize(&mut json).map_err(|_| NOT_JSON)?;
    json.end().map_err(|_| NOT_JSON)?;
    dated
}

/// The revocation that a line holds.
///
/// # Errors
/// What is wrong with it, without its values.
pub fn parse_revocation(line: &[u8]) -> Result<Revocation, &'static str> {
    let Change::Revoke(entry) = parse_change(line)? else { return Err("it lifts rather than revokes") };
    let notes: Notes = serde_json::from_slice(line).unwrap_or_default();
    Ok(Revocation { entry, reason: notes.reason, revoked_at: notes.revoked_at.map(UnixSeconds) })
}

/// Says why gateways would skip a revocation, before it is written.
pub(in super::super) fn check_usable(revocations: &[Revocation]) -> Result<(), EngineError> {
    let broken = revocations.iter().find_map(|one| parse_change(revocation_line(one).as_bytes()).err());
    broken
        .map_or(Ok(()), |why| Err(EngineError::Unusable(format!("the revocation cannot be written: {why}"))))
}

/// What the line of an entry becomes by a revocation; `None` if it covers that already.
pub(in super::super) fn on_top(held: &[u8], revocation: &Revocation) -> Option<Revocation> {
    let Ok(held) = parse_revocation(held) else { return Some(revocation.clone()) };
    let merged = held.entry.clone().merged(&revocation.entry);
    (merged != held.entry).then(|| Revocation { entry: merged, ..revocation.clone() })
}

/// What only people read; of another type, it is left out.
#[derive(Default, Deserialize)]
struct Notes {
    reason: Option<String>,
    revoked_at: Option<i64>,
}

fn fact(Fact { target, issuer }: &Fact) -> Map<String, Value> {
    let (name, value): (&str, Value) = match target {
        Target::Jti(value) => ("jti", value.as_str().into()),
        Target::Sid(value) => ("sid", value.as_str().into()),
        Target::Sub(value) => ("sub", value.as_str().into()),
        Target::Client(value) => ("client", value.as_str().into()),
        Target::Kid(value) => ("kid", value.as_str().into()),
        Target::Issuer => ("all", true.into()),
    };
    let issuer = issuer.as_deref().map(|issuer| ("iss".to_owned(), issuer.into()));
    [(name.to_owned(), value)].into_iter().chain(issuer).collect()
}

const NOT_JSON: &str = "it is not a JSON object";

#[cfg(test)]
mod tests {
    use crate::revocation::Entry;

    use super::*;

    fn entry(target: Target) -> Entry {
        Entry { target, issuer: None, before: None, expires: None }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let text = || "it's \"quoted\"\n\u{1f600}".to_owned();
        let all = [
            entry(Target::Jti(text())),
            Entry { expires: Some(UnixSeconds(1)), ..entry(Target::Sid(text())) },
            Entry { before: Some(UnixSeconds(-1)), ..entry(Target::Sub(text())) },
            Entry { issuer: Some(text()), ..entry(Target::Client(text())) },
            entry(Target::Kid(text())),
            Entry { expires: Some(UnixSeconds(i64::MAX)), ..entry(Target::Issuer) },
        ];
        for entry in all {
            let noted =
                Revocation { entry: entry.clone(), reason: Some(text()), revoked_at: Some(UnixSeconds(7)) };
            let bare = Revocation { entry: entry.clone(), reason: None, revoked_at: None };
            for revocation in [noted, bare] {
                let line = revocation_line(&revocation);
                assert!(!line.contains('\n'), "{line}");
                assert_eq!(parse_revocation(line.as_bytes()), Ok(revocation), "{line}");
            }
            let Fact { target, issuer } = entry.fact();
            let line = lift_line(&entry.fact());
            assert_eq!(parse_change(line.as_bytes()), Ok(Change::Lift { target, issuer }), "{line}");
        }
    }

    #[test]
    fn notes_of_odd_types_cost_the_note_alone() {
        let read = parse_revocation(br#"{"jti": "a", "reason": 7}"#).unwrap();
        assert_eq!((read.entry.target, read.reason), (Target::Jti("a".to_owned()), None));
        for bad in ["", "[]", "{\"jti\": \"a\"", "{\"jti\": \"a\"} x", "{\"jti\": \"a\", \"lift\": true}"] {
            assert!(parse_revocation(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
