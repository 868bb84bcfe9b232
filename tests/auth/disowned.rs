//! Connections that outlive their client certificate: they end when the certificate is revoked or its authority is
//! trusted no longer, whatever they are doing, and others go on.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::certificates::{Authority, Client, authority, authority_named, connect_by};
use crate::crls::{list, replace};
use crate::support::{Connection, PATIENCE, TestGateway, eventually};

const GET: &str = "GET /orders/open HTTP/1.1\r\nHost: localhost\r\n\r\n";

fn yaml(clients: &str, upstreams: &str) -> String {
    format!(
        "
listeners:
  - {{ address: 127.0.0.1:0, plaintext: true }}
  - address: 127.0.0.1:0
    tls: {{ certificates: [{{ certificate: $DIR/tls.crt, private_key: $DIR/tls.key }}]{clients} }}
{upstreams}
routes:
  - {{ match: {{ path: /orders/** }}, public: true, upstream: api }}
"
    )
}

const WITH_LIST: &str = ", client_certificates: { ca: $DIR/clients.pem, crls: [$DIR/clients.crl] }";
const WITHOUT_LIST: &str = ", client_certificates: { ca: $DIR/clients.pem }";

/// A gateway in front of these upstreams that trusts these authorities, with a list of the first that is empty.
async fn gateway(authorities: &[&Authority], clients: &str, upstreams: &str) -> TestGateway {
    let dir = Arc::new(TempDir::new().unwrap());
    let pem: String = authorities.iter().map(|authority| authority.pem()).collect();
    std::fs::write(dir.path().join("clients.pem"), pem).unwrap();
    replace(dir.path(), list(authorities[0], &[], 4096).der());
    TestGateway::start_in(dir, &yaml(clients, upstreams)).await
}

async fn revoke(gateway: &mut TestGateway, authority: &Authority, names: &[&str], upstreams: &str) {
    replace(gateway.dir().path(), list(authority, names, 4096).der());
    gateway.reload(&yaml(WITH_LIST, upstreams)).await.unwrap();
}

async fn http1(gateway: &TestGateway, client: &Client) -> Connection {
    connect_by(gateway, Some(client), b"http/1.1").await.unwrap()
}

async fn status(connection: &mut Connection) -> Option<u16> {
    connection.write(GET).await;
    timeout(PATIENCE, connection.reply()).await.expect("an answer or the end").map(|reply| reply.status)
}

/// Waits for the end of a connection on which nothing is said.
async fn ends(connection: &mut Connection) {
    assert!(timeout(PATIENCE, connection.rest()).await.expect("the connection ends").is_empty());
}

/// An HTTP/2 connection, and what resolves when it is over.
async fn http2(
    gateway: &TestGateway,
    client: &Client,
) -> (SendRequest<Empty<Bytes>>, tokio::task::JoinHandle<()>) {
    let stream = connect_by(gateway, Some(client), b"h2").await.unwrap().into_stream();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    (sender, tokio::spawn(async move { drop(connection.await) }))
}

async fn status_by_http2(sender: &mut SendRequest<Empty<Bytes>>) -> Option<u16> {
    let request = Request::get("https://localhost/orders/open").body(Empty::new()).unwrap();
    let response = sender.send_request(request).await.ok()?;
    let status = response.status().as_u16();
    response.into_body().collect().await.ok()?;
    Some(status)
}

fn came(gateway: &TestGateway) -> usize {
    gateway.received("/orders/open").len()
}

#[tokio::test]
async fn idle_connections_of_a_revoked_certificate_end_and_others_go_on() {
    let ours = authority();
    let (good, bad) = (Client::named("good", &ours), Client::named("bad", &ours));
    let mut gateway = gateway(&[&ours], WITH_LIST, "").await;
    let (mut stays, mut goes) = (http1(&gateway, &good).await, http1(&gateway, &bad).await);
    let (mut stays2, over) = http2(&gateway, &good).await;
    let (mut goes2, ended) = http2(&gateway, &bad).await;
    for _ in 0..2 {
        assert_eq!((status(&mut stays).await, status(&mut goes).await), (Some(200), Some(200)));
        assert_eq!(status_by_http2(&mut stays2).await, Some(200));
        assert_eq!(status_by_http2(&mut goes2).await, Some(200));
    }
    // A reload that changes nothing of it ends nothing.
    gateway.reload(&yaml(WITH_LIST, "")).await.unwrap();
    assert_eq!((status(&mut goes).await, status_by_http2(&mut goes2).await), (Some(200), Some(200)));

    revoke(&mut gateway, &ours, &["bad"], "").await;
    ends(&mut goes).await;
    timeout(PATIENCE, ended).await.expect("the connection ends").unwrap();
    let before = came(&gateway);
    assert_eq!((status(&mut goes).await, status_by_http2(&mut goes2).await), (None, None));
    assert_eq!(came(&gateway), before, "nothing of it reaches the API");
    assert_eq!((status(&mut stays).await, status_by_http2(&mut stays2).await), (Some(200), Some(200)));
    assert_eq!(came(&gateway), before + 2);
    assert!(!over.is_finished());
    eventually("they are counted", || async {
        gateway.metric("valgate_connections_closed_total{cause=\"certificate\"}").await == 2
    })
    .await;
    // Another list that does not name them keeps them.
    revoke(&mut gateway, &ours, &["bad", "else"], "").await;
    assert_eq!((status(&mut stays).await, status_by_http2(&mut stays2).await), (Some(200), Some(200)));
}

#[tokio::test]
async fn connections_of_an_authority_that_is_trusted_no_longer_end() {
    let (ours, theirs) = (authority(), authority_named("others"));
    let (good, bad) = (Client::named("good", &ours), Client::named("bad", &theirs));
    let mut gateway = gateway(&[&ours, &theirs], WITHOUT_LIST, "").await;
    let (mut stays, mut goes) = (http1(&gateway, &good).await, http1(&gateway, &bad).await);
    let (mut goes2, ended) = http2(&gateway, &bad).await;
    assert_eq!((status(&mut stays).await, status(&mut goes).await), (Some(200), Some(200)));
    assert_eq!(status_by_http2(&mut goes2).await, Some(200));
    std::fs::write(gateway.dir().path().join("clients.pem"), ours.pem()).unwrap();
    gateway.reload(&yaml(WITHOUT_LIST, "")).await.unwrap();
    ends(&mut goes).await;
    timeout(PATIENCE, ended).await.expect("the connection ends").unwrap();
    assert_eq!(status(&mut stays).await, Some(200));
    // Nor does anybody vouch for a certificate where none is asked for.
    gateway.reload(&yaml("", "")).await.unwrap();
    ends(&mut stays).await;
}

/// What goes on by a listener that is gone is vouched for by those that there are, as if it had come by them.
#[tokio::test]
async fn what_outlasts_its_listener_ends_with_its_certificate_all_the_same() {
    let ours = authority();
    let (address, _) = socket_that_lasts().await;
    let upstreams = format!("upstreams: [{{ name: api, endpoints: ['http://{address}'] }}]");
    // The listener moves, and then there is none any more that asks for certificates.
    let moved = |clients: &str| yaml(clients, &upstreams).replace("127.0.0.1:0\n", "127.0.0.2:0\n");
    let mut gateway = gateway(&[&ours], WITH_LIST, &upstreams).await;
    let mut sockets = Vec::new();
    for name in ["bad", "good"] {
        let mut stream = http1(&gateway, &Client::named(name, &ours)).await;
        stream.write(SOCKET).await;
        let mut stream = stream.into_stream();
        until_greeted(&mut stream).await;
        sockets.push(stream);
    }
    gateway.reload(&moved(WITH_LIST)).await.unwrap();
    for stream in &mut sockets {
        echoes(stream).await;
    }
    replace(gateway.dir().path(), list(&ours, &["bad"], 4096).der());
    gateway.reload(&moved(WITH_LIST)).await.unwrap();
    assert_closed(sockets.remove(0)).await;
    echoes(&mut sockets[0]).await;
    gateway.reload(&moved("")).await.unwrap();
    assert_closed(sockets.remove(0)).await;
}

const SOCKET: &str = "GET /orders/socket HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

const GREETING: &[u8] = b"\x02\x01x";

async fn until_greeted(stream: &mut (impl AsyncRead + Unpin)) {
    let mut seen = Vec::new();
    while !seen.ends_with(GREETING) {
        assert!(timeout(PATIENCE, stream.read_buf(&mut seen)).await.unwrap().unwrap() > 0);
    }
}

async fn echoes(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    stream.write_all(GREETING).await.unwrap();
    until_greeted(stream).await;
}

/// It ends with the reason.
async fn assert_closed(mut stream: impl AsyncRead + Unpin) {
    let mut last = Vec::new();
    drop(timeout(PATIENCE, stream.read_to_end(&mut last)).await.expect("the connection ends"));
    assert_eq!(last.first(), Some(&0x88), "a close frame");
    assert_eq!(u16::from_be_bytes([last[2], last[3]]), 1008);
    assert_eq!(String::from_utf8_lossy(&last[4..]), "VAL-031 - Access Denied: certificate_ended");
}

/// An API that takes any WebSocket, greets, and sends back what comes.
async fn socket_that_lasts() -> (SocketAddr, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut bytes = Vec::new();
                while !bytes.ends_with(b"\r\n\r\n") {
                    assert!(stream.read_buf(&mut bytes).await.unwrap() > 0);
                }
                stream.write_all(OPEN.as_bytes()).await.unwrap();
                stream.write_all(GREETING).await.unwrap();
                let (mut from, mut to) = stream.split();
                drop(tokio::io::copy(&mut from, &mut to).await);
            });
        }
    });
    (address, serving)
}

const OPEN: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
     Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// An API that answers once with the head of something that lasts, and tells what becomes of the connection.
async fn lasting(head: impl Into<String>) -> (SocketAddr, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, head) = (listener.local_addr().unwrap(), head.into());
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\n") {
            assert!(stream.read_buf(&mut bytes).await.unwrap() > 0);
        }
        stream.write_all(head.as_bytes()).await.unwrap();
        // Until the gateway lets go of it.
        drop(stream.read_to_end(&mut Vec::new()).await);
    });
    (address, serving)
}

#[tokio::test]
async fn a_websocket_of_a_revoked_certificate_is_closed_with_1008() {
    let ours = authority();
    let head = format!("{OPEN}{}", str::from_utf8(GREETING).unwrap());
    let (address, ended) = lasting(head).await;
    let upstreams = format!("upstreams: [{{ name: api, endpoints: ['http://{address}'] }}]");
    let mut gateway = gateway(&[&ours], WITH_LIST, &upstreams).await;
    let mut connection = http1(&gateway, &Client::named("bad", &ours)).await;
    connection.write(SOCKET).await;
    let mut stream = connection.into_stream();
    until_greeted(&mut stream).await;
    revoke(&mut gateway, &ours, &["bad"], &upstreams).await;
    assert_closed(stream).await;
    timeout(PATIENCE, ended).await.expect("the API is told").unwrap();
}

/// Likewise by HTTP/2, and whatever else is on the connection ends with it: no request comes through meanwhile.
#[tokio::test]
async fn so_is_one_over_http2_and_the_connection_ends_with_it() {
    let ours = authority();
    let (address, ended) = socket_over_http2().await;
    let upstreams = format!("upstreams: [{{ name: api, endpoints: ['http://{address}'], protocol: http2 }}]");
    let mut gateway = gateway(&[&ours], WITH_LIST, &upstreams).await;
    let stream = connect_by(&gateway, Some(&Client::named("bad", &ours)), b"h2").await.unwrap().into_stream();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    let over = tokio::spawn(async move { drop(connection.await) });
    let mut client = client.ready().await.unwrap();
    eventually("it is known to take WebSockets", || async { client.is_extended_connect_protocol_enabled() })
        .await;
    let mut request = Request::connect("https://localhost/orders/socket").body(()).unwrap();
    request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
    request.headers_mut().insert("sec-websocket-version", "13".parse().unwrap());
    let (response, _sending) = client.send_request(request, false).unwrap();
    let response = response.await.unwrap();
    assert_eq!(response.status(), 200);
    let mut body = response.into_body();
    let mut seen = Vec::new();
    while seen.len() < 3 {
        seen.extend(timeout(PATIENCE, body.data()).await.unwrap().unwrap().unwrap());
    }
    assert_eq!(seen, b"\x02\x01x");

    revoke(&mut gateway, &ours, &["bad"], &upstreams).await;
    let mut last = Vec::new();
    while let Some(Ok(data)) = timeout(PATIENCE, body.data()).await.expect("it ends") {
        last.extend(data);
    }
    assert_closed(&*last).await;
    timeout(PATIENCE, ended).await.expect("the API is told").unwrap();
    timeout(PATIENCE, over).await.expect("the connection ends").unwrap();
}

/// An API that takes one WebSocket by HTTP/2, and tells when that is over.
async fn socket_over_http2() -> (SocketAddr, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection =
            h2::server::Builder::new().enable_connect_protocol().handshake(stream).await.unwrap();
        let (request, mut respond) = connection.accept().await.unwrap().unwrap();
        let mut sending = respond.send_response(http::Response::new(()), false).unwrap();
        sending.send_data(Bytes::from_static(b"\x02\x01x"), false).unwrap();
        let mut body = request.into_body();
        tokio::select! {
            _ = connection.accept() => {}
            () = async { while let Some(Ok(_)) = body.data().await {} } => {}
        }
    });
    (address, serving)
}

#[tokio::test]
async fn an_answer_under_way_to_a_revoked_certificate_is_broken_off() {
    for alpn in ["http/1.1", "h2"] {
        let ours = authority();
        let (address, ended) = lasting(
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n\
             7\r\ndata: x\r\n",
        )
        .await;
        let upstreams = format!("upstreams: [{{ name: api, endpoints: ['http://{address}'] }}]");
        let mut gateway = gateway(&[&ours], WITH_LIST, &upstreams).await;
        let bad = Client::named("bad", &ours);
        if alpn == "h2" {
            let (mut sender, over) = http2(&gateway, &bad).await;
            let request = Request::get("https://localhost/orders/events").body(Empty::new()).unwrap();
            let mut body = sender.send_request(request).await.unwrap().into_body();
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "data: x");
            revoke(&mut gateway, &ours, &["bad"], &upstreams).await;
            let end = timeout(PATIENCE, body.frame()).await.expect("it ends");
            assert!(end.is_some_and(|frame| frame.is_err()), "never a seemingly whole answer");
            timeout(PATIENCE, over).await.expect("the connection ends").unwrap();
        } else {
            let mut connection = http1(&gateway, &bad).await;
            connection.write("GET /orders/events HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
            let mut stream = connection.into_stream();
            let mut seen = Vec::new();
            while !String::from_utf8_lossy(&seen).contains("data: x") {
                assert!(timeout(PATIENCE, stream.read_buf(&mut seen)).await.unwrap().unwrap() > 0);
            }
            revoke(&mut gateway, &ours, &["bad"], &upstreams).await;
            drop(timeout(PATIENCE, stream.read_to_end(&mut seen)).await.expect("the connection ends"));
            assert!(!seen.ends_with(b"0\r\n\r\n"), "never a seemingly whole answer");
        }
        timeout(PATIENCE, ended).await.expect("the API is told").unwrap();
        let log = gateway.stop().await;
        let line = log.iter().find(|line| line["path"] == "/orders/events").unwrap();
        assert_eq!(
            (&line["outcome"], &line["reason"]),
            (&json!("certificate_ended"), &json!("certificate_ended"))
        );
    }
}

/// A session that was begun before does not bring a revoked certificate past the list, nor one that was begun while no
/// certificates were asked for.
#[tokio::test]
async fn sessions_from_before_do_not_get_past_the_list() {
    let ours = authority();
    let bad = Client::named("bad", &ours);
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for before in ["", WITH_LIST] {
            let mut gateway = gateway(&[&ours], before, "").await;
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(gateway.ca().as_bytes()).unwrap()).unwrap();
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let config = ClientConfig::builder_with_provider(provider)
                .with_protocol_versions(&[version])
                .unwrap()
                .with_root_certificates(roots)
                .with_client_auth_cert(vec![bad.der.clone()], bad.key.clone_key())
                .unwrap();
            let config = Arc::new(config);
            let again = async |gateway: &TestGateway| {
                let stream = TcpStream::connect(gateway.tls).await.unwrap();
                let name = ServerName::try_from("localhost").unwrap();
                let stream = TlsConnector::from(Arc::clone(&config)).connect(name, stream).await.ok()?;
                let kind = stream.get_ref().1.handshake_kind();
                let mut connection = Connection::over(stream);
                Some((kind, status(&mut connection).await?))
            };
            let resumed = if before.is_empty() { HandshakeKind::Resumed } else { HandshakeKind::Full };
            assert_eq!(again(&gateway).await, Some((Some(HandshakeKind::Full), 200)));
            assert_eq!(again(&gateway).await, Some((Some(resumed), 200)), "{version:?}");
            let came_before = came(&gateway);
            revoke(&mut gateway, &ours, &["bad"], "").await;
            for _ in 0..2 {
                assert_eq!(again(&gateway).await, None, "{version:?} {before}");
            }
            assert_eq!(came(&gateway), came_before, "{version:?} {before}");
        }
    }
}
