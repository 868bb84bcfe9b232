//! A gateway from YAML, with the sample API behind it and a directory of its own.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rcgen::{CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::Value;
use tempfile::TempDir;
use valgate::app::{self, AdminAddress, Running};
use valgate::config::{self, Config, Diagnostics};
use valgate::demo::api::{Received, SampleApi};

use super::{Connection, PATIENCE, Reply, eventually, get};

/// A running gateway. Listens without TLS at [`Self::plain`] and with TLS (for `localhost`) at [`Self::tls`], and
/// forwards to the upstream `api`.
pub struct TestGateway {
    /// The listener without TLS; speaks HTTP/1.1 and h2c.
    pub plain: SocketAddr,
    /// The listener with TLS.
    pub tls: SocketAddr,
    /// `/livez`, `/readyz`, `/metrics`.
    pub health: SocketAddr,
    /// What stands behind it, and remembers what it received.
    pub api: SampleApi,
    ca: String,
    dir: Arc<TempDir>,
    running: Running,
}

impl TestGateway {
    /// Starts a gateway and waits until it is ready. `yaml` has at least `routes`; what it does not have of
    /// `listeners`, `health`, `access_log`, `upstreams` and `workers` is added. `$API` stands for the sample API's
    /// address, `$DIR` for the gateway's directory.
    pub async fn start(yaml: &str) -> Self {
        let gateway = Self::start_unready(yaml).await;
        gateway.wait_until_ready().await;
        gateway
    }

    /// The same, without waiting: for sources that are down.
    pub async fn start_unready(yaml: &str) -> Self {
        Self::start_in(Arc::new(TempDir::new().unwrap()), yaml).await
    }

    /// The same in a directory that there is already: for a restart, or for files that the configuration names.
    pub async fn start_in(dir: Arc<TempDir>, yaml: &str) -> Self {
        let api = SampleApi::start().await.unwrap();
        let ca = write_certificates(dir.path());
        let config =
            configuration(yaml, &api, dir.path()).unwrap_or_else(|mistakes| panic!("{mistakes}\n{yaml}"));
        let running = Box::pin(app::start(config)).await.unwrap();
        Self {
            plain: running.listener_address(0).unwrap(),
            tls: running.listener_address(1).unwrap_or(running.listener_address(0).unwrap()),
            health: running.health_address().unwrap(),
            api,
            ca,
            dir,
            running,
        }
    }

    /// Puts another configuration in force, completed as in [`Self::start`]; gives the fields that changed, or why it
    /// is not.
    pub async fn reload(&mut self, yaml: &str) -> Result<Vec<String>, String> {
        let config = configuration(yaml, &self.api, self.dir.path()).map_err(|error| error.to_string())?;
        self.running.reload(config).await.map_err(|error| format!("{error:#}"))
    }

    /// What is kept in force at this place of `listeners`.
    pub fn listener(&self, place: usize) -> SocketAddr {
        self.running.listener_address(place).unwrap()
    }

    /// Waits until the gateway says that it is ready.
    pub async fn wait_until_ready(&self) {
        eventually("ready", || async { self.running.readiness().report().ready }).await;
    }

    /// Its directory.
    pub fn dir(&self) -> Arc<TempDir> {
        Arc::clone(&self.dir)
    }

    /// The authority of its certificate, in PEM.
    pub fn ca(&self) -> &str {
        &self.ca
    }

    /// A connection without TLS.
    pub async fn connect(&self) -> Connection {
        Connection::open(self.plain).await
    }

    /// A connection with TLS, for this protocol by ALPN.
    pub async fn connect_tls(&self, alpn: &[u8]) -> Connection {
        Connection::open_tls(self.tls, "localhost", &self.ca, alpn).await
    }

    /// A connection with TLS to another of its addresses, for HTTP/1.1.
    pub async fn connect_tls_to(&self, address: SocketAddr) -> Connection {
        Connection::open_tls(address, "localhost", &self.ca, b"http/1.1").await
    }

    /// `GET` with a bearer token and these headers besides.
    pub async fn get(&self, path: &str, token: &str, headers: &[(&str, &str)]) -> Reply {
        let authorization = format!("Bearer {token}");
        let headers: Vec<_> = [("Authorization", authorization.as_str())]
            .into_iter()
            .filter(|_| !token.is_empty())
            .chain(headers.iter().copied())
            .collect();
        get(self.plain, path, &headers).await
    }

    /// The private listener, if the configuration has one with an address.
    pub fn admin(&self) -> SocketAddr {
        match self.running.admin_address() {
            Some(AdminAddress::Tcp(address)) => *address,
            other => panic!("no address: {other:?}"),
        }
    }

    /// The requests to this path (without query) that reached the API.
    pub fn received(&self, path: &str) -> Vec<Received> {
        let same = |received: &Received| received.path.split('?').next() == Some(path);
        self.api.received().into_iter().filter(same).collect()
    }

    /// The whole part of a metric's value, by its exact series (`valgate_x_total{a="b"}`); 0 if it is not on the
    /// page.
    pub async fn metric(&self, series: &str) -> u64 {
        let page = get(self.health, "/metrics", &[]).await.text();
        let value = |line: &str| {
            line.strip_prefix(series)?
                .trim_start_matches("{}")
                .strip_prefix(' ')?
                .trim()
                .split('.')
                .next()?
                .parse()
                .ok()
        };
        page.lines().find_map(value).unwrap_or_default()
    }

    /// Stops the gateway and gives the lines of its access log by time; cores write theirs in batches.
    pub async fn stop(self) -> Vec<Value> {
        let stopped = tokio::time::timeout(PATIENCE, self.running.shutdown()).await;
        assert!(stopped.is_ok(), "the gateway does not stop");
        let log = std::fs::read_to_string(self.dir.path().join("access.log")).unwrap_or_default();
        let mut lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        lines.sort_by_key(|line| line["time"].as_str().unwrap_or_default().to_owned());
        lines
    }
}

fn configuration(yaml: &str, api: &SampleApi, dir: &Path) -> Result<Config, Diagnostics> {
    let text =
        complete(yaml).replace("$API", &api.address().to_string()).replace("$DIR", dir.to_str().unwrap());
    config::parse(&text, "test.yaml", dir, &|_| None)
}

fn complete(yaml: &str) -> String {
    let defaults = [
        ("workers:", "workers: 2"),
        (
            "listeners:",
            "listeners:
  - { address: 127.0.0.1:0, plaintext: true }
  - { address: 127.0.0.1:0, tls: { certificates: [{ certificate: $DIR/tls.crt, private_key: $DIR/tls.key }] } }",
        ),
        ("health:", "health: { address: 127.0.0.1:0, metrics: true }"),
        ("access_log:", "access_log: { output: { file: $DIR/access.log } }"),
        ("upstreams:", "upstreams: [{ name: api, endpoints: [\"http://$API\"] }]"),
    ];
    let mut text = "version: 1\n".to_owned();
    for (key, default) in defaults {
        if !yaml.lines().any(|line| line.starts_with(key)) {
            text.push_str(default);
            text.push('\n');
        }
    }
    text + yaml
}

/// Writes `tls.crt` and `tls.key` for `localhost` and gives the authority's certificate in PEM.
pub fn write_certificates(dir: &Path) -> String {
    write_certificate(dir, "tls", &["localhost", "127.0.0.1"])
}

/// Writes a certificate and its key, named `NAME.crt` and `NAME.key`, and gives the certificate of its authority, which
/// is a new one each time, in PEM.
pub fn write_certificate(dir: &Path, name: &str, hosts: &[&str]) -> String {
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let hosts: Vec<String> = hosts.iter().map(|&host| host.to_owned()).collect();
    let certificate = CertificateParams::new(hosts).unwrap().signed_by(&key, &ca).unwrap();
    std::fs::write(dir.join(format!("{name}.crt")), certificate.pem()).unwrap();
    std::fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    ca.pem()
}
