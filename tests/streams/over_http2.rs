//! WebSockets over HTTP/2 (RFC 8441): judged as those over HTTP/1.1 are, and ended with their token.

use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::{Method, Request};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::recorder::{Conn, Recorder};
use crate::support::{PATIENCE, Signer, TestGateway, Token, now};
use crate::{gateway, revoke};

/// A backend that opens every WebSocket and greets.
async fn greeting() -> Recorder {
    Recorder::scripted(|mut conn: Conn| async move {
        let Some(request) = conn.request().await else { return };
        let key = valgate::upstream::HandshakeKey::of(
            &[(http::header::SEC_WEBSOCKET_KEY, request.value("sec-websocket-key").parse().unwrap())]
                .into_iter()
                .collect(),
        );
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {}\r\n\r\n",
            key.unwrap().accept()
        );
        conn.send(&[head.as_bytes(), b"\x81\x05hello"].concat()).await;
        conn.until_closed().await;
    })
    .await
}

async fn connect(gateway: &TestGateway) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(gateway.plain).await.unwrap();
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let settings = async {
        while !client.is_extended_connect_protocol_enabled() {
            client = client.clone().ready().await.unwrap();
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, settings).await.expect("the gateway takes extended CONNECT");
    client
}

fn open(
    client: &mut SendRequest<Bytes>,
    path: &str,
    headers: &[(&str, String)],
) -> (ResponseFuture, SendStream<Bytes>) {
    let mut request = Request::builder()
        .method(Method::CONNECT)
        .uri(format!("http://api.example.com{path}"))
        .header("sec-websocket-version", "13")
        .extension(h2::ext::Protocol::from_static("websocket"));
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    client.send_request(request.body(()).unwrap(), false).unwrap()
}

async fn rest(body: &mut RecvStream) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(data) = tokio::time::timeout(PATIENCE, body.data()).await.expect("the gateway ends it") {
        match data {
            Ok(data) => {
                body.flow_control().release_capacity(data.len()).unwrap();
                all.extend_from_slice(&data);
            }
            Err(error) if error.reason() == Some(Reason::NO_ERROR) => break,
            Err(error) => panic!("{error}"),
        }
    }
    all
}

#[tokio::test]
async fn one_ends_with_its_token_by_time_or_by_revocation() {
    let (signer, backend) = (Signer::es256("k1"), greeting().await);
    let gateway = gateway(&signer, &backend, "0s").await;
    let mut client = connect(&gateway).await;
    let (expiring, revoked) = (Token::new().claim("exp", now() + 2), Token::new());
    for (path, token) in [("/expiring", &expiring), ("/revoked", &revoked)] {
        let authorization = ("authorization", format!("Bearer {}", token.sign(&signer)));
        let (response, _sending) = open(&mut client, path, &[authorization]);
        let mut response = response.await.unwrap();
        assert_eq!(response.status(), 200);
        assert!(!response.headers().contains_key("sec-websocket-accept"), "{response:?}");
        if path == "/revoked" {
            revoke(&gateway, token);
        }
        let all = rest(response.body_mut()).await;
        let close = all.strip_prefix(b"\x81\x05hello").unwrap();
        assert_eq!((close[0], &close[2..4]), (0x88, &1008_u16.to_be_bytes()[..]), "{close:?}");
        assert!(String::from_utf8_lossy(&close[4..]).contains("VAL-020"), "{close:?}");
    }
    assert!(backend.requests().iter().all(|request| !request.has("authorization")));
    let log = gateway.stop().await;
    let line = |path: &str| log.iter().find(|line| line["path"] == path).unwrap().clone();
    for (path, outcome) in [("/expiring", "token_expired"), ("/revoked", "token_revoked")] {
        let line = line(path);
        let facts = ["protocol", "method", "status", "outcome"].map(|field| line[field].clone());
        let expected: [Value; 4] = [json!("HTTP/2"), json!("CONNECT"), json!(200), json!(outcome)];
        assert_eq!(facts, expected, "{line}");
    }
}

#[tokio::test]
async fn one_without_a_good_token_never_reaches_the_backend() {
    let (signer, backend) = (Signer::es256("k1"), greeting().await);
    let gateway = gateway(&signer, &backend, "30s").await;
    let mut client = connect(&gateway).await;
    let expired = Token::new().claim("exp", now() - 3600).sign(&signer);
    let cookie = || ("cookie", format!("token={}", Token::new().sign(&signer)));
    for (path, headers, status) in [
        ("/socket", vec![], 401),
        ("/socket", vec![("authorization", format!("Bearer {expired}"))], 401),
        // CWE-1385, by HTTP/2: no `Upgrade` is sent that a check could be tied to.
        ("/cookie/socket", vec![cookie(), ("origin", "https://evil.example".to_owned())], 403),
        ("/cookie/socket", vec![cookie()], 403),
    ] {
        let (response, _sending) = open(&mut client, path, &headers);
        assert_eq!(response.await.unwrap().status(), status, "{path} {headers:?}");
    }
    backend.assert_untouched("handshakes that were refused");
    let (response, _sending) =
        open(&mut client, "/cookie/socket", &[cookie(), ("origin", "http://api.example.com".to_owned())]);
    assert_eq!(response.await.unwrap().status(), 200);
}
