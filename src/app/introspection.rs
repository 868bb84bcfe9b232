//! The introspection of the configuration, started: one task for each issuer that is asked about tokens.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::config::settings::{self, ClientAuth};
use crate::feeds::introspection::{
    BreakerSettings, ClientAssertion, Credentials, EndpointLocation, IntrospectionFeed,
    IntrospectionSettings, IntrospectionStats,
};
use crate::keys::KeySource;
use crate::telemetry::metrics::{Metrics, Registration};
use crate::token::{IntrospectedTokens, Introspection, Introspector};

use super::sources::fetch_settings;

/// So many more may wait for each question that may be under way.
const WAITING_PER_QUESTION: usize = 4;

/// The port through which this issuer is asked, and the numbers for metrics; `None` for one that is not asked.
pub fn start(
    issuer: &settings::Issuer,
    keys: &Arc<KeySource>,
    clock: &Clock,
    tasks: &mut JoinSet<()>,
) -> Result<Option<(Introspection, Arc<IntrospectionStats>)>> {
    let Some(settings) = &issuer.introspection else { return Ok(None) };
    // A question may have to wait for a place before it is asked.
    let wait = settings.transport.timeout * 2;
    let (port, asks) = Introspector::new(settings.concurrency * WAITING_PER_QUESTION, wait);
    let feed =
        IntrospectionFeed::new(feed_settings(issuer, settings)?, asks, Arc::clone(keys), clock.clone())?;
    let stats = feed.stats();
    tasks.spawn(feed.run());
    let introspection = Introspection {
        port,
        tokens: match settings.tokens {
            settings::IntrospectedTokens::Opaque => IntrospectedTokens::Opaque,
            settings::IntrospectedTokens::All => IntrospectedTokens::All,
        },
        insecure_any_kind: settings.insecure_accept_any_token_type,
    };
    Ok(Some((introspection, stats)))
}

fn feed_settings(
    issuer: &settings::Issuer,
    settings: &settings::Introspection,
) -> Result<IntrospectionSettings> {
    Ok(IntrospectionSettings {
        name: issuer.name.clone(),
        issuer: issuer.issuer.clone(),
        location: match &settings.location {
            settings::EndpointLocation::Url(url) => EndpointLocation::Url(url.clone()),
            settings::EndpointLocation::Discovery(document) => EndpointLocation::Discovery(document.clone()),
        },
        fetch: fetch_settings(&settings.transport),
        credentials: credentials(settings)?,
        signed_for: settings.signed.then(|| signed_for(issuer, settings)),
        algorithms: issuer.algorithms.clone(),
        cache: settings.cache,
        negative_cache: settings.negative_cache,
        negative_entries: settings.negative_entries,
        concurrency: settings.concurrency,
        breaker: BreakerSettings { failures: settings.breaker_failures, pause: settings.breaker_pause },
    })
}

/// RFC 9701 section 5 names the client; providers are about that name the API.
fn signed_for(issuer: &settings::Issuer, settings: &settings::Introspection) -> Vec<String> {
    let mut audiences = vec![settings.client_id.clone()];
    if let settings::Audiences::AnyOf(apis) = &issuer.audiences {
        audiences.extend(apis.iter().cloned());
    }
    audiences
}

fn credentials(settings: &settings::Introspection) -> Result<Credentials> {
    let client_id = settings.client_id.clone();
    Ok(match &settings.client_auth {
        ClientAuth::Basic(secret) => Credentials::Basic { client_id, secret: secret.clone() },
        ClientAuth::Post(secret) => Credentials::Post { client_id, secret: secret.clone() },
        ClientAuth::Certificate => Credentials::Certificate { client_id },
        ClientAuth::PrivateKeyJwt(jwt) => Credentials::PrivateKeyJwt(ClientAssertion {
            client_id,
            audience: jwt.audience.clone(),
            key_id: jwt.key_id.clone(),
            algorithm: jwt.algorithm,
            private_key: fs::read(&jwt.private_key)
                .with_context(|| format!("cannot read {}", jwt.private_key.display()))?,
        }),
    })
}

type Read = fn(&IntrospectionStats) -> &AtomicU64;

/// Shows on the metrics page what is asked and answered.
pub fn register(issuer: &str, stats: &Arc<IntrospectionStats>, metrics: &Metrics) -> Vec<Registration> {
    let labels = [("issuer", issuer)];
    let counters: [(&str, &str, Read); 6] = [
        ("introspection_active", "Answers of an issuer that called a token active.", |stats| &stats.active),
        ("introspection_inactive", "Answers of an issuer that called a token inactive.", |stats| {
            &stats.inactive
        }),
        ("introspection_failures", "Questions to an issuer without a usable answer.", |stats| &stats.failed),
        ("introspection_joined", "Requests that joined a question under way.", |stats| &stats.joined),
        ("introspection_remembered", "Requests whose token was found inactive a moment before.", |stats| {
            &stats.remembered
        }),
        (
            "introspection_turned_away",
            "Requests that could not be decided because the endpoint kept failing and is left alone.",
            |stats| &stats.turned_away,
        ),
    ];
    let gauges: [(&str, &str, Read); 2] = [
        ("introspection_under_way", "Questions to an issuer under way.", |stats| &stats.under_way),
        ("introspection_breaker_open", "1 while an endpoint that kept failing is left alone.", |stats| {
            &stats.breaker_open
        }),
    ];
    let counters = counters.into_iter().map(|(name, help, read)| {
        let stats = Arc::clone(stats);
        metrics.register_counter(name, help, &labels, move || read(&stats).load(Ordering::Relaxed))
    });
    let gauges = gauges.into_iter().map(|(name, help, read)| {
        let stats = Arc::clone(stats);
        #[allow(clippy::cast_precision_loss, reason = "a small count")]
        metrics.register_gauge(name, help, &labels, move || read(&stats).load(Ordering::Relaxed) as f64)
    });
    counters.chain(gauges).collect()
}
