//! Configuration files, good and bad, as an operator writes them.
//!
//! Each file in tests/check has one mistake and is named after it; what `valgate check` says stands beside it as
//! text and is compared exactly. `BLESS=1 cargo test --test check` writes those texts, the schema and the
//! reference anew; then look at the difference.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is a test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use valgate::config;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(directory: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(directory)).unwrap().map(|entry| entry.unwrap().path());
    let files: BTreeSet<_> =
        entries.filter(|path| path.extension().is_some_and(|ext| ext == "yaml")).collect();
    files.into_iter().collect()
}

fn environment(name: &str) -> Option<String> {
    match name {
        "FEED_TOKEN" | "FEED_WRITE_TOKEN" | "SET_TOKEN" => Some("s3cret-feed-token".to_owned()),
        "VALKEY_PASSWORD" | "NATS_PASSWORD" => Some("s3cret-password".to_owned()),
        "API_HOST" => Some("api.example.com".to_owned()),
        "FEED_URL" => Some("ftp://user:s3cret-password@feed.example.com/".to_owned()),
        "EMPTY" => Some(String::new()),
        _ => None,
    }
}

fn parse(path: &Path) -> Result<config::Config, config::Diagnostics> {
    let text = fs::read_to_string(path).unwrap();
    let name = path.file_name().unwrap().to_str().unwrap();
    config::parse(&text, name, path.parent().unwrap(), &environment)
}

#[track_caller]
fn same_as_file(path: &Path, text: &str) {
    if std::env::var_os("BLESS").is_some() {
        fs::write(path, text).unwrap();
    }
    let stored = fs::read_to_string(path).unwrap_or_default();
    assert_eq!(stored, text, "{} is out of date; see the head of tests/check.rs", path.display());
}

#[test]
fn bad_configurations_are_told_exactly() {
    let files = files("tests/check");
    assert!(files.len() >= 40, "{} fixtures", files.len());
    let mut surprises = String::new();
    for path in files {
        let diagnostics = parse(&path).expect_err(&path.display().to_string());
        let text = format!("{diagnostics}\n");
        assert!(!text.contains("s3cret"), "{} shows a secret: {text}", path.display());
        same_as_file(&path.with_extension("txt"), &text);
        let expected = if path.ends_with("ten-mistakes.yaml") { 10 } else { 1 };
        if diagnostics.list.len() != expected {
            surprises.push_str(&text);
        }
        for diagnostic in &diagnostics.list {
            assert!(diagnostic.line > 0 && diagnostic.column > 0, "{}: {diagnostic:?}", path.display());
            assert!(diagnostic.remedy.is_some(), "{}: {diagnostic:?}", path.display());
        }
    }
    assert!(surprises.is_empty(), "not as many mistakes as meant:\n{surprises}");
}

#[test]
fn the_command_line_is_described_as_it_is() {
    same_as_file(&root().join("docs/cli.md"), &valgate::cli::manual::markdown());
}

/// The files in tests/audit: one with nothing that is advised against, one with all of it, and one with what that had
/// no place for, since a configuration has one admin listener.
#[test]
fn the_audit_tells_what_is_advised_against_and_nothing_else() {
    let mut shown = String::new();
    for path in files("tests/audit") {
        let text = fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        let audit = config::audit_text(&text, name, path.parent().unwrap(), &environment)
            .unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
        assert_eq!(audit.worst().is_none(), name == "careful.yaml", "{audit}");
        let text = format!("{audit}\n");
        assert!(!text.contains("s3cret"), "{text}");
        shown.push_str(&text);
        same_as_file(&path.with_extension("txt"), &text);
        for finding in &audit.findings {
            assert!(finding.diagnostic.line > 0 && finding.diagnostic.remedy.is_some(), "{finding:?}");
        }
    }
    let rules = fs::read_to_string(root().join("src/config/audit/rules.rs")).unwrap();
    let rules = rules.lines().filter_map(|line| line.trim_start().strip_prefix("(\"")?.split('"').next());
    let silent: Vec<_> =
        rules.filter(|rule| !rule.contains(' ') && !shown.contains(&format!("[{rule}]"))).collect();
    assert!(silent.is_empty(), "no fixture makes these rules speak: {silent:?}");
    let told: Vec<_> = shown.split("\n\n").filter(|finding| finding.contains("[insecure]")).collect();
    let mut words = BTreeSet::new();
    insecure_words(&config::schema(), &mut words);
    assert!(words.len() >= 5, "{words:?}");
    for word in words {
        assert!(told.iter().any(|finding| finding.contains(&word)), "the audit overlooks {word}");
    }
}

/// The fields and the values that say of themselves that they are insecure.
fn insecure_words(schema: &serde_json::Value, words: &mut BTreeSet<String>) {
    let mut see = |word: &str| {
        if word.starts_with("insecure_") {
            words.insert(word.to_owned());
        }
    };
    match schema {
        serde_json::Value::Object(members) => {
            members.keys().for_each(|name| see(name));
            members.values().for_each(|nested| insecure_words(nested, words));
        }
        serde_json::Value::Array(list) => list.iter().for_each(|nested| insecure_words(nested, words)),
        serde_json::Value::String(text) => see(text),
        _ => {}
    }
}

#[test]
fn every_example_is_good() {
    let examples = files("config/examples");
    assert!(examples.len() >= 5);
    for path in examples.into_iter().chain([root().join("config/valgate.yaml")]) {
        if let Err(diagnostics) = parse(&path) {
            panic!("{diagnostics}");
        }
    }
}

#[test]
fn the_reference_file_names_every_field_and_its_default() {
    let text = fs::read_to_string(root().join("config/valgate.yaml")).unwrap().replace('"', "");
    let mut missing = Vec::new();
    fields(&config::schema(), &mut |name, default| {
        let shown = default.map_or_else(|| format!("{name}:"), |default| format!("{name}: {default}"));
        let shows = |part: &str| part.trim_start_matches([' ', '-']).starts_with(&shown);
        if !text.split(['\n', '{', ',', '#']).any(shows) {
            missing.push(shown);
        }
    });
    assert!(missing.is_empty(), "config/valgate.yaml lacks {missing:?}");
}

/// Visits every field that is not reserved, with its default if that is a single value.
fn fields(schema: &serde_json::Value, visit: &mut impl FnMut(&str, Option<String>)) {
    match schema {
        serde_json::Value::Object(object) => {
            for (name, field) in
                object.get("properties").and_then(|fields| fields.as_object()).into_iter().flatten()
            {
                if field.get("x-reserved").is_none() {
                    let default =
                        field.get("default").filter(|default| !default.is_object() && !default.is_array());
                    visit(name, default.map(|default| default.to_string().replace('"', "")));
                }
            }
            object.values().for_each(|nested| fields(nested, visit));
        }
        serde_json::Value::Array(list) => list.iter().for_each(|nested| fields(nested, visit)),
        _ => {}
    }
}

#[test]
fn generated_files_are_up_to_date() {
    same_as_file(&root().join("config/valgate.schema.json"), &format!("{:#}\n", config::schema()));
    same_as_file(&root().join("docs/configuration.md"), &config::reference());
}
