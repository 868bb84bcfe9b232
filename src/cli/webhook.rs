//! `valgate webhook`: the sidecar put into pods as they are made.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use arc_swap::ArcSwap;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::settings::{CertifiedKey, Tls, TlsVersion};
use crate::inject;
use crate::listener;
use crate::telemetry::logging::{self, LogFormat};

/// Where the webhook listens.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Where the API server connects to
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:9443")]
    address: SocketAddr,
    /// Certificate chain, PEM; read again when it changes
    #[arg(long, value_name = "FILE")]
    certificate: PathBuf,
    /// Its private key, PEM
    #[arg(long, value_name = "FILE")]
    private_key: PathBuf,
}

/// Serves until SIGTERM or SIGINT.
pub fn run(options: &Options) -> Result<()> {
    logging::init("info", LogFormat::Text).context("cannot set up logging")?;
    let tls = Tls {
        certificates: vec![CertifiedKey {
            certificate: options.certificate.clone(),
            private_key: options.private_key.clone(),
        }],
        min_version: TlsVersion::Tls12,
        client_certificates: None,
        hsts: None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let current = Arc::new(ArcSwap::new(listener::server_config(&tls)?));
        let socket = TcpListener::bind(options.address)
            .await
            .with_context(|| format!("cannot listen on {}", options.address))?;
        tracing::info!(address = %socket.local_addr()?, "answering admission reviews");
        let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
        tokio::select! {
            never = inject::serve(socket, || current.load_full()) => match never {},
            never = renew(&tls, &current) => match never {},
            _ = terminate.recv() => Ok(()),
            interrupted = tokio::signal::ctrl_c() => interrupted.context("cannot wait for SIGINT"),
        }
    })
}

/// Reads the certificate again, every minute: cert-manager and its like replace the file and tell nobody.
async fn renew(tls: &Tls, current: &ArcSwap<ServerConfig>) -> std::convert::Infallible {
    loop {
        tokio::time::sleep(RENEWAL).await;
        match listener::server_config(tls) {
            Ok(config) => current.store(config),
            Err(error) => {
                tracing::warn!(%error, "the renewed certificate cannot be used; the former one serves on");
            }
        }
    }
}

const RENEWAL: Duration = Duration::from_secs(60);
