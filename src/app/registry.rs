//! The registers of issued tokens of the configuration, started: one task for each issuer that has one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::config::settings;
use crate::feeds::registry::{RegistryFeed, RegistrySettings, RegistryStats};
use crate::telemetry::metrics::{Metrics, Registration};
use crate::token::{IntrospectedTokens, Introspection, Introspector};

/// How many requests may wait to be looked up; more are refused (VAL-052).
const QUEUE: usize = 1024;

/// The port through which this issuer's register is asked; `None` for an issuer without one.
pub fn start(
    issuer: &settings::Issuer,
    clock: &Clock,
    tasks: &mut JoinSet<()>,
) -> Option<(Introspection, Arc<RegistryStats>)> {
    let settings = issuer.registry.as_ref()?;
    // One look-up may be under way, and the connection for the next one to be made.
    let (port, asks) = Introspector::new(QUEUE, settings.valkey.timeout * 3);
    let feed_settings = RegistrySettings {
        name: issuer.name.clone(),
        valkey: settings.valkey.clone(),
        prefix: settings.prefix.clone(),
        cache: settings.cache,
        accept_when_unavailable: settings.accept_when_unavailable,
    };
    let feed = RegistryFeed::new(feed_settings, asks, clock.clone());
    let stats = feed.stats();
    tasks.spawn(feed.run());
    Some((Introspection { port, tokens: IntrospectedTokens::Jwt, insecure_any_kind: false }, stats))
}

type Read = fn(&RegistryStats) -> &AtomicU64;

/// Shows on the metrics page what it does, from now on.
pub fn register(issuer: &str, stats: &Arc<RegistryStats>, metrics: &Metrics) -> Vec<Registration> {
    let counters: [(&str, &str, Read); 3] = [
        ("registry_recognized", "Tokens found on an issuer's register.", |stats| &stats.recognized),
        ("registry_unrecognized", "Tokens not found on an issuer's register.", |stats| &stats.unrecognized),
        ("registry_failures", "Tokens that could not be looked up on an issuer's register.", |stats| {
            &stats.failed
        }),
    ];
    let registered = counters.into_iter().map(|(name, help, read)| {
        let stats = Arc::clone(stats);
        metrics
            .register_counter(name, help, &[("issuer", issuer)], move || read(&stats).load(Ordering::Relaxed))
    });
    registered.collect()
}
