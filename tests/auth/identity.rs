//! Who calls, as the API is told; and that nobody else can tell it.

use bytes::Bytes;
use http::Request;
use serde_json::{Value, json};
use valgate::demo::api::Received;

use crate::support::{Answer, ISSUER, Signer, Stub, TestGateway, Token, http2, refused, send};

async fn gateway() -> (TestGateway, Signer) {
    let signer = Signer::es256("k1");
    let gateway = TestGateway::start(&format!(
        "
issuers:
  - name: main
    issuer: {ISSUER}
    keys: {{ inline: {} }}
    audiences: [orders-api]
routes:
  - match: {{ path: /orders/** }}
    require: {{ issuers: [main] }}
    identity_headers: {{ X-Auth-Subject: sub, X-Auth-Groups: groups, X-Auth-Role: [realm, role] }}
    upstream: api
  - {{ match: {{ path: /other/** }}, require: {{ issuers: [main] }}, upstream: api }}
  - {{ match: {{ path: /open/** }}, public: true, upstream: api }}
",
        signer.jwks()
    ))
    .await;
    (gateway, signer)
}

fn told(received: &Received, name: &str) -> Vec<String> {
    received.values(&name.parse().unwrap())
}

#[tokio::test]
async fn claims_become_headers_or_the_request_is_refused() {
    let (gateway, signer) = gateway().await;
    let rows: Vec<(Value, Option<&str>)> = vec![
        (json!(["staff", "admin"]), Some("staff admin")),
        (json!(["user admin", "x"]), Some("user%20admin x")),
        (json!([]), Some("")),
        (json!("staff"), Some("staff")),
        (json!(7), Some("7")),
        (json!(true), Some("true")),
        (json!([1, "a", false]), Some("1 a false")),
        (json!("J\u{fc}rgen"), Some("J%C3%BCrgen")),
        (json!(["\u{6771}\u{4eac}"]), Some("%E6%9D%B1%E4%BA%AC")),
        (json!("100%"), Some("100%25")),
        (json!("%41"), Some("%2541")),
        (json!("a, b"), Some("a, b")),
        (json!("a\"b\\c"), Some("a\"b\\c")),
        (json!(null), None),
    ];
    for (at, (value, expected)) in rows.iter().enumerate() {
        let path = format!("/orders/{at}");
        let token = Token::new().claim("groups", value.clone()).sign(&signer);
        gateway.get(&path, &token, &[]).await;
        let received = gateway.received(&path);
        assert_eq!(received.len(), 1, "{value}");
        assert_eq!(
            told(&received[0], "x-auth-groups"),
            expected.map(str::to_owned).into_iter().collect::<Vec<_>>(),
            "{value}"
        );
        assert_eq!(told(&received[0], "x-auth-subject"), ["alice"]);
    }
    let token = Token::new().claim("realm", json!({ "role": "clerk" })).sign(&signer);
    gateway.get("/orders/nested", &token, &[]).await;
    assert_eq!(told(&gateway.received("/orders/nested")[0], "x-auth-role"), ["clerk"]);

    let unfit = [
        json!("a\r\nX-Admin: 1"),
        json!("a\nb"),
        json!("a\0b"),
        json!("a\u{7f}"),
        json!("a\u{85}b"),
        json!("\ta"),
        json!(" a"),
        json!("a "),
        json!(["a", "b\r\n"]),
        json!(["a", null]),
        json!([["a"]]),
        json!({ "a": "b" }),
    ];
    for value in unfit {
        let token = Token::new().claim("groups", value.clone()).sign(&signer);
        let reply = gateway.get("/orders/unfit", &token, &[]).await;
        refused(&reply, "VAL-020", "claim_invalid");
        assert!(gateway.received("/orders/unfit").is_empty(), "{value}");
    }
}

#[tokio::test]
async fn an_absent_claim_leaves_its_header_absent() {
    let (gateway, signer) = gateway().await;
    let token = Token::new().without("sub").sign(&signer);
    gateway.get("/orders/1", &token, &[("X-Auth-Subject", "mallory"), ("X-Auth-Groups", "admin")]).await;
    let received = gateway.received("/orders/1");
    assert!(!received[0].headers.contains_key("x-auth-subject"), "{received:?}");
    assert!(!received[0].headers.contains_key("x-auth-groups"), "{received:?}");
}

/// Spellings that CGI-like servers fold into the header's name (Traefik before v3.6.14: underscores).
const SPELLINGS: [&str; 10] = [
    "X-Auth-Subject",
    "x-auth-subject",
    "X-AUTH-SUBJECT",
    "X_Auth_Subject",
    "X-Auth_Subject",
    "x_auth-subject",
    "X.Auth.Subject",
    "X-Auth.Subject",
    "X~Auth~Subject",
    "X!Auth'Subject",
];

/// Whether anything that the client wrote got through, under whatever name.
fn spoofed(received: &Received) -> bool {
    received.headers.values().any(|value| value.as_bytes().windows(7).any(|part| part == b"mallory"))
}

/// CVE-2026-26308 (several values of one header).
#[tokio::test]
async fn identity_cannot_be_spoofed_in_any_spelling_on_any_route() {
    let (gateway, signer) = gateway().await;
    let token = Token::new().sign(&signer);
    let mut count = 0;
    for base in ["/orders", "/other", "/open"] {
        for spelling in SPELLINGS {
            for lines in [
                format!("{spelling}: mallory\r\n"),
                format!("{spelling}: mallory\r\n{spelling}: mallory\r\n"),
                format!("{spelling}: mallory\r\nConnection: X-Auth-Subject\r\n"),
                format!("Connection: close, X-Auth-Subject, X-Auth-Groups\r\n{spelling}: mallory\r\n"),
            ] {
                count += 1;
                let path = format!("{base}/{count}");
                let request =
                    format!("GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n{lines}\r\n");
                let reply = send(gateway.plain, request).await;
                let received = gateway.received(&path);
                // Refused is good, too; forwarded it must be clean.
                assert_eq!(received.len(), usize::from(reply.status != 400), "{path} {lines}: {reply:?}");
                for received in received {
                    assert!(!spoofed(&received), "{path} {lines}: {received:?}");
                    let expected: &[&str] = if base == "/orders" { &["alice"] } else { &[] };
                    assert_eq!(told(&received, "x-auth-subject"), expected, "{path} {lines}");
                }
            }
            count += 1;
            let path = format!("{base}/{count}");
            let request = Request::get(&path)
                .header("authorization", format!("Bearer {token}"))
                .header(spelling, "mallory")
                .body(Bytes::new())
                .unwrap();
            let reply = http2(gateway.connect().await, request).await;
            let received = gateway.received(&path);
            assert_eq!(
                received.len(),
                usize::from(reply.status != 400),
                "{path} {spelling}, HTTP/2: {reply:?}"
            );
            assert!(!received.iter().any(spoofed), "{path} {spelling}, HTTP/2: {received:?}");
        }
    }
}

#[tokio::test]
async fn identity_cannot_be_spoofed_by_trailers() {
    let (gateway, signer) = gateway().await;
    let token = Token::new().sign(&signer);
    for path in ["/orders/1", "/open/1"] {
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\
             Transfer-Encoding: chunked\r\nTrailer: X-Auth-Subject\r\n\r\n\
             2\r\nhi\r\n0\r\nX-Auth-Subject: mallory\r\n\r\n"
        );
        send(gateway.plain, request).await;
        for received in gateway.received(path) {
            assert!(!spoofed(&received), "{received:?}");
            assert!(!received.headers.contains_key("trailer"), "{received:?}");
        }
    }
}

/// CVE-2023-27487 (a forged `x-envoy-original-path`), oauth2-proxy#3506 (a forged `X-Forwarded-Uri`).
#[tokio::test]
async fn what_proxies_say_is_not_believed_from_clients() {
    let (gateway, signer) = gateway().await;
    let token = Token::new().sign(&signer);
    let names = [
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
        "X-Forwarded-User",
        "X-Forwarded-Email",
        "X-Forwarded-Client-Cert",
        "Forwarded",
        "X-Real-IP",
        "True-Client-IP",
        "X-Original-URL",
        "X-Rewrite-URL",
        "X-Envoy-Original-Path",
        "X-Forwarded-Uri",
        "X-Original-Method",
        "X-HTTP-Method-Override",
        "X-HTTP-Method",
        "X-Method-Override",
        "Client-Cert",
        "X_Forwarded_For",
        "X_HTTP_Method_Override",
        "X-Request-Id",
        "Proxy",
        "Proxy-Authorization",
    ];
    for base in ["/orders", "/open"] {
        for name in names {
            let path = format!("{base}/{}", name.to_ascii_lowercase());
            gateway.get(&path, &token, &[(name, "mallory")]).await;
            let received = gateway.received(&path);
            assert_eq!(received.len(), 1, "{path}");
            assert!(!spoofed(&received[0]), "{path}: {received:?}");
        }
    }
}

/// What the API is told is not for clients and caches on the way, should it send it back; nor what is about its connection.
#[tokio::test]
async fn what_the_api_was_told_does_not_come_back() {
    let signer = Signer::es256("k1");
    let api = Stub::start().await;
    let fields = [
        ("X-Auth-Subject", "alice"),
        ("x-auth-subject", "bob"),
        ("X-AUTH-GROUPS", "staff"),
        ("X-Request-Id", "of-the-api"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Authenticate", "Basic"),
        ("X-Of-The-Api", "kept"),
    ];
    let fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    for path in ["/orders/1", "/other/1"] {
        api.set(path, Answer::Status(200, fields.clone(), b"ok".to_vec()));
    }
    let gateway = TestGateway::start(&format!(
        "
issuers: [{{ name: main, issuer: {ISSUER}, keys: {{ inline: {} }}, audiences: [orders-api] }}]
upstreams: [{{ name: api, endpoints: [\"http://{}\"] }}]
routes:
  - match: {{ path: /orders/** }}
    require: {{ issuers: [main] }}
    identity_headers: {{ X-Auth-Subject: sub, X-Auth-Groups: groups }}
    upstream: api
  - {{ match: {{ path: /other/** }}, require: {{ issuers: [main] }}, upstream: api }}
",
        signer.jwks(),
        api.address
    ))
    .await;
    let token = Token::new().sign(&signer);
    let reply = gateway.get("/orders/1", &token, &[]).await;
    let of = |name: &str| reply.header(name);
    assert_eq!((reply.status, reply.text().as_str(), of("x-of-the-api")), (200, "ok", Some("kept")));
    for name in ["x-auth-subject", "x-auth-groups", "keep-alive", "proxy-authenticate"] {
        assert_eq!(of(name), None, "{reply:?}");
    }
    assert!(of("x-request-id").is_some_and(|id| id != "of-the-api" && id.len() == 32), "{reply:?}");
    // On a route that tells nothing of the kind, the names are the API's own.
    assert!(gateway.get("/other/1", &token, &[]).await.header("x-auth-groups").is_some());
}
