//! Open streams while the feed of their issuer is stale: new requests are refused then, and what was let in goes on, until
//! the feed is heard again and says otherwise.

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::recorder::{Conn, Recorder};
use crate::support::{Signer, Token, eventually, verdict};
use crate::{HANDSHAKE, SSE, gateway_with, open, read_to_end, read_until, revoke, write_feed};

/// A backend that greets whoever opens a WebSocket and echoes, and sends events without end, but for `/new`.
async fn both() -> Recorder {
    Recorder::scripted(|mut conn: Conn| async move {
        let Some(request) = conn.request().await else { return };
        if request.has("upgrade") {
            conn.send(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                  Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n\x81\x05hello",
            )
            .await;
            conn.echo().await;
        } else if request.target() == "/new" {
            conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        } else {
            conn.send(format!("{SSE}9\r\ndata: 1\n\n\r\n").as_bytes()).await;
            conn.until_closed().await;
        }
    })
    .await
}

#[tokio::test]
async fn streams_go_on_while_the_feed_is_stale_and_end_with_what_it_says_when_it_is_back() {
    let (signer, backend) = (Signer::es256("k1"), both().await);
    let gateway = gateway_with(&signer, &backend.url(), "auto", "30s", "1s").await;
    let token = Token::new();
    let signed = token.sign(&signer);
    let bearer = format!("Authorization: Bearer {signed}\r\n");
    let mut events = open(&gateway, "/events", &format!("Host: api.example.com\r\n{bearer}")).await;
    read_until(&mut events, b"data: 1").await;
    let mut socket = open(&gateway, "/socket", &format!("{HANDSHAKE}{bearer}")).await;
    read_until(&mut socket, b"\x81\x05hello").await;

    std::fs::remove_file(gateway.dir().path().join("feed.json")).unwrap();
    let is_stale = || async { verdict(&gateway.get("/new", &signed, &[]).await) == "503 VAL-051 feed_stale" };
    eventually("new requests are refused", is_stale).await;
    // Looked at several times meanwhile.
    let mut byte = [0];
    let more = tokio::time::timeout(std::time::Duration::from_millis(700), events.read(&mut byte)).await;
    assert!(more.is_err(), "neither more nor an end: {more:?}");
    let frame = b"\x81\x85\x01\x02\x03\x04\x71\x6b\x6d\x63\x20";
    socket.write_all(frame).await.unwrap();
    read_until(&mut socket, frame).await;
    assert!(is_stale().await, "still");

    write_feed(gateway.dir().path(), &json!([]));
    eventually("heard again", || async { !is_stale().await }).await;
    socket.write_all(frame).await.unwrap();
    read_until(&mut socket, frame).await;

    revoke(&gateway, &token);
    read_to_end(&mut events).await;
    let last = read_to_end(&mut socket).await;
    assert_eq!((&last[..1], &last[2..4]), (&b"\x88"[..], &1008_u16.to_be_bytes()[..]), "{last:?}");
}
