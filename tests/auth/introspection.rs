//! Introspection: opaque tokens and JWTs that their issuer is asked about, an issuer that fails in every way, and what
//! asking costs it.

use serde_json::{Value, json};

use crate::support::{
    Answer, ISSUER, Signer, Stub, TestGateway, Token, base64url, eventually, get, jws, now, refused, verdict,
};

pub const NOT_RECOGNIZED: &str = "401 VAL-020 not_recognized";
pub const UNAVAILABLE: &str = "503 VAL-052 introspection_failed";

/// An issuer that is asked at the stub, with these fields of `introspection` besides.
pub fn yaml(signer: &Signer, stub: &Stub, introspection: &str) -> String {
    format!(
        "
admin: {{ address: 127.0.0.1:0, refusals: {{ claims: [sub] }} }}
issuers:
  - name: main
    issuer: {ISSUER}
    keys: {{ inline: {} }}
    audiences: [orders-api]
    introspection:
      url: \"{}\"
      client: {{ id: gateway, client_secret_basic: \"s3cret/&\" }}
      {introspection}
routes:
  - match: {{ path: /orders/** }}
    require: {{ issuers: [main], scopes: [\"orders:read\"] }}
    identity_headers: {{ X-Auth-Subject: sub }}
    upstream: api
  - {{ match: {{ path: /admin/** }}, require: {{ issuers: [main], scopes: [\"orders:admin\"] }}, upstream: api }}
",
        signer.jwks(),
        stub.url("/introspect"),
    )
}

/// What the endpoint says of a good token.
pub fn active() -> Value {
    json!({
        "active": true, "token_type": "Bearer", "iss": ISSUER, "sub": "alice", "aud": "orders-api",
        "client_id": "shop", "scope": "orders:read", "iat": now() - 60, "exp": now() + 3600,
    })
}

fn with(name: &str, value: impl Into<Value>) -> Value {
    let mut answer = active();
    answer[name] = value.into();
    if answer[name].is_null() {
        answer.as_object_mut().unwrap().remove(name);
    }
    answer
}

pub async fn endpoint() -> Stub {
    let stub = Stub::start().await;
    stub.set("/introspect", Answer::json(&json!({ "active": false })));
    stub
}

pub async fn start(stub: &Stub, introspection: &str) -> TestGateway {
    TestGateway::start(&yaml(&Signer::es256("k1"), stub, introspection)).await
}

pub async fn ask(gateway: &TestGateway, token: &str) -> String {
    verdict(&gateway.get("/orders/1", token, &[]).await)
}

#[tokio::test]
async fn an_opaque_token_is_asked_about_once_and_speaks_for_whom_its_issuer_says() {
    let stub = endpoint().await;
    stub.set_to("/introspect", "token=opaque-1&", Answer::json(&active()));
    let gateway = start(&stub, "").await;
    for _ in 0..5 {
        assert_eq!(ask(&gateway, "opaque-1").await, "200");
    }
    let asked = stub.asked("/introspect");
    assert_eq!(asked.len(), 1, "the answer is kept");
    assert_eq!(asked[0].body, "token=opaque-1&token_type_hint=access_token");
    let head = asked[0].head.to_ascii_lowercase();
    assert!(head.starts_with("post ") && head.contains("content-type: application/x-www-form-urlencoded"));
    // gateway:s3cret%2F%26, form-encoded before (RFC 6749 section 2.3.1).
    assert!(asked[0].head.contains("Basic Z2F0ZXdheTpzM2NyZXQlMkYlMjY="), "{}", asked[0].head);
    let received = gateway.received("/orders/1");
    assert_eq!(received.len(), 5);
    assert!(received.iter().all(|received| received.headers["x-auth-subject"] == "alice"));
    assert!(received.iter().all(|received| !received.headers.contains_key("authorization")));
    // A scope that the answer does not grant is refused from the same kept answer, however warm.
    assert_eq!(verdict(&gateway.get("/admin/1", "opaque-1", &[]).await), "403 VAL-030 insufficient_scope");
    assert!(gateway.received("/admin/1").is_empty());
    assert_eq!(stub.hits("/introspect"), 1);
    assert_eq!(gateway.metric("valgate_introspection_active_total{issuer=\"main\"}").await, 1);
}

#[tokio::test]
async fn what_the_issuer_says_goes_through_the_checks_of_every_token() {
    let stub = endpoint().await;
    let rows = [
        ("good", active(), "200"),
        ("without-issuer", with("iss", Value::Null), "200"),
        ("of-a-list", with("aud", json!(["x", "orders-api"])), "200"),
        (
            "by-use",
            {
                let mut by = with("token_type", Value::Null);
                by["token_use"] = "access_token".into();
                by
            },
            "200",
        ),
        ("inactive", json!({ "active": false }), NOT_RECOGNIZED),
        ("inactive-with-claims", with("active", false), NOT_RECOGNIZED),
        ("of-another-issuer", with("iss", "https://evil.example.com/"), "401 VAL-020 issuer_not_trusted"),
        ("for-another-api", with("aud", "billing"), "401 VAL-020 audience_mismatch"),
        ("for-nobody", with("aud", Value::Null), "401 VAL-020 claim_missing"),
        ("expired", with("exp", now() - 3600), "401 VAL-020 expired"),
        ("without-end", with("exp", Value::Null), "401 VAL-020 claim_missing"),
        ("end-as-text", with("exp", "4102444800"), "401 VAL-020 claim_invalid"),
        ("not-yet", with("nbf", now() + 3600), "401 VAL-020 not_yet_valid"),
        ("subject-a-number", with("sub", 7), "401 VAL-020 claim_invalid"),
        ("of-no-kind", with("token_type", Value::Null), "401 VAL-020 wrong_type"),
        ("refresh", with("token_type", "refresh_token"), "401 VAL-020 wrong_type"),
        ("refresh-of-keycloak", with("typ", "Refresh"), "401 VAL-020 wrong_type"),
        ("refresh-of-hydra", with("token_use", "refresh_token"), "401 VAL-020 wrong_type"),
        ("without-scope", with("scope", Value::Null), "403 VAL-030 insufficient_scope"),
    ];
    let gateway = start(&stub, "").await;
    for (token, answer, expected) in &rows {
        stub.set_to("/introspect", &format!("token={token}&"), Answer::json(answer));
        assert_eq!(ask(&gateway, token).await, *expected, "{token}");
    }
    let good = rows.iter().filter(|(_, _, expected)| *expected == "200").count();
    assert_eq!(gateway.received("/orders/1").len(), good);

    let lenient = start(&stub, "insecure_accept_any_token_type: true").await;
    assert_eq!(ask(&lenient, "of-no-kind").await, "200");
    assert_eq!(ask(&lenient, "refresh").await, "401 VAL-020 wrong_type");
}

/// A JWT is never taken for opaque, however wrong it is; what is no JWT is.
#[tokio::test]
async fn only_what_is_no_jwt_is_asked_about() {
    let signer = Signer::es256("k1");
    let stub = endpoint().await;
    stub.set("/introspect", Answer::json(&active()));
    let gateway = TestGateway::start(&yaml(&signer, &stub, "")).await;
    assert_eq!(ask(&gateway, &Token::new().sign(&signer)).await, "200");
    let forged = Token::new().sign(&Signer::es256("k1"));
    assert_eq!(ask(&gateway, &forged).await, "401 VAL-020 signature_mismatch");
    let elsewhere = Token::new().claim("iss", "https://evil.example.com/").sign(&signer);
    assert_eq!(ask(&gateway, &elsewhere).await, "401 VAL-020 issuer_not_trusted");
    assert_eq!(stub.hits("/introspect"), 0);
    for opaque in ["a.b.c", "ya29.a0AfH", "eyJhbGciOiJkaXIifQ..a.b.c", "2YotnFZFEjr1zCsicMWpAA=="] {
        assert_eq!(ask(&gateway, opaque).await, "200", "{opaque}");
    }
    assert_eq!(stub.hits("/introspect"), 4);
}

#[tokio::test]
async fn an_issuer_that_cannot_be_asked_is_never_the_tokens_fault() {
    let stub = endpoint().await;
    let gateway = start(&stub, "timeout: 200ms\n      breaker: { failures: 1000 }").await;
    let text = active().to_string();
    let rows = [
        ("500", Answer::error(500)),
        ("404", Answer::error(404)),
        ("401: our own credentials", Answer::error(401)),
        ("403", Answer::error(403)),
        ("201 with an active token", Answer::Status(201, json_header(), text.clone().into())),
        ("redirect", Answer::Status(307, vec![("Location".to_owned(), stub.url("/elsewhere"))], Vec::new())),
        ("HTML", Answer::body("text/html", "<html>maintenance</html>")),
        ("JSON as HTML", Answer::body("text/html", text.clone())),
        ("nothing", Answer::body("application/json", "")),
        ("no object", Answer::json(&json!([true]))),
        ("no active", Answer::json(&json!({ "sub": "alice" }))),
        ("active as text", Answer::json(&with("active", "true"))),
        ("active as number", Answer::json(&with("active", 1))),
        ("active twice", Answer::body("application/json", text.replacen('{', "{\"active\":true,", 1))),
        ("cut off", Answer::body("application/json", &text.as_bytes()[..text.len() - 1])),
        ("huge", Answer::json(&with("padding", "x".repeat(100_000)))),
        ("closed", Answer::Close),
        ("silent", Answer::Hang),
    ];
    stub.set("/elsewhere", Answer::json(&active()));
    for (at, (name, answer)) in rows.into_iter().enumerate() {
        stub.set("/introspect", answer);
        let reply = gateway.get("/orders/1", &format!("opaque-{at}"), &[]).await;
        refused(&reply, "VAL-052", "introspection_failed");
        assert_eq!(reply.header("www-authenticate"), None, "{name}");
        assert!(reply.header("retry-after").is_some(), "{name}");
    }
    assert!(gateway.received("/orders/1").is_empty());
    assert_eq!(stub.hits("/elsewhere"), 0, "redirects are not followed");
    // The moment it answers, it is believed.
    stub.set("/introspect", Answer::json(&active()));
    assert_eq!(ask(&gateway, "opaque-0").await, "200");
}

fn json_header() -> Vec<(String, String)> {
    vec![("Content-Type".to_owned(), "application/json".to_owned())]
}

#[tokio::test]
async fn a_flood_costs_the_issuer_little() {
    let stub = endpoint().await;
    stub.set_to("/introspect", "token=good&", Answer::json(&active()));
    let gateway = start(&stub, "negative_cache: 1h").await;
    let flood = |token: &'static str| {
        let requests = (0..50).map(|_| gateway.get("/orders/1", token, &[]));
        futures(requests)
    };
    assert!(flood("bad").await.iter().all(|reply| verdict(reply) == NOT_RECOGNIZED));
    assert_eq!(stub.hits("/introspect"), 1, "asked once for all, and remembered");
    assert!(flood("good").await.iter().all(|reply| reply.status == 200));
    assert!(stub.hits("/introspect") <= 3, "asked once for all: {}", stub.hits("/introspect"));
}

pub async fn futures<F: Future>(requests: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut waiting: Vec<_> = requests.map(Box::pin).collect();
    let mut done: Vec<Option<F::Output>> = waiting.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (request, slot) in waiting.iter_mut().zip(&mut done) {
            if slot.is_none()
                && let std::task::Poll::Ready(output) = request.as_mut().poll(context)
            {
                *slot = Some(output);
            }
        }
        if done.iter().all(Option::is_some) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    done.into_iter().flatten().collect()
}

#[tokio::test]
async fn an_endpoint_that_keeps_failing_is_left_alone_and_then_tried_again() {
    let stub = endpoint().await;
    stub.set("/introspect", Answer::error(500));
    let gateway = start(&stub, "breaker: { failures: 3, pause: 300ms }").await;
    for at in 0..20 {
        assert_eq!(ask(&gateway, &format!("opaque-{at}")).await, UNAVAILABLE);
    }
    let hits = stub.hits("/introspect");
    assert!((3..=10).contains(&hits), "{hits} questions of 20");
    assert!(gateway.metric("valgate_introspection_turned_away_total{issuer=\"main\"}").await >= 10);
    stub.set("/introspect", Answer::json(&active()));
    eventually("it is tried again", || async { ask(&gateway, "opaque-0").await == "200" }).await;
    assert_eq!(gateway.metric("valgate_introspection_breaker_open{issuer=\"main\"}").await, 0);
}

#[tokio::test]
async fn a_token_that_its_issuer_takes_back_stops_with_the_kept_answer() {
    let stub = endpoint().await;
    stub.set("/introspect", Answer::json(&active()));
    let gateway = start(&stub, "cache: 200ms").await;
    assert_eq!(ask(&gateway, "opaque").await, "200");
    stub.set("/introspect", Answer::json(&json!({ "active": false })));
    eventually("taken back", || async { ask(&gateway, "opaque").await == NOT_RECOGNIZED }).await;

    // Without a cache every request is a question.
    stub.set("/introspect", Answer::json(&active()));
    let gateway = start(&stub, "cache: 0s").await;
    let before = stub.hits("/introspect");
    for _ in 0..3 {
        assert_eq!(ask(&gateway, "another").await, "200");
    }
    assert_eq!(stub.hits("/introspect") - before, 3);
}

#[tokio::test]
async fn jwts_can_be_asked_about_on_top_of_their_signature() {
    let signer = Signer::es256("k1");
    let stub = endpoint().await;
    let gateway = TestGateway::start(&yaml(&signer, &stub, "tokens: all")).await;
    let token = Token::new();
    let (confirmed, denied) = (token.sign(&signer), Token::new().sign(&signer));
    let mut answer = active();
    answer["jti"] = token.text("jti").into();
    stub.set_to("/introspect", &confirmed, Answer::json(&answer));
    assert_eq!(ask(&gateway, &confirmed).await, "200");
    assert_eq!(ask(&gateway, &confirmed).await, "200");
    assert_eq!(stub.hits("/introspect"), 1);
    assert_eq!(ask(&gateway, &denied).await, NOT_RECOGNIZED);
    // An answer about another token, or by another issuer, confirms nothing.
    for (name, value) in [("jti", "another"), ("sub", "mallory")] {
        let token = Token::new().sign(&signer);
        stub.set_to("/introspect", &token, Answer::json(&with(name, value)));
        assert_eq!(ask(&gateway, &token).await, NOT_RECOGNIZED, "{name}");
    }
    let hits = stub.hits("/introspect");
    let forged = Token::new().sign(&Signer::es256("k1"));
    assert_eq!(ask(&gateway, &forged).await, "401 VAL-020 signature_mismatch");
    let expired = Token::new().claim("exp", now() - 3600).sign(&signer);
    assert_eq!(ask(&gateway, &expired).await, "401 VAL-020 expired");
    assert_eq!(stub.hits("/introspect"), hits, "what is wrong anyway is not asked about");
}

/// What `/refusals` keeps of the request that this token is refused for.
async fn explained(gateway: &TestGateway, path: &str, token: &str) -> Value {
    let reply = gateway.get(path, token, &[]).await;
    let path = format!("/refusals?request_id={}", reply.header("x-request-id").unwrap());
    let kept = async || get(gateway.admin(), &path, &[]).await.json()["refusals"][0].clone();
    eventually("kept", || async { !kept().await.is_null() }).await;
    kept().await
}

#[tokio::test]
async fn a_refusal_is_explained_by_what_the_issuer_said() {
    let signer = Signer::es256("k1");
    let stub = endpoint().await;
    let all = "tokens: all\n      breaker: { failures: 1000 }";
    let gateway = TestGateway::start(&yaml(&signer, &stub, all)).await;
    stub.set_to("/introspect", "token=warm&", Answer::json(&active()));
    stub.set_to("/introspect", "token=foreign&", Answer::json(&with("aud", "billing")));
    stub.set_to("/introspect", "token=lost&", Answer::error(500));
    let denied = Token::new().sign(&signer);
    let confirmed = Token::new();
    let answer = with("jti", confirmed.text("jti"));
    let confirmed = confirmed.sign(&signer);
    stub.set_to("/introspect", &confirmed, Answer::json(&answer));
    for token in ["warm", &confirmed] {
        assert_eq!(ask(&gateway, token).await, "200");
    }
    for (path, token, reason, expected) in [
        ("/orders/1", "inactive", "not_recognized", vec![("form", "passed"), ("introspection", "failed")]),
        ("/orders/1", "lost", "introspection_failed", vec![("form", "passed"), ("introspection", "failed")]),
        (
            "/orders/1",
            "foreign",
            "audience_mismatch",
            vec![
                ("introspection", "passed"),
                ("audience", "failed"),
                ("time", "passed"),
                ("scopes", "passed"),
            ],
        ),
        // From the verdict cache: the issuer was asked for a request before.
        ("/admin/1", "warm", "insufficient_scope", vec![("introspection", "passed"), ("scopes", "failed")]),
        (
            "/admin/1",
            confirmed.as_str(),
            "insufficient_scope",
            vec![("signature", "passed"), ("introspection", "passed"), ("scopes", "failed")],
        ),
        (
            "/orders/1",
            denied.as_str(),
            "not_recognized",
            vec![
                ("time", "passed"),
                ("signature", "passed"),
                ("introspection", "failed"),
                ("scopes", "passed"),
            ],
        ),
    ] {
        let kept = explained(&gateway, path, token).await;
        assert_eq!(kept["refusal"]["reason"], reason, "{kept:#}");
        let checks = kept["checks"].as_array().unwrap();
        for (check, outcome) in expected {
            let found = checks.iter().find(|found| found["check"] == check);
            assert_eq!(
                found.map(|found| &found["outcome"]),
                Some(&json!(outcome)),
                "{token} {check}: {kept:#}"
            );
        }
        let is_told = !matches!(token, "inactive" | "lost");
        assert_eq!(kept["claims"]["sub"], if is_told { json!("alice") } else { Value::Null }, "{kept:#}");
    }
    let asked = stub.hits("/introspect");
    assert_eq!(asked, 6, "nobody asks again for an explanation");
}

#[tokio::test]
async fn the_feed_revokes_opaque_tokens_too() {
    let stub = endpoint().await;
    let snapshot = |epoch: &str, entries: Value| {
        Answer::json(&json!({ "version": 1, "kind": "snapshot", "epoch": epoch, "entries": entries }))
    };
    stub.set("/feed", snapshot("a", json!([])));
    stub.set("/introspect", Answer::json(&active()));
    let revocation = "cache: 1h
    revocation: { feeds: [logout], max_staleness: 10m, when_stale: reject }";
    let feed =
        format!("feeds: [{{ name: logout, http: {{ url: \"{}\", interval: 100ms }} }}]", stub.url("/feed"));
    let gateway = TestGateway::start(&(yaml(&Signer::es256("k1"), &stub, revocation) + &feed)).await;
    assert_eq!(ask(&gateway, "opaque").await, "200");
    stub.set("/feed", snapshot("b", json!([{ "sub": "alice" }])));
    eventually("revoked", || async { ask(&gateway, "opaque").await == "401 VAL-020 revoked" }).await;
    assert_eq!(stub.hits("/introspect"), 1);
}

/// RFC 9701.
#[tokio::test]
async fn signed_answers_count_only_if_the_issuer_signed_them_for_us_and_now() {
    let signer = Signer::es256("k1");
    let stub = endpoint().await;
    let gateway =
        TestGateway::start(&yaml(&signer, &stub, "signed: true\n      breaker: { failures: 1000 }")).await;
    let envelope =
        || json!({ "iss": ISSUER, "aud": "gateway", "iat": now(), "token_introspection": active() });
    let changed = |name: &str, value: Value| {
        let mut envelope = envelope();
        envelope[name] = value;
        envelope
    };
    let header = |typ: &str| json!({ "alg": "ES256", "kid": "k1", "typ": typ }).to_string();
    let good = header("token-introspection+jwt");
    let sign = |header: &str, envelope: &Value| jws(header, envelope.to_string(), &signer);
    let media_type = "application/token-introspection+jwt";
    let rows = [
        ("good", Answer::body(media_type, sign(&good, &envelope())), "200"),
        ("for-the-api", Answer::body(media_type, sign(&good, &changed("aud", json!(["orders-api"])))), "200"),
        (
            "inactive",
            Answer::body(
                media_type,
                sign(&good, &changed("token_introspection", json!({ "active": false }))),
            ),
            NOT_RECOGNIZED,
        ),
        ("plain", Answer::json(&active()), UNAVAILABLE),
        ("as-json", Answer::body("application/json", sign(&good, &envelope())), UNAVAILABLE),
        ("other-type", Answer::body(media_type, sign(&header("JWT"), &envelope())), UNAVAILABLE),
        (
            "other-issuer",
            Answer::body(media_type, sign(&good, &changed("iss", "https://evil/".into()))),
            UNAVAILABLE,
        ),
        (
            "other-client",
            Answer::body(media_type, sign(&good, &changed("aud", "someone".into()))),
            UNAVAILABLE,
        ),
        ("old", Answer::body(media_type, sign(&good, &changed("iat", (now() - 3600).into()))), UNAVAILABLE),
        ("undated", Answer::body(media_type, sign(&good, &changed("iat", Value::Null))), UNAVAILABLE),
        (
            "empty",
            Answer::body(media_type, sign(&good, &changed("token_introspection", Value::Null))),
            UNAVAILABLE,
        ),
        ("unsigned", Answer::body(media_type, sign(&good, &envelope()) + "A"), UNAVAILABLE),
        (
            "of-another-key",
            Answer::body(media_type, jws(&good, envelope().to_string(), &Signer::es256("k1"))),
            UNAVAILABLE,
        ),
        (
            "of-no-algorithm",
            Answer::body(
                media_type,
                format!(
                    "{}.{}.",
                    base64url(br#"{"alg":"none","typ":"token-introspection+jwt"}"#),
                    base64url(envelope().to_string().as_bytes())
                ),
            ),
            UNAVAILABLE,
        ),
    ];
    for (token, answer, expected) in rows {
        stub.set_to("/introspect", &format!("token={token}&"), answer);
        assert_eq!(ask(&gateway, token).await, expected, "{token}");
    }
    assert!(stub.asked("/introspect")[0].head.contains("application/token-introspection+jwt"));
}
