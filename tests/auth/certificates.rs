//! Client certificates: who may connect, what routes demand of them, what the API is told, and tokens bound to them.

use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CrlDistributionPoint, DnType, IsCa, KeyPair,
    SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::support::{
    Connection, ISSUER, Reply, Signer, TestGateway, Token, base64url, eventually, get, refused, send, verdict,
};

pub type Authority = CertifiedIssuer<'static, KeyPair>;

/// Who connects: a certificate and its key, and what is between it and an authority that is known.
pub struct Client {
    pub der: CertificateDer<'static>,
    pub key: PrivateKeyDer<'static>,
    pub between: Vec<CertificateDer<'static>>,
}

pub fn authority() -> Authority {
    authority_named("clients")
}

pub fn authority_named(name: &str) -> Authority {
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap()
}

/// An authority between another one and its clients, whose own certificate would be on a list at these places.
pub fn authority_under(above: &Authority, lists: &[&str]) -> Authority {
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name.push(DnType::CommonName, "between");
    ca.crl_distribution_points = distribution_points(lists);
    CertifiedIssuer::signed_by(ca, KeyPair::generate().unwrap(), above).unwrap()
}

fn distribution_points(lists: &[&str]) -> Vec<CrlDistributionPoint> {
    lists.iter().map(|uri| CrlDistributionPoint { uris: vec![(*uri).to_owned()] }).collect()
}

/// What a certificate is known by on a list of those that are revoked.
pub fn serial_of(name: &str) -> SerialNumber {
    SerialNumber::from_slice(name.as_bytes())
}

impl Client {
    pub fn named(name: &str, authority: &Authority) -> Self {
        Self::valid_until(name, authority, 4096)
    }

    /// One that says where the list is published that it would be on.
    pub fn listed_at(name: &str, authority: &Authority, uri: &str) -> Self {
        Self::of(name, authority, 4096, &[uri])
    }

    fn valid_until(name: &str, authority: &Authority, year: i32) -> Self {
        Self::of(name, authority, year, &[])
    }

    fn of(name: &str, authority: &Authority, year: i32, lists: &[&str]) -> Self {
        let mut params = CertificateParams::default();
        params.crl_distribution_points = distribution_points(lists);
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names =
            vec![SanType::URI(format!("spiffe://example.org/{name}").try_into().unwrap())];
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        params.serial_number = Some(serial_of(name));
        let der = params.signed_by(&key, authority).unwrap().der().clone();
        Self { der, key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(), between: Vec::new() }
    }

    fn pem(&self) -> String {
        let text = STANDARD.encode(&self.der);
        format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
    }

    /// What the claim `cnf` calls it (RFC 8705 section 3.1).
    fn confirmation(&self) -> Value {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &self.der);
        json!({ "x5t#S256": base64url(digest.as_ref()) })
    }
}

/// A gateway whose TLS listener asks for certificates of this authority.
async fn gateway(authority: &Authority, signer: &Signer, required: bool, issuer: &str) -> TestGateway {
    let dir = Arc::new(TempDir::new().unwrap());
    std::fs::write(dir.path().join("clients.pem"), authority.pem()).unwrap();
    let yaml = format!(
        "
admin: {{ address: 127.0.0.1:0 }}
listeners:
  - {{ address: 127.0.0.1:0, plaintext: true }}
  - address: 127.0.0.1:0
    tls:
      certificates: [{{ certificate: $DIR/tls.crt, private_key: $DIR/tls.key }}]
      client_certificates: {{ ca: $DIR/clients.pem, required: {required} }}
issuers:
  - name: main
    issuer: {ISSUER}
    keys: {{ inline: {} }}
    audiences: [orders-api]
    {issuer}
routes:
  - match: {{ path: /orders/any }}
    require: {{ client_certificate: {{}} }}
    identity_headers: {{ X-Client: {{ certificate: common_name }}, Client-Cert: {{ certificate: rfc9440 }} }}
    upstream: api
  - match: {{ path: /orders/own }}
    require: {{ client_certificate: {{ san_uri: [spiffe://example.org/x, spiffe://example.org/orders] }} }}
    identity_headers: {{ X-Client: {{ certificate: san_uri }} }}
    upstream: api
  - match: {{ path: /orders/both }}
    require: {{ issuers: [main], client_certificate: {{ common_name: orders }} }}
    identity_headers: {{ X-Client: {{ certificate: subject }}, X-Subject: sub }}
    upstream: api
  - match: {{ path: /orders/token }}
    require: {{ issuers: [main] }}
    upstream: api
  - {{ match: {{ path: /orders/open }}, public: true, upstream: api }}
",
        signer.jwks()
    );
    let gateway = TestGateway::start_in(dir, &yaml).await;
    gateway.wait_until_ready().await;
    gateway
}

/// A connection of this client; what is wrong with its certificate may show only when it is used.
async fn connect(gateway: &TestGateway, client: Option<&Client>) -> Option<Connection> {
    connect_by(gateway, client, b"http/1.1").await
}

/// The same by this protocol of ALPN.
pub async fn connect_by(gateway: &TestGateway, client: Option<&Client>, alpn: &[u8]) -> Option<Connection> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(gateway.ca().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match client {
        Some(client) => {
            let chain = [&client.der].into_iter().chain(&client.between).cloned().collect();
            config.with_client_auth_cert(chain, client.key.clone_key()).unwrap()
        }
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    let stream = TcpStream::connect(gateway.tls).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()?;
    Some(Connection::over(stream))
}

pub async fn ask(gateway: &TestGateway, client: Option<&Client>, path: &str, lines: &str) -> Option<Reply> {
    let mut connection = connect(gateway, client).await?;
    connection.write(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n")).await;
    connection.reply().await
}

fn told(gateway: &TestGateway, path: &str, name: &str) -> Vec<String> {
    gateway.received(path).last().unwrap().values(&name.parse().unwrap())
}

#[tokio::test]
async fn a_required_certificate_is_required_and_must_be_of_the_authority_and_in_time() {
    let (ours, theirs, signer) = (authority(), authority(), Signer::es256("k1"));
    let gateway = gateway(&ours, &signer, true, "").await;
    let (good, forged) = (Client::named("orders", &ours), Client::named("orders", &theirs));
    let expired = Client::valid_until("orders", &ours, 2020);
    assert_eq!(ask(&gateway, Some(&good), "/orders/open", "").await.unwrap().status, 200);
    assert_eq!(gateway.received("/orders/open").len(), 1);
    for (client, what) in [(None, "none"), (Some(&forged), "forged"), (Some(&expired), "expired")] {
        let reply = ask(&gateway, client, "/orders/open", "").await;
        assert!(reply.is_none(), "{what}: {reply:?}");
    }
    assert_eq!(gateway.received("/orders/open").len(), 1, "nothing of those reached the API");
    crate::support::eventually("three failed handshakes", || async {
        gateway.metric("valgate_tls_handshakes_total{result=\"client_certificate\"}").await == 3
    })
    .await;
}

#[tokio::test]
async fn an_optional_certificate_lets_routes_decide() {
    let (ours, theirs, signer) = (authority(), authority(), Signer::es256("k1"));
    let gateway = gateway(&ours, &signer, false, "").await;
    let (orders, other) = (Client::named("orders", &ours), Client::named("other", &ours));
    let forged = Client::named("orders", &theirs);
    for (client, path, expected) in [
        (None, "/orders/open", "200"),
        (None, "/orders/any", "403 VAL-031 certificate_missing"),
        (None, "/orders/own", "403 VAL-031 certificate_missing"),
        (Some(&orders), "/orders/any", "200"),
        (Some(&other), "/orders/any", "200"),
        (Some(&orders), "/orders/own", "200"),
        (Some(&other), "/orders/own", "403 VAL-031 certificate_rule"),
        (Some(&other), "/orders/both", "401 VAL-010 missing"),
    ] {
        let before = gateway.received(path).len();
        let reply = ask(&gateway, client, path, "").await.unwrap();
        assert_eq!(verdict(&reply), expected, "{path}");
        assert_eq!(gateway.received(path).len() - before, usize::from(expected == "200"), "{path}");
    }
    assert!(
        ask(&gateway, Some(&forged), "/orders/open", "").await.is_none(),
        "a wrong one is worse than none"
    );
    let plain = gateway.get("/orders/any", "", &[]).await;
    refused(&plain, "VAL-031", "certificate_missing");
    let lines = gateway.stop().await;
    let named = |line: &&Value| line["certificate"] == "spiffe://example.org/orders";
    assert_eq!(lines.iter().filter(named).count(), 2, "{lines:?}");
}

#[tokio::test]
async fn a_certificate_beside_a_token_must_be_the_routes() {
    let (ours, signer) = (authority(), Signer::es256("k1"));
    let gateway = gateway(&ours, &signer, false, "").await;
    let (orders, other) = (Client::named("orders", &ours), Client::named("other", &ours));
    let line = format!("Authorization: Bearer {}\r\n", Token::new().claim("sub", "alice").sign(&signer));
    for (client, expected) in [
        (Some(&orders), "200"),
        (Some(&other), "403 VAL-031 certificate_rule"),
        (None, "403 VAL-031 certificate_missing"),
    ] {
        assert_eq!(verdict(&ask(&gateway, client, "/orders/both", &line).await.unwrap()), expected);
    }
    assert_eq!(gateway.received("/orders/both").len(), 1);
    assert_eq!(told(&gateway, "/orders/both", "x-client"), ["CN=orders"]);
    assert_eq!(told(&gateway, "/orders/both", "x-subject"), ["alice"]);
}

#[tokio::test]
async fn the_api_is_told_of_the_real_certificate_alone() {
    let (ours, signer) = (authority(), Signer::es256("k1"));
    let gateway = gateway(&ours, &signer, false, "").await;
    let orders = Client::named("orders", &ours);
    let forged = [
        "X-Client",
        "x_client",
        "Client-Cert",
        "X-Client-Cert",
        "X-SSL-Client-Cert",
        "X-Forwarded-Client-Cert",
    ];
    let lines = forged.map(|name| format!("{name}: forged\r\n")).concat();
    for path in ["/orders/any", "/orders/open"] {
        assert_eq!(ask(&gateway, Some(&orders), path, &lines).await.unwrap().status, 200);
        let received = gateway.received(path).pop().unwrap();
        assert!(!format!("{received:?}").contains("forged"), "{received:?}");
    }
    assert_eq!(told(&gateway, "/orders/any", "x-client"), ["orders"]);
    let own = told(&gateway, "/orders/any", "client-cert").pop().unwrap();
    assert!(own.starts_with(":MII") && own.ends_with(':'), "{own}");
}

/// RFC 8705 section 3: a stolen bound token is worth nothing without its certificate.
#[tokio::test]
async fn a_bound_token_needs_its_certificate() {
    let (ours, signer) = (authority(), Signer::es256("k1"));
    let gateway = gateway(&ours, &signer, false, "").await;
    let (orders, other) = (Client::named("orders", &ours), Client::named("other", &ours));
    let bound = Token::new().claim("cnf", orders.confirmation()).sign(&signer);
    let free = Token::new().sign(&signer);
    let broken = Token::new().claim("cnf", json!({ "x5t#S256": 7 })).sign(&signer);
    let mismatch = "401 VAL-020 binding_mismatch";
    for (token, client, expected) in [
        (&bound, Some(&orders), "200"),
        (&bound, Some(&other), mismatch),
        (&bound, None, mismatch),
        // Once more with its verdict in the cache.
        (&bound, Some(&orders), "200"),
        (&bound, None, mismatch),
        (&free, None, "200"),
        (&broken, Some(&orders), mismatch),
    ] {
        let line = format!("Authorization: Bearer {token}\r\n");
        assert_eq!(verdict(&ask(&gateway, client, "/orders/token", &line).await.unwrap()), expected);
    }
    assert_eq!(verdict(&gateway.get("/orders/token", &bound, &[]).await), mismatch, "without TLS");
    assert_eq!(gateway.received("/orders/token").len(), 3);
}

/// What an operator is told of it is what the client got, with the client's certificate or that of the question.
#[tokio::test]
async fn a_refusal_for_its_certificate_is_explained() {
    let (ours, signer) = (authority(), Signer::es256("k1"));
    let gateway = gateway(&ours, &signer, false, "").await;
    let (orders, other) = (Client::named("orders", &ours), Client::named("other", &ours));
    let bound = Token::new().claim("cnf", orders.confirmation()).sign(&signer);
    let free = Token::new().sign(&signer);
    for (token, client, path, expected, failed) in [
        (&bound, Some(&orders), "/orders/token", "200", None),
        (&bound, Some(&other), "/orders/token", "401 VAL-020 binding_mismatch", Some("binding")),
        (&bound, None, "/orders/token", "401 VAL-020 binding_mismatch", Some("binding")),
        (&free, Some(&orders), "/orders/both", "200", None),
        (&free, Some(&other), "/orders/both", "403 VAL-031 certificate_rule", Some("certificate")),
        (&free, None, "/orders/both", "403 VAL-031 certificate_missing", Some("certificate")),
        (&free, Some(&other), "/orders/own", "403 VAL-031 certificate_rule", Some("certificate")),
    ] {
        let line = format!("Authorization: Bearer {token}\r\n");
        let reply = ask(&gateway, client, path, &line).await.unwrap();
        assert_eq!(verdict(&reply), expected, "{path}");
        let explained = explained(&gateway, token, client, path).await;
        match (failed, client) {
            (None, _) => assert_eq!(explained["accepted"], true, "{explained:#}"),
            (Some(failed), Some(_)) => {
                assert_eq!(explained["refusal"]["reason"], reply.json()["reason"]);
                assert_eq!(outcome(&explained, failed), "failed", "{explained:#}");
            }
            (Some(failed), None) => {
                assert_eq!((&explained["accepted"], &explained["refusal"]), (&json!(false), &Value::Null));
                assert_eq!(outcome(&explained, failed), "not_made", "{explained:#}");
            }
        }
        // Routes that ask for no token keep no checks of one.
        let Some(failed) = failed.filter(|_| path != "/orders/own") else { continue };
        let id = reply.header("x-request-id").unwrap();
        let path = format!("/refusals?request_id={id}");
        eventually("kept", || async {
            !get(gateway.admin(), &path, &[]).await.json()["refusals"][0].is_null()
        })
        .await;
        let kept = &get(gateway.admin(), &path, &[]).await.json()["refusals"][0];
        assert_eq!(outcome(kept, failed), "failed", "{kept:#}");
        assert_eq!(outcome(kept, "signature"), "passed", "{kept:#}");
    }
}

/// The verdict on this token for a request of this client, whose certificate is told if there is one.
async fn explained(gateway: &TestGateway, token: &str, client: Option<&Client>, path: &str) -> Value {
    let mut question = json!({ "token": token, "url": format!("https://localhost{path}") });
    if let Some(client) = client {
        question["client_certificate"] = client.pem().into();
    }
    let question = question.to_string();
    let head = format!(
        "POST /token/verify HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
        question.len()
    );
    send(gateway.admin(), head + &question).await.json()
}

fn outcome<'e>(explained: &'e Value, check: &str) -> &'e str {
    let checks = explained["checks"].as_array().unwrap();
    let found = checks.iter().find(|found| found["check"] == check);
    found.unwrap_or_else(|| panic!("no {check} in {explained:#}"))["outcome"].as_str().unwrap()
}

#[tokio::test]
async fn an_issuer_may_have_to_bind_all_its_tokens_or_none_be_looked_at() {
    let (ours, signer) = (authority(), Signer::es256("k1"));
    let orders = Client::named("orders", &ours);
    let bound = Token::new().claim("cnf", orders.confirmation()).sign(&signer);
    let free = Token::new().sign(&signer);
    let mismatch = "401 VAL-020 binding_mismatch";
    for (binding, free_expected, stolen_expected) in
        [("certificate", mismatch, mismatch), ("insecure_ignore", "200", "200")]
    {
        let gateway = gateway(&ours, &signer, false, &format!("binding: {binding}")).await;
        for (token, client, expected) in [
            (&free, Some(&orders), free_expected),
            (&bound, None, stolen_expected),
            (&bound, Some(&orders), "200"),
        ] {
            let line = format!("Authorization: Bearer {token}\r\n");
            assert_eq!(
                verdict(&ask(&gateway, client, "/orders/token", &line).await.unwrap()),
                expected,
                "{binding}"
            );
        }
    }
}

/// A certificate may expire while a session that could be resumed lives on.
#[tokio::test]
async fn sessions_with_certificates_are_not_resumed() {
    let (ours, signer) = (authority(), Signer::es256("k1"));
    let gateway = gateway(&ours, &signer, true, "").await;
    let address: SocketAddr = gateway.tls;
    let orders = Client::named("orders", &ours);
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(gateway.ca().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots.clone())
            .with_client_auth_cert(vec![orders.der.clone()], orders.key.clone_key())
            .unwrap();
        let config = Arc::new(config);
        for _ in 0..2 {
            let stream = TcpStream::connect(address).await.unwrap();
            let name = ServerName::try_from("localhost").unwrap();
            let stream = TlsConnector::from(Arc::clone(&config)).connect(name, stream).await.unwrap();
            let kind = stream.get_ref().1.handshake_kind();
            assert_eq!(kind, Some(rustls::HandshakeKind::Full), "{version:?}");
            let mut connection = Connection::over(stream);
            connection.write("GET /orders/open HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
            assert_eq!(connection.reply().await.unwrap().status, 200);
        }
    }
}
