//! Requests whose token ends while the API has not begun to answer, and messages that still come when the answer was
//! ended: the API never gets the rest, nor anything that looks whole.

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::Request;
use serde_json::json;
use tokio::net::TcpStream;

use crate::h2api::{H2Api, Manner};
use crate::recorder::{Conn, Recorder};
use crate::support::{PATIENCE, Signer, TestGateway, Token, eventually, now, refused};
use crate::{gateway, gateway_to, open, read_to_end, revoke};

async fn client(gateway: &TestGateway) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(gateway.plain).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    client.ready().await.unwrap()
}

/// Begins a call with one message, of more to come.
fn call(
    client: &mut SendRequest<Bytes>,
    path: &str,
    token: &str,
    kind: &str,
) -> (ResponseFuture, SendStream<Bytes>) {
    let request = Request::post(format!("http://api.example.com{path}"))
        .header("content-type", kind)
        .header("te", "trailers")
        .header("authorization", format!("Bearer {token}"));
    let (response, mut sending) = client.send_request(request.body(()).unwrap(), false).unwrap();
    sending.send_data(Bytes::from_static(b"first"), false).unwrap();
    (response, sending)
}

async fn body_of(mut body: RecvStream) -> (Vec<u8>, Option<http::HeaderMap>) {
    let mut all = Vec::new();
    while let Some(data) = tokio::time::timeout(PATIENCE, body.data()).await.expect("an end") {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        all.extend_from_slice(&data);
    }
    (all, body.trailers().await.unwrap())
}

/// What the client goes on to send: it may well have been told already that nobody wants it.
fn go_on(sending: &mut SendStream<Bytes>, is_last: bool) {
    let _ = sending.send_data(Bytes::from_static(b"second"), is_last);
}

/// Client streaming, as in gRPC: the answer's head comes with the end of the messages.
#[tokio::test]
async fn a_grpc_call_that_is_not_answered_yet_ends_with_its_token() {
    let signer = Signer::es256("k1");
    let api = H2Api::start(100, Manner::Last).await;
    let gateway = gateway_to(&signer, &api.url(), "http2", "0s").await;
    let mut client = client(&gateway).await;
    let (expiring, revoked) = (Token::new().claim("exp", now() + 3), Token::new());
    for (place, (path, token)) in [("/a.B/Revoked", &revoked), ("/a.B/Expired", &expiring)].iter().enumerate()
    {
        let (response, mut sending) = call(&mut client, path, &token.sign(&signer), "application/grpc");
        api.until("the first message", |calls| calls.get(place).is_some_and(|call| call.body == b"first"))
            .await;
        if place == 0 {
            revoke(&gateway, token);
        }
        let response = tokio::time::timeout(PATIENCE, response).await.expect("an answer").unwrap();
        assert_eq!(response.headers()["grpc-status"], "16", "{response:?}");
        let message = response.headers()["grpc-message"].to_str().unwrap();
        assert!(message.starts_with("VAL-020"), "{message}");
        go_on(&mut sending, true);
        api.until("the call is broken off", |calls| calls[place].is_whole == Some(false)).await;
        assert_eq!(api.calls()[place].body, b"first", "{path}");
    }
    let log = gateway.stop().await;
    for (path, reason) in [("/a.B/Revoked", "revoked"), ("/a.B/Expired", "expired")] {
        let line = log.iter().find(|line| line["path"] == path).unwrap();
        assert_eq!((&line["code"], &line["reason"]), (&json!("VAL-020"), &json!(reason)), "{line}");
    }
}

/// Both directions at once: the client is told by trailers, and what it still sends does not get to the API.
#[tokio::test]
async fn the_messages_of_a_grpc_call_end_with_its_answer() {
    let signer = Signer::es256("k1");
    let api = H2Api::start(100, Manner::First).await;
    let gateway = gateway_to(&signer, &api.url(), "http2", "30s").await;
    let (mut client, token) = (client(&gateway).await, Token::new());
    let (response, mut sending) = call(&mut client, "/a.B/Chat", &token.sign(&signer), "application/grpc");
    let response = response.await.unwrap();
    api.until("the first message", |calls| calls[0].body == b"first").await;
    revoke(&gateway, &token);
    let (_, trailers) = body_of(response.into_body()).await;
    assert_eq!(trailers.unwrap()["grpc-status"], "16");
    go_on(&mut sending, true);
    api.until("the call is broken off", |calls| calls[0].is_whole == Some(false)).await;
    assert_eq!(api.calls()[0].body, b"first");
}

/// An API that has answered may go on reading, and its client on sending, but not for long: there is no exchange any more
/// that would end with its token.
#[tokio::test]
async fn the_messages_of_a_call_do_not_go_on_behind_its_answer() {
    let signer = Signer::es256("k1");
    let api = H2Api::start(100, Manner::Early).await;
    let gateway = gateway_to(&signer, &api.url(), "http2", "30s").await;
    let (mut client, token) = (client(&gateway).await, Token::new());
    let (response, mut sending) = call(&mut client, "/a.B/Early", &token.sign(&signer), "application/grpc");
    let (body, _) = body_of(response.await.unwrap().into_body()).await;
    assert!(body.is_empty());
    api.until("the call is broken off", |calls| calls[0].is_whole == Some(false)).await;
    go_on(&mut sending, true);
    assert_eq!(api.calls()[0].body, b"first");
}

/// A client that leaves in the middle of an answer, and of its request: that one is not sent on either.
#[tokio::test]
async fn the_messages_of_a_call_end_with_its_client() {
    let signer = Signer::es256("k1");
    let api = H2Api::start(100, Manner::First).await;
    let gateway = gateway_to(&signer, &api.url(), "http2", "30s").await;
    let (mut client, token) = (client(&gateway).await, Token::new());
    let (response, sending) = call(&mut client, "/a.B/Chat", &token.sign(&signer), "application/grpc");
    let response = response.await.unwrap();
    api.until("the first message", |calls| calls[0].body == b"first").await;
    drop((response, sending));
    api.until("the call is broken off", |calls| calls[0].is_whole == Some(false)).await;
}

/// A long upload, by either version of HTTP on either side.
#[tokio::test]
async fn an_upload_ends_with_its_token() {
    let signer = Signer::es256("k1");
    let recorder =
        Recorder::scripted(|mut conn: Conn| async move { while conn.request().await.is_some() {} }).await;
    let api = H2Api::start(100, Manner::Last).await;
    let (one, two) =
        (gateway(&signer, &recorder, "30s").await, gateway_to(&signer, &api.url(), "http2", "30s").await);
    for gateway in [&one, &two] {
        let (by_h1, by_h2) = (Token::new(), Token::new());
        let headers = format!(
            "Host: api.example.com\r\nAuthorization: Bearer {}\r\nContent-Length: 1000\r\n\r\nfirst",
            by_h1.sign(&signer)
        );
        let mut stream = open(gateway, "/upload1", &headers).await;
        let (response, _sending) =
            call(&mut client(gateway).await, "/upload2", &by_h2.sign(&signer), "text/plain");
        eventually("both are under way", || async {
            let came = recorder.requests().len() + api.calls().len();
            came >= 2
        })
        .await;
        let entries = json!([
            { "jti": by_h1.text("jti"), "exp": now() + 7200 }, { "jti": by_h2.text("jti"), "exp": now() + 7200 }
        ]);
        crate::write_feed(gateway.dir().path(), &entries);
        let text = String::from_utf8(read_to_end(&mut stream).await).unwrap();
        assert!(text.starts_with("HTTP/1.1 401 "), "{text}");
        assert!(text.contains("\"reason\":\"revoked\""), "{text}");
        let response = response.await.unwrap();
        assert_eq!(response.status(), 401);
        let (body, _) = body_of(response.into_body()).await;
        assert!(String::from_utf8(body).unwrap().contains("\"code\":\"VAL-020\""));
    }
    api.until("both are broken off", |calls| calls.iter().all(|call| call.is_whole == Some(false))).await;
    assert!(recorder.requests().iter().all(|request| !request.complete));
    assert_eq!((recorder.requests().len(), api.calls().len()), (2, 2));
}

/// An answer that the API holds back for long, as a long poll does: nobody gets it any more.
#[tokio::test]
async fn an_answer_that_comes_after_the_token_has_ended_reaches_nobody() {
    let signer = Signer::es256("k1");
    let api = H2Api::start(100, Manner::Last).await;
    let gateway = gateway_to(&signer, &api.url(), "http2", "30s").await;
    let token = Token::new();
    let asked = token.sign(&signer);
    let polling = gateway.get("/poll", &asked, &[]);
    let revoking = async {
        api.until("the request", |calls| calls.len() == 1).await;
        revoke(&gateway, &token);
    };
    let (reply, ()) = tokio::join!(polling, revoking);
    refused(&reply, "VAL-020", "revoked");
    api.until("the API is told", |calls| calls[0].is_left).await;
}

/// Where nothing is enforced, and on public routes, nothing ends.
#[tokio::test]
async fn a_request_that_needs_no_token_does_not_end_with_one() {
    let signer = Signer::es256("k1");
    let api = H2Api::start(100, Manner::Last).await;
    let gateway = gateway_to(&signer, &api.url(), "http2", "30s").await;
    let (token, other) = (Token::new(), Token::new());
    let (signed, dead) = (token.sign(&signer), other.sign(&signer));
    let asking = async {
        tokio::join!(
            gateway.get("/open/x", &signed, &[]),
            gateway.get("/shadow/x", &signed, &[]),
            // What shows that the feed was looked at.
            gateway.get("/dead", &dead, &[]),
        )
    };
    let revoking = async {
        api.until("the requests", |calls| calls.len() == 3).await;
        let entries = json!([
            { "jti": token.text("jti"), "exp": now() + 7200 }, { "jti": other.text("jti"), "exp": now() + 7200 }
        ]);
        crate::write_feed(gateway.dir().path(), &entries);
        api.until("one has ended", |calls| calls.iter().any(|call| call.path == "/dead" && call.is_left))
            .await;
        api.open();
    };
    let ((open, shadow, dead), ()) = tokio::join!(asking, revoking);
    assert_eq!((open.status, shadow.status), (200, 200));
    refused(&dead, "VAL-020", "revoked");
}
