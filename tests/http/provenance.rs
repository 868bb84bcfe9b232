//! Whose word on the client's address counts: the connection's, a load balancer's (PROXY protocol), a trusted
//! proxy's (`X-Forwarded-For`, `Forwarded`), and nobody else's. Judged by what the backend is told.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::recorder::{PATIENCE, Recorder};
use crate::setup::{Gateway, api, yaml};
use crate::wire::Wire;

const REQUEST: &str = "GET /a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// A gateway whose listeners expect the PROXY protocol from these networks.
async fn behind_balancer(recorder: &Recorder, networks: &str, more: &str) -> Gateway {
    let routes = "routes: [{ match: { path: '/**' }, public: true, upstream: api }]\n";
    let expected = format!("address: '127.0.0.1:0', proxy_protocol: {{ from: [{networks}] }}");
    let text = yaml(&format!("{}{routes}{more}", api(recorder)));
    Gateway::start_exactly(&text.replace("address: '127.0.0.1:0'", &expected)).await
}

fn version_2(command: u8, address: [u8; 4], port: u16) -> Vec<u8> {
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    // Addresses, and a TLV of type NOOP (4) behind them.
    bytes.extend([0x20 | command, 0x11, 0, 12 + 6]);
    bytes.extend(address);
    bytes.extend([127, 0, 0, 1]);
    bytes.extend(port.to_be_bytes());
    bytes.extend([1, 187, 4, 0, 3, 1, 2, 3]);
    bytes
}

/// Sends bytes and reads to the end of the connection.
async fn raw_exchange(gateway: &Gateway, parts: &[&[u8]]) -> Vec<u8> {
    let mut stream = TcpStream::connect(gateway.plain).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for part in parts {
        // What is refused half way may be reset.
        let _ = stream.write_all(part).await;
    }
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "the connection stays open");
    answer
}

#[tokio::test]
async fn a_load_balancer_tells_the_client_by_the_proxy_protocol() {
    let recorder = Recorder::start().await;
    let gateway = behind_balancer(&recorder, "127.0.0.0/8", "").await;
    let line = b"PROXY TCP4 192.0.2.7 127.0.0.1 4711 443\r\n".to_vec();
    let line_of_six = b"PROXY TCP6 2001:db8::7 ::1 4711 443\r\n".to_vec();
    for (header, client) in [
        (line, "192.0.2.7"),
        (line_of_six, "2001:db8::7"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (version_2(1, [192, 0, 2, 9], 4711), "192.0.2.9"),
        (version_2(0, [192, 0, 2, 9], 4711), "127.0.0.1"),
    ] {
        let whole = [&header[..], REQUEST.as_bytes()].concat();
        let bytes: Vec<&[u8]> = whole.chunks(1).collect();
        for parts in [vec![&whole[..]], bytes] {
            recorder.forget();
            let answer = raw_exchange(&gateway, &parts).await;
            assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
            assert_eq!(recorder.only().value("x-forwarded-for"), client);
        }
    }
}

/// CVE-2024-23324 (Envoy): bytes in the PROXY protocol header that are no text made the question of who may pass fail, and
/// everybody passed.
#[tokio::test]
async fn bytes_that_are_no_text_behind_the_proxy_header_open_nothing() {
    let recorder = Recorder::start().await;
    let expected = "address: '127.0.0.1:0', proxy_protocol: { from: [127.0.0.0/8] }";
    let key = r#"{ "keys": [{ "kty": "OKP", "crv": "Ed25519", "kid": "k1", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" }] }"#;
    let text = yaml(&format!(
        "{}issuers: [{{ name: main, issuer: 'https://id.example.com/', keys: {{ inline: {key} }}, audiences: [a] }}]
routes: [{{ match: {{ path: '/**' }}, require: {{ issuers: [main] }}, upstream: api }}]
",
        api(&recorder)
    ));
    let gateway = Gateway::start_exactly(&text.replace("address: '127.0.0.1:0'", expected)).await;
    // PP2_TYPE_ALPN, PP2_TYPE_AUTHORITY, PP2_TYPE_UNIQUE_ID, and one that nobody knows.
    for kind in [0x01, 0x02, 0x05, 0xea] {
        for value in [&b"\xff\xfe\xc0\xaf"[..], b"\0\0\0\0", b"a\r\nb"] {
            let mut header = version_2(1, [192, 0, 2, 9], 4711);
            header.truncate(28);
            header.push(kind);
            header.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
            header.extend(value);
            let length = u16::try_from(header.len() - 16).unwrap();
            header[14..16].copy_from_slice(&length.to_be_bytes());
            let answer = raw_exchange(&gateway, &[&header, REQUEST.as_bytes()]).await;
            let answer = String::from_utf8_lossy(&answer);
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 401"), "{kind} {value:?}: {answer}");
        }
    }
    recorder.assert_untouched("a bypass");
}

#[tokio::test]
async fn the_proxy_protocol_comes_before_tls() {
    let recorder = Recorder::start().await;
    let gateway = behind_balancer(&recorder, "127.0.0.1", "").await;
    let mut stream = TcpStream::connect(gateway.tls).await.unwrap();
    stream.write_all(&version_2(1, [192, 0, 2, 9], 4711)).await.unwrap();
    let name = "localhost".to_owned().try_into().unwrap();
    let connector =
        TlsConnector::from(crate::wire::client_config(&crate::setup::CERTIFICATES.ca, b"http/1.1"));
    let mut tls = connector.connect(name, stream).await.unwrap();
    tls.write_all(REQUEST.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    tls.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    let request = recorder.only();
    assert_eq!(
        (request.value("x-forwarded-for"), request.value("x-forwarded-proto")),
        ("192.0.2.9", "https")
    );
}

#[tokio::test]
async fn without_a_valid_header_from_a_named_network_nothing_is_served() {
    let recorder = Recorder::start().await;
    let short = "timeouts: { handshake: 300ms }\n";
    let gateway = behind_balancer(&recorder, "127.0.0.0/8", short).await;
    let cut = &version_2(1, [192, 0, 2, 9], 4711)[..20];
    for bytes in [
        REQUEST.as_bytes(),
        b"PROXY TCP4 192.0.2.7 127.0.0.1 4711\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PROXY TCP4 192.0.2.7 127.0.0.1",
        cut,
        b"",
    ] {
        assert_eq!(raw_exchange(&gateway, &[bytes]).await, b"", "{bytes:?}");
    }
    let elsewhere = behind_balancer(&recorder, "10.0.0.0/8", "").await;
    let forged = format!("PROXY TCP4 10.0.0.1 127.0.0.1 4711 443\r\n{REQUEST}");
    assert_eq!(raw_exchange(&elsewhere, &[forged.as_bytes()]).await, b"");
    recorder.assert_untouched("no connection was to be served");
}

/// Where it is not expected, its bytes are not HTTP.
#[tokio::test]
async fn an_unexpected_proxy_header_is_a_bad_request() {
    let recorder = Recorder::start().await;
    let gateway = Gateway::open(&recorder).await;
    let answer = gateway.exchange(format!("PROXY TCP4 192.0.2.7 127.0.0.1 4711 443\r\n{REQUEST}")).await;
    assert_eq!(answer.status, 400);
    recorder.assert_untouched("a PROXY line is no request");
}

#[tokio::test]
async fn forwarded_headers_count_from_trusted_proxies_alone() {
    let recorder = Recorder::start().await;
    let lines = "X-Forwarded-For: 6.6.6.6, 192.0.2.7, 10.1.1.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: shop.test\r\n\
                 Forwarded: for=7.7.7.7;proto=https;host=other.test\r\nX-Real-IP: 8.8.8.8\r\n";
    let own = "for=127.0.0.1;host=\"localhost\";proto=http";
    let told = "for=192.0.2.7;host=\"shop.test\";proto=https, for=10.1.1.1, for=127.0.0.1";
    let standard = "for=7.7.7.7;host=\"other.test\";proto=https, for=127.0.0.1";
    for (trusted, list, forwarded) in [
        ("forwarded: { trusted_proxies: [] }", "127.0.0.1", own),
        ("forwarded: { trusted_proxies: [10.0.0.0/8] }", "127.0.0.1", own),
        ("forwarded: { trusted_proxies: [127.0.0.1, 10.0.0.0/8] }", "192.0.2.7, 10.1.1.1, 127.0.0.1", told),
        ("forwarded: { trusted_proxies: [127.0.0.1], header: forwarded }", "7.7.7.7, 127.0.0.1", standard),
    ] {
        recorder.forget();
        let gateway = Gateway::with(&recorder, trusted).await;
        assert_eq!(gateway.get("/a", lines).await.status, 200);
        let request = recorder.only();
        assert_eq!(request.value("x-forwarded-for"), list, "{trusted}");
        assert_eq!(request.value("forwarded"), forwarded, "{trusted}");
        let raw = String::from_utf8(recorder.raw().concat()).unwrap();
        assert!(!raw.contains("6.6.6.6") && !raw.contains("8.8.8.8"), "{trusted}: {raw}");
        assert_eq!(request.value("host"), "localhost", "routing and Host are the request's own");
    }
}

/// What a load balancer tells by the PROXY protocol may itself be a trusted proxy.
#[tokio::test]
async fn both_ways_go_together() {
    let recorder = Recorder::start().await;
    let trusted = "forwarded: { trusted_proxies: [192.0.2.0/24] }\n";
    let gateway = behind_balancer(&recorder, "127.0.0.1", trusted).await;
    for (proxy, list) in [("192.0.2.7", "203.0.113.5, 192.0.2.7"), ("198.51.100.7", "198.51.100.7")] {
        recorder.forget();
        let mut wire = Wire::plain(gateway.plain).await;
        wire.send(format!("PROXY TCP4 {proxy} 127.0.0.1 4711 443\r\n")).await;
        wire.send("GET /a HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 203.0.113.5\r\n\r\n").await;
        assert_eq!(wire.answer().await.unwrap().status, 200);
        assert_eq!(recorder.only().value("x-forwarded-for"), list);
    }
}
