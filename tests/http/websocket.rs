//! A WebSocket over HTTP/2 (RFC 8441), to APIs of either version; and the end of one on which nothing passes.

use std::convert::Infallible;
use std::net::SocketAddr;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::h2wire::{DATA, END_HEADERS, END_STREAM, H2, HEADERS, Outcome, block};
use crate::recorder::{Conn, OK, Recorded, Recorder};
use crate::setup::Gateway;

const ENABLE_CONNECT_PROTOCOL: u16 = 8;

/// The head of an extended CONNECT for this path and protocol.
fn connect<'a>(path: &'a str, protocol: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        (":method", "CONNECT"),
        (":protocol", protocol),
        (":scheme", "http"),
        (":authority", "localhost"),
        (":path", path),
        ("sec-websocket-version", "13"),
        ("sec-websocket-protocol", "chat"),
        ("origin", "http://localhost"),
    ]
}

pub fn accept(request: &Recorded) -> String {
    let proof = format!("{}258EAFA5-E914-47DA-95CA-C5AB0DC85B11", request.value("sec-websocket-key"));
    base64::engine::general_purpose::STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, proof.as_bytes()))
}

/// A backend that takes a WebSocket, greets, and echoes; what is no handshake it answers.
pub async fn echoing() -> Recorder {
    Recorder::scripted(|mut conn: Conn| async move {
        let Some(request) = conn.request().await else { return };
        if !request.has("upgrade") {
            conn.send(OK).await;
            return;
        }
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Accept: {}\r\n\r\n",
            accept(&request)
        );
        conn.send(&[head.as_bytes(), b"\x81\x05hello"].concat()).await;
        conn.echo().await;
    })
    .await
}

#[tokio::test]
async fn one_is_carried_both_ways_beside_other_streams() {
    let recorder = echoing().await;
    let gateway = Gateway::open(&recorder).await;
    for over_tls in [false, true] {
        recorder.forget();
        let mut h2 = if over_tls { H2::tls(gateway.tls).await } else { H2::plain(gateway.plain).await };
        h2.send(HEADERS, END_HEADERS, 1, &block(&connect("/socket?a=b", "websocket"))).await;
        assert_eq!(h2.opened(1).await, 200);
        assert_eq!(h2.settings.get(&ENABLE_CONNECT_PROTOCOL), Some(&1));
        h2.received(1, b"\x81\x05hello").await;
        h2.send(DATA, 0, 1, b"\x81\x82\x00\x00\x00\x00up").await;
        h2.received(1, b"\x81\x82\x00\x00\x00\x00up").await;
        assert_eq!(h2.request(3, &crate::h2wire::get("/beside")).await.answer().body, b"ok");
        h2.send(DATA, END_STREAM, 1, b"").await;
        assert!(h2.outcome(1).await.answer().complete, "its end");

        let socket = recorder.requests().remove(0);
        assert_eq!(socket.line, "GET /socket?a=b HTTP/1.1");
        assert_eq!((socket.value("upgrade"), socket.value("connection")), ("websocket", "upgrade"));
        assert_eq!(socket.value("sec-websocket-protocol"), "chat");
        assert_eq!((socket.value("host"), socket.value("origin")), ("localhost", "http://localhost"));
        assert!(!socket.has("transfer-encoding") && !socket.has("content-length"), "{socket:?}");
    }
}

#[tokio::test]
async fn a_connect_for_anything_else_reaches_nobody() {
    let recorder = echoing().await;
    let gateway = Gateway::open(&recorder).await;
    let plain = [(":method", "CONNECT"), (":authority", "localhost")];
    let answer = H2::plain(gateway.plain).await.request(1, &plain).await.answer();
    assert_eq!(answer.verdict(), "VAL-047 method");
    for protocol in ["connect-udp", "WebSocket", "websocket, h2c", ""] {
        let outcome = H2::plain(gateway.plain).await.request(1, &connect("/a", protocol)).await;
        match outcome {
            Outcome::Answer(answer) => assert_eq!(answer.verdict(), "VAL-047 method"),
            other => assert!(other.is_refusal() && protocol.is_empty(), "{protocol:?}: {other:?}"),
        }
    }
    let mut get = connect("/a", "websocket");
    get[0].1 = "GET";
    assert!(matches!(H2::plain(gateway.plain).await.request(1, &get).await, Outcome::Reset(1)));
    for missing in [":path", ":scheme"] {
        let fields: Vec<_> =
            connect("/a", "websocket").into_iter().filter(|(name, _)| *name != missing).collect();
        assert!(H2::plain(gateway.plain).await.request(1, &fields).await.is_refusal(), "{missing}");
    }
    for path in ["/a/../b", "/a//b", "/%2e%2e/b"] {
        let answer = H2::plain(gateway.plain).await.request(1, &connect(path, "websocket")).await.answer();
        assert_eq!(answer.verdict(), "VAL-042 ambiguous_path", "{path}");
    }
    recorder.assert_untouched("CONNECT");
}

#[tokio::test]
async fn it_is_not_offered_where_no_route_takes_one() {
    let recorder = Recorder::start().await;
    let yaml = "routes: [{ match: { path: '/**', methods: [POST] }, public: true, upstream: api }]\n";
    let gateway = Gateway::start(&format!("{}{yaml}", crate::setup::api(&recorder))).await;
    let mut h2 = H2::plain(gateway.plain).await;
    let outcome = h2.request(1, &connect("/a", "websocket")).await;
    assert!(matches!(outcome, Outcome::Reset(1)), "PROTOCOL_ERROR, not {outcome:?}");
    assert_eq!(h2.settings.get(&ENABLE_CONNECT_PROTOCOL), None);
    recorder.assert_untouched("CONNECT");
}

/// A 2xx opens the WebSocket for the client, so only an API that has opened it may say so.
#[tokio::test]
async fn an_api_that_does_not_open_it_is_not_taken_to_have() {
    let open = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n";
    for (answer, expected) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_owned(), "VAL-062 bad_response"),
        (format!("{open}\r\n"), "VAL-062 bad_response"),
        (format!("{open}Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"), "VAL-062 bad_response"),
        ("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno".to_owned(), "403"),
        ("HTTP/1.1 307 Elsewhere\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n".to_owned(), "307"),
    ] {
        let recorder = Recorder::answering(answer.clone()).await;
        let gateway = Gateway::open(&recorder).await;
        let mut h2 = H2::plain(gateway.plain).await;
        h2.send(HEADERS, END_HEADERS, 1, &block(&connect("/a", "websocket"))).await;
        assert_eq!(h2.outcome(1).await.answer().verdict(), expected, "{answer:?}");
    }
}

#[tokio::test]
async fn one_on_which_nothing_passes_is_closed() {
    let recorder = echoing().await;
    let gateway = Gateway::with(&recorder, "timeouts: { websocket_idle: 300ms }\n").await;
    let mut h2 = H2::plain(gateway.plain).await;
    h2.send(HEADERS, END_HEADERS, 1, &block(&connect("/a", "websocket"))).await;
    assert_eq!(h2.opened(1).await, 200);
    // Going away (RFC 6455 section 7.4.1).
    let close = b"\x88\x06\x03\xe9idle";
    let answer = h2.outcome(1).await.answer();
    assert!(answer.complete && answer.body.ends_with(close), "{:?}", answer.body);

    let mut wire = gateway.wire().await;
    wire.send(
        "GET /a HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    )
    .await;
    let all = wire.rest().await;
    assert!(all.starts_with(b"HTTP/1.1 101") && all.ends_with(close), "{}", String::from_utf8_lossy(&all));
}

/// An API that speaks HTTP/2 alone and takes extended CONNECT, and how it was asked.
async fn over_http2() -> (SocketAddr, tokio::sync::mpsc::UnboundedReceiver<Request<()>>) {
    let (address, asks, _) = that_leaves().await;
    (address, asks)
}

/// The same, which tells the connections that it has to take their leave (GOAWAY) when this becomes larger; and by a header
/// of its answer which connection a request came on.
async fn that_leaves()
-> (SocketAddr, tokio::sync::mpsc::UnboundedReceiver<Request<()>>, tokio::sync::watch::Sender<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (asked, asks) = tokio::sync::mpsc::unbounded_channel();
    let (leave, leaving) = tokio::sync::watch::channel(0_usize);
    tokio::spawn(async move {
        let mut place = 0;
        while let Ok((stream, _)) = listener.accept().await {
            let asked = asked.clone();
            let (mut leaving, number, before) = (leaving.clone(), place, *leaving.borrow());
            place += 1;
            let service = service_fn(move |mut request: Request<hyper::body::Incoming>| {
                let opening = hyper::upgrade::on(&mut request);
                tokio::spawn(async move {
                    let mut socket = TokioIo::new(opening.await.unwrap());
                    socket.write_all(b"\x81\x05hello").await.unwrap();
                    let mut buffer = [0; 100];
                    while let Ok(read @ 1..) = socket.read(&mut buffer).await {
                        socket.write_all(&buffer[..read]).await.unwrap();
                    }
                });
                let _ = asked.send(request.map(|_| ()));
                let response = Response::builder().header("x-connection", number);
                async { Ok::<_, Infallible>(response.body(Empty::<Bytes>::new()).unwrap()) }
            });
            let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            builder.enable_connect_protocol();
            let serving = builder.serve_connection(TokioIo::new(stream), service);
            tokio::spawn(async move {
                let mut serving = std::pin::pin!(serving);
                let told = async {
                    if leaving.wait_for(|told| *told > before).await.is_err() {
                        std::future::pending::<()>().await;
                    }
                };
                tokio::select! {
                    _ = serving.as_mut() => return,
                    () = told => {}
                }
                serving.as_mut().graceful_shutdown();
                drop(serving.await);
            });
        }
    });
    (address, asks, leave)
}

/// An API that goes away lets the open ones go on; whoever opens one meanwhile is served by another connection.
#[tokio::test]
async fn an_open_one_outlives_the_leave_of_its_connection_and_new_ones_take_another() {
    let (address, mut asks, leave) = that_leaves().await;
    let gateway = Gateway::start(&format!(
        "upstreams: [{{ name: api, endpoints: ['http://{address}'], protocol: http2 }}]\n\
         routes: [{{ match: {{ path: '/**' }}, public: true, upstream: api }}]\n"
    ))
    .await;
    let mut h2 = H2::plain(gateway.plain).await;
    let mut open = Vec::new();
    for (stream, leaves) in [(1, 1), (3, 2), (5, 3)] {
        h2.send(HEADERS, END_HEADERS, stream, &block(&connect("/socket", "websocket"))).await;
        assert_eq!(h2.opened(stream).await, 200, "stream {stream}");
        h2.received(stream, b"hello").await;
        assert_eq!(asks.recv().await.unwrap().method(), "CONNECT");
        open.push(stream);
        // At once: the next one may be asked for before or after the gateway has heard of it.
        leave.send_replace(leaves);
        if stream == 3 {
            // Well after: an answer to what is sent now comes behind the word of the leave.
            h2.send(DATA, 0, stream, b"\x81\x82\x00\x00\x00\x00a3").await;
            h2.received(stream, b"a3").await;
        }
    }
    for stream in open {
        let text = format!("w{stream}");
        h2.send(DATA, 0, stream, &[b"\x81\x82\x00\x00\x00\x00", text.as_bytes()].concat()).await;
        h2.received(stream, text.as_bytes()).await;
    }
    let place: usize = gateway.get("/plain", "").await.header("x-connection").unwrap().parse().unwrap();
    assert!(place > 0, "the first connection takes no more");
}

#[tokio::test]
async fn an_api_that_speaks_http2_gets_it_by_http2() {
    let (address, mut asks) = over_http2().await;
    let gateway = Gateway::start(&format!(
        "upstreams: [{{ name: api, endpoints: ['http://{address}'], protocol: http2 }}]\n\
         routes: [{{ match: {{ path: '/**' }}, public: true, upstream: api }}]\n"
    ))
    .await;
    let mut h2 = H2::plain(gateway.plain).await;
    h2.send(HEADERS, END_HEADERS, 1, &block(&connect("/socket", "websocket"))).await;
    assert_eq!(h2.opened(1).await, 200);
    h2.received(1, b"hello").await;
    h2.send(DATA, 0, 1, b"\x81\x82\x00\x00\x00\x00up").await;
    h2.received(1, b"\x81\x82\x00\x00\x00\x00up").await;
    let asked = asks.recv().await.unwrap();
    assert_eq!((asked.method().as_str(), asked.uri().path()), ("CONNECT", "/socket"));
    assert_eq!(asked.extensions().get::<hyper::ext::Protocol>().unwrap().as_str(), "websocket");
    assert!(!asked.headers().contains_key("sec-websocket-key") && !asked.headers().contains_key("upgrade"));

    let mut wire = gateway.wire().await;
    wire.send(
        "GET /socket HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    )
    .await;
    let head = wire.until(b"\x81\x05hello").await;
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101"), "{head}");
    assert!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");
    wire.send(b"\x81\x82\x00\x00\x00\x00up").await;
    wire.until(b"\x81\x82\x00\x00\x00\x00up").await;
    assert_eq!(asks.recv().await.unwrap().method(), "CONNECT");
}
