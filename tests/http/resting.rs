//! Connections on which nothing is asked for a while, and which the gateway therefore holds with as little as it can: what
//! comes then is served as if it had come at once, and what only seems to be idle is left alone.

use std::time::Duration;

use tokio::time::sleep;

use crate::closed::only;
use crate::recorder::{Conn, OK, Recorder};
use crate::setup::Gateway;
use crate::websocket::{accept, echoing};
use crate::wire::Wire;

/// Longer than it takes until a connection goes to rest.
const WHILE: Duration = Duration::from_millis(1600);

/// More than sockets and buffers take in.
const LARGE: usize = 20_000_000;

const GET: &str = "GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n";
const UPGRADE: &str = "GET /socket HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

async fn both(gateway: &Gateway) -> [Wire; 2] {
    [gateway.wire().await, gateway.tls_wire().await]
}

async fn asks(wire: &mut Wire) -> u16 {
    wire.send(GET).await;
    wire.answer().await.unwrap().status
}

#[tokio::test]
async fn requests_are_answered_before_and_after() {
    let recorder = Recorder::start().await;
    let gateway = Gateway::open(&recorder).await;
    let mut wires = both(&gateway).await;
    for round in 0..3 {
        sleep(WHILE).await;
        for wire in &mut wires {
            // More than one at a time: all of it comes after the rest.
            wire.send([GET, GET].concat()).await;
            for _ in 0..2 {
                assert_eq!(wire.answer().await.unwrap().status, 200, "{round}");
            }
        }
    }
    assert_eq!(recorder.requests().len(), 12);
}

#[tokio::test]
async fn a_head_that_has_begun_is_kept() {
    let recorder = Recorder::start().await;
    let gateway = Gateway::open(&recorder).await;
    let mut wires = both(&gateway).await;
    let (first, second) = GET.split_at(20);
    // Begun while it is served, and begun while it rests.
    for pause in [Duration::ZERO, WHILE] {
        for wire in &mut wires {
            assert_eq!(asks(wire).await, 200);
        }
        sleep(pause).await;
        for wire in &mut wires {
            wire.send(first).await;
        }
        sleep(WHILE).await;
        for wire in &mut wires {
            wire.send(second).await;
            assert_eq!(wire.answer().await.unwrap().status, 200);
        }
    }
    assert_eq!(recorder.requests().len(), 8);
}

#[tokio::test]
async fn a_bad_request_is_refused_and_the_end_is_seen() {
    let recorder = Recorder::start().await;
    let gateway = Gateway::open(&recorder).await;
    for mut wire in both(&gateway).await {
        assert_eq!(asks(&mut wire).await, 200);
        sleep(WHILE).await;
        wire.send("GET /b HTTP/1.1\nHost: localhost\r\n\r\n").await;
        assert_eq!(wire.answer().await.unwrap().verdict(), "VAL-042 malformed_request");
        wire.assert_ends().await;
    }
    drop(both(&gateway).await);
    let is_alone = || {
        gateway.metrics().lines().any(|line| {
            line.starts_with("valgate_connections{")
                && line.contains("state=\"idle\"")
                && !line.ends_with(" 0")
        })
    };
    let left = async {
        while is_alone() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(crate::recorder::PATIENCE, left).await.expect("all have left");
}

/// The gateway lingers for two seconds, so that its last answer is not lost to a reset.
#[tokio::test]
async fn one_that_was_said_to_end_does_not_come_back() {
    let recorder = Recorder::start().await;
    let gateway = Gateway::open(&recorder).await;
    let mut wires = both(&gateway).await;
    for wire in &mut wires {
        wire.send("GET /last HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
        assert_eq!(wire.answer().await.unwrap().status, 200);
        sleep(WHILE).await;
        wire.send(GET).await;
    }
    // What is served all the same has come by then.
    sleep(WHILE).await;
    for wire in &mut wires {
        wire.assert_ends().await;
    }
    let requests = recorder.requests();
    assert!(
        requests.len() == 2 && requests.iter().all(|request| request.target() == "/last"),
        "{requests:?}"
    );
}

#[tokio::test]
async fn the_idle_time_out_ends_it() {
    let recorder = Recorder::start().await;
    let gateway = Gateway::with(&recorder, "timeouts: { idle: 2s }\n").await;
    let mut wires = both(&gateway).await;
    for wire in &mut wires {
        assert_eq!(asks(wire).await, 200);
    }
    for wire in &mut wires {
        wire.assert_ends().await;
    }
    only(&gateway, "idle", 2).await;
}

#[tokio::test]
async fn it_makes_room_for_others() {
    let recorder = Recorder::start().await;
    let gateway = Gateway::with(&recorder, "limits: { connections: 2 }\n").await;
    let mut wires = both(&gateway).await;
    for wire in &mut wires {
        assert_eq!(asks(wire).await, 200);
    }
    sleep(WHILE).await;
    for wire in &mut both(&gateway).await {
        assert_eq!(asks(wire).await, 200);
    }
    for wire in &mut wires {
        wire.assert_ends().await;
    }
    only(&gateway, "evicted", 2).await;
}

#[tokio::test]
async fn a_websocket_is_opened_after_one_and_never_rests() {
    let recorder = echoing().await;
    let gateway = Gateway::open(&recorder).await;
    for mut wire in both(&gateway).await {
        sleep(WHILE).await;
        wire.send(UPGRADE).await;
        assert_eq!(wire.head().await.unwrap().status, 101);
        assert_eq!(wire.take(7).await.unwrap(), b"\x81\x05hello");
        sleep(WHILE).await;
        wire.send(b"\x81\x82\0\0\0\0hi").await;
        assert_eq!(wire.take(8).await.unwrap(), b"\x81\x82\0\0\0\0hi");
    }
    assert!(recorder.requests().iter().all(|request| !accept(request).is_empty()));
}

/// Answers `/slow` late, `/pausing` in two parts, `/large` at length, all else at once.
async fn leisurely() -> Recorder {
    Recorder::scripted(|mut conn: Conn| async move {
        while let Some(request) = conn.request().await {
            match request.target() {
                "/slow" => {
                    sleep(WHILE).await;
                    conn.send(OK).await;
                }
                "/pausing" => {
                    conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab").await;
                    sleep(WHILE).await;
                    conn.send(b"cd").await;
                }
                "/large" => {
                    conn.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n").as_bytes()).await;
                    conn.send(&vec![b'x'; LARGE]).await;
                }
                _ => conn.send(OK).await,
            }
        }
    })
    .await
}

#[tokio::test]
async fn whatever_takes_its_time_is_not_idle() {
    let recorder = leisurely().await;
    let gateway = Gateway::open(&recorder).await;
    let mut waiting = Vec::new();
    for (path, length) in [("/slow", 2), ("/pausing", 4), ("/large", LARGE)] {
        for mut wire in both(&gateway).await {
            // The next one waits behind it.
            wire.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n{GET}")).await;
            waiting.push((path, length, wire));
        }
    }
    // Until then nothing is read, so that what is large does not leave.
    sleep(2 * WHILE).await;
    for (path, length, mut wire) in waiting {
        let answer = wire.answer().await.unwrap();
        assert_eq!((answer.status, answer.body.len()), (200, length), "{path}");
        assert_eq!(wire.answer().await.unwrap().status, 200, "{path}");
    }
}
