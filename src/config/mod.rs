//! The configuration: from one YAML file to settings that cannot be wrong.
//!
//! ```text
//! text -> tree        YAML with positions
//!      -> substitute  ${ENV_VAR}
//!      -> shape       the tree against the schema: unknown, missing, mistyped fields
//!      -> raw         serde types that mirror the file
//!      -> build       raw to settings: what values mean, and whether they fit each other
//!      -> Config
//! ```
//!
//! All mistakes are told at once, each with its place in the file and what would be right. Nothing outside this
//! folder sees YAML or a raw type. Knows nothing of sockets, requests or tasks.

mod audit;
mod build;
mod diagnostic;
mod document;
mod mistakes;
mod nearest;
mod place;
#[allow(dead_code, reason = "reserved fields are there for the schema, not to be read")]
mod raw;
mod reference;
mod schema;
pub mod settings;
mod shape;
mod shown;
mod substitute;
#[cfg(test)]
mod tests;
mod tree;

use std::path::Path;

pub use audit::{Audit, Finding, Severity, audit, audit_text};
pub use diagnostic::{Diagnostic, Diagnostics};
pub use document::{Document, Identity, contents};
pub use reference::reference;
pub use schema::schema;
pub use settings::Config;

use mistakes::Mistakes;
use place::Place;

/// Largest configuration file. Thousands of routes fit; what is larger is not a configuration.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Reads the configuration file at `path`, with environment variables of this process. Relative paths in the
/// file are relative to its directory; the files that it names must be readable.
pub fn load(path: &Path) -> Result<Config, Diagnostics> {
    load_as(path, path.parent().unwrap_or_else(|| Path::new("")))
}

/// Reads a copy of the configuration file at `path`: what is relative there is relative here.
pub fn load_copy(copy: &Path, path: &Path) -> Result<Config, Diagnostics> {
    load_as(copy, path.parent().unwrap_or_else(|| Path::new("")))
}

/// Reads a configuration from `text`. `name` stands for the file in messages, `base_dir` is what relative paths
/// are relative to, and `environment` looks up variables. Files that hold secrets (`file:`) are read; others are
/// not looked at.
pub fn parse(
    text: &str,
    name: &str,
    base_dir: &Path,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Config, Diagnostics> {
    Source { text, name, base_dir, environment, probe_files: false }.parse().map(|parsed| parsed.config)
}

struct Source<'a> {
    text: &'a str,
    name: &'a str,
    base_dir: &'a Path,
    environment: substitute::Environment<'a>,
    probe_files: bool,
}

/// A good configuration, and what it was made from.
struct Parsed {
    config: Config,
    tree: tree::Node,
    /// Parts of the text that are never shown.
    secrets: Vec<tree::Span>,
}

impl Source<'_> {
    fn parse(&self) -> Result<Parsed, Diagnostics> {
        let (mut root, faults) = tree::parse(self.text).map_err(|fault| self.only(&fault))?;
        let unresolved = substitute::fill_in(&mut root, self.environment);
        let mut mistakes = Mistakes::new(self.text, &root);
        for fault in &faults {
            mistakes.add_fault(fault);
        }
        for reference in unresolved {
            mistakes.add(&reference.place, reference.message, reference.remedy);
            mistakes.mark_replaced(reference.place);
        }
        let json = shape::conform(&schema(), &root, &mut mistakes);
        let files = build::Files::new(self.base_dir, self.probe_files);
        let config = match serde_json::from_value(json.clone()) {
            Ok(raw) => build::config(&raw, &files, &mut mistakes),
            Err(error) => {
                // The schema is made from the types, so this is a defect of ours; better told than ignored.
                mistakes.add(&Place::root(), error.to_string(), "compare with config/valgate.yaml");
                None
            }
        };
        let secrets = mistakes.hidden().to_vec();
        let shown = shown::document(&root, &secrets);
        let list = mistakes.into_diagnostics();
        match config {
            Some(config) if list.is_empty() => {
                let document = Document::new(self.text, json, shown, files.into_references());
                Ok(Parsed { config: Config { document, ..config }, tree: root, secrets })
            }
            _ if list.is_empty() => {
                // Every setting that cannot be made has its mistake told, so this too is a defect of ours.
                let message = "the configuration is not accepted, for a reason that is not known";
                Err(Diagnostics::one(self.name, Diagnostic::of_file(message, "please report this file")))
            }
            _ => Err(Diagnostics { file: self.name.to_owned(), list }),
        }
    }

    fn only(&self, fault: &tree::Fault) -> Diagnostics {
        let path = String::new();
        let diagnostic = Diagnostic::at(self.text, &[], fault.span, path, fault.message.clone());
        Diagnostics::one(self.name, diagnostic.remedy(fault.remedy))
    }
}

fn load_as(path: &Path, base_dir: &Path) -> Result<Config, Diagnostics> {
    let name = path.display().to_string();
    let text = read(path, &name)?;
    let environment = |variable: &str| std::env::var(variable).ok();
    let source = Source { text: &text, name: &name, base_dir, environment: &environment, probe_files: true };
    source.parse().map(|parsed| parsed.config)
}

fn read(path: &Path, name: &str) -> Result<String, Diagnostics> {
    use std::io::Read as _;

    let wrong = |message: String, remedy: &str| Diagnostics::one(name, Diagnostic::of_file(message, remedy));
    let unreadable = |error: std::io::Error| {
        wrong(format!("cannot read the file: {error}"), "check the path and its permissions")
    };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        let message = format!("the file is larger than {MAX_FILE_BYTES} bytes");
        return Err(wrong(message, "is this the right file? A configuration is far smaller"));
    }
    String::from_utf8(bytes).map_err(|_| {
        wrong("the file is not UTF-8 text".to_owned(), "save it as UTF-8; other encodings are not read")
    })
}
