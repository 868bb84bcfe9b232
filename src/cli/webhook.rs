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
use crate::listener::{self, TlsError};
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
    let tls = tls(options.certificate.clone(), options.private_key.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let current = Arc::new(ArcSwap::new(certificates(&tls)?));
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

fn tls(certificate: PathBuf, private_key: PathBuf) -> Tls {
    Tls {
        certificates: vec![CertifiedKey { certificate, private_key }],
        min_version: TlsVersion::Tls12,
        client_certificates: None,
        hsts: None,
    }
}

/// HTTP/1.1 is all that an API server speaks to webhooks.
fn certificates(tls: &Tls) -> Result<Arc<ServerConfig>, TlsError> {
    let mut config = listener::server_config(tls)?;
    Arc::make_mut(&mut config).alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Reads the certificate again, every minute: cert-manager and its like replace the file and tell nobody.
async fn renew(tls: &Tls, current: &ArcSwap<ServerConfig>) -> std::convert::Infallible {
    loop {
        tokio::time::sleep(RENEWAL).await;
        match certificates(tls) {
            Ok(config) => current.store(config),
            Err(error) => {
                tracing::warn!(%error, "the renewed certificate cannot be used; the former one serves on");
            }
        }
    }
}

const RENEWAL: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rustls::RootCertStore;
    use rustls::pki_types::{CertificateDer, ServerName};
    use tempfile::TempDir;
    use tokio::time::sleep;
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;

    /// What a client sees: the certificate, and the protocol chosen.
    async fn seen(config: Arc<ServerConfig>, trusted: &[&CertificateDer<'static>]) -> (Vec<u8>, Vec<u8>) {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        for certificate in trusted {
            roots.add((*certificate).clone()).unwrap();
        }
        let mut client = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let (near, far) = tokio::io::duplex(16 * 1024);
        let name = ServerName::try_from("localhost").unwrap();
        let connecting = TlsConnector::from(Arc::new(client)).connect(name, near);
        let (accepted, connected) = tokio::join!(TlsAcceptor::from(config).accept(far), connecting);
        let _server = accepted.unwrap();
        let connected = connected.unwrap();
        let (_, session) = connected.get_ref();
        let certificate = session.peer_certificates().unwrap()[0].to_vec();
        (certificate, session.alpn_protocol().unwrap().to_vec())
    }

    fn write_certificate(folder: &Path) -> CertificateDer<'static> {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(folder.join("tls.crt"), made.cert.pem()).unwrap();
        std::fs::write(folder.join("tls.key"), made.signing_key.serialize_pem()).unwrap();
        made.cert.der().clone()
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewed_certificate_is_served_and_a_broken_one_is_not() {
        let folder = TempDir::new().unwrap();
        let first = write_certificate(folder.path());
        let tls = tls(folder.path().join("tls.crt"), folder.path().join("tls.key"));
        let current = ArcSwap::new(certificates(&tls).unwrap());
        let mut renewal = std::pin::pin!(renew(&tls, &current));
        let mut pass = async |time: Duration| {
            tokio::select! {
                never = renewal.as_mut() => match never {},
                () = sleep(time) => {}
            }
        };

        let second = write_certificate(folder.path());
        let trusted = [&first, &second];
        pass(RENEWAL / 2).await;
        assert_eq!(seen(current.load_full(), &trusted).await, (first.to_vec(), b"http/1.1".to_vec()));
        pass(RENEWAL).await;
        assert_eq!(seen(current.load_full(), &trusted).await.0, second.to_vec());

        // Half of a replacement: the new certificate with the former key.
        let former_key = std::fs::read(folder.path().join("tls.key")).unwrap();
        let third = write_certificate(folder.path());
        let key = std::fs::read(folder.path().join("tls.key")).unwrap();
        std::fs::write(folder.path().join("tls.key"), former_key).unwrap();
        pass(RENEWAL).await;
        let trusted = [&second, &third];
        assert_eq!(seen(current.load_full(), &trusted).await.0, second.to_vec());

        std::fs::write(folder.path().join("tls.key"), key).unwrap();
        pass(RENEWAL).await;
        assert_eq!(seen(current.load_full(), &trusted).await.0, third.to_vec());
    }
}
