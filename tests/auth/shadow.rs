//! Shadow mode: whoever would be refused reaches the API, without a name, and is counted.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::{ISSUER, Signer, TestGateway, Token, get, now, refused};

async fn gateway() -> (TestGateway, Signer) {
    let signer = Signer::es256("k1");
    let yaml = format!(
        "
admin: {{ address: 127.0.0.1:0 }}
issuers:
  - {{ name: main, issuer: {ISSUER}, keys: {{ inline: {} }}, audiences: [orders-api] }}
routes:
  - name: trial
    match: {{ path: /trial/** }}
    require: {{ issuers: [main], scopes: [orders:read] }}
    enforce: false
    identity_headers: {{ X-Auth-Subject: sub, X-Auth-Role: role }}
    upstream: api
  - {{ name: enforced, match: {{ path: /enforced/** }}, require: {{ issuers: [main] }}, upstream: api }}
",
        signer.jwks()
    );
    (TestGateway::start(&yaml).await, signer)
}

/// Whom the API was told that the one request to this path comes from.
fn subject(gateway: &TestGateway, path: &str) -> Option<String> {
    let received = gateway.received(path);
    assert_eq!(received.len(), 1, "{path}");
    assert!(!received[0].headers.contains_key("authorization"), "{path}");
    received[0].headers.get("x-auth-subject").map(|subject| subject.to_str().unwrap().to_owned())
}

#[tokio::test]
async fn nobody_is_refused_and_only_the_permitted_are_named() {
    let (gateway, signer) = gateway().await;
    let token = || Token::new().claim("sub", "alice").claim("scope", "orders:read");
    let good = token().sign(&signer);
    let expired = token().claim("exp", now() - 600).sign(&signer);
    let narrow = Token::new().claim("sub", "alice").claim("scope", "other").sign(&signer);
    let unprintable = token().claim("role", "a\nb").sign(&signer);
    let forged = token().sign(&Signer::es256("k1"));
    let spoofed = [("X-Auth-Subject", "root")];

    let named = [("good", good.as_str())];
    let unnamed = [
        ("none", ""),
        ("expired", &expired),
        ("narrow", &narrow),
        ("role", &unprintable),
        ("forged", &forged),
    ];
    for (name, token) in named.into_iter().chain(unnamed) {
        let path = format!("/trial/{name}");
        gateway.get(&path, token, &spoofed).await;
        let expected = (name == "good").then(|| "alice".to_owned());
        assert_eq!(subject(&gateway, &path), expected, "{name}");
    }
    refused(&gateway.get("/enforced/1", &expired, &[]).await, "VAL-020", "expired");
    assert!(gateway.received("/enforced/1").is_empty());
    // What is wrong with the request itself is refused as ever.
    refused(&gateway.get("/trial/../secret", &good, &[]).await, "VAL-042", "ambiguous_path");

    let counted = async |code: &str, reason: &str| {
        let labels = format!("{{route=\"trial\",code=\"{code}\",reason=\"{reason}\"}}");
        gateway.metric(&format!("valgate_shadow_requests_total{labels}")).await
    };
    assert_eq!(counted("none", "none").await, 1);
    assert_eq!(counted("VAL-010", "missing").await, 1);
    assert_eq!(counted("VAL-020", "expired").await, 1);
    assert_eq!(counted("VAL-020", "signature_mismatch").await, 1);
    assert_eq!(counted("VAL-020", "claim_invalid").await, 1);
    assert_eq!(counted("VAL-030", "insufficient_scope").await, 1);

    let kept = get(gateway.admin(), "/refusals?code=VAL-030", &[]).await.json();
    assert_eq!(kept["refusals"][0]["enforced"], json!(false), "{kept}");
    let lines = gateway.stop().await;
    let line = |path: &str| lines.iter().find(|line| line["path"] == path).unwrap();
    let expired = line("/trial/expired");
    assert_eq!((&expired["shadow_code"], &expired["shadow_reason"]), (&json!("VAL-020"), &json!("expired")));
    assert_eq!(expired["code"], Value::Null, "{expired}");
    assert_eq!(line("/trial/good")["shadow_code"], Value::Null);
}

#[tokio::test]
async fn the_report_says_who_would_be_refused_and_why() {
    let (gateway, signer) = gateway().await;
    let live = format!("http://{}", gateway.admin());
    let report = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_valgate"));
        command.args(["shadow-report", "--live", &live]).env_remove("VALGATE_ADMIN_TOKEN");
        let output = tokio::task::spawn_blocking(move || command.output().unwrap());
        async { output.await.unwrap() }
    };
    let good = Token::new().claim("scope", "orders:read").sign(&signer);
    gateway.get("/trial/1", &good, &[]).await;
    let output = report().await;
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "trial: none of 1 requests would be refused\n");
    assert_eq!(output.status.code(), Some(0));

    for _ in 0..3 {
        gateway.get("/trial/1", "", &[]).await;
    }
    let output = report().await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("trial: 3 of 4 requests would be refused\n"), "{text}");
    assert!(text.contains("       3  VAL-010 - Missing Token (missing)\n"), "{text}");
    assert_eq!(output.status.code(), Some(3));
}
