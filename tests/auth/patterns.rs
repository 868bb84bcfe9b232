//! Suspicious conduct is counted and told; nobody is refused for it.

use std::sync::Arc;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{ISSUER, Signer, TestGateway, Token, eventually, refused};

#[tokio::test]
async fn suspicious_conduct_is_told_once_and_refused_never() {
    let signer = Signer::es256("k1");
    let yaml = format!(
        "
audit_log: {{ output: {{ file: $DIR/audit.log }} }}
forwarded: {{ trusted_proxies: [127.0.0.1] }}
patterns: {{ failures_by_client: 3, failures_by_subject: 2, addresses_of_token: 4, uses_after_revocation: 2 }}
issuers:
  - name: main
    issuer: {ISSUER}
    keys: {{ inline: {} }}
    audiences: [orders-api]
    revocation: {{ feeds: [logout], max_staleness: 10m, when_stale: reject }}
feeds: [{{ name: logout, file: {{ path: $DIR/revoked.json }} }}]
routes:
  - {{ name: orders, match: {{ path: /orders/** }}, require: {{ issuers: [main] }}, upstream: api }}
",
        signer.jwks()
    );
    let dir = Arc::new(TempDir::new().unwrap());
    let revoke = |entries: Value| {
        let snapshot = json!({ "version": 1, "kind": "snapshot", "epoch": "e", "entries": entries });
        let path = dir.path().join("revoked.json");
        std::fs::write(path.with_extension("new"), snapshot.to_string()).unwrap();
        std::fs::rename(path.with_extension("new"), path).unwrap();
    };
    revoke(json!([{ "jti": "another" }]));
    let gateway = TestGateway::start_in(Arc::clone(&dir), &yaml).await;
    gateway.wait_until_ready().await;
    let found = async |pattern: &str| {
        gateway.metric(&format!("valgate_suspicious_total{{pattern=\"{pattern}\"}}")).await
    };
    let from = |client: &str| [("X-Forwarded-For".to_owned(), client.to_owned())];
    let get = async |token: &str, client: &str| {
        let from = from(client);
        gateway.get("/orders/1", token, &[(from[0].0.as_str(), from[0].1.as_str())]).await
    };

    let forged = Token::new().claim("sub", "root").sign(&Signer::es256("k1"));
    for _ in 0..4 {
        refused(&get(&forged, "192.0.2.1").await, "VAL-020", "signature_mismatch");
    }
    assert_eq!(found("failures_by_client").await, 1);
    assert_eq!(found("failures_by_subject").await, 1);

    let good = Token::new().claim("sub", "alice").claim("jti", "a").sign(&signer);
    for client in 0..12 {
        assert_eq!(get(&good, &format!("198.51.100.{client}")).await.status, 200);
    }
    eventually("housekeeping", || async { found("token_from_many_clients").await == 1 }).await;
    assert_eq!(get(&good, "192.0.2.1").await.status, 200, "a good token passes from wherever");

    revoke(json!([{ "jti": "another" }, { "jti": "a" }]));
    eventually("revoked", || async { get(&good, "198.51.100.1").await.status == 401 }).await;
    refused(&get(&good, "198.51.100.1").await, "VAL-020", "revoked");
    assert_eq!(found("use_after_revocation").await, 1);

    gateway.stop().await;
    let log = std::fs::read_to_string(dir.path().join("audit.log")).unwrap();
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let told: Vec<Value> = lines.filter(|line| line["event"] == "suspicious_conduct").collect();
    let of = |pattern: &str| told.iter().find(|line| line["pattern"] == pattern).unwrap();
    assert_eq!(told.len(), 4, "{told:#?}");
    assert_eq!(of("failures_by_client")["client_ip"], "192.0.2.1");
    assert_eq!(of("failures_by_subject")["claimed_sub"], "root");
    assert_eq!(of("use_after_revocation")["token"], of("token_from_many_clients")["token"]);
    assert!(of("token_from_many_clients")["count"].as_u64().unwrap() >= 4);
    assert!(!log.contains(&good) && !log.contains(&forged));
}
