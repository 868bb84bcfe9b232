//! The documents, held to what they speak of: configurations, links, codes and defaults.
//!
//! `docs/errors.md` and `docs/configuration.md` are generated and compared elsewhere; `docs/tutorial.md` is run by
//! `tests/tutorial/run.py`.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "this is a test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use valgate::catalogue::Code;
use valgate::config;

/// Blocks for other programs, by their page and their first line.
const FOREIGN: [(&str, &str); 6] = [
    ("docs/beside.md", "apiVersion: networking.k8s.io/v1"),
    ("docs/beside.md", "entryPoints:"),
    ("docs/beside.md", "http:"),
    ("docs/beside.md", "static_resources:"),
    ("docs/migrating.md", "http_filters:"),
    ("docs/migrating.md", "# access rule"),
];

/// What fragments are put into.
const BASE: &str = "
version: 1
listeners: [{ address: 127.0.0.1:8080, plaintext: true }]
issuers:
  - name: main
    issuer: https://id.example.com/
    keys: { jwks_url: https://id.example.com/jwks }
    audiences: [orders-api]
    revocation: { feeds: [logout], max_staleness: 10m, when_stale: reject }
  - { name: feed, issuer: https://feed.example.com/, keys: { discovery: true }, audiences: [orders-api] }
feeds:
  - { name: logout, file: { path: revocations.json } }
upstreams: [{ name: orders, endpoints: ['http://127.0.0.1:8000'] }]
routes:
  - { match: { path: /orders/** }, require: { issuers: [main] }, upstream: orders }
";

#[test]
fn configurations_are_good_complete_ones_as_they_are_and_fragments_in_place() {
    let (mut complete, mut fragments, mut foreign) = (0, 0, BTreeSet::new());
    for document in documents() {
        let page = document.path.strip_prefix(root()).unwrap().to_str().unwrap();
        for block in blocks(&document.text, "yaml") {
            let first = block.lines().next().unwrap_or_default();
            if let Some(known) = FOREIGN.iter().find(|known| **known == (page, first)) {
                foreign.insert(known);
                continue;
            }
            let whole = if block.lines().any(|line| line.starts_with("version: 1")) {
                complete += 1;
                block
            } else {
                fragments += 1;
                in_place(&block)
            };
            if let Err(diagnostics) = config::parse(&whole, page, root(), &|_| Some("a secret".to_owned())) {
                panic!("{page}:\n{whole}\n{diagnostics}");
            }
        }
    }
    assert!(complete >= 25 && fragments >= 15, "{complete} complete ones, {fragments} fragments");
    assert_eq!(foreign.len(), FOREIGN.len(), "only these are there: {foreign:?}");
}

/// The base with this fragment of it: fields of the file; or fields of an issuer, a route or a feed.
fn in_place(fragment: &str) -> String {
    let schema = config::schema();
    let mut whole: Value = serde_yaml::from_str(BASE).unwrap();
    let fields: Map<String, Value> =
        serde_yaml::from_str(fragment).unwrap_or_else(|why| panic!("{why}:\n{fragment}"));
    for (name, value) in fields {
        let is_of = |list: &str| field(&schema, &format!("{list}[].{name}")).is_some();
        match name.as_str() {
            "issuers" | "feeds" | "routes" => {
                let known = whole[&name].as_array_mut().unwrap();
                value.as_array().unwrap().iter().for_each(|element| put(known, element, name == "issuers"));
            }
            _ if field(&schema, &name).is_some() => whole[&name] = value,
            _ if is_of("issuers") => whole["issuers"][0][&name] = value,
            _ if is_of("routes") => whole["routes"][0][&name] = value,
            _ if is_of("feeds") => {
                let feeds = whole["feeds"].as_array_mut().unwrap();
                feeds.push(json!({ "name": "other", name: value }));
            }
            _ => panic!("`{name}` is no field that a fragment could begin with; is it for another program?"),
        }
    }
    serde_json::to_string_pretty(&whole).unwrap()
}

/// Puts an element in the place of the one with its name, or into it, else behind them all.
fn put(list: &mut Vec<Value>, element: &Value, into: bool) {
    let same = |known: &&mut Value| known.get("name").is_some_and(|name| element.get("name") == Some(name));
    match list.iter_mut().find(same) {
        Some(Value::Object(known)) if into => known.extend(element.as_object().unwrap().clone()),
        Some(known) => *known = element.clone(),
        None => list.push(element.clone()),
    }
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

/// `BLESS=1 cargo test --test docs` counts anew.
#[test]
fn tests_are_counted_as_they_are() {
    let path = root().join("docs/protocols.md");
    let page = fs::read_to_string(&path).unwrap();
    let (before, section) = page.split_once("## What is tested\n").unwrap();
    let mut named = BTreeSet::new();
    for file in section.lines().filter(|line| line.starts_with('|')).flat_map(places) {
        assert!(root().join(file).exists(), "docs/protocols.md: there is no {file}");
        assert!(named.insert(file.to_owned()), "docs/protocols.md counts {file} twice");
    }
    let counted = |place: &str| -> usize {
        let files = sources(&root().join(place));
        let files = files.iter().filter(|file| place == file.as_str() || !named.contains(*file));
        files.map(|file| tests_in(file)).sum()
    };
    let mut told = format!("{before}## What is tested\n");
    for line in section.lines() {
        let mut cells: Vec<_> = line.split(" | ").map(str::to_owned).collect();
        if line.starts_with('|') && places(line).next().is_some() {
            assert_eq!(cells.len(), 4, "{line}");
            cells[1] = places(line).map(counted).sum::<usize>().to_string();
        }
        told.push_str(&cells.join(" | "));
        told.push('\n');
    }
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, &told).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap() == told,
        "docs/protocols.md has other numbers of tests; to have them counted anew: BLESS=1 cargo test --test docs"
    );
    for folder in
        ["tests/http", "tests/streams", "tests/operations", "src/http1", "src/listener", "src/upstream"]
    {
        for file in sources(&root().join(folder)) {
            let is_named = named.iter().any(|place| file.starts_with(place.as_str()));
            assert!(is_named || tests_in(&file) == 0, "docs/protocols.md lacks {file}");
        }
    }
}

/// Files and folders that a row of a table names.
fn places(row: &str) -> impl Iterator<Item = &str> {
    row.split('`').skip(1).step_by(2).filter(|text| text.contains('/'))
}

/// This source, or those below this folder, from the root on.
fn sources(path: &Path) -> Vec<String> {
    if path.is_dir() {
        let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
        return entries.flat_map(|path| sources(&path)).collect();
    }
    let is_source = path.extension().is_some_and(|extension| extension == "rs");
    let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
    if is_source { vec![name] } else { Vec::new() }
}

/// How many functions of a source are tests.
fn tests_in(file: &str) -> usize {
    let is_test = |line: &&str| ["#[test]", "#[tokio::test"].iter().any(|test| line.trim().starts_with(test));
    read(file).lines().filter(is_test).count()
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
