use std::io::Write;
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::feeds::testing::{Reply, TestServer};

fn client(settings: &FetchSettings) -> FetchClient {
    FetchClient::new(settings).unwrap()
}

async fn get(server: &TestServer, settings: &FetchSettings) -> Result<Fetched, FetchError> {
    client(settings).get(&server.url("/doc?key=s3cret"), FetchRequest::default()).await
}

fn body_of(fetched: &Fetched) -> &[u8] {
    match fetched {
        Fetched::Full { body, .. } => body,
        Fetched::NotModified(_) => panic!("not modified"),
    }
}

#[tokio::test]
async fn a_document_comes_with_what_its_head_says() {
    let server = TestServer::start(|request| {
        assert_eq!(request.headers()["accept"], "application/json");
        assert_eq!(request.headers()["authorization"], "Bearer t0ken");
        assert!(request.headers()["user-agent"].to_str().unwrap().starts_with("valgate/"));
        Reply::ok("{}")
            .with("etag", "\"7\"")
            .with("cache-control", "public, Max-Age=\"300\"")
            .with("age", "60")
    })
    .await;
    let authorization = HeaderValue::from_static("Bearer t0ken");
    let request = FetchRequest {
        accept: "application/json",
        authorization: Some(&authorization),
        ..FetchRequest::default()
    };
    let fetched = client(&FetchSettings::default()).get(&server.url("/"), request).await.unwrap();
    let Fetched::Full { head, body } = fetched else { panic!("not modified") };
    assert_eq!(&body[..], b"{}");
    assert_eq!(head.etag.as_deref(), Some("\"7\""));
    assert_eq!(head.max_age, Some(Duration::from_secs(240)));
    assert!(head.is_json());
}

#[tokio::test]
async fn a_current_copy_is_not_sent_again() {
    let server = TestServer::start(|request| match request.headers().get("if-none-match") {
        Some(tag) if tag == "\"7\"" => {
            Reply::Say(304, vec![("cache-control", "no-store".to_owned())], Bytes::new())
        }
        _ => Reply::ok("{}"),
    })
    .await;
    let client = client(&FetchSettings::default());
    let request = FetchRequest { etag: Some("\"7\""), ..FetchRequest::default() };
    match client.get(&server.url("/"), request).await.unwrap() {
        Fetched::NotModified(head) => assert_eq!(head.max_age, Some(Duration::ZERO)),
        Fetched::Full { .. } => panic!("sent again"),
    }
    let other = FetchRequest { etag: Some("\"8\""), ..FetchRequest::default() };
    assert_eq!(body_of(&client.get(&server.url("/"), other).await.unwrap()), b"{}");
}

#[tokio::test]
async fn what_is_no_document_is_an_error_that_names_it() {
    let brief =
        FetchSettings { timeout: Duration::from_millis(100), max_bytes: 5000, ..FetchSettings::default() };
    let cases: [(Reply, &str); 11] = [
        (Reply::status(500), "answers with status 500"),
        (Reply::status(404), "answers with status 404"),
        (Reply::status(204), "answers with status 204"),
        (Reply::status(304), "answers with status 304"),
        (
            Reply::status(302).with("location", "https://u:p@evil.example/x?t=1"),
            "redirects (302 Found) to https://evil.example/x;",
        ),
        (Reply::status(301), "redirects (301 Moved Permanently); "),
        (Reply::ok("x").with("content-encoding", "gzip"), "compresses"),
        (Reply::ok(vec![b' '; 5001]), "more than 5000 bytes"),
        (Reply::Flood, "more than 5000 bytes"),
        (Reply::Stall, "did not answer completely within 100ms"),
        (Reply::Hang, "did not answer completely within 100ms"),
    ];
    for (reply, expected) in cases {
        let server = TestServer::start(move |_| reply.clone()).await;
        let message = get(&server, &brief).await.unwrap_err().to_string();
        assert!(message.contains(expected), "{expected}: {message}");
        assert!(message.contains("/doc") && !message.contains("s3cret"), "{message}");
        assert_eq!(server.hits(), 1, "{expected}: asked once");
    }
    let server = TestServer::start(|_| Reply::BreakOff).await;
    let message = get(&server, &FetchSettings::default()).await.unwrap_err().to_string();
    assert!(message.contains("broke off"), "{message}");
}

#[tokio::test]
async fn a_body_of_exactly_the_limit_is_accepted() {
    let settings = FetchSettings { max_bytes: 5000, ..FetchSettings::default() };
    let server = TestServer::start(|_| Reply::ok(vec![b' '; 5000])).await;
    assert_eq!(body_of(&get(&server, &settings).await.unwrap()).len(), 5000);
}

#[tokio::test]
async fn a_stream_yields_its_chunks_and_then_the_fault() {
    let server = TestServer::start(|_| Reply::BreakOff).await;
    let client = client(&FetchSettings::default());
    let stream = client.get_stream(&server.url("/"), FetchRequest::default()).await.unwrap();
    let FetchedStream::Full { mut body, .. } = stream else { panic!("not modified") };
    assert_eq!(body.chunk().await.unwrap().unwrap().len(), 1024);
    assert!(matches!(body.chunk().await, Err(FetchError::Interrupted { .. })));
}

#[tokio::test]
async fn only_safe_urls_are_asked() {
    let closed = client(&FetchSettings::default());
    let open = client(&FetchSettings { allow_http: true, ..FetchSettings::default() });
    let cases = [
        (&closed, "http://id.example.com/", "plain HTTP"),
        (&closed, "http://localhost/", "plain HTTP"),
        (&closed, "http://10.0.0.1/", "plain HTTP"),
        (&closed, "ftp://127.0.0.1/", "scheme 'ftp'"),
        (&closed, "file:///etc/passwd", "scheme 'file'"),
        (&open, "http://user:s3cret@127.0.0.1/", "user name or password"),
        (&open, "http://127.0.0.1:1/", "cannot be reached"),
        (&closed, "http://[::1]:1/", "cannot be reached"),
    ];
    for (client, url, expected) in cases {
        let message =
            client.get(&Url::parse(url).unwrap(), FetchRequest::default()).await.unwrap_err().to_string();
        assert!(message.contains(expected) && !message.contains("s3cret"), "{url}: {message}");
    }
}

#[test]
fn max_age_follows_the_directives() {
    let cases: [(&[&str], Option<u64>); 7] = [
        (&[], None),
        (&["public"], None),
        (&["max-age=60"], Some(60)),
        (&["public, max-age=60, must-revalidate"], Some(60)),
        (&["public", "max-age=60"], Some(60)),
        (&["max-age=60, no-cache"], Some(0)),
        (&["max-age=soon"], None),
    ];
    for (values, seconds) in cases {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(CACHE_CONTROL, value.parse().unwrap());
        }
        assert_eq!(max_age(&headers), seconds.map(Duration::from_secs), "{values:?}");
    }
}

/// A certificate authority for tests.
struct Authority {
    pem: String,
    der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        Self { pem: certificate.pem(), der: certificate.der().clone(), issuer: Issuer::new(params, key) }
    }

    fn issue(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        (certificate, key)
    }

    fn server(&self, alpn: &str, asks_for_certificate: bool) -> ServerConfig {
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(std::sync::Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.der.clone()).unwrap();
        let builder = if asks_for_certificate {
            let verifier = WebPkiClientVerifier::builder_with_provider(std::sync::Arc::new(roots), provider)
                .build()
                .unwrap();
            builder.with_client_cert_verifier(verifier)
        } else {
            builder.with_no_client_auth()
        };
        let (certificate, key) = self.issue("127.0.0.1");
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let mut config = builder.with_single_cert(vec![certificate.der().clone()], key).unwrap();
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        config
    }
}

#[tokio::test]
async fn tls_is_spoken_with_those_the_ca_vouches_for_only() {
    let (trusted, other) = (Authority::new(), Authority::new());
    for (alpn, version) in [("h2", http::Version::HTTP_2), ("http/1.1", http::Version::HTTP_11)] {
        let server = TestServer::start_tls(trusted.server(alpn, false), move |request| {
            assert_eq!(request.version(), version);
            Reply::ok("{}")
        })
        .await;
        let trusting = |authority: &Authority| FetchSettings {
            ca: Some(TrustAnchors::Pem(authority.pem.clone().into_bytes())),
            ..FetchSettings::default()
        };
        assert_eq!(body_of(&get(&server, &trusting(&trusted)).await.unwrap()), b"{}");
        let message = get(&server, &trusting(&other)).await.unwrap_err().to_string();
        assert!(message.contains("cannot be reached") && message.contains("certificate"), "{message}");
        assert_eq!(server.hits(), 1);
    }
}

#[tokio::test]
async fn a_client_certificate_is_shown_to_who_asks() {
    let authority = Authority::new();
    let server = TestServer::start_tls(authority.server("http/1.1", true), |_| Reply::ok("{}")).await;
    let (certificate, key) = authority.issue("gateway");
    let file = |text: String| {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    };
    let (ca, certificate, key) =
        (file(authority.pem.clone()), file(certificate.pem()), file(key.serialize_pem()));
    let mut settings = FetchSettings {
        ca: Some(TrustAnchors::File(ca.path().to_owned())),
        client_certificate: Some(ClientCertificate {
            certificate: certificate.path().to_owned(),
            private_key: key.path().to_owned(),
        }),
        ..FetchSettings::default()
    };
    assert_eq!(body_of(&get(&server, &settings).await.unwrap()), b"{}");
    settings.client_certificate = None;
    assert!(get(&server, &settings).await.is_err());
}

#[test]
fn unusable_certificates_are_told_at_start() {
    let settings = |ca| FetchSettings { ca: Some(ca), ..FetchSettings::default() };
    for (ca, expected) in [
        (TrustAnchors::File("/nonexistent/ca.pem".into()), "cannot read the ca file /nonexistent/ca.pem"),
        (TrustAnchors::Pem(b"".to_vec()), "no certificate found"),
        (
            TrustAnchors::Pem(b"-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n".to_vec()),
            "the inline ca",
        ),
        (
            TrustAnchors::Pem(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_vec()),
            "the inline ca",
        ),
    ] {
        let message = FetchClient::new(&settings(ca)).unwrap_err().to_string();
        assert!(message.contains(expected), "{expected}: {message}");
    }
}

/// A proxy that notes what it is asked for; it opens tunnels if its answer says so.
async fn proxy(answer: &'static str) -> (EgressProxy, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    let heads = Arc::<Mutex<Vec<String>>>::default();
    let noted = Arc::clone(&heads);
    tokio::spawn(async move {
        while let Ok((mut inbound, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(inbound.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            let target = head.split(' ').nth(1).unwrap().to_owned();
            noted.lock().unwrap().push(head);
            inbound.write_all(answer.as_bytes()).await.unwrap();
            if answer.contains(" 200 ") {
                let mut outbound = TcpStream::connect(target).await.unwrap();
                tokio::spawn(async move { copy_bidirectional(&mut inbound, &mut outbound).await });
            }
        }
    });
    let authorization = Some(HeaderValue::from_static("Basic c3VyZmVyOnMzY3JldA=="));
    (EgressProxy { url, authorization }, heads)
}

#[tokio::test]
async fn the_way_out_leads_through_a_tunnel() {
    let server = TestServer::start(|_| Reply::ok("{}")).await;
    let (proxy, heads) = proxy("HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n").await;
    let settings = FetchSettings { proxy: Some(proxy), allow_http: true, ..FetchSettings::default() };
    assert_eq!(body_of(&get(&server, &settings).await.unwrap()), b"{}");
    let heads = heads.lock().unwrap().clone();
    let address = server.url("/").authority().to_owned();
    assert_eq!(
        heads,
        [format!(
            "CONNECT {address} HTTP/1.1\r\nHost: {address}\r\nProxy-Authorization: Basic c3VyZmVyOnMzY3JldA==\r\n\r\n"
        )]
    );
    assert!(!format!("{settings:?}").contains("c3Vy"), "the proxy's credentials are not shown");
}

/// Loopback is the proxy's own there, and everybody between the two could read along.
#[tokio::test]
async fn nothing_goes_through_a_proxy_in_the_clear() {
    let server = TestServer::start(|_| Reply::ok("{}")).await;
    let (proxy, heads) = proxy("HTTP/1.1 200 Connection established\r\n\r\n").await;
    let settings = FetchSettings { proxy: Some(proxy), ..FetchSettings::default() };
    let client = client(&settings);
    let elsewhere = [Url::parse("http://[::1]:1/").unwrap(), Url::parse("http://id.example.com/").unwrap()];
    for url in elsewhere.into_iter().chain([server.url("/doc")]) {
        let error = client.get(&url, FetchRequest::default()).await.unwrap_err().to_string();
        assert!(error.contains("plain HTTP"), "{url}: {error}");
    }
    assert_eq!((server.hits(), heads.lock().unwrap().len()), (0, 0));
}

#[tokio::test]
async fn a_proxy_that_opens_no_tunnel_is_told_as_such() {
    let server = TestServer::start(|_| Reply::ok("{}")).await;
    let endless = "HTTP/1.1 200 OK\r\nX: ".to_owned() + &"x".repeat(20_000);
    for (answer, expected) in [
        ("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "status 407"),
        ("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\n\r\n", "status 302"),
        ("SSH-2.0-OpenSSH\r\n\r\n", "does not answer in HTTP"),
        (endless.leak(), "has no end"),
    ] {
        let (proxy, _) = proxy(answer).await;
        let settings = FetchSettings { proxy: Some(proxy), allow_http: true, ..FetchSettings::default() };
        let error = get(&server, &settings).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert_eq!(server.hits(), 0);
}
