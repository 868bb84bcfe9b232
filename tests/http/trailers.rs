//! Fields behind a body, in both directions: none says what the head may not say, and gRPC's arrive.

use std::convert::Infallible;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::bodies::Frames;
use crate::h2wire::{DATA, END_HEADERS, END_STREAM, H2, HEADERS, block};
use crate::headers::{guarded_with, wait_until_let_in};
use crate::recorder::Recorder;
use crate::setup::{Gateway, api};

/// What an API may say behind its answer, and what arrives.
const FINE: [(&str, &str); 5] = [
    ("grpc-status", "0"),
    ("grpc-message", "fine"),
    ("grpc-status-details-bin", "CAA"),
    ("x-cost", "7"),
    ("server-timing", "db;dur=53"),
];

/// What does not: who somebody is, what is about one connection, and what only the gateway or only a head says.
const WITHHELD: [(&str, &str); 10] = [
    ("x-auth-subject", "alice"),
    ("x-auth-groups", "staff"),
    ("x-request-id", "forged"),
    ("strict-transport-security", "max-age=0"),
    ("access-control-allow-origin", "*"),
    ("access-control-allow-credentials", "true"),
    ("content-type", "text/html"),
    ("content-length", "1000"),
    ("set-cookie", "session=forged"),
    ("cache-control", "public"),
];

/// Of HTTP/1.1 alone: by HTTP/2 no peer may send them.
const OF_CONNECTION: [(&str, &str); 5] = [
    ("connection", "close"),
    ("keep-alive", "timeout=1"),
    ("proxy-connection", "close"),
    ("upgrade", "h2c"),
    ("x-listed", "1"),
];

fn sorted(trailers: &HeaderMap) -> Vec<(String, String)> {
    let mut fields: Vec<_> =
        trailers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
    fields.sort();
    fields
}

fn fine() -> Vec<(String, String)> {
    let mut fields: Vec<_> =
        FINE.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    fields.sort();
    fields
}

/// What a client by HTTP/2 is answered: head, body, trailers.
async fn by_http2(gateway: &Gateway, token: &str) -> (HeaderMap, Bytes, HeaderMap) {
    let io = TokioIo::new(gateway.wire().await.into_stream());
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let driver = tokio::spawn(connection);
    let request = Request::post("http://localhost/guarded/a.B/C")
        .header("te", "trailers")
        .header("authorization", format!("Bearer {token}"))
        .body(Full::new(Bytes::from_static(b"hello")));
    let (head, body) = sender.send_request(request.unwrap()).await.unwrap().into_parts();
    let body = body.collect().await.unwrap();
    driver.abort();
    let trailers = body.trailers().cloned().unwrap_or_default();
    (head.headers, body.to_bytes(), trailers)
}

#[tokio::test]
async fn an_api_of_http1_says_nothing_in_trailers_that_its_head_may_not_say() {
    let fields: Vec<_> = FINE.iter().chain(&WITHHELD).chain(&OF_CONNECTION).collect();
    let names: Vec<_> = fields.iter().map(|(name, _)| *name).collect();
    let lines: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let answer = format!(
        "HTTP/1.1 200 OK\r\nConnection: x-listed\r\nTransfer-Encoding: chunked\r\nTrailer: {}\r\n\r\n\
         2\r\nok\r\n0\r\n{lines}\r\n",
        names.join(", ")
    );
    let recorder = Recorder::answering(answer).await;
    let (gateway, _issuer, token) = guarded_with(&api(&recorder)).await;
    wait_until_let_in(&gateway, &token).await;

    let lines = format!("Authorization: Bearer {token}\r\nTE: trailers\r\nConnection: TE\r\n");
    let answer = gateway.get("/guarded/a", &lines).await;
    let mut arrived = answer.trailers.clone();
    arrived.sort();
    assert_eq!((&*answer.body, answer.complete, arrived), (&b"ok"[..], true, fine()));
    let announced = answer.values("trailer").join(", ");
    for (name, _) in FINE {
        assert!(announced.contains(name), "{announced}");
    }
    for (name, _) in WITHHELD.iter().chain(&OF_CONNECTION) {
        assert!(!announced.split(", ").any(|announced| announced == *name), "{announced}");
    }

    let (head, body, trailers) = by_http2(&gateway, &token).await;
    assert_eq!((&*body, sorted(&trailers)), (&b"ok"[..], fine()));
    assert!(!head.get_all("trailer").iter().any(|value| value.to_str().unwrap().contains("x-auth")));
}

/// Where none is left, the answer is whole all the same, and the connection goes on.
#[tokio::test]
async fn an_answer_of_whose_trailers_none_is_left_is_whole() {
    let recorder = Recorder::answering(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Auth-Subject\r\n\r\n\
         2\r\nok\r\n0\r\nX-Auth-Subject: alice\r\n\r\n",
    )
    .await;
    let (gateway, _issuer, token) = guarded_with(&api(&recorder)).await;
    wait_until_let_in(&gateway, &token).await;
    let mut wire = gateway.wire().await;
    for _ in 0..3 {
        let head = format!("GET /guarded/a HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n");
        wire.send(format!("{head}TE: trailers\r\nConnection: TE\r\n\r\n")).await;
        let answer = wire.answer().await.unwrap();
        assert_eq!((&*answer.body, answer.complete, answer.trailers.len()), (&b"ok"[..], true, 0));
        assert!(answer.header("trailer").is_none(), "{answer:?}");
        let (_, body, trailers) = by_http2(&gateway, &token).await;
        assert_eq!((&*body, trailers.len()), (&b"ok"[..], 0));
    }
}

#[tokio::test]
async fn an_api_of_http2_says_nothing_in_trailers_that_its_head_may_not_say() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = hyper::service::service_fn(|request: Request<Incoming>| async move {
                request.into_body().collect().await.unwrap();
                let mut trailers = HeaderMap::new();
                for (name, value) in FINE.iter().chain(&WITHHELD) {
                    trailers.insert(*name, value.parse().unwrap());
                }
                let frames = vec![Frame::data(Bytes::from_static(b"ok")), Frame::trailers(trailers)];
                let response = Response::builder().header("content-type", "application/grpc");
                Ok::<_, Infallible>(response.body(Frames(frames.into_iter())).unwrap())
            });
            let io = TokioIo::new(stream);
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(server.serve_connection(io, service));
        }
    });
    let upstreams =
        format!("upstreams: [{{ name: api, endpoints: ['http://{address}'], protocol: http2 }}]\n");
    let (gateway, _issuer, token) = guarded_with(&upstreams).await;
    wait_until_let_in(&gateway, &token).await;
    let (head, body, trailers) = by_http2(&gateway, &token).await;
    assert_eq!((&*body, sorted(&trailers)), (&b"ok"[..], fine()));
    assert_eq!(head["content-type"], "application/grpc");
}

/// What a client announces and says behind its body: of all this one field reaches the API, by whichever version.
#[tokio::test]
async fn a_client_says_nothing_in_trailers_that_its_head_may_not_say() {
    let recorder = Recorder::start().await;
    let (gateway, _issuer, token) = guarded_with(&api(&recorder)).await;
    wait_until_let_in(&gateway, &token).await;
    recorder.forget();
    for path in ["/guarded/x", "/open/x"] {
        for names in [
            &["X-Auth-Subject", "x-auth-groups", "X_Auth_Subject", "x.auth.subject", "X-AUTH-SUBJECT"][..],
            &["X-Forwarded-For", "X-Real-IP", "x_forwarded_for", "X-Request-Id", "Client-Cert"],
            &["X-HTTP-Method-Override", "X_HTTP_Method_Override", "X-Original-URL", "X-Rewrite-URL"],
            &["Proxy", "HTTP2-Settings", "X-Listed"],
            &["If-Match", "Traceparent", "Accept", "Referer"],
        ] {
            let trailers: String = names.iter().map(|name| format!("{name}: mallory\r\n")).collect();
            let request = format!(
                "POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\
                 Connection: X-Listed\r\nTransfer-Encoding: chunked\r\nTrailer: {}, X-Sum\r\n\r\n\
                 2\r\nhi\r\n0\r\n{trailers}X-Sum: 42\r\n\r\n",
                names.join(", ")
            );
            assert_eq!(gateway.exchange(request).await.status, 200, "{names:?} on {path}");
            let received = recorder.only();
            assert_eq!(received.trailers, [("x-sum".to_owned(), "42".to_owned())], "{names:?} on {path}");
            assert_eq!((received.value("trailer"), &*received.body), ("x-sum", &b"hi"[..]), "{names:?}");
            assert!(!String::from_utf8(recorder.raw().concat()).unwrap().contains("mallory"), "{names:?}");
            recorder.forget();

            let mut h2 = H2::plain(gateway.plain).await;
            let lower: Vec<_> = names.iter().map(|name| name.to_ascii_lowercase()).collect();
            let announced = format!("{}, x-sum", lower.join(", "));
            let bearer = format!("Bearer {token}");
            let head = [
                (":method", "POST"),
                (":scheme", "http"),
                (":path", path),
                (":authority", "localhost"),
                ("authorization", &bearer),
                ("trailer", &announced),
            ];
            let mut fields: Vec<_> = lower.iter().map(|name| (&**name, "mallory")).collect();
            fields.retain(|(name, _)| *name != "x-listed");
            fields.push(("x-sum", "42"));
            h2.send(HEADERS, END_HEADERS, 1, &block(&head)).await;
            h2.send(DATA, 0, 1, b"hi").await;
            h2.send(HEADERS, END_HEADERS | END_STREAM, 1, &block(&fields)).await;
            assert_eq!(h2.outcome(1).await.answer().status, 200, "{names:?} on {path}");
            let received = recorder.only();
            assert_eq!(received.trailers, [("x-sum".to_owned(), "42".to_owned())], "{names:?} on {path}");
            assert!(!String::from_utf8(recorder.raw().concat()).unwrap().contains("mallory"), "{names:?}");
            recorder.forget();
        }
    }
}
