//! The demo as a whole, in front of stand-ins for the gateway: one that answers by the book, and ones that do
//! not, which `--check` must find out.

use std::convert::Infallible;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::client::send_plain;
use super::scenarios::{Expect, SCENARIOS};
use super::{GatewayHandle, Options, run, run_patiently};

/// What the stand-in does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// What the table of scenarios says.
    ByTheBook,
    /// Forwards everything as it came.
    OpenDoor,
    /// Refuses everything.
    Wall,
    /// Answers by the book, but forwards what it refuses.
    RefusesAndForwards,
    /// By the book, but lets the token through to the API.
    LeaksTheToken,
    /// By the book, but never hears of a revocation.
    Deaf,
}

struct StandIn {
    manner: Manner,
    api: std::net::SocketAddr,
    /// The scenario in whose turn the token is being revoked was accepted before; its next answers are refusals.
    revoked: AtomicBool,
}

impl StandIn {
    async fn start(manner: Manner, config: PathBuf) -> anyhow::Result<GatewayHandle> {
        let document: Value = serde_yaml::from_str(&fs::read_to_string(config)?)?;
        let certificate = &document["listeners"][0]["tls"]["certificates"][0];
        let acceptor = acceptor(
            Path::new(certificate["certificate"].as_str().unwrap()),
            Path::new(certificate["private_key"].as_str().unwrap()),
        );
        let api = document["upstreams"][0]["endpoints"][0].as_str().unwrap();
        let api = api.strip_prefix("http://").unwrap().parse().unwrap();
        let listener = TcpListener::bind(document["listeners"][0]["address"].as_str().unwrap()).await?;
        let address = listener.local_addr()?;
        let gateway = Arc::new(Self { manner, api, revoked: AtomicBool::new(false) });
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, gateway) = (acceptor.clone(), Arc::clone(&gateway));
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(|request| {
                        let gateway = Arc::clone(&gateway);
                        async move { Ok::<_, Infallible>(gateway.answer(request).await) }
                    });
                    let builder = auto::Builder::new(TokioExecutor::new());
                    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Ok(GatewayHandle::new(address, async move { accepting.abort() }))
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        match self.manner {
            Manner::OpenDoor => return self.forward(request, |_| ()).await,
            Manner::Wall => return problem(503, "VAL-064", "overloaded"),
            _ => {}
        }
        let mark = request.headers()["x-demo-request"].to_str().unwrap().to_owned();
        let Some(index) = mark.split('-').next().and_then(|index| index.parse::<usize>().ok()) else {
            return self.answer_unmarked(&mark);
        };
        match SCENARIOS[index].expect {
            Expect::Refused { status, code, reason } => {
                self.revoked.store(false, Ordering::Relaxed);
                if self.manner == Manner::RefusesAndForwards {
                    self.forward(request, |_| ()).await;
                }
                problem(status, code, reason)
            }
            Expect::Reaches { subject, .. } => {
                let leaks = self.manner == Manner::LeaksTheToken;
                self.forward(request, |headers| {
                    if !leaks {
                        headers.remove(header::AUTHORIZATION);
                    }
                    headers.remove("x_auth_subject");
                    headers.remove("x-auth-subject");
                    if let Some(subject) = subject {
                        headers.insert("x-auth-subject", HeaderValue::from_static(subject));
                    }
                })
                .await
            }
        }
    }

    /// Requests by which the check finds out when something takes effect.
    fn answer_unmarked(&self, mark: &str) -> Response<Full<Bytes>> {
        if mark == "before-revocation" {
            self.revoked.store(true, Ordering::Relaxed);
            return Response::default();
        }
        if self.revoked.load(Ordering::Relaxed) && self.manner != Manner::Deaf {
            return problem(401, "VAL-020", "revoked");
        }
        Response::default()
    }

    async fn forward(
        &self,
        request: Request<Incoming>,
        change: impl FnOnce(&mut HeaderMap),
    ) -> Response<Full<Bytes>> {
        let (mut head, body) = request.into_parts();
        change(&mut head.headers);
        head.uri = head.uri.path().parse().unwrap();
        head.version = http::Version::HTTP_11;
        let body = Full::from(body.collect().await.unwrap().to_bytes());
        send_plain(self.api, Request::from_parts(head, body)).await.unwrap().map(Full::from)
    }
}

fn problem(status: u16, code: &str, reason: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(json!({ "code": code, "reason": reason }).to_string()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    response
}

fn acceptor(certificate: &Path, key: &Path) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            CertificateDer::pem_file_iter(certificate).unwrap().map(Result::unwrap).collect(),
            PrivateKeyDer::from_pem_file(key).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

async fn check(manner: Manner) -> (anyhow::Result<()>, String) {
    let options = Options { check: true, ..Options::default() };
    let mut out = Vec::new();
    // What is never going to happen need not be waited for long.
    let patience = Duration::from_secs(if manner == Manner::ByTheBook { 10 } else { 1 });
    let start = async |config| StandIn::start(manner, config).await;
    let result = run_patiently(patience, &options, &mut out, start).await;
    (result, String::from_utf8(out).unwrap())
}

fn failed_rows(table: &str) -> Vec<&str> {
    table.lines().filter_map(|line| line.strip_prefix("FAILED")).collect()
}

#[tokio::test]
async fn a_gateway_that_goes_by_the_book_passes() {
    let (result, table) = check(Manner::ByTheBook).await;
    assert!(result.is_ok(), "{table}");
    assert_eq!(table.lines().filter(|line| line.starts_with("ok ")).count(), SCENARIOS.len(), "{table}");
    let expired = table.lines().find(|line| line.contains(" expired ")).unwrap();
    assert_eq!(expired.matches("401 VAL-020 expired").count(), 2, "expected and got: {expired}");
}

#[tokio::test]
async fn a_gateway_that_lets_everything_through_fails_every_refusal() {
    let (result, table) = check(Manner::OpenDoor).await;
    assert!(result.is_err());
    let failed = failed_rows(&table);
    for scenario in SCENARIOS {
        let is_public = scenario.name == "public route";
        let is_listed = failed.iter().any(|row| row.contains(&format!(" {} ", scenario.name)));
        assert_eq!(is_listed, !is_public, "{}\n{table}", scenario.name);
    }
    assert!(table.contains("valid token: HTTP/2: the API saw the token, in authorization"), "{table}");
    assert!(table.contains(r#"the API saw the subjects ["mallory"], expected Some("alice")"#), "{table}");
    assert!(table.contains("the API saw the spoofed header x_auth_subject"), "{table}");
}

#[tokio::test]
async fn refusing_too_much_or_too_late_or_too_little_is_found() {
    let (result, table) = check(Manner::RefusesAndForwards).await;
    assert!(result.is_err());
    assert!(table.contains("expired: HTTP/1.1: the API got the request"), "{table}");
    assert!(failed_rows(&table).iter().all(|row| !row.contains(" valid token ")), "{table}");

    let (result, table) = check(Manner::LeaksTheToken).await;
    assert!(result.is_err());
    assert!(table.contains("valid token: HTTP/1.1: the API saw the token, in authorization"), "{table}");
    assert!(failed_rows(&table).iter().all(|row| !row.contains(" expired ")), "{table}");
}

#[tokio::test]
async fn a_gateway_that_refuses_everything_or_hears_of_no_revocation_fails() {
    let ((wall, table), (deaf, deaf_table)) = tokio::join!(check(Manner::Wall), check(Manner::Deaf));
    assert!(wall.is_err());
    assert_eq!(failed_rows(&table).len(), SCENARIOS.len(), "{table}");
    assert!(deaf.is_err());
    assert!(deaf_table.contains("revoked: still accepted"), "{deaf_table}");
    assert_eq!(failed_rows(&deaf_table).len(), 2, "{deaf_table}");
}

#[tokio::test]
async fn a_gateway_that_does_not_start_is_an_error_that_says_so() {
    let mut out = Vec::new();
    let error =
        run(&Options::default(), &mut out, async |_| anyhow::bail!("no such thing")).await.unwrap_err();
    assert_eq!(format!("{error:#}"), "starting the gateway: no such thing");
}

#[tokio::test]
async fn the_guide_has_a_line_for_every_scenario_and_never_a_token() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { dir: Some(dir.path().join("it's here")), ..Options::default() };
    let clock = crate::clock::Clock::system();
    let start = async |config| StandIn::start(Manner::ByTheBook, config).await;
    let (demo, shutdown) = super::Demo::start(&options, &clock, start).await.unwrap();
    let mut out = Vec::new();
    super::print::guide(&mut out, &demo).unwrap();
    shutdown.await;
    let text = String::from_utf8(out).unwrap();
    assert_eq!(text.matches("curl -i --cacert '").count(), SCENARIOS.len());
    for (token, secret) in demo.tokens.all() {
        let file = dir.path().join("it's here/tokens").join(format!("{}.jwt", token.name()));
        assert_eq!(fs::read_to_string(&file).unwrap(), *secret);
        assert!(secret.len() < 20 || !text.contains(secret), "{}", token.name());
        assert!(text.contains(&format!("tokens/{}.jwt')", token.name())), "{}", token.name());
    }
    assert!(text.contains("401, VAL-020 - Invalid Token, expired; the API sees nothing"));
    assert!(text.contains(&format!("curl -X POST {}/rotate", demo.issuer.issuer_url())));
    assert!(text.contains(r#"curl -d '{"sid":"demo-session"}'"#));
}
