//! HTTP/2 towards an API that takes few streams at a time, or that cannot be reached.

use tokio::task::JoinSet;

use crate::h2api::{H2Api, LARGE, Manner};
use crate::h2server::H2Server;
use crate::recorder::Recorder;
use crate::setup::Gateway;
use crate::upstream::in_front_of;
use crate::wire::refused;

/// An API that never takes more streams than it has said, and many more requests at a time than that.
#[tokio::test]
async fn more_requests_than_streams_get_more_connections_and_all_an_answer() {
    for streams in [1, 2, 7] {
        let api = H2Api::start(streams, Manner::Last).await;
        let gateway = in_front_of(&api.url(), ", protocol: http2, retries: { attempts: 0 }").await;
        let mut asking = JoinSet::new();
        for place in 0..40 {
            let mut wire = gateway.wire().await;
            asking.spawn(async move {
                wire.send(format!("GET /{place} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
                wire.answer().await.unwrap().status
            });
        }
        // All of them are with the API before any is answered: none waits for another.
        api.until("all requests at once", |calls| calls.len() == 40).await;
        api.open();
        assert_eq!(asking.join_all().await, vec![200; 40], "{streams}");
        assert!(api.most_at_once() <= streams as usize, "{streams}");
        assert_eq!(api.connections(), 40_usize.div_ceil(streams as usize), "{streams}");

        // And the connections are used again.
        for _ in 0..10 {
            assert_eq!(gateway.get("/again", "").await.status, 200);
        }
        assert_eq!(api.connections(), 40_usize.div_ceil(streams as usize), "{streams}");
    }
}

/// More than the bound on connections: the rest wait for a stream, and get one.
#[tokio::test]
async fn requests_beyond_the_most_connections_wait_for_a_stream() {
    let api = H2Api::start(1, Manner::Last).await;
    let gateway = in_front_of(&api.url(), ", protocol: http2, timeouts: { connect: 15s }").await;
    let mut asking = JoinSet::new();
    for place in 0..100 {
        let mut wire = gateway.wire().await;
        asking.spawn(async move {
            wire.send(format!("GET /{place} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
            wire.answer().await.unwrap().status
        });
    }
    api.until("as many as there are connections", |calls| calls.len() == 64).await;
    api.open();
    assert_eq!(asking.join_all().await, vec![200; 100]);
    assert_eq!((api.connections(), api.most_at_once(), api.calls().len()), (64, 1, 100));
}

/// Where none comes free, the code says that the API is busy, and nothing of a time-out or a lost connection.
#[tokio::test]
async fn a_request_that_finds_no_stream_in_time_is_told_that_the_api_is_busy() {
    let api = H2Api::start(1, Manner::Last).await;
    let gateway = in_front_of(&api.url(), ", protocol: http2, timeouts: { connect: 500ms }").await;
    let mut held = Vec::new();
    for place in 0..64 {
        let mut wire = gateway.wire().await;
        wire.send(format!("GET /{place} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
        api.until("one more", |calls| calls.len() == place + 1).await;
        held.push(wire);
    }
    let answer = gateway.get("/late", "").await;
    refused(&answer, 503, "VAL-064", "upstream_busy");
    assert!(answer.header("retry-after").is_some());
    assert_eq!(api.calls().len(), 64);
    let counted = gateway.metrics();
    assert!(
        counted.contains("upstream_turned_away_total{upstream=\"api\",limit=\"pending\"} 1"),
        "{counted}"
    );
    api.open();
    for mut wire in held {
        assert_eq!(wire.answer().await.unwrap().status, 200);
    }
}

/// A client that goes away gives its stream back.
#[tokio::test]
async fn the_stream_of_a_client_that_left_is_free_again() {
    let api = H2Api::start(1, Manner::Last).await;
    let gateway = in_front_of(&api.url(), ", protocol: http2").await;
    for place in 0..5 {
        let mut wire = gateway.wire().await;
        wire.send(format!("GET /{place} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
        api.until("the request", |calls| calls.len() == place + 1).await;
        drop(wire);
        // Until the gateway has noticed, which shows in what it counts.
        api.until("it is told", |calls| calls[place].is_left).await;
    }
    assert_eq!(api.connections(), 1);
}

/// An API that has no more connections to give still has streams: those who wait get them, and no request is told of a
/// connection that nobody needs.
#[tokio::test]
async fn requests_get_the_streams_that_there_are_where_no_further_connection_is_to_be_had() {
    let api = H2Api::start(1, Manner::Last).await;
    let more = ", protocol: http2, timeouts: { connect: 15s }, ejection: { consecutive_failures: 1, max_percent: 100 }";
    let gateway = in_front_of(&api.url(), more).await;
    let mut asking = JoinSet::new();
    for place in 0..8 {
        let mut wire = gateway.wire().await;
        wire.send(format!("GET /{place} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
        if place == 0 {
            api.until("the first one", |calls| calls.len() == 1).await;
            api.is_full().await;
        }
        asking.spawn(async move { wire.answer().await.unwrap().status });
    }
    // Time to ask for a connection in vain.
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    api.open();
    assert_eq!(asking.join_all().await, vec![200; 8]);
    assert_eq!((api.connections(), api.most_at_once(), api.calls().len()), (1, 1, 8));
}

/// An API may take more streams than it first said, and then those who wait need not wait for one to come free.
#[tokio::test]
async fn requests_that_wait_for_a_stream_are_told_of_those_that_the_api_grants_later() {
    let server = H2Server::scripted(|mut conn| async move {
        conn.takes(u32::from(conn.place == 0)).await;
        let Some(first) = conn.request().await else { return };
        // Long enough for the gateway to find out that more connections are of no use.
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        conn.takes(10).await;
        let Some(second) = conn.request().await else { return };
        for stream in [second, first] {
            conn.answer(stream, b"ok").await;
        }
        conn.request().await;
    })
    .await;
    let gateway = in_front_of(&server.url(), ", protocol: http2, timeouts: { connect: 10s }").await;
    let (mut one, mut other) = (gateway.wire().await, gateway.wire().await);
    one.send("GET /first HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    while server.seen().is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    other.send("GET /second HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(other.answer().await.unwrap().status, 200);
    assert_eq!(one.answer().await.unwrap().status, 200);
}

/// An API that is restarted tells all its connections to take no more while requests are still on them. That is noticed
/// on each only when the next request is to go by it, and that one still gets to the API.
#[tokio::test]
async fn a_request_after_all_connections_were_told_to_take_no_more_gets_one_that_does() {
    let api = H2Api::start(2, Manner::Last).await;
    let gateway = in_front_of(&api.url(), ", protocol: http2").await;
    let mut held = Vec::new();
    for place in 0..6 {
        let mut wire = gateway.wire().await;
        wire.send(format!("GET /{place} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
        api.until("one more", |calls| calls.len() == place + 1).await;
        held.push(wire);
    }
    assert_eq!(api.connections(), 3);
    // One on each leaves, so that each has room.
    for place in [4, 2, 0] {
        drop(held.remove(place));
        api.until("it is told", |calls| calls[place].is_left).await;
    }
    api.go_away().await;
    let mut wire = gateway.wire().await;
    wire.send("GET /next HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    held.push(wire);
    let asking = async {
        let mut answers = Vec::new();
        for wire in &mut held {
            answers.push(wire.answer().await.unwrap().status);
        }
        answers
    };
    let opening = async {
        // A refusal would not get there.
        let came = api.until("the next one", |calls| calls.len() == 7);
        let _ = tokio::time::timeout(std::time::Duration::from_secs(3), came).await;
        api.open();
    };
    assert_eq!(tokio::join!(asking, opening).0, [200; 4]);
    assert_eq!((api.calls().len(), api.connections()), (7, 4));
}

/// An API that accepts connections and says nothing: each WebSocket waits for its turn to connect no longer than
/// for a connection, instead of all of them in a row.
#[tokio::test]
async fn websockets_do_not_queue_up_behind_a_connection_that_is_not_made() {
    let silent = Recorder::scripted(|mut conn| async move { conn.until_closed().await }).await;
    let gateway = Gateway::start(&format!(
        "upstreams:
  - name: api
    endpoints: ['https://{}']
    protocol: http2
    tls: {{ ca: ca.pem }}
    timeouts: {{ connect: 500ms }}
    retries: {{ attempts: 0 }}
routes: [{{ match: {{ path: '/**' }}, public: true, upstream: api }}]
",
        silent.address()
    ))
    .await;
    let mut asking = JoinSet::new();
    for _ in 0..30 {
        let mut wire = gateway.wire().await;
        asking.spawn(async move {
            wire.send(
                "GET /socket HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            )
            .await;
            wire.answer().await.unwrap()
        });
    }
    for answer in asking.join_all().await {
        refused(&answer, 504, "VAL-061", "connect_timeout");
    }
    // Each would have made one of its own, had it waited for all before it.
    assert!(silent.connections() < 10, "{}", silent.connections());
}

/// As an event goes to all subscribers at once: so many small messages are no flood.
#[tokio::test]
async fn a_message_on_each_of_many_streams_at_once_breaks_none_off() {
    let api = H2Api::start(1_000, Manner::Last).await;
    let gateway = in_front_of(&api.url(), ", protocol: http2").await;
    let mut asking = JoinSet::new();
    for place in 0..400 {
        let mut wire = gateway.wire().await;
        asking.spawn(async move {
            wire.send(format!("GET /{place} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
            wire.answer().await.map(|answer| (answer.status, answer.body))
        });
    }
    api.until("all requests at once", |calls| calls.len() == 400).await;
    api.open();
    assert_eq!(asking.join_all().await, vec![Some((200, b"ok".to_vec())); 400]);
    assert_eq!(api.connections(), 1);
}

/// What one client does not take in fills its own window, and not the one that all share.
#[tokio::test]
async fn a_client_that_does_not_read_holds_up_nobody_else_on_its_connection_to_the_api() {
    let api = H2Api::start(100, Manner::Last).await;
    api.open();
    let gateway = in_front_of(&api.url(), ", protocol: http2").await;
    let mut slow = Vec::new();
    for _ in 0..8 {
        let mut wire = gateway.wire().await;
        wire.send("GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        slow.push(wire);
    }
    api.until("all of them", |calls| calls.iter().filter(|call| call.path == "/large").count() == 8).await;
    for place in 0..100 {
        let answer = gateway.get(&format!("/{place}"), "").await;
        assert_eq!((answer.status, &*answer.body), (200, &b"ok"[..]), "{place}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(api.connections(), 1);
    // And they get all of it when they do.
    assert_eq!(slow[0].answer().await.unwrap().body.len(), LARGE);
}
