//! Where one request ends and the next begins (RFC 9112): refused, or made unambiguous.
//!
//! The classes of CVE-2026-2833 and CVE-2026-2835 (pingora) and CVE-2025-64763 (Envoy), and of the smuggling
//! literature: CL.TE, TE.CL, TE.TE, CL.0, chunk tricks, upgrade smuggling.

use crate::recorder::Recorder;
use crate::setup::Gateway;
use crate::wire::{Wire, refused};

/// A request that must never arrive, as part of another's body or behind it.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: localhost\r\nX: x\r\n\r\n";

/// Each case on a connection of its own: refused with this reason, and the backend saw nothing.
async fn all_refused(cases: &[(&str, Vec<u8>, u16, &str)]) {
    let recorder = Recorder::start().await;
    let gateway = Gateway::open(&recorder).await;
    for over_tls in [false, true] {
        for (name, bytes, status, reason) in cases {
            let mut wire = if over_tls { gateway.tls_wire().await } else { gateway.wire().await };
            wire.send(bytes).await;
            let answer = wire.answer().await.unwrap_or_else(|| panic!("{name}: no answer"));
            assert_eq!(
                (answer.status, answer.problem()["reason"].as_str()),
                (*status, Some(*reason)),
                "{name}: {answer:?}"
            );
            // A host that is not ours leaves no doubt about where the next request begins; all else does.
            if answer.header("connection") == Some("close") {
                wire.assert_ends().await;
            } else {
                assert_eq!(*reason, "illegal_target", "{name}: the connection stays open");
            }
            recorder.assert_untouched(name);
        }
    }
}

fn post(lines: &str, body: &str) -> Vec<u8> {
    format!("POST /a HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n{body}").into_bytes()
}

fn get(lines: &str) -> Vec<u8> {
    format!("GET /a HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n").into_bytes()
}

#[tokio::test]
async fn contradicting_or_odd_lengths_and_codings_are_refused_and_reach_nobody() {
    let smuggled = SMUGGLED;
    let length = smuggled.len();
    let te = |line: &str| post(line, &format!("0\r\n\r\n{smuggled}"));
    let cl = |line: &str| post(line, smuggled);
    let mut cases: Vec<(&str, Vec<u8>, u16, &str)> = Vec::new();
    for (name, lines) in [
        // CVE-2026-2835, pingora#945
        ("CL.TE", format!("Content-Length: {}\r\nTransfer-Encoding: chunked\r\n", length + 5)),
        ("TE.CL", "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n".to_owned()),
        ("TE.TE", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n".to_owned()),
        ("TE.TE, odd first", "Transfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n".to_owned()),
        ("chunked twice", "Transfer-Encoding: chunked, chunked\r\n".to_owned()),
        ("gzip before chunked", "Transfer-Encoding: gzip, chunked\r\n".to_owned()),
        ("chunked before identity", "Transfer-Encoding: chunked, identity\r\n".to_owned()),
        ("identity", "Transfer-Encoding: identity\r\n".to_owned()),
        ("xchunked", "Transfer-Encoding: xchunked\r\n".to_owned()),
        ("quoted", "Transfer-Encoding: \"chunked\"\r\n".to_owned()),
        ("tab before chunked", "Transfer-Encoding:\tchunked\r\n".to_owned()),
        ("space behind chunked", "Transfer-Encoding: chunked \r\n".to_owned()),
        ("parameter", "Transfer-Encoding: chunked;a=b\r\n".to_owned()),
        ("comma", "Transfer-Encoding: ,chunked\r\n".to_owned()),
        ("underscore alias", "Transfer_Encoding: chunked\r\n".to_owned()),
        ("empty coding", "Transfer-Encoding:\r\nContent-Length: 4\r\n".to_owned()),
    ] {
        cases.push((name, te(&lines), 400, "ambiguous_framing"));
    }
    for (name, lines) in [
        ("two equal lengths", format!("Content-Length: {length}\r\nContent-Length: {length}\r\n")),
        ("two lengths", format!("Content-Length: 0\r\nContent-Length: {length}\r\n")),
        ("length list", format!("Content-Length: 0, {length}\r\n")),
        ("equal length list", format!("Content-Length: {length}, {length}\r\n")),
        ("length with plus", format!("Content-Length: +{length}\r\n")),
        ("negative length", "Content-Length: -1\r\n".to_owned()),
        ("hexadecimal length", "Content-Length: 0x10\r\n".to_owned()),
        ("octal-looking length", "Content-Length: 010\r\n".to_owned()),
        ("length with underscore", "Content-Length: 1_0\r\n".to_owned()),
        ("length with space inside", "Content-Length: 1 0\r\n".to_owned()),
        ("length with trailing tab", "Content-Length: 10\t\r\n".to_owned()),
        ("length beyond 64 bits", "Content-Length: 18446744073709551617\r\n".to_owned()),
        ("empty length", "Content-Length: \r\n".to_owned()),
        ("length alias", format!("Content_Length: {length}\r\n")),
    ] {
        cases.push((name, cl(&lines), 400, "ambiguous_framing"));
    }
    for (name, lines) in [
        ("space before the colon of a coding", "Transfer-Encoding : chunked\r\n"),
        ("tab before the colon of a coding", "Transfer-Encoding\t: chunked\r\n"),
        ("vertical tab", "Transfer-Encoding: \x0bchunked\r\n"),
        ("NUL in the name", "Transfer-Encoding\0: chunked\r\n"),
        ("folded before the coding", "X: x\r\n Transfer-Encoding: chunked\r\n"),
        ("CR hides a coding", "X: x\rTransfer-Encoding: chunked\r\n"),
        ("length with space before colon", "Content-Length : 5\r\n"),
    ] {
        cases.push((name, te(lines), 400, "illegal_header"));
    }
    for (name, lines) in [
        ("LF hides a coding", "X: x\nTransfer-Encoding: chunked\r\n"),
        ("LF behind a coding", "Transfer-Encoding: chunked\n"),
    ] {
        cases.push((name, te(lines), 400, "malformed_request"));
    }
    all_refused(&cases).await;
}

#[tokio::test]
async fn malformed_heads_are_refused_and_reach_nobody() {
    let line = |line: &str| format!("{line}\r\nHost: localhost\r\n\r\n").into_bytes();
    let cases: Vec<(&str, Vec<u8>, u16, &str)> = vec![
        ("HTTP/0.9", b"GET /a\r\n\r\n".to_vec(), 505, "version"),
        ("HTTP/1.2", line("GET /a HTTP/1.2"), 505, "version"),
        ("HTTP/2.0", line("GET /a HTTP/2.0"), 505, "version"),
        ("lower-case protocol", line("GET /a http/1.1"), 400, "malformed_request"),
        ("leading CRLF", [b"\r\n".to_vec(), line("GET /a HTTP/1.1")].concat(), 400, "malformed_request"),
        ("bare LF", b"GET /a HTTP/1.1\nHost: localhost\n\n".to_vec(), 400, "malformed_request"),
        ("two spaces", line("GET  /a HTTP/1.1"), 400, "malformed_request"),
        ("tab", line("GET\t/a\tHTTP/1.1"), 400, "malformed_request"),
        ("space in the target", line("GET /a b HTTP/1.1"), 400, "malformed_request"),
        ("NUL in the method", line("G\0T /a HTTP/1.1"), 400, "malformed_request"),
        ("CR in the target", line("GET /a\rb HTTP/1.1"), 400, "malformed_request"),
        ("header folded", get("X: a\r\n b\r\n"), 400, "illegal_header"),
        ("header folded by tab", get("X: a\r\n\tb\r\n"), 400, "illegal_header"),
        ("space before colon", get("X : a\r\n"), 400, "illegal_header"),
        ("no colon", get("X\r\n"), 400, "illegal_header"),
        ("no name", get(": a\r\n"), 400, "illegal_header"),
        ("space in the name", get("X Y: a\r\n"), 400, "illegal_header"),
        ("NUL in a value", get("X: a\0b\r\n"), 400, "illegal_header"),
        ("CR in a value", get("X: a\rb\r\n"), 400, "illegal_header"),
        ("DEL in a value", get("X: a\x7f\r\n"), 400, "illegal_header"),
        (
            "first header folded",
            b"GET /a HTTP/1.1\r\n Host: localhost\r\n\r\n".to_vec(),
            400,
            "illegal_header",
        ),
        ("no Host", b"GET /a HTTP/1.1\r\n\r\n".to_vec(), 400, "illegal_target"),
        ("no Host in HTTP/1.0", b"GET /a HTTP/1.0\r\n\r\n".to_vec(), 400, "illegal_target"),
        ("two Hosts", get("Host: b.test\r\n"), 400, "illegal_target"),
        ("two equal Hosts", get("Host: localhost\r\n"), 400, "illegal_target"),
        ("Host list", b"GET /a HTTP/1.1\r\nHost: a, b\r\n\r\n".to_vec(), 400, "illegal_target"),
        ("Host with user", b"GET /a HTTP/1.1\r\nHost: u@a\r\n\r\n".to_vec(), 400, "illegal_target"),
        ("Host with path", b"GET /a HTTP/1.1\r\nHost: a/b\r\n\r\n".to_vec(), 400, "illegal_target"),
        ("empty Host", b"GET /a HTTP/1.1\r\nHost:\r\n\r\n".to_vec(), 400, "illegal_target"),
        ("absolute target against Host", line("GET http://other.test/a HTTP/1.1"), 400, "illegal_target"),
        ("absolute target with user", line("GET http://u@localhost/a HTTP/1.1"), 400, "illegal_target"),
        ("absolute target, port differs", line("GET http://localhost:81/a HTTP/1.1"), 400, "illegal_target"),
        ("file target", line("GET file:///etc/passwd HTTP/1.1"), 400, "illegal_target"),
        ("no slash", line("GET a HTTP/1.1"), 400, "illegal_target"),
        ("asterisk with GET", line("GET * HTTP/1.1"), 400, "illegal_target"),
        ("CONNECT", line("CONNECT localhost:443 HTTP/1.1"), 501, "method"),
        (
            "HTTP/1.0 with a coding",
            b"POST /a HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_vec(),
            400,
            "ambiguous_framing",
        ),
        (
            "TLS to the HTTP parser",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc".to_vec(),
            400,
            "malformed_request",
        ),
        (
            "PROXY protocol",
            [b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n".to_vec(), get("")].concat(),
            400,
            "malformed_request",
        ),
    ];
    all_refused(&cases).await;
}

#[tokio::test]
async fn trace_and_other_tunnels_are_not_carried() {
    let recorder = Recorder::start().await;
    let gateway = Gateway::open(&recorder).await;
    let answer = gateway.exchange("TRACE /a HTTP/1.1\r\nHost: localhost\r\nCookie: secret\r\n\r\n").await;
    refused(&answer, 501, "VAL-047", "method");
    assert!(!String::from_utf8_lossy(&answer.body).contains("secret"));
    recorder.assert_untouched("TRACE");
}

/// A bad chunked body that comes together with its head reaches nobody. If the head came first it is forwarded before
/// the body is seen: then the backend gets a request that never ends, but neither a complete one nor a second one.
#[tokio::test]
async fn a_malformed_chunked_body_is_never_a_complete_request() {
    let cases = [
        ("size with 0x", "0x5\r\nhello\r\n0\r\n\r\n"),
        ("size with sign", "+5\r\nhello\r\n0\r\n\r\n"),
        ("space before size", " 5\r\nhello\r\n0\r\n\r\n"),
        ("space behind size", "5 \r\nhello\r\n0\r\n\r\n"),
        ("LF behind size", "5\nhello\r\n0\r\n\r\n"),
        ("CR CR LF behind size", "5\r\r\nhello\r\n0\r\n\r\n"),
        ("LF in an extension", "5;a\nhello\r\n0\r\n\r\n"),
        ("CR in an extension", "5;a\rb\r\nhello\r\n0\r\n\r\n"),
        ("chunk longer than its size", "5\r\nhello!\r\n0\r\n\r\n"),
        ("chunk ends in LF", "5\r\nhello\n0\r\n\r\n"),
        ("chunk without end", "5\r\nhello0\r\n\r\n"),
        ("LF behind the last chunk", "0\n\n"),
        ("size that wraps 64 bits", "10000000000000005\r\nhello\r\n0\r\n\r\n"),
        ("negative size", "-1\r\nhello\r\n0\r\n\r\n"),
        ("no size", "\r\nhello\r\n0\r\n\r\n"),
        ("trailer with a coding", "0\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("trailer with a length", "0\r\nContent-Length: 5\r\n\r\n"),
        ("trailer with a credential", "0\r\nAuthorization: Bearer x\r\n\r\n"),
        ("folded trailer", "0\r\nX: a\r\n b\r\n\r\n"),
    ];
    let head = "POST /a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    for head_first in [false, true] {
        let recorder = Recorder::start().await;
        let gateway = Gateway::open(&recorder).await;
        for (place, (name, body)) in cases.iter().enumerate() {
            let mut wire = gateway.wire().await;
            if head_first {
                wire.send(head).await;
                recorder.wait_for("the head", |request| request.connection == place).await;
                wire.send(format!("{body}{SMUGGLED}")).await;
            } else {
                wire.send(format!("{head}{body}{SMUGGLED}")).await;
            }
            let answer = wire.answer().await.unwrap_or_else(|| panic!("{name}: no answer"));
            let code = answer.problem()["code"].as_str().map(str::to_owned);
            assert_eq!((answer.status, code.as_deref()), (400, Some("VAL-042")), "{name}: {answer:?}");
            wire.assert_ends().await;
            if !head_first {
                recorder.assert_untouched(name);
            }
        }
        let requests = recorder.requests();
        assert!(requests.iter().all(|request| request.target() == "/a" && !request.complete), "{requests:?}");
    }
}

#[tokio::test]
async fn what_is_lenient_but_safe_arrives_as_one_plain_request() {
    for (name, bytes, line, body) in [
        ("plain", get(""), "GET /a HTTP/1.1", ""),
        ("HTTP/1.0", b"GET /a HTTP/1.0\r\nHost: localhost\r\n\r\n".to_vec(), "GET /a HTTP/1.1", ""),
        (
            "absolute target that agrees",
            b"GET http://LOCALHOST/a?b=http://x/ HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
            "GET /a?b=http://x/ HTTP/1.1",
            "",
        ),
        ("length 0", post("Content-Length: 0\r\n", ""), "POST /a HTTP/1.1", ""),
        ("length", post("content-LENGTH:5\r\n", "hello"), "POST /a HTTP/1.1", "hello"),
        (
            "chunks with extension and trailer",
            post("Transfer-Encoding: Chunked\r\n", "5;a=\"b\"\r\nhello\r\n001\r\n!\r\n0\r\nX-Sum: 1\r\n\r\n"),
            "POST /a HTTP/1.1",
            "hello!",
        ),
        ("GET with length", get("Content-Length: 5\r\n"), "GET /a HTTP/1.1", "hello"),
        ("GET with chunks", get("Transfer-Encoding: chunked\r\n"), "GET /a HTTP/1.1", "hello"),
        ("unknown method", b"PURGE /a HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(), "PURGE /a HTTP/1.1", ""),
        ("UTF-8 in a value", get("User-Agent: caf\u{e9}\r\n"), "GET /a HTTP/1.1", ""),
    ] {
        let recorder = Recorder::start().await;
        let gateway = Gateway::open(&recorder).await;
        let bytes = match name {
            "GET with length" => [bytes, b"hello".to_vec()].concat(),
            "GET with chunks" => [bytes, b"5\r\nhello\r\n0\r\n\r\n".to_vec()].concat(),
            _ => bytes,
        };
        let answer = gateway.exchange(&bytes).await;
        assert_eq!(answer.status, 200, "{name}: {answer:?}");
        let request = recorder.only();
        assert_eq!((&*request.line, &*request.body), (line, body.as_bytes()), "{name}");
        assert!(request.complete, "{name}");
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_turn_up_to_the_bad_one() {
    let recorder = Recorder::start().await;
    let gateway = Gateway::open(&recorder).await;
    let mut wire = gateway.wire().await;
    let good = "GET /first HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let bad = "POST /second HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    wire.send(format!("{good}{bad}{SMUGGLED}")).await;
    let first = wire.answer().await.unwrap();
    assert_eq!((first.status, &*first.body), (200, &b"ok"[..]));
    refused(&wire.answer().await.unwrap(), 400, "VAL-042", "ambiguous_framing");
    wire.assert_ends().await;
    assert_eq!(recorder.only().target(), "/first");
}

#[tokio::test]
async fn pipelined_good_requests_are_all_answered_in_order() {
    let recorder = Recorder::scripted(|mut conn| async move {
        while let Some(request) = conn.request().await {
            let target = request.target().to_owned();
            conn.send(
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{target}", target.len()).as_bytes(),
            )
            .await;
        }
    })
    .await;
    let gateway = Gateway::open(&recorder).await;
    let mut wire = gateway.wire().await;
    let requests: String = (0..20)
        .map(|n| format!("POST /{n} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 35\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"))
        .collect();
    wire.send(requests).await;
    for n in 0..20 {
        let answer = wire.answer().await.unwrap();
        assert_eq!(String::from_utf8(answer.body).unwrap(), format!("/{n}"));
    }
    assert_eq!(recorder.requests().len(), 20);
    assert!(recorder.requests().iter().all(|request| request.line.starts_with("POST /")));
}

/// An upgrade that the gateway does not make must not turn what follows into a tunnel (h2c smuggling).
#[tokio::test]
async fn an_h2c_upgrade_is_not_passed_on_and_opens_no_tunnel() {
    let recorder = Recorder::start().await;
    let gateway = Gateway::open(&recorder).await;
    for lines in [
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
        "Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
        "Connection: X\r\nUpgrade: h2c\r\n",
    ] {
        let mut wire = gateway.wire().await;
        wire.send(get(lines)).await;
        assert_eq!(wire.answer().await.unwrap().status, 200);
        let request = recorder.only();
        for name in ["upgrade", "http2-settings", "connection"] {
            assert!(!request.has(name), "{name} in {request:?}");
        }
        wire.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        refused(&wire.answer().await.unwrap(), 400, "VAL-042", "malformed_request");
        recorder.only();
        recorder.forget();
    }
}

#[tokio::test]
async fn expect_is_answered_by_the_gateway_or_refused() {
    let recorder = Recorder::start().await;
    let gateway = Gateway::open(&recorder).await;
    for value in ["200-ok", "100-continue, x", "100-continue;q=1", "\"100-continue\""] {
        let answer = gateway.exchange(post(&format!("Expect: {value}\r\nContent-Length: 5\r\n"), "")).await;
        refused(&answer, 417, "VAL-047", "expectation");
        recorder.assert_untouched(value);
    }
    let mut wire = gateway.wire().await;
    wire.send(post("Expect: 100-Continue\r\nContent-Length: 5\r\n", "")).await;
    assert_eq!(wire.head().await.unwrap().status, 100);
    wire.send("hello").await;
    assert_eq!(wire.answer().await.unwrap().status, 200);
    let request = recorder.only();
    assert_eq!(request.body, b"hello");
    assert!(!request.has("expect"));
}

/// A client that was refused must not be invited to send its body.
#[tokio::test]
async fn a_refused_request_gets_no_100_continue() {
    let recorder = Recorder::start().await;
    let routes = "routes: [{ match: { path: /a, methods: [GET] }, public: true, upstream: api }]\n";
    let gateway = Gateway::start(&format!("{}{routes}", crate::setup::api(&recorder))).await;
    let answer = gateway.exchange(post("Expect: 100-continue\r\nContent-Length: 5\r\n", "")).await;
    refused(&answer, 405, "VAL-041", "method_not_allowed");
    recorder.assert_untouched("refused");
}

/// The refusal arrives although the client is still sending, and what it sends is not taken for a request.
#[tokio::test]
async fn a_refusal_is_readable_behind_an_unread_body() {
    let recorder = Recorder::start().await;
    let routes = "routes: [{ match: { path: /b }, public: true, upstream: api }]\n";
    let gateway = Gateway::start(&format!("{}{routes}", crate::setup::api(&recorder))).await;
    for over_tls in [false, true] {
        let mut wire: Wire = if over_tls { gateway.tls_wire().await } else { gateway.wire().await };
        wire.send(post("Content-Length: 1000000\r\n", "")).await;
        wire.send(SMUGGLED.repeat(1_000_000 / SMUGGLED.len())).await;
        refused(&wire.answer().await.unwrap(), 404, "VAL-040", "no_route");
    }
    recorder.assert_untouched("the body");
}

/// A client that believes the connection persistent would lose its next request with it (RFC 9112 section 9.6).
#[tokio::test]
async fn a_connection_outlives_a_refused_body_or_says_that_it_does_not() {
    let recorder = Recorder::start().await;
    let routes = "routes: [{ match: { path: /a, methods: [GET] }, public: true, upstream: api }]\n";
    let gateway = Gateway::start(&format!("{}{routes}", crate::setup::api(&recorder))).await;
    let long = format!("Content-Length: {}\r\n", 4 * 1024 * 1024 + 1);
    for (what, fields, body, goes_on) in [
        ("short", "Content-Length: 100000\r\n", "x".repeat(100_000), true),
        ("empty", "Content-Length: 0\r\n", String::new(), true),
        ("long", &long, "x".repeat(100), false),
        ("of unknown length", "Transfer-Encoding: chunked\r\n", "1\r\nx\r\n0\r\n\r\n".to_owned(), false),
        ("not asked for", "Expect: 100-continue\r\nContent-Length: 1\r\n", String::new(), false),
    ] {
        let mut wire = gateway.wire().await;
        wire.send(post(fields, "")).await;
        wire.send(body).await;
        let answer = wire.answer().await.unwrap();
        refused(&answer, 405, "VAL-041", "method_not_allowed");
        assert_eq!(answer.header("connection"), (!goes_on).then_some("close"), "{what}");
        if goes_on {
            wire.send("GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
            assert_eq!(wire.answer().await.unwrap().status, 200, "{what}");
        }
    }
    assert!(
        recorder.requests().iter().all(|request| request.line.starts_with("GET")),
        "a refused body passed"
    );
}
