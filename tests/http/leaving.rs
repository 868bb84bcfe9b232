//! A WebSocket that is asked for of an HTTP/2 API (RFC 8441) whose connection is leaving just then: its last word (GOAWAY)
//! leaves the handshake out, and crosses it on its way.
//!
//! The API is the h2 library; what stands before it keeps one head from it, as if that had come too late.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{Request, Response};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use crate::h2wire::{DATA, END_HEADERS, H2, HEADERS, block};
use crate::setup::Gateway;
use crate::wire::Wire;

const CONNECT: [(&str, &str); 6] = [
    (":method", "CONNECT"),
    (":protocol", "websocket"),
    (":scheme", "http"),
    (":authority", "localhost"),
    (":path", "/socket"),
    ("sec-websocket-version", "13"),
];

const PREFACE: usize = 24;

/// How a connection leaves.
#[derive(Clone, Copy, Debug)]
enum Leave {
    /// What it has is served to its end.
    Gracefully,
    /// With this error, and at once.
    For(Reason),
}

/// An API that takes any WebSocket by HTTP/2, greets and echoes, and of whose connections the first leave.
struct Api {
    address: SocketAddr,
    /// Which connection each handshake came on that it has seen.
    seen: Arc<Mutex<Vec<usize>>>,
    connections: Arc<Mutex<usize>>,
}

impl Api {
    /// Of the first `leaving` connections each leaves while this head is on its way, counted from 1.
    async fn start(leaving: usize, head: usize, how: Leave) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, connections) = (Arc::<Mutex<Vec<usize>>>::default(), Arc::<Mutex<usize>>::default());
        let (shared, count) = (Arc::clone(&seen), Arc::clone(&connections));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let place = {
                    let mut count = count.lock().unwrap();
                    *count += 1;
                    *count - 1
                };
                let head = if place < leaving { head } else { usize::MAX };
                let (server, relay) = tokio::io::duplex(1 << 16);
                let (withheld, leave) = oneshot::channel();
                tokio::spawn(serve(server, how, leave, place, Arc::clone(&shared)));
                tokio::spawn(pass(stream, relay, head, withheld));
            }
        });
        Self { address, seen, connections }
    }

    async fn gateway(&self, more: &str) -> Gateway {
        Gateway::start(&format!(
            "upstreams: [{{ name: api, endpoints: ['http://{}'], protocol: http2{more} }}]\n\
             routes: [{{ match: {{ path: '/**' }}, public: true, upstream: api }}]\n",
            self.address
        ))
        .await
    }

    fn seen(&self) -> Vec<usize> {
        self.seen.lock().unwrap().clone()
    }

    fn connections(&self) -> usize {
        *self.connections.lock().unwrap()
    }
}

/// Passes frames on both ways, but for this head of the client's, of which it tells. What the API closes stays open to
/// the client, who shall not be told by that.
async fn pass<S: AsyncRead + AsyncWrite>(
    client: TcpStream,
    server: S,
    head: usize,
    withheld: oneshot::Sender<()>,
) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = tokio::io::split(server);
    let there = async {
        let mut preface = [0; PREFACE];
        from_client.read_exact(&mut preface).await?;
        to_server.write_all(&preface).await?;
        let (mut heads, mut withheld) = (0, Some(withheld));
        loop {
            let mut frame = vec![0; 9];
            from_client.read_exact(&mut frame).await?;
            let length = u32::from_be_bytes([0, frame[0], frame[1], frame[2]]) as usize;
            frame.resize(9 + length, 0);
            from_client.read_exact(&mut frame[9..]).await?;
            heads += usize::from(frame[3] == HEADERS);
            if heads == head
                && let Some(withheld) = withheld.take()
            {
                withheld.send(()).unwrap();
            } else if to_server.write_all(&frame).await.is_err() {
                // The API has left; the client may say what it likes.
                tokio::io::copy(&mut from_client, &mut tokio::io::sink()).await?;
                return Ok::<_, std::io::Error>(());
            }
        }
    };
    let back = async {
        drop(tokio::io::copy(&mut from_server, &mut to_client).await);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        _ = there => {}
        () = back => {}
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    how: Leave,
    leave: oneshot::Receiver<()>,
    place: usize,
    seen: Arc<Mutex<Vec<usize>>>,
) {
    let mut builder = h2::server::Builder::new();
    let Ok(mut connection) = builder.enable_connect_protocol().handshake::<_, Bytes>(stream).await else {
        return;
    };
    let mut leave = Some(leave);
    loop {
        let told = async {
            let is_told = match &mut leave {
                Some(leave) => leave.await.is_ok(),
                None => false,
            };
            if !is_told {
                std::future::pending::<()>().await;
            }
        };
        let accepted = tokio::select! {
            accepted = connection.accept() => accepted,
            () = told => {
                leave = None;
                match how {
                    Leave::Gracefully => connection.graceful_shutdown(),
                    Leave::For(reason) => connection.abrupt_shutdown(reason),
                }
                continue;
            }
        };
        let Some(Ok((request, respond))) = accepted else { return };
        seen.lock().unwrap().push(place);
        tokio::spawn(echo(request, respond));
    }
}

async fn echo(request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let mut sending = respond.send_response(Response::new(()), false).unwrap();
    let mut body = request.into_body();
    sending.send_data(Bytes::from_static(b"\x81\x05hello"), false).unwrap();
    while let Some(Ok(data)) = body.data().await {
        let _ = body.flow_control().release_capacity(data.len());
        if sending.send_data(data, false).is_err() {
            return;
        }
    }
    drop(sending.send_data(Bytes::new(), true));
}

async fn open(h2: &mut H2, stream: u32) -> u16 {
    h2.send(HEADERS, END_HEADERS, stream, &block(&CONNECT)).await;
    h2.opened(stream).await
}

async fn echoes(h2: &mut H2, stream: u32, text: &[u8]) {
    h2.send(DATA, 0, stream, &[b"\x81\x82\x00\x00\x00\x00", text].concat()).await;
    h2.received(stream, text).await;
}

#[tokio::test]
async fn a_handshake_that_a_leaving_connection_leaves_out_is_made_on_a_new_one() {
    for how in [Leave::Gracefully, Leave::For(Reason::NO_ERROR), Leave::For(Reason::ENHANCE_YOUR_CALM)] {
        let api = Api::start(1, 1, how).await;
        let gateway = api.gateway("").await;
        let mut h2 = H2::plain(gateway.plain).await;
        assert_eq!(open(&mut h2, 1).await, 200, "{how:?}");
        h2.received(1, b"hello").await;
        echoes(&mut h2, 1, b"up").await;
        assert_eq!((api.seen(), api.connections()), (vec![1], 2), "{how:?}");
    }
}

#[tokio::test]
async fn so_it_is_beside_an_open_one_which_goes_on_and_with_no_repetition_configured() {
    let api = Api::start(1, 2, Leave::Gracefully).await;
    let gateway = api.gateway(", retries: { attempts: 0 }").await;
    let mut h2 = H2::plain(gateway.plain).await;
    assert_eq!(open(&mut h2, 1).await, 200);
    h2.received(1, b"hello").await;
    let mut wire: Wire = gateway.wire().await;
    wire.send(
        "GET /socket HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    )
    .await;
    let head = wire.until(b"\x81\x05hello").await;
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    echoes(&mut h2, 1, b"up").await;
    assert_eq!((api.seen(), api.connections()), (vec![0, 1], 2));
}

/// One connection after the other leaves: the client is told, after as many as it is sent again.
#[tokio::test]
async fn an_api_that_always_leaves_is_not_asked_for_ever() {
    for (attempts, connections) in [(0, 1), (1, 2), (3, 4)] {
        let api = Api::start(usize::MAX, 1, Leave::Gracefully).await;
        let gateway = api.gateway(&format!(", retries: {{ attempts: {attempts} }}")).await;
        let mut h2 = H2::plain(gateway.plain).await;
        h2.send(HEADERS, END_HEADERS, 1, &block(&CONNECT)).await;
        assert_eq!(h2.outcome(1).await.answer().verdict(), "VAL-060 reset");
        assert_eq!((api.seen(), api.connections()), (vec![], connections));
    }
}
