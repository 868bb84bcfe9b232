//! `valgate run`: the gateway until it is told to stop.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};

use super::{WRONG, fail};
use crate::app;
use crate::config::{self, Config, settings};
use crate::telemetry::logging::{self, LogFormat};

/// Runs on this configuration. SIGTERM and SIGINT drain and stop; SIGHUP begins a new access-log file.
pub fn run(path: &Path) -> ExitCode {
    let config = match config::load(path) {
        Ok(config) => config,
        Err(diagnostics) => {
            let _ = writeln!(std::io::stderr(), "{diagnostics}");
            return ExitCode::from(WRONG);
        }
    };
    match serve(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn serve(config: Config) -> Result<()> {
    let format = match config.log.format {
        settings::LogFormat::Json => LogFormat::Json,
        settings::LogFormat::Text => LogFormat::Text,
    };
    logging::init(config.log.level.as_str(), format).context("cannot set up logging")?;
    let runtime =
        runtime::Builder::new_current_thread().enable_all().build().context("cannot start a runtime")?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
        let mut hang_up = signal(SignalKind::hangup()).context("cannot wait for SIGHUP")?;
        let names: Vec<_> = config.listeners.iter().map(|listener| listener.address).collect();
        let running = app::start(config).await?;
        for place in 0..names.len() {
            if let Some(address) = running.listener_address(place) {
                tracing::info!(%address, "listening");
            }
        }
        if let Some(address) = running.health_address() {
            tracing::info!(%address, "answering probes");
        }
        if let Some(address) = running.admin_address() {
            tracing::info!(?address, "answering administrators");
        }
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                interrupted = tokio::signal::ctrl_c() => {
                    interrupted.context("cannot wait for SIGINT")?;
                    break;
                }
                _ = hang_up.recv() => running.reopen_access_log(),
            }
        }
        tracing::info!("draining");
        running.shutdown().await;
        tracing::info!("stopped");
        Ok(())
    })
}
