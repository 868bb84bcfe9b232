//! The audit log of what befalls a gateway while it serves: a stream that is cut, keys that are replaced, a file that
//! is no configuration, requests that shadow mode lets through, and more calls than are told one by one.

use serde_json::{Value, json};

use crate::support::{Answer, Signer, Stub, TestGateway, Token, eventually, get};
use crate::{SSE, endless, open, read_to_end, read_until, revoke, write_feed};

fn yaml(keys: &Stub, stream: &str) -> String {
    format!(
        "
audit_log: {{ output: {{ file: $DIR/audit.log }}, lines_per_second: 2 }}
admin: {{ address: 127.0.0.1:0 }}
issuers:
  - name: main
    issuer: https://id.example.com/
    keys: {{ jwks_url: \"{}\", refresh_interval: 200ms, cooldown: 100ms }}
    audiences: [orders-api]
    revocation: {{ feeds: [logout], max_staleness: 10m, when_stale: reject }}
feeds:
  - {{ name: logout, file: {{ path: $DIR/feed.json, interval: 100ms }} }}
upstreams:
  - {{ name: api, endpoints: [\"http://$API\"] }}
  - {{ name: stream, endpoints: [\"{stream}\"] }}
routes:
  - {{ name: trial, match: {{ path: /orders/** }}, require: {{ issuers: [main] }}, enforce: false, upstream: api }}
  - {{ name: events, match: {{ path: /events }}, require: {{ issuers: [main] }}, upstream: stream }}
",
        keys.url("/jwks")
    )
}

/// The lines so far. The last may still be on its way.
fn lines(gateway: &TestGateway) -> Vec<Value> {
    let log = std::fs::read_to_string(gateway.dir().path().join("audit.log")).unwrap_or_default();
    log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

async fn wait_for(gateway: &TestGateway, event: &str, is: impl Fn(&Value) -> bool) -> Value {
    let found = || lines(gateway).into_iter().find(|line| line["event"] == event && is(line));
    eventually(event, || async { found().is_some() }).await;
    found().unwrap()
}

#[tokio::test]
async fn the_audit_log_tells_what_befalls_a_gateway() {
    let (first, same_name, next) = (Signer::es256("k1"), Signer::es256("k1"), Signer::es256("k2"));
    let keys = Stub::start().await;
    keys.set("/jwks", Answer::json(&first.jwks()));
    let backend = endless(SSE, "data: 1\n\n").await;
    let yaml = yaml(&keys, &backend.url());
    let dir = std::sync::Arc::new(tempfile::TempDir::new().unwrap());
    write_feed(dir.path(), &json!([]));
    let mut gateway = TestGateway::start_in(dir, &yaml).await;
    gateway.wait_until_ready().await;

    // Shadow mode.
    assert_eq!(gateway.get("/orders/7", "", &[]).await.status, 200);
    let overlooked = wait_for(&gateway, "request_overlooked", |_| true).await;
    assert_eq!(
        (&overlooked["code"], &overlooked["reason"], &overlooked["route"], &overlooked["path"]),
        (&json!("VAL-010"), &json!("missing"), &json!("trial"), &json!("/orders/7"))
    );

    // A stream whose token is revoked.
    let token = Token::new();
    let head = format!("Host: api.example.com\r\nAuthorization: Bearer {}\r\n", token.sign(&first));
    let mut stream = open(&gateway, "/events", &head).await;
    read_until(&mut stream, b"data: 1").await;
    revoke(&gateway, &token);
    read_to_end(&mut stream).await;
    let ended = wait_for(&gateway, "stream_ended", |_| true).await;
    assert_eq!((&ended["reason"], &ended["route"]), (&json!("revoked"), &json!("events")));
    assert_eq!(
        (&ended["sub"], &ended["jti"], &ended["kid"]),
        (&json!("alice"), &json!(token.text("jti")), &json!("k1"))
    );

    // A key under the name of the one before, and then one under another name.
    keys.set("/jwks", Answer::json(&same_name.jwks()));
    let replaced = wait_for(&gateway, "keys_changed", |line| line["removed"] != "").await;
    assert_eq!(
        (&replaced["issuer"], &replaced["added"], &replaced["removed"]),
        (&json!("main"), &json!("k1"), &json!("k1"))
    );
    keys.set("/jwks", Answer::json(&next.jwks()));
    let rotated = wait_for(&gateway, "keys_changed", |line| line["added"] == "k2").await;
    assert_eq!(rotated["removed"], "k1");

    // A file that is no certificate.
    let wrong = "listeners: [{ address: 127.0.0.1:0, tls: { certificates: [{ certificate: $DIR/tls.key, \
                 private_key: $DIR/tls.key }] } }]\n";
    gateway.reload(&format!("{wrong}{yaml}")).await.unwrap_err();
    let refused = wait_for(&gateway, "configuration_refused", |_| true).await;
    assert!(refused["why"].as_str().unwrap().contains("tls.key"), "{refused}");

    // More calls of one kind than a second has lines for.
    for _ in 0..50 {
        assert_eq!(get(gateway.admin(), "/status", &[]).await.status, 200);
    }
    let left_out = wait_for(&gateway, "lines_left_out", |line| line["of"] == "admin_called").await;
    assert!(left_out["lines"].as_u64().unwrap() > 0, "{left_out}");
}
