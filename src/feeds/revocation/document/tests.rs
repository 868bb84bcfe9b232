use std::time::Duration;

use proptest::prelude::*;

use crate::clock::UnixSeconds;
use crate::revocation::{FactHasher, FactKind, Hit, Index, TokenFacts};

use super::*;

const ISSUER: &str = "https://id.example.com/";

fn index() -> Index {
    Index::new(FactHasher::random(), [ISSUER.to_owned()], Duration::ZERO, 1000)
}

fn read(index: &Index, text: &str) -> Result<Document, DocumentError> {
    parse(text.as_bytes(), index.stage())
}

fn snapshot(entries: &str) -> String {
    format!(r#"{{"version": 1, "kind": "snapshot", "epoch": "e", "entries": [{entries}]}}"#)
}

/// What a document with these entries does to a token with all facts `x`, issued at 50.
fn hit(entries: &str) -> Option<Hit> {
    let index = index();
    index.replace(&read(&index, &snapshot(entries)).unwrap().entries.staged);
    let facts = TokenFacts {
        issuer: ISSUER,
        jti: Some("x"),
        sid: Some("x"),
        sub: Some("x"),
        client: Some("x"),
        kid: Some("x"),
        iat: None,
    };
    index.check(&index.hasher().keys(&facts), Some(UnixSeconds(50)), UnixSeconds(60))
}

#[test]
fn every_kind_of_entry_does_what_it_says() {
    let bare = |kind| Some(Hit { kind, before: None });
    let cases = [
        (r#"{"jti": "x"}"#, bare(FactKind::Jti)),
        (r#"{"sid": "x"}"#, bare(FactKind::Sid)),
        (r#"{"sub": "x"}"#, bare(FactKind::Sub)),
        (r#"{"client": "x"}"#, bare(FactKind::Client)),
        (r#"{"kid": "x"}"#, bare(FactKind::Kid)),
        (r#"{"all": true}"#, bare(FactKind::Issuer)),
        (r#"{"sub": "x", "before": 51}"#, Some(Hit { kind: FactKind::Sub, before: Some(UnixSeconds(51)) })),
        (r#"{"sub": "x", "before": 50.2}"#, Some(Hit { kind: FactKind::Sub, before: Some(UnixSeconds(51)) })),
        (r#"{"sub": "x", "before": 50}"#, None),
        (r#"{"jti": "x", "exp": 61}"#, bare(FactKind::Jti)),
        (r#"{"jti": "x", "exp": 1e300}"#, bare(FactKind::Jti)),
        (r#"{"jti": "x", "exp": 60}"#, None),
        (r#"{"jti": "x", "iss": "https://id.example.com/"}"#, bare(FactKind::Jti)),
        (r#"{"jti": "x", "iss": "https://id.example.com"}"#, None),
        (r#"{"jti": "x", "sid": null, "all": false, "note": {"by": ["me"]}}"#, bare(FactKind::Jti)),
        (r#"{"jti": "x"}, {"jti": "x", "lift": true}"#, None),
        (r#"{"jti": "x", "lift": true}, {"jti": "x", "lift": false}"#, bare(FactKind::Jti)),
        ("", None),
    ];
    for (entries, expected) in cases {
        assert_eq!(hit(entries), expected, "{entries}");
    }
}

#[test]
fn a_broken_entry_is_counted_and_costs_only_itself() {
    let broken = [
        "null",
        "1",
        "-1",
        "1.5",
        "\"x\"",
        "true",
        "[[]]",
        "{}",
        r#"{"jti": ""}"#,
        r#"{"jti": 7}"#,
        r#"{"jti": "a", "sub": "b"}"#,
        r#"{"jti": "a", "jti": "b"}"#,
        r#"{"jti": "a", "exp": "soon"}"#,
        r#"{"jti": "a", "exp": 1, "exp": 2}"#,
        r#"{"jti": "a", "before": []}"#,
        r#"{"jti": "a", "iss": 1}"#,
        r#"{"jti": "a", "lift": 1}"#,
        r#"{"all": "yes"}"#,
        r#"{"scope": "a"}"#,
    ];
    for entry in broken {
        let index = index();
        let entries =
            read(&index, &snapshot(&format!(r#"{{"sub": "x"}}, {entry}, {{"sid": "x"}}"#))).unwrap().entries;
        assert_eq!((entries.total, entries.broken, entries.staged.revocations()), (3, 1, 2), "{entry}");
        assert_eq!(entries.first_broken.unwrap().0, 2, "{entry}");
        let all_broken = read(&index, &snapshot(entry));
        assert!(matches!(all_broken, Err(DocumentError::NothingUsable { total: 1, .. })), "{entry}");
    }
}

#[test]
fn members_may_come_in_any_order_and_unknown_ones_are_ignored() {
    let index = index();
    let text = r#" {"entries": [{"jti": "x"}], "cursor": "2", "epoch": "e", "extra": [{}], "kind": "delta",
                    "since": "1", "version": 1.0} "#;
    let document = read(&index, text).unwrap();
    assert_eq!(document.kind, Kind::Delta);
    assert_eq!(document.cursor.as_deref(), Some("2"));
    assert_eq!(document.since.as_deref(), Some("1"));
    assert_eq!(document.entries.staged.revocations(), 1);
    assert_ne!(document.digest, read(&index, text.trim()).unwrap().digest);
}

#[test]
fn a_broken_document_says_what_is_wrong() {
    let cases = [
        ("", "the document is empty"),
        ("<html>", "not well formed"),
        ("[]", "an object with version, kind, epoch and entries"),
        (r#"{"kind": "snapshot", "epoch": "e", "entries": []}"#, "no 'version'"),
        (r#"{"version": 2, "kind": "snapshot", "epoch": "e", "entries": []}"#, "version 1"),
        (r#"{"version": 1, "epoch": "e", "entries": []}"#, "no 'kind'"),
        (r#"{"version": 1, "kind": "full", "epoch": "e", "entries": []}"#, "'kind' must be"),
        (r#"{"version": 1, "kind": "snapshot", "entries": []}"#, "no 'epoch'"),
        (r#"{"version": 1, "kind": "snapshot", "epoch": 7, "entries": []}"#, "'epoch' must be"),
        (r#"{"version": 1, "kind": "snapshot", "epoch": "e"}"#, "no 'entries'"),
        (r#"{"version": 1, "kind": "snapshot", "epoch": "e", "entries": {}}"#, "an array of entries"),
        (r#"{"version": 1, "kind": "snapshot", "epoch": "e", "entries": [], "entries": []}"#, "twice"),
        (r#"{"version": 1, "kind": "snapshot", "kind": "snapshot", "epoch": "e", "entries": []}"#, "twice"),
        (r#"{"version": 1, "kind": "delta", "epoch": "e", "cursor": "2", "entries": []}"#, "no 'since'"),
        (r#"{"version": 1, "kind": "delta", "epoch": "e", "since": "2", "entries": []}"#, "no 'cursor'"),
        (r#"{"version": 1, "kind": "snapshot", "epoch": "e", "entries": [{"jti": "x"}"#, "EOF"),
        (r#"{"version": 1, "kind": "snapshot", "epoch": "e", "entries": []}x"#, "trailing"),
    ];
    for (text, expected) in cases {
        let error = read(&index(), text).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn more_entries_than_the_index_may_hold_are_refused() {
    let entries = vec![r#"{"jti": "x"}"#; 1001].join(",");
    let error = read(&index(), &snapshot(&entries)).unwrap_err().to_string();
    assert!(error.contains("more than 1000 revocations"), "{error}");
}

#[test]
fn an_error_of_the_reader_is_told_from_one_of_the_document() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("cable"))
        }
    }
    let text = snapshot("");
    let error = parse(text.as_bytes()[..20].chain(Broken), index().stage()).unwrap_err();
    assert!(matches!(error, DocumentError::Io(_)), "{error}");
}

#[test]
fn the_documents_of_the_manual_are_sound() {
    let manual = include_str!("../../../../docs/revocation-feed.md");
    let documents: Vec<&str> =
        manual.split("```json\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(documents.len(), 2);
    for document in documents {
        let entries = read(&index(), document).unwrap().entries;
        assert_eq!((entries.broken, entries.foreign), (0, 0), "{document}");
    }
}

proptest! {
    #[test]
    fn never_panics_whatever_the_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(bytes.as_slice(), index().stage());
    }

    #[test]
    fn never_panics_on_damaged_documents_nor_shows_their_values(
        at in 0..200_usize, byte in any::<u8>(), cut in 0..250_usize,
    ) {
        let mut bytes = snapshot(r#"{"jti": "secret"}, {"sub": "secret", "before": 1e3, "exp": 18446744073709551615},
            {"all": true, "iss": "secret", "lift": true}"#).into_bytes();
        let length = bytes.len();
        bytes[at % length] = byte;
        bytes.truncate(cut.max(1));
        if let Err(error) = parse(bytes.as_slice(), index().stage()) {
            prop_assert!(!error.to_string().contains("secret"), "{}", error);
        }
    }
}
