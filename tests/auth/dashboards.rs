//! The dashboard, the alert rules and docs/observability.md speak of metrics that a running gateway exports, the page
//! of all of them, and the rules do what they say.

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

/// What a gateway exports that has something of every kind that has metrics of its own. Nothing answers it.
async fn exported() -> BTreeSet<String> {
    let gateway = TestGateway::start_unready(&format!(
        "
audit_log: {{ output: {{ file: $DIR/audit.log }} }}
tracing: {{ endpoint: 'http://127.0.0.1:9/v1/traces' }}
issuers:
  - name: main
    issuer: {ISSUER}
    keys: {{ inline: {keys} }}
    audiences: [orders-api]
    revocation:
      feeds: [logout, logout-tokens]
      max_staleness: 10m
      when_stale: reject
      status_list: {{ allowed: ['http://127.0.0.1:9/status/'] }}
    registry: {{ valkey: {{ address: '127.0.0.1:9' }} }}
  - name: opaque
    issuer: https://opaque.example.com/
    keys: {{ inline: {keys} }}
    audiences: [orders-api]
    introspection:
      url: 'http://127.0.0.1:9/introspect'
      client: {{ id: gateway, client_secret_basic: s3cret }}
feeds:
  - {{ name: logout, file: {{ path: $DIR/revoked.json }} }}
  - {{ name: logout-tokens, backchannel_logout: {{ signed_by: main, audiences: [shop] }} }}
routes:
  - {{ match: {{ path: /orders/** }}, require: {{ issuers: [main, opaque] }}, upstream: api }}
  - {{ match: {{ path: /logout, methods: [POST] }}, receives: logout-tokens }}
",
        keys = Signer::es256("k1").jwks()
    ))
    .await;
    let page = get(gateway.health, "/metrics", &[]).await.text();
    let described = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    described
        .map(|(name, kind)| match kind {
            "counter" => format!("{name}_total"),
            "info" => format!("{name}_info"),
            _ => name.to_owned(),
        })
        .collect()
}

#[tokio::test]
async fn the_page_names_what_is_exported_and_nothing_else() {
    let page = std::fs::read_to_string(deployed("../docs/observability.md")).unwrap();
    let (named, exported) = (named(&page), exported().await);
    let missing: Vec<_> = exported.difference(&named).collect();
    assert!(missing.is_empty(), "docs/observability.md lacks {missing:?}");
    let gone: Vec<_> = named.difference(&exported).collect();
    assert!(gone.is_empty(), "docs/observability.md names what no gateway exports: {gone:?}");
}

#[tokio::test]
async fn every_metric_that_they_name_is_exported() {
    let exported = exported().await;
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
