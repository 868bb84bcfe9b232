//! `valgate run`: the gateway until it is told to stop.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use clap::Args;
use tokio::runtime;

use super::{WRONG, fail};
use crate::app::{Inherited, Program, Service, Signals};
use crate::config::settings::CarriedProbe;
use crate::config::{self, Config, settings};
use crate::telemetry::logging::{self, LogFormat};

/// Options of the command.
#[derive(Debug, Args)]
pub struct Options {
    /// Configuration file
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// Run on this copy of the last good configuration (`last-good.yaml` in `state_dir`) if the file has mistakes
    #[arg(long, value_name = "FILE")]
    last_good: Option<PathBuf>,
    /// Carry a probe of the application to it, from a path of the health listener: PATH=URL, such as
    /// /probes/a/ready=http://127.0.0.1:8080/ready; may be repeated
    #[arg(long = "probe", value_name = "PATH=URL")]
    probes: Vec<CarriedProbe>,
}

/// Runs on the configuration. SIGTERM and SIGINT drain and stop; SIGHUP reloads and begins a new access-log file;
/// SIGUSR2 starts a process that takes over.
pub fn run(options: &Options) -> ExitCode {
    // First, while there is one thread: it takes variables out of the environment.
    let inherited = match Inherited::from_environment() {
        Ok(inherited) => inherited,
        Err(error) => return fail(&error),
    };
    let Some(mut start) = choose(options) else { return ExitCode::from(WRONG) };
    match &mut start.config.health {
        Some(health) => health.carried.clone_from(&options.probes),
        None if options.probes.is_empty() => {}
        None => return fail(&anyhow!("--probe needs `health` in the configuration, which answers it")),
    }
    match serve(&options.config, start, inherited) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// What to start on.
struct Start {
    config: Config,
    /// It is the copy, since the file has mistakes.
    is_last_good: bool,
}

/// The configuration in the file; if that has mistakes, which are told, the last good one where the operator said so.
fn choose(options: &Options) -> Option<Start> {
    let mistakes = match config::load(&options.config) {
        Ok(config) => return Some(Start { config, is_last_good: false }),
        Err(mistakes) => mistakes,
    };
    let mut stderr = std::io::stderr();
    let _ = writeln!(stderr, "{mistakes}");
    let Some(copy) = &options.last_good else {
        let _ = writeln!(
            stderr,
            "valgate: not started; with --last-good FILE it would run on a copy of the last good configuration"
        );
        return None;
    };
    match config::load_copy(copy, &options.config) {
        Ok(config) => Some(Start { config, is_last_good: true }),
        Err(unfit) => {
            let _ =
                writeln!(stderr, "{unfit}\nvalgate: not started: the last good configuration is unfit too");
            None
        }
    }
}

fn serve(path: &Path, start: Start, inherited: Inherited) -> Result<()> {
    let Start { config, is_last_good } = start;
    let format = match config.log.format {
        settings::LogFormat::Json => LogFormat::Json,
        settings::LogFormat::Text => LogFormat::Text,
    };
    logging::init(config.log.level.as_str(), format).context("cannot set up logging")?;
    if is_last_good {
        tracing::error!(
            file = %path.display(),
            "THE CONFIGURATION FILE HAS MISTAKES (valgate check tells them): running on the last good one instead"
        );
    }
    let runtime =
        runtime::Builder::new_current_thread().enable_all().build().context("cannot start a runtime")?;
    let served = runtime.block_on(async {
        let signals = Signals::catch().context("cannot catch signals")?;
        let program = Program::this();
        let listeners = config.listeners.len();
        let service = Service::start(path, config, is_last_good, inherited, program).await?;
        let running = service.running();
        for address in (0..listeners).filter_map(|place| running.listener_address(place)) {
            tracing::info!(%address, "listening");
        }
        if let Some(address) = running.health_address() {
            tracing::info!(%address, "answering probes");
        }
        if let Some(address) = running.admin_address() {
            tracing::info!(?address, "answering administrators");
        }
        Box::pin(service.run(signals)).await;
        Ok(())
    });
    // A disk that hangs must not keep the process from its end.
    runtime.shutdown_timeout(LAST_WRITES);
    served
}

/// What is being written to `state_dir` at the end has so long.
const LAST_WRITES: Duration = Duration::from_secs(2);
