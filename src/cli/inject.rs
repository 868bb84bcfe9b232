//! `valgate inject`: the gateway as a sidecar in Kubernetes manifests.

use std::io::{self, Read as _, Write};
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use serde_json::Value;

use crate::inject::{Choices, Settings, inject};

/// Where manifests come from, and what is put in.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Manifests, YAML or JSON, several documents in a file; - is standard input
    #[arg(short, long = "file", value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    choices: Choices,
}

/// Writes the injected manifests to `out`, notes to `notes`.
pub fn run(options: Options, out: &mut dyn Write, notes: &mut dyn Write) -> Result<()> {
    let settings = Settings::try_from(options.choices).map_err(|why| anyhow!(why))?;
    let mut documents = Vec::new();
    for file in &options.files {
        let text = read(file)?;
        let parsed: Vec<Value> =
            serde_yaml::from_multiple(&text).with_context(|| format!("{} is not YAML", file.display()))?;
        documents.extend(parsed.into_iter().filter(|document| !document.is_null()).flat_map(unpacked));
    }
    let injected = inject(documents, &settings)?;
    let options = serde_yaml::ser_options! { compact_list_indent: true };
    out.write_all(serde_yaml::to_string_multiple_with_options(&injected.documents, options)?.as_bytes())?;
    for note in injected.notes {
        writeln!(notes, "{note}")?;
    }
    Ok(())
}

fn read(file: &PathBuf) -> Result<String> {
    let mut text = String::new();
    if file.as_os_str() == "-" {
        io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
    } else {
        text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    }
    Ok(text)
}

/// `kubectl get` wraps several objects in a List.
fn unpacked(document: Value) -> Vec<Value> {
    match document {
        Value::Object(mut list) if list.get("kind").and_then(Value::as_str) == Some("List") => {
            match list.remove("items") {
                Some(Value::Array(items)) => items,
                _ => Vec::new(),
            }
        }
        document => vec![document],
    }
}
