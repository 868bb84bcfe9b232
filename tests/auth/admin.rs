//! The admin listener: what it tells, whom it lets in, and that no secret is in it.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use http::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::support::{Connection, ISSUER, Reply, Signer, TestGateway, Token, eventually, get, now, send};

const SECRET: &str = "s3cret-s3cret-s3cret";

async fn gateway(admin: &str) -> TestGateway {
    // The feed never answers, so it is never quite ready.
    TestGateway::start_unready(&format!(
        "
admin: {admin}
issuers:
  - {{ name: main, issuer: {ISSUER}, keys: {{ inline: {} }}, audiences: [orders-api] }}
feeds:
  - {{ name: logout, http: {{ url: \"http://127.0.0.1:9/\", authorization: \"Bearer {SECRET}\" }} }}
routes:
  - {{ name: orders, match: {{ path: /orders/** }}, require: {{ issuers: [main] }}, upstream: api }}
",
        Signer::es256("k1").jwks()
    ))
    .await
}

fn with_token(token: &str) -> [(&'static str, String); 1] {
    [("Authorization", format!("Bearer {token}"))]
}

async fn asked(gateway: &TestGateway, path: &str, headers: &[(&str, String)]) -> Reply {
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    get(gateway.admin(), path, &headers).await
}

async fn sent(gateway: &TestGateway, method: &str, path: &str, body: &str) -> Reply {
    let head =
        format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", body.len());
    send(gateway.admin(), head + body).await
}

#[tokio::test]
async fn it_tells_what_the_gateway_runs_on_and_no_secret() {
    let gateway = gateway("{ address: 127.0.0.1:0 }").await;
    let status = async || asked(&gateway, "/status", &[]).await.json();
    let reasons = json!(["feed logout: not loaded yet."]);
    eventually("keys loaded", || async { status().await["reasons"] == reasons }).await;
    let status = status().await;
    assert_eq!(
        (&status["state"], &status["config"]["generation"]),
        (&json!("starting"), &json!(1)),
        "{status}"
    );

    let config = asked(&gateway, "/config", &[]).await.json();
    assert_eq!(config["config"]["feeds"][0]["http"]["authorization"], "********");
    assert_eq!(config["config"]["routes"][0]["name"], "orders");

    let keys = asked(&gateway, "/keys", &[]).await.json();
    assert_eq!(keys["issuers"][0]["keys"][0]["kid"], "k1");
    assert_eq!(keys["issuers"][0]["age_seconds"], 0);
    let feeds = asked(&gateway, "/feeds", &[]).await.json();
    assert_eq!((&feeds["feeds"][0]["loaded"], &feeds["feeds"][0]["entries"]), (&json!(false), &json!(0)));

    assert_eq!(asked(&gateway, "/livez", &[]).await.status, 200);
    assert_eq!(asked(&gateway, "/readyz", &[]).await.json()["ready"], false);
    assert!(asked(&gateway, "/metrics", &[]).await.text().contains("valgate_"));

    let openapi: Value = asked(&gateway, "/openapi.json", &[]).await.json();
    for path in openapi["paths"].as_object().unwrap().keys() {
        let reply = get(gateway.admin(), path, &[]).await;
        assert!(!reply.text().contains(SECRET), "{path} shows a secret");
        assert!(!reply.text().contains("There is no such path"), "{path} is described and does not exist");
    }
}

#[tokio::test]
async fn what_is_asked_wrongly_is_refused_in_words() {
    let gateway = gateway("{ address: 127.0.0.1:0 }").await;
    for (method, path, body, status, word) in [
        ("GET", "/nothing", "", 404, "/openapi.json"),
        ("DELETE", "/status", "", 405, "GET, HEAD"),
        ("GET", "/status?verbose=1", "", 400, "verbose"),
        // In a test the log is not this process's to set.
        ("PUT", "/log-level", "{\"level\":\"debug\"}", 409, "not the gateway's"),
    ] {
        let reply = sent(&gateway, method, path, body).await;
        assert_eq!((reply.status, reply.header("content-type")), (status, Some("application/problem+json")));
        assert!(reply.json()["detail"].as_str().unwrap().contains(word), "{method} {path}: {reply:?}");
    }
    assert_eq!(sent(&gateway, "DELETE", "/status", "").await.header("allow"), Some("GET, HEAD"));
}

#[tokio::test]
async fn a_token_is_demanded_where_there_is_one() {
    let gateway = gateway(&format!("{{ address: 127.0.0.1:0, token: \"{SECRET}\" }}")).await;
    for path in ["/status", "/metrics", "/livez", "/openapi.json", "/nothing"] {
        assert_eq!(asked(&gateway, path, &[]).await.status, 401, "{path}");
        assert_eq!(asked(&gateway, path, &with_token("wrong-wrong-wrong")).await.status, 401, "{path}");
    }
    assert_eq!(asked(&gateway, "/status", &with_token(SECRET)).await.status, 200);
    assert!(!asked(&gateway, "/config", &with_token(SECRET)).await.text().contains(SECRET));
}

#[tokio::test]
async fn a_web_page_that_the_operator_has_open_gets_nothing() {
    let gateway = gateway("{ address: 127.0.0.1:0 }").await;
    for (host, header) in [
        ("rebound.example.com", "X: y"),
        ("localhost", "Origin: https://example.com"),
        ("localhost", "Sec-Fetch-Site: cross-site"),
    ] {
        let request = format!("GET /status HTTP/1.1\r\nHost: {host}\r\n{header}\r\n\r\n");
        let reply = send(gateway.admin(), request).await;
        assert_eq!(reply.status, StatusCode::FORBIDDEN.as_u16(), "{host} {header}");
    }
}

#[tokio::test]
async fn it_serves_on_a_unix_socket_with_nothing_but_the_files_rights() {
    let gateway = gateway("{ socket: $DIR/admin.sock }").await;
    let mut stream = UnixStream::connect(gateway.dir().path().join("admin.sock")).await.unwrap();
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: valgate\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn with_a_client_ca_only_its_certificates_get_in() {
    let tls = "{ certificate: $DIR/tls.crt, private_key: $DIR/tls.key, client_ca: $DIR/tls.crt }";
    let gateway = gateway(&format!("{{ address: 127.0.0.1:0, tls: {tls} }}")).await;
    let mut connection: Connection = gateway.connect_tls_to(gateway.admin()).await;
    connection.write("GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(connection.reply().await.is_none(), "no certificate was shown");
    assert_eq!(asked(&gateway, "/livez", &[]).await.status, 0, "without TLS there is no answer");
}

/// `BLESS=1 cargo test --test auth -- admin` writes docs/admin-openapi.json anew.
#[tokio::test]
async fn the_description_is_in_the_documents() {
    let gateway = gateway("{ address: 127.0.0.1:0 }").await;
    let served = asked(&gateway, "/openapi.json", &[]).await.text();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/admin-openapi.json");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &served).unwrap();
    }
    assert_eq!(
        std::fs::read_to_string(&path).unwrap_or_default(),
        served,
        "docs/admin-openapi.json is out of date"
    );
}

/// Schemathesis sends what the description allows and what it does not, and holds the answers to it.
#[tokio::test]
async fn the_listener_does_what_its_description_says() {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/venv/bin/schemathesis");
    assert!(program.exists(), "{} is missing; ./check installs it", program.display());
    let gateway = gateway_in_use().await;
    for (path, content) in [
        ("/keys", "/issuers/0/keys/0/kid"),
        ("/feeds", "/feeds/0/name"),
        ("/refusals", "/refusals/2/checks/0/check"),
        ("/shadow", "/routes/0/causes/0/code"),
        ("/revocations", "/entries/0/sub"),
    ] {
        let answer = asked(&gateway, path, &[]).await.json();
        assert!(answer.pointer(content).is_some(), "{path} has nothing to be held to its schema: {answer}");
    }
    let url = format!("http://{}/openapi.json", gateway.admin());
    let run = tokio::task::spawn_blocking(move || {
        Command::new(program)
            .args(["run", &url, "--seed", "1", "--max-examples", "10", "--no-color"])
            // What is text by its description may still be no URL and no method.
            .args(["--exclude-checks", "positive_data_acceptance"])
            .current_dir(std::env::temp_dir())
            .output()
            .unwrap()
    });
    let output = run.await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
}

/// With keys, a feed that revokes something, refusals of several kinds, and a route in shadow mode that had visitors.
async fn gateway_in_use() -> TestGateway {
    let (signer, dir) = (Signer::es256("k1"), Arc::new(TempDir::new().unwrap()));
    let entry = json!({ "sub": "mallory", "before": now(), "exp": now() + 3600, "reason": "left" });
    let feed = json!({ "version": 1, "epoch": "e", "kind": "snapshot", "entries": [entry] });
    std::fs::write(dir.path().join("revoked.json"), feed.to_string()).unwrap();
    let yaml = format!(
        "
admin: {{ address: 127.0.0.1:0 }}
issuers:
  - name: main
    issuer: {ISSUER}
    keys: {{ inline: {} }}
    audiences: [orders-api]
    revocation: {{ feeds: [logout], max_staleness: 10m, when_stale: reject }}
feeds:
  - {{ name: logout, file: {{ path: $DIR/revoked.json, interval: 100ms }} }}
routes:
  - {{ name: orders, match: {{ path: /orders/** }}, require: {{ issuers: [main] }}, upstream: api }}
  - {{ name: trial, match: {{ path: /trial }}, require: {{ issuers: [main] }}, enforce: false, upstream: api }}
",
        signer.jwks()
    );
    let gateway = TestGateway::start_in(dir, &yaml).await;
    gateway.wait_until_ready().await;
    let revoked = Token::new().claim("sub", "mallory").sign(&signer);
    let expired = Token::new().claim("exp", now() - 600).sign(&signer);
    let forged = Token::new().sign(&Signer::es256("k1"));
    for token in ["", "x.y.z", &revoked, &expired, &forged] {
        assert!(gateway.get("/orders/1", token, &[]).await.status >= 400);
        gateway.get("/trial", token, &[]).await;
    }
    assert_eq!(gateway.received("/trial").len(), 5, "nobody is refused in shadow mode");
    gateway
}
