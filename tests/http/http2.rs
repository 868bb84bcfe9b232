//! HTTP/2 (RFC 9113): what its frames could carry that HTTP/1.1 behind it would read in another way.

use crate::h2wire::{CONTINUATION, DATA, END_HEADERS, END_STREAM, H2, HEADERS, Outcome, block, get};
use crate::recorder::Recorder;
use crate::setup::Gateway;
use crate::wire::refused;

type Fields = Vec<(&'static str, &'static str)>;

/// A GET of `/a` with these fields behind, or in place of, its own.
fn with(fields: &[(&'static str, &'static str)]) -> Fields {
    let mut all = get("/a");
    for field in fields {
        match all.iter_mut().find(|(name, _)| *name == field.0 && name.starts_with(':')) {
            Some(known) => known.1 = field.1,
            None => all.push(*field),
        }
    }
    all
}

fn without(name: &str) -> Fields {
    get("/a").into_iter().filter(|(n, _)| *n != name).collect()
}

#[tokio::test]
async fn a_plain_request_arrives_as_one_plain_request() {
    let recorder = Recorder::start().await;
    let gateway = Gateway::open(&recorder).await;
    for over_tls in [false, true] {
        recorder.forget();
        let mut h2 = if over_tls { H2::tls(gateway.tls).await } else { H2::plain(gateway.plain).await };
        let answer = h2.request(1, &get("/a?b=c")).await.answer();
        assert_eq!((answer.status, &*answer.body), (200, &b"ok"[..]));
        let fields = [(":method", "POST"), (":scheme", "http"), (":authority", "localhost"), (":path", "/b")];
        let answer = h2.request_with_body(3, &fields, b"hello").await.answer();
        assert_eq!(answer.status, 200);
        let requests = recorder.requests();
        assert_eq!(requests[0].line, "GET /a?b=c HTTP/1.1");
        assert_eq!(requests[0].value("host"), "localhost");
        assert_eq!((&*requests[1].line, &*requests[1].body), ("POST /b HTTP/1.1", &b"hello"[..]));
    }
}

#[tokio::test]
async fn the_body_of_a_get_arrives_with_or_without_a_length() {
    let recorder = Recorder::start().await;
    let gateway = Gateway::open(&recorder).await;
    for fields in [get("/a"), with(&[("content-length", "5")])] {
        recorder.forget();
        let mut h2 = H2::plain(gateway.plain).await;
        assert_eq!(h2.request_with_body(1, &fields, b"hello").await.answer().status, 200);
        let request = recorder.only();
        assert_eq!(
            (&*request.line, &*request.body, request.complete),
            ("GET /a HTTP/1.1", &b"hello"[..], true)
        );
    }
}

/// Request splitting by HTTP/2 downgrade, pseudo-header tricks, connection-specific fields: refused by status or by
/// a stream error, and the backend saw nothing.
#[tokio::test]
async fn what_http1_would_read_in_another_way_is_refused_and_reaches_nobody() {
    let recorder = Recorder::start().await;
    let gateway = Gateway::open(&recorder).await;
    let cases: Vec<(&str, Fields)> = vec![
        ("CRLF in a value", with(&[("x", "a\r\nTransfer-Encoding: chunked")])),
        ("LF in a value", with(&[("x", "a\nx: b")])),
        ("CR in a value", with(&[("x", "a\rb")])),
        ("NUL in a value", with(&[("x", "a\0b")])),
        ("CRLF in a name", with(&[("x: a\r\ntransfer-encoding", "chunked")])),
        ("colon in a name", with(&[("x:", "a")])),
        ("space in a name", with(&[("x y", "a")])),
        ("upper case in a name", with(&[("X-Upper", "a")])),
        ("empty name", with(&[("", "a")])),
        ("connection", with(&[("connection", "close")])),
        ("transfer-encoding", with(&[("transfer-encoding", "chunked")])),
        ("upgrade", with(&[("upgrade", "h2c")])),
        ("keep-alive", with(&[("keep-alive", "timeout=5")])),
        ("proxy-connection", with(&[("proxy-connection", "keep-alive")])),
        ("te other than trailers", with(&[("te", "gzip")])),
        ("CRLF in the path", with(&[(":path", "/a HTTP/1.1\r\nX: b")])),
        ("space in the path", with(&[(":path", "/a b")])),
        ("no slash in the path", with(&[(":path", "a")])),
        ("URL as path", with(&[(":path", "http://localhost/a")])),
        ("empty path", with(&[(":path", "")])),
        ("asterisk with GET", with(&[(":path", "*")])),
        ("no path", without(":path")),
        ("no method", without(":method")),
        ("no scheme", without(":scheme")),
        ("no authority and no host", without(":authority")),
        ("space in the method", with(&[(":method", "GET /smuggled HTTP/1.1\r\nX:")])),
        ("empty method", with(&[(":method", "")])),
        ("CRLF in the scheme", with(&[(":scheme", "http\r\nX: a")])),
        ("URL in the scheme", with(&[(":scheme", "http://localhost/smuggled?")])),
        ("CRLF in the authority", with(&[(":authority", "localhost\r\nX: a")])),
        ("user in the authority", with(&[(":authority", "u@localhost")])),
        ("path in the authority", with(&[(":authority", "localhost/x")])),
        ("empty authority", with(&[(":authority", "")])),
        ("host against authority", with(&[("host", "other.test")])),
        ("two hosts", with(&[("host", "localhost"), ("host", "localhost")])),
        ("a second path", [get("/a"), vec![(":path", "/b")]].concat()),
        ("a second method", [get("/a"), vec![(":method", "POST")]].concat()),
        ("a second authority", [get("/a"), vec![(":authority", "other.test")]].concat()),
        ("pseudo-header behind a field", [vec![("x", "a")], get("/a")].concat()),
        ("unknown pseudo-header", with(&[(":x", "a")])),
        ("status in a request", with(&[(":status", "200")])),
        ("protocol without extended CONNECT", with(&[(":protocol", "websocket")])),
        ("CONNECT", vec![(":method", "CONNECT"), (":authority", "localhost:443")]),
        ("CONNECT with a path", with(&[(":method", "CONNECT")])),
        ("TRACE", with(&[(":method", "TRACE")])),
        ("two lengths", with(&[("content-length", "0"), ("content-length", "5")])),
        ("two equal lengths", with(&[("content-length", "0"), ("content-length", "0")])),
        ("length with plus", with(&[("content-length", "+0")])),
        ("length list", with(&[("content-length", "0, 0")])),
        ("empty length", with(&[("content-length", "")])),
        ("length without body", with(&[("content-length", "5")])),
        ("unknown expectation", with(&[("expect", "200-ok")])),
    ];
    for over_tls in [false, true] {
        for (name, fields) in &cases {
            let mut h2 = if over_tls { H2::tls(gateway.tls).await } else { H2::plain(gateway.plain).await };
            let outcome = h2.request(1, fields).await;
            assert!(outcome.is_refusal(), "{name}: {outcome:?}");
            recorder.assert_untouched(name);
        }
    }
    // None of it has harmed the gateway.
    assert_eq!(H2::plain(gateway.plain).await.request(1, &get("/a")).await.answer().status, 200);
}

#[tokio::test]
async fn refusals_name_the_cause_where_http2_still_allows_a_response() {
    let recorder = Recorder::start().await;
    let gateway = Gateway::open(&recorder).await;
    for (fields, status, code, reason) in [
        (with(&[(":method", "TRACE")]), 501, "VAL-047", "method"),
        (with(&[("expect", "x")]), 417, "VAL-047", "expectation"),
        (with(&[("host", "other.test")]), 400, "VAL-042", "illegal_target"),
        (with(&[(":authority", "u@localhost")]), 400, "VAL-042", "illegal_target"),
        (with(&[("content-length", "0"), ("content-length", "0")]), 400, "VAL-042", "ambiguous_framing"),
        (with(&[(":path", "/a/../b")]), 400, "VAL-042", "ambiguous_path"),
    ] {
        let mut h2 = H2::plain(gateway.plain).await;
        let answer = h2.request(1, &fields).await.answer();
        let problem = answer.problem();
        assert_eq!(
            (answer.status, problem["code"].as_str(), problem["reason"].as_str()),
            (status, Some(code), Some(reason)),
            "{fields:?}"
        );
    }
    recorder.assert_untouched("refusals");
}

/// The data must be as long as the length says (RFC 9113 section 8.1.1).
#[tokio::test]
async fn a_body_that_differs_from_its_length_is_never_a_complete_request() {
    let recorder = Recorder::start().await;
    let gateway = Gateway::open(&recorder).await;
    for length in ["3", "9"] {
        let mut fields = with(&[(":method", "POST")]);
        fields.push(("content-length", length));
        let mut h2 = H2::plain(gateway.plain).await;
        let outcome = h2.request_with_body(1, &fields, b"hello").await;
        assert!(outcome.is_refusal(), "{length}: {outcome:?}");
        assert!(recorder.requests().iter().all(|request| !request.complete), "{length}");
    }
}

#[tokio::test]
async fn trailers_of_requests_are_dropped_and_cannot_forge_anything() {
    let recorder = Recorder::start().await;
    let gateway = Gateway::open(&recorder).await;
    let mut h2 = H2::plain(gateway.plain).await;
    h2.send(HEADERS, END_HEADERS, 1, &block(&with(&[(":method", "POST")]))).await;
    h2.send(DATA, 0, 1, b"hello").await;
    h2.send(HEADERS, END_HEADERS | END_STREAM, 1, &block(&[("x-forwarded-for", "6.6.6.6"), ("x-sum", "1")]))
        .await;
    assert_eq!(h2.outcome(1).await.answer().status, 200);
    let request = recorder.only();
    assert_eq!((&*request.body, request.complete, request.has("x-sum")), (&b"hello"[..], true, false));
    assert_eq!(request.value("x-forwarded-for"), "127.0.0.1");
}

#[tokio::test]
async fn a_header_block_over_several_frames_is_one_request() {
    let recorder = Recorder::start().await;
    let gateway = Gateway::open(&recorder).await;
    let mut h2 = H2::plain(gateway.plain).await;
    let block = block(&with(&[("x", "a")]));
    let (first, rest) = block.split_at(7);
    h2.send(HEADERS, END_STREAM, 1, first).await;
    h2.send(CONTINUATION, 0, 1, &rest[..5]).await;
    h2.send(CONTINUATION, END_HEADERS, 1, &rest[5..]).await;
    assert_eq!(h2.outcome(1).await.answer().status, 200);
    assert_eq!(recorder.only().value("x"), "a");
}

#[tokio::test]
async fn one_bad_stream_leaves_the_others_alone() {
    let recorder = Recorder::start().await;
    let gateway = Gateway::open(&recorder).await;
    let mut h2 = H2::plain(gateway.plain).await;
    h2.send(HEADERS, END_HEADERS | END_STREAM, 1, &block(&with(&[("connection", "close")]))).await;
    h2.send(HEADERS, END_HEADERS | END_STREAM, 3, &block(&get("/b"))).await;
    assert!(matches!(h2.outcome(1).await, Outcome::Reset(1)));
    assert_eq!(h2.outcome(3).await.answer().status, 200);
    assert_eq!(recorder.only().target(), "/b");
}

#[tokio::test]
async fn host_alone_names_the_host_over_http2_too() {
    let recorder = Recorder::start().await;
    let gateway = Gateway::open(&recorder).await;
    let mut fields = without(":authority");
    fields.push(("host", "a.test:81"));
    assert_eq!(H2::plain(gateway.plain).await.request(1, &fields).await.answer().status, 200);
    assert_eq!(recorder.only().value("host"), "a.test:81");
}

#[tokio::test]
async fn cookie_crumbs_are_joined() {
    let recorder = Recorder::start().await;
    let gateway = Gateway::open(&recorder).await;
    let fields = with(&[("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3; d=4")]);
    assert_eq!(H2::plain(gateway.plain).await.request(1, &fields).await.answer().status, 200);
    assert_eq!(recorder.only().value("cookie"), "a=1; b=2; c=3; d=4");
}

#[tokio::test]
async fn http2_without_tls_is_told_from_http1_however_it_arrives() {
    let recorder = Recorder::start().await;
    let gateway = Gateway::open(&recorder).await;
    let mut wire = gateway.wire().await;
    for byte in b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" {
        wire.send([*byte]).await;
    }
    wire.send(crate::h2wire::frame(crate::h2wire::SETTINGS, 0, 0, &[])).await;
    let head = wire.take(9).await.unwrap();
    assert_eq!(head[3], crate::h2wire::SETTINGS);
    // The same method, but HTTP/1.1.
    let answer = gateway.exchange("PRI / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(answer.status, 200);
    refused(&gateway.exchange("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n").await, 400, "VAL-042", "malformed_request");
}

/// The HTTP library cuts a fragment off before anybody reads the path: route and API must see the same rest.
#[tokio::test]
async fn a_fragment_in_the_path_means_the_same_to_route_and_api() {
    let recorder = Recorder::start().await;
    let routes = "routes: [{ match: { path: '/a' }, public: true, upstream: api }]\n";
    let gateway = Gateway::start(&format!("{}{routes}", crate::setup::api(&recorder))).await;
    let answer = H2::plain(gateway.plain).await.request(1, &with(&[(":path", "/a#/../b")])).await.answer();
    assert_eq!(answer.status, 200);
    assert_eq!(recorder.only().line, "GET /a HTTP/1.1");
    recorder.forget();
    for path in ["/b#/../a", "#/a", "/a/..#", "/b?c#/a"] {
        let outcome = H2::plain(gateway.plain).await.request(1, &with(&[(":path", path)])).await;
        assert!(outcome.is_refusal(), "{path}: {outcome:?}");
    }
    recorder.assert_untouched("fragments");
}

#[tokio::test]
async fn malformed_streams_that_are_reset_are_counted() {
    let recorder = Recorder::start().await;
    let gateway = Gateway::open(&recorder).await;
    let mut h2 = H2::plain(gateway.plain).await;
    for stream in [1, 3] {
        let outcome = h2.request(stream, &with(&[("connection", "close")])).await;
        assert!(matches!(outcome, Outcome::Reset(1)), "PROTOCOL_ERROR, not {outcome:?}");
    }
    assert_eq!(h2.request(5, &get("/a")).await.answer().status, 200);
    let counted = "valgate_protocol_errors_total{kind=\"http2_stream\"} 2";
    assert!(gateway.metrics().contains(counted), "{}", gateway.metrics());
}

/// The response is complete before the stream is reset, if it has to be at all: a client that is still sending reports
/// the one that it hears of first.
#[tokio::test]
async fn an_upload_that_is_refused_is_read_to_its_end() {
    let recorder = Recorder::start().await;
    let routes = "routes: [{ match: { path: '/a', methods: [GET] }, public: true, upstream: api }]\n";
    let gateway = Gateway::start(&format!("{}{routes}", crate::setup::api(&recorder))).await;
    let mut h2 = H2::plain(gateway.plain).await;
    h2.send(HEADERS, END_HEADERS, 1, &block(&with(&[(":method", "PUT")]))).await;
    assert_eq!(h2.outcome(1).await.answer().verdict(), "VAL-041 method_not_allowed");
    for _ in 0..50 {
        h2.send(DATA, 0, 1, &[0; 16_000]).await;
    }
    h2.send(DATA, END_STREAM, 1, &[]).await;
    assert_eq!(h2.request(3, &get("/a")).await.answer().status, 200);
    assert!(!h2.was_reset(1), "the stream was reset while its client was sending");
    assert_eq!(recorder.only().target(), "/a");
}
