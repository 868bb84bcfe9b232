//! The private door: its socket, its gate, its endpoints.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::admin::endpoints::{
    Configuration, Feeds, Keys, Livez, LogLevel, MetricsPage, Readyz, Revocations, Status, VerifyToken,
};
use crate::admin::gate::Gate;
use crate::admin::in_force::InForce;
use crate::admin::readiness::Readiness;
use crate::admin::server::{self, Socket};
use crate::admin::{Endpoint, Router};
use crate::clock::Clock;
use crate::config::settings::{Admin, AdminPlace, AdminTls};
use crate::telemetry::logging;
use crate::telemetry::metrics::Metrics;

/// No call takes longer; one that waits for keys or a reload takes seconds.
const LONGEST_CALL: Duration = Duration::from_secs(60);

/// Where the private door turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminAddress {
    /// An IP address.
    Tcp(std::net::SocketAddr),
    /// A Unix socket.
    Unix(std::path::PathBuf),
}

/// What the endpoints tell of.
#[derive(Clone, Debug)]
pub struct Told {
    pub in_force: InForce,
    pub readiness: Readiness,
    pub metrics: Arc<Metrics>,
    pub clock: Clock,
}

/// All endpoints.
pub fn endpoints(told: Told) -> Vec<Box<dyn Endpoint>> {
    let Told { in_force, readiness, metrics, clock } = told;
    vec![
        Box::new(Status { readiness: readiness.clone(), in_force: in_force.clone(), clock: clock.clone() }),
        Box::new(Configuration(in_force.clone())),
        Box::new(Keys { in_force: in_force.clone(), clock: clock.clone() }),
        Box::new(Feeds { in_force: in_force.clone(), clock: clock.clone() }),
        Box::new(Revocations { in_force: in_force.clone(), clock }),
        Box::new(VerifyToken(in_force)),
        Box::new(LogLevel(logging::level_handle())),
        Box::new(MetricsPage(metrics)),
        Box::new(Livez),
        Box::new(Readyz(readiness)),
    ]
}

/// Binds the socket and serves the endpoints on it.
pub async fn start(
    admin: &Admin,
    endpoints: Vec<Box<dyn Endpoint>>,
    tasks: &mut JoinSet<()>,
) -> Result<AdminAddress> {
    let (socket, address) = bind(&admin.place).await?;
    let is_bare = admin.token.is_none() && matches!(admin.place, AdminPlace::Address(_));
    let router = Router::new(Gate::new(admin.token.as_ref(), is_bare), endpoints);
    tasks.spawn(async move {
        server::serve(socket, LONGEST_CALL, router).await;
    });
    Ok(address)
}

async fn bind(place: &AdminPlace) -> Result<(Socket, AdminAddress)> {
    let (address, tls) = match place {
        AdminPlace::Socket(path) => {
            let listener = server::bind_unix(path)
                .await
                .with_context(|| format!("cannot listen on {}", path.display()))?;
            return Ok((Socket::Unix(listener), AdminAddress::Unix(path.clone())));
        }
        AdminPlace::Address(address) => (address, None),
        AdminPlace::Tls(address, tls) => (address, Some(acceptor(tls)?)),
    };
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    let address = AdminAddress::Tcp(listener.local_addr()?);
    Ok(match tls {
        Some(acceptor) => (Socket::Tls(listener, acceptor), address),
        None => (Socket::Tcp(listener), address),
    })
}

fn acceptor(tls: &AdminTls) -> Result<TlsAcceptor> {
    let certificates = |path: &std::path::Path| {
        CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .with_context(|| path.display().to_string())
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?;
    let builder = match &tls.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for authority in certificates(path)? {
                roots.add(authority).with_context(|| path.display().to_string())?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .with_context(|| path.display().to_string())?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let chain = certificates(&tls.certificate.certificate)?;
    let key = &tls.certificate.private_key;
    let key = PrivateKeyDer::from_pem_file(key).with_context(|| key.display().to_string())?;
    let mut config = builder.with_single_cert(chain, key).context("admin.tls")?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
