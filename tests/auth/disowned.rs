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
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
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

/// An API that answers once with the head of something that lasts, and tells what becomes of the connection.
async fn lasting(head: &'static str) -> (SocketAddr, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
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
    let (address, ended) = lasting(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n\x02\x01x",
    )
    .await;
    let upstreams = format!("upstreams: [{{ name: api, endpoints: ['http://{address}'] }}]");
    let mut gateway = gateway(&[&ours], WITH_LIST, &upstreams).await;
    let mut connection = http1(&gateway, &Client::named("bad", &ours)).await;
    connection
        .write(
            "GET /orders/socket HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .await;
    let mut stream = connection.into_stream();
    let mut seen = Vec::new();
    while !seen.ends_with(b"\x02\x01x") {
        assert!(timeout(PATIENCE, stream.read_buf(&mut seen)).await.unwrap().unwrap() > 0);
    }
    revoke(&mut gateway, &ours, &["bad"], &upstreams).await;
    let mut last = Vec::new();
    drop(timeout(PATIENCE, stream.read_to_end(&mut last)).await.expect("the connection ends"));
    assert_eq!(last[0], 0x88, "a close frame");
    assert_eq!(u16::from_be_bytes([last[2], last[3]]), 1008);
    assert_eq!(String::from_utf8_lossy(&last[4..]), "VAL-031 - Access Denied: certificate_ended");
    timeout(PATIENCE, ended).await.expect("the API is told").unwrap();
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
