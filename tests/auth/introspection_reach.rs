//! Introspection at its edges: an issuer that signs nothing, a flood of tokens that nobody knows, and an endpoint that
//! talks only to who shows a certificate.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use tempfile::TempDir;
use tokio::sync::watch;

use crate::introspection::{NOT_RECOGNIZED, UNAVAILABLE, active, ask, endpoint, futures, start, yaml};
use crate::support::engines::mutual_tls_front;
use crate::support::{
    Answer, Signer, TestGateway, Token, eventually, get, refused, verdict, write_certificate,
    write_certificates,
};

#[tokio::test]
async fn an_issuer_that_signs_nothing_needs_no_keys() {
    let signer = Signer::es256("k1");
    let stub = endpoint().await;
    stub.set_to("/introspect", "token=opaque&", Answer::json(&active()));
    let with_keys = yaml(&signer, &stub, "");
    let keys = format!("    keys: {{ inline: {} }}\n", signer.jwks());
    let without = with_keys.replace(&keys, "");
    assert_ne!(without, with_keys);
    let mut gateway = TestGateway::start(&without).await;
    assert_eq!(ask(&gateway, "opaque").await, "200");
    assert_eq!(ask(&gateway, "another").await, NOT_RECOGNIZED);
    // There is no key for it, and nobody who could be at fault.
    let jwt = Token::new().sign(&signer);
    assert_eq!(ask(&gateway, &jwt).await, "401 VAL-020 unknown_key");
    let metrics = get(gateway.health, "/metrics", &[]).await.text();
    assert!(metrics.contains("valgate_introspection_active_total{issuer=\"main\"}"));
    assert!(!metrics.contains("valgate_keys"), "keys that do not exist cannot be too old");
    let ready = get(gateway.health, "/readyz", &[]).await;
    assert_eq!((ready.status, ready.text().contains("keys of main")), (200, false), "{}", ready.text());
    let stated = get(gateway.admin(), "/keys", &[]).await.json();
    assert_eq!(stated["issuers"][0]["keys"], json!([]));

    // It begins to sign, and ends it.
    gateway.reload(&with_keys).await.unwrap();
    assert_eq!(ask(&gateway, &jwt).await, "200");
    assert_eq!(ask(&gateway, "opaque").await, "200");
    gateway.reload(&without).await.unwrap();
    assert_eq!(ask(&gateway, &jwt).await, "401 VAL-020 unknown_key");
}

/// `concurrency: 3`: three questions under way, twelve tokens that wait.
#[tokio::test]
async fn a_flood_of_unknown_tokens_reaches_the_issuer_three_at_a_time() {
    let stub = endpoint().await;
    let (open, gate) = watch::channel(false);
    let inactive = Answer::json(&json!({ "active": false }));
    stub.set("/introspect", Answer::Held(gate, Box::new(inactive)));
    let kept = Answer::json(&active());
    stub.set_to("/introspect", "token=known&", kept);
    let gateway = start(&stub, "concurrency: 3\n      timeout: 30s\n      negative_entries: 5").await;
    assert_eq!(ask(&gateway, "known").await, "200");

    let refusals = AtomicUsize::new(0);
    let flood = futures((0..60).map(|number| {
        let (gateway, refusals) = (&gateway, &refusals);
        async move {
            let reply = gateway.get("/orders/1", &format!("random-{number}"), &[]).await;
            if verdict(&reply) == UNAVAILABLE {
                assert!(reply.header("retry-after").is_some());
                refusals.fetch_add(1, Ordering::Relaxed);
            }
            verdict(&reply)
        }
    }));
    let let_go = async {
        eventually("what is beyond is refused", || async { refusals.load(Ordering::Relaxed) >= 45 }).await;
        eventually("as many as may are under way", || async { stub.hits("/introspect") == 1 + 3 }).await;
        assert_eq!(ask(&gateway, "known").await, "200", "a kept answer needs no place");
        assert_eq!(stub.hits("/introspect"), 1 + 3);
        open.send(true).unwrap();
    };
    let (verdicts, ()) = tokio::join!(flood, let_go);
    let answered = verdicts.iter().filter(|verdict| *verdict == NOT_RECOGNIZED).count();
    assert_eq!(answered + refusals.load(Ordering::Relaxed), 60, "{verdicts:?}");
    assert!((12..=15).contains(&answered), "{answered} answered");
    assert_eq!(stub.hits("/introspect"), 1 + answered, "each is asked about once");
    assert_eq!(stub.most_under_way(), 3);

    // Of those that were found inactive as many are remembered as may be, the newest.
    for number in 0..6 {
        assert_eq!(ask(&gateway, &format!("next-{number}")).await, NOT_RECOGNIZED);
    }
    let before = stub.hits("/introspect");
    assert_eq!(ask(&gateway, "next-5").await, NOT_RECOGNIZED);
    assert_eq!(stub.hits("/introspect"), before, "remembered");
    assert_eq!(ask(&gateway, "next-0").await, NOT_RECOGNIZED);
    assert_eq!(stub.hits("/introspect"), before + 1, "forgotten");
}

/// RFC 8705 section 2: the certificate of the connection is the proof.
#[tokio::test]
async fn an_endpoint_that_demands_a_certificate_is_asked_with_it() {
    let stub = endpoint().await;
    stub.set("/introspect", Answer::json(&active()));
    let dir = Arc::new(TempDir::new().unwrap());
    let authority = write_certificates(dir.path());
    std::fs::write(dir.path().join("ca.crt"), authority).unwrap();
    let clients = write_certificate(dir.path(), "client", &["gateway"]);
    write_certificate(dir.path(), "stranger", &["gateway"]);
    let port = mutual_tls_front(dir.path(), stub.address.port(), &clients).await;
    let plain = yaml(&Signer::es256("k1"), &stub, "").replace(
        &format!("url: \"{}\"", stub.url("/introspect")),
        &format!("url: \"https://localhost:{port}/introspect\"\n      ca: $DIR/ca.crt"),
    );
    let secret = "client_secret_basic: \"s3cret/&\" }";
    let showing = |name: &str| {
        plain.replace(
            secret,
            &format!(
                "tls_client_auth: true }}\n      client_certificate: {{ certificate: $DIR/{name}.crt, private_key: $DIR/{name}.key }}"
            ),
        )
    };
    for yaml in [&plain, &showing("stranger")] {
        let gateway = TestGateway::start_in(dir.clone(), yaml).await;
        let reply = gateway.get("/orders/1", "opaque", &[]).await;
        refused(&reply, "VAL-052", "introspection_failed");
        assert_eq!(stub.hits("/introspect"), 0);
        gateway.stop().await;
    }
    let gateway = TestGateway::start_in(dir.clone(), &showing("client")).await;
    assert_eq!(ask(&gateway, "opaque").await, "200");
    let asked = stub.asked("/introspect");
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].body, "token=opaque&token_type_hint=access_token&client_id=gateway");
    assert!(!asked[0].head.to_ascii_lowercase().contains("authorization:"), "{}", asked[0].head);
}
