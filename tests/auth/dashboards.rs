//! The dashboard and the alert rules speak of metrics that a running gateway exports, and the rules do what they say.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{ISSUER, Signer, TestGateway, get};

fn deployed(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(path)
}

/// The names of metrics in a text, without what the parts of a histogram end in.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let metrics = words.filter(|word| word.starts_with("valgate_"));
    metrics.map(|name| name.strip_suffix("_bucket").unwrap_or(name).to_owned()).collect()
}

#[tokio::test]
async fn every_metric_that_they_name_is_exported() {
    let gateway = TestGateway::start_unready(&format!(
        "
audit_log: {{ output: {{ file: $DIR/audit.log }} }}
issuers:
  - name: main
    issuer: {ISSUER}
    keys: {{ inline: {} }}
    audiences: [orders-api]
    revocation: {{ feeds: [logout], max_staleness: 10m, when_stale: reject }}
feeds:
  - {{ name: logout, file: {{ path: $DIR/revoked.json }} }}
routes:
  - {{ match: {{ path: /orders/** }}, require: {{ issuers: [main] }}, upstream: api }}
",
        Signer::es256("k1").jwks()
    ))
    .await;
    let page = get(gateway.health, "/metrics", &[]).await.text();
    let described = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let exported: BTreeSet<String> = described
        .map(|(name, kind)| match kind {
            "counter" => format!("{name}_total"),
            "info" => format!("{name}_info"),
            _ => name.to_owned(),
        })
        .collect();
    for file in ["grafana/valgate.json", "prometheus/alerts.yaml", "prometheus/alerts_test.yaml"] {
        let wanted = named(&std::fs::read_to_string(deployed(file)).unwrap());
        assert!(wanted.len() > 10, "{file}: {wanted:?}");
        let missing: Vec<_> = wanted.difference(&exported).collect();
        assert!(missing.is_empty(), "{file} names what is not exported: {missing:?}");
    }
}

#[test]
fn the_rules_pass_their_own_tests() {
    let promtool = |verb: &str, file: &str| {
        let run = Command::new("promtool").args([verb, "rules"]).arg(deployed(file)).output();
        let output = run.expect("promtool is in Debian's package 'prometheus'");
        assert!(output.status.success(), "{file}: {}", String::from_utf8_lossy(&output.stderr));
    };
    promtool("check", "prometheus/alerts.yaml");
    promtool("test", "prometheus/alerts_test.yaml");
}

/// A chart cannot take files from outside of it.
#[test]
fn the_chart_has_the_same_rules() {
    let read = |path: &str| std::fs::read_to_string(deployed(path)).unwrap();
    assert_eq!(read("helm/valgate/files/alerts.yaml"), read("prometheus/alerts.yaml"));
}
