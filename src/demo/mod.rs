//! `valgate demo`: the gateway with everything around it in one process, to try and to check.
//!
//! A development issuer, a sample API and a certificate authority are made on the spot; the gateway is the real
//! one, started from a YAML file like any other. The issuer and the API are also what the integration tests use.
//! FOR DEVELOPMENT ONLY: nothing here can be switched on by a configuration.

pub mod api;
mod ca;
mod check;
mod client;
mod config;
mod files;
pub mod issuer;
mod print;
pub mod scenarios;
mod serve;
#[cfg(test)]
mod tests;
pub mod tokens;

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::net::TcpSocket;
use tokio::signal::unix::{SignalKind, signal};

use crate::clock::Clock;
use api::SampleApi;
use ca::make_certificates;
use check::Check;
use files::DemoFiles;
use issuer::{DevIssuer, IssuerOptions, Revocation};
use scenarios::Before;
use tokens::MintedTokens;

/// The command line of `valgate demo`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Options {
    /// Directory for CA, tokens and configuration; by default a fresh one, removed at the end
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Port of the gateway on 127.0.0.1; by default any free one
    #[arg(long, value_name = "PORT", default_value_t = 0, hide_default_value = true)]
    pub port: u16,
    /// Send every request of the demo, compare the answers, and exit; status 1 if any deviates
    #[arg(long)]
    pub check: bool,
}

/// A gateway that was started for the demo.
pub struct GatewayHandle {
    address: SocketAddr,
    shutdown: Pin<Box<dyn Future<Output = ()>>>,
}

impl GatewayHandle {
    /// A gateway whose TLS listener is at `address` and which `shutdown` ends.
    pub fn new(address: SocketAddr, shutdown: impl Future<Output = ()> + 'static) -> Self {
        Self { address, shutdown: Box::pin(shutdown) }
    }
}

/// Runs the demo until Ctrl-C, or with `check` until every scenario was tried. `start` starts the gateway from
/// the configuration file that it is given.
///
/// # Errors
/// Something could not be set up, or a scenario did not come out as it should.
pub async fn run(
    options: &Options,
    out: &mut dyn Write,
    start: impl AsyncFnOnce(PathBuf) -> anyhow::Result<GatewayHandle>,
) -> anyhow::Result<()> {
    run_patiently(PATIENCE, options, out, start).await
}

/// How long keys and feed may take to load, and a revocation to arrive.
const PATIENCE: Duration = Duration::from_secs(5);

async fn run_patiently(
    patience: Duration,
    options: &Options,
    out: &mut dyn Write,
    start: impl AsyncFnOnce(PathBuf) -> anyhow::Result<GatewayHandle>,
) -> anyhow::Result<()> {
    let clock = Clock::system();
    let (demo, shutdown) = Demo::start(options, &clock, start).await?;
    let check = Check::new(&demo, &clock, patience)?;
    // Caught rather than left to kill the process, so that the gateway drains and a fresh directory is removed.
    let result = tokio::select! {
        result = perform(options, &check, out) => result,
        interrupted = interrupt() => interrupted.and_then(|()| {
            ensure!(!options.check, "interrupted before all scenarios were tried");
            Ok(())
        }),
    };
    shutdown.await;
    result
}

/// The check, or the guide and then nothing until somebody interrupts.
async fn perform(options: &Options, check: &Check<'_>, out: &mut dyn Write) -> anyhow::Result<()> {
    if options.check {
        return checked(check, out).await;
    }
    check.wait_until_ready().await;
    print::guide(out, check.demo())?;
    std::future::pending().await
}

/// Returns on Ctrl-C or SIGTERM.
async fn interrupt() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted.context("cannot wait for Ctrl-C"),
        _ = terminate.recv() => Ok(()),
    }
}

async fn checked(check: &Check<'_>, out: &mut dyn Write) -> anyhow::Result<()> {
    let verdicts = check.run_all().await;
    print::table(out, &verdicts)?;
    let failed = verdicts.iter().filter(|verdict| !verdict.deviations.is_empty()).count();
    if failed > 0 {
        bail!("{failed} of {} scenarios deviate", verdicts.len());
    }
    Ok(())
}

/// Everything that runs, and where it is.
struct Demo {
    files: DemoFiles,
    /// The authority's certificate, in PEM.
    ca: String,
    issuer: DevIssuer,
    api: SampleApi,
    tokens: MintedTokens,
    gateway: SocketAddr,
    /// Bound but not listening: connections to its port are refused, and no other process can take it.
    _nothing: TcpSocket,
}

impl Demo {
    async fn start(
        options: &Options,
        clock: &Clock,
        start: impl AsyncFnOnce(PathBuf) -> anyhow::Result<GatewayHandle>,
    ) -> anyhow::Result<(Self, Pin<Box<dyn Future<Output = ()>>>)> {
        let files = DemoFiles::prepare(options.dir.as_deref())?;
        let certificates = make_certificates(clock.wall()).context("making the demo's certificates")?;
        files.write(files::CA, &certificates.ca)?;
        files.write(files::CERTIFICATE, &certificates.certificate)?;
        files.write(files::PRIVATE_KEY, &certificates.key)?;

        let issuer_options = IssuerOptions { clock: clock.clone(), ..IssuerOptions::default() };
        let audience = issuer_options.audience.clone();
        let issuer = DevIssuer::start(issuer_options).await?;
        let tokens = MintedTokens::mint(&issuer, clock.wall())?;
        for (token, text) in tokens.all() {
            files.write_token(token.name(), text)?;
        }

        let api = SampleApi::start().await?;
        let nothing = TcpSocket::new_v4()?;
        nothing.bind(serve::FREE_PORT)?;
        let addresses = config::Addresses {
            listen: (Ipv4Addr::LOCALHOST, options.port).into(),
            issuer: issuer.issuer_url(),
            audience: &audience,
            api: api.address(),
            nothing: nothing.local_addr()?,
        };
        files.write(files::CONFIG, &config::yaml(&addresses, files.dir()))?;

        let gateway = start(files.path(files::CONFIG)).await.context("starting the gateway")?;
        let demo = Self {
            files,
            ca: certificates.ca,
            issuer,
            api,
            tokens,
            gateway: gateway.address,
            _nothing: nothing,
        };
        Ok((demo, gateway.shutdown))
    }

    /// The entry that the issuer's feed gets for this step.
    fn revocation(&self, before: Before) -> Option<Revocation> {
        match before {
            Before::Nothing | Before::Rotate => None,
            Before::RevokeToken => Some(Revocation::token(tokens::revoked_id(&self.issuer))),
            Before::RevokeSession => Some(Revocation::session(tokens::SESSION)),
        }
    }
}
