//! What an `upstreams` entry says of its failing: balancing, health, ejection, retries, limits.

use http::StatusCode;
use http::uri::PathAndQuery;

use super::values::{DAY, HOUR, MILLISECOND};
use super::{Build, all, each};
use crate::config::place::Place;
use crate::config::raw;
use crate::config::settings::{Balancing, BalancingMethod, Ejection, HealthCheck, Retries, UpstreamLimits};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// In a row; beyond it, a threshold is a mistake for a switch.
const MAX_IN_A_ROW: u64 = 1_000;
/// More attempts make an outage worse.
const MAX_ATTEMPTS: u64 = 10;
/// What no process can hold open.
const MAX_IN_FLIGHT: u64 = 10_000_000;

impl Build<'_, '_> {
    pub(super) fn balancing(&mut self, raw: &raw::Balancing, place: &Place) -> Option<Balancing> {
        let method = match raw.method {
            raw::BalancingMethod::LeastRequest => BalancingMethod::LeastRequest,
            raw::BalancingMethod::RoundRobin => BalancingMethod::RoundRobin,
        };
        let panic_percent = self.small(raw.panic_percent, &place.field("panic_percent"), 0, 100);
        Some(Balancing { method, panic_percent: panic_percent? })
    }

    pub(super) fn health_check(&mut self, raw: &raw::HealthCheck, place: &Place) -> Option<HealthCheck> {
        let path = raw.path.parse::<PathAndQuery>().ok().filter(|_| raw.path.starts_with('/'));
        if path.is_none() {
            let remedy = "write the path that says whether the API is well, such as `/healthz`";
            self.mistakes.add(&place.field("path"), format!("`{}` is not a path", raw.path), remedy);
        }
        let host = self.optional(raw.host.as_deref(), |build, host| {
            let parsed = host.parse().ok();
            if parsed.is_none() {
                let remedy = "write a host name, with a port if it needs one";
                build.mistakes.add(&place.field("host"), format!("`{host}` is not a host"), remedy);
            }
            parsed
        });
        let interval = self.duration(&raw.interval, &place.field("interval"), MILLISECOND * 100, DAY);
        let timeout = self.duration(&raw.timeout, &place.field("timeout"), MILLISECOND, HOUR);
        if let (Some(interval), Some(timeout)) = (interval, timeout)
            && timeout > interval
        {
            let remedy = "lower it, or raise `interval` as well";
            self.mistakes.add(&place.field("timeout"), "longer than `interval`", remedy);
        }
        let healthy_after = self.small(raw.healthy_after, &place.field("healthy_after"), 1, MAX_IN_A_ROW);
        let unhealthy_after =
            self.small(raw.unhealthy_after, &place.field("unhealthy_after"), 1, MAX_IN_A_ROW);
        let statuses = self.statuses(&raw.statuses, &place.field("statuses"), 200);
        Some(HealthCheck {
            path: path?,
            host: host?,
            interval: interval?,
            timeout: timeout?,
            healthy_after: healthy_after?,
            unhealthy_after: unhealthy_after?,
            statuses: statuses?,
        })
    }

    pub(super) fn ejection(&mut self, raw: &raw::Ejection, place: &Place) -> Option<Ejection> {
        let failures = &place.field("consecutive_failures");
        let consecutive_failures = self.small(raw.consecutive_failures, failures, 0, MAX_IN_A_ROW);
        let time = self.duration(&raw.time, &place.field("time"), MILLISECOND, DAY);
        let max_time = self.duration(&raw.max_time, &place.field("max_time"), MILLISECOND, DAY);
        if let (Some(time), Some(max_time)) = (time, max_time)
            && time > max_time
        {
            let remedy = "lower it, or raise `max_time` as well";
            self.mistakes.add(&place.field("time"), "longer than `max_time`", remedy);
        }
        let max_percent = self.small(raw.max_percent, &place.field("max_percent"), 0, 100);
        Some(Ejection {
            consecutive_failures: consecutive_failures?,
            time: time?,
            max_time: max_time?,
            max_percent: max_percent?,
        })
    }

    pub(super) fn retries(&mut self, raw: &raw::Retries, place: &Place) -> Option<Retries> {
        let attempts = self.small(raw.attempts, &place.field("attempts"), 0, MAX_ATTEMPTS);
        let budget_percent = self.small(raw.budget_percent, &place.field("budget_percent"), 0, 100);
        let budget_min = self.small(raw.budget_min, &place.field("budget_min"), 0, 1_000);
        let buffer = self.size(&raw.buffer, &place.field("buffer"), 0, 16 * MIB);
        let statuses = self.statuses(&raw.statuses, &place.field("statuses"), 400);
        Some(Retries {
            attempts: attempts?,
            budget_percent: budget_percent?,
            budget_min: budget_min?,
            buffer: usize::try_from(buffer?).ok()?,
            statuses: statuses?,
            grpc_unavailable: raw.grpc_unavailable,
        })
    }

    pub(super) fn upstream_limits(
        &mut self,
        raw: &raw::UpstreamLimits,
        place: &Place,
    ) -> Option<UpstreamLimits> {
        let requests = self.optional(raw.requests.as_ref(), |build, requests| {
            build.small(*requests, &place.field("requests"), 1, MAX_IN_FLIGHT)
        });
        let connections = self.optional(raw.connections.as_ref(), |build, connections| {
            build.count(*connections, &place.field("connections"), 1, 64 * KIB)
        });
        let pending = self.count(raw.pending, &place.field("pending"), 0, MAX_IN_FLIGHT);
        let connections = connections?.map(usize::try_from).transpose().ok()?;
        Some(UpstreamLimits { requests: requests?, connections, pending: usize::try_from(pending?).ok()? })
    }

    fn statuses(&mut self, raw: &[u64], place: &Place, least: u64) -> Option<Vec<StatusCode>> {
        all(each(raw, place, |status, place| {
            let status = self.count(*status, place, least, 599)?;
            StatusCode::from_u16(u16::try_from(status).ok()?).ok()
        }))
    }

    fn small(&mut self, count: u64, place: &Place, least: u64, most: u64) -> Option<u32> {
        self.count(count, place, least, most).and_then(|count| u32::try_from(count).ok())
    }
}
