//! Several endpoints: who gets a request, who gets it again, who is left alone, and when all is full.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Frame;
use tokio::sync::Semaphore;

use crate::bodies::Frames;
use crate::h2server::H2Server;
use crate::h2wire::{END_HEADERS, END_STREAM, GOAWAY, HEADERS, RST_STREAM, block, frame};
use crate::recorder::{OK, PATIENCE, Recorder};
use crate::setup::Gateway;
use crate::upstream::nobody;
use crate::wire::refused;

/// A gateway with metrics in front of these endpoints, with these further fields of the upstream.
async fn in_front_of(urls: &[String], more: &str) -> Gateway {
    let urls = urls.join("', '");
    Gateway::start(&format!(
        "upstreams: [{{ name: api, endpoints: ['{urls}']{more} }}]
routes: [{{ match: {{ path: '/**' }}, public: true, upstream: api }}]
"
    ))
    .await
}

/// In turn, so that a test knows who is next.
const IN_TURN: &str = ", balancing: { method: round_robin }";

/// The value of a metric; its name with labels as they are written.
fn metric(gateway: &Gateway, name: &str) -> f64 {
    let page = gateway.metrics();
    let line = page.lines().find(|line| line.starts_with(name) && line[name.len()..].starts_with(' '));
    let line = line.unwrap_or_else(|| panic!("no {name} in\n{page}"));
    line[name.len()..].trim().parse().unwrap()
}

/// Asks again until the answer is as expected.
async fn until_status(gateway: &Gateway, status: u16) {
    let asked = async {
        while gateway.get("/a", "").await.status != status {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| panic!("never {status}"));
}

async fn post(gateway: &Gateway, body: &str) -> u16 {
    let length = body.len();
    let head = format!("POST /a HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n");
    gateway.exchange(head + body).await.status
}

/// Reads a whole request and closes without an answer.
async fn silent() -> Recorder {
    Recorder::scripted(|mut conn| async move {
        conn.request().await;
    })
    .await
}

#[tokio::test]
async fn endpoints_take_turns_by_weight() {
    let (one, two) = (Recorder::start().await, Recorder::start().await);
    let gateway = Gateway::start(&format!(
        "upstreams: [{{ name: api, endpoints: [{{ url: '{}', weight: 2 }}, '{}']{IN_TURN} }}]
routes: [{{ match: {{ path: '/**' }}, public: true, upstream: api }}]
",
        one.url(),
        two.url()
    ))
    .await;
    for _ in 0..6 {
        assert_eq!(gateway.get("/a", "").await.status, 200);
    }
    assert_eq!((one.requests().len(), two.requests().len()), (4, 2));
}

/// One endpoint holds its requests: by least request the other gets all that follow.
#[tokio::test]
async fn a_busy_endpoint_gets_fewer_requests() {
    let gate = Arc::new(Semaphore::new(0));
    let shared = Arc::clone(&gate);
    let slow = Recorder::scripted(move |mut conn| {
        let gate = Arc::clone(&shared);
        async move {
            while conn.request().await.is_some() {
                gate.acquire().await.unwrap().forget();
                conn.send(OK).await;
            }
        }
    })
    .await;
    let quick = Recorder::start().await;
    let gateway = in_front_of(&[slow.url(), quick.url()], "").await;
    let mut held = gateway.wire().await;
    while slow.requests().is_empty() {
        held = gateway.wire().await;
        held.send("GET /held HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        tokio::time::timeout(Duration::from_millis(50), slow.wait_for("it", |_| true)).await.ok();
    }
    for _ in 0..20 {
        assert_eq!(gateway.get("/a", "").await.status, 200);
    }
    assert_eq!(slow.requests().len(), 1);
    gate.add_permits(1);
    assert_eq!(held.answer().await.unwrap().status, 200);
}

/// Never sent, so safe to send elsewhere, whatever it asks for.
#[tokio::test]
async fn what_could_not_be_sent_goes_to_another_endpoint() {
    let (_socket, address) = nobody();
    let recorder = Recorder::start().await;
    let gateway = in_front_of(&[format!("http://{address}"), recorder.url()], IN_TURN).await;
    for _ in 0..4 {
        assert_eq!(gateway.get("/a", "").await.status, 200);
        assert_eq!(post(&gateway, "hello").await, 200);
    }
    assert_eq!(recorder.requests().len(), 8);
    assert!(
        recorder
            .requests()
            .iter()
            .filter(|request| request.line.starts_with("POST"))
            .all(|request| request.body == b"hello")
    );
    assert!(metric(&gateway, "valgate_upstream_retries_total{upstream=\"api\",result=\"sent\"}") >= 1.0);
    let failures = format!(
        "valgate_endpoint_failures_total{{upstream=\"api\",endpoint=\"{address}\",kind=\"connect\"}}"
    );
    assert!(metric(&gateway, &failures) >= 1.0);
}

#[tokio::test]
async fn what_was_lost_goes_to_another_endpoint_only_if_it_is_idempotent() {
    let (dying, living) = (silent().await, Recorder::start().await);
    let gateway = in_front_of(
        &[dying.url(), living.url()],
        &format!("{IN_TURN}, ejection: {{ consecutive_failures: 0 }}"),
    )
    .await;
    let body = "x".repeat(1000);
    for (method, status) in [("GET", 200), ("PUT", 200), ("DELETE", 200), ("POST", 502), ("PATCH", 502)] {
        dying.forget();
        living.forget();
        let mut statuses = Vec::new();
        for _ in 0..2 {
            let head = format!("{method} /a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n");
            statuses.push(gateway.exchange(head + &body).await.status);
        }
        statuses.sort_unstable();
        assert_eq!(statuses, [200, status], "{method}");
        assert_eq!(dying.requests().len(), 1, "{method}");
        let sent = living.requests();
        assert_eq!(sent.len(), if status == 200 { 2 } else { 1 }, "{method}");
        assert!(sent.iter().all(|request| request.complete && request.body == body.as_bytes()), "{method}");
    }
}

#[tokio::test]
async fn a_body_that_was_not_kept_is_not_sent_again() {
    let (dying, living) = (silent().await, Recorder::start().await);
    let more = format!("{IN_TURN}, retries: {{ buffer: 999B }}").replace("999B", "999");
    let gateway = in_front_of(&[dying.url(), living.url()], &more).await;
    let mut statuses = Vec::new();
    for _ in 0..2 {
        let head = "PUT /a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n";
        statuses.push(gateway.exchange(head.to_owned() + &"x".repeat(1000)).await.status);
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 502]);
    assert_eq!(living.requests().len(), 1);
}

#[tokio::test]
async fn without_a_budget_nothing_is_sent_again() {
    let (_socket, address) = nobody();
    let recorder = Recorder::start().await;
    let more = format!(
        "{IN_TURN}, retries: {{ budget_percent: 0, budget_min: 0 }}, ejection: {{ consecutive_failures: 0 }}"
    );
    let gateway = in_front_of(&[format!("http://{address}"), recorder.url()], &more).await;
    let mut statuses = [gateway.get("/a", "").await.status, gateway.get("/a", "").await.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 502]);
    let over_budget = "valgate_upstream_retries_total{upstream=\"api\",result=\"over_budget\"}";
    assert_eq!(metric(&gateway, over_budget).to_bits(), 1.0_f64.to_bits());
}

#[tokio::test]
async fn statuses_are_repeated_where_they_are_configured() {
    let broken = Recorder::answering("HTTP/1.1 503 Broken\r\nContent-Length: 0\r\n\r\n").await;
    let recorder = Recorder::start().await;
    let urls = [broken.url(), recorder.url()];
    let calm = format!("{IN_TURN}, ejection: {{ consecutive_failures: 0 }}");
    let gateway = in_front_of(&urls, &format!("{calm}, retries: {{ statuses: [503] }}")).await;
    for _ in 0..2 {
        assert_eq!(gateway.get("/a", "").await.status, 200);
    }
    let mut statuses = [post(&gateway, "").await, post(&gateway, "").await];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 503], "POST is not idempotent");
    let gateway = in_front_of(&urls, &calm).await;
    let mut statuses = [gateway.get("/a", "").await.status, gateway.get("/a", "").await.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 503], "not configured");
}

#[tokio::test]
async fn grpc_unavailable_is_repeated_where_it_is_configured() {
    for (field, calls) in [("", [14, 200]), (", retries: { grpc_unavailable: true }", [200, 200])] {
        let unavailable = H2Server::scripted(|mut conn| async move {
            conn.settings().await;
            while let Some(stream) = conn.request().await {
                let fields = block(&[("content-type", "application/grpc"), ("grpc-status", "14")]);
                let fields = [&[0x88], &*fields].concat();
                conn.send(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &fields)).await;
            }
        })
        .await;
        let well = H2Server::scripted(|mut conn| async move {
            conn.settings().await;
            while let Some(stream) = conn.request().await {
                conn.answer(stream, b"ok").await;
            }
        })
        .await;
        let more = format!("{IN_TURN}, protocol: http2{field}");
        let gateway = in_front_of(&[unavailable.url(), well.url()], &more).await;
        let mut seen = Vec::new();
        for _ in 0..2 {
            let head = "POST /a.B/C HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/grpc\r\nContent-Length: 5\r\n\r\nhello";
            let answer = gateway.exchange(head).await;
            seen.push(answer.header("grpc-status").map_or(answer.status, |status| status.parse().unwrap()));
        }
        seen.sort_unstable();
        assert_eq!(seen, calls);
        assert!(well.seen().iter().all(|request| request.body == b"hello"));
    }
}

/// What an HTTP/2 upstream refuses unprocessed is sent again, even to the same endpoint and whatever it asks for.
#[tokio::test]
async fn http2_requests_that_were_not_processed_are_sent_again() {
    let refusals: [fn(u32) -> Vec<u8>; 2] = [
        // RST_STREAM with REFUSED_STREAM.
        |stream| frame(RST_STREAM, 0, stream, &7_u32.to_be_bytes()),
        // GOAWAY with NO_ERROR that leaves this stream out.
        |_| frame(GOAWAY, 0, 0, &[0; 8]),
    ];
    for refusal in refusals {
        let server = H2Server::scripted(move |mut conn| async move {
            conn.settings().await;
            let mut is_first = conn.place == 0;
            while let Some(stream) = conn.request().await {
                if std::mem::take(&mut is_first) {
                    conn.send(&refusal(stream)).await;
                } else {
                    conn.answer(stream, b"ok").await;
                }
            }
        })
        .await;
        let gateway = in_front_of(&[server.url()], ", protocol: http2").await;
        assert_eq!(post(&gateway, "hello").await, 200);
        let bodies: Vec<_> = server.seen().into_iter().map(|request| request.body).collect();
        assert_eq!(bodies, [b"hello", b"hello"]);
    }
}

/// Another `RST_STREAM` says nothing of the kind.
#[tokio::test]
async fn an_http2_request_that_may_have_been_processed_is_not_sent_again() {
    let server = H2Server::scripted(|mut conn| async move {
        conn.settings().await;
        while let Some(stream) = conn.request().await {
            conn.send(&frame(RST_STREAM, 0, stream, &2_u32.to_be_bytes())).await;
        }
    })
    .await;
    let gateway = in_front_of(&[server.url()], ", protocol: http2").await;
    assert_eq!(post(&gateway, "hello").await, 502);
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn an_endpoint_that_fails_in_a_row_is_ejected_and_the_last_ones_never() {
    let broken = Recorder::answering("HTTP/1.1 502 Broken\r\nContent-Length: 0\r\n\r\n").await;
    let recorder = Recorder::start().await;
    let more = format!("{IN_TURN}, ejection: {{ consecutive_failures: 3, time: 1h, max_time: 1h }}");
    let gateway = in_front_of(&[broken.url(), recorder.url()], &more).await;
    for _ in 0..20 {
        gateway.get("/a", "").await;
    }
    assert_eq!((broken.requests().len(), recorder.requests().len()), (3, 17));
    let endpoint = broken.address();
    let ejected =
        format!("valgate_endpoint_addresses{{upstream=\"api\",endpoint=\"{endpoint}\",state=\"ejected\"}}");
    assert_eq!(metric(&gateway, &ejected).to_bits(), 1.0_f64.to_bits());
    // An only one is not, or nothing would be left.
    let gateway = in_front_of(&[broken.url()], &more).await;
    broken.forget();
    for _ in 0..10 {
        assert_eq!(gateway.get("/a", "").await.status, 502);
    }
    assert_eq!(broken.requests().len(), 10);
}

/// It is not the less broken for a total time-out that is over before the response time-out would be.
#[tokio::test]
async fn an_endpoint_that_never_answers_within_the_total_time_out_is_ejected() {
    let hanging = Recorder::scripted(|mut conn| async move {
        conn.request().await;
        conn.until_closed().await;
    })
    .await;
    let recorder = Recorder::start().await;
    let more = format!(
        "{IN_TURN}, timeouts: {{ total: 2s }}, ejection: {{ consecutive_failures: 2, time: 1h, max_time: 1h }}"
    );
    let gateway = in_front_of(&[hanging.url(), recorder.url()], &more).await;
    for _ in 0..10 {
        gateway.get("/a", "").await;
    }
    assert_eq!((hanging.requests().len(), recorder.requests().len()), (2, 8));
    let failures = "valgate_endpoint_failures_total{upstream=\"api\",endpoint=";
    let address = hanging.address();
    assert_eq!(
        metric(&gateway, &format!("{failures}\"{address}\",kind=\"timeout\"}}")).to_bits(),
        2_f64.to_bits()
    );
}

#[tokio::test]
async fn an_ejected_endpoint_is_tried_again_after_its_time() {
    let is_well = Arc::new(AtomicBool::new(false));
    let shared = Arc::clone(&is_well);
    let recorder = Recorder::scripted(move |mut conn| {
        let is_well = Arc::clone(&shared);
        async move {
            while conn.request().await.is_some() && is_well.load(Ordering::SeqCst) {
                conn.send(OK).await;
            }
        }
    })
    .await;
    let more = ", ejection: { consecutive_failures: 1, time: 50ms, max_percent: 100 }";
    let gateway = in_front_of(&[recorder.url()], more).await;
    assert_eq!(gateway.get("/a", "").await.verdict(), "VAL-060 reset");
    let answer = gateway.get("/a", "").await;
    if answer.verdict() != "VAL-060 reset" {
        // Not slower than the ejection, as it usually is not.
        refused(&answer, 503, "VAL-063", "no_healthy_endpoint");
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
    is_well.store(true, Ordering::SeqCst);
    until_status(&gateway, 200).await;
}

/// An endpoint whose `/healthz` answers as a test says, and everything else with 200.
async fn with_health(status: &Arc<AtomicUsize>) -> Recorder {
    let shared = Arc::clone(status);
    Recorder::scripted(move |mut conn| {
        let status = Arc::clone(&shared);
        async move {
            while let Some(request) = conn.request().await {
                let status = if request.target() == "/healthz" { status.load(Ordering::SeqCst) } else { 200 };
                conn.send(format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n").as_bytes()).await;
            }
        }
    })
    .await
}

const CHECK: &str = ", health_check: { path: /healthz, interval: 100ms, timeout: 100ms }";

#[tokio::test]
async fn an_unhealthy_endpoint_gets_no_requests_and_a_healthy_one_does_again() {
    let (one, two) = (Arc::new(AtomicUsize::new(500)), Arc::new(AtomicUsize::new(204)));
    let (first, second) = (with_health(&one).await, with_health(&two).await);
    let gateway = in_front_of(&[first.url(), second.url()], CHECK).await;
    let address = first.address();
    let unhealthy =
        format!("valgate_endpoint_addresses{{upstream=\"api\",endpoint=\"{address}\",state=\"unhealthy\"}}");
    let told = async {
        while metric(&gateway, &unhealthy) < 1.0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, told).await.unwrap();
    first.forget();
    for _ in 0..20 {
        assert_eq!(gateway.get("/a", "").await.status, 200);
    }
    assert!(first.requests().iter().all(|request| request.target() == "/healthz"));
    two.store(404, Ordering::SeqCst);
    until_status(&gateway, 503).await;
    refused(&gateway.get("/a", "").await, 503, "VAL-063", "no_healthy_endpoint");
    one.store(299, Ordering::SeqCst);
    until_status(&gateway, 200).await;
}

#[tokio::test]
async fn in_a_panic_unhealthy_endpoints_are_used_all_the_same() {
    let status = Arc::new(AtomicUsize::new(500));
    let recorder = with_health(&status).await;
    let gateway =
        in_front_of(&[recorder.url()], &format!("{CHECK}, balancing: {{ panic_percent: 1 }}")).await;
    recorder.wait_for("three checks", |request| request.connection >= 2).await;
    assert_eq!(gateway.get("/a", "").await.status, 200);
}

/// A backend that answers when it is told to.
async fn holding(gate: &Arc<Semaphore>) -> Recorder {
    let gate = Arc::clone(gate);
    Recorder::scripted(move |mut conn| {
        let gate = Arc::clone(&gate);
        async move {
            while conn.request().await.is_some() {
                gate.acquire().await.unwrap().forget();
                conn.send(OK).await;
            }
        }
    })
    .await
}

#[tokio::test]
async fn more_requests_than_the_upstream_may_have_are_turned_away_at_once() {
    let gate = Arc::new(Semaphore::new(0));
    let recorder = holding(&gate).await;
    let gateway = in_front_of(&[recorder.url()], ", limits: { requests: 2 }").await;
    let mut held = [gateway.wire().await, gateway.wire().await];
    for (n, wire) in held.iter_mut().enumerate() {
        wire.send(format!("GET /{n} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
        recorder.wait_for("it", |request| request.target() == format!("/{n}")).await;
    }
    let answer = gateway.get("/more", "").await;
    refused(&answer, 503, "VAL-064", "upstream_busy");
    assert_eq!(answer.header("retry-after"), Some("1"));
    gate.add_permits(10);
    for wire in &mut held {
        assert_eq!(wire.answer().await.unwrap().status, 200);
    }
    until_status(&gateway, 200).await;
    assert!(!recorder.requests().iter().any(|request| request.target() == "/more"));
    let turned_away = "valgate_upstream_turned_away_total{upstream=\"api\",limit=\"requests\"}";
    assert!(metric(&gateway, turned_away) >= 1.0);
}

#[tokio::test]
async fn requests_wait_for_a_connection_and_no_more_than_may() {
    let gate = Arc::new(Semaphore::new(0));
    let recorder = holding(&gate).await;
    let gateway = in_front_of(&[recorder.url()], ", limits: { connections: 1, pending: 1 }").await;
    let mut first = gateway.wire().await;
    first.send("GET /first HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    recorder.wait_for("the first", |request| request.target() == "/first").await;
    // Which of the two comes first is open: one waits, one is turned away.
    let (mut second, mut third) = (gateway.wire().await, gateway.wire().await);
    second.send("GET /more HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    third.send("GET /more HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let (turned_away, mut waiting) = tokio::select! {
        answer = second.answer() => (answer, third),
        answer = third.answer() => (answer, second),
    };
    refused(&turned_away.unwrap(), 503, "VAL-064", "upstream_busy");
    gate.add_permits(10);
    assert_eq!(first.answer().await.unwrap().status, 200);
    assert_eq!(waiting.answer().await.unwrap().status, 200);
    assert_eq!((recorder.requests().len(), recorder.connections()), (2, 1));
}

/// `localhost` is 127.0.0.1 and, on most hosts, `::1` as well, where nobody listens here.
#[tokio::test]
async fn a_name_is_resolved_and_the_family_that_can_be_reached_is_used() {
    let recorder = Recorder::start().await;
    let url = format!("http://localhost:{}", recorder.address().port());
    let gateway = in_front_of(&[url], ", resolve_interval: 1s").await;
    for _ in 0..5 {
        assert_eq!(gateway.get("/a", "").await.status, 200);
    }
    let other = in_front_of(&["http://no-such-name.invalid:80".to_owned()], "").await;
    refused(&other.get("/a", "").await, 502, "VAL-060", "resolve");
}

#[tokio::test]
async fn too_many_requests_in_the_gateway_are_shed() {
    let gate = Arc::new(Semaphore::new(0));
    let recorder = holding(&gate).await;
    let gateway = Gateway::with(&recorder, "overload: { requests: 1 }\n").await;
    let mut first = gateway.wire().await;
    first.send("GET /first HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    recorder.wait_for("the first", |request| request.target() == "/first").await;
    let answer = gateway.get("/more", "").await;
    refused(&answer, 503, "VAL-064", "overloaded");
    assert_eq!(answer.header("retry-after"), Some("1"));
    gate.add_permits(1);
    assert_eq!(first.answer().await.unwrap().status, 200);
    assert_eq!(recorder.only().target(), "/first");
}

#[tokio::test]
async fn a_request_in_line_is_served_when_there_is_room_and_one_whose_client_left_is_not() {
    let gate = Arc::new(Semaphore::new(0));
    let recorder = holding(&gate).await;
    let gateway = Gateway::with(&recorder, "overload: { requests: 1, delay: 1h }\n").await;
    let mut wires = Vec::new();
    for (target, in_line) in
        [("/first", 0.0), ("/leaves", 1.0), ("/second", 2.0), ("/third", 3.0), ("/fourth", 4.0)]
    {
        let mut wire = gateway.wire().await;
        wire.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
        recorder.wait_for("the first", |request| request.target() == "/first").await;
        while metric(&gateway, "valgate_requests_in_line{}") < in_line {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        wires.push(wire);
    }
    // No more may stand in line.
    refused(&gateway.get("/more", "").await, 503, "VAL-064", "overloaded");
    drop(wires.remove(1));
    for mut wire in wires {
        gate.add_permits(1);
        assert_eq!(wire.answer().await.unwrap().status, 200);
    }
    let targets: Vec<_> = recorder.requests().iter().map(|request| request.target().to_owned()).collect();
    assert_eq!(targets, ["/first", "/second", "/third", "/fourth"]);
}

/// Announced fields arrive behind the body, by whichever versions; what nobody announced or the gateway alone says
/// does not.
#[tokio::test]
async fn request_trailers_pass() {
    let recorder = Recorder::start().await;
    let gateway = in_front_of(&[recorder.url()], "").await;
    let head = "POST /h1 HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, X-Forwarded-For\r\n\r\n";
    let tail = "5\r\nhello\r\n0\r\nX-Sum: 42\r\nX-Forwarded-For: 6.6.6.6\r\nX-Unannounced: 1\r\n\r\n";
    assert_eq!(gateway.exchange(format!("{head}{tail}")).await.status, 200);
    assert_eq!(by_http2(gateway.plain, Some("5")).await, 200);
    assert_eq!(by_http2(gateway.plain, None).await, 200);
    for request in recorder.requests() {
        assert!(request.complete, "{request:?}");
        assert_eq!(
            (&*request.body, &*request.trailers),
            (&b"hello"[..], &[("x-sum".to_owned(), "42".to_owned())][..])
        );
        assert_eq!(request.value("trailer"), "x-sum");
    }
    assert_eq!(recorder.requests().len(), 3);

    let server = H2Server::scripted(|mut conn| async move {
        conn.settings().await;
        while let Some(stream) = conn.request().await {
            conn.answer(stream, b"ok").await;
        }
    })
    .await;
    let gateway = in_front_of(&[server.url()], ", protocol: http2").await;
    assert_eq!(gateway.exchange(format!("{head}{tail}")).await.status, 200);
    assert_eq!(by_http2(gateway.plain, Some("5")).await, 200);
    assert!(server.seen().iter().all(|request| request.has_trailers && request.body == b"hello"));
    assert_eq!(server.seen().len(), 2);
}

/// A POST of `hello` with trailers by HTTP/2; its status.
async fn by_http2(address: SocketAddr, length: Option<&str>) -> u16 {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    let driver = tokio::spawn(connection);
    let mut trailers = http::HeaderMap::new();
    trailers.insert("x-sum", "42".parse().unwrap());
    trailers.insert("x-unannounced", "1".parse().unwrap());
    let frames = [Frame::data(bytes::Bytes::from("hello")), Frame::trailers(trailers)];
    let body = Frames(frames.into_iter().collect::<Vec<_>>().into_iter());
    let mut request = http::Request::post("http://localhost/h2").header("trailer", "x-sum");
    if let Some(length) = length {
        request = request.header("content-length", length);
    }
    let response = sender.send_request(request.body(body).unwrap()).await.unwrap();
    let status = response.status().as_u16();
    response.into_body().collect().await.unwrap();
    driver.abort();
    status
}
