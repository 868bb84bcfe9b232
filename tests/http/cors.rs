//! Cross-origin requests: what a browser is told, judged as a browser would (the Fetch standard), and what of it all
//! reaches the backend.

use crate::recorder::Recorder;
use crate::setup::{Gateway, api};
use crate::wire::Answer;

const ANSWER: &str = "HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: https://theirs.test\r\n\
    Access-Control-Allow-Credentials: true\r\nVary: Accept-Encoding\r\nContent-Length: 2\r\n\r\nok";

/// An API that has CORS headers of its own, behind routes that want a token (which nobody has) or none.
async fn gateway(recorder: &Recorder) -> Gateway {
    Gateway::start(&format!(
        "{}issuers:
  - name: main
    issuer: https://id.test/
    keys: {{ inline: {{ keys: [{{ kty: OKP, crv: Ed25519, kid: k1, x: 11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo }}] }} }}
    audiences: [orders-api]
routes:
  - match: {{ path: /orders, methods: [GET, PUT] }}
    require: {{ issuers: [main] }}
    upstream: api
    cors: {{ allow_origins: [https://app.test, 'https://*.pages.test'], expose_headers: [ETag], max_age: 1h }}
  - match: {{ path: /open }}
    public: true
    upstream: api
    cors: {{ allow_origins: [https://app.test], credentials: true }}
  - match: {{ path: /everybody }}
    public: true
    upstream: api
    cors: {{ allow_origins: ['*'] }}
  - match: {{ path: /theirs }}
    require: {{ issuers: [main] }}
    forward_token: true
    upstream: api
    cors: {{ allow_origins: [https://app.test], preflight: forward }}
  - match: {{ path: /cookie }}
    require: {{ issuers: [main] }}
    token_from: {{ cookie: token }}
    upstream: api
    cors: {{ allow_origins: [https://app.test], credentials: true }}
  - match: {{ path: /none }}
    require: {{ issuers: [main] }}
    upstream: api
",
        api(recorder)
    ))
    .await
}

async fn preflight(gateway: &Gateway, path: &str, origin: &str, lines: &str) -> Answer {
    gateway
        .exchange(format!(
            "OPTIONS {path} HTTP/1.1\r\nHost: localhost\r\nOrigin: {origin}\r\nAccess-Control-Request-Method: GET\r\n\
             Access-Control-Request-Headers: authorization\r\n{lines}\r\n"
        ))
        .await
}

fn allowed(answer: &Answer) -> Vec<&str> {
    answer.values("access-control-allow-origin")
}

#[tokio::test]
async fn preflights_are_answered_without_a_token_and_never_reach_the_api() {
    let recorder = Recorder::answering(ANSWER).await;
    let gateway = gateway(&recorder).await;
    for origin in ["https://app.test", "https://a.b.pages.test"] {
        let answer = preflight(&gateway, "/orders", origin, "").await;
        assert_eq!((answer.status, &*answer.body), (204, &b""[..]));
        assert_eq!(allowed(&answer), [origin]);
        assert_eq!(answer.values("access-control-allow-methods"), ["GET, PUT"]);
        assert_eq!(answer.values("access-control-allow-headers"), ["authorization, content-type"]);
        assert_eq!(answer.values("access-control-max-age"), ["3600"]);
        assert_eq!(answer.values("vary"), ["Origin"]);
        assert_eq!(answer.header("access-control-allow-credentials"), None);
    }
    for origin in
        ["https://evil.test", "http://app.test", "https://pages.test", "null", "https://app.test.evil"]
    {
        let answer = preflight(&gateway, "/orders", origin, "").await;
        assert_eq!(
            (answer.verdict().as_str(), allowed(&answer)),
            ("VAL-031 origin_not_allowed", vec![]),
            "{origin}"
        );
    }
    recorder.assert_untouched("preflights are the gateway's");
}

/// What only looks like a preflight is a request like any other.
#[tokio::test]
async fn nothing_but_a_preflight_goes_without_a_token() {
    let recorder = Recorder::answering(ANSWER).await;
    let gateway = gateway(&recorder).await;
    let origin = "Origin: https://app.test\r\n";
    let asks = "Access-Control-Request-Method: GET\r\n";
    for (line, lines) in [
        ("GET /theirs", format!("{origin}{asks}")),
        ("OPTIONS /theirs", origin.to_owned()),
        ("OPTIONS /theirs", asks.to_owned()),
        ("OPTIONS /theirs", format!("{origin}{asks}{asks}")),
        ("OPTIONS /theirs", format!("{origin}{asks}Content-Length: 1\r\n")),
        ("OPTIONS /theirs", format!("{origin}{asks}Transfer-Encoding: chunked\r\n")),
        ("OPTIONS /none", format!("{origin}{asks}")),
    ] {
        let answer = gateway.exchange(format!("{line} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\na")).await;
        assert_eq!(answer.verdict(), "VAL-010 missing", "{line} {lines}");
    }
    recorder.assert_untouched("no token was sent");
}

#[tokio::test]
async fn a_forwarded_preflight_carries_no_credential() {
    let recorder = Recorder::answering(ANSWER).await;
    let gateway = gateway(&recorder).await;
    let smuggled = "Authorization: Bearer forged\r\nCookie: token=forged\r\nX-Forwarded-For: 6.6.6.6\r\n";
    let answer = preflight(&gateway, "/theirs", "https://any.test", smuggled).await;
    assert_eq!((answer.status, allowed(&answer)), (200, vec!["https://theirs.test"]), "as the API says");
    let request = recorder.only();
    assert_eq!(request.line, "OPTIONS /theirs HTTP/1.1");
    assert_eq!(request.value("origin"), "https://any.test");
    assert!(!String::from_utf8(recorder.raw().concat()).unwrap().contains("forged"), "{request:?}");
}

#[tokio::test]
async fn a_page_can_read_why_it_was_refused() {
    let recorder = Recorder::answering(ANSWER).await;
    let gateway = gateway(&recorder).await;
    for path in ["/orders", "/theirs"] {
        let answer = gateway.get(path, "Origin: https://app.test\r\n").await;
        assert_eq!(answer.verdict(), "VAL-010 missing");
        assert_eq!(allowed(&answer), ["https://app.test"]);
        let exposed = answer.header("access-control-expose-headers").unwrap();
        assert!(exposed.contains("www-authenticate") && exposed.contains("x-request-id"), "{exposed}");
        assert_eq!(answer.values("vary"), ["Accept", "Origin"]);
        let other = gateway.get(path, "Origin: https://evil.test\r\n").await;
        assert_eq!((allowed(&other), other.values("vary")), (vec![], vec!["Accept", "Origin"]));
    }
    let two = gateway.get("/orders", "Origin: https://app.test\r\nOrigin: https://evil.test\r\n").await;
    assert_eq!(allowed(&two), Vec::<&str>::new());
    recorder.assert_untouched("no token was sent");
}

#[tokio::test]
async fn the_apis_own_headers_are_replaced_not_doubled() {
    let recorder = Recorder::answering(ANSWER).await;
    let gateway = gateway(&recorder).await;
    let answer = gateway.get("/open", "Origin: https://app.test\r\n").await;
    assert_eq!(allowed(&answer), ["https://app.test"]);
    assert_eq!(answer.values("access-control-allow-credentials"), ["true"]);
    assert_eq!(answer.values("vary"), ["Accept-Encoding", "Origin"]);
    let other = gateway.get("/open", "Origin: https://theirs.test\r\n").await;
    assert_eq!((other.status, allowed(&other)), (200, vec![]), "not by the operator's word");
    assert_eq!(other.values("access-control-allow-credentials"), Vec::<&str>::new());
    let everybody = gateway.get("/everybody", "Origin: https://x.test\r\n").await;
    assert_eq!((allowed(&everybody), everybody.values("vary")), (vec!["*"], vec!["Accept-Encoding"]));
    assert_eq!(everybody.values("access-control-allow-credentials"), Vec::<&str>::new());
}

/// With `credentials`, a listed page may use the cookie; the token itself is still checked.
#[tokio::test]
async fn a_listed_page_may_send_the_cookie_and_no_other_may() {
    let recorder = Recorder::answering(ANSWER).await;
    let gateway = gateway(&recorder).await;
    for (origin, verdict) in
        [("https://app.test", "VAL-020 malformed"), ("https://evil.test", "VAL-031 cross_origin")]
    {
        let lines = format!("Origin: {origin}\r\nSec-Fetch-Site: cross-site\r\nCookie: token=a.b.c\r\n");
        let answer = gateway
            .exchange(format!("POST /cookie HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n{lines}\r\n"))
            .await;
        assert_eq!(answer.verdict(), verdict);
    }
    recorder.assert_untouched("no good token was sent");
}

/// A page shall see why it was refused, whichever step did it, where host and path lead to a route that lets it read.
#[tokio::test]
async fn refusals_before_the_route_is_known_can_be_read_too() {
    let recorder = Recorder::answering(ANSWER).await;
    let gateway = gateway(&recorder).await;
    let (ours, evil) = ("Origin: https://app.test\r\n", "Origin: https://evil.test\r\n");
    for (line, lines, verdict, readable) in [
        ("DELETE /orders", ours.to_owned(), "VAL-041 method_not_allowed", true),
        ("DELETE /orders", evil.to_owned(), "VAL-041 method_not_allowed", false),
        ("GET /nowhere", ours.to_owned(), "VAL-040 no_route", false),
        ("GET /a/../orders", ours.to_owned(), "VAL-042 ambiguous_path", false),
        ("GET /orders", format!("{ours}Expect: wonders\r\n"), "VAL-047 expectation", true),
        ("GET /orders", format!("{ours}{evil}Expect: wonders\r\n"), "VAL-047 expectation", false),
    ] {
        let answer = gateway.exchange(format!("{line} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n")).await;
        assert_eq!(answer.verdict(), verdict, "{line} {lines}");
        let expected: &[&str] = if readable { &["https://app.test"] } else { &[] };
        assert_eq!(allowed(&answer), expected, "{line} {lines}");
    }
    recorder.assert_untouched("refusals");
}
