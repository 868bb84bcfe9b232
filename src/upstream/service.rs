//! One upstream as all cores share it: its settings, its members, what was counted of it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::health::State;
use super::member::{Addresses, Member, Members};
use super::settings::{Endpoint, UpstreamSettings};
use super::stats::{EndpointStats, Failure, UpstreamStats};
use crate::clock::{Clock, Monotonic};

/// A named backend service.
#[derive(Debug)]
pub struct Upstream {
    /// What is configured of it.
    pub settings: UpstreamSettings,
    /// Its addresses at the moment, and how each is.
    pub members: Members,
    /// What was counted of it.
    pub stats: UpstreamStats,
    /// What was counted of each endpoint, at the endpoint's place in the settings.
    pub endpoint_stats: Vec<Arc<EndpointStats>>,
    in_flight: AtomicU32,
}

/// Leave to have one request in flight, given back when this is dropped.
#[derive(Debug)]
pub(super) struct Admission(Arc<Upstream>);

impl Upstream {
    /// An upstream of which nothing bad is known. Names are not resolved yet, see [`super::resolve_names`].
    pub fn new(settings: UpstreamSettings) -> Self {
        let endpoint_stats: Vec<_> = settings.endpoints.iter().map(|_| Arc::default()).collect();
        let members = settings.endpoints.iter().zip(&endpoint_stats).map(|(endpoint, stats)| {
            let addresses = literal(endpoint).map_or(Addresses::Unresolved, Addresses::One);
            Arc::new(Member::new(Arc::clone(endpoint), Arc::clone(stats), addresses))
        });
        let members = Members::new(members.collect());
        Self {
            settings,
            members,
            stats: UpstreamStats::default(),
            endpoint_stats,
            in_flight: AtomicU32::new(0),
        }
    }

    /// The endpoints' names for metrics, with what was counted of each.
    pub fn endpoints(&self) -> impl Iterator<Item = (&Arc<Endpoint>, &Arc<EndpointStats>)> {
        self.settings.endpoints.iter().zip(&self.endpoint_stats)
    }

    /// How many addresses of an endpoint are in this state.
    pub fn addresses_in(&self, endpoint: &Arc<Endpoint>, state: State, clock: &Clock) -> usize {
        let members = self.members.all();
        let of_endpoint = members.iter().filter(|member| Arc::ptr_eq(&member.endpoint, endpoint));
        of_endpoint.filter(|member| member.health.state(|| clock.monotonic()) == state).count()
    }

    /// Counts a request as in flight where the number is limited; `None` if there are too many.
    pub(super) fn admit(self: &Arc<Self>, most: u32) -> Option<Admission> {
        let one_more = |count: u32| (count < most).then_some(count + 1);
        self.in_flight.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(Admission(Arc::clone(self)))
    }

    /// Notes that a member has answered.
    pub(super) fn succeeded(&self, member: &Member) {
        if member.health.succeeded() {
            let (upstream, endpoint) = (&self.settings.name, member.label());
            tracing::info!(%upstream, %endpoint, "endpoint answers again and is no longer ejected");
        }
    }

    /// Notes that a request to a member has failed, and leaves the member alone for a while if that happens too often.
    pub(super) fn failed(&self, member: &Member, failure: Failure, now: Monotonic) {
        member.stats.failed(failure);
        let ejection = &self.settings.ejection;
        if !member.health.failed(ejection) || !self.may_eject_one_more(now) {
            return;
        }
        if let Some(time) = member.health.eject(ejection, now) {
            member.stats.ejections.count();
            let (upstream, endpoint) = (&self.settings.name, member.label());
            let last = failure.name();
            tracing::warn!(%upstream, %endpoint, last, ?time, "endpoint failed too often in a row: ejected");
        }
    }

    fn may_eject_one_more(&self, now: Monotonic) -> bool {
        let members = self.members.all();
        let ejected =
            members.iter().filter(|member| member.health.state(|| now) == State::Ejected).count() + 1;
        let percent = u64::from(self.settings.ejection.max_percent);
        (ejected as u64).saturating_mul(100) <= (members.len() as u64).saturating_mul(percent)
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The address of an endpoint that is written as one.
pub(super) fn literal(endpoint: &Endpoint) -> Option<SocketAddr> {
    let address: IpAddr = endpoint.host.parse().ok()?;
    Some(SocketAddr::new(address, endpoint.port))
}
