//! The code against its own map: the table of layers in src/lib.rs, the size of files, their names and headings, and
//! the error catalogue in docs/errors.md.
//!
//! `BLESS=1 cargo test --test architecture` writes docs/errors.md anew.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A file that a reader takes in at a sitting. Most have half of this.
const MAX_LINES: usize = 600;

/// Names that say nothing of what is in the room.
const EMPTY_NAMES: [&str; 8] = ["util", "utils", "common", "helper", "helpers", "manager", "misc", "shared"];

#[test]
fn modules_import_only_what_the_table_allows() {
    let table = Table::read();
    let mut breaches = Vec::new();
    for file in rust_files("src") {
        let Some(module) = module_of(&file) else { continue };
        for (number, line) in code_lines(&file) {
            for imported in imports(&line) {
                if !table.allows(&module, &imported) {
                    breaches.push(format!("{}:{number}: {module} -> {imported}", file.display()));
                }
            }
        }
    }
    assert!(breaches.is_empty(), "against the table of layers in src/lib.rs:\n{}", breaches.join("\n"));
}

#[test]
fn the_table_has_every_module_once() {
    let lib = read("src/lib.rs");
    let mut declared: Vec<_> = lib
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ").or(line.strip_prefix("mod "))?.strip_suffix(';'))
        .map(str::to_owned)
        .collect();
    declared.sort_unstable();
    assert_eq!(Table::read().places.into_keys().collect::<Vec<_>>(), declared);
}

#[test]
fn every_file_opens_with_what_it_is_for() {
    // A tests.rs is about the file beside it.
    let silent: Vec<_> = rust_files("src")
        .into_iter()
        .filter(|file| !file.ends_with("tests.rs") && !read(file).starts_with("//! "))
        .collect();
    assert!(silent.is_empty(), "no //! at the top of {silent:?}");
}

#[test]
fn files_are_short() {
    let long: Vec<_> = ["src", "tests"]
        .into_iter()
        .flat_map(rust_files)
        .map(|file| (read(&file).lines().count(), file))
        .filter(|(lines, _)| *lines > MAX_LINES)
        .collect();
    assert!(long.is_empty(), "over {MAX_LINES} lines, split them: {long:?}");
}

#[test]
fn names_say_what_is_inside() {
    let empty: Vec<_> = ["src", "tests"]
        .into_iter()
        .flat_map(rust_files)
        .filter(|file| file.iter().any(|part| is_empty_name(&part.to_string_lossy())))
        .collect();
    assert!(empty.is_empty(), "names that say nothing: {empty:?}");
    for file in rust_files("src") {
        for (number, line) in code_lines(&file) {
            let module = line.trim().trim_start_matches("pub ").strip_prefix("mod ");
            let name = module.and_then(|rest| rest.split([' ', ';', '{']).next()).unwrap_or_default();
            assert!(!is_empty_name(name), "{}:{number}: mod {name}", file.display());
        }
    }
}

#[test]
fn the_error_catalogue_is_printed_as_it_is() {
    let path = root().join("docs/errors.md");
    let page = valgate::catalogue::markdown();
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, &page).unwrap();
    }
    let printed = fs::read_to_string(&path).unwrap_or_default();
    assert!(printed == page, "docs/errors.md is out of date; see the head of tests/architecture.rs");
}

/// The table of layers: a module's row and its place in the row.
struct Table {
    places: BTreeMap<String, (u8, usize)>,
}

impl Table {
    const SOURCES: u8 = 3;
    const DATA_PLANE: u8 = 4;
    const PROCESS: u8 = 5;

    /// Rows such as ``//! | 1 decisions | [`keys`] [`token`] | ... |``.
    fn read() -> Self {
        let mut places = BTreeMap::new();
        for row in read("src/lib.rs").lines().filter_map(|line| line.strip_prefix("//! | ")) {
            let Some(layer) = row.split(' ').next().and_then(|number| number.parse().ok()) else { continue };
            let modules = row.split('|').nth(1).expect("a row has a column of modules");
            for (place, name) in modules.split_whitespace().enumerate() {
                let name = name.trim_matches(['[', ']', '`']).to_owned();
                let before = places.insert(name, (layer, place));
                assert!(before.is_none(), "a module stands twice in the table: {row}");
            }
        }
        Self { places }
    }

    /// Lower layers, and in its own row what stands to the left. Sources and data plane do not know each other;
    /// the process knows all.
    fn allows(&self, module: &str, imported: &str) -> bool {
        let place = |name: &str| *self.places.get(name).unwrap_or_else(|| panic!("{name} is in no layer"));
        let ((from, left_of), (to, position)) = (place(module), place(imported));
        module == imported
            || from == Self::PROCESS
            || (to < from && !(from == Self::DATA_PLANE && to == Self::SOURCES))
            || (to == from && position < left_of)
    }
}

/// The module of the crate that a file belongs to; `None` for the crate's own two files.
fn module_of(file: &Path) -> Option<String> {
    let top = file.strip_prefix("src").ok()?.iter().next()?.to_string_lossy().into_owned();
    let name = top.strip_suffix(".rs").unwrap_or(&top);
    (!matches!(name, "lib" | "main")).then(|| name.to_owned())
}

/// What a line of code names of this crate.
fn imports(line: &str) -> Vec<String> {
    let names = line.split("crate::").skip(1).map(|rest| {
        assert!(!rest.starts_with('{'), "one module a line, so that it can be checked: {line}");
        rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
    });
    names.collect()
}

fn is_empty_name(name: &str) -> bool {
    EMPTY_NAMES.contains(&name.strip_suffix(".rs").unwrap_or(name))
}

/// Lines with their numbers, without those that are comments.
fn code_lines(file: &Path) -> Vec<(usize, String)> {
    let text = read(file);
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"));
    lines.map(|(index, line)| (index + 1, line.to_owned())).collect()
}

/// All Rust files below a folder, relative to the repository.
fn rust_files(folder: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![PathBuf::from(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let path = folder.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                if !path.ends_with("target") {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    assert!(!files.is_empty(), "no Rust files in {folder}");
    files.sort_unstable();
    files
}

fn read(file: impl AsRef<Path>) -> String {
    let path = root().join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
