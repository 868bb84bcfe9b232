//! The private door: its socket, its gate, its endpoints.

use std::fmt;
use std::net::{self, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
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

use super::inherited::Inherited;
use crate::admin::endpoints::{
    Configuration, Feeds, Keys, Livez, LogLevel, MetricsPage, Readyz, RefusalsList, Reload, Revocations,
    Shadow, Status, VerifyToken,
};
use crate::admin::gate::Gate;
use crate::admin::in_force::InForce;
use crate::admin::readiness::Readiness;
use crate::admin::reloads::ReloadHandle;
use crate::admin::server::{self, Socket};
use crate::admin::{Endpoint, Router};
use crate::clock::Clock;
use crate::config::settings::{Admin, AdminPlace, AdminTls};
use crate::gateway::Refusals;
use crate::telemetry::audit_log::Journal;
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
    pub refusals: Option<Refusals>,
    pub clock: Clock,
    pub reloads: ReloadHandle,
    pub journal: Journal,
}

/// All endpoints.
pub fn endpoints(told: Told) -> Vec<Box<dyn Endpoint>> {
    let Told { in_force, readiness, metrics, refusals, clock, reloads, journal } = told;
    let mut endpoints: Vec<Box<dyn Endpoint>> = vec![
        Box::new(Status { readiness: readiness.clone(), in_force: in_force.clone(), clock: clock.clone() }),
        Box::new(Configuration(in_force.clone())),
        Box::new(Keys { in_force: in_force.clone(), clock: clock.clone() }),
        Box::new(Feeds { in_force: in_force.clone(), clock: clock.clone() }),
        Box::new(Revocations { in_force: in_force.clone(), clock, journal }),
        Box::new(Shadow { in_force: in_force.clone(), metrics: Arc::clone(&metrics) }),
        Box::new(VerifyToken(in_force)),
        Box::new(Reload(reloads)),
        Box::new(LogLevel(logging::level_handle())),
        Box::new(MetricsPage(metrics)),
        Box::new(Livez),
        Box::new(Readyz(readiness)),
    ];
    if let Some(refusals) = refusals {
        endpoints.push(Box::new(RefusalsList(refusals)));
    }
    endpoints
}

/// What the socket is known by to a successor.
pub const LABEL: &str = "admin";

/// The bound socket, with its gate. It stays what it was at the start.
pub struct Door {
    /// Where it is.
    pub address: AdminAddress,
    listener: Listener,
    tls: Option<TlsAcceptor>,
    gate: Gate,
}

enum Listener {
    Tcp(net::TcpListener),
    Unix(UnixListener),
}

impl Door {
    /// Binds the socket, unless it was handed over.
    pub async fn bind(admin: &Admin, inherited: &mut Inherited) -> Result<Self> {
        let is_bare = admin.token.is_none() && matches!(admin.place, AdminPlace::Address(_));
        let gate = Gate::new(admin.token.as_ref(), is_bare);
        let (address, tls) = match &admin.place {
            AdminPlace::Socket(path) => {
                let listener = Listener::Unix(bind_unix(path, inherited).await?);
                return Ok(Self { address: AdminAddress::Unix(path.clone()), listener, tls: None, gate });
            }
            AdminPlace::Address(address) => (*address, None),
            AdminPlace::Tls(address, tls) => (*address, Some(acceptor(tls)?)),
        };
        let listener = bind_tcp(address, inherited)?;
        let address = AdminAddress::Tcp(listener.local_addr()?);
        Ok(Self { address, listener: Listener::Tcp(listener), tls, gate })
    }

    /// Serves the endpoints from now on.
    pub fn serve(
        &self,
        endpoints: Vec<Box<dyn Endpoint>>,
        journal: Journal,
        tasks: &mut JoinSet<()>,
    ) -> Result<()> {
        let socket = match &self.listener {
            Listener::Unix(listener) => {
                Socket::Unix(tokio::net::UnixListener::from_std(listener.try_clone()?)?)
            }
            Listener::Tcp(listener) => {
                let listener = TcpListener::from_std(listener.try_clone()?)?;
                match &self.tls {
                    Some(tls) => Socket::Tls(listener, tls.clone()),
                    None => Socket::Tcp(listener),
                }
            }
        };
        let router = Router::new(self.gate.clone(), endpoints, journal);
        tasks.spawn(async move {
            server::serve(socket, LONGEST_CALL, router).await;
        });
        Ok(())
    }
}

impl AsFd for Door {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.listener {
            Listener::Tcp(listener) => listener.as_fd(),
            Listener::Unix(listener) => listener.as_fd(),
        }
    }
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").field("address", &self.address).finish_non_exhaustive()
    }
}

fn bind_tcp(address: SocketAddr, inherited: &mut Inherited) -> Result<net::TcpListener> {
    let socket = match inherited.take(LABEL, address).pop() {
        Some(socket) => socket,
        None => net::TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?,
    };
    socket.set_nonblocking(true)?;
    Ok(socket)
}

async fn bind_unix(path: &Path, inherited: &mut Inherited) -> Result<UnixListener> {
    let socket = if let Some(socket) = inherited.take_unix(LABEL, path) {
        socket
    } else {
        let bound = server::bind_unix(path).await;
        bound.with_context(|| format!("cannot listen on {}", path.display()))?.into_std()?
    };
    socket.set_nonblocking(true)?;
    Ok(socket)
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
