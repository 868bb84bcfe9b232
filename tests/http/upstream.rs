//! An upstream that fails in every way: a truthful code, or a response that visibly breaks off, and never a wrong
//! success.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};

use crate::h2server::H2Server;
use crate::h2wire::{DATA, END_HEADERS, END_STREAM, H2, HEADERS, block, frame, get};
use crate::recorder::{OK, Recorder};
use crate::setup::{CERTIFICATES, Gateway};
use crate::wire::refused;

/// A gateway in front of these endpoints with these further fields of the upstream.
pub async fn in_front_of(url: &str, more: &str) -> Gateway {
    Gateway::start(&format!(
        "upstreams: [{{ name: api, endpoints: ['{url}']{more} }}]
routes: [{{ match: {{ path: '/**' }}, public: true, upstream: api }}]
"
    ))
    .await
}

/// An address at which connections are refused, and that nobody else can take.
pub fn nobody() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

#[tokio::test]
async fn a_refused_connection_is_unreachable() {
    let (_socket, address) = nobody();
    let gateway = in_front_of(&format!("http://{address}"), "").await;
    refused(&gateway.get("/a", "").await, 502, "VAL-060", "connect");
}

#[tokio::test]
async fn a_connection_that_is_not_accepted_in_time_is_a_timeout() {
    // A listener whose queue is full: the kernel answers no further SYN.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queue = Vec::new();
    while let Ok(Ok(stream)) =
        tokio::time::timeout(std::time::Duration::from_millis(100), tokio::net::TcpStream::connect(address))
            .await
    {
        queue.push(stream);
    }
    let gateway = in_front_of(&format!("http://{address}"), ", timeouts: { connect: 200ms }").await;
    let answer = gateway.get("/a", "").await;
    assert_eq!((answer.status, answer.problem()["code"].as_str()), (504, Some("VAL-061")), "{answer:?}");
}

#[tokio::test]
async fn an_upstream_that_never_answers_times_out() {
    let recorder = Recorder::scripted(|mut conn| async move {
        conn.request().await;
        conn.until_closed().await;
    })
    .await;
    let gateway = in_front_of(&recorder.url(), ", timeouts: { response: 200ms }").await;
    let answer = gateway.get("/a", "").await;
    assert_eq!((answer.status, answer.problem()["code"].as_str()), (504, Some("VAL-061")), "{answer:?}");
    assert_eq!(recorder.requests().len(), 1, "a time-out is not repeated");
}

#[tokio::test]
async fn a_connection_closed_before_the_response_is_a_reset() {
    let closing = Recorder::scripted(|mut conn| async move {
        conn.request().await;
    })
    .await;
    let resetting = Recorder::scripted(|mut conn| async move {
        conn.request().await;
        conn.reset();
    })
    .await;
    for recorder in [closing, resetting] {
        let gateway = in_front_of(&recorder.url(), "").await;
        refused(&gateway.get("/a", "").await, 502, "VAL-060", "reset");
        let answer = H2::plain(gateway.plain).await.request(1, &get("/a")).await.answer();
        assert_eq!(answer.verdict(), "VAL-060 reset");
    }
}

#[tokio::test]
async fn what_is_not_an_http_response_is_a_bad_response() {
    let huge_head = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(1_000_000));
    let many_headers = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: x\r\n".repeat(500));
    for bytes in [
        "SSH-2.0-OpenSSH_9.6\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "HTTP/1.1 xxx OK\r\n\r\n",
        "HTTP/1.1 99 OK\r\n\r\n",
        "<html>hello</html>\r\n\r\n",
        "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        "HTTP/1.1 200 OK\r\nX : y\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX\0: y\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!",
        "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        // Nobody has asked for an upgrade.
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        &huge_head,
        &many_headers,
    ] {
        let recorder = Recorder::answering(bytes).await;
        let gateway = in_front_of(&recorder.url(), "").await;
        let answer = gateway.get("/a", "").await;
        let start = &bytes[..bytes.len().min(80)];
        assert_eq!(
            (answer.status, answer.problem()["code"].as_str()),
            (502, Some("VAL-062")),
            "{start:?}: {answer:?}"
        );
    }
}

#[tokio::test]
async fn a_reset_in_the_body_aborts_the_response() {
    for framing in ["Content-Length: 100\r\n", "Transfer-Encoding: chunked\r\n", ""] {
        let recorder = Recorder::scripted(move |mut conn| async move {
            conn.request().await;
            conn.send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n5\r\nhello\r\n").as_bytes()).await;
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            conn.reset();
        })
        .await;
        let gateway = in_front_of(&recorder.url(), "").await;
        let answer = gateway.get("/a", "").await;
        assert_eq!((answer.status, answer.complete), (200, false), "{framing:?}: {answer:?}");
        assert!(H2::plain(gateway.plain).await.request(1, &get("/a")).await.is_refusal(), "{framing:?}");
    }
}

#[tokio::test]
async fn bytes_behind_a_response_are_never_another_requests_response() {
    let recorder = Recorder::scripted(|mut conn| async move {
        while let Some(request) = conn.request().await {
            let body = request.target().to_owned();
            let forged = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged";
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}{forged}", body.len());
            conn.send(answer.as_bytes()).await;
        }
    })
    .await;
    let gateway = in_front_of(&recorder.url(), "").await;
    let mut wire = gateway.wire().await;
    for n in 0..10 {
        wire.send(format!("GET /{n} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
        let answer = wire.answer().await.unwrap();
        assert!(answer.body != b"forged", "{n}: {answer:?}");
    }
}

#[tokio::test]
async fn interim_responses_are_left_out_and_the_final_one_arrives_as_it_is() {
    let by_http1 = Recorder::answering(
        "HTTP/1.1 103 Early Hints\r\nLink: </early>\r\nX-Early: 1\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n\
         HTTP/1.1 103 Early Hints\r\nLink: </more>\r\n\r\n\
         HTTP/1.1 200 OK\r\nLink: </a>\r\nContent-Length: 2\r\n\r\nok",
    )
    .await;
    let by_http2 = H2Server::scripted(|mut conn| async move {
        conn.settings().await;
        while let Some(stream) = conn.request().await {
            for fields in [
                &[(":status", "103"), ("link", "</early>"), ("x-early", "1")][..],
                &[(":status", "100")],
                &[(":status", "103"), ("link", "</more>")],
                &[(":status", "200"), ("link", "</a>")],
            ] {
                conn.send(&frame(HEADERS, END_HEADERS, stream, &block(fields))).await;
            }
            conn.send(&frame(DATA, END_STREAM, stream, b"ok")).await;
        }
    })
    .await;
    for (url, more) in [(by_http1.url(), ""), (by_http2.url(), ", protocol: http2")] {
        let gateway = in_front_of(&url, more).await;
        let (mut wire, mut h2) = (gateway.wire().await, H2::plain(gateway.plain).await);
        for stream in [1, 3, 5] {
            wire.send("GET /a HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n\r\n").await;
            let answer = wire.answer().await.unwrap();
            assert_eq!((answer.status, &*answer.body, answer.complete), (200, &b"ok"[..], true), "{url}");
            assert_eq!((answer.values("link"), answer.header("x-early")), (vec!["</a>"], None), "{url}");
            let answer = h2.request(stream, &get("/a")).await.answer();
            assert_eq!((answer.status, &*answer.body, answer.complete), (200, &b"ok"[..], true), "{url}");
        }
    }
}

#[tokio::test]
async fn connections_to_the_upstream_are_reused_and_old_ones_dropped_when_it_asks() {
    let recorder = Recorder::start().await;
    let gateway = in_front_of(&recorder.url(), "").await;
    let mut wire = gateway.wire().await;
    for _ in 0..10 {
        wire.send("GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert_eq!(wire.answer().await.unwrap().status, 200);
    }
    assert_eq!(recorder.connections(), 1);
    let closing =
        Recorder::answering("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok").await;
    let gateway = in_front_of(&closing.url(), "").await;
    for _ in 0..3 {
        assert_eq!(gateway.get("/a", "").await.status, 200);
    }
    assert_eq!(closing.connections(), 3);
}

/// The upstream answers once and closes, without a word, when the second request arrives: no fault of the client.
#[tokio::test]
async fn a_stale_pooled_connection_is_not_the_clients_problem() {
    for method in ["GET", "HEAD", "OPTIONS"] {
        let recorder = Recorder::scripted(|mut conn| async move {
            conn.request().await;
            let end = if conn.place() % 2 == 0 { 3 } else { 0 };
            conn.send(b"HTTP/1.1 204 No Content\r\n\r\n").await;
            // Closed with the next request in it, half of the time with a reset.
            conn.more().await;
            if end == 0 {
                conn.reset();
            }
        })
        .await;
        let gateway = in_front_of(&recorder.url(), "").await;
        let mut wire = gateway.wire().await;
        for n in 0..6 {
            wire.send(format!("{method} /{n} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
            let answer = wire.answer_to(method).await.unwrap();
            assert_eq!(answer.status, 204, "{method} {n}: {answer:?}");
        }
    }
}

/// What may have been done must not be done twice.
#[tokio::test]
async fn a_request_that_is_not_safe_is_never_sent_twice() {
    let recorder = Recorder::scripted(|mut conn| async move {
        conn.request().await;
        conn.send(OK).await;
        conn.request().await;
    })
    .await;
    let gateway = in_front_of(&recorder.url(), "").await;
    let mut wire = gateway.wire().await;
    for (request, status) in [
        ("POST /first HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", 200),
        ("POST /second HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", 502),
        ("POST /third HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello", 200),
        ("PATCH /fourth HTTP/1.1\r\nHost: localhost\r\n\r\n", 502),
    ] {
        wire.send(request).await;
        assert_eq!(wire.answer().await.unwrap().status, status, "{request}");
    }
    let targets: Vec<String> =
        recorder.requests().iter().map(|request| request.target().to_owned()).collect();
    assert_eq!(targets, ["/first", "/second", "/third", "/fourth"]);
}

/// One repetition, on a new connection: an upstream that always dies gets two requests, not a storm.
#[tokio::test]
async fn a_repetition_happens_once() {
    let recorder = Recorder::scripted(|mut conn| async move {
        conn.request().await;
        if conn.place() == 0 {
            conn.send(OK).await;
            conn.request().await;
        }
    })
    .await;
    let gateway = in_front_of(&recorder.url(), "").await;
    let mut wire = gateway.wire().await;
    wire.send("GET /first HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(wire.answer().await.unwrap().status, 200);
    wire.send("GET /second HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    refused(&wire.answer().await.unwrap(), 502, "VAL-060", "reset");
    assert_eq!(recorder.requests().len(), 3);
}

/// The upstream may refuse a large upload without reading it.
#[tokio::test]
async fn an_early_response_to_an_unfinished_upload_arrives() {
    let recorder = Recorder::scripted(|mut conn| async move {
        conn.head().await;
        conn.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 5\r\nConnection: close\r\n\r\nlarge").await;
        conn.until_closed().await;
    })
    .await;
    let gateway = in_front_of(&recorder.url(), "").await;
    let mut wire = gateway.wire().await;
    wire.send("POST /a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000000\r\n\r\nhello").await;
    let answer = wire.answer().await.unwrap();
    assert_eq!((answer.status, &*answer.body), (413, &b"large"[..]));
    assert_eq!(answer.header("connection"), Some("close"), "nobody reads the rest of the body");
}

/// A TLS server with the tests' certificate that answers one way, over HTTP/1.1 or HTTP/2.
async fn tls_server(alpn: &'static [u8]) -> SocketAddr {
    tls_server_asking(alpn, Arc::new(rustls::server::NoClientAuth)).await
}

/// The same, which asks for client certificates.
async fn tls_server_asking(alpn: &'static [u8], clients: Arc<dyn ClientCertVerifier>) -> SocketAddr {
    let chain = vec![CertificateDer::from_pem_slice(CERTIFICATES.certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(CERTIFICATES.key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![alpn.to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service =
                    hyper::service::service_fn(|request: http::Request<hyper::body::Incoming>| async move {
                        let seen = format!("{:?} {}", request.version(), request.uri().path());
                        Ok::<_, std::convert::Infallible>(http::Response::new(http_body_util::Full::new(
                            bytes::Bytes::from(seen),
                        )))
                    });
                let io = hyper_util::rt::TokioIo::new(stream);
                let executor = hyper_util::rt::TokioExecutor::new();
                let _ = hyper_util::server::conn::auto::Builder::new(executor)
                    .serve_connection(io, service)
                    .await;
            });
        }
    });
    address
}

#[tokio::test]
async fn an_upstream_over_tls_is_verified_against_the_private_authority_and_its_name() {
    for (alpn, seen) in [(&b"http/1.1"[..], "HTTP/1.1 /a"), (&b"h2"[..], "HTTP/2.0 /a")] {
        let address = tls_server(alpn).await;
        let url = format!("https://localhost:{}", address.port());
        let gateway = in_front_of(&url, ", tls: { ca: ca.pem }").await;
        let answer = gateway.get("/a", "").await;
        assert_eq!((answer.status, std::str::from_utf8(&answer.body).unwrap()), (200, seen));
        let named = in_front_of(&url, ", tls: { ca: ca.pem, server_name: a.test }").await;
        assert_eq!(named.get("/a", "").await.status, 200);
        for fields in [", tls: { ca: ca.pem, server_name: wrong.test }", ""] {
            let gateway = in_front_of(&url, fields).await;
            refused(&gateway.get("/a", "").await, 502, "VAL-060", "tls");
        }
    }
}

#[tokio::test]
async fn an_upstream_that_asks_for_a_certificate_gets_the_gateways() {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CERTIFICATES.ca.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
    for alpn in [&b"http/1.1"[..], b"h2"] {
        let address = tls_server_asking(alpn, Arc::<dyn ClientCertVerifier>::clone(&clients)).await;
        let url = format!("https://localhost:{}", address.port());
        let own = "client_certificate: { certificate: tls.crt, private_key: tls.key }";
        let gateway = in_front_of(&url, &format!(", tls: {{ ca: ca.pem, {own} }}")).await;
        assert_eq!(gateway.get("/a", "").await.status, 200);
        let nameless = in_front_of(&url, ", tls: { ca: ca.pem }").await;
        let answer = nameless.get("/a", "").await;
        assert_eq!((answer.status, answer.problem()["code"].as_str()), (502, Some("VAL-060")), "{answer:?}");
    }
}

#[tokio::test]
async fn an_upstream_may_listen_on_a_unix_socket() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("api.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let (seen, mut requests) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = vec![0; 4096];
            let count = stream.read(&mut head).await.unwrap();
            seen.send(String::from_utf8_lossy(&head[..count]).into_owned()).unwrap();
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
                .await
                .unwrap();
        }
    });
    let url = format!("unix:{}", path.display());
    let gateway = in_front_of(&url, "").await;
    for _ in 0..2 {
        let answer = gateway.get("/a", "").await;
        assert_eq!((answer.status, &*answer.body), (200, &b"ok"[..]));
        let request = requests.recv().await.unwrap();
        assert!(
            request.starts_with("GET /a HTTP/1.1\r\n") && request.contains("host: localhost"),
            "{request}"
        );
    }
    let nobody = in_front_of(&format!("{url}.none"), "").await;
    refused(&nobody.get("/a", "").await, 502, "VAL-060", "connect");
}

#[tokio::test]
async fn an_upstream_that_speaks_no_tls_fails_the_handshake() {
    let recorder = Recorder::scripted(|mut conn| async move {
        conn.more().await;
        conn.send(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    })
    .await;
    let gateway = in_front_of(&format!("https://{}", recorder.address()), ", tls: { ca: ca.pem }").await;
    refused(&gateway.get("/a", "").await, 502, "VAL-060", "tls");
}

#[tokio::test]
async fn http2_to_the_upstream_by_prior_knowledge() {
    let api = valgate::demo::api::SampleApi::start().await.unwrap();
    let gateway = in_front_of(&format!("http://{}", api.address()), ", protocol: http2").await;
    for bytes in [
        "GET /orders?a=b HTTP/1.1\r\nHost: a.test:81\r\n\r\n",
        "POST /orders HTTP/1.1\r\nHost: a.test:81\r\nContent-Length: 5\r\n\r\nhello",
        "POST /orders HTTP/1.1\r\nHost: a.test:81\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "GET /orders HTTP/1.1\r\nHost: a.test:81\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ] {
        api.forget();
        assert!(gateway.exchange(bytes).await.status < 300, "{bytes}");
        let [request] = &*api.received() else { panic!("{:?}", api.received()) };
        assert_eq!(request.version, http::Version::HTTP_2);
        let length = if bytes.contains("hello") { 5 } else { 0 };
        assert_eq!((request.body_len, request.body_complete), (length, true), "{bytes}");
        assert_eq!(request.values(&http::HeaderName::from_static("x-forwarded-host")), ["a.test:81"]);
    }
    // A server that does not speak it.
    let recorder = Recorder::answering("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
    let gateway = in_front_of(&recorder.url(), ", protocol: http2").await;
    let answer = gateway.get("/a", "").await;
    assert_eq!(answer.status, 502, "{answer:?}");
}
