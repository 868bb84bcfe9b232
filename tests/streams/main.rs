//! Responses that go on for long: carried as they are, and ended with their token.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "these are tests"
)]
#![allow(missing_docs, reason = "the names of tests say what they are")]

mod audited;
mod before_the_head;
#[path = "../support/h2api.rs"]
mod h2api;
mod lookups;
mod over_http2;
#[path = "../support/recorder.rs"]
mod recorder;
mod stale;
#[path = "../support/mod.rs"]
mod support;

use std::path::Path;

use bytes::Bytes;
use http::Request;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use recorder::{Conn, Recorder};
use support::{Connection, Duplex, PATIENCE, Signer, TestGateway, Token, http2, now, refused};

const HANDSHAKE: &str = "Host: api.example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// A gateway in front of this backend: `/open/**` is public, `/shadow/**` is not enforced, all else wants a token, or a cookie under `/cookie`.
async fn gateway(signer: &Signer, backend: &Recorder, leeway: &str) -> TestGateway {
    gateway_to(signer, &backend.url(), "auto", leeway).await
}

/// The same in front of an API that speaks this.
async fn gateway_to(signer: &Signer, url: &str, protocol: &str, leeway: &str) -> TestGateway {
    gateway_with(signer, url, protocol, leeway, "10m").await
}

/// The same with a feed that may be this old.
async fn gateway_with(
    signer: &Signer,
    url: &str,
    protocol: &str,
    leeway: &str,
    max_staleness: &str,
) -> TestGateway {
    let dir = std::sync::Arc::new(tempfile::TempDir::new().unwrap());
    write_feed(dir.path(), &json!([]));
    let yaml = format!(
        r#"
issuers:
  - name: main
    issuer: https://id.example.com/
    keys: {{ inline: {} }}
    audiences: [orders-api]
    leeway: {leeway}
    revocation: {{ feeds: [logout], max_staleness: {max_staleness}, when_stale: reject }}
feeds:
  - name: logout
    file: {{ path: $DIR/feed.json, interval: 100ms }}
upstreams:
  - name: stream
    endpoints: ["{url}"]
    protocol: {protocol}
routes:
  - match: {{ path: /open/** }}
    public: true
    upstream: stream
  - match: {{ path: /shadow/** }}
    require: {{ issuers: [main] }}
    enforce: false
    upstream: stream
  - match: {{ path: /cookie/** }}
    require: {{ issuers: [main] }}
    token_from: {{ cookie: token }}
    upstream: stream
  - match: {{ path: /** }}
    require: {{ issuers: [main] }}
    upstream: stream
"#,
        signer.jwks(),
    );
    let gateway = TestGateway::start_in(dir, &yaml).await;
    gateway.wait_until_ready().await;
    gateway
}

fn write_feed(dir: &Path, entries: &serde_json::Value) {
    let epoch = if entries.as_array().unwrap().is_empty() { "1" } else { "2" };
    let document = json!({ "version": 1, "epoch": epoch, "kind": "snapshot", "entries": entries });
    std::fs::write(dir.join("feed.json.new"), document.to_string()).unwrap();
    std::fs::rename(dir.join("feed.json.new"), dir.join("feed.json")).unwrap();
}

pub fn revoke(gateway: &TestGateway, token: &Token) {
    write_feed(gateway.dir().path(), &json!([{ "jti": token.text("jti"), "exp": now() + 7200 }]));
}

/// A backend whose answer begins and never ends.
async fn endless(head: &'static str, first: &'static str) -> Recorder {
    Recorder::scripted(move |mut conn: Conn| async move {
        if conn.request().await.is_some() {
            let chunk = format!("{head}{:x}\r\n{first}\r\n", first.len());
            conn.send(chunk.as_bytes()).await;
            conn.until_closed().await;
        }
    })
    .await
}

const SSE: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

async fn open(gateway: &TestGateway, path: &str, headers: &str) -> Box<dyn Duplex> {
    let mut connection = Connection::open(gateway.plain).await;
    connection.write(format!("GET {path} HTTP/1.1\r\n{headers}\r\n")).await;
    connection.into_stream()
}

/// Reads until this text has come, or the connection has ended.
async fn read_until(stream: &mut Box<dyn Duplex>, text: &[u8]) -> Vec<u8> {
    let reading = async {
        let mut all = Vec::new();
        while !all.windows(text.len()).any(|window| window == text) {
            let mut chunk = [0; 4096];
            match stream.read(&mut chunk).await {
                Ok(0) | Err(_) => panic!(
                    "ended before {:?}: {:?}",
                    String::from_utf8_lossy(text),
                    String::from_utf8_lossy(&all)
                ),
                Ok(count) => all.extend_from_slice(&chunk[..count]),
            }
        }
        all
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("in time")
}

async fn read_to_end(stream: &mut Box<dyn Duplex>) -> Vec<u8> {
    let mut all = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut all)).await.expect("the gateway ends it");
    all
}

#[tokio::test]
async fn server_sent_events_are_passed_at_once_and_end_when_the_token_is_revoked() {
    let (signer, backend) = (Signer::es256("k1"), endless(SSE, "data: 1\n\n").await);
    let gateway = gateway(&signer, &backend, "30s").await;
    let token = Token::new();
    let headers = format!("Host: api.example.com\r\nAuthorization: Bearer {}\r\n", token.sign(&signer));
    let mut stream = open(&gateway, "/events", &headers).await;
    read_until(&mut stream, b"data: 1").await;

    revoke(&gateway, &token);
    let rest = read_to_end(&mut stream).await;
    assert!(!rest.ends_with(b"0\r\n\r\n"), "a cut stream must not look like a whole one");
    let log = gateway.stop().await;
    let line = log.iter().find(|line| line["path"] == "/events").unwrap();
    assert_eq!((&line["outcome"], &line["reason"]), (&json!("token_revoked"), &json!("revoked")), "{line}");
}

#[tokio::test]
async fn a_stream_ends_when_its_token_expires_and_others_go_on() {
    let (signer, backend) = (Signer::es256("k1"), endless(SSE, "data: 1\n\n").await);
    let gateway = gateway(&signer, &backend, "0s").await;
    let short = Token::new().claim("exp", now() + 2).sign(&signer);
    let long = Token::new().sign(&signer);
    let head = |token: &str| format!("Host: api.example.com\r\nAuthorization: Bearer {token}\r\n");
    let mut ends = open(&gateway, "/short", &head(&short)).await;
    let mut goes_on = open(&gateway, "/long", &head(&long)).await;
    let mut public = open(&gateway, "/open/x", "Host: api.example.com\r\n").await;
    let mut shadow = open(&gateway, "/shadow/x", &head(&short)).await;
    for stream in [&mut ends, &mut goes_on, &mut public, &mut shadow] {
        read_until(stream, b"data: 1").await;
    }
    read_to_end(&mut ends).await;
    for stream in [&mut goes_on, &mut public, &mut shadow] {
        let mut byte = [0];
        let more = tokio::time::timeout(std::time::Duration::from_millis(500), stream.read(&mut byte)).await;
        assert!(more.is_err(), "neither more nor an end: {more:?}");
    }
}

#[tokio::test]
async fn a_grpc_stream_ends_with_unauthenticated_in_its_trailers() {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n\r\n";
    let (signer, backend) = (Signer::es256("k1"), endless(head, "\0\0\0\0\0").await);
    let gateway = gateway(&signer, &backend, "30s").await;
    let token = Token::new();
    let request = Request::post("/pkg.Service/Watch")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("authorization", format!("Bearer {}", token.sign(&signer)))
        .body(Bytes::new())
        .unwrap();
    let connection = gateway.connect().await;
    let call = tokio::spawn(http2(connection, request));
    support::eventually("the call reaches the backend", || async { !backend.requests().is_empty() }).await;
    revoke(&gateway, &token);
    let reply = call.await.unwrap();
    assert_eq!(reply.status, 200);
    let trailer =
        |name: &str| reply.trailers.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str());
    assert_eq!(trailer("grpc-status"), Some("16"), "{:?}", reply.trailers);
    assert!(trailer("grpc-message").unwrap().starts_with("VAL-020"), "{:?}", reply.trailers);
}

/// A backend that accepts a WebSocket, greets, and echoes whatever comes.
async fn echoing() -> Recorder {
    Recorder::scripted(|mut conn: Conn| async move {
        let Some(request) = conn.request().await else { return };
        if !request.has("upgrade") {
            conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno").await;
            return;
        }
        conn.send(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
              Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n\x81\x05hello",
        )
        .await;
        conn.echo().await;
    })
    .await
}

#[tokio::test]
async fn a_websocket_is_carried_both_ways_and_closed_with_1008_when_its_token_is_revoked() {
    let (signer, backend) = (Signer::es256("k1"), echoing().await);
    let gateway = gateway(&signer, &backend, "30s").await;
    let token = Token::new();
    let headers = format!("{HANDSHAKE}Authorization: Bearer {}\r\n", token.sign(&signer));
    let mut stream = open(&gateway, "/socket", &headers).await;
    let head = read_until(&mut stream, b"\x81\x05hello").await;
    let text = String::from_utf8_lossy(&head).to_ascii_lowercase();
    assert!(text.starts_with("http/1.1 101"), "{text}");
    assert!(text.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{text}");
    assert!(text.contains("upgrade: websocket"), "{text}");

    // Masked `ping!` as a client sends it; the backend echoes the bytes.
    let frame = b"\x81\x85\x01\x02\x03\x04\x71\x6b\x6d\x63\x20";
    stream.write_all(frame).await.unwrap();
    read_until(&mut stream, frame).await;
    let received = backend.only();
    assert!(!received.has("authorization") && received.value("upgrade") == "websocket");

    revoke(&gateway, &token);
    let last = read_to_end(&mut stream).await;
    assert_eq!(&last[..1], b"\x88", "a close frame: {last:?}");
    assert_eq!(&last[2..4], 1008_u16.to_be_bytes(), "{last:?}");
    assert!(String::from_utf8_lossy(&last[4..]).contains("VAL-020"), "{last:?}");
}

#[tokio::test]
async fn a_websocket_without_a_good_token_never_reaches_the_backend() {
    let (signer, backend) = (Signer::es256("k1"), echoing().await);
    let gateway = gateway(&signer, &backend, "30s").await;
    let expired = Token::new().claim("exp", now() - 3600).sign(&signer);
    for (headers, code, reason) in [
        (HANDSHAKE.to_owned(), "VAL-010", "missing"),
        (format!("{HANDSHAKE}Authorization: Bearer {expired}\r\n"), "VAL-020", "expired"),
    ] {
        let mut connection = gateway.connect().await;
        connection.write(format!("GET /socket HTTP/1.1\r\n{headers}\r\n")).await;
        refused(&connection.reply().await.unwrap(), code, reason);
    }
    // CWE-1385: a page of another origin opens a WebSocket with the user's cookie.
    let cookie = Token::new().sign(&signer);
    let mut connection = gateway.connect().await;
    let request = format!(
        "GET /cookie/socket HTTP/1.1\r\n{HANDSHAKE}Cookie: token={cookie}\r\nOrigin: https://evil.example\r\n\r\n"
    );
    connection.write(request).await;
    refused(&connection.reply().await.unwrap(), "VAL-031", "cross_origin");
    backend.assert_untouched("handshakes that were refused");
}

#[tokio::test]
async fn other_upgrades_are_ignored_and_the_request_is_an_ordinary_one() {
    let (signer, backend) = (Signer::es256("k1"), echoing().await);
    let gateway = gateway(&signer, &backend, "30s").await;
    for upgrade in ["h2c", "websocket, h2c", "TLS/1.0"] {
        let mut connection = gateway.connect().await;
        let request = format!(
            "GET /open/x HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: {upgrade}\r\n\
             HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\r\n"
        );
        connection.write(request).await;
        assert_eq!(connection.reply().await.unwrap().status, 200, "{upgrade}");
    }
    assert!(
        backend.requests().iter().all(|request| !request.has("upgrade") && !request.has("http2-settings"))
    );
}
