//! One core: a thread with a runtime of its own, its listeners, its gateway.

use std::cell::RefCell;
use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::runtime;
use tokio::sync::oneshot;
use tokio::task::LocalSet;

use crate::clock::Clock;
use crate::config::settings::ErrorDetail;
use crate::gateway::{
    Authenticator, Core, Gateway, LongLived, MetricIds, RequestLimits, ReservedNames, Routes, SWEEP,
    SharedVerdicts,
};
use crate::listener::{Crowd, DrainSignal, ListenerSettings, serve};
use crate::revocation::RevocationPolicies;
use crate::telemetry::access_log::CoreLog;
use crate::telemetry::metrics::CoreMetrics;
use crate::telemetry::trace::IdGenerator;
use crate::token::Verifier;
use crate::upstream::{Client, Upstream};

/// How often a core hands its log lines to the writer, and how often it looks for idle connections to close.
const LOG_FLUSH: Duration = Duration::from_millis(100);
const PRUNE: Duration = Duration::from_secs(5);

/// What all cores read and none writes.
#[derive(Debug)]
pub struct Shared {
    pub routes: Arc<Routes>,
    pub reserved: Arc<ReservedNames>,
    pub upstreams: Vec<Arc<Upstream>>,
    pub verifier: Arc<Verifier>,
    pub revocation: Arc<RevocationPolicies>,
    pub verdicts: SharedVerdicts,
    pub metric_ids: MetricIds,
    pub limits: RequestLimits,
    pub max_connections: usize,
    pub error_detail: ErrorDetail,
    pub clock: Clock,
}

/// A running core.
#[derive(Debug)]
pub struct Worker {
    stop: oneshot::Sender<()>,
    done: oneshot::Receiver<()>,
}

type Socket = (TcpListener, Arc<ListenerSettings>);

impl Worker {
    /// Starts a core on these sockets.
    pub fn start(
        core: usize,
        sockets: Vec<Socket>,
        shared: Arc<Shared>,
        (metrics, log): (CoreMetrics, CoreLog),
        drain: DrainSignal,
    ) -> io::Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let (finished, done) = oneshot::channel();
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name(format!("core-{core}")).spawn(move || {
            let local = LocalSet::new();
            local.block_on(&runtime, async move {
                let gateway = Gateway::new(build_core(&shared, metrics, log));
                tokio::select! {
                    () = serve_all(sockets, &gateway, shared.max_connections, drain) => {}
                    _ = stopped => tracing::warn!(core, "requests were cut off at the end of the drain time-out"),
                    () = keep_house(&gateway) => {}
                    () = end_streams(&gateway, &shared) => {}
                }
                gateway.core().access_log.borrow_mut().flush();
            });
            // Dropped here, on its own thread, with every task that is left.
            drop(local);
            let _ = finished.send(());
        })?;
        Ok(Self { stop, done })
    }

    /// Waits until the core has served its last request, or for as long as given; then cuts off what is left.
    pub async fn finish(self, patience: Duration) {
        let mut done = self.done;
        if tokio::time::timeout(patience, &mut done).await.is_err() {
            let _ = self.stop.send(());
            let _ = done.await;
        }
    }
}

fn build_core(shared: &Shared, metrics: CoreMetrics, log: CoreLog) -> Core {
    let clock = &shared.clock;
    Core {
        clock: clock.clone(),
        routes: Arc::clone(&shared.routes),
        authenticator: Authenticator::new(
            Arc::clone(&shared.verifier),
            Arc::clone(&shared.revocation),
            shared.verdicts.clone(),
            clock.clone(),
        ),
        upstreams: shared.upstreams.iter().map(|upstream| Client::new(Arc::clone(upstream), clock)).collect(),
        reserved: Arc::clone(&shared.reserved),
        limits: shared.limits,
        error_detail: shared.error_detail,
        metrics,
        metric_ids: shared.metric_ids.clone(),
        access_log: RefCell::new(log),
        long_lived: LongLived::default(),
        ids: RefCell::new(IdGenerator::new()),
    }
}

async fn serve_all(sockets: Vec<Socket>, gateway: &Gateway, most: usize, drain: DrainSignal) {
    let crowd = Crowd::new(most, gateway.core().clock.clone());
    let mut serving = Vec::new();
    for (socket, settings) in sockets {
        match tokio::net::TcpListener::from_std(socket) {
            Ok(socket) => {
                let settings = Rc::new(ListenerSettings::clone(&settings));
                serving.push(tokio::task::spawn_local(serve(
                    socket,
                    settings,
                    gateway.clone(),
                    Rc::clone(&crowd),
                    drain.clone(),
                )));
            }
            Err(error) => tracing::error!(listener = %settings.name, %error, "cannot serve on this core"),
        }
    }
    for listener in serving {
        let _ = listener.await;
    }
}

/// Ends long-lived responses with their tokens. Never ends.
async fn end_streams(gateway: &Gateway, shared: &Shared) {
    let core = gateway.core();
    loop {
        tokio::time::sleep(SWEEP).await;
        core.long_lived.sweep(&shared.revocation, &core.clock);
    }
}

/// Never ends.
async fn keep_house(gateway: &Gateway) {
    let core = gateway.core();
    let mut pruned = core.clock.monotonic();
    loop {
        tokio::time::sleep(LOG_FLUSH).await;
        let now = core.clock.monotonic();
        core.access_log.borrow_mut().flush_if_due(now);
        if pruned.until(now) >= PRUNE {
            pruned = now;
            core.upstreams.iter().for_each(Client::prune);
            core.metrics.verdict_cache_entries(core.authenticator.verdicts() as u64);
        }
    }
}
