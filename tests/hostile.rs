//! Hostile bytes of each kind against what must hold for them (tests/fuzz/src/lib.rs): the seeds of the fuzz targets,
//! mutations of them, and noise. The fuzzer goes deeper; this runs everywhere, every time.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

#[path = "fuzz/src/lib.rs"]
mod properties;

use std::fs;
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, TestRunner};

#[test]
fn tokens() {
    hold("token", 20_000, properties::token);
}

#[test]
fn the_signed_seed_verifies_and_so_the_property_says_something() {
    let [signed, unsecured] = ["signed", "unsecured"].map(|name| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/seeds/token").join(name);
        fs::read_to_string(path).unwrap()
    });
    assert!(properties::is_verified(&signed));
    assert!(!properties::is_verified(&unsecured));
}

#[test]
fn authorization_headers() {
    hold("authorization", 20_000, properties::authorization);
}

#[test]
fn key_sets() {
    hold("jwks", 8_000, properties::jwks);
}

#[test]
fn revocation_documents() {
    hold("feed", 4_000, properties::feed);
}

#[test]
fn security_events() {
    hold("set", 8_000, properties::set);
}

#[test]
fn lines_of_feeds() {
    hold("feed_line", 8_000, properties::feed_line);
}

#[test]
fn logs_of_feed_servers() {
    hold("feed_log", 8_000, properties::feed_log);
}

#[test]
fn stored_copies() {
    hold("stored_copy", 8_000, properties::stored_copy);
}

#[test]
fn status_lists() {
    hold("status_list", 8_000, properties::status_list);
}

#[test]
fn signed_feeds() {
    hold("signed_feed", 8_000, properties::signed_feed);
}

#[test]
fn the_signed_answer_is_opened_and_so_the_property_says_something() {
    let seed = |name| {
        fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/seeds/signed_feed").join(name))
            .unwrap()
    };
    assert!(properties::is_opened(&seed("signed")));
    for other in ["for_others", "unsigned", "of_another_type"] {
        assert!(!properties::is_opened(&seed(other)), "{other}");
    }
}

#[test]
fn proxy_headers() {
    hold("proxy_header", 8_000, properties::proxy_header);
}

#[test]
fn configurations() {
    hold("config", 4_000, properties::config);
}

fn hold(kind: &str, cases: u32, property: fn(&[u8])) {
    let seeds = seeds(kind);
    for seed in &seeds {
        property(seed);
    }
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let input = prop_oneof![
        4 => (select(seeds), vec(change(), 1..6)).prop_map(|(seed, changes)| changed(seed, &changes)),
        1 => vec(any::<u8>(), 0..512),
    ];
    let outcome = TestRunner::new(config).run(&input, |input| {
        property(&input);
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{kind}: {error}"));
}

fn seeds(kind: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/seeds").join(kind);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut seeds: Vec<_> = files.map(|file| fs::read(file.unwrap().path()).unwrap()).collect();
    assert!(seeds.len() >= 3, "{kind} has {} seeds", seeds.len());
    seeds.sort_unstable();
    seeds
}

#[derive(Clone, Debug)]
enum Change {
    Set(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, Index),
    Repeat(Index, Index),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        (any::<Index>(), vec(select(b"{}[]\":,.-_=0 \n\\&*!|>".to_vec()), 1..8))
            .prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Change::Remove(from, to)),
        (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Change::Repeat(from, to)),
    ]
}

fn changed(mut bytes: Vec<u8>, changes: &[Change]) -> Vec<u8> {
    for change in changes {
        let place = |index: &Index| index.index(bytes.len() + 1);
        let range = |one: &Index, other: &Index| place(one).min(place(other))..place(one).max(place(other));
        match change {
            Change::Set(at, byte) => {
                let at = place(at);
                if let Some(old) = bytes.get_mut(at) {
                    *old = *byte;
                }
            }
            Change::Insert(at, new) => {
                let at = place(at);
                bytes.splice(at..at, new.iter().copied()).for_each(drop);
            }
            Change::Remove(from, to) => {
                let range = range(from, to);
                bytes.drain(range).for_each(drop);
            }
            Change::Repeat(from, to) => {
                let range = range(from, to);
                bytes.extend_from_within(range);
            }
        }
    }
    bytes
}
