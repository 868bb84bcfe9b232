//! Token Status Lists: tokens that refer to a list, lists that change, that are no good, that cannot be had.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use serde_json::{Value, json};

use crate::support::{
    Answer, ISSUER, Signer, Stub, TestGateway, Token, base64url, eventually, jws, now, refused, send, verdict,
};

pub(super) const REVOKED: &str = "401 VAL-020 revoked";
pub(super) const NOT_LOADED: &str = "503 VAL-051 feed_not_loaded";
const STALE: &str = "503 VAL-051 feed_stale";
const HEADER: &str = r#"{"alg":"ES256","kid":"k1","typ":"statuslist+jwt"}"#;

/// An issuer whose tokens may refer to lists at `/lists/` of the stub.
pub(super) fn yaml(signer: &Signer, stub: &Stub, list: &str, stale: &str) -> String {
    format!(
        "
issuers:
  - name: main
    issuer: {ISSUER}
    keys: {{ inline: {} }}
    audiences: [orders-api]
    revocation:
      {stale}
      status_list: {{ allowed: [\"{}\"], refresh_interval: 100ms, timeout: 300ms{list} }}
routes:
  - {{ match: {{ path: /orders/** }}, require: {{ issuers: [main] }}, upstream: api }}
",
        signer.jwks(),
        stub.url("/lists/"),
    )
}

pub(super) fn strict() -> &'static str {
    "max_staleness: 1h
      when_stale: reject"
}

fn deflated(bytes: &[u8]) -> String {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    base64url(&encoder.finish().unwrap())
}

fn claims(uri: &str, bits: u8, bytes: &[u8]) -> Value {
    let list = json!({ "bits": bits, "lst": deflated(bytes) });
    json!({ "sub": uri, "iat": now() - 5, "exp": now() + 3600, "ttl": 60, "status_list": list })
}

pub(super) fn publish(stub: &Stub, path: &str, signer: &Signer, bits: u8, bytes: &[u8]) {
    let document = jws(HEADER, claims(&stub.url(path), bits, bytes).to_string(), signer);
    stub.set(path, Answer::body("application/statuslist+jwt", document));
}

pub(super) fn referring(uri: &str, index: u64) -> Token {
    Token::new().claim("status", json!({ "status_list": { "idx": index, "uri": uri } }))
}

pub(super) async fn ask(gateway: &TestGateway, token: &str) -> String {
    verdict(&gateway.get("/orders/1", token, &[]).await)
}

#[tokio::test]
async fn a_tokens_place_in_its_list_decides_and_costs_one_fetch() {
    let (signer, stub) = (Signer::es256("k1"), Stub::start().await);
    publish(&stub, "/lists/1", &signer, 1, &[0b0000_0010]);
    publish(&stub, "/lists/2", &signer, 2, &[0b1110_0100]);
    publish(&stub, "/lists/8", &signer, 8, &[0, 7]);
    let list = ", required: true".to_owned();
    let gateway = TestGateway::start(&yaml(&signer, &stub, &list, strict()).replace("100ms", "1h")).await;
    let elsewhere = Stub::start().await;
    publish(&elsewhere, "/lists/1", &signer, 1, &[0]);
    let at = |path: &str, index| referring(&stub.url(path), index);
    let with = |status: Value| Token::new().claim("status", status);
    let one = stub.url("/lists/1");
    let rows = [
        ("valid", at("/lists/1", 0), "200"),
        ("invalid", at("/lists/1", 1), REVOKED),
        ("valid at two bits", at("/lists/2", 0), "200"),
        ("invalid at two bits", at("/lists/2", 1), REVOKED),
        ("suspended", at("/lists/2", 2), REVOKED),
        ("of a status that nobody knows", at("/lists/2", 3), REVOKED),
        ("valid at eight bits", at("/lists/8", 0), "200"),
        ("of another such status", at("/lists/8", 1), REVOKED),
        ("beyond the end", at("/lists/1", 8), "401 VAL-020 claim_invalid"),
        ("elsewhere", referring(&elsewhere.url("/lists/1"), 0), "401 VAL-020 claim_invalid"),
        ("beside", at("/other/1", 0), "401 VAL-020 claim_invalid"),
        ("by a way up", at("/lists/../other/1", 0), "401 VAL-020 claim_invalid"),
        ("with a fragment", at("/lists/1#2", 0), "401 VAL-020 claim_invalid"),
        ("no URL", referring("lists/1", 0), "401 VAL-020 claim_invalid"),
        ("status a text", with("valid".into()), "401 VAL-020 claim_invalid"),
        ("status null", with(Value::Null), "401 VAL-020 claim_invalid"),
        ("no place", with(json!({ "status_list": { "uri": one } })), "401 VAL-020 claim_invalid"),
        (
            "a place below zero",
            with(json!({ "status_list": { "uri": one, "idx": -1 } })),
            "401 VAL-020 claim_invalid",
        ),
        (
            "a place as text",
            with(json!({ "status_list": { "uri": one, "idx": "0" } })),
            "401 VAL-020 claim_invalid",
        ),
        ("no list", with(json!({ "status_list": { "idx": 0 } })), "401 VAL-020 claim_invalid"),
        ("another mechanism", with(json!({ "other": {} })), "401 VAL-020 claim_missing"),
        ("none", Token::new(), "401 VAL-020 claim_missing"),
    ];
    let good = rows.iter().filter(|(_, _, expected)| *expected == "200").count();
    for (name, token, expected) in rows {
        let token = token.sign(&signer);
        for _ in 0..3 {
            assert_eq!(ask(&gateway, &token).await, expected, "{name}");
        }
    }
    assert_eq!(gateway.received("/orders/1").len(), 3 * good);
    assert_eq!([1, 2, 8].map(|list| stub.hits(&format!("/lists/{list}"))), [1, 1, 1]);
    assert_eq!(elsewhere.hits("/lists/1") + stub.hits("/other/1"), 0, "no token chooses where we connect");
    assert_eq!(gateway.metric("valgate_status_lists{issuer=\"main\"}").await, 3);
    // A forged token makes us fetch nothing.
    let forged = at("/lists/forged", 0).sign(&Signer::es256("k1"));
    assert_eq!(ask(&gateway, &forged).await, "401 VAL-020 signature_mismatch");
    assert_eq!(stub.hits("/lists/forged"), 0);
}

#[tokio::test]
async fn a_change_reaches_tokens_that_were_let_in_before() {
    let (signer, stub) = (Signer::es256("k1"), Stub::start().await);
    publish(&stub, "/lists/1", &signer, 1, &[0]);
    let gateway = TestGateway::start(&yaml(&signer, &stub, "", strict())).await;
    let [hit, miss] = [3, 4].map(|index| referring(&stub.url("/lists/1"), index).sign(&signer));
    for token in [&hit, &hit, &miss, &miss] {
        assert_eq!(ask(&gateway, token).await, "200");
    }
    assert_eq!(ask(&gateway, &Token::new().sign(&signer)).await, "200", "no list, and none is required");
    publish(&stub, "/lists/1", &signer, 1, &[0b1000]);
    eventually("revoked", || async { ask(&gateway, &hit).await == REVOKED }).await;
    assert_eq!(ask(&gateway, &miss).await, "200");
    publish(&stub, "/lists/1", &signer, 1, &[0]);
    eventually("lifted", || async { ask(&gateway, &hit).await == "200" }).await;
}

#[tokio::test]
async fn no_bad_list_is_taken_or_replaces_a_good_one() {
    let (signer, stub) = (Signer::es256("k1"), Stub::start().await);
    publish(&stub, "/lists/good", &signer, 1, &[0b10]);
    let gateway = TestGateway::start(&yaml(&signer, &stub, ", max_size: 1KiB", strict())).await;
    let [good, revoked] = [0, 1].map(|index| referring(&stub.url("/lists/good"), index).sign(&signer));
    assert_eq!(
        (ask(&gateway, &good).await.as_str(), ask(&gateway, &revoked).await.as_str()),
        ("200", REVOKED)
    );

    let uri = stub.url("/lists/good");
    let body = |document: String| Answer::body("application/statuslist+jwt", document);
    let all_valid = || claims(&uri, 1, &[0]);
    let changed = |name: &str, value: Value| {
        let mut claims = all_valid();
        claims[name] = value;
        claims.to_string()
    };
    let signed = |claims: String| body(jws(HEADER, claims, &signer));
    stub.set("/elsewhere", signed(all_valid().to_string()));
    let rows = [
        ("500", Answer::error(500)),
        ("404", Answer::error(404)),
        (
            "a redirect",
            Answer::Status(302, vec![("Location".to_owned(), stub.url("/elsewhere"))], Vec::new()),
        ),
        ("HTML", Answer::body("text/html", "<html>")),
        ("nothing", body(String::new())),
        ("of another key", body(jws(HEADER, all_valid().to_string(), &Signer::es256("k1")))),
        (
            "of no algorithm",
            body(format!(
                "{}.{}.",
                base64url(br#"{"alg":"none","typ":"statuslist+jwt"}"#),
                base64url(all_valid().to_string().as_bytes())
            )),
        ),
        (
            "of another type",
            body(jws(HEADER.replace("statuslist+jwt", "at+jwt"), all_valid().to_string(), &signer)),
        ),
        ("another list", signed(changed("sub", stub.url("/lists/other").into()))),
        ("by another issuer", signed(changed("iss", "https://evil.example.com/".into()))),
        ("expired", signed(changed("exp", (now() - 1).into()))),
        ("without date", signed(changed("iat", Value::Null))),
        ("a bomb", signed(changed("status_list", json!({ "bits": 1, "lst": deflated(&vec![0; 100_000]) })))),
        ("closed", Answer::Close),
        ("silent", Answer::Hang),
    ];
    for (name, answer) in rows {
        let before = gateway.metric("valgate_status_list_refresh_failures_total{issuer=\"main\"}").await;
        stub.set("/lists/good", answer);
        eventually(name, || async {
            gateway.metric("valgate_status_list_refresh_failures_total{issuer=\"main\"}").await > before
        })
        .await;
        assert_eq!(ask(&gateway, &revoked).await, REVOKED, "{name}");
        assert_eq!(ask(&gateway, &good).await, "200", "{name}: the good list serves on");
        publish(&stub, "/lists/good", &signer, 1, &[0b10]);
        let ok = gateway.metric("valgate_status_list_refreshes_total{issuer=\"main\"}").await;
        eventually("good again", || async {
            gateway.metric("valgate_status_list_refreshes_total{issuer=\"main\"}").await > ok
        })
        .await;
    }
    assert_eq!(stub.hits("/elsewhere"), 0);
}

#[tokio::test]
async fn a_list_that_cannot_be_had_is_handled_as_the_operator_chose() {
    let (signer, stub) = (Signer::es256("k1"), Stub::start().await);
    let token = || referring(&stub.url("/lists/1"), 0).sign(&signer);
    for (answer, stale, expected) in [
        (Answer::error(500), strict(), NOT_LOADED),
        (Answer::Hang, strict(), NOT_LOADED),
        (Answer::error(500), "max_staleness: 1h\n      when_stale: accept", "200"),
        (Answer::error(500), "max_staleness: 1h\n      when_stale: { accept_issued_within: 10m }", "200"),
        (
            Answer::error(500),
            "max_staleness: 1h\n      when_stale: { accept_issued_within: 10s }",
            NOT_LOADED,
        ),
    ] {
        stub.set("/lists/1", answer.clone());
        let gateway = TestGateway::start(&yaml(&signer, &stub, "", stale)).await;
        let reply = gateway.get("/orders/1", &token(), &[]).await;
        assert_eq!(verdict(&reply), expected, "{answer:?} {stale}");
        if expected == NOT_LOADED {
            refused(&reply, "VAL-051", "feed_not_loaded");
            assert!(gateway.received("/orders/1").is_empty());
            publish(&stub, "/lists/1", &signer, 1, &[0]);
            eventually("fetched at last", || async { ask(&gateway, &token()).await == "200" }).await;
        }
    }
}

/// A crowd whose list hangs waits once, all together: else this test would take a quarter of an hour.
#[tokio::test]
async fn a_list_that_hangs_is_waited_for_once() {
    let (signer, stub) = (Signer::es256("k1"), Stub::start().await);
    stub.set("/lists/1", Answer::Hang);
    let yaml = yaml(&signer, &stub, ", wait: 1s", strict()).replace("timeout: 300ms", "timeout: 5m");
    let gateway = TestGateway::start(&format!("admin: {{ address: 127.0.0.1:0 }}\n{yaml}")).await;
    let token = |index| referring(&stub.url("/lists/1"), index).sign(&signer);
    let warm = token(0);
    for number in 0..1000 {
        let token = if number % 10 == 0 { token(number) } else { warm.clone() };
        assert_eq!(ask(&gateway, &token).await, NOT_LOADED, "{number}");
    }
    assert_eq!(stub.hits("/lists/1"), 1, "which still hangs");
    let question = json!({ "token": warm, "url": format!("http://{}/orders/1", gateway.plain) }).to_string();
    let head = format!(
        "POST /token/verify HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
        question.len()
    );
    let explained = send(gateway.admin(), head + &question).await.json();
    assert_eq!(explained["refusal"]["reason"], "feed_not_loaded", "{explained:#}");
    assert!(gateway.received("/orders/1").is_empty());
}

#[tokio::test]
async fn a_list_that_is_no_longer_heard_of_goes_stale_but_what_it_revoked_stays_so() {
    let (signer, stub) = (Signer::es256("k1"), Stub::start().await);
    publish(&stub, "/lists/1", &signer, 1, &[0b10]);
    let stale = "max_staleness: 1s\n      when_stale: reject";
    let gateway = TestGateway::start(&yaml(&signer, &stub, "", stale)).await;
    let [good, revoked, beyond] =
        [0, 1, 99].map(|index| referring(&stub.url("/lists/1"), index).sign(&signer));
    assert_eq!(ask(&gateway, &good).await, "200");
    assert_eq!(ask(&gateway, &beyond).await, "401 VAL-020 claim_invalid");
    stub.set("/lists/1", Answer::error(500));
    eventually("stale", || async { ask(&gateway, &good).await == STALE }).await;
    assert_eq!(ask(&gateway, &revoked).await, REVOKED);
    assert_eq!(ask(&gateway, &beyond).await, STALE, "the list may have grown since");
    publish(&stub, "/lists/1", &signer, 1, &[0b10]);
    eventually("fresh again", || async { ask(&gateway, &good).await == "200" }).await;
}

#[tokio::test]
async fn lists_beyond_the_bound_are_not_followed_and_other_keys_can_sign_them() {
    let (signer, of_lists, stub) = (Signer::es256("k1"), Signer::es256("k1"), Stub::start().await);
    for path in ["/lists/1", "/lists/2", "/lists/3"] {
        publish(&stub, path, &of_lists, 1, &[0]);
    }
    let list = format!(", max_lists: 2, keys: {{ inline: {} }}", of_lists.jwks());
    let gateway = TestGateway::start(&yaml(&signer, &stub, &list, strict())).await;
    for (path, expected) in
        [("/lists/1", "200"), ("/lists/2", "200"), ("/lists/3", NOT_LOADED), ("/lists/1", "200")]
    {
        assert_eq!(ask(&gateway, &referring(&stub.url(path), 0).sign(&signer)).await, expected, "{path}");
    }
    assert_eq!(stub.hits("/lists/3"), 0);
}

/// What was revoked while a gateway was away is not in the copy that it kept.
#[tokio::test]
async fn a_restart_asks_before_it_believes_the_stored_copy() {
    let (signer, stub) = (Signer::es256("k1"), Stub::start().await);
    publish(&stub, "/lists/1", &signer, 1, &[0]);
    let yaml = format!("state_dir: $DIR/state\n{}", yaml(&signer, &stub, "", strict()));
    let token = referring(&stub.url("/lists/1"), 0).sign(&signer);
    let gateway = TestGateway::start(&yaml).await;
    assert_eq!(ask(&gateway, &token).await, "200");
    let dir = gateway.dir();
    let is_kept = || {
        let files = std::fs::read_dir(dir.path().join("state")).into_iter().flatten();
        files.map(|file| file.unwrap().path()).any(|path| {
            let is_list = path.file_name().unwrap().to_str().unwrap().starts_with("status-list-");
            is_list && path.extension().unwrap() == "json"
        })
    };
    eventually("stored", || async { is_kept() }).await;
    gateway.stop().await;

    let (go, held) = tokio::sync::watch::channel(false);
    let document = jws(HEADER, claims(&stub.url("/lists/1"), 1, &[1]).to_string(), &signer);
    let answer = Answer::body("application/statuslist+jwt", document);
    stub.set("/lists/1", Answer::Held(held, Box::new(answer)));
    let restarted = TestGateway::start_in(dir.clone(), &yaml).await;
    let before = stub.hits("/lists/1");
    let later = async {
        eventually("it asks", || async { stub.hits("/lists/1") > before }).await;
        // The copy is in force by now. One that believes it answers; one that does not waits for what is held.
        let release = async {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            go.send_replace(true);
        };
        tokio::join!(ask(&restarted, &token), release).0
    };
    let (first, later) = tokio::join!(ask(&restarted, &token), later);
    assert_eq!([first, later], [REVOKED; 2]);
}

/// Mirrors that disagree, a server that was rolled back, somebody who replays.
#[tokio::test]
async fn an_older_list_does_not_lift_what_a_newer_one_revoked() {
    let (signer, stub) = (Signer::es256("k1"), Stub::start().await);
    let publish = |age: i64, bytes: &[u8]| {
        let mut claims = claims(&stub.url("/lists/1"), 1, bytes);
        claims["iat"] = (now() - age).into();
        let document = jws(HEADER, claims.to_string(), &signer);
        stub.set("/lists/1", Answer::body("application/statuslist+jwt", document));
    };
    publish(60, &[1]);
    let gateway = TestGateway::start(&yaml(&signer, &stub, "", strict())).await;
    let token = referring(&stub.url("/lists/1"), 0).sign(&signer);
    assert_eq!(ask(&gateway, &token).await, REVOKED);
    publish(120, &[0]);
    let failed = "valgate_status_list_refresh_failures_total{issuer=\"main\"}";
    eventually("it was seen", || async { gateway.metric(failed).await > 1 }).await;
    assert_eq!(ask(&gateway, &token).await, REVOKED);
    publish(0, &[0]);
    eventually("a newer one counts", || async { ask(&gateway, &token).await == "200" }).await;
}

/// So that a gateway that comes up alone still refuses what the list said.
#[tokio::test]
async fn a_restart_while_the_lists_cannot_be_had_starts_from_the_stored_copy() {
    let (signer, stub) = (Signer::es256("k1"), Stub::start().await);
    publish(&stub, "/lists/1", &signer, 1, &[0b0000_0010]);
    let at = |stale: &str| format!("state_dir: $DIR/state\n{}", yaml(&signer, &stub, "", stale));
    let accept = at("max_staleness: 1h\n      when_stale: accept");
    let token = |index| referring(&stub.url("/lists/1"), index).sign(&signer);
    let (valid, revoked) = (token(0), token(1));

    let gateway = TestGateway::start(&accept).await;
    assert_eq!(ask(&gateway, &valid).await, "200");
    assert_eq!(ask(&gateway, &revoked).await, REVOKED);
    let dir = gateway.dir();
    let copies = || -> Vec<_> {
        let files = std::fs::read_dir(dir.path().join("state")).into_iter().flatten();
        let paths = files.map(|file| file.unwrap().path());
        paths.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("status-list-")).collect()
    };
    eventually("stored", || async { copies().iter().any(|path| path.extension().unwrap() == "json") }).await;
    gateway.stop().await;
    stub.set("/lists/1", Answer::Close);

    let restarted = TestGateway::start_in(dir.clone(), &accept).await;
    assert_eq!(ask(&restarted, &revoked).await, REVOKED);
    assert_eq!(ask(&restarted, &valid).await, "200");
    restarted.stop().await;
    let strict = at(strict());
    let restarted = TestGateway::start_in(dir.clone(), &strict).await;
    assert_eq!(ask(&restarted, &valid).await, "200", "it is not too old");
    assert_eq!(ask(&restarted, &revoked).await, REVOKED);
    restarted.stop().await;

    // A copy counts with its age: what it revoked stays so, what it did not can no longer be told.
    let file = copies().pop().unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    let mut aged: Value = serde_json::from_str(&text).unwrap();
    aged["fetched"] = (now() - 7200).into();
    std::fs::write(&file, aged.to_string()).unwrap();
    let restarted = TestGateway::start_in(dir.clone(), &strict).await;
    assert_eq!(ask(&restarted, &valid).await, STALE);
    assert_eq!(ask(&restarted, &revoked).await, REVOKED);
    restarted.stop().await;

    // One that is torn, or that somebody else has signed, is none.
    let claims = claims(&stub.url("/lists/1"), 1, &[0]).to_string();
    let mut forged = aged.clone();
    let forgery = jws(HEADER, claims, &Signer::es256("k1"));
    let sum = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, forgery.as_bytes());
    forged["sha256"] = base64url(sum.as_ref()).into();
    forged["jwks"] = forgery.into();
    forged["fetched"] = now().into();
    let forged = forged.to_string();
    for broken in [&text[..text.len() / 2], forged.as_str()] {
        std::fs::write(&file, broken).unwrap();
        let restarted = TestGateway::start_in(dir.clone(), &strict).await;
        assert_eq!(ask(&restarted, &valid).await, NOT_LOADED);
        restarted.stop().await;
    }
}
