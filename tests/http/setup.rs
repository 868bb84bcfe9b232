//! A gateway in this process, in front of a recording backend, and how tests reach it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::LazyLock;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use rustls::pki_types::CertificateDer;
use valgate::app::{self, Running};
use valgate::config;

use crate::recorder::Recorder;
use crate::wire::{Answer, Wire};

/// An authority, and a certificate of it for every name that tests use.
pub struct Certificates {
    pub ca: CertificateDer<'static>,
    pub ca_pem: String,
    pub certificate: String,
    pub key: String,
}

pub static CERTIFICATES: LazyLock<Certificates> = LazyLock::new(|| {
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
    let names = ["localhost", "a.test", "b.test", "unknown.test"].map(str::to_owned);
    let mut server = CertificateParams::new(names).unwrap();
    server.subject_alt_names.push(SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    let key = KeyPair::generate().unwrap();
    let certificate = server.signed_by(&key, &ca).unwrap();
    Certificates {
        ca: ca.der().clone(),
        ca_pem: ca.pem(),
        certificate: certificate.pem(),
        key: key.serialize_pem(),
    }
});

/// Writes the certificates where a configuration in this directory finds them.
pub fn write_certificates(dir: &Path) {
    std::fs::write(dir.join("ca.pem"), &CERTIFICATES.ca_pem).unwrap();
    std::fs::write(dir.join("tls.crt"), &CERTIFICATES.certificate).unwrap();
    std::fs::write(dir.join("tls.key"), &CERTIFICATES.key).unwrap();
}

/// A listener without TLS and one with it, and the rest as the test says: `upstreams` and `routes` at least.
pub fn yaml(rest: &str) -> String {
    format!(
        "version: 1
workers: 1
access_log: off
listeners:
  - {{ address: '127.0.0.1:0', plaintext: true }}
  - {{ address: '127.0.0.1:0', tls: {{ certificates: [{{ certificate: tls.crt, private_key: tls.key }}] }} }}
{rest}
"
    )
}

/// An upstream named `api`.
pub fn api(recorder: &Recorder) -> String {
    format!("upstreams: [{{ name: api, endpoints: ['{}'] }}]\n", recorder.url())
}

/// A running gateway.
pub struct Gateway {
    pub plain: SocketAddr,
    pub tls: SocketAddr,
    running: Running,
    _dir: tempfile::TempDir,
}

impl Gateway {
    /// With one public route for everything, in front of this backend.
    pub async fn open(recorder: &Recorder) -> Self {
        Self::with(recorder, "").await
    }

    /// The same, with more lines of configuration (top level).
    pub async fn with(recorder: &Recorder, more: &str) -> Self {
        let routes = "routes: [{ match: { path: '/**' }, public: true, upstream: api }]\n";
        Self::start(&format!("{}{routes}{more}", api(recorder))).await
    }

    /// With everything but the listeners as given.
    pub async fn start(rest: &str) -> Self {
        Self::start_exactly(&yaml(rest)).await
    }

    /// With exactly this configuration.
    pub async fn start_exactly(text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        write_certificates(dir.path());
        let config = config::parse(text, "test.yaml", dir.path(), &|_| None)
            .unwrap_or_else(|diagnostics| panic!("{text}\n{diagnostics}"));
        let running = app::start(config).await.unwrap();
        let plain = running.listener_address(0).unwrap();
        let tls = running.listener_address(1).unwrap_or(plain);
        Self { plain, tls, running, _dir: dir }
    }

    /// The page of metrics.
    pub fn metrics(&self) -> String {
        self.running.metrics().render().unwrap()
    }

    pub async fn wire(&self) -> Wire {
        Wire::plain(self.plain).await
    }

    pub async fn tls_wire(&self) -> Wire {
        Wire::tls(self.tls, &CERTIFICATES.ca, "localhost", b"http/1.1").await
    }

    /// Sends these bytes on a new connection and reads the first response.
    pub async fn exchange(&self, bytes: impl AsRef<[u8]>) -> Answer {
        let bytes = bytes.as_ref();
        let mut wire = self.wire().await;
        wire.send(bytes).await;
        let method = if bytes.starts_with(b"HEAD ") { "HEAD" } else { "GET" };
        let answer = wire.answer_to(method).await;
        answer.unwrap_or_else(|| panic!("no answer to {:?}", String::from_utf8_lossy(bytes)))
    }

    /// A GET of this path with these further header lines (each with its CRLF).
    pub async fn get(&self, path: &str, lines: &str) -> Answer {
        self.exchange(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n")).await
    }
}
