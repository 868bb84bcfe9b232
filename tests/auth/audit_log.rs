//! The audit log: who was refused and why, what changed, and that an attack does not fill it.

use serde_json::{Value, json};

use crate::support::{ISSUER, Signer, TestGateway, Token, get, now, refused};

fn yaml(signer: &Signer, more: &str) -> String {
    format!(
        "
{more}
audit_log: {{ output: {{ file: $DIR/audit.log }}, lines_per_second: 2 }}
admin: {{ address: 127.0.0.1:0 }}
issuers:
  - {{ name: main, issuer: {ISSUER}, keys: {{ inline: {} }}, audiences: [orders-api] }}
routes:
  - {{ name: orders, match: {{ path: /orders/** }}, require: {{ issuers: [main] }}, upstream: api }}
",
        signer.jwks()
    )
}

/// Stops the gateway and gives the lines of its audit log.
async fn lines(gateway: TestGateway) -> Vec<Value> {
    let dir = gateway.dir();
    gateway.stop().await;
    let log = std::fs::read_to_string(dir.path().join("audit.log")).unwrap();
    log.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn of<'l>(lines: &'l [Value], event: &str) -> Vec<&'l Value> {
    lines.iter().filter(|line| line["event"] == event).collect()
}

#[tokio::test]
async fn it_says_who_was_refused_and_what_changed() {
    let signer = Signer::es256("k1");
    let mut gateway = TestGateway::start(&yaml(&signer, "")).await;
    let good = Token::new().sign(&signer);
    let expired = Token::new().claim("sub", "alice").claim("exp", now() - 600).sign(&signer);
    refused(&gateway.get("/orders/7?secret=1", &expired, &[]).await, "VAL-020", "expired");
    assert_eq!(gateway.get("/orders/8", &good, &[]).await.status, 200);
    assert_eq!(get(gateway.admin(), "/status", &[]).await.status, 200);
    assert_eq!(get(gateway.admin(), "/metrics", &[]).await.status, 200);
    gateway.reload(&yaml(&signer, "error_detail: code_only")).await.unwrap();

    let lines = lines(gateway).await;
    let refusals = of(&lines, "request_refused");
    assert_eq!(refusals.len(), 1, "{lines:#?}");
    let line = refusals[0];
    assert_eq!((&line["code"], &line["reason"]), (&json!("VAL-020"), &json!("expired")));
    assert_eq!((&line["route"], &line["path"]), (&json!("orders"), &json!("/orders/7")));
    assert_eq!((&line["client_ip"], &line["status"]), (&json!("127.0.0.1"), &json!(401)));
    assert!(line["token"].is_string() && line["request_id"].is_string(), "{line}");
    assert!(!lines.iter().any(|line| line.to_string().contains(&expired)));

    assert_eq!(of(&lines, "started").len(), 1);
    assert_eq!(of(&lines, "stopped").len(), 1);
    assert_eq!(of(&lines, "keys_changed")[0]["added"], "k1");
    let changed = of(&lines, "configuration_changed");
    assert_eq!(
        (&changed[0]["generation"], &changed[0]["changes"]),
        (&json!(2), &json!("error_detail (added)"))
    );
    let called: Vec<_> =
        of(&lines, "admin_called").iter().map(|line| (&line["path"], &line["client_ip"])).collect();
    assert_eq!(called, [(&json!("/status"), &json!("127.0.0.1"))], "a scrape is no event");
}

#[tokio::test]
async fn it_says_when_revocations_change() {
    let signer = Signer::es256("k1");
    let yaml = yaml(&signer, "feeds: [{ name: logout, file: { path: $DIR/revoked.json } }]").replace(
        "audiences: [orders-api]",
        "audiences: [orders-api], revocation: { feeds: [logout], max_staleness: 10m, when_stale: reject }",
    );
    let gateway = TestGateway::start_unready(&yaml).await;
    let entries = json!([{ "jti": "a" }, { "jti": "b" }]);
    let revoked = json!({ "version": 1, "kind": "snapshot", "epoch": "e", "entries": entries });
    let path = gateway.dir().path().join("revoked.json");
    std::fs::write(path.with_extension("new"), revoked.to_string()).unwrap();
    std::fs::rename(path.with_extension("new"), path).unwrap();
    let log = gateway.dir().path().join("audit.log");
    crate::support::eventually("a line", || async {
        std::fs::read_to_string(&log).is_ok_and(|log| log.contains("\"revocations_changed\""))
    })
    .await;
    let lines = lines(gateway).await;
    let changed = of(&lines, "revocations_changed");
    assert_eq!(
        (&changed[0]["feed"], &changed[0]["entries"], &changed[0]["before"]),
        (&json!("logout"), &json!(2), &json!(0))
    );
}

const ATTACK: u64 = 200;

#[tokio::test]
async fn an_attack_does_not_fill_it() {
    let signer = Signer::es256("k1");
    let gateway = TestGateway::start(&yaml(&signer, "workers: 1")).await;
    for _ in 0..ATTACK {
        refused(&gateway.get("/orders/1", "", &[]).await, "VAL-010", "missing");
    }
    let left_out = async || gateway.metric("valgate_audit_log_left_out_lines_total").await;
    crate::support::eventually("the second is over", || async { left_out().await > 0 }).await;
    let lines = lines(gateway).await;
    let written = of(&lines, "request_refused").len() as u64;
    let left_out: u64 = of(&lines, "lines_left_out").iter().map(|line| line["lines"].as_u64().unwrap()).sum();
    assert!(written < ATTACK / 2, "{written}");
    assert!(left_out > 0 && left_out + written <= ATTACK, "{left_out} and {written}");
    assert_eq!(of(&lines, "lines_left_out")[0]["reason"], "missing");
}
