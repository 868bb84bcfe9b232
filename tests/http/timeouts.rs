//! How long a body and an answer may take as a whole: what trickles is ended with a truthful code, what is made to last
//! is not.

use std::time::Duration;

use crate::h2api::{H2Api, Manner};
use crate::h2wire::{DATA, END_HEADERS, END_STREAM, H2, HEADERS, block, get};
use crate::recorder::{PATIENCE, Recorder};
use crate::setup::{Gateway, api};
use crate::upstream::in_front_of;
use crate::wire::{Answer, refused};

const POST: [(&str, &str); 4] =
    [(":method", "POST"), (":scheme", "http"), (":authority", "localhost"), (":path", "/a")];

/// How often a byte trickles in: much sooner than any body is given up that pauses.
const DRIP: Duration = Duration::from_millis(20);

/// Sends a body of this length byte by byte, until there is an answer.
async fn trickle(gateway: &Gateway, path: &str, length: usize) -> Answer {
    let mut wire = gateway.wire().await;
    wire.send(format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n")).await;
    let mut sent = 0;
    loop {
        tokio::select! {
            biased;
            () = wire.readable() => return wire.answer().await.unwrap(),
            () = tokio::time::sleep(DRIP) => {}
        }
        if sent < length {
            wire.send(b"x").await;
            sent += 1;
        }
    }
}

/// The same over HTTP/2, with these fields and without an end.
async fn trickle_h2(gateway: &Gateway, fields: &[(&str, &str)]) -> Answer {
    let mut h2 = H2::plain(gateway.plain).await;
    h2.send(HEADERS, END_HEADERS, 1, &block(fields)).await;
    while !h2.is_over(1) {
        tokio::select! {
            biased;
            () = h2.wire.readable() => assert!(h2.step().await.is_some()),
            () = tokio::time::sleep(DRIP) => h2.send(DATA, 0, 1, b"x").await,
        }
    }
    h2.outcome(1).await.answer()
}

/// Each byte comes long before `body_idle` is over, and so would never end.
#[tokio::test]
async fn a_body_that_trickles_in_is_ended() {
    let recorder = Recorder::start().await;
    let more = "timeouts: { body_idle: 300ms }\nlimits: { body_rate: 1KiB }\n";
    let gateway = Gateway::with(&recorder, more).await;
    refused(&trickle(&gateway, "/a", 100_000).await, 408, "VAL-045", "body_rate");

    let answer = trickle_h2(&gateway, &POST).await;
    assert_eq!(answer.verdict(), "VAL-045 body_rate");
    assert!(recorder.requests().iter().all(|request| !request.complete && !request.body.is_empty()));
    let counted = gateway.metrics();
    assert!(counted.contains("code=\"VAL-045\",reason=\"body_rate\""), "{counted}");
}

/// The same body, where the operator asks for no rate, or for one that it has.
#[tokio::test]
async fn a_body_that_comes_fast_enough_or_may_be_slow_arrives() {
    for rate in ["0B", "2B"] {
        let recorder = Recorder::start().await;
        let more = format!("timeouts: {{ body_idle: 300ms }}\nlimits: {{ body_rate: {rate} }}\n");
        let gateway = Gateway::with(&recorder, &more).await;
        assert_eq!(trickle(&gateway, "/a", 40).await.status, 200, "{rate}");
        assert_eq!(recorder.only().body, [b'x'; 40]);
    }
}

/// The API takes its time to read: the client is not to blame, whose bytes nobody fetches.
#[tokio::test]
async fn a_body_that_the_api_is_slow_to_read_is_not_slow() {
    let recorder = Recorder::scripted(|mut conn| async move {
        let head = conn.head().await.unwrap();
        tokio::time::sleep(Duration::from_millis(1500)).await;
        conn.body(&head).await;
        conn.send(crate::recorder::OK).await;
    })
    .await;
    let more = "timeouts: { body_idle: 300ms }\nlimits: { body_rate: 1MiB }\n";
    let gateway = Gateway::with(&recorder, more).await;
    // More than fits into the buffers on the way.
    let size = 24 << 20;
    let mut wire = gateway.wire().await;
    wire.send(format!("POST /a HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n")).await;
    wire.send(vec![b'x'; size]).await;
    assert_eq!(wire.answer().await.unwrap().status, 200);
    assert_eq!(recorder.only().body.len(), size);
}

/// gRPC messages come when they come: until the API answers for as long as `body_idle`, after that without a bound.
#[tokio::test]
async fn the_messages_of_a_grpc_stream_may_be_few() {
    let api = H2Api::start(100, Manner::First).await;
    let gateway = Gateway::start(&format!(
        "upstreams: [{{ name: api, endpoints: ['{}'], protocol: http2, timeouts: {{ total: 300ms }} }}]
routes: [{{ match: {{ path: '/**' }}, public: true, upstream: api }}]
timeouts: {{ body_idle: 300ms }}
limits: {{ body_rate: 1MiB }}
",
        api.url()
    ))
    .await;
    let mut h2 = H2::plain(gateway.plain).await;
    let fields = [&POST[..], &[("content-type", "application/grpc"), ("te", "trailers")]].concat();
    h2.send(HEADERS, END_HEADERS, 1, &block(&fields)).await;
    h2.send(DATA, 0, 1, b"one").await;
    assert_eq!(h2.opened(1).await, 200);
    api.until("the first message", |calls| calls[0].body == b"one").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    h2.send(DATA, END_STREAM, 1, b"two").await;
    assert_eq!(h2.outcome(1).await.answer().body, b"ok");
    let call = &api.calls()[0];
    assert_eq!((&*call.body, call.is_whole), (&b"onetwo"[..], Some(true)));
}

/// That a client calls it gRPC does not let it trickle to an API that does not speak it.
#[tokio::test]
async fn a_body_that_says_it_is_grpc_may_not_trickle_to_another_api() {
    let recorder = Recorder::start().await;
    let more = "timeouts: { body_idle: 300ms }\nlimits: { body_rate: 1KiB }\n";
    let gateway = Gateway::with(&recorder, more).await;
    let fields = [&POST[..], &[("content-type", "application/grpc"), ("te", "trailers")]].concat();
    assert!(trickle_h2(&gateway, &fields).await.complete);
    assert!(recorder.requests().iter().all(|request| !request.complete));
    assert!(gateway.metrics().contains("code=\"VAL-045\",reason=\"body_rate\""));
}

/// Without a byte of the answer, and with bytes that come and come.
#[tokio::test]
async fn an_answer_that_is_not_whole_within_the_total_time_out_is_ended() {
    let silent = Recorder::scripted(|mut conn| async move {
        conn.request().await;
        conn.until_closed().await;
    })
    .await;
    let gateway = in_front_of(&silent.url(), ", timeouts: { total: 300ms }").await;
    refused(&gateway.get("/a", "").await, 504, "VAL-061", "total_timeout");
    let answer = H2::plain(gateway.plain).await.request(1, &get("/a")).await.answer();
    assert_eq!(answer.verdict(), "VAL-061 total_timeout");
    let called_grpc = gateway.get("/a", "Content-Type: application/grpc\r\n").await;
    // The API does not speak it.
    assert!(called_grpc.header("grpc-message").unwrap().starts_with("VAL-061"), "{called_grpc:?}");
    assert_eq!(silent.requests().len(), 3, "a time-out is not repeated");

    let (told, mut ended) = tokio::sync::mpsc::unbounded_channel();
    let endless = Recorder::scripted(move |mut conn| {
        let told = told.clone();
        async move {
            conn.request().await;
            conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n").await;
            while !conn.is_closed().await {
                conn.send(b"x").await;
                tokio::time::sleep(DRIP).await;
            }
            told.send(()).unwrap();
        }
    })
    .await;
    let gateway = in_front_of(&endless.url(), ", timeouts: { total: 300ms }").await;
    let answer = gateway.get("/a", "").await;
    assert_eq!((answer.status, answer.complete), (200, false), "{answer:?}");
    assert!(H2::plain(gateway.plain).await.request(1, &get("/a")).await.is_refusal());
    for _ in 0..2 {
        tokio::time::timeout(PATIENCE, ended.recv()).await.expect("the API is told").unwrap();
    }
    let counted = gateway.metrics();
    assert!(counted.contains("code=\"VAL-061\",reason=\"total_timeout\""), "{counted}");
}

/// The total time-out is over while the client is being waited for: that is told it, and not of the API.
#[tokio::test]
async fn a_request_that_takes_up_the_total_time_out_itself_is_told_so() {
    let recorder = Recorder::start().await;
    let gateway = in_front_of(&recorder.url(), ", timeouts: { total: 300ms }").await;
    let answer = gateway.exchange("POST /a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhi").await;
    refused(&answer, 408, "VAL-045", "body_rate");
    assert!(!recorder.only().complete);
}

/// A client that leaves the API next to none of the total time-out does not have it ejected for that.
#[tokio::test]
async fn an_api_is_not_to_blame_for_the_time_that_its_client_took() {
    let silent = Recorder::scripted(|mut conn| async move {
        conn.request().await;
        conn.until_closed().await;
    })
    .await;
    let gateway = in_front_of(&silent.url(), ", timeouts: { total: 2s }").await;
    let mut wire = gateway.wire().await;
    wire.send("POST /a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhel").await;
    tokio::time::sleep(Duration::from_millis(1300)).await;
    wire.send("lo").await;
    let status = wire.answer().await.unwrap().status;
    assert!(status == 504 || status == 408, "{status}");
    let counted = gateway.metrics();
    let blamed = counted.lines().find(|line| line.contains("kind=\"timeout\"") && !line.ends_with(" 0"));
    assert_eq!(blamed, None);
}

/// Neither the total time-out nor anything else ends what the API means to last.
#[tokio::test]
async fn what_is_made_to_last_has_no_total_time_out() {
    let recorder = Recorder::scripted(|mut conn| async move {
        conn.request().await;
        conn.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
        )
        .await;
        conn.send(b"5\r\nfirst\r\n").await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        conn.send(b"4\r\nlast\r\n0\r\n\r\n").await;
    })
    .await;
    let gateway = in_front_of(&recorder.url(), ", timeouts: { total: 200ms }").await;
    let answer = gateway.get("/events", "").await;
    assert_eq!((&*answer.body, answer.complete), (&b"firstlast"[..], true));
}

/// Large uploads over slow lines, and long reports, beside what is as fast as the rest.
#[tokio::test]
async fn a_route_may_bear_slower_bodies_than_the_rest_or_faster_ones_alone() {
    for (all, one, slow) in [("1KiB", "0B", "/one"), ("0B", "1KiB", "/other")] {
        let recorder = Recorder::start().await;
        let gateway = Gateway::start(&format!(
            "{}routes:
  - {{ match: {{ path: /one }}, public: true, upstream: api, body_rate: {one} }}
  - {{ match: {{ path: /other }}, public: true, upstream: api }}
timeouts: {{ body_idle: 300ms }}
limits: {{ body_rate: {all} }}
",
            api(&recorder)
        ))
        .await;
        let fast = if slow == "/one" { "/other" } else { "/one" };
        refused(&trickle(&gateway, fast, 100_000).await, 408, "VAL-045", "body_rate");
        assert!(recorder.requests().iter().all(|request| !request.complete), "{slow}");
        recorder.forget();
        assert_eq!(trickle(&gateway, slow, 40).await.status, 200, "{slow}");
        assert_eq!((recorder.only().body.len(), recorder.only().complete), (40, true), "{slow}");
    }
}

#[tokio::test]
async fn a_route_may_give_its_api_more_time_than_the_upstream_or_less() {
    let recorder = Recorder::scripted(|mut conn| async move {
        while conn.request().await.is_some() {
            tokio::time::sleep(Duration::from_millis(700)).await;
            conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhe").await;
            tokio::time::sleep(Duration::from_millis(700)).await;
            conn.send(b"re").await;
        }
    })
    .await;
    let gateway = Gateway::start(&format!(
        "upstreams:
  - {{ name: hasty, endpoints: ['{url}'], timeouts: {{ response: 300ms, total: 1s }} }}
  - {{ name: patient, endpoints: ['{url}'] }}
routes:
  - {{ match: {{ path: /hasty }}, public: true, upstream: hasty }}
  - {{ match: {{ path: /hasty/head }}, public: true, upstream: hasty, timeouts: {{ response: 1m }} }}
  - {{ match: {{ path: /hasty/long }}, public: true, upstream: hasty, timeouts: {{ response: 1m, total: 1m }} }}
  - {{ match: {{ path: /hasty/free }}, public: true, upstream: hasty, timeouts: {{ response: 1m, total: 0s }} }}
  - {{ match: {{ path: /patient }}, public: true, upstream: patient }}
  - {{ match: {{ path: /patient/head }}, public: true, upstream: patient, timeouts: {{ response: 300ms }} }}
  - {{ match: {{ path: /patient/total }}, public: true, upstream: patient, timeouts: {{ total: 300ms }} }}
",
        url = recorder.url()
    ))
    .await;
    for path in ["/hasty/long", "/hasty/free", "/patient"] {
        let answer = gateway.get(path, "").await;
        assert_eq!((&*answer.body, answer.complete), (&b"here"[..], true), "{path}");
    }
    let answer = gateway.get("/hasty/head", "").await;
    assert_eq!((&*answer.body, answer.complete), (&b"he"[..], false), "{answer:?}");
    refused(&gateway.get("/hasty", "").await, 504, "VAL-061", "response_timeout");
    refused(&gateway.get("/patient/head", "").await, 504, "VAL-061", "response_timeout");
    refused(&gateway.get("/patient/total", "").await, 504, "VAL-061", "total_timeout");
}

/// Impatience of a route says nothing of the endpoints, which are others' too.
#[tokio::test]
async fn a_route_that_is_less_patient_than_the_upstream_has_no_endpoint_ejected() {
    let slow = async || {
        Recorder::scripted(|mut conn| async move {
            conn.request().await;
            conn.until_closed().await;
        })
        .await
    };
    let (one, other) = (slow().await, slow().await);
    let gateway = Gateway::start(&format!(
        "upstreams:
  - name: api
    endpoints: ['{}', '{}']
    balancing: {{ method: round_robin }}
    timeouts: {{ total: 1h }}
    ejection: {{ consecutive_failures: 1, time: 1h, max_time: 1h }}
routes:
  - {{ match: {{ path: /head }}, public: true, upstream: api, timeouts: {{ response: 100ms }} }}
  - {{ match: {{ path: /total }}, public: true, upstream: api, timeouts: {{ total: 100ms }} }}
",
        one.url(),
        other.url()
    ))
    .await;
    for _ in 0..2 {
        refused(&gateway.get("/head", "").await, 504, "VAL-061", "response_timeout");
        refused(&gateway.get("/total", "").await, 504, "VAL-061", "total_timeout");
    }
    assert_eq!((one.requests().len(), other.requests().len()), (2, 2));
    let page = gateway.metrics();
    let states: Vec<_> = page.lines().filter(|line| line.contains("state=\"ejected\"")).collect();
    assert!(states.len() == 2 && states.iter().all(|line| line.ends_with(" 0.0")), "{states:?}");
}
