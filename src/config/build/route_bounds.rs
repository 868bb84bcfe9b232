//! `routes[].body_rate` and `routes[].timeouts`: what one route has otherwise than the rest.

use std::time::Duration;

use super::Build;
use super::limits::MIB;
use super::values::{DAY, MILLISECOND};
use crate::config::place::Place;
use crate::config::raw;
use crate::config::settings::RouteTimeouts;

impl Build<'_, '_> {
    pub(super) fn body_rate(&mut self, raw: &raw::Route, place: &Place) -> Option<Option<u64>> {
        self.needs_an_upstream(raw, raw.body_rate.is_some(), place);
        self.optional(raw.body_rate.as_ref(), |build, rate| build.size(rate, place, 0, MIB))
    }

    pub(super) fn route_timeouts(&mut self, raw: &raw::Route, place: &Place) -> Option<RouteTimeouts> {
        let raw::RouteTimeouts { response, total } = &raw.timeouts;
        self.needs_an_upstream(raw, response.is_some() || total.is_some(), place);
        let response = self.optional(response.as_ref(), |build, limit| {
            build.duration(limit, &place.field("response"), MILLISECOND, DAY)
        });
        let total = self.optional(total.as_ref(), |build, limit| {
            build.duration(limit, &place.field("total"), Duration::ZERO, DAY)
        });
        Some(RouteTimeouts { response: response?, total: total? })
    }

    fn needs_an_upstream(&mut self, route: &raw::Route, is_given: bool, place: &Place) {
        if is_given && route.upstream.is_none() {
            let remedy = "remove it: it is about what is sent to an API and what is waited for from one";
            self.mistakes.add_at_key(place, "without an `upstream` it has no meaning", remedy);
        }
    }
}
