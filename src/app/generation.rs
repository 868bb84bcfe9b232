//! A generation: one configuration in force, as the cores read it. Published whole, never changed.

use std::sync::Arc;
use std::time::Duration;

use super::blueprint::{Blueprint, Face, Speech};
use super::sockets::{ListenerKey, Sockets};
use super::sources::Sources;
use super::spans::Recorded;
use super::{request_limits, routes};
use crate::clock::Clock;
use crate::config::settings::{self, ErrorDetail};
use crate::events::Inbox;
use crate::gateway::{
    Explainer, FailedAttemptsLimits, MetricIds, OverloadLimits, RequestLimits, ReservedNames, Routes,
    TrustedProxies,
};
use crate::http1::GuardLimits;
use crate::listener::{BoundListener, ListenerSettings, Role};
use crate::revocation::RevocationPolicies;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::patterns::PatternLimits;
use crate::token::Verifier;
use crate::upstream::Upstream;

/// See the module.
#[derive(Debug)]
pub struct Generation {
    pub routes: Arc<Routes>,
    pub reserved: Arc<ReservedNames>,
    pub trusted_proxies: Arc<TrustedProxies>,
    pub upstreams: Vec<Arc<Upstream>>,
    pub inboxes: Arc<[Option<Inbox>]>,
    pub verifier: Arc<Verifier>,
    pub revocation: Arc<RevocationPolicies>,
    pub metric_ids: MetricIds,
    pub limits: RequestLimits,
    pub cores: usize,
    /// Of one core.
    pub overload: OverloadLimits,
    /// Of all cores together.
    pub failed_attempts: Option<FailedAttemptsLimits>,
    /// Of one core.
    pub max_connections: usize,
    pub drain_idle: Duration,
    pub error_detail: ErrorDetail,
    pub error_documents: Option<Arc<str>>,
    pub recorded: Option<Recorded>,
    pub patterns: Option<PatternLimits>,
    pub listeners: Vec<(ListenerKey, Arc<ListenerSettings>)>,
}

impl Generation {
    /// The generation of this number, counted from 1.
    pub fn new(
        number: u64,
        blueprint: &Blueprint,
        sockets: &Sockets,
        sources: &Sources,
        metrics: &Metrics,
        cores: usize,
        recorded: Option<Recorded>,
    ) -> Self {
        let config = &blueprint.config;
        Self {
            routes: Arc::clone(&blueprint.routes),
            reserved: Arc::clone(&blueprint.reserved),
            trusted_proxies: Arc::clone(&blueprint.trusted_proxies),
            upstreams: blueprint.upstreams.clone(),
            inboxes: sources.inboxes().into(),
            verifier: sources.verifier(),
            revocation: Arc::new(sources.revocation(number)),
            metric_ids: routes::metric_ids(config, metrics),
            limits: request_limits(config),
            cores,
            overload: OverloadLimits {
                requests: u32::try_from(config.overload.requests.div_ceil(cores)).unwrap_or(u32::MAX),
                delay: config.overload.delay,
            },
            failed_attempts: config.failed_attempts.map(|settings| FailedAttemptsLimits {
                limit: settings.limit,
                window: settings.window,
                clients: settings.clients,
            }),
            max_connections: config.limits.connections.div_ceil(cores),
            drain_idle: config.timeouts.drain_idle,
            error_detail: config.error_detail,
            error_documents: config.error_documents.as_deref().map(Arc::from),
            recorded,
            patterns: config.patterns.map(pattern_limits),
            listeners: listeners(blueprint, sockets, metrics),
        }
    }
}

impl Generation {
    /// Who says why it accepts and refuses.
    pub fn explainer(&self, clock: &Clock) -> Explainer {
        Explainer {
            routes: Arc::clone(&self.routes),
            verifier: Arc::clone(&self.verifier),
            revocation: Arc::clone(&self.revocation),
            limits: self.limits,
            clock: clock.clone(),
        }
    }
}

fn pattern_limits(settings: settings::Patterns) -> PatternLimits {
    PatternLimits {
        window: settings.window,
        failures_by_client: settings.failures_by_client,
        failures_by_subject: settings.failures_by_subject,
        addresses_of_token: settings.addresses_of_token,
        uses_after_revocation: settings.uses_after_revocation,
    }
}

fn listeners(
    blueprint: &Blueprint,
    sockets: &Sockets,
    metrics: &Metrics,
) -> Vec<(ListenerKey, Arc<ListenerSettings>)> {
    let Blueprint { config, faces, .. } = blueprint;
    let is_tls = |face: &Face| matches!(face.speech, Speech::Tls(_));
    let https = sockets.iter().zip(faces).find(|(_, face)| is_tls(face));
    let https_port = https.map_or(443, |((_, bound), _)| bound.address.port());
    let settings = |((key, bound), face): ((ListenerKey, &BoundListener), &Face)| {
        let name: Arc<str> = bound.address.to_string().into();
        let settings = ListenerSettings {
            metric: metrics.listener(&name),
            name,
            proxy_protocol: face.proxy_protocol.clone(),
            role: match &face.speech {
                Speech::Tls(tls) => Role::Tls(tls.clone()),
                Speech::Plaintext => Role::Plaintext,
                Speech::RedirectToHttps => Role::RedirectToHttps(https_port),
            },
            decisions: face.decisions.clone(),
            hsts: face.hsts.clone(),
            guard: GuardLimits {
                uri: config.limits.uri,
                head: config.limits.headers,
                fields: config.limits.header_count,
                head_timeout: config.timeouts.header,
            },
            control_frames: config.limits.control_frames,
            takes_websockets: face.decisions.is_none()
                && !matches!(face.speech, Speech::RedirectToHttps)
                && routes::take_websockets(config),
            concurrent_streams: config.limits.concurrent_streams,
            idle: config.timeouts.idle,
            stall: config.timeouts.body_idle,
            handshake: config.timeouts.handshake,
        };
        (key, Arc::new(settings))
    };
    sockets.iter().zip(faces).map(settings).collect()
}
