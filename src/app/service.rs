//! A gateway that follows its configuration file: by signals, by a watch on the file, and by request.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Result;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::last_good::LastGood;
use super::watch::Watch;
use super::{FIXED, Inherited, Program, Running, start_following, systemd};
use crate::admin::reloads::{ReloadOutcome, ReloadRequests};
use crate::config::{self, Config};
use crate::telemetry::audit_log;

/// See the module.
pub struct Service {
    path: PathBuf,
    running: Running,
    watch: Watch,
    requests: ReloadRequests,
    program: Program,
    last_good: Option<LastGood>,
}

/// What happens to a gateway while it serves.
enum Event {
    Reload(Cause),
    Replace,
}

/// What asks for a reload.
enum Cause {
    Signal,
    File,
    Request(oneshot::Sender<ReloadOutcome>),
}

/// The signals that a gateway obeys, caught from here on: uncaught, most of them would end it.
pub struct Signals {
    stop: Stop,
    orders: Orders,
}

/// SIGTERM and SIGINT.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

/// SIGHUP and SIGUSR2.
struct Orders {
    hang_up: Signal,
    replace: Signal,
}

impl Service {
    /// Starts on the configuration that was read from `path`, or on the last good one in its place.
    ///
    /// # Errors
    /// As [`super::start`].
    pub async fn start(
        path: &Path,
        config: Config,
        is_last_good: bool,
        inherited: Inherited,
        program: Program,
    ) -> Result<Self> {
        let watch = Watch::new(path, &config);
        let (running, requests) = start_following(config, inherited).await?;
        let last_good = running.sources.ground().state_dir.as_deref().map(LastGood::new);
        let service = Self { path: path.to_owned(), running, watch, requests, program, last_good };
        if is_last_good {
            service.running.status.started_on_last_good();
        } else {
            service.keep_copy().await;
        }
        Ok(service)
    }

    /// The gateway itself.
    pub fn running(&self) -> &Running {
        &self.running
    }

    /// Serves until SIGTERM or SIGINT, or until a successor has taken over; then drains and stops. SIGHUP reloads and
    /// begins a new file for the access log; SIGUSR2 starts a successor.
    pub async fn run(mut self, signals: Signals) {
        let Signals { mut stop, mut orders } = signals;
        let _heartbeat = heartbeat();
        systemd::ready();
        loop {
            let event = tokio::select! {
                biased;
                () = stop.asked() => break,
                event = self.next(&mut orders) => event,
            };
            let is_replaced = tokio::select! {
                biased;
                () = stop.asked() => break,
                is_replaced = self.obey(event) => is_replaced,
            };
            if is_replaced {
                self.running.retire().await;
                tracing::info!("stopped");
                return;
            }
        }
        systemd::stopping();
        self.running.say_goodbye().await;
        tracing::info!("draining");
        self.running.shutdown().await;
        tracing::info!("stopped");
    }

    async fn next(&mut self, orders: &mut Orders) -> Event {
        tokio::select! {
            _ = orders.hang_up.recv() => Event::Reload(Cause::Signal),
            _ = orders.replace.recv() => Event::Replace,
            () = self.watch.changed() => Event::Reload(Cause::File),
            asked = self.requests.next() => Event::Reload(Cause::Request(asked)),
        }
    }

    /// Whether another process serves from now on.
    async fn obey(&mut self, event: Event) -> bool {
        match event {
            Event::Replace => return self.hand_over().await,
            Event::Reload(Cause::Signal) => {
                self.running.reopen_logs();
                let _ = self.reload("SIGHUP").await;
            }
            Event::Reload(Cause::File) => drop(self.reload("changed files").await),
            Event::Reload(Cause::Request(asked)) => {
                // Whoever asked may have gone.
                let _ = asked.send(self.reload("request").await);
            }
        }
        false
    }

    /// Reads the file and puts it in force, and tells what came of it.
    async fn reload(&mut self, cause: &str) -> ReloadOutcome {
        systemd::reloading();
        let tried = self.watch.look();
        let outcome = self.try_reload().await;
        systemd::ready();
        let generation = self.running.status.generation();
        match &outcome {
            Ok(changes) => {
                let listed = listed(changes);
                tracing::info!(cause, generation, changes = listed, "a new configuration is in force");
                if let Some(fixed) = fixed(changes) {
                    tracing::warn!(fields = fixed, "some changes take effect only after a restart");
                }
            }
            Err(why) => {
                self.watch.failed(tried);
                tracing::error!(
                    cause,
                    generation,
                    error = why,
                    "the new configuration is not put in force; the one before stays"
                );
            }
        }
        outcome
    }

    async fn try_reload(&mut self) -> ReloadOutcome {
        let config = match config::load(&self.path) {
            Ok(config) => config,
            Err(diagnostics) => {
                let why = "the configuration file has mistakes";
                self.running.audit.journal().note(audit_log::Event::ConfigurationRefused { why });
                self.running.status.failed("the configuration file has mistakes; the one before is in force");
                return Err(diagnostics.to_string());
            }
        };
        let watch = Watch::new(&self.path, &config);
        let changes = self.running.reload(config).await.map_err(|error| format!("{error:#}"))?;
        self.watch = watch;
        self.keep_copy().await;
        Ok(changes)
    }

    async fn hand_over(&self) -> bool {
        tracing::info!("starting a process to replace this one");
        systemd::replacing();
        match self.running.hand_over(&self.program).await {
            Ok(successor) => {
                tracing::info!(successor, "another process serves from now on; draining");
                systemd::succeeded_by(successor);
                true
            }
            Err(error) => {
                let error = format!("{error:#}");
                systemd::not_replaced(&error);
                tracing::error!(error, "this process is not replaced and serves on");
                false
            }
        }
    }

    async fn keep_copy(&self) {
        if let Some(last_good) = &self.last_good {
            last_good.keep(&self.running.blueprint.config).await;
        }
    }
}

impl Signals {
    /// Catches them. To be called before anybody learns that this process serves.
    pub fn catch() -> io::Result<Self> {
        Ok(Self { stop: Stop::catch()?, orders: Orders::catch()? })
    }
}

impl Stop {
    fn catch() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

impl Orders {
    fn catch() -> io::Result<Self> {
        Ok(Self { hang_up: signal(SignalKind::hangup())?, replace: signal(SignalKind::user_defined2())? })
    }
}

/// Tells systemd that this thread is alive, if it wants to know, until dropped.
fn heartbeat() -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    if let Some(interval) = systemd::watchdog() {
        tasks.spawn(async move {
            loop {
                systemd::alive();
                tokio::time::sleep(interval).await;
            }
        });
    }
    tasks
}

/// The first changes, as one text.
fn listed(changes: &[String]) -> String {
    let mut text = changes.iter().take(MAX_LISTED).map(String::as_str).collect::<Vec<_>>().join(", ");
    match changes.len() {
        0 => text.push_str("none"),
        all if all > MAX_LISTED => {
            // Writing to a text cannot fail.
            let _ = write!(text, ", and {} more", all - MAX_LISTED);
        }
        _ => {}
    }
    text
}

/// Those of the changes that only a restart puts in force.
fn fixed(changes: &[String]) -> Option<String> {
    let is_fixed = |change: &&str| {
        let field = change.split(['.', '[', ' ']).next();
        field.is_some_and(|field| FIXED.contains(&field))
    };
    let fixed: Vec<&str> = changes.iter().map(String::as_str).filter(is_fixed).collect();
    (!fixed.is_empty()).then(|| fixed.join(", "))
}

/// A line of a log is to be read.
const MAX_LISTED: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_that_need_a_restart_are_told_by_name() {
        let changes = ["workers", "routes[a].public (added)", "health.metrics (added)", "logs", "limits.uri"];
        let changes = changes.map(str::to_owned);
        assert_eq!(fixed(&changes).as_deref(), Some("workers, health.metrics (added)"));
        assert_eq!(fixed(&changes[4..]), None);
        assert_eq!(listed(&changes[3..]), "logs, limits.uri");
        assert_eq!(listed(&[]), "none");
        assert!(listed(&vec!["x".to_owned(); 50]).ends_with("x, and 10 more"));
    }
}
