//! `valgate demo`: connects the demo with the real gateway.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow};
use tokio::runtime;

use super::fail;
use crate::app;
use crate::config;
use crate::demo::{self, GatewayHandle, Options};

/// Runs the demo, or its check.
pub fn run(options: &Options) -> ExitCode {
    match perform(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn perform(options: &Options) -> Result<()> {
    let runtime =
        runtime::Builder::new_current_thread().enable_all().build().context("cannot start a runtime")?;
    runtime.block_on(demo::run(options, &mut io::stdout(), start))
}

async fn start(path: PathBuf) -> Result<GatewayHandle> {
    let config = config::load(&path).map_err(|diagnostics| anyhow!("{diagnostics}"))?;
    let running = app::start(config).await?;
    let address = running.listener_address(0).context("the demo's configuration has no listener")?;
    Ok(GatewayHandle::new(address, running.shutdown()))
}
