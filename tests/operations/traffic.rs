//! Constant traffic by TLS: connections that are kept and connections for one request, HTTP/1.1 and HTTP/2. What a
//! client may send again without asking anybody, since it never left, is no failure; everything else is.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::process::write;
use crate::support::PATIENCE;

/// An authority that certifies `localhost` again and again.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A new key and certificate, as `tls.key` and `tls.crt`.
    pub fn certify(&self, dir: &Path) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        write(dir, "tls.crt", &certificate.pem());
        write(dir, "tls.key", &key.serialize_pem());
    }

    fn client(&self, alpn: &[u8]) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![alpn.to_vec()];
        TlsConnector::from(Arc::new(config))
    }
}

/// What came of the requests of one kind.
#[derive(Debug, Default)]
pub struct Tally {
    pub good: u64,
    pub failures: Vec<String>,
    pub connections: u64,
}

/// Clients that ask until told to stop.
pub struct Traffic {
    stop: watch::Sender<bool>,
    clients: JoinSet<(&'static str, Tally)>,
    asked: Arc<AtomicU64>,
}

/// A request that was not answered with 200.
struct Failed(String);

#[derive(Clone)]
struct Client {
    address: SocketAddr,
    token: Arc<str>,
    stop: watch::Receiver<bool>,
    asked: Arc<AtomicU64>,
}

impl Traffic {
    /// Starts clients of a gateway with a certificate of this authority.
    pub fn start(address: SocketAddr, authority: &Authority, token: &str) -> Self {
        let (stop, stopped) = watch::channel(false);
        let asked = Arc::<AtomicU64>::default();
        let client = Client { address, token: token.into(), stop: stopped, asked: Arc::clone(&asked) };
        let (h1, h2) = (authority.client(b"http/1.1"), authority.client(b"h2"));
        let mut clients = JoinSet::new();
        for _ in 0..3 {
            let (client, tls) = (client.clone(), h1.clone());
            clients.spawn(async move { ("HTTP/1.1, kept", client.http1(tls, u64::MAX).await) });
        }
        for _ in 0..2 {
            let (client, tls) = (client.clone(), h1.clone());
            clients.spawn(async move { ("HTTP/1.1, new each", client.http1(tls, 1).await) });
        }
        for _ in 0..3 {
            let (client, tls) = (client.clone(), h2.clone());
            clients.spawn(async move { ("HTTP/2, kept", client.http2(tls).await) });
        }
        Self { stop, clients, asked }
    }

    /// Waits until so many more requests were answered.
    pub async fn more(&self, count: u64) {
        let begin = self.asked.load(Ordering::Relaxed);
        let waiting = async {
            while self.asked.load(Ordering::Relaxed) < begin + count {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "the traffic has come to a halt");
    }

    /// Stops, and gives the number of good requests; no other may have been.
    pub async fn stop(self) -> u64 {
        let Tally { good, failures, .. } = self.end().await;
        let some = failures.iter().take(5).collect::<Vec<_>>();
        assert!(failures.is_empty(), "{} failed: {some:?}", failures.len());
        good
    }

    /// Stops, and prints what came of it.
    pub async fn end(mut self) -> Tally {
        self.stop.send_replace(true);
        let mut sums = std::collections::BTreeMap::<_, Tally>::new();
        while let Some(ended) = self.clients.join_next().await {
            let (kind, tally) = ended.unwrap();
            let sum = sums.entry(kind).or_default();
            sum.good += tally.good;
            sum.connections += tally.connections;
            sum.failures.extend(tally.failures);
        }
        for (kind, Tally { good, failures, connections }) in &sums {
            println!("{kind}: {good} good on {connections} connections, {} failed", failures.len());
        }
        let mut all = Tally::default();
        for tally in sums.into_values() {
            all.good += tally.good;
            all.connections += tally.connections;
            all.failures.extend(tally.failures);
        }
        all
    }
}

impl Client {
    async fn http1(&self, tls: TlsConnector, requests_each: u64) -> Tally {
        let mut tally = Tally::default();
        while !*self.stop.borrow() {
            let sender = async {
                let stream = self.connect(&tls).await?;
                let (sender, connection) = http1::handshake(TokioIo::new(stream))
                    .await
                    .map_err(|error| failed("handshake", &error))?;
                tokio::spawn(connection);
                Ok::<_, Failed>(sender)
            };
            let mut sender = match sender.await {
                Ok(sender) => sender,
                Err(Failed(why)) => {
                    tally.failures.push(why);
                    continue;
                }
            };
            tally.connections += 1;
            for _ in 0..requests_each {
                // What the gateway closed while nothing was asked is closed, and no request was lost.
                if *self.stop.borrow() || sender.ready().await.is_err() {
                    break;
                }
                match sender.try_send_request(self.request("/orders/secured")).await {
                    Ok(response) => self.take(response, &mut tally).await,
                    Err(error) if error.message().is_some() => break,
                    Err(error) => {
                        tally.failures.push(format!("HTTP/1.1: {:?}", error.error()));
                        break;
                    }
                }
            }
        }
        tally
    }

    async fn http2(&self, tls: TlsConnector) -> Tally {
        let mut tally = Tally::default();
        while !*self.stop.borrow() {
            let sender = async {
                let stream = self.connect(&tls).await?;
                let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
                let (sender, connection) = handshake.map_err(|error| failed("handshake", &error))?;
                tokio::spawn(connection);
                Ok::<_, Failed>(sender)
            };
            let mut sender = match sender.await {
                Ok(sender) => sender,
                Err(Failed(why)) => {
                    tally.failures.push(why);
                    continue;
                }
            };
            tally.connections += 1;
            while !*self.stop.borrow() && sender.ready().await.is_ok() {
                match sender.try_send_request(self.request("https://localhost/orders/secured")).await {
                    Ok(response) => self.take(response, &mut tally).await,
                    Err(error) if error.message().is_some() => break,
                    Err(error) => {
                        tally.failures.push(format!("HTTP/2: {:?}", error.error()));
                        break;
                    }
                }
            }
        }
        tally
    }

    async fn connect(&self, tls: &TlsConnector) -> Result<TlsStream<TcpStream>, Failed> {
        let stream = TcpStream::connect(self.address).await.map_err(|error| failed("connect", &error))?;
        stream.set_nodelay(true).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        tls.connect(name, stream).await.map_err(|error| failed("TLS", &error))
    }

    fn request(&self, uri: &str) -> Request<Empty<Bytes>> {
        let request = Request::get(uri).header("authorization", format!("Bearer {}", self.token));
        let request = if uri.starts_with('/') { request.header("host", "localhost") } else { request };
        request.body(Empty::new()).unwrap()
    }

    async fn take(&self, response: http::Response<hyper::body::Incoming>, tally: &mut Tally) {
        let status = response.status();
        match response.into_body().collect().await {
            Ok(_) if status == StatusCode::OK => tally.good += 1,
            Ok(body) => {
                let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
                tally.failures.push(format!("{status}: {body}"));
            }
            Err(error) => tally.failures.push(format!("{status}, and the body broke off: {error:?}")),
        }
        self.asked.fetch_add(1, Ordering::Relaxed);
    }
}

fn failed(what: &str, error: &dyn std::fmt::Debug) -> Failed {
    Failed(format!("{what}: {error:?}"))
}
