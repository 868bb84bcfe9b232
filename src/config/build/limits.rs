//! `limits`, `timeouts`, `overload` and `failed_attempts`.

use super::Build;
use super::values::{DAY, HOUR, MILLISECOND, SECOND};
use crate::config::place::Place;
use crate::config::raw;
use crate::config::settings::{FailedAttempts, Limits, Overload, Timeouts};

const KIB: u64 = 1 << 10;
pub(super) const MIB: u64 = 1 << 20;
const TIB: u64 = 1 << 40;

/// The largest URI that the HTTP library can hold.
const MAX_URI: u64 = u16::MAX as u64 - 1;
/// The most headers that the HTTP library can hold.
const MAX_HEADER_COUNT: u64 = 24_576;

impl Build<'_, '_> {
    pub(super) fn limits(&mut self, raw: &raw::Limits, place: &Place) -> Option<Limits> {
        let uri = self.size(&raw.uri, &place.field("uri"), 64, MAX_URI);
        let headers = self.size(&raw.headers, &place.field("headers"), KIB, 16 * MIB);
        let header_count = self.count(raw.header_count, &place.field("header_count"), 8, MAX_HEADER_COUNT);
        let token = self.size(&raw.token, &place.field("token"), 256, MIB);
        let body =
            self.optional(raw.body.as_ref(), |build, body| build.size(body, &place.field("body"), 0, TIB));
        let body_rate = self.size(&raw.body_rate, &place.field("body_rate"), 0, MIB);
        let connections = self.count(raw.connections, &place.field("connections"), 1, 10_000_000);
        let streams = self.count(raw.concurrent_streams, &place.field("concurrent_streams"), 1, 10_000);
        let control_frames = self.count(raw.control_frames, &place.field("control_frames"), 100, 1_000_000);
        if let (Some(token), Some(headers)) = (token, headers)
            && token > headers
        {
            let remedy = "raise `limits.headers` as well, or lower `limits.token`";
            self.mistakes.add(&place.field("token"), "more than `limits.headers` lets through", remedy);
        }
        Some(Limits {
            uri: usize::try_from(uri?).ok()?,
            headers: usize::try_from(headers?).ok()?,
            header_count: usize::try_from(header_count?).ok()?,
            token: usize::try_from(token?).ok()?,
            body: body?,
            body_rate: body_rate?,
            connections: usize::try_from(connections?).ok()?,
            concurrent_streams: u32::try_from(streams?).ok()?,
            control_frames: u32::try_from(control_frames?).ok()?,
        })
    }

    pub(super) fn overload(&mut self, raw: &raw::Overload, place: &Place) -> Option<Overload> {
        let requests = self.count(raw.requests, &place.field("requests"), 1, 10_000_000);
        let delay = self.duration(&raw.delay, &place.field("delay"), MILLISECOND, HOUR);
        Some(Overload { requests: usize::try_from(requests?).ok()?, delay: delay? })
    }

    pub(super) fn failed_attempts(
        &mut self,
        raw: &raw::FailedAttempts,
        place: &Place,
    ) -> Option<FailedAttempts> {
        let limit = self.count(raw.limit, &place.field("limit"), 1, 1_000_000);
        let window = self.duration(&raw.window, &place.field("window"), SECOND, DAY);
        let clients = self.count(raw.clients, &place.field("clients"), 1, 10_000_000);
        Some(FailedAttempts {
            limit: u32::try_from(limit?).ok()?,
            window: window?,
            clients: usize::try_from(clients?).ok()?,
        })
    }

    pub(super) fn timeouts(&mut self, raw: &raw::Timeouts, place: &Place) -> Option<Timeouts> {
        let header = self.duration(&raw.header, &place.field("header"), MILLISECOND, HOUR);
        let body_idle = self.duration(&raw.body_idle, &place.field("body_idle"), MILLISECOND, DAY);
        let idle = self.duration(&raw.idle, &place.field("idle"), MILLISECOND, DAY);
        let websocket_idle =
            self.duration(&raw.websocket_idle, &place.field("websocket_idle"), MILLISECOND, 7 * DAY);
        let handshake = self.duration(&raw.handshake, &place.field("handshake"), MILLISECOND, HOUR);
        let drain = self.duration(&raw.drain, &place.field("drain"), std::time::Duration::ZERO, DAY);
        let drain_delay =
            self.duration(&raw.drain_delay, &place.field("drain_delay"), std::time::Duration::ZERO, HOUR);
        let drain_idle =
            self.duration(&raw.drain_idle, &place.field("drain_idle"), std::time::Duration::ZERO, DAY);
        Some(Timeouts {
            header: header?,
            body_idle: body_idle?,
            idle: idle?,
            websocket_idle: websocket_idle?,
            handshake: handshake?,
            drain: drain?,
            drain_delay: drain_delay?,
            drain_idle: drain_idle?,
        })
    }
}
