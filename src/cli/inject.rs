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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    const MANIFEST: &str = r#"
apiVersion: v1
kind: List
items:
  - apiVersion: apps/v1
    kind: Deployment
    metadata: { name: orders, annotations: { note: "yes", lines: "one\ntwo\n" } }
    spec:
      template:
        metadata: { labels: { app: orders } }
        spec:
          terminationGracePeriodSeconds: 10
          containers:
            - name: orders
              image: orders
              args: [serve]
              env:
              ports: [{ name: http, containerPort: 8080 }, { name: voice, containerPort: 5060, protocol: UDP }]
              startupProbe: { tcpSocket: { port: http }, periodSeconds: 2 }
              readinessProbe: { httpGet: { path: /ready, port: http } }
              livenessProbe: { grpc: { port: 9090 } }
  - apiVersion: v1
    kind: Service
    metadata: { name: orders }
    spec: { selector: { app: orders }, ports: [{ port: 80, targetPort: http }] }
"#;

    /// What is printed for a file of this text.
    fn printed(text: &str, lock: &[&str]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("manifest.yaml");
        std::fs::write(&file, text).unwrap();
        let file = file.to_str().unwrap();
        let fixed = ["inject", "--file", file, "--app-port", "8080", "--tls-secret", "tls"];
        let line = [&fixed[..], lock].concat();
        let mut out = Vec::new();
        run(Line::parse_from(line).options, &mut out, &mut io::sink()).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn twice_is_once_to_the_byte() {
        let locks: [&[&str]; 5] = [
            &["--lock", "loopback", "--bind-env", "HOST=127.0.0.1"],
            &["--lock", "loopback", "--bind-arg", "--host=127.0.0.1"],
            &["--lock", "nftables", "--nft-image", "nft"],
            &["--lock", "network-policy"],
            &["--insecure-leave-open"],
        ];
        for lock in locks {
            let once = printed(MANIFEST, lock);
            assert!(once.contains("name: valgate"), "{once}");
            assert_eq!(printed(&once, lock), once, "{lock:?}");
        }
    }
}
