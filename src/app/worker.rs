//! One core: a thread with a runtime of its own, its listeners, its gateway.

use std::cell::RefCell;
use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::runtime::{self, LocalOptions};
use tokio::sync::{mpsc, oneshot};

use super::generation::Generation;
use super::sockets::ListenerKey;
use crate::clock::Clock;
use crate::gateway::{
    Authenticator, Core, CoreRefusals, FailedAttempts, Gateway, LongLived, Overload, SWEEP, SharedVerdicts,
};
use crate::listener::{Crowd, Drain, ListenerSettings, Manner, serve};
use crate::telemetry::access_log::CoreLog;
use crate::telemetry::audit_log::CoreAudit;
use crate::telemetry::metrics::CoreMetrics;
use crate::telemetry::patterns::{CorePatterns, Patterns};
use crate::telemetry::spans::Tracer;
use crate::telemetry::trace::IdGenerator;
use crate::upstream::{Client, Upstream};

/// How often a core hands its log lines to the writer, and how often it looks for idle connections to close.
const LOG_FLUSH: Duration = Duration::from_millis(100);
const PRUNE: Duration = Duration::from_secs(5);

/// A running core.
#[derive(Debug)]
pub struct Worker {
    orders: mpsc::UnboundedSender<Order>,
    stop: oneshot::Sender<()>,
    done: oneshot::Receiver<()>,
}

/// What a core brings along for its life; configurations come and go.
pub struct Equipment {
    pub clock: Clock,
    pub verdicts: SharedVerdicts,
    pub failed_attempts: FailedAttempts,
    pub metrics: CoreMetrics,
    pub log: CoreLog,
    pub audit: Option<CoreAudit>,
    pub refusals: Option<CoreRefusals>,
    pub patterns: Patterns,
}

/// A generation, and this core's sockets of the listeners that are new in it.
pub struct Adoption {
    pub generation: Arc<Generation>,
    pub sockets: Vec<(ListenerKey, Vec<TcpListener>)>,
}

enum Order {
    Adopt(Adoption, oneshot::Sender<()>),
    Drain(Duration),
}

impl Worker {
    /// Starts a core on its first generation.
    pub fn start(core: usize, equipment: Equipment, first: Adoption) -> io::Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let (finished, done) = oneshot::channel();
        let (orders, pending) = mpsc::unbounded_channel();
        let (is_built, built) = std::sync::mpsc::sync_channel(1);
        thread::Builder::new().name(format!("core-{core}")).spawn(move || {
            // Not a `LocalSet`, which is a scheduler on top of the runtime's, and polls what it is run for at each turn.
            let runtime = runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
            let runtime = match runtime {
                Ok(runtime) => runtime,
                Err(error) => return drop(is_built.send(Err(error))),
            };
            let _ = is_built.send(Ok(()));
            runtime.block_on(async move {
                let mut desk = Desk::open(equipment, first);
                let gateway = desk.gateway.clone();
                tokio::select! {
                    () = desk.follow(pending) => {}
                    _ = stopped => tracing::warn!(core, "requests were cut off at the end of the drain time-out"),
                    () = measure_load(&gateway) => {}
                    () = keep_house(&gateway) => {}
                    () = end_streams(&gateway) => {}
                }
                let core = gateway.core();
                if let Some(tracer) = &core.tracer {
                    tracer.flush();
                }
                core.access_log.borrow_mut().flush();
                if let Some(audit) = &core.audit_log {
                    audit.borrow_mut().finish(&core.clock);
                }
            });
            // Dropped here, on its own thread, with every task that is left.
            drop(runtime);
            let _ = finished.send(());
        })?;
        built.recv().unwrap_or_else(|_| Err(io::Error::other("the core ended before it began")))?;
        Ok(Self { orders, stop, done })
    }

    /// Puts a generation in force on this core; what is returned resolves when it is.
    pub fn adopt(&self, adoption: Adoption) -> oneshot::Receiver<()> {
        let (adopted, receiver) = oneshot::channel();
        // A core that is gone drops the order, and with it the sender.
        let _ = self.orders.send(Order::Adopt(adoption, adopted));
        receiver
    }

    /// Has the core accept nothing any more and finish what it has. Connections without a request are kept for this
    /// long.
    pub fn drain(&self, idle: Duration) {
        let _ = self.orders.send(Order::Drain(idle));
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

/// What a core works with.
struct Desk {
    gateway: Gateway,
    crowd: Rc<Crowd>,
    doors: Vec<Door>,
    /// Of listeners that are closed, while anything goes on that they let in by its certificate.
    closed: Vec<Manner>,
}

/// A listener as this core serves it.
struct Door {
    key: ListenerKey,
    manner: Manner,
    drain: Drain,
}

impl Desk {
    fn open(equipment: Equipment, first: Adoption) -> Self {
        let Adoption { generation, sockets } = first;
        let crowd = Crowd::new(generation.max_connections, equipment.clock.clone());
        tokio::task::spawn_local(Rc::clone(&crowd).watch());
        let gateway = Gateway::new(first_core(equipment, &generation));
        let mut desk = Self { gateway, crowd, doors: Vec::new(), closed: Vec::new() };
        desk.arrange_doors(&generation, sockets);
        desk
    }

    /// Carries orders out until told to drain, and then until nobody is left.
    async fn follow(&mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        while let Some(order) = orders.recv().await {
            match order {
                Order::Adopt(adoption, adopted) => {
                    self.adopt(adoption);
                    // Whoever ordered it may have stopped waiting.
                    let _ = adopted.send(());
                }
                Order::Drain(idle) => {
                    self.doors.drain(..).for_each(|door| door.drain.begin(idle));
                    break;
                }
            }
        }
        self.crowd.empty().await;
    }

    fn adopt(&mut self, Adoption { generation, sockets }: Adoption) {
        self.crowd.resize(generation.max_connections);
        // Before the doors, so that whoever comes through a new one is served by what it was opened for.
        self.gateway.publish(next_core(&self.gateway.core(), &generation));
        self.arrange_doors(&generation, sockets);
    }

    fn arrange_doors(&mut self, generation: &Generation, mut sockets: Vec<(ListenerKey, Vec<TcpListener>)>) {
        let mut is_other_voucher = false;
        self.doors.retain(|door| {
            let settings = generation.listeners.iter().find(|(key, _)| *key == door.key);
            if let Some((_, settings)) = settings {
                is_other_voucher |= door.manner.replace(settings);
            } else {
                door.drain.begin(generation.drain_idle);
                self.closed.push(door.manner.clone());
            }
            settings.is_some()
        });
        self.closed.retain(|manner| !manner.is_forgotten());
        for manner in &self.closed {
            is_other_voucher |=
                manner.is_succeeded_by(generation.listeners.iter().map(|(_, listener)| &**listener));
        }
        if is_other_voucher {
            tokio::task::spawn_local(Rc::clone(&self.crowd).look_at_certificates());
        }
        for (key, settings) in &generation.listeners {
            if let Some(place) = sockets.iter().position(|(new, _)| new == key) {
                let (key, sockets) = sockets.swap_remove(place);
                self.doors.push(self.open_door(key, sockets, settings));
            }
        }
    }

    fn open_door(&self, key: ListenerKey, sockets: Vec<TcpListener>, settings: &ListenerSettings) -> Door {
        let manner = Manner::new(settings);
        let (drain, signal) = Drain::new();
        for socket in sockets {
            match tokio::net::TcpListener::from_std(socket) {
                Ok(socket) => {
                    let (gateway, crowd) = (self.gateway.clone(), Rc::clone(&self.crowd));
                    let serving = serve(socket, manner.clone(), gateway, crowd, signal.clone());
                    tokio::task::spawn_local(serving);
                }
                Err(error) => {
                    tracing::error!(listener = %settings.name, %error, "cannot serve on this core");
                }
            }
        }
        Door { key, manner, drain }
    }
}

fn first_core(equipment: Equipment, generation: &Generation) -> Core {
    let Equipment { clock, verdicts, failed_attempts, metrics, log, audit, refusals, patterns } = equipment;
    let authenticator = Authenticator::new(
        Arc::clone(&generation.verifier),
        Arc::clone(&generation.revocation),
        verdicts,
        clock.clone(),
    );
    let client =
        |upstream: &Arc<Upstream>| Rc::new(Client::new(Arc::clone(upstream), &clock, generation.cores));
    Core {
        routes: Arc::clone(&generation.routes),
        authenticator,
        upstreams: generation.upstreams.iter().map(client).collect(),
        inboxes: Arc::clone(&generation.inboxes),
        reserved: Arc::clone(&generation.reserved),
        trusted_proxies: Arc::clone(&generation.trusted_proxies),
        limits: generation.limits,
        overload: Overload::new(generation.overload),
        failed_attempts,
        failed_attempts_limits: generation.failed_attempts,
        error_detail: generation.error_detail,
        error_documents: generation.error_documents.clone(),
        metrics: Rc::new(metrics),
        metric_ids: generation.metric_ids.clone(),
        access_log: Rc::new(RefCell::new(log)),
        audit_log: audit.map(|audit| Rc::new(RefCell::new(audit))),
        long_lived: Rc::new(LongLived::default()),
        explainer: generation.explainer(&clock),
        refusals: refusals.map(Rc::new),
        tracer: tracer(generation, None),
        patterns: generation.patterns.map(|limits| Rc::new(patterns.per_core(limits))),
        all_patterns: patterns,
        ids: Rc::new(RefCell::new(IdGenerator::new())),
        clock,
    }
}

/// The core's state under the next generation: what is counted, logged and watched goes on, connections to upstreams
/// that stay the same are kept, and so are verdicts on tokens of issuers that do.
fn next_core(before: &Core, generation: &Generation) -> Core {
    let client = |upstream: &Arc<Upstream>| {
        let same = before.upstreams.iter().find(|client| Arc::ptr_eq(client.upstream(), upstream));
        same.map_or_else(
            || Rc::new(Client::new(Arc::clone(upstream), &before.clock, generation.cores)),
            Rc::clone,
        )
    };
    before.overload.limit(generation.overload);
    Core {
        clock: before.clock.clone(),
        routes: Arc::clone(&generation.routes),
        authenticator: before
            .authenticator
            .succeeded_by(Arc::clone(&generation.verifier), Arc::clone(&generation.revocation)),
        upstreams: generation.upstreams.iter().map(client).collect(),
        inboxes: Arc::clone(&generation.inboxes),
        reserved: Arc::clone(&generation.reserved),
        trusted_proxies: Arc::clone(&generation.trusted_proxies),
        limits: generation.limits,
        overload: Rc::clone(&before.overload),
        failed_attempts: before.failed_attempts.clone(),
        failed_attempts_limits: generation.failed_attempts,
        error_detail: generation.error_detail,
        error_documents: generation.error_documents.clone(),
        metrics: Rc::clone(&before.metrics),
        metric_ids: generation.metric_ids.clone(),
        access_log: Rc::clone(&before.access_log),
        audit_log: before.audit_log.clone(),
        long_lived: Rc::clone(&before.long_lived),
        explainer: generation.explainer(&before.clock),
        refusals: before.refusals.clone(),
        tracer: tracer(generation, before.tracer.as_ref()),
        patterns: watch(generation, before),
        all_patterns: before.all_patterns.clone(),
        ids: Rc::clone(&before.ids),
    }
}

/// The one before, where spans are recorded and delivered as before.
fn tracer(generation: &Generation, before: Option<&Rc<Tracer>>) -> Option<Rc<Tracer>> {
    let recorded = generation.recorded.as_ref()?;
    let same = before.filter(|before| recorded.made(before));
    Some(same.map_or_else(|| Rc::new(recorded.tracer()), Rc::clone))
}

/// The one before, where the limits are as before.
fn watch(generation: &Generation, before: &Core) -> Option<Rc<CorePatterns>> {
    let limits = generation.patterns?;
    let same = before.patterns.as_ref().filter(|before| before.limits() == limits);
    Some(same.map_or_else(|| Rc::new(before.all_patterns.per_core(limits)), Rc::clone))
}

/// Ends long-lived responses with their tokens. Never ends.
async fn end_streams(gateway: &Gateway) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let core = gateway.core();
        let verifier = core.authenticator.verifier();
        let revocation = core.authenticator.revocation();
        for stream in core.long_lived.sweep(revocation, verifier.issuers(), &core.clock) {
            let (verifier, clock) = (Arc::clone(&verifier), core.clock.clone());
            tokio::task::spawn_local(async move { stream.confirm(verifier.issuers(), &clock).await });
        }
    }
}

/// Never ends: requests in line would be forgotten, so that it is begun anew whatever happens to it.
async fn measure_load(gateway: &Gateway) {
    loop {
        let (overload, clock, metrics) = {
            let core = gateway.core();
            // All of them outlast the core's state, which the next generation replaces.
            (Rc::clone(&core.overload), core.clock.clone(), Rc::clone(&core.metrics))
        };
        // A task of its own, so that it waits for its turn behind all others, which is what it measures.
        let watching = async move { overload.watch(&clock, &metrics).await };
        if let Err(error) = tokio::task::spawn_local(watching).await {
            tracing::error!(%error, "the load of a core was no longer measured; it is measured anew");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

/// Never ends.
async fn keep_house(gateway: &Gateway) {
    let mut pruned = gateway.core().clock.monotonic();
    loop {
        tokio::time::sleep(LOG_FLUSH).await;
        let core = gateway.core();
        let now = core.clock.monotonic();
        core.access_log.borrow_mut().flush_if_due(now);
        if let Some(audit) = &core.audit_log {
            audit.borrow_mut().keep_house(&core.clock);
        }
        if let Some(tracer) = &core.tracer {
            tracer.flush();
        }
        if let Some(patterns) = &core.patterns {
            patterns.keep_house(now);
        }
        if pruned.until(now) >= PRUNE {
            pruned = now;
            core.upstreams.iter().for_each(|client| client.prune());
            core.metrics.verdict_cache_entries(core.authenticator.verdicts() as u64);
        }
    }
}
