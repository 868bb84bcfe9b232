//! The documents, held to what they speak of: configurations, links, codes and defaults.
//!
//! `docs/errors.md` and `docs/configuration.md` are generated and compared elsewhere; `docs/tutorial.md` is run by
//! `tests/tutorial/run.py`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is a test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use valgate::catalogue::Code;
use valgate::config;

#[test]
fn complete_configurations_are_good() {
    let mut seen = 0;
    for document in documents() {
        for block in blocks(&document.text, "yaml") {
            if !block.lines().any(|line| line.starts_with("version: 1")) {
                continue;
            }
            seen += 1;
            let name = document.path.display().to_string();
            if let Err(diagnostics) = config::parse(&block, &name, root(), &|_| Some("a secret".to_owned())) {
                panic!("{diagnostics}");
            }
        }
    }
    assert!(seen >= 2, "README and tutorial have one each, {seen} found");
}

#[test]
fn the_readme_shows_the_smallest_example() {
    let example = read("config/examples/minimal.yaml");
    let shown = blocks(&read("README.md"), "yaml");
    assert!(shown.contains(&example), "README.md shows another file than config/examples/minimal.yaml");
}

#[test]
fn links_lead_somewhere() {
    let mut dead = Vec::new();
    for document in documents() {
        for link in links(&document.text) {
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let path = match file {
                "" => document.path.clone(),
                file => document.path.parent().unwrap().join(file),
            };
            let found = path.exists()
                && (anchor.is_empty() || anchors(&fs::read_to_string(&path).unwrap()).contains(anchor));
            if !found {
                dead.push(format!("{}: {link}", document.path.display()));
            }
        }
    }
    assert!(dead.is_empty(), "{dead:#?}");
}

#[test]
fn every_document_is_in_the_index() {
    let index = links(&read("docs/README.md"));
    for document in documents() {
        let name = document.path.file_name().unwrap().to_str().unwrap();
        assert!(
            name == "README.md" || index.iter().any(|link| link.ends_with(name)),
            "docs/README.md lacks {name}"
        );
    }
}

#[test]
fn the_readme_lists_codes_as_they_are() {
    let readme = read("README.md");
    let rows: Vec<_> = rows(&readme).into_iter().filter(|row| row[0].starts_with("VAL-")).collect();
    assert!(rows.len() >= 15, "{} rows", rows.len());
    for row in rows {
        let code = Code::find(&row[0]).unwrap();
        let statuses: BTreeSet<_> =
            code.reasons().map(|reason| reason.status().as_u16().to_string()).collect();
        assert_eq!(row[1], code.title());
        assert_eq!(row[2].split(", ").map(str::to_owned).collect::<BTreeSet<_>>(), statuses, "{}", row[0]);
    }
}

#[test]
fn limits_have_the_defaults_that_the_page_says() {
    let schema = config::schema();
    let mut seen = BTreeSet::new();
    for row in rows(&read("docs/limits.md")) {
        for name in row[0].split(", ").filter_map(|name| name.strip_prefix('`')?.strip_suffix('`')) {
            let field =
                field(&schema, name).unwrap_or_else(|| panic!("docs/limits.md: there is no field {name}"));
            let default = match &field["default"] {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                _ => continue,
            };
            assert_eq!(row[1], format!("`{default}`"), "{name}");
            seen.insert(name.to_owned());
        }
    }
    for section in ["limits", "timeouts", "upstreams[].timeouts"] {
        let fields = field(&schema, section).unwrap()["properties"].as_object().unwrap();
        for (name, _) in fields.iter().filter(|(_, field)| field.get("default").is_some()) {
            assert!(seen.contains(&format!("{section}.{name}")), "docs/limits.md lacks {section}.{name}");
        }
    }
}

/// `BLESS=1 cargo test --test docs` writes the outputs anew.
#[test]
fn commands_print_what_the_page_says() {
    let path = root().join("docs/debugging-tokens.md");
    let page = fs::read_to_string(&path).unwrap();
    let mut told = String::new();
    let mut rest = page.as_str();
    let mut seen = 0;
    while let Some((before, block)) = rest.split_once("```console\n$ valgate ") {
        let (block, after) = block.split_once("```\n").unwrap();
        let command = block.lines().next().unwrap();
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_valgate"))
            .args(command.split(' '))
            .current_dir(root().join("docs/debugging"))
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(errors.is_empty(), "{command}: {errors}");
        let output = String::from_utf8(output.stdout).unwrap();
        told.extend([before, "```console\n$ valgate ", command, "\n", &output, "```\n"]);
        rest = after;
        seen += 1;
    }
    told.push_str(rest);
    assert!(seen >= 4, "{seen} commands");
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, &told).unwrap();
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), told, "docs/debugging-tokens.md shows other output");
}

#[test]
fn the_audits_page_lists_its_rules() {
    let page = rows(&read("docs/audit.md"));
    let listed: BTreeSet<_> =
        page.iter().filter_map(|row| row[0].strip_prefix('`')?.strip_suffix('`')).collect();
    for block in blocks(&read("docs/audit.md"), "text") {
        assert!(read("tests/audit/careless.txt").contains(&block), "docs/audit.md shows another finding");
    }
    let rules = read("src/config/audit/rules.rs");
    for rule in &listed {
        assert!(rules.contains(&format!("(\"{rule}\",")), "docs/audit.md has {rule}, the audit has not");
    }
    for line in read("tests/audit/careless.txt").lines() {
        if let Some((severity, rest)) = line.split_once('[')
            && ["high", "medium", "low"].contains(&severity)
        {
            let rule = rest.split(']').next().unwrap();
            assert!(listed.contains(rule), "docs/audit.md lacks {rule}");
        }
    }
}

struct Document {
    path: PathBuf,
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap()
}

/// All pages for people.
fn documents() -> Vec<Document> {
    let mut paths = Vec::new();
    for directory in [root().to_owned(), root().join("docs"), root().join("docs/recipes")] {
        let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        paths.extend(entries.filter(|path| path.extension().is_some_and(|extension| extension == "md")));
    }
    paths.sort();
    paths.into_iter().map(|path| Document { text: fs::read_to_string(&path).unwrap(), path }).collect()
}

/// The fenced blocks of a language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut open: Option<(bool, String)> = None;
    for line in text.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(info)) => {
                open = Some((info.split_whitespace().next() == Some(language), String::new()));
            }
            (Some(_), Some(_)) => {
                blocks.extend(open.take().filter(|(wanted, _)| *wanted).map(|(_, block)| block));
            }
            (Some((_, block)), None) => {
                block.push_str(line);
                block.push('\n');
            }
            (None, None) => {}
        }
    }
    blocks
}

/// The lines outside of fenced blocks.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    text.lines().filter(move |line| {
        let fence = line.starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    })
}

/// The targets of links that stay within the repository.
fn links(text: &str) -> Vec<String> {
    let targets =
        prose(text).flat_map(|line| line.split("](").skip(1).filter_map(|rest| rest.split(')').next()));
    targets.filter(|target| !target.contains("://")).map(str::to_owned).collect()
}

/// The anchors that code hosts make of headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings =
        prose(text).filter_map(|line| line.strip_prefix('#').map(|rest| rest.trim_start_matches('#').trim()));
    let anchor = |heading: &str| -> String {
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
    };
    headings.map(anchor).collect()
}

/// The cells of all rows of tables.
fn rows(text: &str) -> Vec<Vec<String>> {
    let rows = prose(text).filter_map(|line| line.strip_prefix('|')?.strip_suffix('|'));
    rows.map(|row| row.split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

/// A field of the configuration's schema, by its path as `docs/configuration.md` writes it.
fn field<'s>(schema: &'s Value, path: &str) -> Option<&'s Value> {
    path.split('.').try_fold(schema, |schema, step| {
        let name = step.trim_end_matches("[]");
        let field = schema.get("properties")?.get(name)?;
        if name == step { Some(field) } else { field.get("items") }
    })
}
