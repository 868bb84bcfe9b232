//! The composition root: from a configuration to a running gateway, to the next configuration, and back.
//!
//! ```text
//! Config -> Blueprint   everything that can be wrong is made: routes, certificates, upstreams
//!        -> Sockets     every address bound
//!        -> Sources     a task for each source of keys and revocations
//!        -> Generation  what the cores read, published whole
//! ```
//!
//! The start and each reload take the same steps in the same order. Whatever fails does so before the last, which
//! cannot: until then nothing has changed. What the new configuration says of a socket, a source, an upstream or an
//! issuer as the old one did is carried over as it is.

mod admin;
mod attendance;
mod audit;
mod blueprint;
pub mod engines;
mod events;
mod feeds;
mod generation;
mod handover;
mod inherited;
mod introspection;
mod last_good;
mod lookups;
mod offline;
mod probes;
mod registry;
mod routes;
mod service;
mod sockets;
mod sources;
mod spans;
mod status;
mod status_lists;
mod systemd;
mod upstream_metrics;
mod upstreams;
mod watch;
mod worker;

use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::task::JoinSet;

use crate::admin::in_force::{self, InForce};
use crate::admin::readiness::Readiness;
use crate::admin::reloads::{self, ReloadRequests};
use crate::clock::Clock;
use crate::config::Config;
use crate::config::settings;
use crate::feeds::revocation::load_fact_hasher;
use crate::gateway::{FailedAttempts, Refusals, RequestLimits, SharedVerdicts};
use crate::revocation::FeedState;
use crate::telemetry::access_log::{self, AccessLog};
use crate::telemetry::audit_log::Event;
use crate::telemetry::metrics::{Metrics, Registration};
use crate::telemetry::patterns::{Pattern, Patterns};
pub use admin::AdminAddress;
use admin::{Door, Told};
use attendance::Attendance;
use audit::Audit;
use blueprint::Blueprint;
use generation::Generation;
pub use handover::Program;
use handover::Successor;
pub use inherited::Inherited;
pub use offline::{Offline, PrivateDirectory};
use probes::Probes;
pub use service::{Service, Signals};
use sockets::Sockets;
use sources::{Ground, Purpose, Sources};
use spans::Spans;
pub use status::Status;
use worker::{Adoption, Equipment, Worker};

/// How long readiness waits for keys and feeds: then a provider that is down must not hold the fleet back.
const STARTUP_WAIT: Duration = Duration::from_secs(30);

/// How long a start waits for the copies in `state_dir` before it answers anything: as long as a client waits for a
/// connection without a thought. While more is read, probes and public routes are answered, and who needs more than that is
/// told to come again.
const RESTORE_WAIT: Duration = Duration::from_secs(2);

/// How long a reload waits for sources that it changes, so that a wrong URL is not put in force in place of keys that
/// work.
const SETTLE_WAIT: Duration = Duration::from_secs(5);

/// How many verified tokens all cores remember together: some 100 MB at the most, for tokens of usual size.
const MAX_VERDICTS: u64 = 100_000;

/// How long a stop waits for the writer of the access log.
const LOG_PATIENCE: Duration = Duration::from_secs(5);

/// How long the last spans may take to be delivered: a collector that is down holds no stop up.
const SPAN_PATIENCE: Duration = Duration::from_secs(3);

/// Fields of the configuration that only a restart changes: threads, directories and outputs are made once.
const FIXED: [&str; 7] = ["workers", "state_dir", "health", "admin", "access_log", "audit_log", "log"];

/// A gateway that serves requests.
#[derive(Debug)]
pub struct Running {
    blueprint: Blueprint,
    sockets: Sockets,
    sources: Sources,
    attendance: Attendance,
    status: Status,
    readiness: Readiness,
    metrics: Arc<Metrics>,
    probes: Option<Probes>,
    admin: Option<Door>,
    in_force: InForce,
    workers: Vec<Worker>,
    tasks: JoinSet<()>,
    access_log: AccessLog,
    audit: Audit,
    spans: Spans,
    _registrations: Vec<Registration>,
}

/// Starts the gateway. Needs a tokio runtime, which becomes the control runtime: feeds, keys and probes run on it;
/// requests are served by threads of their own.
///
/// # Errors
/// A socket that cannot be bound, a certificate that cannot be read, a thread that cannot be started.
pub async fn start(config: Config) -> Result<Running> {
    start_following(config, Inherited::none()).await.map(|(running, _)| running)
}

/// Starts the gateway, and gives the requests to reload that whoever follows its file must heed. It starts on listening sockets that were handed over, where there are any that it needs. In place of another
/// gateway it serves nothing before its sources are loaded, since the other one still serves.
///
/// # Errors
/// As [`start`]; a source that cannot be loaded where another gateway still serves.
async fn start_following(config: Config, mut inherited: Inherited) -> Result<(Running, ReloadRequests)> {
    raise_descriptor_limit();
    let clock = Clock::system();
    let cores = config.workers.map_or_else(|| available_parallelism().map_or(1, usize::from), usize::from);
    let metrics = Arc::new(Metrics::new());
    let access_log = AccessLog::start(&log_settings(&config))?;
    let audit = Audit::start(config.audit_log.as_ref(), &clock)?;
    let mut tasks = JoinSet::new();
    config.state_dir.iter().for_each(|directory| make_private_directory(directory));

    let blueprint = Blueprint::draw(config, None)?;
    let config = &blueprint.config;
    let sockets = Sockets::default().next(&config.listeners, cores, &mut inherited)?;
    let probes = config.health.as_ref().map(|health| Probes::bind(health, &mut inherited)).transpose()?;
    let admin = match &config.admin {
        Some(admin) => Some(Door::bind(admin, &mut inherited).await?),
        None => None,
    };
    let ground = Ground {
        clock: clock.clone(),
        hasher: load_fact_hasher(config.state_dir.as_deref()),
        state_dir: config.state_dir.clone(),
        purpose: Purpose::Serve,
    };
    let mut sources = Sources::none(ground).next(config)?;
    await_sources(&sources, &inherited).await?;

    let readiness = Readiness::new(Sources::names(config));
    sources.show(&metrics, &readiness);
    sources.tidy(config);
    let (spans, recorded) = Spans::start(config)?;
    let generation = Arc::new(Generation::new(1, &blueprint, &sockets, &sources, &metrics, cores, recorded));
    routes::warn_of_shadow_mode(config);
    let in_force = InForce::new(shown(1, &blueprint, &generation, &sources));
    let (reloads, requests) = reloads::channel();
    if let Some(probes) = &probes {
        probes.serve(&readiness, &metrics, &mut tasks)?;
    }
    let refusals = refusals(config, cores);
    if let Some(admin) = &admin {
        let told = Told {
            in_force: in_force.clone(),
            readiness: readiness.clone(),
            metrics: Arc::clone(&metrics),
            refusals: refusals.clone(),
            clock: clock.clone(),
            reloads,
            journal: audit.journal().clone(),
        };
        admin.serve(admin::endpoints(told), audit.journal().clone(), &mut tasks)?;
    }
    let verdicts = SharedVerdicts::new(MAX_VERDICTS, clock.clone()).context("no randomness to be had")?;
    let failed_attempts = FailedAttempts::default();
    let patterns = Patterns::new(audit.journal().clone()).context("no randomness to be had")?;
    let workers = per_core(sockets.shares(&Sockets::default(), cores)?, &generation, cores)
        .into_iter()
        .enumerate()
        .map(|(core, first)| {
            let (metrics, log) = (metrics.core(), access_log.per_core());
            let refusals = refusals.as_ref().map(|all| all.of_core(core));
            let (clock, verdicts) = (clock.clone(), verdicts.clone());
            let failed_attempts = failed_attempts.clone();
            let audit = audit.per_core(cores);
            let patterns = patterns.clone();
            let equipment =
                Equipment { clock, verdicts, failed_attempts, metrics, log, audit, refusals, patterns };
            Worker::start(core, equipment, first)
        })
        .collect::<std::io::Result<_>>()
        .context("cannot start a worker thread")?;

    audit.follow(&in_force, &clock, &mut tasks);
    readiness.listening();
    tasks.spawn(end_startup_wait(readiness.clone(), sources.feeds()));
    inherited.serving();
    let mut attendance = Attendance::default();
    attendance.turn_to(&blueprint.upstreams, &metrics, &clock);
    let status = Status::new(clock, readiness.clone());
    let mut registrations = register(&status, &access_log, &audit, &metrics);
    registrations.extend(spans.register(&metrics).into_iter().chain(register_patterns(&patterns, &metrics)));
    let running = Running {
        blueprint,
        sockets,
        sources,
        attendance,
        status,
        readiness,
        metrics,
        probes,
        admin,
        in_force,
        workers,
        tasks,
        access_log,
        audit,
        spans,
        _registrations: registrations,
    };
    Ok((running, requests))
}

/// In place of another gateway, until all are there; else for what is kept of them, since with what is read by then nobody
/// notices that it had to be.
async fn await_sources(sources: &Sources, inherited: &Inherited) -> Result<()> {
    if inherited.has_predecessor() {
        sources.restored().await;
        sources.load(STARTUP_WAIT).await?;
    }
    _ = tokio::time::timeout(RESTORE_WAIT, sources.restored()).await;
    Ok(())
}

impl Running {
    /// Where the listener at this place in the configuration listens.
    pub fn listener_address(&self, place: usize) -> Option<SocketAddr> {
        self.sockets.iter().nth(place).map(|(_, bound)| bound.address)
    }

    /// Where the probes are answered.
    pub fn health_address(&self) -> Option<SocketAddr> {
        self.probes.as_ref().map(|probes| probes.address)
    }

    /// Where the private door is.
    pub fn admin_address(&self) -> Option<&AdminAddress> {
        self.admin.as_ref().map(|door| &door.address)
    }

    /// Whether it should get traffic, and why not.
    pub fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    /// Its counters.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Which configuration is in force.
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// Begins new files for the access log and the audit log, after the old ones were moved away.
    pub fn reopen_logs(&self) {
        self.access_log.reopen();
        self.audit.reopen();
    }

    /// Puts another configuration in force, as a whole. Requests in flight and open connections go on; requests from now
    /// on are served by it. Gives the paths of the fields that changed. Dropped before it is done, it changes nothing.
    ///
    /// # Errors
    /// What cannot be put in force; then the one before stays as it is.
    pub async fn reload(&mut self, config: Config) -> Result<Vec<String>> {
        let prepared = self.prepare(config).await;
        match prepared {
            Ok(next) => Ok(self.publish(next).await),
            Err(error) => {
                self.status.failed("the configuration cannot be put in force; the one before stays");
                self.audit.journal().note(Event::ConfigurationRefused { why: &format!("{error:#}") });
                Err(error)
            }
        }
    }

    /// All steps that can fail.
    async fn prepare(&self, config: Config) -> Result<Next> {
        let cores = self.workers.len();
        let blueprint = Blueprint::draw(config, Some(&self.blueprint))?;
        let config = &blueprint.config;
        let sockets = self.sockets.next(&config.listeners, cores, &mut Inherited::none())?;
        let shares = sockets.shares(&self.sockets, cores)?;
        let sources = self.sources.next(config)?;
        // The configuration in force has what a disk that hangs does not give the next one.
        let restored = sources.restored_besides(&self.sources);
        let restored = tokio::time::timeout(SETTLE_WAIT, restored).await;
        restored.context(
            "what was kept in state_dir cannot be read in time: check the disk, then reload again",
        )?;
        sources.settle(&self.sources, SETTLE_WAIT).await?;
        let spans = self.spans.prepare(config)?;
        Ok(Next { blueprint, sockets, shares, sources, spans })
    }

    async fn publish(&mut self, next: Next) -> Vec<String> {
        let Next { blueprint, sockets, shares, mut sources, spans } = next;
        let changes = self.blueprint.config.document.changes(&blueprint.config.document);
        let number = self.status.generation() + 1;
        let cores = self.workers.len();
        sources.show(&self.metrics, &self.readiness);
        sources.tidy(&blueprint.config);
        self.readiness.replace_sources(Sources::names(&blueprint.config));
        let recorded = self.spans.adopt(spans);
        let generation =
            Arc::new(Generation::new(number, &blueprint, &sockets, &sources, &self.metrics, cores, recorded));
        let adoptions = per_core(shares, &generation, cores);
        self.in_force.replace(shown(number, &blueprint, &generation, &sources));
        let adopted: Vec<_> =
            self.workers.iter().zip(adoptions).map(|(worker, adoption)| worker.adopt(adoption)).collect();
        self.attendance.turn_to(&blueprint.upstreams, &self.metrics, &self.sources.ground().clock);
        routes::warn_of_shadow_mode(&blueprint.config);
        self.blueprint = blueprint;
        self.sockets = sockets;
        let before = std::mem::replace(&mut self.sources, sources);
        self.status.changed(number);
        self.audit.journal().note(Event::ConfigurationChanged { generation: number, changes: &changes });
        for core in adopted {
            // A core that is gone serves by nothing.
            let _ = core.await;
        }
        // Only now: the last requests of the old generation may have waited for them.
        drop(before);
        changes
    }

    /// Has a new process serve in place of this one, which goes on to [`Self::shutdown`] if that succeeds.
    ///
    /// # Errors
    /// The new process does not start or does not become ready; this one serves on.
    pub async fn hand_over(&self, program: &Program) -> Result<u32> {
        let listeners = self.sockets.iter().map(|(key, bound)| {
            (key.to_string(), bound.sockets.iter().map(std::os::fd::AsFd::as_fd).collect())
        });
        let probes = self.probes.iter().map(|probes| (probes::LABEL.to_owned(), vec![probes.socket.as_fd()]));
        let admin = self.admin.iter().map(|door| (admin::LABEL.to_owned(), vec![door.as_fd()]));
        let sockets: Vec<_> = listeners.chain(probes).chain(admin).collect();
        let successor = Successor::start(program, &sockets)?;
        successor.ready().await
    }

    /// Not ready any more, but serving as before for those who have not heard of it yet.
    pub async fn say_goodbye(&self) {
        self.readiness.drain();
        tokio::time::sleep(self.blueprint.config.timeouts.drain_delay).await;
    }

    /// Stops: not ready any more, no new connections, requests in flight served to their end or to the drain
    /// time-out, the log written out. Probes are answered throughout.
    pub async fn shutdown(mut self) {
        self.readiness.drain();
        let settings::Timeouts { drain, drain_idle, .. } = self.blueprint.config.timeouts;
        self.sockets = Sockets::default();
        for worker in &self.workers {
            worker.drain(drain_idle.min(drain));
        }
        for worker in self.workers {
            worker.finish(drain).await;
        }
        self.spans.finish(SPAN_PATIENCE).await;
        drop(self.sources);
        self.tasks.shutdown().await;
        let logs = [Some(self.access_log), self.audit.finish()];
        for log in logs.into_iter().flatten() {
            let written = tokio::task::spawn_blocking(move || log.shutdown(LOG_PATIENCE)).await;
            if let Ok(Err(error)) = written {
                tracing::warn!(%error, "a log could not be written to its end");
            }
        }
    }

    /// Stops after another process has taken over, which answers the probes from now on.
    pub async fn retire(mut self) {
        (self.probes, self.admin) = (None, None);
        self.tasks.shutdown().await;
        self.shutdown().await;
    }
}

/// A configuration that is ready to be put in force.
struct Next {
    blueprint: Blueprint,
    sockets: Sockets,
    shares: Vec<sockets::Shares>,
    sources: Sources,
    spans: spans::Prepared,
}

/// What administrators are shown of a generation.
fn shown(
    number: u64,
    blueprint: &Blueprint,
    generation: &Generation,
    sources: &Sources,
) -> in_force::Generation {
    let clock = &sources.ground().clock;
    in_force::Generation {
        number,
        loaded_at: clock.wall(),
        document: blueprint.config.document.shown().clone(),
        issuers: generation.verifier.issuers().iter().cloned().collect(),
        feeds: sources.feeds(),
        writable_feeds: sources.writable_feeds(),
        explainer: generation.explainer(clock),
    }
}

/// Then readiness waits for no source any more.
async fn end_startup_wait(readiness: Readiness, feeds: Vec<Arc<FeedState>>) {
    // A gateway that is still reading what it knows would refuse everybody.
    for feed in feeds {
        feed.until_restored().await;
    }
    tokio::time::sleep(STARTUP_WAIT).await;
    readiness.startup_wait_elapsed();
}

/// Has metrics tell of the configuration and of the logs, for as long as what is returned lasts.
fn register(status: &Status, access_log: &AccessLog, audit: &Audit, metrics: &Metrics) -> Vec<Registration> {
    let dropped = access_log.dropped_lines();
    let mut registrations = status.register(metrics);
    registrations.push(metrics.register_counter(
        "access_log_dropped_lines",
        "Lines of the access log that were dropped because the writer could not keep up.",
        &[],
        move || dropped.count(),
    ));
    registrations.extend(audit.register(metrics));
    registrations
}

/// Has metrics tell how often conduct was suspicious, for as long as what is returned lasts.
fn register_patterns(patterns: &Patterns, metrics: &Metrics) -> Vec<Registration> {
    let counter = |pattern: Pattern| {
        let patterns = patterns.clone();
        metrics.register_counter(
            "suspicious",
            "How often conduct was found suspicious: once in a window for each client, subject or token.",
            &[("pattern", pattern.name())],
            move || patterns.found(pattern),
        )
    };
    Pattern::ALL.map(counter).into()
}

/// Where refusals are kept, if anyone can ask for them.
fn refusals(config: &Config, cores: usize) -> Option<Refusals> {
    let kept = &config.admin.as_ref()?.refusals;
    (kept.keep > 0).then(|| Refusals::new(cores, kept.keep, &kept.claims))
}

fn request_limits(config: &Config) -> RequestLimits {
    RequestLimits {
        uri: config.limits.uri,
        header_count: config.limits.header_count,
        token: config.limits.token,
        body_idle: config.timeouts.body_idle,
        websocket_idle: config.timeouts.websocket_idle,
    }
}

/// What each core adopts: the generation, and its share of the new sockets.
fn per_core(shares: Vec<sockets::Shares>, generation: &Arc<Generation>, cores: usize) -> Vec<Adoption> {
    let adoption = || Adoption { generation: Arc::clone(generation), sockets: Vec::new() };
    let mut adoptions: Vec<Adoption> = (0..cores).map(|_| adoption()).collect();
    for (key, sockets) in shares {
        for (adoption, sockets) in adoptions.iter_mut().zip(sockets) {
            adoption.sockets.push((key, sockets));
        }
    }
    adoptions
}

/// A connection costs a descriptor, and the usual soft limit of 1024 is for programs that use `select`.
fn raise_descriptor_limit() {
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::warn!(%error, "the limit on open files could not be raised");
    }
}

/// What is in there is for the gateway alone. Without it nothing is kept, which is told and no reason not to serve.
fn make_private_directory(directory: &Path) {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    if let Err(error) = builder.create(directory) {
        tracing::warn!(directory = %directory.display(), %error, "state_dir cannot be made: nothing is kept for a restart");
    }
}

fn log_settings(config: &Config) -> access_log::Settings {
    let Some(log) = &config.access_log else {
        return access_log::Settings { output: access_log::Output::Off, ..access_log::Settings::default() };
    };
    access_log::Settings {
        format: match log.format {
            settings::LogFormat::Json => access_log::Format::Json,
            settings::LogFormat::Text => access_log::Format::Text,
        },
        output: log_output(&log.output),
        ..access_log::Settings::default()
    }
}

fn log_output(output: &settings::LogOutput) -> access_log::Output {
    match output {
        settings::LogOutput::Stdout => access_log::Output::Stdout,
        settings::LogOutput::Stderr => access_log::Output::Stderr,
        settings::LogOutput::File(path) => access_log::Output::File(path.clone()),
    }
}
