//! The audit log: who was refused and why, what changed, and that an attack does not fill it.

use std::sync::Arc;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{ISSUER, Signer, TestGateway, Token, get, now, refused, send};

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

/// With a feed that revokes.
fn revocable(signer: &Signer) -> String {
    yaml(signer, "feeds: [{ name: logout, file: { path: $DIR/revoked.json } }]").replace(
        "audiences: [orders-api]",
        "audiences: [orders-api], revocation: { feeds: [logout], max_staleness: 10m, when_stale: reject }",
    )
    .replace("lines_per_second: 2", "lines_per_second: 100")
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
    let gateway = TestGateway::start_unready(&revocable(&signer)).await;
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

/// Who a refused token is of is told once its signature was found good, and not before.
#[tokio::test]
async fn it_says_whose_a_revoked_token_is() {
    let signer = Signer::es256("k1");
    let dir = Arc::new(TempDir::new().unwrap());
    let token = Token::new().claim("sub", "alice").claim("jti", "7d1f");
    let revoked = json!({ "version": 1, "kind": "snapshot", "epoch": "e", "entries": [{ "jti": "7d1f" }] });
    std::fs::write(dir.path().join("revoked.json"), revoked.to_string()).unwrap();
    let gateway = TestGateway::start_in(Arc::clone(&dir), &revocable(&signer)).await;
    gateway.wait_until_ready().await;
    let good = token.sign(&signer);
    // Judged by its signature, and then by its verdict in the cache.
    for _ in 0..2 {
        refused(&gateway.get("/orders/1", &good, &[]).await, "VAL-020", "revoked");
    }
    let forged = token.sign(&Signer::es256("k1"));
    refused(&gateway.get("/orders/2", &forged, &[]).await, "VAL-020", "signature_mismatch");
    let access = gateway.stop().await;
    let log = std::fs::read_to_string(dir.path().join("audit.log")).unwrap();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();

    let audited = of(&lines, "request_refused");
    let told: Vec<_> =
        audited.into_iter().chain(&access).filter(|line| line["reason"] == "revoked").collect();
    assert_eq!(told.len(), 4, "{lines:#?} {access:#?}");
    for line in told {
        for (field, value) in
            [("issuer", "main"), ("sub", "alice"), ("client_id", "shop"), ("jti", "7d1f"), ("kid", "k1")]
        {
            assert_eq!(line[field], value, "{field}: {line}");
        }
    }
    let nobody: Vec<_> = lines.iter().chain(&access).filter(|line| line["path"] == "/orders/2").collect();
    assert_eq!(nobody.len(), 2);
    assert!(nobody.iter().all(|line| line["sub"].is_null() && line["issuer"].is_null()), "{nobody:#?}");
}

#[tokio::test]
async fn it_says_who_revoked_what() {
    let signer = Signer::es256("k1");
    let dir = Arc::new(TempDir::new().unwrap());
    let empty = json!({ "version": 1, "kind": "snapshot", "epoch": "e", "entries": [] });
    std::fs::write(dir.path().join("revoked.json"), empty.to_string()).unwrap();
    let gateway = TestGateway::start_in(Arc::clone(&dir), &revocable(&signer)).await;
    gateway.wait_until_ready().await;
    let order = async |entries: Value| {
        let body = json!({ "entries": entries }).to_string();
        let head = format!(
            "POST /revocations HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        send(gateway.admin(), head + &body).await.status
    };
    let until = now() + 3600;
    let entries = json!([{ "sub": "alice", "exp": until }, { "jti": "7d1f", "exp": until }, { "sid": "s1", "lift": true }]);
    assert_eq!(order(entries).await, 200);
    assert_eq!(order(json!([{ "sub": "a", "jti": "b" }])).await, 400);
    let many: Vec<Value> =
        (0..1000).map(|number| json!({ "jti": format!("token-{number}"), "exp": until })).collect();
    assert_eq!(order(many.into()).await, 200);

    let lines = lines(gateway).await;
    let ordered = of(&lines, "revocations_ordered");
    assert_eq!(ordered.len(), 2, "{lines:#?}");
    let first = ordered[0];
    assert_eq!((&first["feed"], &first["kinds"]), (&json!("logout"), &json!("jti, sid, sub")));
    assert_eq!((&first["revoked"], &first["lifted"]), (&json!(2), &json!(1)));
    assert_eq!(first["values"], "sub alice, jti 7d1f, lift sid s1");
    assert_eq!(first["client_ip"], "127.0.0.1");
    let values = ordered[1]["values"].as_str().unwrap();
    assert_eq!(ordered[1]["revoked"], 1000);
    assert!(values.starts_with("jti token-0, ") && values.len() < 1100, "{values}");
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
    // The last second is open when the gateway stops.
    for _ in 0..ATTACK {
        refused(&gateway.get("/orders/1", "", &[]).await, "VAL-010", "missing");
    }
    for _ in 0..ATTACK {
        assert_eq!(get(gateway.admin(), "/status", &[]).await.status, 200);
    }
    let lines = lines(gateway).await;
    let written = of(&lines, "request_refused").len() as u64;
    let called = of(&lines, "admin_called").len() as u64;
    let left_out = |field: &str, name: &str| -> u64 {
        let told = of(&lines, "lines_left_out").into_iter().filter(|line| line[field] == name);
        told.map(|line| line["lines"].as_u64().unwrap()).sum()
    };
    assert!(written < ATTACK && called < ATTACK / 2, "{written} and {called}");
    assert_eq!(left_out("reason", "missing") + written, 2 * ATTACK);
    assert_eq!(left_out("of", "admin_called") + called, ATTACK);
}
