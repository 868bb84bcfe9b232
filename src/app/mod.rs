//! The composition root: from a configuration to a running gateway, and back.
//!
//! Reads top to bottom as the order of the start. Everything that can fail at the start does so before the first
//! request is served: certificates are read and sockets bound first. [`Running`] is what `main` and tests hold.

mod admin;
pub mod engines;
mod events;
mod feeds;
mod offline;
mod routes;
mod sources;
mod upstreams;
mod worker;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::admin::health::{self, Health};
use crate::admin::in_force::{Generation, InForce};
use crate::admin::readiness::Readiness;
use crate::clock::Clock;
use crate::config::Config;
use crate::config::settings::{self, ListenerKind};
use crate::gateway::{Explainer, RequestLimits, SharedVerdicts};
use crate::http1::GuardLimits;
use crate::listener::{self, BoundListener, Drain, ListenerSettings, Role};
use crate::telemetry::access_log::{self, AccessLog};
use crate::telemetry::metrics::{Metrics, Registration};
pub use admin::AdminAddress;
pub use offline::Offline;
use sources::{Purpose, Sources};
use worker::{Shared, Worker};

/// How long readiness waits for keys and feeds: then a provider that is down must not hold the fleet back.
const STARTUP_WAIT: Duration = Duration::from_secs(30);

/// How many verified tokens all cores remember together: some 100 MB at the most, for tokens of usual size.
const MAX_VERDICTS: u64 = 100_000;

/// Lines of the access log that may wait for the writer, in batches of about 32 KiB.
const LOG_PATIENCE: Duration = Duration::from_secs(5);

/// A gateway that serves requests.
#[derive(Debug)]
pub struct Running {
    listeners: Vec<SocketAddr>,
    health: Option<SocketAddr>,
    admin: Option<AdminAddress>,
    readiness: Readiness,
    metrics: Arc<Metrics>,
    drain: Drain,
    drain_timeout: Duration,
    workers: Vec<Worker>,
    tasks: JoinSet<()>,
    access_log: AccessLog,
    _registrations: Vec<Registration>,
}

/// Starts the gateway. Needs a tokio runtime, which becomes the control runtime: feeds, keys and probes run on it;
/// requests are served by threads of their own.
///
/// # Errors
/// A socket that cannot be bound, a certificate that cannot be read, a thread that cannot be started.
pub async fn start(config: Config) -> Result<Running> {
    raise_descriptor_limit();
    let clock = Clock::system();
    let cores = config.workers.map_or_else(|| available_parallelism().map_or(1, usize::from), usize::from);
    let metrics = Arc::new(Metrics::new());
    let access_log = AccessLog::start(&log_settings(&config))?;
    let mut tasks = JoinSet::new();
    if let Some(directory) = &config.state_dir {
        make_private_directory(directory);
    }

    let bound = bind_all(&config, cores)?;
    let listeners = listener_settings(&config, &bound, &metrics)?;
    let readiness = Readiness::new(Sources::names(&config));
    let health = match &config.health {
        Some(health) => {
            Some(bind_probes(health.address, health.metrics, &readiness, &metrics, &mut tasks).await?)
        }
        None => None,
    };

    let sources = Sources::start(&config, Purpose::Serve, &clock, &readiness, &metrics, &mut tasks).await?;
    let routes = Arc::new(routes::build(&config, &sources.inboxes)?);
    let explainer = Explainer {
        routes: Arc::clone(&routes),
        verifier: Arc::clone(&sources.verifier),
        revocation: Arc::clone(&sources.revocation),
        limits: request_limits(&config),
        clock: clock.clone(),
    };
    let in_force = InForce::new(Generation {
        number: 1,
        loaded_at: clock.wall(),
        document: config.document.clone(),
        issuers: sources.verifier.issuers().iter().cloned().collect(),
        feeds: sources.feeds.clone(),
        writable_feeds: sources.writable_feeds(&config, &clock)?,
        explainer: explainer.clone(),
    });
    let admin = match &config.admin {
        Some(settings) => {
            let told = admin::Told {
                in_force,
                readiness: readiness.clone(),
                metrics: Arc::clone(&metrics),
                clock: clock.clone(),
            };
            Some(admin::start(settings, admin::endpoints(told), &mut tasks).await?)
        }
        None => None,
    };
    let shared = Arc::new(Shared {
        routes,
        reserved: Arc::new(routes::reserved_names(&config)),
        upstreams: upstreams::build(&config)?,
        verifier: Arc::clone(&sources.verifier),
        revocation: Arc::clone(&sources.revocation),
        verdicts: SharedVerdicts::new(MAX_VERDICTS, clock.clone()).context("no randomness to be had")?,
        metric_ids: routes::metric_ids(&config, &metrics),
        limits: request_limits(&config),
        max_connections: config.limits.connections.div_ceil(cores),
        error_detail: config.error_detail,
        clock: clock.clone(),
    });

    let (drain, signal) = Drain::new();
    let addresses = bound.iter().map(|bound| bound.address).collect();
    let mut per_core: Vec<Vec<_>> = (0..cores).map(|_| Vec::new()).collect();
    for (bound, settings) in bound.into_iter().zip(&listeners) {
        for (sockets, socket) in per_core.iter_mut().zip(bound.sockets) {
            sockets.push((socket, settings.clone()));
        }
    }
    let workers = per_core
        .into_iter()
        .enumerate()
        .map(|(core, sockets)| {
            let telemetry = (metrics.core(), access_log.per_core());
            Worker::start(core, sockets, Arc::clone(&shared), telemetry, signal.clone())
        })
        .collect::<std::io::Result<_>>()
        .context("cannot start a worker thread")?;

    readiness.listening();
    let waiting = readiness.clone();
    tasks.spawn(async move {
        tokio::time::sleep(STARTUP_WAIT).await;
        waiting.startup_wait_elapsed();
    });
    let dropped = access_log.dropped_lines();
    let mut registrations = sources.registrations;
    registrations.push(metrics.register_counter(
        "access_log_dropped_lines",
        "Lines of the access log that were dropped because the writer could not keep up.",
        &[],
        move || dropped.count(),
    ));
    Ok(Running {
        listeners: addresses,
        health,
        admin,
        readiness,
        metrics,
        drain,
        drain_timeout: config.timeouts.drain,
        workers,
        tasks,
        access_log,
        _registrations: registrations,
    })
}

impl Running {
    /// Where the listener at this place in the configuration listens.
    pub fn listener_address(&self, place: usize) -> Option<SocketAddr> {
        self.listeners.get(place).copied()
    }

    /// Where the probes are answered.
    pub fn health_address(&self) -> Option<SocketAddr> {
        self.health
    }

    /// Where the private door is.
    pub fn admin_address(&self) -> Option<&AdminAddress> {
        self.admin.as_ref()
    }

    /// Whether it should get traffic, and why not.
    pub fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    /// Its counters.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Begins a new file for the access log, after the old one was moved away.
    pub fn reopen_access_log(&self) {
        self.access_log.reopen();
    }

    /// Stops: not ready any more, no new connections, requests in flight served to their end or to the drain
    /// time-out, the log written out. Probes are answered throughout.
    pub async fn shutdown(mut self) {
        self.readiness.drain();
        self.drain.begin();
        for worker in self.workers {
            worker.finish(self.drain_timeout).await;
        }
        self.tasks.shutdown().await;
        let log = self.access_log;
        let written = tokio::task::spawn_blocking(move || log.shutdown(LOG_PATIENCE)).await;
        if !matches!(written, Ok(Ok(()))) {
            tracing::warn!("the access log could not be written to its end");
        }
    }
}

fn request_limits(config: &Config) -> RequestLimits {
    RequestLimits {
        uri: config.limits.uri,
        header_count: config.limits.header_count,
        token: config.limits.token,
        body_idle: config.timeouts.body_idle,
    }
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
        output: match &log.output {
            settings::LogOutput::Stdout => access_log::Output::Stdout,
            settings::LogOutput::Stderr => access_log::Output::Stderr,
            settings::LogOutput::File(path) => access_log::Output::File(path.clone()),
        },
        ..access_log::Settings::default()
    }
}

fn bind_all(config: &Config, cores: usize) -> Result<Vec<BoundListener>> {
    config.listeners.iter().map(|listener| Ok(listener::bind(listener.address, cores)?)).collect()
}

fn listener_settings(
    config: &Config,
    bound: &[BoundListener],
    metrics: &Metrics,
) -> Result<Vec<Arc<ListenerSettings>>> {
    let is_tls = |listener: &settings::Listener| matches!(listener.kind, ListenerKind::Tls(_));
    let https = config.listeners.iter().zip(bound).find(|(listener, _)| is_tls(listener));
    let https_port = https.map_or(443, |(_, bound)| bound.address.port());
    let settings = |(listener, bound): (&settings::Listener, &BoundListener)| {
        let name: Arc<str> = bound.address.to_string().into();
        let (role, hsts) = match &listener.kind {
            ListenerKind::Tls(tls) => {
                let hsts = tls.hsts.as_ref().map(routes::hsts_value).transpose()?;
                (Role::Tls(listener::server_config(tls)?), hsts)
            }
            ListenerKind::Plaintext => (Role::Plaintext, None),
            ListenerKind::RedirectToHttps => (Role::RedirectToHttps(https_port), None),
        };
        Ok(Arc::new(ListenerSettings {
            metric: metrics.listener(&name),
            name,
            role,
            hsts,
            guard: GuardLimits {
                uri: config.limits.uri,
                head: config.limits.headers,
                fields: config.limits.header_count,
                head_timeout: config.timeouts.header,
            },
            concurrent_streams: config.limits.concurrent_streams,
            idle: config.timeouts.idle,
            stall: config.timeouts.body_idle,
            handshake: config.timeouts.handshake,
        }))
    };
    config.listeners.iter().zip(bound).map(settings).collect()
}

async fn bind_probes(
    address: SocketAddr,
    shows_metrics: bool,
    readiness: &Readiness,
    metrics: &Arc<Metrics>,
    tasks: &mut JoinSet<()>,
) -> Result<SocketAddr> {
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    let address = listener.local_addr()?;
    let health = Health { readiness: readiness.clone(), metrics: shows_metrics.then(|| Arc::clone(metrics)) };
    tasks.spawn(async move {
        health::serve(listener, health).await;
    });
    Ok(address)
}
