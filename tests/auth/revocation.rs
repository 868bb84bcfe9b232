//! Revocation: by every kind of target, at once, exactly, across restarts, and with the feed down.

use std::sync::Arc;

use serde_json::{Value, json};
use valgate::demo::issuer::{DevIssuer, IssuerOptions, Revocation, TokenRequest};

use crate::support::{
    Answer, ISSUER, Signer, Stub, TestGateway, Token, base64url, eventually, now, refused, verdict,
};

const REVOKED: &str = "401 VAL-020 revoked";

/// An issuer with this key and a feed that is asked every 100 ms, a route for its tokens and one for everybody.
fn yaml(signer: &Signer, feed: &str, revocation: &str) -> String {
    format!(
        "
issuers:
  - name: main
    issuer: {ISSUER}
    keys: {{ inline: {} }}
    audiences: [orders-api]
    leeway: 0s
    revocation: {{ feeds: [logout], {revocation} }}
feeds:
  - {{ name: logout, {feed} }}
routes:
  - {{ match: {{ path: /orders/** }}, require: {{ issuers: [main] }}, upstream: api }}
  - {{ match: {{ path: /status }}, public: true, upstream: api }}
",
        signer.jwks()
    )
}

const STRICT: &str = "max_staleness: 10m, when_stale: reject";

fn http(feed: &Stub) -> String {
    format!("http: {{ url: \"{}\", interval: 100ms, timeout: 300ms }}", feed.url("/feed"))
}

fn snapshot(epoch: &str, entries: &[Value]) -> Answer {
    Answer::json(&json!({ "version": 1, "kind": "snapshot", "epoch": epoch, "entries": entries }))
}

async fn feed() -> Stub {
    let feed = Stub::start().await;
    feed.set("/feed", snapshot("first", &[]));
    feed
}

async fn ask(gateway: &TestGateway, token: &str) -> String {
    verdict(&gateway.get("/orders/1", token, &[]).await)
}

async fn until(gateway: &TestGateway, token: &str, expected: &str, what: &str) {
    eventually(what, || async { ask(gateway, token).await == expected }).await;
}

/// Each row: what it is called, the token that it hits, one that it does not, the entry.
#[tokio::test]
async fn every_kind_of_entry_hits_what_it_names_and_nothing_else_and_is_lifted_again() {
    let (signer, other) = (Signer::es256("k1"), Signer::es256("k2"));
    let feed = feed().await;
    let keys = json!({ "keys": [signer.jwk(), other.jwk()] }).to_string();
    let gateway =
        TestGateway::start(&yaml(&signer, &http(&feed), STRICT).replace(&signer.jwks().to_string(), &keys))
            .await;
    let token = || Token::new().claim("sid", "session-1");
    let at = now() - 600;
    let unlike = |name: &str, value: &str| token().claim(name, value);
    let jti = token();
    let rows = vec![
        ("jti", jti.clone(), token(), json!({ "jti": jti.text("jti") })),
        ("sid", token(), unlike("sid", "session-2"), json!({ "sid": "session-1" })),
        ("sub", token(), unlike("sub", "bob"), json!({ "sub": "alice" })),
        ("client", token(), unlike("client_id", "till"), json!({ "client": "shop" })),
        (
            "client as azp",
            token().without("client_id").claim("azp", "shop"),
            unlike("client_id", "till"),
            json!({ "client": "shop" }),
        ),
        ("all", token(), token().claim("iss", "https://other.example.com"), json!({ "all": true })),
        (
            "sub before",
            token().claim("iat", at - 1),
            token().claim("iat", at),
            json!({ "sub": "alice", "before": at }),
        ),
        ("sub before, no iat", token().without("iat"), token(), json!({ "sub": "alice", "before": at })),
        ("client before", token().claim("iat", at - 1), token(), json!({ "client": "shop", "before": at })),
        ("all before", token().claim("iat", at - 1), token(), json!({ "all": true, "before": at })),
        ("all before, no iat", token().without("iat"), token(), json!({ "all": true, "before": at })),
        ("with its issuer", token(), unlike("sub", "bob"), json!({ "sub": "alice", "iss": ISSUER })),
        ("for a while", token(), unlike("sub", "bob"), json!({ "sub": "alice", "exp": now() + 600 })),
    ];
    for (at, (name, hit, miss, entry)) in rows.into_iter().enumerate() {
        let (hit, miss) = (hit.sign(&signer), miss.sign(&signer));
        let of_others = ask(&gateway, &miss).await;
        assert_eq!(ask(&gateway, &hit).await, "200", "{name}: before");
        assert_eq!(ask(&gateway, &hit).await, "200", "{name}: warm");
        feed.set("/feed", snapshot(&format!("on-{at}"), &[entry]));
        until(&gateway, &hit, REVOKED, name).await;
        let count = gateway.received("/orders/1").len();
        assert_eq!(ask(&gateway, &hit).await, REVOKED, "{name}");
        assert_eq!(gateway.received("/orders/1").len(), count, "{name}: the API got it");
        assert_eq!(ask(&gateway, &miss).await, of_others, "{name}: of another");
        feed.set("/feed", snapshot(&format!("off-{at}"), &[]));
        until(&gateway, &hit, "200", "lifted").await;
    }

    // By key: also tokens that do not name it.
    feed.set("/feed", snapshot("kid", &[json!({ "kid": "k1" })]));
    until(&gateway, &token().sign(&signer), REVOKED, "by key").await;
    assert_eq!(ask(&gateway, &token().sign(&other)).await, "200");

    // Entries that do not concern anybody here, or not any more.
    feed.set(
        "/feed",
        snapshot(
            "others",
            &[
                json!({ "sub": "alice", "iss": "https://other.example.com" }),
                json!({ "sub": "alice", "exp": now() - 600 }),
                json!({ "sub": "ALICE" }),
                json!({ "jti": "alice" }),
                json!({ "sid": "alice" }),
            ],
        ),
    );
    until(&gateway, &token().sign(&signer), "200", "not concerned").await;
}

#[tokio::test]
async fn a_revoked_key_stops_tokens_that_do_not_name_it() {
    let signer = Signer::es256("k1");
    let feed = feed().await;
    let gateway = TestGateway::start(&yaml(&signer, &http(&feed), STRICT)).await;
    let token = Token::new().header("kid", Value::Null).sign(&signer);
    assert_eq!(ask(&gateway, &token).await, "200");
    feed.set("/feed", snapshot("second", &[json!({ "kid": "k1" })]));
    until(&gateway, &token, REVOKED, "by key").await;
}

/// `(r, n - s)` is a signature whenever `(r, s)` is one: the token's bytes are no name for it.
#[tokio::test]
async fn another_signature_for_the_same_token_does_not_escape() {
    let signer = Signer::es256("k1");
    let feed = feed().await;
    let gateway = TestGateway::start(&yaml(&signer, &http(&feed), STRICT)).await;
    let token = Token::new();
    let text = token.sign(&signer);
    let (input, _) = text.rsplit_once('.').unwrap();
    let mut raw = signer.sign(input.as_bytes());
    let twin = |raw: &[u8]| format!("{input}.{}", base64url(raw));
    let first = twin(&raw);
    negate_s(&mut raw);
    let second = twin(&raw);
    assert_ne!(first, second);
    assert_eq!(ask(&gateway, &first).await, "200");
    assert_eq!(ask(&gateway, &second).await, "200", "a valid signature by FIPS 186-5");
    feed.set("/feed", snapshot("second", &[json!({ "jti": token.text("jti") })]));
    until(&gateway, &first, REVOKED, "the one").await;
    assert_eq!(ask(&gateway, &second).await, REVOKED);
    assert_eq!(ask(&gateway, &token.sign(&signer)).await, REVOKED, "signed anew");
}

/// `s` becomes `n - s` for P-256.
fn negate_s(raw: &mut [u8]) {
    let n = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
    let mut borrow = 0_i16;
    for at in (0..32).rev() {
        let digit = i16::from(u8::from_str_radix(&n[2 * at..2 * at + 2], 16).unwrap());
        let difference = digit - i16::from(raw[32 + at]) - borrow;
        borrow = i16::from(difference < 0);
        raw[32 + at] = u8::try_from(difference.rem_euclid(256)).unwrap();
    }
}

/// With long poll: snapshot, deltas, and the token that was warm a moment ago.
#[tokio::test]
async fn a_revocation_arrives_by_long_poll_and_a_new_epoch_lifts_it() {
    let issuer = DevIssuer::start(IssuerOptions::default()).await.unwrap();
    let url = issuer.issuer_url();
    let gateway = TestGateway::start(&format!(
        "
issuers:
  - name: dev
    issuer: {url}
    keys: {{ discovery: true }}
    audiences: [orders-api]
    revocation: {{ feeds: [dev], max_staleness: 10m, when_stale: reject }}
feeds:
  - {{ name: dev, http: {{ url: \"{url}/revocations\", long_poll: 30s, interval: 1h }} }}
routes:
  - {{ match: {{ path: /orders/** }}, require: {{ issuers: [dev] }}, upstream: api }}
"
    ))
    .await;
    let tokens: Vec<String> = (0..4)
        .map(|number| {
            let request =
                TokenRequest::new().claim("jti", format!("t{number}")).claim("sid", format!("s{number}"));
            issuer.mint(&request).unwrap()
        })
        .collect();
    for token in &tokens {
        assert_eq!(ask(&gateway, token).await, "200");
    }
    issuer.revoke(Revocation::token("t0")).unwrap();
    until(&gateway, &tokens[0], REVOKED, "the first").await;
    issuer.revoke(Revocation::session("s1")).unwrap();
    until(&gateway, &tokens[1], REVOKED, "the second, by a delta").await;
    assert_eq!(ask(&gateway, &tokens[0]).await, REVOKED);
    assert_eq!(ask(&gateway, &tokens[2]).await, "200");
    issuer.reset_revocations().unwrap();
    until(&gateway, &tokens[0], "200", "all lifted").await;
    assert_eq!(ask(&gateway, &tokens[1]).await, "200");
}

#[tokio::test]
async fn no_bad_answer_lifts_a_revocation() {
    let signer = Signer::es256("k1");
    let feed = feed().await;
    let gateway = TestGateway::start(&yaml(&signer, &http(&feed), STRICT)).await;
    let revoked = Token::new().claim("sub", "mallory").sign(&signer);
    let good = Token::new().sign(&signer);
    feed.set("/feed", snapshot("second", &[json!({ "sub": "mallory" })]));
    until(&gateway, &revoked, REVOKED, "revoked").await;

    feed.set("/elsewhere", snapshot("evil", &[]));
    let redirect = Answer::Status(302, vec![("Location".to_owned(), feed.url("/elsewhere"))], Vec::new());
    let json = |document: Value| Answer::json(&document);
    let rows = [
        ("500", Answer::error(500)),
        ("404", Answer::error(404)),
        ("204", Answer::Status(204, Vec::new(), Vec::new())),
        ("a redirect", redirect),
        ("an HTML page", Answer::body("text/html", "<html>maintenance</html>")),
        ("nothing", Answer::body("application/json", "")),
        ("an empty object", json(json!({}))),
        ("an empty array", json(json!([]))),
        ("null", json(json!(null))),
        ("suddenly empty under the same epoch", snapshot("second", &[])),
        ("another version", json(json!({ "version": 2, "kind": "snapshot", "epoch": "x", "entries": [] }))),
        ("no epoch", json(json!({ "version": 1, "kind": "snapshot", "entries": [] }))),
        ("no entries", json(json!({ "version": 1, "kind": "snapshot", "epoch": "x" }))),
        ("every entry broken", snapshot("x", &[json!({ "who": "mallory" }), json!(7)])),
        (
            "cut off",
            Answer::body(
                "application/json",
                "{\"version\":1,\"kind\":\"snapshot\",\"epoch\":\"x\",\"entries\":[",
            ),
        ),
        (
            "a delta that nobody asked for",
            json(
                json!({ "version": 1, "kind": "delta", "epoch": "x", "since": "1", "cursor": "2", "entries": [] }),
            ),
        ),
        ("a closed connection", Answer::Close),
        ("no answer", Answer::Hang),
    ];
    for (name, answer) in rows {
        let before = feed.hits("/feed");
        feed.set("/feed", answer);
        eventually(name, || async { feed.hits("/feed") > before + 1 }).await;
        assert_eq!(ask(&gateway, &revoked).await, REVOKED, "{name}");
        assert_eq!(ask(&gateway, &good).await, "200", "{name}");
        // Well again, so that the pauses between attempts do not grow.
        let (before, name) =
            (gateway.metric(UNCHANGED).await + gateway.metric(SNAPSHOTS).await, name.to_owned());
        feed.set("/feed", snapshot("second", &[json!({ "sub": "mallory" }), json!({ "jti": name })]));
        eventually(&format!("well again after {name}"), || async {
            gateway.metric(UNCHANGED).await + gateway.metric(SNAPSHOTS).await > before
        })
        .await;
    }
    assert_eq!(feed.hits("/elsewhere"), 0, "a redirect was followed");

    // One broken entry costs that entry.
    let entries =
        [json!({ "who": "?" }), json!({ "sub": "mallory", "jti": "both" }), json!({ "sub": "alice" })];
    feed.set("/feed", snapshot("third", &entries));
    until(&gateway, &good, REVOKED, "the good entry counts").await;
    assert_eq!(ask(&gateway, &revoked).await, "200", "the broken one does not");
}

const FAILURES: &str = "valgate_feed_failures_total{feed=\"logout\"}";
const UNCHANGED: &str = "valgate_feed_unchanged_total{feed=\"logout\"}";
const SNAPSHOTS: &str = "valgate_feed_snapshots_total{feed=\"logout\"}";

#[tokio::test]
async fn a_feed_that_is_silent_for_too_long_is_handled_as_the_operator_chose() {
    let signer = Signer::es256("k1");
    let feed = feed().await;
    let policies = [("strict", "reject"), ("lenient", "accept"), ("young", "{ accept_issued_within: 5m }")];
    let issuer = |(name, when_stale)| {
        format!(
            "
  - name: {name}
    issuer: https://{name}.example.com
    keys: {{ inline: {} }}
    audiences: [orders-api]
    revocation: {{ feeds: [logout], max_staleness: 1s, when_stale: {when_stale} }}",
            signer.jwks()
        )
    };
    let issuers = policies.map(issuer).concat();
    let gateway = TestGateway::start(&format!(
        "
issuers: {issuers}
feeds:
  - {{ name: logout, {} }}
routes:
  - {{ match: {{ path: /orders/** }}, require: {{ issuers: [strict, lenient, young] }}, upstream: api }}
  - {{ match: {{ path: /status }}, public: true, upstream: api }}
",
        http(&feed)
    ))
    .await;
    let of = |issuer: &str| Token::new().claim("iss", format!("https://{issuer}.example.com"));
    feed.set("/feed", snapshot("second", &[json!({ "sub": "mallory" })]));
    let mallory = of("lenient").claim("sub", "mallory").sign(&signer);
    until(&gateway, &mallory, REVOKED, "revoked").await;
    let strict = of("strict").sign(&signer);
    assert_eq!(ask(&gateway, &strict).await, "200");

    feed.set("/feed", Answer::error(500));
    until(&gateway, &strict, "503 VAL-051 feed_stale", "stale").await;
    let reply = gateway.get("/orders/2", &strict, &[]).await;
    refused(&reply, "VAL-051", "feed_stale");
    assert!(reply.header("retry-after").is_some() && reply.header("www-authenticate").is_none());
    assert!(gateway.received("/orders/2").is_empty());
    assert_eq!(ask(&gateway, &of("lenient").sign(&signer)).await, "200");
    assert_eq!(ask(&gateway, &mallory).await, REVOKED, "what is known holds");
    assert_eq!(ask(&gateway, &of("young").sign(&signer)).await, "200");
    for old in [of("young").claim("iat", now() - 600), of("young").without("iat")] {
        assert_eq!(ask(&gateway, &old.sign(&signer)).await, "503 VAL-051 feed_stale");
    }
    assert_eq!(gateway.get("/status", "", &[]).await.status, 200);
    // A token that is wrong anyway is told so.
    let expired = of("strict").claim("exp", 1).sign(&signer);
    assert_eq!(ask(&gateway, &expired).await, "401 VAL-020 expired");

    feed.set("/feed", snapshot("second", &[json!({ "sub": "mallory" })]));
    until(&gateway, &strict, "200", "heard again").await;
}

#[tokio::test]
async fn a_feed_that_was_never_heard_closes_its_issuers_routes_and_no_others() {
    let signer = Signer::es256("k1");
    let feed = Stub::start().await;
    let gateway = TestGateway::start_unready(&yaml(&signer, &http(&feed), STRICT)).await;
    let token = Token::new().sign(&signer);
    let reply = gateway.get("/orders/1", &token, &[]).await;
    refused(&reply, "VAL-051", "feed_not_loaded");
    assert!(gateway.received("/orders/1").is_empty());
    assert_eq!(gateway.get("/status", "", &[]).await.status, 200);
    feed.set("/feed", snapshot("first", &[]));
    until(&gateway, &token, "200", "heard").await;
}

#[tokio::test]
async fn a_restart_with_the_feed_down_forgets_nothing() {
    let signer = Signer::es256("k1");
    let feed = feed().await;
    feed.set("/feed", snapshot("first", &[json!({ "sub": "mallory" })]));
    let yaml = format!("state_dir: $DIR/state\n{}", yaml(&signer, &http(&feed), STRICT));
    let gateway = TestGateway::start(&yaml).await;
    let revoked = Token::new().claim("sub", "mallory").sign(&signer);
    let good = Token::new().sign(&signer);
    until(&gateway, &revoked, REVOKED, "revoked").await;
    let dir = gateway.dir();
    let stored = dir.path().join("state");
    eventually("stored", || async { std::fs::read_dir(&stored).is_ok_and(|files| files.count() > 0) }).await;
    gateway.stop().await;
    feed.set("/feed", Answer::error(500));

    let restarted = TestGateway::start_in(Arc::clone(&dir), &yaml).await;
    // From the first request on.
    assert_eq!(ask(&restarted, &revoked).await, REVOKED);
    assert_eq!(ask(&restarted, &good).await, "200");
    restarted.wait_until_ready().await;
    let log = restarted.stop().await;
    assert!(!log.is_empty());
    for entry in std::fs::read_dir(&stored).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap_or_default();
        assert!(!bytes.windows(7).any(|part| part == b"mallory"), "a subject lies on disk");
    }
}

#[tokio::test]
async fn a_file_is_a_feed_too() {
    let signer = Signer::es256("k1");
    let dir = Arc::new(tempfile::TempDir::new().unwrap());
    let document = |epoch: &str, entries: Value| {
        json!({ "version": 1, "kind": "snapshot", "epoch": epoch, "entries": entries }).to_string()
    };
    let replace = |text: &str| {
        std::fs::write(dir.path().join("new"), text).unwrap();
        std::fs::rename(dir.path().join("new"), dir.path().join("revoked.json")).unwrap();
    };
    let yaml = yaml(&signer, "file: { path: $DIR/revoked.json, interval: 100ms }", STRICT);
    let gateway = TestGateway::start_in(Arc::clone(&dir), &yaml).await;
    let token = Token::new().sign(&signer);
    assert_eq!(ask(&gateway, &token).await, "503 VAL-051 feed_not_loaded", "no file yet");
    replace(&document("1", json!([])));
    until(&gateway, &token, "200", "loaded").await;
    replace(&document("1", json!([{ "sub": "alice" }])));
    until(&gateway, &token, REVOKED, "revoked").await;
    let before = gateway.metric(FAILURES).await;
    replace("not a document");
    eventually("the file is found broken", || async { gateway.metric(FAILURES).await > before }).await;
    assert_eq!(ask(&gateway, &token).await, REVOKED, "a broken file lifts nothing");
    let before = gateway.metric(FAILURES).await;
    std::fs::remove_file(dir.path().join("revoked.json")).unwrap();
    eventually("the file is found gone", || async { gateway.metric(FAILURES).await > before }).await;
    assert_eq!(ask(&gateway, &token).await, REVOKED, "a file that is gone lifts nothing");
    replace(&document("2", json!([])));
    until(&gateway, &token, "200", "lifted").await;
}

#[tokio::test]
async fn each_of_several_feeds_can_revoke() {
    let signer = Signer::es256("k1");
    let (one, other) = (feed().await, feed().await);
    let feeds = format!("{} }}\n  - {{ name: emergency, {}", http(&one), http(&other));
    let yaml = yaml(&signer, &feeds, STRICT).replace("feeds: [logout]", "feeds: [logout, emergency]");
    let gateway = TestGateway::start(&yaml).await;
    let token = Token::new().sign(&signer);
    for feed in [&one, &other] {
        assert_eq!(ask(&gateway, &token).await, "200");
        feed.set("/feed", snapshot("on", &[json!({ "sub": "alice" })]));
        until(&gateway, &token, REVOKED, "revoked").await;
        feed.set("/feed", snapshot("off", &[]));
        until(&gateway, &token, "200", "lifted").await;
    }
}
