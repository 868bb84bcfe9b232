//! What the operator sees: log, metrics, readiness; and that no token is in any of it.

use crate::support::{Answer, ISSUER, Signer, Stub, TestGateway, Token, eventually, get, http2, now};

#[tokio::test]
async fn one_line_and_one_count_for_each_request_and_nothing_of_any_token() {
    let signer = Signer::es256("k1");
    let gateway = TestGateway::start(&format!(
        "
issuers:
  - {{ name: main, issuer: {ISSUER}, keys: {{ inline: {} }}, audiences: [orders-api] }}
routes:
  - {{ name: orders, match: {{ path: /orders/** }}, require: {{ issuers: [main], scopes: [orders:read] }}, upstream: api }}
  - {{ name: app, match: {{ path: /app/** }}, require: {{ issuers: [main] }}, token_from: {{ cookie: session }}, upstream: api }}
",
        signer.jwks()
    ))
    .await;
    let good = Token::new().sign(&signer);
    let expired = Token::new().claim("exp", now() - 600).sign(&signer);
    let forged = Token::new().sign(&Signer::es256("k1"));
    let unscoped = Token::new().without("scope").sign(&signer);
    let malformed = format!("{good}.x");
    for (token, status) in
        [(&good, 200), (&good, 200), (&expired, 401), (&forged, 401), (&unscoped, 403), (&malformed, 401)]
    {
        assert_eq!(gateway.get("/orders/1?access_token=secret-in-query", token, &[]).await.status, status);
    }
    let cookie = format!("session={good}");
    assert_eq!(gateway.get("/app/1", "", &[("Cookie", &cookie)]).await.status, 404, "the API has none such");
    let request = http::Request::get("/orders/1").header("authorization", format!("Bearer {good}"));
    let reply = http2(gateway.connect().await, request.body(bytes::Bytes::new()).unwrap()).await;
    assert_eq!(reply.status, 200);

    let count = |code: &str, reason: &str, status: &str| {
        let labels = format!("route=\"orders\",code=\"{code}\",reason=\"{reason}\",status=\"{status}\"");
        format!("valgate_requests_total{{{labels}}}")
    };
    for (series, expected) in [
        (count("none", "none", "2xx"), 3),
        (count("VAL-020", "expired", "4xx"), 1),
        (count("VAL-020", "signature_mismatch", "4xx"), 1),
        (count("VAL-020", "malformed", "4xx"), 1),
        (count("VAL-030", "insufficient_scope", "4xx"), 1),
    ] {
        eventually(&series, || async { gateway.metric(&series).await == expected }).await;
    }
    let page = get(gateway.health, "/metrics", &[]).await.text();
    let log = gateway.stop().await;
    assert_eq!(log.len(), 8, "{log:#?}");
    let reasons: Vec<_> = log.iter().filter_map(|line| line["reason"].as_str()).collect();
    assert_eq!(reasons, ["expired", "signature_mismatch", "insufficient_scope", "malformed"]);
    assert_eq!(log[0]["auth"], "cold");
    assert_eq!(
        (&log[0]["sub"], &log[0]["issuer"], &log[0]["route"]),
        (&"alice".into(), &"main".into(), &"orders".into())
    );
    assert!(log.iter().all(|line| line["path"].as_str().is_some_and(|path| !path.contains('?'))));

    let everything = format!("{page}{}", serde_json::to_string(&log).unwrap());
    for token in [&good, &expired, &forged, &unscoped] {
        for part in token.split('.') {
            assert!(!everything.contains(part), "a part of a token is in the log or the metrics");
        }
    }
    assert!(!everything.contains("secret-in-query"));
}

/// A provider that all gateways share must not take all of them out of service at once.
#[tokio::test]
async fn readiness_waits_for_the_first_keys_and_then_only_for_the_end() {
    let signer = Signer::es256("k1");
    let provider = Stub::start().await;
    let gateway = TestGateway::start_unready(&format!(
        "
issuers:
  - name: main
    issuer: {ISSUER}
    keys: {{ jwks_url: \"{}\", refresh_interval: 100ms, max_stale: 1s, cooldown: 100ms }}
    audiences: [orders-api]
routes:
  - {{ match: {{ path: /orders/** }}, require: {{ issuers: [main] }}, upstream: api }}
",
        provider.url("/jwks")
    ))
    .await;
    let ready = async || get(gateway.health, "/readyz", &[]).await;
    assert_eq!(ready().await.status, 503);
    assert_eq!(get(gateway.health, "/livez", &[]).await.status, 200);
    assert_eq!(ready().await.json()["sources"][0]["name"].as_str().unwrap(), "keys of main");

    provider.set("/jwks", Answer::json(&signer.jwks()));
    eventually("ready", || async { ready().await.status == 200 }).await;
    provider.set("/jwks", Answer::error(500));
    let token = Token::new().sign(&signer);
    eventually("keys too old", || async { gateway.get("/orders/1", &token, &[]).await.status == 503 }).await;
    eventually("degraded", || async { ready().await.json()["sources"][0]["state"] == "degraded" }).await;
    assert_eq!(ready().await.status, 200, "still ready");
}
