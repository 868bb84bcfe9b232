//! Bodies: streamed both ways as they come, bounded where a bound is set, never cut off without a sign.

use std::time::Duration;

use crate::h2wire::{DATA, END_HEADERS, END_STREAM, H2, HEADERS, block};
use crate::recorder::{PATIENCE, Recorder};
use crate::setup::{Gateway, api};
use crate::wire::refused;

fn post(lines: &str) -> String {
    format!("POST /a HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n")
}

const POST: [(&str, &str); 4] =
    [(":method", "POST"), (":scheme", "http"), (":authority", "localhost"), (":path", "/a")];

/// The backend has the first part before the client sends the second.
#[tokio::test]
async fn a_request_body_is_passed_on_as_it_comes() {
    let recorder = Recorder::start().await;
    let gateway = Gateway::open(&recorder).await;
    let mut wire = gateway.wire().await;
    wire.send(post("Transfer-Encoding: chunked\r\n")).await;
    recorder.wait_for("the head", |request| request.target() == "/a").await;
    wire.send("5\r\nfirst\r\n").await;
    recorder.wait_for("the first chunk", |request| request.body == b"first").await;
    wire.send("6\r\nsecond\r\n0\r\n\r\n").await;
    assert_eq!(wire.answer().await.unwrap().status, 200);
    assert_eq!(recorder.only().body, b"firstsecond");

    recorder.forget();
    let mut h2 = H2::tls(gateway.tls).await;
    h2.send(HEADERS, END_HEADERS, 1, &block(&POST)).await;
    h2.send(DATA, 0, 1, b"first").await;
    recorder.wait_for("the first frame", |request| request.body == b"first").await;
    h2.send(DATA, END_STREAM, 1, b"second").await;
    assert_eq!(h2.outcome(1).await.answer().status, 200);
    assert_eq!(recorder.only().body, b"firstsecond");
}

/// The client has the first part before the backend sends the second.
#[tokio::test]
async fn a_response_body_is_passed_on_as_it_comes() {
    let (go, gate) = tokio::sync::watch::channel(false);
    let recorder = Recorder::scripted(move |mut conn| {
        let mut gate = gate.clone();
        async move {
            conn.request().await;
            conn.send(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
            )
            .await;
            conn.send(b"5\r\nfirst\r\n").await;
            gate.wait_for(|open| *open).await.unwrap();
            conn.send(b"6\r\nsecond\r\n0\r\n\r\n").await;
        }
    })
    .await;
    let gateway = Gateway::open(&recorder).await;
    let mut wire = gateway.wire().await;
    wire.send("GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(wire.head().await.unwrap().status, 200);
    assert_eq!(wire.chunk().await.unwrap(), b"first");
    let mut h2 = H2::plain(gateway.plain).await;
    h2.send(HEADERS, END_HEADERS | END_STREAM, 1, &block(&crate::h2wire::get("/a"))).await;
    assert!(h2.wait_for(DATA, 0).await);
    go.send_replace(true);
    assert_eq!(wire.chunk().await.unwrap(), b"second");
    assert_eq!(wire.chunk().await, None);
    assert_eq!(h2.outcome(1).await.answer().body, b"firstsecond");
}

/// The response may come while the request's body is still on its way.
#[tokio::test]
async fn both_directions_run_at_the_same_time() {
    let recorder = Recorder::scripted(|mut conn| async move {
        let head = conn.head().await.unwrap();
        conn.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nearly\r\n").await;
        conn.body(&head).await;
        conn.send(b"4\r\nlate\r\n0\r\n\r\n").await;
    })
    .await;
    let gateway = Gateway::open(&recorder).await;
    let mut wire = gateway.wire().await;
    wire.send(post("Transfer-Encoding: chunked\r\n")).await;
    assert_eq!(wire.head().await.unwrap().status, 200);
    assert_eq!(wire.chunk().await.unwrap(), b"early");
    wire.send("5\r\nhello\r\n0\r\n\r\n").await;
    assert_eq!(wire.chunk().await.unwrap(), b"late");
    assert_eq!(recorder.only().body, b"hello");
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_by_its_length_before_the_backend_hears_of_it() {
    let recorder = Recorder::start().await;
    let gateway = Gateway::with(&recorder, "limits: { body: 10B }\n").await;
    refused(&gateway.exchange(post("Content-Length: 11\r\n") + "hello world").await, 413, "VAL-043", "body");
    let mut fields = POST.to_vec();
    fields.push(("content-length", "11"));
    let answer = H2::plain(gateway.plain).await.request_with_body(1, &fields, b"hello world").await.answer();
    assert_eq!(answer.verdict(), "VAL-043 body");
    recorder.assert_untouched("too large");
    assert_eq!(gateway.exchange(post("Content-Length: 10\r\n") + "hello worl").await.status, 200);
}

#[tokio::test]
async fn a_body_over_the_limit_without_a_length_is_cut_off_and_never_complete() {
    let recorder = Recorder::start().await;
    let gateway = Gateway::with(&recorder, "limits: { body: 10B }\n").await;
    let chunked = post("Transfer-Encoding: chunked\r\n");
    refused(
        &gateway.exchange(format!("{chunked}b\r\nhello world\r\n0\r\n\r\n")).await,
        413,
        "VAL-043",
        "body",
    );
    let answer = H2::plain(gateway.plain).await.request_with_body(1, &POST, b"hello world").await.answer();
    assert_eq!(answer.verdict(), "VAL-043 body");
    assert!(recorder.requests().iter().all(|request| !request.complete && request.body.len() <= 10));
    assert_eq!(gateway.exchange(format!("{chunked}a\r\nhello worl\r\n0\r\n\r\n")).await.status, 200);
}

#[tokio::test]
async fn a_routes_own_limit_takes_the_place_of_the_general_one() {
    let recorder = Recorder::start().await;
    let routes = "routes: [{ match: { path: '/**' }, public: true, upstream: api, max_body: 20B }]\nlimits: { body: 10B }\n";
    let gateway = Gateway::start(&format!("{}{routes}", api(&recorder))).await;
    assert_eq!(gateway.exchange(post("Content-Length: 11\r\n") + "hello world").await.status, 200);
    let long = "x".repeat(21);
    refused(&gateway.exchange(post("Content-Length: 21\r\n") + &long).await, 413, "VAL-043", "body");
}

#[tokio::test]
async fn a_body_that_stops_arriving_times_out() {
    let recorder = Recorder::start().await;
    let gateway = Gateway::with(&recorder, "timeouts: { body_idle: 200ms }\n").await;
    let answer = gateway.exchange(post("Content-Length: 10\r\n") + "hello").await;
    refused(&answer, 408, "VAL-045", "body_timeout");
    let mut h2 = H2::plain(gateway.plain).await;
    h2.send(HEADERS, END_HEADERS, 1, &block(&POST)).await;
    h2.send(DATA, 0, 1, b"hello").await;
    assert_eq!(h2.outcome(1).await.answer().verdict(), "VAL-045 body_timeout");
    assert!(recorder.requests().iter().all(|request| !request.complete));
}

#[tokio::test]
async fn a_client_that_leaves_in_its_body_leaves_the_backend_an_incomplete_request() {
    let (told, mut ended) = tokio::sync::mpsc::unbounded_channel();
    let recorder = Recorder::scripted(move |mut conn| {
        let told = told.clone();
        async move {
            let head = conn.head().await.unwrap();
            told.send(conn.body(&head).await).unwrap();
        }
    })
    .await;
    let gateway = Gateway::open(&recorder).await;
    for lines in ["Content-Length: 20\r\n", "Transfer-Encoding: chunked\r\n"] {
        let mut wire = gateway.wire().await;
        wire.send(post(lines) + "5\r\nhello\r\n").await;
        recorder.wait_for("a part", |request| !request.body.is_empty()).await;
        drop(wire);
        let complete = tokio::time::timeout(PATIENCE, ended.recv()).await.unwrap().unwrap();
        assert!(!complete, "{lines}");
        recorder.forget();
    }
}

/// The upstream is told at once when nobody waits for its answer any more.
#[tokio::test]
async fn a_client_that_leaves_before_the_response_frees_the_upstream() {
    let (told, mut ended) = tokio::sync::mpsc::unbounded_channel();
    let recorder = Recorder::scripted(move |mut conn| {
        let told = told.clone();
        async move {
            conn.request().await;
            conn.until_closed().await;
            told.send(()).unwrap();
        }
    })
    .await;
    let gateway = Gateway::open(&recorder).await;
    let mut wire = gateway.wire().await;
    wire.send("GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    recorder.wait_for("the request", |request| request.complete).await;
    drop(wire);
    tokio::time::timeout(PATIENCE, ended.recv()).await.expect("the upstream connection stays open").unwrap();
}

#[tokio::test]
async fn responses_without_a_body_have_none_and_keep_their_length() {
    for (method, upstream, status) in [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n", 200),
        ("HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 200),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n", 204),
        ("GET", "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 1234\r\n\r\n", 304),
        ("GET", "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n", 304),
    ] {
        let recorder = Recorder::answering(upstream).await;
        let gateway = Gateway::open(&recorder).await;
        let mut wire = gateway.wire().await;
        // Twice on one connection: were there a body, the second answer would not be one.
        for _ in 0..2 {
            wire.send(format!("{method} /a HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
            let answer = wire.answer_to(method).await.unwrap();
            assert_eq!(answer.status, status, "{upstream}");
            if upstream.contains("1234") {
                assert!(answer.header("content-length").is_none_or(|length| length == "1234"), "{answer:?}");
            } else {
                assert_eq!(answer.header("content-length"), None, "{upstream}: {answer:?}");
            }
        }
        let fields = [(":method", method), (":scheme", "http"), (":authority", "localhost"), (":path", "/a")];
        let answer = H2::plain(gateway.plain).await.request(1, &fields).await.answer();
        assert_eq!((answer.status, answer.body.len()), (status, 0), "{upstream}");
    }
}

/// Trailers of responses, as gRPC has them, arrive at HTTP/1.1 clients that ask for them and at HTTP/2 clients.
#[tokio::test]
async fn trailers_of_responses_are_passed_on() {
    use http_body_util::{BodyExt, Empty};
    let recorder = Recorder::answering(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 42\r\n\r\n",
    )
    .await;
    let gateway = Gateway::open(&recorder).await;
    let answer = gateway.get("/a", "TE: trailers\r\nConnection: TE\r\n").await;
    assert_eq!(
        (&*answer.body, &*answer.trailers),
        (&b"ok"[..], &[("x-sum".to_owned(), "42".to_owned())][..]),
        "{answer:?}"
    );

    let stream = hyper_util::rt::TokioIo::new(gateway.wire().await.into_stream());
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, stream).await.unwrap();
    tokio::spawn(connection);
    let request =
        http::Request::get("http://localhost/a").header("te", "trailers").body(Empty::<bytes::Bytes>::new());
    let response = sender.send_request(request.unwrap()).await.unwrap();
    let collected = response.into_body().collect().await.unwrap();
    assert_eq!(collected.trailers().unwrap()["x-sum"], "42");
    assert_eq!(collected.to_bytes(), "ok");
}

#[tokio::test]
async fn a_slow_reader_does_not_make_the_gateway_hoard() {
    // The backend can send only as much as fits into buffers on the way; then it has to wait.
    let (told, sent) = tokio::sync::watch::channel(0_usize);
    let recorder = Recorder::scripted(move |mut conn| {
        let told = told.clone();
        async move {
            conn.request().await;
            conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 268435456\r\n\r\n").await;
            let chunk = vec![b'x'; 64 * 1024];
            for _ in 0..4096 {
                conn.send(&chunk).await;
                told.send_modify(|sent| *sent += chunk.len());
            }
        }
    })
    .await;
    let gateway = Gateway::open(&recorder).await;
    let mut wire = gateway.wire().await;
    wire.send("GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    wire.head().await.unwrap();
    let mut before = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = *sent.borrow();
        if now == before && now > 0 {
            break;
        }
        before = now;
    }
    assert!(
        before < 64 * 1024 * 1024,
        "{before} bytes were taken from the backend for a client that reads none"
    );
}

/// A gRPC server over HTTP/2, as the upstream: its status is in the trailers, or in a response of headers alone.
#[tokio::test]
async fn grpc_status_arrives_from_an_http2_upstream() {
    use http_body_util::{BodyExt, Full};
    use hyper::body::Frame;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service =
                hyper::service::service_fn(|request: http::Request<hyper::body::Incoming>| async move {
                    assert_eq!(request.headers()["te"], "trailers");
                    let only_trailers = request.uri().path() == "/a.B/Fails";
                    let sent = request.into_body().collect().await.unwrap().to_bytes();
                    let mut trailers = http::HeaderMap::new();
                    trailers.insert("grpc-status", if only_trailers { "5" } else { "0" }.parse().unwrap());
                    let mut response = http::Response::new(());
                    response.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
                    let mut frames = vec![Frame::data(sent), Frame::trailers(trailers.clone())];
                    if only_trailers {
                        frames.clear();
                        response.headers_mut().extend(trailers);
                    }
                    Ok::<_, std::convert::Infallible>(response.map(|()| Frames(frames.into_iter())))
                });
            let executor = hyper_util::rt::TokioExecutor::new();
            let io = hyper_util::rt::TokioIo::new(stream);
            tokio::spawn(hyper::server::conn::http2::Builder::new(executor).serve_connection(io, service));
        }
    });
    let gateway = Gateway::start(&format!(
        "upstreams: [{{ name: api, endpoints: ['http://{address}'], protocol: http2 }}]
routes: [{{ match: {{ path: '/**' }}, public: true, upstream: api }}]
"
    ))
    .await;
    let stream = hyper_util::rt::TokioIo::new(gateway.wire().await.into_stream());
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, stream).await.unwrap();
    tokio::spawn(connection);
    for (path, status) in [("/a.B/Works", "0"), ("/a.B/Fails", "5")] {
        let request = http::Request::post(format!("http://localhost{path}"))
            .header("te", "trailers")
            .header("content-type", "application/grpc")
            .body(Full::new(bytes::Bytes::from_static(b"\0\0\0\0\x01x")));
        let response = sender.send_request(request.unwrap()).await.unwrap();
        let in_head = response.headers().get("grpc-status").cloned();
        let collected = response.into_body().collect().await.unwrap();
        let in_trailers = collected.trailers().and_then(|trailers| trailers.get("grpc-status")).cloned();
        assert_eq!(in_head.or(in_trailers).unwrap(), status, "{path}");
        assert_eq!(collected.to_bytes().len(), if status == "0" { 6 } else { 0 });
    }
}

/// Frames that are there already.
pub struct Frames(pub std::vec::IntoIter<hyper::body::Frame<bytes::Bytes>>);

impl hyper::body::Body for Frames {
    type Data = bytes::Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<bytes::Bytes>, Self::Error>>> {
        std::task::Poll::Ready(self.0.next().map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.0.len() == 0
    }
}

/// HTTP/1.0 knows no chunks: its response ends with the connection.
#[tokio::test]
async fn an_http10_client_gets_no_chunks() {
    let recorder =
        Recorder::answering("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
            .await;
    let gateway = Gateway::open(&recorder).await;
    let answer = gateway.exchange("GET /a HTTP/1.0\r\nHost: localhost\r\n\r\n").await;
    assert_eq!((answer.status, &*answer.body, answer.header("transfer-encoding")), (200, &b"ok"[..], None));
}
