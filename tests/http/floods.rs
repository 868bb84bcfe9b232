//! Floods, small and bounded: while each runs a canary's requests succeed, and afterwards the gateway is well.

use std::time::Duration;

use crate::h2wire::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, H2, HEADERS, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE,
    block, frame, get,
};
use crate::recorder::{PATIENCE, Recorder};
use crate::setup::Gateway;

/// Runs the flood while the canary asks; each of its requests must succeed.
async fn survives(gateway: &Gateway, flood: impl Future<Output = ()>) {
    let canary = async {
        loop {
            let answer =
                tokio::time::timeout(PATIENCE, gateway.get("/canary", "")).await.expect("the canary starves");
            assert_eq!(answer.status, 200, "{answer:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        () = flood => {}
        () = canary => {}
    }
    assert_eq!(gateway.get("/canary", "").await.status, 200);
    assert_eq!(H2::plain(gateway.plain).await.request(1, &get("/canary")).await.answer().status, 200);
}

#[tokio::test]
async fn slow_heads_and_half_open_handshakes() {
    let recorder = Recorder::start().await;
    let gateway = Gateway::open(&recorder).await;
    survives(&gateway, async {
        let mut slow = Vec::new();
        for n in 0..200 {
            let mut wire =
                if n % 4 == 0 { crate::wire::Wire::plain(gateway.tls).await } else { gateway.wire().await };
            wire.send(if n % 4 == 0 { "\x16\x03\x01" } else { "GET /slow HTTP/1.1\r\nHost: localhost\r\n" })
                .await;
            slow.push(wire);
        }
        for _ in 0..3 {
            for wire in &mut slow {
                wire.send("X: x\r\n").await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert!(recorder.requests().iter().all(|request| request.target() == "/canary"));
}

/// CVE-2023-44487: requests that are cancelled as soon as they are made.
#[tokio::test]
async fn rapid_reset() {
    let recorder = Recorder::start().await;
    let gateway = Gateway::open(&recorder).await;
    let head = block(&get("/reset"));
    survives(&gateway, async {
        for _ in 0..5 {
            let mut h2 = H2::plain(gateway.plain).await;
            for n in 0..2000_u32 {
                let mut bytes = frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, &head);
                bytes.extend(frame(RST_STREAM, 0, 2 * n + 1, &8_u32.to_be_bytes()));
                if !h2.wire.try_send(&bytes).await {
                    break;
                }
            }
            while h2.step().await.is_some_and(|(kind, _)| kind != crate::h2wire::GOAWAY) {}
            assert!(h2.goaway.is_none_or(|(code, _)| code == 11), "ENHANCE_YOUR_CALM: {:?}", h2.goaway);
        }
    })
    .await;
}

/// CVE-2024-27316 and its kin: a header block that never ends.
#[tokio::test]
async fn continuation_flood() {
    let recorder = Recorder::start().await;
    let gateway = Gateway::open(&recorder).await;
    survives(&gateway, async {
        let mut h2 = H2::plain(gateway.plain).await;
        h2.send(HEADERS, END_STREAM, 1, &block(&get("/flood"))).await;
        let value = "x".repeat(1000);
        let part = frame(CONTINUATION, 0, 1, &block(&[("x-flood", &value); 10]));
        let mut sent = 0;
        while sent < 100_000_000 && h2.wire.try_send(&part).await {
            sent += part.len();
        }
        assert!(sent < 100_000_000, "it was all taken in");
        let mut empty = H2::plain(gateway.plain).await;
        empty.send(HEADERS, END_STREAM, 1, &block(&get("/flood"))).await;
        for _ in 0..20_000 {
            if !empty.wire.try_send(&frame(CONTINUATION, 0, 1, &[])).await {
                break;
            }
        }
    })
    .await;
    assert!(recorder.requests().iter().all(|request| request.target() == "/canary"));
}

/// CVE-2019-9512, CVE-2019-9515: control frames that each want an answer, from a client that reads none.
#[tokio::test]
async fn ping_and_settings_floods() {
    let recorder = Recorder::start().await;
    let gateway = Gateway::open(&recorder).await;
    survives(&gateway, async {
        for flood in [frame(PING, 0, 0, &[0; 8]), frame(SETTINGS, 0, 0, &[]), frame(SETTINGS, ACK, 0, &[])] {
            let mut h2 = H2::plain(gateway.plain).await;
            let bytes = flood.repeat(500);
            for _ in 0..100 {
                if !h2.wire.try_send(&bytes).await {
                    break;
                }
            }
            while h2.step().await.is_some() {}
            // ENHANCE_YOUR_CALM, if the reset behind it has not overtaken it.
            assert!(h2.goaway.is_none_or(|(code, _)| code == 11), "{:?}", h2.goaway);
        }
    })
    .await;
    let ended = "valgate_protocol_errors_total{kind=\"http2_flood\"} 3";
    assert!(gateway.metrics().contains(ended), "{}", gateway.metrics());
}

/// Frames in the number that a lively connection has of them: windows and pings for each part of a response.
#[tokio::test]
async fn many_small_frames_beside_responses_are_no_flood() {
    let recorder = Recorder::start().await;
    let gateway = Gateway::open(&recorder).await;
    let mut h2 = H2::plain(gateway.plain).await;
    for request in 0..100 {
        let small = [frame(PING, 0, 0, &[0; 8]), frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes())].concat();
        h2.wire.send(small.repeat(20)).await;
        assert_eq!(h2.request(2 * request + 1, &get("/canary")).await.answer().status, 200);
    }
    assert_eq!(h2.goaway, None);
}

/// CVE-2019-9518 and others: frames that carry nothing, and windows that overflow.
#[tokio::test]
async fn empty_data_and_window_update_floods() {
    let recorder = Recorder::start().await;
    let gateway = Gateway::open(&recorder).await;
    survives(&gateway, async {
        let post =
            [(":method", "POST"), (":scheme", "http"), (":authority", "localhost"), (":path", "/canary")];
        for flood in [
            frame(DATA, 0, 1, &[]),
            frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes()),
            frame(WINDOW_UPDATE, 0, 0, &0x7fff_ffff_u32.to_be_bytes()),
        ] {
            let mut h2 = H2::plain(gateway.plain).await;
            h2.send(HEADERS, END_HEADERS, 1, &block(&post)).await;
            let bytes = flood.repeat(500);
            for _ in 0..50 {
                let sent = tokio::time::timeout(Duration::from_millis(500), h2.wire.try_send(&bytes)).await;
                if !matches!(sent, Ok(true)) {
                    break;
                }
            }
        }
    })
    .await;
}

/// A few bytes on the wire that decode to megabytes: references to one large entry of the HPACK table.
#[tokio::test]
async fn hpack_bomb() {
    let recorder = Recorder::start().await;
    let gateway = Gateway::open(&recorder).await;
    survives(&gateway, async {
        let mut h2 = H2::plain(gateway.plain).await;
        let mut bytes = block(&get("/bomb"));
        // Literal with incremental indexing, then its index over and over.
        bytes.extend([0x40, 1, b'x', 127, 0x81, 0x1e]);
        bytes.extend([b'y'; 127 + 1 + 0x1e * 128]);
        bytes.extend([0x80 | 0x3e; 8000]);
        h2.send(HEADERS, END_HEADERS | END_STREAM, 1, &bytes).await;
        let outcome = h2.outcome(1).await;
        assert!(outcome.is_refusal(), "{outcome:?}");
    })
    .await;
    assert!(recorder.requests().iter().all(|request| request.target() == "/canary"));
}

/// Requests whose responses are never read.
#[tokio::test]
async fn slow_readers() {
    let recorder = Recorder::scripted(|mut conn| async move {
        while let Some(request) = conn.request().await {
            let size = if request.target() == "/canary" { 2 } else { 4_000_000 };
            conn.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n").as_bytes()).await;
            conn.send(&vec![b'x'; size]).await;
        }
    })
    .await;
    let gateway = Gateway::open(&recorder).await;
    survives(&gateway, async {
        let mut slow = Vec::new();
        for _ in 0..50 {
            let mut wire = gateway.wire().await;
            wire.send("GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(20)).await;
            slow.push(wire);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    })
    .await;
}

/// CVE-2019-9517: a client that reads its connection and answers pings, but opens no window for the response. The
/// stream is given up, the API's connection with it; the connection and its other streams go on, of which there
/// may be one at a time: the place of the first is free.
#[tokio::test]
async fn shut_windows() {
    let (given_up, mut is_given_up) = tokio::sync::mpsc::unbounded_channel();
    let recorder = Recorder::scripted(move |mut conn| {
        let given_up = given_up.clone();
        async move {
            while let Some(request) = conn.request().await {
                if request.target() == "/canary" {
                    conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
                } else {
                    conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4000000\r\n\r\n0123456789").await;
                    conn.until_closed().await;
                    given_up.send(()).unwrap();
                }
            }
        }
    })
    .await;
    let more = "timeouts: { body_idle: 200ms }\nlimits: { concurrent_streams: 1 }\n";
    let gateway = Gateway::with(&recorder, more).await;
    let mut h2 = H2::plain(gateway.plain).await;
    // SETTINGS_INITIAL_WINDOW_SIZE.
    h2.send(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]).await;
    let outcome = h2.request(1, &get("/large")).await;
    assert!(matches!(outcome, crate::h2wire::Outcome::Reset(8)), "CANCEL, not {outcome:?}");
    tokio::time::timeout(PATIENCE, is_given_up.recv()).await.expect("the API goes on sending");
    h2.send(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]).await;
    assert_eq!(h2.request(3, &get("/canary")).await.answer().body, b"ok");
}

/// A client that takes a large response in small pieces gets the whole of it.
#[tokio::test]
async fn a_window_that_opens_again_and_again() {
    let recorder = Recorder::scripted(|mut conn| async move {
        while conn.request().await.is_some() {
            conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n").await;
            conn.send(&vec![b'x'; 1_000_000]).await;
        }
    })
    .await;
    let gateway = Gateway::open(&recorder).await;
    let mut h2 = H2::plain(gateway.plain).await;
    h2.send(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 1]).await;
    h2.send(HEADERS, END_HEADERS | END_STREAM, 1, &block(&get("/large"))).await;
    assert!(h2.wait_for(DATA, 0).await, "the first byte");
    h2.send(WINDOW_UPDATE, 0, 1, &1_000_000_u32.to_be_bytes()).await;
    let answer = h2.outcome(1).await.answer();
    assert_eq!((answer.status, answer.body.len()), (200, 1_000_000));
}
