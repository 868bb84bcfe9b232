//! What reaches the backend beside the request itself: nothing that only the gateway may say, nothing that concerns
//! one connection, and everything else as it came.

use valgate::demo::issuer::{DevIssuer, IssuerOptions, TokenRequest};

use crate::h2wire::H2;
use crate::recorder::{Recorded, Recorder};
use crate::setup::{Gateway, api};

/// A gateway with an identity header, an issuer of tokens for it, and a token of `alice`.
async fn guarded(recorder: &Recorder) -> (Gateway, DevIssuer, String) {
    guarded_with(&api(recorder)).await
}

/// The same with these upstreams, of which one is `api`.
pub async fn guarded_with(upstreams: &str) -> (Gateway, DevIssuer, String) {
    let issuer = DevIssuer::start(IssuerOptions::default()).await.unwrap();
    let token = issuer.mint(&TokenRequest::new().claim("sub", "alice")).unwrap();
    let url = issuer.issuer_url();
    let gateway = Gateway::start(&format!(
        "{upstreams}issuers:
  - name: dev
    issuer: '{url}'
    keys: {{ jwks_url: '{url}/jwks' }}
    audiences: [orders-api]
routes:
  - match: {{ path: '/guarded/**' }}
    require: {{ issuers: [dev] }}
    identity_headers: {{ X-Auth-Subject: sub, X-Auth-Groups: groups }}
    upstream: api
  - {{ match: {{ path: '/open/**' }}, public: true, upstream: api }}
"
    ))
    .await;
    (gateway, issuer, token)
}

/// The first key fetch may still be under way.
async fn wait_for_keys(gateway: &Gateway, recorder: &Recorder, token: &str) {
    wait_until_let_in(gateway, token).await;
    recorder.forget();
}

/// Waits until the token is good for an answer of the API.
pub async fn wait_until_let_in(gateway: &Gateway, token: &str) {
    let lines = format!("Authorization: Bearer {token}\r\n");
    for _ in 0..500 {
        if gateway.get("/guarded/x", &lines).await.status == 200 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("no keys: {:?}", gateway.get("/guarded/x", &lines).await);
}

fn folded(request: &Recorded, name: &str) -> Vec<String> {
    let fold = |text: &str| text.to_ascii_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    let alike = request.headers.iter().filter(|(n, _)| fold(n) == fold(name));
    alike.map(|(_, value)| value.clone()).collect()
}

/// CVE-2025-64484 (underscores), CVE-2026-26308 (several values): whatever the spelling, on every route.
#[tokio::test]
async fn identity_cannot_be_claimed_by_the_client_in_any_spelling_on_any_route() {
    let recorder = Recorder::start().await;
    let (gateway, _issuer, token) = guarded(&recorder).await;
    wait_for_keys(&gateway, &recorder, &token).await;
    for lines in [
        "X-Auth-Subject: mallory\r\n",
        "x-auth-subject: mallory\r\n",
        "X-AUTH-SUBJECT: mallory\r\nX-Auth-Subject: mallory\r\n",
        "X_Auth_Subject: mallory\r\n",
        "X-Auth_Subject: mallory\r\n",
        "x.auth.subject: mallory\r\n",
        "X-Auth~Subject: mallory\r\n",
        "Connection: X-Auth-Subject\r\nX-Auth-Subject: mallory\r\n",
        "Connection: close, x-auth-subject\r\n",
        "X-Auth-Groups: admin\r\nX_AUTH_GROUPS: admin\r\n",
    ] {
        for (path, subject) in [("/guarded/x", vec!["alice"]), ("/open/x", vec![])] {
            recorder.forget();
            let answer = gateway.get(path, &format!("{lines}Authorization: Bearer {token}\r\n")).await;
            assert_eq!(answer.status, 200, "{lines}: {answer:?}");
            let request = recorder.only();
            assert_eq!(folded(&request, "x-auth-subject"), subject, "{lines} on {path}: {request:?}");
            assert!(folded(&request, "x-auth-groups").is_empty(), "{lines} on {path}: {request:?}");
        }
    }
    // A chunked body's trailers are no way in either.
    recorder.forget();
    let body = "Transfer-Encoding: chunked\r\nTrailer: X-Auth-Subject\r\n\r\n1\r\na\r\n0\r\nX-Auth-Subject: mallory\r\n\r\n";
    let head =
        format!("POST /guarded/x HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n{body}");
    assert_eq!(gateway.exchange(head).await.status, 200);
    let request = recorder.only();
    assert_eq!((folded(&request, "x-auth-subject"), &*request.body), (vec!["alice".to_owned()], &b"a"[..]));
    assert!(!String::from_utf8(recorder.raw().concat()).unwrap().contains("mallory"));
}

#[tokio::test]
async fn the_token_stays_at_the_gateway() {
    let recorder = Recorder::start().await;
    let (gateway, _issuer, token) = guarded(&recorder).await;
    wait_for_keys(&gateway, &recorder, &token).await;
    assert_eq!(gateway.get("/guarded/x", &format!("Authorization: Bearer {token}\r\n")).await.status, 200);
    assert!(!recorder.only().has("authorization"));
    assert!(!String::from_utf8(recorder.raw().concat()).unwrap().contains(&token));
    // On a public route it is not the gateway's.
    recorder.forget();
    assert_eq!(gateway.get("/open/x", "Authorization: Basic YTpi\r\n").await.status, 200);
    assert_eq!(recorder.only().value("authorization"), "Basic YTpi");
}

/// `Connection` names headers to remove: not the credential before it is checked, not what the gateway adds.
#[tokio::test]
async fn connection_cannot_remove_what_the_gateway_needs_or_says() {
    let recorder = Recorder::start().await;
    let (gateway, _issuer, token) = guarded(&recorder).await;
    wait_for_keys(&gateway, &recorder, &token).await;
    let names = "authorization, host, x-forwarded-for, x-forwarded-proto, x-forwarded-host, forwarded, x-request-id, \
                 traceparent, x-auth-subject, content-length";
    let head = format!(
        "POST /guarded/x HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nConnection: {names}\r\n\
         Content-Length: 5\r\n\r\nhello"
    );
    assert_eq!(gateway.exchange(head).await.status, 200);
    let request = recorder.only();
    for name in [
        "host",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
        "forwarded",
        "x-request-id",
        "traceparent",
    ] {
        request.value(name);
    }
    assert_eq!((request.value("x-auth-subject"), &*request.body), ("alice", &b"hello"[..]));
    let answer = gateway.get("/guarded/x", "Connection: authorization\r\n").await;
    assert_eq!(answer.verdict(), "VAL-010 missing");
}

#[tokio::test]
async fn what_concerns_one_connection_is_removed_and_all_else_arrives_as_it_came() {
    let recorder = Recorder::start().await;
    let gateway = Gateway::open(&recorder).await;
    let lines = "Connection: keep-alive, X-Private, x-also\r\nConnection: X-Third\r\nX-Private: 1\r\nX-Also: 2\r\n\
                 X-Third: 3\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: Basic x\r\n\
                 Proxy-Authenticate: x\r\nTE: gzip\r\nTrailer: X-Sum\r\nUpgrade: foo\r\nProxy: http://evil/\r\n\
                 Accept: a\r\nAccept: b\r\nX-Custom: v\r\nX_Custom: w\r\nRange: bytes=0-1\r\nIf-None-Match: \"x\"\r\n\
                 Cookie: a=b\r\nReferer: http://c/\r\n";
    assert_eq!(gateway.get("/a", lines).await.status, 200);
    let request = recorder.only();
    for name in [
        "connection",
        "x-private",
        "x-also",
        "x-third",
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
        "proxy-authenticate",
        "te",
        "trailer",
        "upgrade",
        "proxy",
        "transfer-encoding",
    ] {
        assert!(!request.has(name), "{name} in {request:?}");
    }
    assert_eq!(request.values("accept"), ["a", "b"]);
    for (name, value) in [
        ("x-custom", "v"),
        ("x_custom", "w"),
        ("range", "bytes=0-1"),
        ("if-none-match", "\"x\""),
        ("cookie", "a=b"),
        ("referer", "http://c/"),
    ] {
        assert_eq!(request.value(name), value);
    }
}

/// GHSA-vhr5-ggp3-qq85 (Oathkeeper), CVE-2023-27487 (Envoy), oauth2-proxy#3506: nobody is trusted by default.
#[tokio::test]
async fn forwarded_headers_are_set_and_forged_ones_replaced() {
    let recorder = Recorder::start().await;
    let gateway = Gateway::open(&recorder).await;
    let forged = [
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
        "X-Forwarded-Port",
        "X-Forwarded-Prefix",
        "X-Forwarded-Uri",
        "X-Forwarded-Method",
        "X-Forwarded-User",
        "X-Forwarded-Email",
        "X-Forwarded-Scheme",
        "X-Forwarded-Ssl",
        "X-Forwarded-Server",
        "X-Forwarded-Client-Cert",
        "X-Real-IP",
        "X-Client-IP",
        "True-Client-IP",
        "CF-Connecting-IP",
        "Forwarded",
        "X-Request-Id",
        "Front-End-Https",
        "Client-Cert",
        "X_Forwarded_For",
        "X_Forwarded_Host",
        "X-Forwarded_Proto",
        "X_Real_IP",
        "x.forwarded.for",
    ];
    let lines: String = forged.iter().map(|name| format!("{name}: 6.6.6.6\r\n")).collect();
    for over_tls in [false, true] {
        recorder.forget();
        let mut wire = if over_tls { gateway.tls_wire().await } else { gateway.wire().await };
        wire.send(format!("GET /a HTTP/1.1\r\nHost: a.test:81\r\n{lines}\r\n")).await;
        let answer = wire.answer().await.unwrap();
        let request = recorder.only();
        let raw = String::from_utf8(recorder.raw().concat()).unwrap();
        assert!(!raw.contains("6.6.6.6"), "{raw}");
        let scheme = if over_tls { "https" } else { "http" };
        assert_eq!(request.value("x-forwarded-for"), "127.0.0.1");
        assert_eq!(request.value("x-forwarded-host"), "a.test:81");
        assert_eq!(request.value("x-forwarded-proto"), scheme);
        assert_eq!(request.value("forwarded"), format!("for=127.0.0.1;host=\"a.test:81\";proto={scheme}"));
        assert_eq!(Some(request.value("x-request-id")), answer.header("x-request-id"));
    }
}

#[tokio::test]
async fn override_headers_are_removed_unless_the_route_lets_them_pass() {
    let names = [
        "X-HTTP-Method-Override",
        "X-HTTP-Method",
        "X-Method-Override",
        "X-Original-URL",
        "X-Original-Uri",
        "X-Rewrite-URL",
        "X_HTTP_Method_Override",
        "X_Original_URL",
    ];
    let recorder = Recorder::start().await;
    let routes = "routes:
  - { match: { path: /a }, public: true, upstream: api }
  - { match: { path: /b }, public: true, upstream: api, allow_override_headers: [X-HTTP-Method-Override] }
";
    let gateway = Gateway::start(&format!("{}{routes}", api(&recorder))).await;
    let lines: String = names.iter().map(|name| format!("{name}: DELETE\r\n")).collect();
    for (path, passed) in [("/a", 0), ("/b", 1)] {
        recorder.forget();
        assert_eq!(gateway.get(path, &lines).await.status, 200);
        let request = recorder.only();
        let left = request.headers.iter().filter(|(_, value)| value == "DELETE").count();
        assert_eq!(left, passed, "{request:?}");
        assert_eq!(request.values("x-http-method-override").len(), passed);
    }
}

#[tokio::test]
async fn trace_context_is_continued_or_begun() {
    let recorder = Recorder::start().await;
    let gateway = Gateway::open(&recorder).await;
    let id = "0af7651916cd43dd8448eb211c80319c";
    for (lines, continued) in [
        (format!("traceparent: 00-{id}-b7ad6b7169203331-01\r\ntracestate: a=b\r\n"), true),
        (String::new(), false),
        (format!("traceparent: 00-{id}-0000000000000000-01\r\ntracestate: a=b\r\n"), false),
        (format!("traceparent: xx-{id}-b7ad6b7169203331-01\r\n"), false),
        (
            format!(
                "traceparent: 00-{id}-b7ad6b7169203331-01\r\ntraceparent: 00-{id}-b7ad6b7169203332-01\r\n"
            ),
            false,
        ),
    ] {
        recorder.forget();
        assert_eq!(gateway.get("/a", &lines).await.status, 200);
        let request = recorder.only();
        let parent = request.value("traceparent");
        assert_eq!(parent.contains(id), continued, "{lines}: {parent}");
        assert_eq!(parent.len(), 55);
        assert_eq!(parent.contains("b7ad6b7169203331"), continued, "as it came, or another: {parent}");
        assert_eq!(request.has("tracestate"), continued, "{lines}");
    }
}

#[tokio::test]
async fn te_trailers_passes_since_grpc_servers_insist_on_it() {
    let recorder = Recorder::start().await;
    let gateway = Gateway::open(&recorder).await;
    let mut fields = crate::h2wire::get("/a");
    fields.push(("te", "trailers"));
    assert_eq!(H2::plain(gateway.plain).await.request(1, &fields).await.answer().status, 200);
    assert_eq!(recorder.only().value("te"), "trailers");
}

#[tokio::test]
async fn the_host_is_the_clients_or_the_endpoints() {
    let recorder = Recorder::start().await;
    let routes = "routes:
  - { match: { path: /client }, public: true, upstream: api }
  - { match: { path: /endpoint }, public: true, upstream: api, host: upstream }
";
    let gateway = Gateway::start(&format!("{}{routes}", api(&recorder))).await;
    for (path, host) in [("/client", "a.TEST:81".to_owned()), ("/endpoint", recorder.address().to_string())] {
        recorder.forget();
        gateway.exchange(format!("GET {path} HTTP/1.1\r\nHost: a.TEST:81\r\n\r\n")).await;
        let request = recorder.only();
        assert_eq!((request.value("host"), request.value("x-forwarded-host")), (&*host, "a.TEST:81"));
    }
}

#[tokio::test]
async fn responses_lose_what_concerns_the_upstreams_connection_and_keep_the_rest() {
    let recorder = Recorder::answering(
        "HTTP/1.1 203 Whatever\r\nConnection: keep-alive, X-Private\r\nKeep-Alive: timeout=5\r\nX-Private: 1\r\n\
         Proxy-Authenticate: x\r\nUpgrade: h2c\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-Request-Id: theirs\r\n\
         Server: theirs\r\nContent-Type: text/x\r\nContent-Length: 2\r\n\r\nok",
    )
    .await;
    let gateway = Gateway::open(&recorder).await;
    let answer = gateway.get("/a", "").await;
    for name in ["keep-alive", "x-private", "proxy-authenticate", "upgrade", "connection"] {
        assert_eq!(answer.header(name), None, "{name}");
    }
    assert_eq!((answer.status, answer.values("set-cookie")), (203, vec!["a=1", "b=2"]));
    assert_eq!((answer.header("content-type"), answer.header("server")), (Some("text/x"), Some("theirs")));
    assert_eq!(answer.values("x-request-id"), [recorder.only().value("x-request-id")]);
}

#[tokio::test]
async fn hsts_is_sent_over_tls_only_on_answers_and_refusals() {
    let recorder = Recorder::start().await;
    let text = crate::setup::yaml(&format!(
        "{}routes: [{{ match: {{ path: /a }}, public: true, upstream: api }}]\n",
        api(&recorder)
    ))
    .replace("tls.key }] } }", "tls.key }] }, hsts: { max_age: 1h, include_subdomains: true } }");
    let gateway = Gateway::start_exactly(&text).await;
    for path in ["/a", "/none"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let mut wire = gateway.tls_wire().await;
        wire.send(&request).await;
        let answer = wire.answer().await.unwrap();
        assert_eq!(answer.values("strict-transport-security"), ["max-age=3600; includeSubDomains"], "{path}");
        assert_eq!(gateway.exchange(&request).await.header("strict-transport-security"), None);
    }
}

#[tokio::test]
async fn a_redirecting_listener_sends_everybody_to_https_and_forwards_nothing() {
    let recorder = Recorder::start().await;
    let text = crate::setup::yaml(&format!(
        "{}routes: [{{ match: {{ path: '/**' }}, public: true, upstream: api }}]\n",
        api(&recorder)
    ))
    .replace("plaintext: true", "redirect_to_https: true");
    let gateway = Gateway::start_exactly(&text).await;
    let port = gateway.tls.port();
    let answer = gateway.exchange("GET /a?b=c HTTP/1.1\r\nHost: a.test:80\r\n\r\n").await;
    assert_eq!(
        (answer.status, answer.header("location")),
        (308, Some(&*format!("https://a.test:{port}/a?b=c")))
    );
    for (bytes, status) in [
        ("POST /a HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhello", 308),
        ("GET /a HTTP/1.1\r\nHost: a.test/x\r\n\r\n", 400),
        ("GET /a HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n", 400),
        ("GET //evil.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n", 308),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a.test\r\n\r\n", 501),
    ] {
        let answer = gateway.exchange(bytes).await;
        assert_eq!(answer.status, status, "{bytes}");
        let location = answer.header("location").unwrap_or("https://a.test");
        assert!(location.starts_with("https://a.test"), "{location}");
    }
    // Anybody can say so.
    let lines = "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\n";
    assert_eq!(gateway.get("/a", lines).await.status, 308);
    recorder.assert_untouched("redirects");
}

#[tokio::test]
async fn what_came_to_a_trusted_proxy_by_https_is_not_sent_there_again() {
    let recorder = Recorder::start().await;
    let text = crate::setup::yaml(&format!(
        "{}routes: [{{ match: {{ path: '/**' }}, public: true, upstream: api }}]\n\
         forwarded: {{ trusted_proxies: [127.0.0.0/8] }}\n",
        api(&recorder)
    ))
    .replace("plaintext: true", "redirect_to_https: true");
    let gateway = Gateway::start_exactly(&text).await;
    let lines = |scheme: &str| format!("X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: {scheme}\r\n");
    assert_eq!(gateway.get("/a", &lines("http")).await.status, 308);
    recorder.assert_untouched("by HTTP");
    assert_eq!(gateway.get("/a", &lines("https")).await.status, 200);
    let request = recorder.only();
    assert_eq!((request.target(), request.value("x-forwarded-proto")), ("/a", "https"));
}
