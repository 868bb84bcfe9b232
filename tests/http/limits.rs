//! Limits on heads, connections and time: each with its own code, and none that harms a well-behaved client.

use std::time::Duration;

use crate::h2wire::{DATA, END_HEADERS, H2, HEADERS, block, get};
use crate::recorder::Recorder;
use crate::setup::Gateway;
use crate::wire::{Wire, refused};

async fn limited(recorder: &Recorder) -> Gateway {
    Gateway::with(
        recorder,
        "limits: { uri: 100B, headers: 20KiB, header_count: 10, token: 1KiB }
timeouts: { header: 300ms, idle: 600ms, handshake: 300ms }
",
    )
    .await
}

#[tokio::test]
async fn a_target_over_the_limit_is_414() {
    let recorder = Recorder::start().await;
    let gateway = limited(&recorder).await;
    for path in [format!("/{}", "x".repeat(100)), format!("/a?{}", "x".repeat(98))] {
        refused(&gateway.get(&path, "").await, 414, "VAL-043", "uri");
        assert_eq!(
            H2::plain(gateway.plain).await.request(1, &get(&path)).await.answer().verdict(),
            "VAL-043 uri"
        );
    }
    recorder.assert_untouched("long targets");
    let path = format!("/{}", "x".repeat(99));
    assert_eq!(gateway.get(&path, "").await.status, 200);
    assert_eq!(H2::plain(gateway.plain).await.request(1, &get(&path)).await.answer().status, 200);
}

#[tokio::test]
async fn headers_over_the_limit_are_431() {
    let recorder = Recorder::start().await;
    let gateway = limited(&recorder).await;
    let (large, long_name) = ("x".repeat(21 * 1024), "x".repeat(70_000));
    for lines in [
        format!("X: {large}\r\n"),
        format!("{long_name}: x\r\n"),
        "X: x\r\n".repeat(10),
        format!("X: {}\r\n", "x".repeat(10_000)).repeat(3),
    ] {
        refused(&gateway.get("/a", &lines).await, 431, "VAL-043", "headers");
    }
    let mut fields = get("/a");
    fields.push(("x", &large));
    let outcome = H2::plain(gateway.plain).await.request(1, &fields).await;
    assert!(outcome.is_refusal(), "{outcome:?}");
    let fields = [get("/a"), vec![("x", "y"); 11]].concat();
    assert_eq!(
        H2::plain(gateway.plain).await.request(1, &fields).await.answer().verdict(),
        "VAL-043 headers"
    );
    recorder.assert_untouched("large heads");
    // Crumbs of cookies count as the one header that they are.
    let fields = [get("/a"), vec![("cookie", "a=b"); 30]].concat();
    assert_eq!(H2::plain(gateway.plain).await.request(1, &fields).await.answer().status, 200);
    assert_eq!(gateway.get("/a", &"X: x\r\n".repeat(9)).await.status, 200);
}

#[tokio::test]
async fn a_head_that_does_not_come_to_its_end_in_time_is_408() {
    let recorder = Recorder::start().await;
    let gateway = limited(&recorder).await;
    for start in [
        "G",
        "P",
        "PRI * HTTP/2.0",
        "GET /a HTTP/1.1\r\nHost: localhost\r\n",
        "GET /a HTTP/1.1\r\nHost: localhost\r\nX: ",
    ] {
        for over_tls in [false, true] {
            let mut wire = if over_tls { gateway.tls_wire().await } else { gateway.wire().await };
            wire.send(start).await;
            refused(&wire.answer().await.unwrap(), 408, "VAL-045", "header_timeout");
            wire.assert_ends().await;
        }
    }
    // The time counts for the second head on a connection as well.
    let mut wire = gateway.wire().await;
    wire.send("GET /a HTTP/1.1\r\nHost: localhost\r\n\r\nGET /b").await;
    assert_eq!(wire.answer().await.unwrap().status, 200);
    refused(&wire.answer().await.unwrap(), 408, "VAL-045", "header_timeout");
    assert_eq!(recorder.only().target(), "/a");
}

#[tokio::test]
async fn a_drip_of_header_bytes_does_not_renew_the_time() {
    let recorder = Recorder::start().await;
    let gateway = limited(&recorder).await;
    let mut wire = gateway.wire().await;
    wire.send("GET /a HTTP/1.1\r\nHost: localhost\r\n").await;
    let mut drips = 0;
    while wire.try_send(b"X: x\r\n").await && drips < 200 {
        drips += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(drips < 200, "the head was still waited for");
    refused(&wire.answer().await.unwrap(), 408, "VAL-045", "header_timeout");
    recorder.assert_untouched("slow heads");
}

#[tokio::test]
async fn idle_connections_are_closed_without_a_word() {
    let recorder = Recorder::start().await;
    let gateway = limited(&recorder).await;
    // Never used, used once; over both protocols.
    gateway.wire().await.assert_ends().await;
    gateway.tls_wire().await.assert_ends().await;
    let mut wire = gateway.wire().await;
    wire.send("GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(wire.answer().await.unwrap().status, 200);
    wire.assert_ends().await;
    for over_tls in [false, true] {
        let mut h2 = if over_tls { H2::tls(gateway.tls).await } else { H2::plain(gateway.plain).await };
        assert_eq!(h2.request(1, &get("/a")).await.answer().status, 200);
        while h2.step().await.is_some() {}
        assert_eq!(h2.goaway.expect("no GOAWAY").0, 0, "the error code");
    }
}

#[tokio::test]
async fn a_response_that_takes_longer_than_the_idle_time_is_not_cut_off() {
    let recorder = Recorder::scripted(|mut conn| async move {
        while conn.request().await.is_some() {
            tokio::time::sleep(Duration::from_millis(1500)).await;
            conn.send(crate::recorder::OK).await;
        }
    })
    .await;
    let gateway = limited(&recorder).await;
    let (h1, h2) = tokio::join!(gateway.get("/a", ""), async {
        H2::plain(gateway.plain).await.request(1, &get("/a")).await
    });
    assert_eq!((h1.status, h2.answer().status), (200, 200));
}

#[tokio::test]
async fn a_tls_handshake_that_stalls_is_ended() {
    let recorder = Recorder::start().await;
    let gateway = limited(&recorder).await;
    for start in [&b""[..], b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"] {
        let mut wire = Wire::plain(gateway.tls).await;
        wire.send(start).await;
        wire.assert_ends().await;
    }
    // Plain HTTP on the TLS port.
    let mut wire = Wire::plain(gateway.tls).await;
    wire.send("GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(wire.take(1).await.is_none_or(|byte| byte == [0x15]), "a TLS alert or nothing");
    recorder.assert_untouched("TLS port");
}

/// Connections that do nothing make room for those that want to.
#[tokio::test]
async fn idle_connections_make_room_for_new_ones() {
    let recorder = Recorder::start().await;
    let gateway = Gateway::with(&recorder, "limits: { connections: 10 }\n").await;
    let mut idle = Vec::new();
    for _ in 0..30 {
        let mut wire = gateway.wire().await;
        wire.send("GET /unfinished HTTP/1.1\r\n").await;
        idle.push(wire);
    }
    for _ in 0..15 {
        assert_eq!(gateway.get("/a", "").await.status, 200);
    }
    assert!(recorder.requests().iter().all(|request| request.target() == "/a"));
}

#[tokio::test]
async fn more_streams_than_allowed_are_refused_and_the_rest_goes_on() {
    let recorder = Recorder::start().await;
    let gateway = Gateway::with(&recorder, "limits: { concurrent_streams: 5 }\n").await;
    let mut h2 = H2::plain(gateway.plain).await;
    let fields = [(":method", "POST"), (":scheme", "http"), (":authority", "localhost"), (":path", "/a")];
    let head = block(&fields);
    for stream in 0..8 {
        h2.send(HEADERS, END_HEADERS, 2 * stream + 1, &head).await;
    }
    for stream in 0..8 {
        h2.send(DATA, 1, 2 * stream + 1, b"x").await;
    }
    let mut succeeded = 0;
    for stream in 0..8 {
        if !h2.outcome(2 * stream + 1).await.is_refusal() {
            succeeded += 1;
        }
    }
    assert_eq!(succeeded, 5);
}
