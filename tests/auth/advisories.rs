//! One test for each class of bypass or crash about tokens that a gateway of this kind had an advisory for, under its
//! number. Those about paths, headers and framing are in `tests/http/advisories.rs`.

use serde_json::{Value, json};

use crate::support::{Answer, ISSUER, Signer, Stub, TestGateway, Token, eventually, get, now, verdict};

/// CVE-2021-32701 (Oathkeeper): a token that was accepted on one route, from memory, on another that asks for more.
#[tokio::test]
async fn oathkeeper_a_remembered_verdict_skips_no_scope() {
    let signer = Signer::es256("k1");
    let stub = Stub::start().await;
    let answer = json!({
        "active": true, "token_type": "Bearer", "iss": ISSUER, "sub": "alice", "aud": "orders-api", "scope": "orders:read",
        "exp": now() + 3600,
    });
    stub.set_to("/introspect", "token=opaque&", Answer::json(&answer));
    let gateway = TestGateway::start(&format!(
        "
issuers:
  - name: main
    issuer: {ISSUER}
    keys: {{ inline: {} }}
    audiences: [orders-api]
    introspection: {{ url: \"{}\", client: {{ id: gateway, client_secret_basic: secret }} }}
routes:
  - {{ match: {{ path: /orders/1 }}, require: {{ issuers: [main] }}, upstream: api }}
  - {{ match: {{ path: /orders/2 }}, require: {{ issuers: [main], scopes: [\"orders:read\"] }}, upstream: api }}
  - {{ match: {{ path: /orders/3 }}, require: {{ issuers: [main], scopes: [\"orders:admin\"] }}, upstream: api }}
",
        signer.jwks(),
        stub.url("/introspect"),
    ))
    .await;
    let jwt = Token::new().claim("scope", "orders:read").sign(&signer);
    for token in ["opaque", &jwt] {
        for (path, expected) in [
            ("/orders/1", "200"),
            ("/orders/2", "200"),
            ("/orders/3", "403 VAL-030 insufficient_scope"),
            ("/orders/1", "200"),
            ("/orders/3", "403 VAL-030 insufficient_scope"),
        ] {
            assert_eq!(verdict(&gateway.get(path, token, &[]).await), expected, "{path} {token}");
        }
    }
    assert!(gateway.received("/orders/3").is_empty());
}

/// GHSA-4mq7-pvjg-xp2r (Oathkeeper): what one introspection endpoint said of a token, taken for what another says.
#[tokio::test]
async fn oathkeeper_an_answer_counts_for_the_issuer_that_gave_it() {
    let signer = Signer::es256("k1");
    let stub = Stub::start().await;
    let active = json!({
        "active": true, "token_type": "Bearer", "sub": "mallory", "aud": "orders-api", "exp": now() + 3600,
    });
    stub.set("/lenient", Answer::json(&active));
    stub.set("/strict", Answer::json(&json!({ "active": false })));
    let issuer = |name: &str| {
        format!(
            "  - name: {name}
    issuer: https://{name}.example.com/
    keys: {{ inline: {} }}
    audiences: [orders-api]
    introspection: {{ url: \"{}\", client: {{ id: gateway, client_secret_basic: secret }} }}
",
            signer.jwks(),
            stub.url(&format!("/{name}")),
        )
    };
    let route = |name: &str, path: &str| {
        format!("  - {{ match: {{ path: {path} }}, require: {{ issuers: [{name}] }}, upstream: api }}\n")
    };
    let gateway = TestGateway::start(&format!(
        "\nissuers:\n{}{}routes:\n{}{}",
        issuer("lenient"),
        issuer("strict"),
        route("lenient", "/orders/1"),
        route("strict", "/orders/2")
    ))
    .await;
    for _ in 0..3 {
        assert_eq!(verdict(&gateway.get("/orders/1", "opaque", &[]).await), "200");
        assert_eq!(verdict(&gateway.get("/orders/2", "opaque", &[]).await), "401 VAL-020 not_recognized");
    }
    assert!(gateway.received("/orders/2").is_empty());
    assert_eq!((stub.hits("/lenient"), stub.hits("/strict")), (1, 1));
}

fn by_url(stub: &Stub, path: &str) -> String {
    format!(
        "
issuers:
  - name: main
    issuer: {ISSUER}
    keys: {{ jwks_url: \"{}\", timeout: 2s, wait: 3s, cooldown: 100ms }}
    audiences: [orders-api]
routes:
  - {{ match: {{ path: {path} }}, require: {{ issuers: [main] }}, upstream: api }}
  - {{ match: {{ path: /status }}, public: true, upstream: api }}
",
        stub.url("/jwks")
    )
}

/// CVE-2025-64527 (Envoy): several tokens in one request while the keys cannot be fetched brought the process down.
#[tokio::test]
async fn envoy_several_tokens_while_the_keys_cannot_be_fetched() {
    let signer = Signer::es256("k1");
    let stub = Stub::start().await;
    stub.set("/jwks", Answer::error(500));
    let gateway = TestGateway::start_unready(&by_url(&stub, "/orders/**")).await;
    let bearer = |signer: &Signer| format!("Bearer {}", Token::new().sign(signer));
    let (one, two) = (bearer(&signer), bearer(&Signer::es256("k2")));
    for _ in 0..20 {
        let several = [("Authorization", &*one), ("Authorization", &*two)];
        assert_eq!(verdict(&get(gateway.plain, "/orders/1", &several).await), "400 VAL-011 multiple");
        let joined = format!("{one}, {two}");
        let reply = get(gateway.plain, "/orders/1", &[("Authorization", &joined)]).await;
        assert_eq!(verdict(&reply), "400 VAL-011 illegal_characters");
    }
    assert_eq!(get(gateway.plain, "/status", &[]).await.status, 200, "it lives");
    assert!(gateway.received("/orders/1").is_empty());
}

/// CVE-2024-45809 (Envoy): the route went away while a request on it waited for keys, which brought the process down.
#[tokio::test]
async fn envoy_a_route_that_goes_while_its_keys_are_fetched() {
    let signer = Signer::es256("k2");
    let stub = Stub::start().await;
    stub.set("/jwks", Answer::json(&Signer::es256("k1").jwks()));
    let mut gateway = TestGateway::start(&by_url(&stub, "/orders/**")).await;
    stub.set("/jwks", Answer::Hang);
    let token = Token::new().sign(&signer);
    let before = stub.hits("/jwks");
    let address = gateway.plain;
    let waiting = tokio::spawn(async move {
        let authorization = format!("Bearer {token}");
        let reply = get(address, "/orders/1", &[("Authorization", &authorization)]).await;
        verdict(&reply)
    });
    eventually("the request waits for keys", || async { stub.hits("/jwks") > before }).await;
    let other: Vec<String> = gateway.reload(&by_url(&stub, "/elsewhere/**")).await.unwrap();
    assert!(!other.is_empty());
    // It is served by the configuration that it began with, which has no key for it and cannot get one.
    let answered = waiting.await.unwrap();
    assert!(answered.starts_with("503 VAL-050"), "{answered}");
    assert_eq!(verdict(&get(gateway.plain, "/orders/1", &[]).await), "404 VAL-040 no_route");
    assert_eq!(get(gateway.plain, "/status", &[]).await.status, 200, "it lives");
    assert!(gateway.received("/orders/1").is_empty());
}

/// CVE-2026-25537 (jsonwebtoken): a claim of the wrong type is as if it were not there.
#[tokio::test]
async fn jsonwebtoken_claims_of_the_wrong_type() {
    let signer = Signer::es256("k1");
    let gateway = TestGateway::start(&format!(
        "
issuers: [{{ name: main, issuer: {ISSUER}, keys: {{ inline: {} }}, audiences: [orders-api] }}]
routes: [{{ match: {{ path: /** }}, require: {{ issuers: [main] }}, upstream: api }}]
",
        signer.jwks()
    ))
    .await;
    for (name, value) in [
        ("nbf", json!("99999999999")),
        ("nbf", json!([now() + 3600])),
        ("exp", json!((now() - 3600).to_string())),
        ("exp", json!({})),
        ("iat", Value::Bool(true)),
        ("aud", json!(7)),
    ] {
        let token = Token::new().claim(name, value.clone()).sign(&signer);
        let said = verdict(&gateway.get("/a", &token, &[]).await);
        assert!(said.starts_with("401 VAL-020"), "{name}: {value}: {said}");
    }
    assert!(gateway.api.received().is_empty());
}
