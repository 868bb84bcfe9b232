//! One test for each class of bypass that a gateway of this kind had an advisory for of late, under its number. What is
//! public here lies under `/public`, all else wants a token that nobody has; what the API received decides.

use crate::h2wire::{END_HEADERS, H2, HEADERS, block, get};
use crate::recorder::Recorder;
use crate::setup::{Gateway, api};

async fn gateway(recorder: &Recorder) -> Gateway {
    let key = r#"{ "keys": [{ "kty": "OKP", "crv": "Ed25519", "kid": "k1", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" }] }"#;
    Gateway::start(&format!(
        "{}issuers:
  - name: main
    issuer: https://id.example.com/
    keys: {{ inline: {key} }}
    audiences: [orders-api]
routes:
  - {{ match: {{ path: /public/** }}, public: true, upstream: api }}
  - {{ match: {{ path: /ping }}, public: true, upstream: api }}
  - {{ match: {{ path: /** }}, require: {{ issuers: [main] }}, identity_headers: {{ X-Auth-Subject: sub }}, upstream: api }}
",
        api(recorder)
    ))
    .await
}

/// Sends each target, and asserts that nothing but what is public in the letter reached the API.
async fn reach_nothing(targets: &[&str], lines: &str) {
    let recorder = Recorder::start().await;
    let gateway = gateway(&recorder).await;
    for target in targets {
        let answer = gateway.get(target, lines).await;
        assert!(answer.status >= 400, "{target}: {answer:?}");
        let outcome = H2::plain(gateway.plain).await.request(1, &get(target)).await;
        assert!(outcome.is_refusal(), "{target}: {outcome:?}");
    }
    recorder.assert_untouched("a bypass");
    assert_eq!(gateway.get("/public/a", "").await.status, 200);
}

/// GHSA-p224-6x5r-fjpm (Oathkeeper): a path that begins as the public one and climbs out of it.
#[tokio::test]
async fn oathkeeper_a_public_prefix_and_dot_segments() {
    reach_nothing(&["/public/../admin", "/public/./../admin", "/public/a/../../admin", "/public/.."], "")
        .await;
}

/// CVE-2026-42274, GHSA-3q34-rx83-r6mq (heimdall): dots that are encoded when the rule looks, and not when the API does.
#[tokio::test]
async fn heimdall_encoded_dot_segments() {
    reach_nothing(&["/public/%2e%2e/admin", "/public/.%2E/admin", "/public/%252e%252e/admin"], "").await;
}

/// CVE-2025-32431, GHSA-vrch-868g-9jx5, GHSA-gm3x-23wp-hc2c, CVE-2025-66490 (Traefik): encoded characters that change which
/// route is meant once they are decoded.
#[tokio::test]
async fn traefik_encoded_characters() {
    let targets = [
        "/public%2f..%2fadmin",
        "/public/..%2fadmin",
        "/public/..%5cadmin",
        "/public/a%2f..%2f..%2fadmin",
        "/public;/../admin",
    ];
    reach_nothing(&targets, "").await;
}

/// CVE-2026-48020 (Traefik): what is left behind a prefix begins with dots.
#[tokio::test]
async fn traefik_dots_right_behind_a_prefix() {
    reach_nothing(&["/public..", "/public../admin", "/public/..;/admin", "/public/..//admin"], "").await;
}

/// GHSA-7rh7-c77v-6434 (oauth2-proxy): the public path in the query.
#[tokio::test]
async fn oauth2_proxy_a_public_path_in_the_query() {
    reach_nothing(&["/admin?/public/", "/admin?x=/ping", "/admin?/../public/a"], "").await;
}

/// GHSA-pxq7-h93f-9jrg (oauth2-proxy), CVE-2021-32779 (Envoy): the public path behind `#`.
#[tokio::test]
async fn oauth2_proxy_a_public_path_in_the_fragment() {
    reach_nothing(&["/admin#/public/a", "/admin%23/../public/a"], "").await;
}

/// GHSA-5hvv-m4w4-gf6v, GHSA-7x63-xv5r-3p2x (oauth2-proxy): whoever calls themselves a health check.
#[tokio::test]
async fn oauth2_proxy_the_user_agent_of_health_checks() {
    for agent in ["GoogleHC/1.0", "kube-probe/1.33", "ELB-HealthChecker/2.0"] {
        let lines = format!("User-Agent: {agent}\r\nX-Health-Check: 1\r\n");
        reach_nothing(&["/admin", "/ping/admin", "/ping/", "/readyz", "/livez"], &lines).await;
    }
}

/// oauth2-proxy#3506, CVE-2023-27487 (Envoy), GHSA-vhr5-ggp3-qq85 (Oathkeeper): headers that say which path, method or scheme
/// was meant, from whoever sends them.
#[tokio::test]
async fn oauth2_proxy_and_envoy_headers_that_say_another_path() {
    let lines = "X-Forwarded-Uri: /public/a\r\nX-Original-URL: /public/a\r\nX-Envoy-Original-Path: /public/a\r\n\
                 X-Rewrite-URL: /public/a\r\nX-HTTP-Method-Override: OPTIONS\r\nX-Forwarded-Proto: https\r\n";
    reach_nothing(&["/admin"], lines).await;
    // The other way round: the API must not be told of a path that nobody was asked about.
    let recorder = Recorder::start().await;
    let gateway = gateway(&recorder).await;
    assert_eq!(gateway.get("/public/a", &lines.replace("/public/a", "/admin")).await.status, 200);
    let raw = String::from_utf8_lossy(&recorder.raw().concat()).into_owned();
    assert!(!raw.contains("/admin") && !raw.to_ascii_lowercase().contains("override"), "{raw}");
}

/// CVE-2025-64484 (oauth2-proxy), CVE-2026-26308 (Envoy): identity headers with underscores, in other cases, several times.
#[tokio::test]
async fn oauth2_proxy_and_envoy_identity_headers_in_other_spellings() {
    let recorder = Recorder::start().await;
    let gateway = gateway(&recorder).await;
    let lines =
        "X_Auth_Subject: root\r\nX-Auth_Subject: root\r\nx-auth-subject: root\r\nX-AUTH-SUBJECT: root\r\n";
    assert_eq!(gateway.get("/public/a", lines).await.status, 200);
    let fields = [get("/public/b"), vec![("x_auth_subject", "root"), ("x-auth-subject", "root")]].concat();
    assert_eq!(H2::plain(gateway.plain).await.request(1, &fields).await.answer().status, 200);
    let raw = String::from_utf8_lossy(&recorder.raw().concat()).into_owned();
    assert!(recorder.requests().len() == 2 && !raw.contains("root"), "{raw}");
}

/// CVE-2026-33186 (gRPC-Go): a path without its first slash matches no rule, and the service all the same.
#[tokio::test]
async fn grpc_go_a_path_without_its_first_slash() {
    let recorder = Recorder::start().await;
    let gateway = gateway(&recorder).await;
    for path in ["admin", "admin/x", "public/../admin", "", "*"] {
        let outcome = H2::plain(gateway.plain).await.request(1, &get(path)).await;
        assert!(outcome.is_refusal(), "{path:?}: {outcome:?}");
        let answer = gateway.exchange(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
        assert!(answer.status >= 400, "{path:?}: {answer:?}");
    }
    recorder.assert_untouched("paths without a slash");
}

/// CVE-2026-2833 (pingora): what follows a request for an upgrade is passed on before the upgrade is accepted.
#[tokio::test]
async fn pingora_a_request_behind_an_upgrade_that_is_not_accepted() {
    let recorder = Recorder::start().await;
    let gateway = gateway(&recorder).await;
    let mut wire = gateway.wire().await;
    wire.send(
        "GET /public/a HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n\
         GET /admin HTTP/1.1\r\nHost: localhost\r\n\r\n",
    )
    .await;
    assert_eq!(wire.answer().await.unwrap().status, 200);
    assert_eq!(wire.answer().await.unwrap().verdict(), "VAL-010 missing");
    assert_eq!(recorder.only().target(), "/public/a");
}

/// CVE-2026-2835 (pingora): chunks in HTTP/1.0, which one of two servers does not read as such.
#[tokio::test]
async fn pingora_chunks_in_http_1_0() {
    let recorder = Recorder::start().await;
    let gateway = gateway(&recorder).await;
    let smuggled = "0\r\n\r\nGET /admin HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for framing in ["Transfer-Encoding: chunked\r\n", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"] {
        let head = format!("POST /public/a HTTP/1.0\r\nHost: localhost\r\n{framing}\r\n");
        let answer = gateway.exchange(format!("{head}{smuggled}")).await;
        assert_eq!(answer.verdict(), "VAL-042 ambiguous_framing");
    }
    recorder.assert_untouched("chunks in HTTP/1.0");
}

/// CVE-2026-2836 (pingora): one client's answer for another, since a key left the host out. Nothing is remembered here.
#[tokio::test]
async fn pingora_answers_are_not_remembered() {
    let recorder = Recorder::start().await;
    let gateway = gateway(&recorder).await;
    for host in ["a.test", "b.test", "a.test"] {
        let request = format!("GET /public/a HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(gateway.exchange(request).await.status, 200);
    }
    let hosts: Vec<String> = recorder.requests().iter().map(|r| r.value("host").to_owned()).collect();
    assert_eq!(hosts, ["a.test", "b.test", "a.test"]);
}

/// CVE-2025-64763 (Envoy): data that a client sends behind CONNECT before it is accepted reaches the API when it is not.
#[tokio::test]
async fn envoy_data_before_a_connect_is_accepted() {
    let recorder = Recorder::answering("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno").await;
    let gateway = gateway(&recorder).await;
    let early = b"GET /admin HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut h2 = H2::plain(gateway.plain).await;
    let mut fields = get("/public/a");
    fields[0].1 = "CONNECT";
    fields.insert(1, (":protocol", "websocket"));
    h2.send(HEADERS, END_HEADERS, 1, &block(&fields)).await;
    h2.send(crate::h2wire::DATA, 0, 1, early).await;
    assert_eq!(h2.outcome(1).await.answer().status, 403);
    let mut wire = gateway.wire().await;
    wire.send([&b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost:80\r\n\r\n"[..], early].concat()).await;
    assert!(wire.answer().await.unwrap().status >= 400);
    assert_eq!(recorder.only().target(), "/public/a");
}
