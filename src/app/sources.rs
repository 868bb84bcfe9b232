//! Keys and revocations: one task for each issuer and each feed, and what the data plane reads of them.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::task::JoinSet;

use crate::admin::readiness::Readiness;
use crate::clock::Clock;
use crate::config::Config;
use crate::config::settings::{self, JwksLocation, MetadataLocation};
use crate::feeds::fetch::{ClientCertificate, EgressProxy, FetchSettings, TrustAnchors};
use crate::feeds::jwks::{KeyFeed, KeyFeedSettings, KeyOrigin, RefreshIntervals};
use crate::feeds::revocation::load_fact_hasher;
use crate::keys::{KeySource, KeySourceSettings, Unusable};
use crate::revocation::{FeedState, RevocationPolicies, RevocationPolicy, StatusLists, WhenStale};
use crate::telemetry::metrics::{Metrics, Registration};
use crate::token::{Audiences, Expectations, Introspection, Issuer, IssuerId, Issuers, Profile, Verifier};

use super::{feeds, introspection, registry, status_lists};

/// What the sources publish.
pub struct Sources {
    /// Judges tokens by the issuers' keys.
    pub verifier: Arc<Verifier>,
    /// Judges verified tokens by the feeds.
    pub revocation: Arc<RevocationPolicies>,
    /// What the feeds have brought, at their places in the configuration.
    pub feeds: Vec<Arc<FeedState>>,
    /// Keeps the sources' series on the metrics page.
    pub registrations: Vec<Registration>,
}

/// How often readiness looks at the sources.
const LOOK: Duration = Duration::from_millis(250);

impl Sources {
    /// The names under which readiness shows the sources.
    pub fn names(config: &Config) -> Vec<String> {
        let issuers = config.issuers.iter().map(|issuer| keys_name(&issuer.name));
        let feeds = config.feeds.iter().map(|feed| feed_name(&feed.name));
        issuers.chain(feeds).collect()
    }

    /// Starts a task for each source. Keys and feeds need not be there yet: listeners serve before.
    pub async fn start(
        config: &Config,
        clock: &Clock,
        readiness: &Readiness,
        metrics: &Metrics,
        tasks: &mut JoinSet<()>,
    ) -> Result<Self> {
        let mut registrations = Vec::new();
        let (mut issuers, mut status_lists) = (Vec::new(), Vec::new());
        for (place, settings) in config.issuers.iter().enumerate() {
            let feed = KeyFeed::new(
                key_feed_settings(settings.name.clone(), settings, &settings.keys, config.state_dir.clone()),
                clock.clone(),
            )
            .with_context(|| format!("issuer {}", settings.name))?;
            registrations.extend(register_keys(&settings.name, &feed, metrics, clock));
            let introspection =
                introspection::start(settings, feed.source(), clock, metrics, tasks, &mut registrations)
                    .with_context(|| format!("issuer {}: introspection", settings.name))?;
            let introspection = introspection
                .or_else(|| registry::start(settings, clock, metrics, tasks, &mut registrations));
            status_lists.push(
                status_lists::start(settings, feed.source(), clock, metrics, tasks, &mut registrations)
                    .with_context(|| format!("issuer {}: status lists", settings.name))?,
            );
            issuers.push(issuer(place, settings, feed.source(), introspection)?);
            tasks.spawn(feed.run());
        }
        let hasher = load_fact_hasher(config.state_dir.as_deref());
        let (feeds, feed_registrations) = feeds::start(config, &hasher, clock, metrics, tasks).await?;
        registrations.extend(feed_registrations);
        let policies = config
            .issuers
            .iter()
            .zip(status_lists)
            .map(|(issuer, lists)| revocation_policy(issuer, &feeds, lists))
            .collect();
        let issuers: Vec<Arc<Issuer>> = issuers.into_iter().map(Arc::new).collect();
        tasks.spawn(watch(readiness.clone(), issuers.clone(), feeds.clone(), clock.clone()));
        Ok(Self {
            verifier: Arc::new(Verifier::new(Issuers::new(issuers))),
            revocation: Arc::new(RevocationPolicies::new(hasher, policies)),
            feeds,
            registrations,
        })
    }
}

fn keys_name(issuer: &str) -> String {
    format!("keys of {issuer}")
}

fn feed_name(feed: &str) -> String {
    format!("feed {feed}")
}

/// How the keys of this name are kept current, which are the issuer's.
pub fn key_feed_settings(
    name: String,
    issuer: &settings::Issuer,
    keys: &settings::KeySettings,
    state_dir: Option<PathBuf>,
) -> KeyFeedSettings {
    let intervals = RefreshIntervals::default();
    KeyFeedSettings {
        name,
        issuer: issuer.issuer.clone(),
        origin: match &keys.location {
            JwksLocation::Url(url) => KeyOrigin::JwksUrl(url.clone()),
            JwksLocation::Discovery(MetadataLocation::WellKnown(_)) => {
                KeyOrigin::Discovery { document: None }
            }
            JwksLocation::Discovery(MetadataLocation::Url(url)) => {
                KeyOrigin::Discovery { document: Some(url.clone()) }
            }
            JwksLocation::File(path) => KeyOrigin::File(path.clone()),
            JwksLocation::Inline(text) => KeyOrigin::Inline(text.clone().into_bytes()),
        },
        fetch: fetch_settings(&keys.transport),
        algorithms: issuer.algorithms.clone(),
        intervals: RefreshIntervals {
            usual: keys.refresh_interval,
            least: intervals.least.min(keys.refresh_interval),
            most: intervals.most.max(keys.refresh_interval),
        },
        source: KeySourceSettings {
            max_stale: keys.max_stale,
            cooldown: keys.cooldown,
            unknown_kid_ttl: keys.unknown_kid_ttl,
            wait: keys.wait,
        },
        state_dir,
    }
}

/// How the fetch client gets where the configuration says.
pub fn fetch_settings(transport: &settings::Transport) -> FetchSettings {
    FetchSettings {
        ca: transport.ca.clone().map(TrustAnchors::File),
        client_certificate: transport.client_certificate.as_ref().map(|files| ClientCertificate {
            certificate: files.certificate.clone(),
            private_key: files.private_key.clone(),
        }),
        proxy: transport
            .proxy
            .as_ref()
            .map(|proxy| EgressProxy { url: proxy.url.clone(), authorization: proxy.authorization.clone() }),
        timeout: transport.timeout,
        max_bytes: transport.max_size,
        allow_http: transport.insecure_allow_http,
    }
}

fn issuer(
    place: usize,
    settings: &settings::Issuer,
    keys: Arc<KeySource>,
    introspection: Option<Introspection>,
) -> Result<Issuer> {
    let boxed = |texts: &[String]| texts.iter().map(|text| text.as_str().into()).collect();
    Ok(Issuer {
        id: IssuerId(u16::try_from(place)?),
        name: settings.name.as_str().into(),
        url: settings.issuer.as_str().into(),
        expectations: Expectations {
            audiences: match &settings.audiences {
                settings::Audiences::AnyOf(audiences) => Audiences::AnyOf(boxed(audiences)),
                settings::Audiences::NotChecked => Audiences::InsecureAny,
            },
            algorithms: settings.algorithms.clone(),
            leeway: settings.leeway,
            max_lifetime: settings.max_lifetime,
            required_claims: boxed(&settings.required_claims),
            profile: settings.profile.map(|settings::Profile::Rfc9068| Profile::Rfc9068),
        },
        keys,
        introspection,
    })
}

fn revocation_policy(
    issuer: &settings::Issuer,
    feeds: &[Arc<FeedState>],
    status_lists: Option<Arc<StatusLists>>,
) -> Arc<RevocationPolicy> {
    let policy = match &issuer.revocation {
        None => RevocationPolicy {
            feeds: Vec::new(),
            status_lists: None,
            max_staleness: Duration::MAX,
            when_stale: WhenStale::Reject,
        },
        Some(revocation) => RevocationPolicy {
            feeds: revocation.feeds.iter().filter_map(|index| feeds.get(index.0).cloned()).collect(),
            status_lists,
            max_staleness: revocation.max_staleness,
            when_stale: match revocation.when_stale {
                settings::WhenStale::Reject => WhenStale::Reject,
                settings::WhenStale::Accept => WhenStale::Accept,
                settings::WhenStale::AcceptIssuedWithin(age) => WhenStale::AcceptIssuedWithin(age),
            },
        },
    };
    Arc::new(policy)
}

/// Tells readiness which sources are loaded. Never ends.
async fn watch(readiness: Readiness, issuers: Vec<Arc<Issuer>>, feeds: Vec<Arc<FeedState>>, clock: Clock) {
    loop {
        for issuer in &issuers {
            let name = keys_name(&issuer.name);
            let state = issuer.keys.current();
            match (state.keys(clock.monotonic()), state.last_error()) {
                (Some(_), None) => readiness.loaded(&name),
                (Some(_), Some(why)) => {
                    readiness.loaded(&name);
                    readiness.degraded(&name, why);
                }
                (None, why) => readiness.degraded(&name, why.unwrap_or("not loaded yet")),
            }
        }
        for feed in &feeds {
            let name = feed_name(feed.name());
            if feed.is_loaded() {
                readiness.loaded(&name);
            } else {
                readiness.degraded(&name, "not loaded yet");
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn register_keys(issuer: &str, feed: &KeyFeed, metrics: &Metrics, clock: &Clock) -> Vec<Registration> {
    let labels = [("issuer", issuer)];
    let stats = feed.stats();
    let count = |name, help, read: fn(&crate::feeds::jwks::KeyFeedStats) -> u64| {
        let stats = feed.stats();
        metrics.register_counter(name, help, &labels, move || read(&stats))
    };
    let (source, due, clock, due_clock) = (feed.source(), feed.stats(), clock.clone(), clock.clone());
    let mut registrations = vec![
        count("keys_refreshes", "Refreshes of an issuer's keys that succeeded.", |stats| {
            stats.refreshes_ok.load(Ordering::Relaxed)
        }),
        count("keys_refresh_failures", "Refreshes of an issuer's keys that failed.", |stats| {
            stats.refreshes_failed.load(Ordering::Relaxed)
        }),
        metrics.register_counter(
            "keys_unknown",
            "Requests that named a key which was not known, or found no keys.",
            &labels,
            move || source.asks(),
        ),
        metrics.register_gauge("keys", "Keys in use of an issuer.", &labels, {
            let stats = Arc::clone(&stats);
            #[allow(clippy::cast_precision_loss, reason = "a count of keys")]
            move || stats.keys.load(Ordering::Relaxed) as f64
        }),
        metrics.register_gauge(
            "keys_age_seconds",
            "Time since an issuer's keys were last confirmed; absent before the first time.",
            &labels,
            move || stats.last_success().map_or(f64::NAN, |last| last.until(clock.monotonic()).as_secs_f64()),
        ),
        metrics.register_gauge(
            "keys_next_refresh_seconds",
            "Time until an issuer's keys are refreshed, if nothing asks for it before; absent during a refresh.",
            &labels,
            move || {
                due.next_refresh().map_or(f64::NAN, |due| due_clock.monotonic().until(due).as_secs_f64())
            },
        ),
    ];
    registrations.extend(Unusable::NAMES.iter().enumerate().map(|(place, reason)| {
        let stats = feed.stats();
        metrics.register_gauge(
            "keys_skipped",
            "Published keys that cannot be used.",
            &[("issuer", issuer), ("reason", reason)],
            #[allow(clippy::cast_precision_loss, reason = "a count of keys")]
            move || stats.skipped_keys(place) as f64,
        )
    }));
    registrations
}
