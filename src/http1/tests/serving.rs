//! A connection's life: turns, refusals among pipelined requests, upgrades, ends.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Empty;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::sync::Notify;

use super::server::{Call, builder, read_head, run, serve};
use crate::catalogue::Reason;
use crate::http1::{Guard, GuardLimits, Violation};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const UPGRADE: &[u8] = b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
const TUNNEL_DATA: &[u8] = b"\x16\x03\x00\nGET /#x HTTP/1.1\r\n\r\n";

fn reasons(calls: &[Call]) -> Vec<Option<Reason>> {
    calls
        .iter()
        .map(|call| match call {
            Call::Refused(violation) | Call::BodyRefused(violation) => Some(violation.reason()),
            Call::Served { .. } | Call::BodyCutOff => None,
        })
        .collect()
}

#[test]
fn a_refusal_is_answered_in_its_turn_and_closes() {
    for pipe in [1, 16, 4096] {
        let outcome = serve(&[GET, GET, b"GET / HTTP/1.1\nHost: a\n\n", GET].concat(), pipe);
        assert_eq!(reasons(&outcome.calls), [None, None, Some(Reason::MalformedRequest)]);
        assert_eq!(outcome.statuses(), ["200", "200", "400"]);
        assert!(outcome.answer.contains("connection: close"));
    }
}

#[test]
fn the_stand_in_from_a_client_is_a_request_like_any_other() {
    let outcome = serve(b"GET / HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n", 4096);
    assert_eq!(outcome.calls, [Call::Served { target: "/".to_owned(), body: Vec::new() }]);
}

#[test]
fn a_bad_body_is_refused_in_its_own_turn() {
    let bad = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n";
    let outcome = serve(&[GET, bad, GET].concat(), 4096);
    assert_eq!(reasons(&outcome.calls), [None, Some(Reason::AmbiguousFraming)]);
    assert_eq!(outcome.statuses(), ["200", "400"]);
}

#[test]
fn a_smuggled_request_is_never_served() {
    let attacks: [&[u8]; 4] = [
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\nContent-Length: 0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer_Encoding: chunked\r\nContent-Length: 0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 40\r\n\r\n",
    ];
    for attack in attacks {
        let smuggled = b"0\r\n\r\nGET /admin HTTP/1.1\r\nHost: a\r\n\r\n";
        let outcome = serve(&[attack, smuggled].concat(), 4096);
        assert_eq!(reasons(&outcome.calls), [Some(Reason::AmbiguousFraming)]);
    }
}

/// Where the client closes decides how many requests were whole, and what became of the last.
#[test]
fn the_connection_may_end_anywhere() {
    let length = b"POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
    let chunked =
        b"POST /2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n";
    let messages: [&[u8]; 3] = [GET, length, chunked];
    let bytes = messages.concat();
    for end in 0..=bytes.len() {
        let (mut whole, mut start) = (0, 0);
        while whole < messages.len() && start + messages[whole].len() <= end {
            start += messages[whole].len();
            whole += 1;
        }
        let rest = &bytes[start..end];
        let in_body = memchr::memmem::find(rest, b"\r\n\r\n").is_some();

        let outcome = serve(&bytes[..end], 4096);
        let (served, last) = outcome.calls.split_at(whole);
        assert!(served.iter().all(|call| matches!(call, Call::Served { .. })), "at {end}: {outcome:?}");
        match last {
            [] => assert!(rest.is_empty(), "at {end}: {outcome:?}"),
            [Call::BodyCutOff] => assert!(in_body, "at {end}: {outcome:?}"),
            [Call::Refused(violation)] => {
                assert!(!in_body && violation.reason() == Reason::MalformedRequest, "at {end}: {outcome:?}");
            }
            _ => panic!("at {end}: {outcome:?}"),
        }
    }
}

#[test]
fn a_call_without_a_released_head_is_refused() {
    let (_guard, handle) = Guard::new(tokio::io::empty(), GuardLimits::default());
    assert_eq!(handle.begin().unwrap_err().reason(), Reason::MalformedRequest);
}

/// hyper reads ahead: the guard may know of a bad request before the service begins the good one before it.
#[test]
fn a_refusal_waits_for_its_turn() {
    run(async {
        let (mut client, server) = tokio::io::duplex(1024);
        let (mut guard, handle) = Guard::new(server, GuardLimits::default());
        client.write_all(&[GET, b"GET / HTTP/1.1\r\n\r\n"].concat()).await.unwrap();
        let mut buf = vec![0; 1024];
        assert_eq!(guard.read(&mut buf).await.unwrap(), GET.len());
        assert!(guard.read(&mut buf).await.unwrap() > 0);
        assert_eq!(handle.violation().map(Violation::reason), Some(Reason::IllegalTarget));
        assert!(handle.begin().is_ok());
        assert_eq!(handle.begin().unwrap_err().reason(), Reason::IllegalTarget);
    });
}

#[test]
fn a_slow_head_is_refused() {
    run(async {
        let limits = GuardLimits { head_timeout: Duration::from_millis(1), ..GuardLimits::default() };
        let (mut client, server) = tokio::io::duplex(64);
        let (mut guard, handle) = Guard::new(server, limits);
        client.write_all(b"GET / HTTP/1.1\r\nHost").await.unwrap();
        let mut stand_in = [0; 16];
        assert!(guard.read(&mut stand_in).await.unwrap() > 0);
        assert_eq!(handle.begin().unwrap_err().reason(), Reason::HeaderTimeout);
    });
}

#[test]
fn an_idle_connection_is_not_slow() {
    run(async {
        let limits = GuardLimits { head_timeout: Duration::ZERO, ..GuardLimits::default() };
        let (mut client, server) = tokio::io::duplex(1024);
        let (mut guard, handle) = Guard::new(server, limits);
        assert!(poll_read_once(&mut guard).await.is_pending());
        tokio::task::yield_now().await;
        client.write_all(GET).await.unwrap();
        assert!(poll_read_once(&mut guard).await.is_ready());
        assert!(handle.begin().is_ok());
    });
}

#[test]
fn nothing_is_held_for_an_idle_connection() {
    run(async {
        let (mut client, server) = tokio::io::duplex(1024);
        let (mut guard, _handle) = Guard::new(server, GuardLimits::default());
        let (first, second) = GET.split_at(9);
        client.write_all(first).await.unwrap();
        assert!(poll_read_once(&mut guard).await.is_pending());
        assert!(!guard.stash.is_empty());
        client.write_all(second).await.unwrap();
        assert!(poll_read_once(&mut guard).await.is_ready());
        assert_eq!(guard.into_inner().1.capacity(), 0);
    });
}

#[test]
fn only_between_requests_with_all_said_is_it_at_rest() {
    run(async {
        let (mut client, server) = tokio::io::duplex(1024);
        let (mut guard, handle) = Guard::new(server, GuardLimits::default());
        assert!(!handle.is_at_rest(), "nobody has read yet");
        assert!(poll_read_once(&mut guard).await.is_pending());
        assert!(handle.is_at_rest());
        let (first, second) = GET.split_at(9);
        client.write_all(first).await.unwrap();
        assert!(poll_read_once(&mut guard).await.is_pending());
        assert!(!handle.is_at_rest(), "a head has begun");
        client.write_all(second).await.unwrap();
        assert!(poll_read_once(&mut guard).await.is_ready() && !handle.is_at_rest());
        assert!(poll_read_once(&mut guard).await.is_pending());
        assert!(!handle.is_at_rest(), "the parser has a request that nobody has seen");
        assert!(handle.begin().is_ok() && handle.is_at_rest());
        guard.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        assert!(!handle.is_at_rest(), "the answer has not left");
        guard.flush().await.unwrap();
        assert!(handle.is_at_rest());
        client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nx").await.unwrap();
        assert!(poll_read_once(&mut guard).await.is_ready() && handle.begin().is_ok());
        assert!(poll_read_once(&mut guard).await.is_pending());
        assert!(!handle.is_at_rest(), "a body is not whole");
        let (_client, server) = tokio::io::duplex(1024);
        let (mut guard, handle) = Guard::new(server, GuardLimits::default());
        assert!(poll_read_once(&mut guard).await.is_pending() && handle.is_at_rest());
        guard.shutdown().await.unwrap();
        assert!(!handle.is_at_rest(), "it ends");
    });
}

#[test]
fn bytes_behind_an_upgrade_wait_for_the_decision() {
    run(async {
        let (mut client, server) = tokio::io::duplex(1024);
        let (mut guard, handle) = Guard::new(server, GuardLimits::default());
        client.write_all(&[UPGRADE, TUNNEL_DATA].concat()).await.unwrap();
        let mut buf = vec![0; 1024];
        assert_eq!(guard.read(&mut buf).await.unwrap(), UPGRADE.len());
        let turn = handle.begin().unwrap();
        assert!(turn.offers_upgrade());
        for _ in 0..3 {
            assert!(poll_read_once(&mut guard).await.is_pending());
        }
        assert!(turn.tunnel());
        let read = guard.read(&mut buf).await.unwrap();
        assert_eq!(&buf[..read], TUNNEL_DATA);
        assert_eq!(handle.violation(), None);
    });
}

#[test]
fn a_request_without_an_offer_cannot_tunnel() {
    run(async {
        let (mut client, server) = tokio::io::duplex(1024);
        let (mut guard, handle) = Guard::new(server, GuardLimits::default());
        client.write_all(&[GET, b"GET /#x HTTP/1.1\r\nHost: a\r\n\r\n"].concat()).await.unwrap();
        let mut buf = vec![0; 1024];
        assert_eq!(guard.read(&mut buf).await.unwrap(), GET.len());
        assert!(!handle.begin().unwrap().tunnel());
        guard.read_exact(&mut buf[..14]).await.unwrap();
        assert_eq!(handle.begin().unwrap_err().reason(), Reason::AmbiguousPath);
    });
}

#[test]
fn a_declined_upgrade_goes_on_as_http() {
    for pipe in [1, 4096] {
        let outcome = serve(&[UPGRADE, GET, UPGRADE, TUNNEL_DATA].concat(), pipe);
        assert_eq!(reasons(&outcome.calls), [None, None, None, Some(Reason::MalformedRequest)]);
        assert_eq!(outcome.statuses(), ["200", "200", "200", "400"]);
    }
}

/// The whole way: 101 through hyper, bytes sent before and after it, and an end.
#[test]
fn an_accepted_upgrade_tunnels_bytes_as_they_are() {
    run(async {
        let (mut client, server) = tokio::io::duplex(16);
        let (guard, handle) = Guard::new(server, GuardLimits::default());
        let service = service_fn(move |mut request| {
            let turn = handle.begin().unwrap();
            let upgraded = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let mut stream = TokioIo::new(upgraded.await.unwrap());
                let mut buf = vec![0; 7];
                while let Ok(read @ 1..) = stream.read(&mut buf).await {
                    stream.write_all(&buf[..read]).await.unwrap();
                }
            });
            assert!(turn.tunnel());
            async { Ok::<_, Infallible>(switching()) }
        });
        let connection = builder().serve_connection(TokioIo::new(guard), service).with_upgrades();
        let talk = async {
            let data = TUNNEL_DATA.repeat(20);
            let (early, late) = data.split_at(5);
            client.write_all(&[UPGRADE, early].concat()).await.unwrap();
            assert!(read_head(&mut client).await.starts_with("HTTP/1.1 101"));
            let mut echo = vec![0; data.len()];
            let (mut read, mut write) = tokio::io::split(client);
            let (sent, received) = tokio::join!(write.write_all(late), read.read_exact(&mut echo));
            sent.unwrap();
            received.unwrap();
            assert_eq!(echo, data);
        };
        let (result, ()) = tokio::join!(connection, talk);
        result.unwrap();
    });
}

/// While an upgrade is undecided, a client that leaves ends the request, as it does elsewhere.
#[test]
fn a_client_that_leaves_at_the_crossroads_is_noticed() {
    run(async {
        let (mut client, server) = tokio::io::duplex(1024);
        let (guard, handle) = Guard::new(server, GuardLimits::default());
        let called = Arc::new(Notify::new());
        let service = service_fn(|_| {
            let turn = handle.begin().unwrap();
            called.notify_one();
            async move {
                std::future::pending::<()>().await;
                drop(turn);
                Ok::<_, Infallible>(switching())
            }
        });
        let connection = builder().half_close(false).serve_connection(TokioIo::new(guard), service);
        let leave = async {
            client.write_all(UPGRADE).await.unwrap();
            called.notified().await;
            drop(client);
        };
        let (result, ()) = tokio::join!(connection, leave);
        assert!(result.unwrap_err().is_incomplete_message());
    });
}

fn switching() -> Response<Empty<Bytes>> {
    let mut response = Response::new(Empty::new());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response
}

async fn poll_read_once<S: AsyncRead + Unpin>(guard: &mut Guard<S>) -> Poll<()> {
    poll_fn(|cx| {
        let mut bytes = [0; 1024];
        let read = Pin::new(&mut *guard).poll_read(cx, &mut ReadBuf::new(&mut bytes));
        Poll::Ready(read.map(|result| result.unwrap()))
    })
    .await
}
