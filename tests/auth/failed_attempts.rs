//! VAL-044: what counts as a failed attempt, whose it is, and who passes all the same.

use crate::support::{ISSUER, Reply, Signer, TestGateway, Token, now, refused, verdict};

const TOO_MANY: &str = "429 VAL-044 too_many_failures";

/// The configuration of a gateway behind a proxy on loopback, with this line.
fn behind_proxy(signer: &Signer, failed_attempts: &str) -> String {
    format!(
        "
forwarded: {{ trusted_proxies: [127.0.0.1] }}
{failed_attempts}
issuers:
  - name: main
    issuer: {ISSUER}
    keys: {{ inline: {} }}
    audiences: [orders-api]
routes:
  - match: {{ path: /orders/** }}
    require: {{ issuers: [main] }}
    upstream: api
",
        signer.jwks()
    )
}

async fn gateway(signer: &Signer, failed_attempts: &str) -> TestGateway {
    TestGateway::start(&behind_proxy(signer, failed_attempts)).await
}

const TWO: &str = "failed_attempts: { limit: 2, window: 1h }";

async fn from(gateway: &TestGateway, client: &str, token: &str) -> Reply {
    gateway.get("/orders/7", token, &[("X-Forwarded-For", client)]).await
}

/// A token that somebody else signed in the issuer's name.
fn forged() -> String {
    Token::new().sign(&Signer::es256("k1"))
}

#[tokio::test]
async fn who_forges_tokens_is_told_to_wait_and_valid_ones_pass() {
    let signer = Signer::es256("k1");
    let gateway = gateway(&signer, TWO).await;
    for _ in 0..2 {
        refused(&from(&gateway, "192.0.2.1", &forged()).await, "VAL-020", "signature_mismatch");
    }
    let reply = from(&gateway, "192.0.2.1", &forged()).await;
    assert_eq!(verdict(&reply), TOO_MANY);
    let wait: u64 = reply.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=3600).contains(&wait), "{wait} s");
    assert_eq!(reply.header("www-authenticate"), None, "another token is not what is asked for");
    assert!(gateway.received("/orders/7").is_empty());

    assert_eq!(from(&gateway, "192.0.2.1", &Token::new().sign(&signer)).await.status, 200, "a valid token");
    refused(&from(&gateway, "192.0.2.2", &forged()).await, "VAL-020", "signature_mismatch");
    assert_eq!(gateway.received("/orders/7").len(), 1);
    assert_eq!(gateway.metric("valgate_failed_attempts_total").await, 4);

    let lines = gateway.stop().await;
    let line = lines.iter().find(|line| line["reason"] == "too_many_failures").unwrap();
    assert_eq!(line["code"], "VAL-044");
    assert!(line["detail"].as_str().unwrap().ends_with("signature_mismatch"), "{line}");
}

#[tokio::test]
async fn only_tokens_that_nobody_issued_count() {
    let signer = Signer::es256("k1");
    let gateway = gateway(&signer, TWO).await;
    let counted = [
        ("malformed", "not-a-token".to_owned()),
        ("unknown key", Token::new().header("kid", "k9").sign(&signer)),
        ("algorithm", Token::new().header("alg", "none").sign(&signer)),
        ("illegal characters", "a\"b".to_owned()),
        ("signature", forged()),
    ];
    for (place, (name, token)) in counted.iter().enumerate() {
        let client = format!("192.0.2.{place}");
        for turn in 0..3 {
            let reply = from(&gateway, &client, token).await;
            assert_eq!(verdict(&reply) == TOO_MANY, turn == 2, "{name}, {turn}: {}", verdict(&reply));
        }
    }
    let borne = [
        ("missing", String::new()),
        ("expired", Token::new().claim("exp", now() - 3600).sign(&signer)),
        ("early", Token::new().claim("nbf", now() + 3600).sign(&signer)),
        ("of another issuer", Token::new().claim("iss", "https://id.test.example/").sign(&signer)),
        ("for another API", Token::new().claim("aud", "billing").sign(&signer)),
    ];
    for (name, token) in &borne {
        for _ in 0..4 {
            let reply = from(&gateway, "198.51.100.1", token).await;
            assert_eq!(reply.status, 401, "{name}: {}", verdict(&reply));
        }
    }
    assert!(gateway.received("/orders/7").is_empty());
}

/// oauth2-proxy#3506: what a client says of its own address counts for nothing.
#[tokio::test]
async fn a_client_cannot_step_aside() {
    let signer = Signer::es256("k1");
    let gateway = gateway(&signer, TWO).await;
    for (turn, spoofed) in ["203.0.113.1", "203.0.113.2", "203.0.113.3"].into_iter().enumerate() {
        let reply = from(&gateway, &format!("{spoofed}, 192.0.2.1"), &forged()).await;
        assert_eq!(verdict(&reply) == TOO_MANY, turn == 2, "{}", verdict(&reply));
    }
    for (turn, address) in ["2001:db8::1", "2001:db8::2", "2001:db8::ffff:1"].into_iter().enumerate() {
        let reply = from(&gateway, address, &forged()).await;
        assert_eq!(verdict(&reply) == TOO_MANY, turn == 2, "{}", verdict(&reply));
    }
}

#[tokio::test]
async fn off_by_default() {
    let signer = Signer::es256("k1");
    let gateway = gateway(&signer, "").await;
    for _ in 0..30 {
        refused(&from(&gateway, "192.0.2.1", &forged()).await, "VAL-020", "signature_mismatch");
    }
    assert_eq!(gateway.metric("valgate_failed_attempts_total").await, 0);
}

#[tokio::test]
async fn the_count_survives_a_reload() {
    let signer = Signer::es256("k1");
    let mut gateway = gateway(&signer, TWO).await;
    for _ in 0..2 {
        from(&gateway, "192.0.2.1", &forged()).await;
    }
    let three = "failed_attempts: { limit: 3, window: 1h }";
    gateway.reload(&behind_proxy(&signer, three)).await.unwrap();
    assert_eq!(from(&gateway, "192.0.2.1", &forged()).await.status, 401, "the third");
    assert_eq!(verdict(&from(&gateway, "192.0.2.1", &forged()).await), TOO_MANY);
}
