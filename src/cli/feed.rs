//! `valgate feed serve`: a revocation feed for teams that have no engine.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, ensure};
use clap::Subcommand;
use http::HeaderValue;
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};

use super::{fail, pages};
use crate::clock::Clock;
use crate::config::settings::{CertifiedKey, Tls, TlsVersion};
use crate::feed_server::{FeedServer, FeedSigner, Settings};
use crate::telemetry::logging::{self, LogFormat};

/// The command line of `valgate feed`.
#[derive(Debug, clap::Args)]
pub struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the documented feed at /revocations, from a log on disk
    #[command(after_help = pages::FEED_SERVE)]
    Serve(Box<Serve>),
}

#[derive(Debug, clap::Args)]
struct Serve {
    /// Directory of the log; made if it is not there
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Where to listen
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:8500")]
    address: SocketAddr,
    /// File with the token of those who may revoke
    #[arg(long, value_name = "FILE")]
    write_token_file: Option<PathBuf>,
    /// File with the token of the gateways
    #[arg(long, value_name = "FILE")]
    read_token_file: Option<PathBuf>,
    /// Certificate chain in PEM, for TLS
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_certificate: Option<PathBuf>,
    /// Private key of the certificate in PEM
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
    /// Serve without TLS on other addresses than loopback: tokens and revocations can then be read on the way
    #[arg(long)]
    insecure_allow_http: bool,
    /// Private key in PEM (PKCS#8, Ed25519 or P-256) that signs answers for gateways with `signed`
    #[arg(long, value_name = "FILE", requires_all = ["issuer", "audience"])]
    signing_key: Option<PathBuf>,
    /// The iss of signed answers
    #[arg(long, value_name = "URL")]
    issuer: Option<String>,
    /// The aud of signed answers
    #[arg(long, value_name = "NAME")]
    audience: Option<String>,
    /// The most revocations in force
    #[arg(long, value_name = "COUNT", default_value_t = 1_000_000)]
    max_entries: usize,
}

/// Runs the command.
pub fn run(options: &Options) -> ExitCode {
    let Command::Serve(serve) = &options.command;
    match serve.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

impl Serve {
    fn run(&self) -> Result<()> {
        logging::init("info", LogFormat::Text).context("cannot set up logging")?;
        let settings = self.settings()?;
        let scheme = if settings.tls.is_some() { "https" } else { "http" };
        let runtime =
            runtime::Builder::new_current_thread().enable_all().build().context("cannot start a runtime")?;
        runtime.block_on(async {
            let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
            let server = FeedServer::start(settings, Clock::system()).await?;
            writeln!(io::stdout(), "serving the feed at {scheme}://{}/revocations", server.address())?;
            tokio::select! {
                _ = terminate.recv() => {}
                interrupted = tokio::signal::ctrl_c() => interrupted.context("cannot wait for SIGINT")?,
            }
            server.stop().await;
            Ok(())
        })
    }

    fn settings(&self) -> Result<Settings> {
        let tls =
            self.tls_certificate.clone().zip(self.tls_key.clone()).map(|(certificate, private_key)| Tls {
                certificates: vec![CertifiedKey { certificate, private_key }],
                min_version: TlsVersion::Tls12,
                hsts: None,
                client_certificates: None,
            });
        ensure!(
            tls.is_some() || self.address.ip().is_loopback() || self.insecure_allow_http,
            "without TLS, {} would send tokens and revocations in the clear; give --tls-certificate and --tls-key, \
             listen on loopback, or say --insecure-allow-http",
            self.address
        );
        let write = token(self.write_token_file.as_deref(), "VALGATE_FEED_WRITE_TOKEN")?;
        let write_authorization = write.context(
            "nobody could revoke: put a token into a file and name it with --write-token-file, or set \
             VALGATE_FEED_WRITE_TOKEN",
        )?;
        Ok(Settings {
            address: self.address,
            data: self.data.clone(),
            write_authorization,
            read_authorization: token(self.read_token_file.as_deref(), "VALGATE_FEED_READ_TOKEN")?,
            tls,
            signer: self.signer()?,
            max_entries: self.max_entries,
        })
    }

    fn signer(&self) -> Result<Option<FeedSigner>> {
        let (Some(path), Some(issuer), Some(audience)) = (&self.signing_key, &self.issuer, &self.audience)
        else {
            return Ok(None);
        };
        let pem = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        FeedSigner::from_pem(&pem, issuer.clone(), audience.clone())
            .map(Some)
            .map_err(|why| anyhow!("the key in {} cannot be used: {why}", path.display()))
    }
}

/// The header with a token from a file, else from the environment.
fn token(file: Option<&Path>, variable: &str) -> Result<Option<HeaderValue>> {
    let (text, place) = match file {
        Some(path) => {
            let text =
                std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            (text, path.display().to_string())
        }
        None => match std::env::var(variable) {
            Ok(text) => (text, variable.to_owned()),
            Err(_) => return Ok(None),
        },
    };
    let text = text.trim();
    ensure!(
        text.len() >= LEAST_TOKEN,
        "the token in {place} is shorter than {LEAST_TOKEN} characters: make one by 'openssl rand -hex 32'"
    );
    let mut value = HeaderValue::from_str(&format!("Bearer {text}"))
        .map_err(|_| anyhow!("the token in {place} has characters that no header can carry"))?;
    value.set_sensitive(true);
    Ok(Some(value))
}

/// Guessing takes too long from here on.
const LEAST_TOKEN: usize = 16;
