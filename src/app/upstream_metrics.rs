//! What is counted of upstreams and their endpoints, as metrics. Labels are the endpoints as they are configured: the
//! addresses of a name come and go, and are counted together.

use std::sync::Arc;

use crate::clock::Clock;
use crate::telemetry::metrics::{Metrics, Registration};
use crate::upstream::{Endpoint, EndpointStats, Failure, State, Upstream};

/// Registers the counts of an upstream for as long as what is returned is held.
pub fn register(upstream: &Arc<Upstream>, metrics: &Metrics, clock: &Clock) -> Vec<Registration> {
    let mut registrations = of_upstream(upstream, metrics);
    for (endpoint, stats) in upstream.endpoints() {
        let name = endpoint.authority.to_str().unwrap_or_default();
        let labels = [("upstream", &*upstream.settings.name), ("endpoint", name)];
        registrations.extend(of_endpoint(stats, &labels, metrics));
        registrations.extend(addresses(upstream, endpoint, &labels, metrics, clock));
    }
    registrations
}

type Read = fn(&Upstream) -> u64;

fn of_upstream(upstream: &Arc<Upstream>, metrics: &Metrics) -> Vec<Registration> {
    let name = &*upstream.settings.name;
    let retries = "Requests that were sent again, and those that were not for want of budget.";
    let turned_away = "Requests turned away because the upstream had as much as it may be given.";
    let resolutions = "Failed resolutions of endpoints' names.";
    let rows: [(_, _, Option<(_, _)>, Read); 5] = [
        ("upstream_retries", retries, Some(("result", "sent")), |upstream| upstream.stats.retries.get()),
        ("upstream_retries", retries, Some(("result", "over_budget")), |upstream| {
            upstream.stats.retries_over_budget.get()
        }),
        ("upstream_turned_away", turned_away, Some(("limit", "requests")), |upstream| {
            upstream.stats.over_requests.get()
        }),
        ("upstream_turned_away", turned_away, Some(("limit", "pending")), |upstream| {
            upstream.stats.over_pending.get()
        }),
        ("upstream_failed_resolutions", resolutions, None, |upstream| {
            upstream.stats.failed_resolutions.get()
        }),
    ];
    let register = |(metric, help, label, read): (_, _, Option<_>, Read)| {
        let labels: Vec<_> = [("upstream", name)].into_iter().chain(label).collect();
        let upstream = Arc::clone(upstream);
        metrics.register_counter(metric, help, &labels, move || read(&upstream))
    };
    rows.into_iter().map(register).collect()
}

fn of_endpoint(
    stats: &Arc<EndpointStats>,
    labels: &[(&'static str, &str)],
    metrics: &Metrics,
) -> Vec<Registration> {
    let counter = |name, help, more: Option<_>, read: Box<dyn Fn(&EndpointStats) -> u64 + Send + Sync>| {
        let labels: Vec<_> = labels.iter().copied().chain(more).collect();
        let stats = Arc::clone(stats);
        metrics.register_counter(name, help, &labels, move || read(&stats))
    };
    let help = "Requests sent to the endpoint, retries included.";
    let mut registrations = vec![counter("endpoint_requests", help, None, Box::new(EndpointStats::sent))];
    for failure in Failure::ALL {
        let help = "Requests that failed at the endpoint.";
        let label = Some(("kind", failure.name()));
        registrations.push(counter(
            "endpoint_failures",
            help,
            label,
            Box::new(|stats| stats.failures(*failure)),
        ));
    }
    let help = "How often an address of the endpoint was ejected.";
    registrations.push(counter("endpoint_ejections", help, None, Box::new(|stats| stats.ejections.get())));
    let help = "Health checks of the endpoint that failed.";
    let failed_checks = Box::new(|stats: &EndpointStats| stats.failed_checks.get());
    registrations.push(counter("endpoint_failed_checks", help, None, failed_checks));
    let in_flight = Arc::clone(stats);
    let help = "Requests in flight at the endpoint.";
    #[allow(clippy::cast_precision_loss, reason = "exact up to 2^53")]
    let read = move || in_flight.in_flight() as f64;
    registrations.push(metrics.register_gauge("endpoint_requests_in_flight", help, labels, read));
    registrations
}

fn addresses(
    upstream: &Arc<Upstream>,
    endpoint: &Arc<Endpoint>,
    labels: &[(&'static str, &str)],
    metrics: &Metrics,
    clock: &Clock,
) -> Vec<Registration> {
    let states = [("healthy", State::Healthy), ("unhealthy", State::Unhealthy), ("ejected", State::Ejected)];
    let register = |(name, state)| {
        let labels: Vec<_> = labels.iter().copied().chain([("state", name)]).collect();
        let (upstream, endpoint, clock) = (Arc::clone(upstream), Arc::clone(endpoint), clock.clone());
        let help = "Addresses of the endpoint by how they are.";
        #[allow(clippy::cast_precision_loss, reason = "exact up to 2^53")]
        let read = move || upstream.addresses_in(&endpoint, state, &clock) as f64;
        metrics.register_gauge("endpoint_addresses", help, &labels, read)
    };
    states.into_iter().map(register).collect()
}
