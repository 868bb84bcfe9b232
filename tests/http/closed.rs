//! Why the gateway closed a connection, as its metrics tell it: each cause alone, and none where the client left.

use std::time::Duration;

use crate::h2wire::{END_HEADERS, END_STREAM, H2, HEADERS, PING, RST_STREAM, block, frame, get};
use crate::recorder::{PATIENCE, Recorder};
use crate::setup::Gateway;

const CAUSES: [&str; 6] = ["full", "evicted", "idle", "handshake_timeout", "stalled", "flood"];

/// How often connections were closed for each cause.
fn closed(gateway: &Gateway) -> Vec<(&'static str, u64)> {
    let page = gateway.metrics();
    let count = |cause: &str| {
        let series = format!("valgate_connections_closed_total{{cause=\"{cause}\"}} ");
        page.lines().find_map(|line| line.strip_prefix(&series)?.parse().ok()).unwrap_or_default()
    };
    CAUSES.iter().map(|cause| (*cause, count(cause))).filter(|(_, count)| *count > 0).collect()
}

/// Waits until that is all there is.
pub async fn only(gateway: &Gateway, cause: &'static str, times: u64) {
    let asking = async {
        while closed(gateway) != [(cause, times)] {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let came = tokio::time::timeout(PATIENCE, asking).await;
    assert!(came.is_ok(), "not {cause} {times} times, but {:?}", closed(gateway));
}

/// Answers `/held` never, `/large` at length, all else at once.
async fn backend() -> Recorder {
    Recorder::scripted(|mut conn| async move {
        while let Some(request) = conn.request().await {
            match request.target() {
                "/held" => conn.until_closed().await,
                "/large" => {
                    conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n").await;
                    conn.send(&vec![b'x'; 50_000_000]).await;
                }
                _ => conn.send(crate::recorder::OK).await,
            }
        }
    })
    .await
}

#[tokio::test]
async fn one_that_finds_all_others_busy() {
    let recorder = backend().await;
    let gateway = Gateway::with(&recorder, "limits: { connections: 2 }\n").await;
    let mut busy = Vec::new();
    for place in 1..=2 {
        let mut wire = gateway.wire().await;
        wire.send("GET /held HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        let held = async {
            while recorder.requests().len() < place {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, held).await.expect("it is held");
        busy.push(wire);
    }
    gateway.wire().await.assert_ends().await;
    only(&gateway, "full", 1).await;
}

#[tokio::test]
async fn those_that_make_room_for_others() {
    let recorder = backend().await;
    let gateway = Gateway::with(&recorder, "limits: { connections: 5 }\n").await;
    let mut unfinished = Vec::new();
    for _ in 0..12 {
        let mut wire = gateway.wire().await;
        wire.send("GET /unfinished HTTP/1.1\r\n").await;
        unfinished.push(wire);
    }
    only(&gateway, "evicted", 7).await;
}

#[tokio::test]
async fn those_that_are_idle_for_too_long() {
    let recorder = backend().await;
    let gateway = Gateway::with(&recorder, "timeouts: { idle: 300ms }\n").await;
    // Never used, used once, and the same by HTTP/2.
    gateway.wire().await.assert_ends().await;
    let mut wire = gateway.wire().await;
    wire.send("GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(wire.answer().await.unwrap().status, 200);
    wire.assert_ends().await;
    let mut h2 = H2::plain(gateway.plain).await;
    assert_eq!(h2.request(1, &get("/a")).await.answer().status, 200);
    while h2.step().await.is_some() {}
    only(&gateway, "idle", 3).await;
}

#[tokio::test]
async fn one_whose_handshake_does_not_come() {
    let recorder = backend().await;
    let gateway = Gateway::with(&recorder, "timeouts: { handshake: 200ms }\n").await;
    crate::wire::Wire::plain(gateway.tls).await.assert_ends().await;
    only(&gateway, "handshake_timeout", 1).await;
    assert!(gateway.metrics().contains("valgate_tls_handshakes_total{result=\"timeout\"} 1"));
}

#[tokio::test]
async fn those_that_do_not_read() {
    let recorder = backend().await;
    let gateway = Gateway::with(&recorder, "timeouts: { body_idle: 300ms }\n").await;
    let mut one = gateway.wire().await;
    one.send("GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    only(&gateway, "stalled", 1).await;
    let mut two = H2::plain(gateway.plain).await;
    // Windows as wide as they get: what holds the response up is the connection, not the stream.
    two.send(crate::h2wire::SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]).await;
    two.send(crate::h2wire::WINDOW_UPDATE, 0, 0, &0x7fff_0000_u32.to_be_bytes()).await;
    two.send(HEADERS, END_HEADERS | END_STREAM, 1, &block(&get("/large"))).await;
    only(&gateway, "stalled", 2).await;
}

#[tokio::test]
async fn those_that_flood() {
    let recorder = backend().await;
    let gateway = Gateway::open(&recorder).await;
    let mut pings = H2::plain(gateway.plain).await;
    while pings.wire.try_send(&frame(PING, 0, 0, &[0; 8]).repeat(500)).await {}
    only(&gateway, "flood", 1).await;
    // CVE-2023-44487, faster than control frames are counted.
    let gateway = Gateway::with(&recorder, "limits: { control_frames: 100000 }\n").await;
    let mut resets = H2::plain(gateway.plain).await;
    let mut bytes = Vec::new();
    for place in 0..90 {
        let stream = 2 * place + 1;
        bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&get("/a"))));
        bytes.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
    }
    resets.wire.send(&bytes).await;
    while resets.step().await.is_some() {}
    only(&gateway, "flood", 1).await;
}

#[tokio::test]
async fn none_that_its_client_closed() {
    let recorder = backend().await;
    let gateway = Gateway::open(&recorder).await;
    for lines in ["", "Connection: close\r\n"] {
        assert_eq!(gateway.get("/a", lines).await.status, 200);
    }
    drop(gateway.wire().await);
    drop(H2::tls(gateway.tls).await);
    let open = "valgate_connections{listener=\"";
    let asking = async {
        while gateway.metrics().lines().any(|line| line.starts_with(open) && !line.ends_with(" 0")) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.expect("all are closed");
    assert_eq!(closed(&gateway), []);
}
