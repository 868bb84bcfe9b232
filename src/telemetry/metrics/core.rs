//! The counters of one core: what the request path calls.

use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use super::Shared;
use super::cells::{CoreCells, IssuerCells, ListenerCells, Local, RouteCells, UpstreamCells};
use super::labels::{
    Closed, ConnectionState, IssuerId, Label, ListenerId, Names, Protocol, ProtocolError, RouteId, Shed,
    TlsResult, UpstreamId,
};
use crate::catalogue::Reason;
use crate::telemetry::access_log::Auth;

/// One core's counters. Can move to its core's thread, but not be shared between threads: each of its cells
/// has one writer.
#[derive(Debug)]
pub struct CoreMetrics {
    shared: Arc<Shared>,
    core: Arc<CoreCells>,
    routes: Local<RouteCells>,
    upstreams: Local<UpstreamCells>,
    issuers: Local<IssuerCells>,
    listeners: Local<ListenerCells>,
}

impl CoreMetrics {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let core = shared.cores.add(Names::NONE);
        Self {
            shared,
            core,
            routes: Local::default(),
            upstreams: Local::default(),
            issuers: Local::default(),
            listeners: Local::default(),
        }
    }

    /// Counts a finished request. A `reason` decides code and status class, even where the failure came after
    /// a response had begun.
    pub fn request(
        &self,
        route: Option<RouteId>,
        reason: Option<Reason>,
        status: Option<StatusCode>,
        duration: Duration,
    ) {
        let id = route.map_or(Names::NONE, |route| route.0);
        self.routes.with(id, &self.shared.routes, |cells| {
            match reason {
                Some(reason) => cells.failed.add(reason as usize, 1),
                None => cells.answered.add(RouteCells::class(status), 1),
            }
            cells.duration.record(duration);
        });
    }

    /// Counts a request on a route that is not enforced; the reason is that of the refusal that was not carried out.
    pub fn shadow(&self, route: RouteId, reason: Option<Reason>) {
        self.routes.with(route.0, &self.shared.routes, |cells| match reason {
            Some(reason) => cells.overlooked.add(reason as usize, 1),
            None => cells.admitted.add(1),
        });
    }

    /// Counts how a request's token was judged, and how long that took; no issuer if none was involved.
    pub fn authenticated(&self, issuer: Option<IssuerId>, auth: Auth, duration: Duration) {
        if let Some(durations) = self.core.auth_duration.get(auth.index()) {
            durations.record(duration);
        }
        let id = issuer.map_or(Names::NONE, |issuer| issuer.0);
        self.issuers.with(id, &self.shared.issuers, |cells| cells.judged.add(auth.index(), 1));
    }

    /// Counts an upstream's answer, by the time from the request to the answer's first byte.
    pub fn upstream_answered(&self, upstream: UpstreamId, first_byte: Duration) {
        self.upstreams.with(upstream.0, &self.shared.upstreams, |cells| cells.first_byte.record(first_byte));
    }

    /// Counts bytes of bodies, from and to clients.
    pub fn bytes(&self, received: u64, sent: u64) {
        self.core.bytes_in.add(received);
        self.core.bytes_out.add(sent);
    }

    /// Tells how many verdicts this core's cache holds.
    pub fn verdict_cache_entries(&self, entries: u64) {
        self.core.verdicts.set(entries);
    }

    /// Counts a TLS handshake, and how long it took if it succeeded.
    pub fn tls_handshake(&self, result: TlsResult, duration: Duration) {
        if result == TlsResult::Ok {
            self.core.tls_duration.record(duration);
        }
        self.core.tls.add(result.index(), 1);
    }

    /// Counts a failure below HTTP.
    pub fn protocol_error(&self, error: ProtocolError) {
        self.core.protocol_errors.add(error.index(), 1);
    }

    /// Counts a connection that the gateway closed.
    pub fn connection_closed(&self, why: Closed) {
        self.core.closed.add(why.index(), 1);
    }

    /// Counts a request that was shed.
    pub fn shed(&self, why: Shed) {
        self.core.shed.add(why.index(), 1);
    }

    /// Tells how many requests stand in line for a place on this core.
    pub fn requests_in_line(&self, requests: u64) {
        self.core.in_line.set(requests);
    }

    /// Counts a token that was forged, malformed or unknown.
    pub fn failed_attempt(&self) {
        self.core.failed_attempts.add(1);
    }

    /// Notes for how long ready work had to wait for this core.
    pub fn worker_delay(&self, delay: Duration) {
        self.core.delay.record(delay);
    }

    /// Counts an accepted connection, and it as open until what is returned is dropped, on this thread.
    pub fn connection(&self, listener: ListenerId) -> OpenConnection {
        let cells = self.listeners.make(listener.0, &self.shared.listeners);
        cells.accepted.add(1);
        let index = ListenerCells::open_index(Protocol::Unknown, ConnectionState::Handshake);
        cells.open.add(index, 1);
        OpenConnection { cells, index, one_thread: PhantomData }
    }
}

/// An open connection, counted as such.
#[derive(Debug)]
pub struct OpenConnection {
    cells: Arc<ListenerCells>,
    index: usize,
    one_thread: PhantomData<Rc<()>>,
}

impl OpenConnection {
    /// From now on it is counted as this.
    pub fn becomes(&mut self, protocol: Protocol, state: ConnectionState) {
        self.cells.open.subtract(self.index, 1);
        self.index = ListenerCells::open_index(protocol, state);
        self.cells.open.add(self.index, 1);
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.cells.open.subtract(self.index, 1);
    }
}
