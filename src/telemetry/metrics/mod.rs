//! Metrics: what the gateway counts, in the Prometheus text format (`OpenMetrics` 1.0).
//!
//! The data plane counts in cells that one core alone writes, so that counting costs a load and a store and
//! never a cache line that cores fight over; a scrape sums the cores. Labels come from configuration and
//! closed sets only, so that no client can make a series. Other parts of the process register readings
//! of their own. Names of families and labels are public contract: `docs/observability.md` lists them.

mod cells;
mod core;
mod exposition;
mod labels;
mod readings;

use std::fmt;
use std::sync::Arc;

use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;

use self::cells::{CoreCells, IssuerCells, ListenerCells, Published, RouteCells, UpstreamCells};
pub use self::core::{CoreMetrics, OpenConnection};
use self::exposition::Exposition;
pub use self::exposition::ShadowCounts;
use self::labels::Names;
pub use self::labels::{
    Closed, ConnectionState, IssuerId, ListenerId, Protocol, ProtocolError, RouteId, Shed, TlsResult,
    UpstreamId,
};
pub use self::readings::{Distribution, Registration};
use self::readings::{Reading, Readings};

/// The `Content-Type` of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    shared: Arc<Shared>,
    readings: Arc<Readings>,
    registry: Registry,
}

/// What cores and scrapes share. Its locks are taken at load time, on a core's first use of a label, and by
/// scrapes; never while a request is counted.
#[derive(Debug)]
struct Shared {
    route_names: Names,
    upstream_names: Names,
    issuer_names: Names,
    listener_names: Names,
    routes: Published<RouteCells>,
    upstreams: Published<UpstreamCells>,
    issuers: Published<IssuerCells>,
    listeners: Published<ListenerCells>,
    cores: Published<CoreCells>,
}

impl Metrics {
    /// No cores, no labels, nothing counted yet.
    pub fn new() -> Self {
        let shared = Arc::new(Shared {
            route_names: Names::new(),
            upstream_names: Names::new(),
            issuer_names: Names::new(),
            listener_names: Names::new(),
            routes: Published::default(),
            upstreams: Published::default(),
            issuers: Published::default(),
            listeners: Published::default(),
            cores: Published::default(),
        });
        let readings = Arc::new(Readings::default());
        let mut registry = Registry::with_prefix("valgate");
        let exposition = Exposition { shared: Arc::clone(&shared), readings: Arc::clone(&readings) };
        registry.register_collector(Box::new(exposition));
        Self { shared, readings, registry }
    }

    /// The counters of one more core.
    pub fn core(&self) -> CoreMetrics {
        CoreMetrics::new(Arc::clone(&self.shared))
    }

    /// The id of the route with this name. Ids last as long as the process: after a reload a route of the
    /// same name goes on counting where it was, and a request that began before it still counts right. Past
    /// 4096 names, further ones share the name `other`; so it is for the other kinds of ids.
    pub fn route(&self, name: &str) -> RouteId {
        RouteId(self.shared.route_names.id(name))
    }

    /// The id of the upstream with this name.
    pub fn upstream(&self, name: &str) -> UpstreamId {
        UpstreamId(self.shared.upstream_names.id(name))
    }

    /// The id of the issuer with this name.
    pub fn issuer(&self, name: &str) -> IssuerId {
        IssuerId(self.shared.issuer_names.id(name))
    }

    /// The id of the listener with this address.
    pub fn listener(&self, address: &str) -> ListenerId {
        ListenerId(self.shared.listener_names.id(address))
    }

    /// Adds a gauge that is read at each scrape; a reading that is not finite means 'unknown' and gives no
    /// sample. The name stands without `valgate_`, with its unit. The gauge lasts as long as what is
    /// returned; one of the same name and labels takes its place.
    pub fn register_gauge(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &str)],
        read: impl Fn() -> f64 + Send + Sync + 'static,
    ) -> Registration {
        self.readings.register(name, help, labels, Reading::Gauge(Arc::new(read)))
    }

    /// Adds a counter that is read at each scrape and must never go down. The name stands without `valgate_`
    /// and without `_total`; for the rest see [`Self::register_gauge`].
    pub fn register_counter(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &str)],
        read: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Registration {
        self.readings.register(name, help, labels, Reading::Counter(Arc::new(read)))
    }

    /// Adds a histogram that is read at each scrape and must never go down; for the rest see
    /// [`Self::register_gauge`].
    pub fn register_histogram(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &str)],
        read: impl Fn() -> Distribution + Send + Sync + 'static,
    ) -> Registration {
        self.readings.register(name, help, labels, Reading::Histogram(Arc::new(read)))
    }

    /// What was counted of requests on routes that are not enforced, since the process began.
    pub fn shadow(&self) -> Vec<ShadowCounts> {
        exposition::shadow(&self.shared)
    }

    /// The page for a scrape, of type [`CONTENT_TYPE`]. Fails only if a registered name or reading cannot be
    /// written.
    pub fn render(&self) -> Result<String, fmt::Error> {
        let mut page = String::new();
        text::encode(&mut page, &self.registry)?;
        Ok(page)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
