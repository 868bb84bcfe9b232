//! What a refused client is told, in each of the forms that clients read.

use bytes::Bytes;
use http::Request;
use serde_json::Value;

use crate::support::{ISSUER, Reply, Signer, TestGateway, Token, http2, now, refused, send};

async fn gateway(more: &str) -> (TestGateway, Signer) {
    let signer = Signer::es256("k1");
    let yaml = format!(
        "
{more}
issuers:
  - name: main
    issuer: {ISSUER}
    keys: {{ inline: {} }}
    audiences: [orders-api]
routes:
  - match: {{ path: /orders/**, methods: [GET, POST] }}
    require: {{ issuers: [main] }}
    upstream: api
  - match: {{ path: /scoped/** }}
    require: {{ issuers: [main], scopes: [orders:write, orders:admin] }}
    upstream: api
  - match: {{ path: /ruled/** }}
    require: {{ issuers: [main], claims: [{{ name: only-acme, claim: tenant, equals: acme }}] }}
    upstream: api
",
        signer.jwks()
    );
    (TestGateway::start(&yaml).await, signer)
}

fn challenge(reply: &Reply) -> &str {
    reply.header("www-authenticate").unwrap_or_default()
}

/// RFC 6750 section 3: no error without credentials, the scope where one is needed, and the right error else.
#[tokio::test]
async fn each_refusal_has_its_code_and_its_challenge() {
    let (gateway, signer) = gateway("").await;
    let good = Token::new().sign(&signer);
    let expired = Token::new().claim("exp", now() - 600).sign(&signer);

    let reply = gateway.get("/orders/1", "", &[]).await;
    refused(&reply, "VAL-010", "missing");
    assert_eq!(challenge(&reply), "Bearer realm=\"valgate\"");

    let reply = gateway.get("/scoped/1", "", &[]).await;
    refused(&reply, "VAL-010", "missing");
    assert_eq!(challenge(&reply), "Bearer realm=\"valgate\", scope=\"orders:write orders:admin\"");

    let reply = gateway.get("/orders/1", "", &[("Authorization", "Basic eA==")]).await;
    refused(&reply, "VAL-011", "not_bearer");
    assert_eq!(challenge(&reply), "Bearer realm=\"valgate\"");

    let reply = gateway.get("/orders/1", "", &[("Authorization", "Bearer")]).await;
    refused(&reply, "VAL-011", "empty");
    assert!(
        challenge(&reply)
            .starts_with("Bearer realm=\"valgate\", error=\"invalid_request\", error_description=\"")
    );

    let reply = gateway.get("/orders/1", &expired, &[]).await;
    refused(&reply, "VAL-020", "expired");
    assert!(
        challenge(&reply)
            .starts_with("Bearer realm=\"valgate\", error=\"invalid_token\", error_description=\"")
    );
    assert!(!challenge(&reply).contains("scope"));
    assert!(reply.json()["detail"].as_str().unwrap().contains("10 min"), "{}", reply.text());

    let reply = gateway.get("/scoped/1", &good, &[]).await;
    refused(&reply, "VAL-030", "insufficient_scope");
    assert!(challenge(&reply).starts_with("Bearer realm=\"valgate\", error=\"insufficient_scope\""));
    assert!(challenge(&reply).ends_with(", scope=\"orders:write orders:admin\""), "{}", challenge(&reply));

    let reply = gateway.get("/ruled/1", &good, &[]).await;
    refused(&reply, "VAL-031", "claim_rule");
    assert_eq!(challenge(&reply), "");
    assert!(!reply.text().contains("acme"), "the rule is not the client's business");

    let reply = gateway.get("/nowhere", &good, &[]).await;
    refused(&reply, "VAL-040", "no_route");
    assert_eq!(challenge(&reply), "");

    let request = "DELETE /orders/1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let reply = send(gateway.plain, request).await;
    refused(&reply, "VAL-041", "method_not_allowed");
    let mut allow: Vec<&str> = reply.header("allow").unwrap().split(", ").collect();
    allow.sort_unstable();
    assert_eq!(allow, ["GET", "HEAD", "POST"]);

    assert!(gateway.api.received().is_empty());
    let log = gateway.stop().await;
    assert!(
        log.iter().any(|line| line["detail"].as_str().is_some_and(|detail| detail.contains("only-acme")))
    );
}

/// The characters of `quoted-string` that RFC 6750 section 3 allows, whatever the token says.
#[tokio::test]
async fn nothing_of_the_token_gets_into_the_answer() {
    let (gateway, signer) = gateway("").await;
    let nasty = "\"\\\r\nSet-Cookie: a=b\u{e9}<script>";
    let rows = [
        Token::new().claim("iss", nasty),
        Token::new().claim("aud", nasty),
        Token::new().header("kid", nasty),
        Token::new().header("typ", nasty),
        Token::new().header("alg", nasty),
        Token::new().claim("exp", nasty),
    ];
    for token in rows {
        for accept in ["*/*", "text/html", "text/plain"] {
            let reply = gateway.get("/orders/1", &token.sign(&signer), &[("Accept", accept)]).await;
            assert_eq!(reply.status, 401);
            let all = format!("{:?} {}", reply.headers, reply.text());
            for part in ["Set-Cookie", "set-cookie", "script>", "\u{e9}"] {
                assert!(!all.contains(part), "{part}: {all}");
            }
            let words = challenge(&reply).split('"').collect::<Vec<_>>();
            assert_eq!(words.len() % 2, 1, "quotes do not match: {words:?}");
        }
    }
}

#[tokio::test]
async fn a_browser_gets_a_page_and_who_wants_text_gets_text() {
    let (gateway, _) = gateway("").await;
    let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    let page = gateway.get("/orders/1", "", &[("Accept", browser)]).await;
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(page.text().contains("VAL-010 - Missing Token"), "{}", page.text());
    let text = gateway.get("/orders/1", "", &[("Accept", "text/plain")]).await;
    assert_eq!(text.header("content-type"), Some("text/plain; charset=utf-8"));
    assert!(text.text().starts_with("VAL-010 - Missing Token\n"), "{}", text.text());
    for reply in [&page, &text] {
        assert_eq!(reply.status, 401);
        assert_eq!(challenge(reply), "Bearer realm=\"valgate\"");
        assert!(reply.text().contains(reply.header("x-request-id").unwrap()));
        for (name, value) in
            [("cache-control", "no-store"), ("x-content-type-options", "nosniff"), ("vary", "Accept")]
        {
            assert_eq!(reply.header(name), Some(value), "{name}");
        }
    }
    for accept in [
        "application/json",
        "application/problem+json",
        "*/*",
        "application/json, text/html",
        "image/png",
        ";;",
    ] {
        let reply = gateway.get("/orders/1", "", &[("Accept", accept)]).await;
        refused(&reply, "VAL-010", "missing");
    }
}

fn grpc(path: &str, authorization: Option<&str>) -> Request<Bytes> {
    let request =
        Request::post(path).header("content-type", "application/grpc+proto").header("te", "trailers");
    let request = match authorization {
        Some(value) => request.header("authorization", value),
        None => request,
    };
    request.body(Bytes::from_static(b"\0\0\0\0\0")).unwrap()
}

/// Trailers-only, as gRPC over HTTP/2 has it: status 200 and one block of headers that ends the stream.
#[tokio::test]
async fn a_grpc_client_gets_its_status_in_trailers_only() {
    let (gateway, signer) = gateway("").await;
    let good = format!("Bearer {}", Token::new().sign(&signer));
    let expired = format!("Bearer {}", Token::new().claim("exp", now() - 600).sign(&signer));
    let rows = [
        ("/orders/1", None, "16", "VAL-010 - Missing Token"),
        ("/orders/1", Some("Basic eA=="), "16", "VAL-011 - Malformed Credentials"),
        ("/orders/1", Some("Bearer"), "3", "VAL-011 - Malformed Credentials"),
        ("/orders/1", Some("Bearer x"), "16", "VAL-020 - Invalid Token"),
        ("/orders/1", Some(&*expired), "16", "VAL-020 - Invalid Token"),
        ("/scoped/1", Some(&*good), "7", "VAL-030 - Insufficient Scope"),
        ("/ruled/1", Some(&*good), "7", "VAL-031 - Access Denied"),
        ("/nowhere", Some(&*good), "12", "VAL-040 - No Such Route"),
    ];
    for (path, authorization, status, message) in rows {
        let reply = http2(gateway.connect().await, grpc(path, authorization)).await;
        assert_eq!(reply.status, 200, "{path} {authorization:?}");
        assert_eq!(reply.header("content-type"), Some("application/grpc"));
        assert_eq!(reply.header("grpc-status"), Some(status), "{path} {authorization:?}");
        let said = reply.header("grpc-message").unwrap();
        assert!(said.starts_with(message), "{said}");
        assert!(reply.body.is_empty() && reply.trailers.is_empty(), "{reply:?}");
    }
    assert!(gateway.api.received().is_empty());
}

#[tokio::test]
async fn a_refused_head_has_headers_and_no_body() {
    let (gateway, _) = gateway("").await;
    let mut connection = gateway.connect().await;
    for _ in 0..2 {
        connection.write("HEAD /orders/1 HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let reply = connection.reply_to_head().await.unwrap();
        assert_eq!((reply.status, challenge(&reply)), (401, "Bearer realm=\"valgate\""));
    }
    // Were there a body, it would be read as the head of the next response.
    connection.write("GET /orders/1 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    refused(&connection.reply().await.unwrap(), "VAL-010", "missing");

    let head = Request::head("/orders/1").body(Bytes::new()).unwrap();
    let reply = http2(gateway.connect().await, head).await;
    assert_eq!((reply.status, reply.body.len()), (401, 0), "{reply:?}");
}

#[tokio::test]
async fn code_only_keeps_the_reason_to_the_log() {
    let (gateway, signer) = gateway("error_detail: code_only").await;
    let expired = Token::new().claim("exp", now() - 600).sign(&signer);
    let reply = gateway.get("/orders/1", &expired, &[]).await;
    let problem = reply.json();
    let names: Vec<&String> = problem.as_object().unwrap().keys().collect();
    assert_eq!(names, ["code", "request_id", "status", "title", "type"]);
    assert_eq!(problem["code"], "VAL-020");
    assert_eq!(challenge(&reply), "Bearer realm=\"valgate\", error=\"invalid_token\"");
    for accept in ["text/html", "text/plain"] {
        let reply = gateway.get("/orders/1", &expired, &[("Accept", accept)]).await;
        assert!(reply.text().contains("VAL-020 - Invalid Token"));
        assert!(!reply.text().contains("expired") && !reply.text().contains("lifetime"), "{}", reply.text());
    }
    let authorization = format!("Bearer {expired}");
    let reply = http2(gateway.connect().await, grpc("/orders/1", Some(&authorization))).await;
    assert_eq!(reply.header("grpc-message"), Some("VAL-020 - Invalid Token"));
    let none = gateway.get("/nowhere", "", &[]).await;
    assert_eq!(none.json()["reason"], Value::Null, "before a route is known, too");
    let log = gateway.stop().await;
    let mut reasons: Vec<&str> = log.iter().filter_map(|line| line["reason"].as_str()).collect();
    // Lines of different workers come in no order.
    reasons.sort_unstable();
    assert_eq!(reasons, ["expired", "expired", "expired", "expired", "no_route"]);
}

#[tokio::test]
async fn an_unread_body_does_not_keep_the_refusal_from_the_client() {
    let (gateway, _) = gateway("").await;
    let body = "x".repeat(4 << 20);
    let request = format!("POST /orders HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    refused(&send(gateway.plain, request).await, "VAL-010", "missing");

    let waiting = "POST /orders HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    let mut connection = gateway.connect().await;
    connection.write(waiting).await;
    refused(&connection.reply().await.unwrap(), "VAL-010", "missing");
    assert!(gateway.api.received().is_empty());
}

/// One id for the client, the API and the log, which no client chooses.
#[tokio::test]
async fn the_request_id_is_the_same_everywhere() {
    let (gateway, signer) = gateway("").await;
    let token = Token::new().sign(&signer);
    let chosen = [("X-Request-Id", "chosen-by-client")];
    let accepted = gateway.get("/orders/1", &token, &chosen).await;
    let refused = gateway.get("/orders/1", "", &chosen).await;
    let received = gateway.received("/orders/1");
    assert_eq!(received.len(), 1);
    let seen = received[0].values(&"x-request-id".parse().unwrap());
    assert_eq!(seen, [accepted.header("x-request-id").unwrap()]);
    let ids = [accepted.header("x-request-id").unwrap(), refused.header("x-request-id").unwrap()];
    assert!(ids[0] != ids[1] && !ids.contains(&"chosen-by-client"), "{ids:?}");
    let log = gateway.stop().await;
    let logged: Vec<&str> = log.iter().map(|line| line["request_id"].as_str().unwrap()).collect();
    assert_eq!(logged, ids);
}
