//! What a configuration said, kept to be compared with what the next one says: which parts are the same, which
//! fields differ, which files they name.
//!
//! Values may be secrets, so they are compared and never shown. Knows nothing of what they mean.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use serde_json::{Map, Value};

use super::place::{Place, Step};

/// The configuration as written, after `${ENV_VAR}`, with the contents of the files that it names.
#[derive(Clone, Default)]
pub struct Document {
    text: Arc<str>,
    root: Value,
    shown: Value,
    references: Vec<Reference>,
}

/// A file that the configuration names and that is read when it is put in force.
#[derive(Clone)]
pub(super) struct Reference {
    pub(super) place: Place,
    pub(super) path: PathBuf,
    content: Content,
}

/// What stands for a part of a configuration: two that are equal say the same, files included.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Identity([u8; 32]);

/// What stands for the content of a file; nothing for one that cannot be read.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Content(Option<[u8; 32]>);

impl Document {
    pub(super) fn new(text: &str, root: Value, shown: Value, references: Vec<Reference>) -> Self {
        Self { text: text.into(), root, shown, references }
    }

    /// As it stands in the file, fit to be shown: secrets are masked, and environment variables are named, not filled
    /// in.
    pub fn shown(&self) -> &Value {
        &self.shown
    }

    /// The file's text, secrets and all.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What [`contents`] would have said of this configuration's file and its [`Self::files`] when they were read.
    pub fn seen(&self) -> Identity {
        let named: BTreeMap<&PathBuf, Content> =
            self.references.iter().rev().map(|reference| (&reference.path, reference.content)).collect();
        together([Content::of_bytes(self.text.as_bytes())].into_iter().chain(named.into_values()))
    }

    /// The identity of some fields, or of all if none is named, of one element of a list at the top of the file.
    pub fn identity(&self, list: &str, index: usize, fields: &[&str]) -> Identity {
        let element = self.root.get(list).and_then(|list| list.get(index));
        self.identity_of(&Place::root().field(list).index(index), element, fields)
    }

    /// The identity of a section at the top of the file.
    pub fn section(&self, name: &str) -> Identity {
        self.identity_of(&Place::root().field(name), self.root.get(name), &[])
    }

    fn identity_of(&self, place: &Place, element: Option<&Value>, fields: &[&str]) -> Identity {
        let mut context = Context::new(&SHA256);
        let mut add = |place: &Place, value: Option<&Value>| {
            // JSON tells its parts apart, so that no two values read the same.
            context.update(value.map(Value::to_string).unwrap_or_default().as_bytes());
            for reference in self.references.iter().filter(|reference| reference.place.is_within(place)) {
                context.update(&reference.content.0.unwrap_or_default());
            }
            context.update(&[0]);
        };
        if fields.is_empty() {
            add(place, element);
        }
        for field in fields {
            add(&place.field(field), element.and_then(|element| element.get(field)));
        }
        Identity(sum(context))
    }

    /// The identities of all elements of a list at the top of the file.
    pub fn identities(&self, list: &str) -> Vec<Identity> {
        let length = self.root.get(list).and_then(Value::as_array).map_or(0, Vec::len);
        (0..length).map(|index| self.identity(list, index, &[])).collect()
    }

    /// The files that the configuration names: a change of one calls for a reload.
    pub fn files(&self) -> BTreeSet<PathBuf> {
        self.references.iter().map(|reference| reference.path.clone()).collect()
    }

    /// The fields that `newer` has otherwise, by their paths; elements of lists go by their names where they have
    /// them. Never values, which may be secrets.
    pub fn changes(&self, newer: &Self) -> Vec<String> {
        let mut changes = Vec::new();
        differ("", Some(&self.root), Some(&newer.root), &mut changes);
        for reference in &newer.references {
            let same_file = |old: &&Reference| old.place == reference.place && old.path == reference.path;
            let old = self.references.iter().find(same_file);
            if old.is_some_and(|old| old.content != reference.content) {
                changes.push(format!("{} (content of {})", reference.place, reference.path.display()));
            }
        }
        changes
    }
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Document").field("files", &self.files()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity(..)")
    }
}

impl Reference {
    /// The file as it is now; to be called before anybody reads it for its meaning, so that no change of it is missed.
    pub(super) fn take(place: &Place, path: &Path) -> Self {
        Self { place: place.clone(), path: path.to_owned(), content: Content::of(path) }
    }
}

/// What stands for the contents of all these files together; whatever changes one of them changes it.
pub fn contents<'a>(files: impl IntoIterator<Item = &'a Path>) -> Identity {
    together(files.into_iter().map(Content::of))
}

fn together(contents: impl Iterator<Item = Content>) -> Identity {
    let mut context = Context::new(&SHA256);
    for Content(content) in contents {
        context.update(&[u8::from(content.is_some())]);
        context.update(&content.unwrap_or_default());
    }
    Identity(sum(context))
}

impl Content {
    /// Follows symbolic links, so that a directory of Kubernetes that is swapped as a whole is noticed.
    fn of(path: &Path) -> Self {
        let Ok(file) = File::open(path) else { return Self(None) };
        let mut bytes = Vec::new();
        if file.take(MAX_FILE_BYTES).read_to_end(&mut bytes).is_err() {
            return Self(None);
        }
        Self::of_bytes(&bytes)
    }

    fn of_bytes(bytes: &[u8]) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(bytes);
        Self(Some(sum(context)))
    }
}

fn sum(context: Context) -> [u8; 32] {
    let mut sum = [0; 32];
    sum.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
    sum
}

fn differ(path: &str, old: Option<&Value>, new: Option<&Value>, changes: &mut Vec<String>) {
    match (old, new) {
        (Some(old), Some(new)) if old == new => {}
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            for name in names {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                differ(&path, old.get(name), new.get(name), changes);
            }
        }
        (Some(Value::Array(old)), Some(Value::Array(new))) => elements_differ(path, old, new, changes),
        (None, Some(_)) => changes.push(format!("{path} (added)")),
        (Some(_), None) => changes.push(format!("{path} (removed)")),
        _ => changes.push(path.to_owned()),
    }
}

fn elements_differ(path: &str, old: &[Value], new: &[Value], changes: &mut Vec<String>) {
    let before = changes.len();
    let (Some(old), Some(new)) = (by_name(old), by_name(new)) else {
        changes.push(path.to_owned());
        return;
    };
    let mut names: Vec<&String> = old.iter().map(|(name, _)| name).collect();
    names.extend(new.iter().map(|(name, _)| name).filter(|name| find(&old, name).is_none()));
    for name in names {
        differ(&format!("{path}[{name}]"), find(&old, name), find(&new, name), changes);
    }
    if changes.len() == before {
        changes.push(format!("{path} (order)"));
    }
}

/// The elements with the names that tell them apart; none if they have no such names.
fn by_name(list: &[Value]) -> Option<Vec<(String, &Value)>> {
    let mut named: Vec<(String, &Value)> = Vec::new();
    for element in list {
        let name = name(element.as_object()?)?;
        if find(&named, &name).is_some() {
            return None;
        }
        named.push((name, element));
    }
    Some(named)
}

fn find<'a>(named: &[(String, &'a Value)], name: &str) -> Option<&'a Value> {
    named.iter().find(|(other, _)| other == name).map(|(_, value)| *value)
}

fn name(element: &Map<String, Value>) -> Option<String> {
    let text = |from: &Map<String, Value>, field: &str| Some(from.get(field)?.as_str()?.to_owned());
    let matches = || {
        let matches = element.get("match")?.as_object()?;
        let methods = matches.get("methods").map(Value::to_string).unwrap_or_default();
        let host = text(matches, "host").unwrap_or_default();
        Some(format!("{}{host}{}", methods.replace('"', ""), text(matches, "path")?))
    };
    text(element, "name").or_else(|| text(element, "address")).or_else(matches)
}

impl Place {
    /// Whether it is the other place or lies below it.
    fn is_within(&self, other: &Self) -> bool {
        let (steps, prefix): (&[Step], &[Step]) = (self.steps(), other.steps());
        steps.starts_with(prefix)
    }
}

/// Files are certificates, keys and secrets; more than this of one is not looked at.
const MAX_FILE_BYTES: u64 = 4 << 20;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document(root: Value) -> Document {
        Document::new("", root, Value::Null, Vec::new())
    }

    #[test]
    fn changes_go_by_path_and_name_and_show_no_value() {
        let old = document(json!({
            "workers": 2,
            "listeners": [{ "address": "127.0.0.1:1" }, { "address": "127.0.0.1:2" }],
            "feeds": [{ "name": "a", "http": { "authorization": "s3cret" } }],
            "routes": [{ "match": { "path": "/a", "methods": ["GET"] }, "upstream": "x" }],
            "limits": {},
        }));
        let new = document(json!({
            "workers": 3,
            "listeners": [{ "address": "127.0.0.1:2" }, { "address": "127.0.0.1:1" }],
            "feeds": [{ "name": "b" }, { "name": "a", "http": { "authorization": "other" } }],
            "routes": [{ "match": { "path": "/a", "methods": ["GET"] }, "upstream": "y" }],
            "timeouts": {},
        }));
        let changes = [
            "feeds[a].http.authorization",
            "feeds[b] (added)",
            "limits (removed)",
            "listeners (order)",
            "routes[[GET]/a].upstream",
            "timeouts (added)",
            "workers",
        ];
        assert_eq!(old.changes(&new), changes);
        assert_eq!(old.changes(&old), [""; 0]);
        assert!(!format!("{old:?}").contains("s3cret"));
    }

    #[test]
    fn an_identity_covers_its_fields_and_their_files() {
        let dir = tempfile::tempdir().unwrap();
        let ca = dir.path().join("ca.pem");
        std::fs::write(&ca, "one").unwrap();
        let made = |leeway: &str| {
            let place = Place::root().field("issuers").index(0).field("keys").field("ca");
            let root = json!({ "issuers": [{ "name": "main", "keys": {}, "leeway": leeway }] });
            Document::new("", root, Value::Null, vec![Reference::take(&place, &ca)])
        };
        let (first, same, other) = (made("1s"), made("1s"), made("2s"));
        let keys = |document: &Document| document.identity("issuers", 0, &["name", "keys"]);
        assert_eq!(first.identity("issuers", 0, &[]), same.identity("issuers", 0, &[]));
        assert_ne!(first.identity("issuers", 0, &[]), other.identity("issuers", 0, &[]));
        assert_eq!(keys(&first), keys(&other));
        std::fs::write(&ca, "two").unwrap();
        let renewed = made("1s");
        assert_ne!(keys(&first), keys(&renewed));
        assert_eq!(first.changes(&renewed).len(), 1);
        assert!(first.changes(&renewed)[0].starts_with("issuers[0].keys.ca (content of "));
    }

    #[test]
    fn a_swapped_directory_changes_the_contents() {
        let dir = tempfile::tempdir().unwrap();
        for (version, text) in [("v1", "a"), ("v2", "b")] {
            std::fs::create_dir(dir.path().join(version)).unwrap();
            std::fs::write(dir.path().join(version).join("tls.crt"), text).unwrap();
        }
        let (data, file) = (dir.path().join("..data"), dir.path().join("tls.crt"));
        std::os::unix::fs::symlink("v1", &data).unwrap();
        std::os::unix::fs::symlink("..data/tls.crt", &file).unwrap();
        let first = contents([file.as_path()]);
        assert_eq!(first, contents([file.as_path()]));
        std::os::unix::fs::symlink("v2", dir.path().join("new")).unwrap();
        std::fs::rename(dir.path().join("new"), &data).unwrap();
        assert_ne!(first, contents([file.as_path()]));
    }
}
