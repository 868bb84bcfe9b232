//! Keys and revocations: one task for each issuer and each feed, and what the data plane reads of them.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::task::JoinSet;

use crate::admin::endpoints::WritableFeed;
use crate::admin::readiness::Readiness;
use crate::clock::Clock;
use crate::config::Config;
use crate::config::settings::{self, JwksLocation, MetadataLocation};
use crate::events::Inbox;
use crate::feeds::fetch::{FetchSettings, TrustAnchors};
use crate::feeds::jwks::{KeyFeed, KeyFeedSettings, KeyOrigin, RefreshIntervals};
use crate::feeds::revocation::load_fact_hasher;
use crate::keys::{KeySource, KeySourceSettings};
use crate::revocation::{FeedState, RevocationPolicies, RevocationPolicy, WhenStale};
use crate::telemetry::metrics::{Metrics, Registration};
use crate::token::{Audiences, Expectations, Issuer, IssuerId, Issuers, Profile, Verifier};

use super::{engines, feeds};

/// What the sources publish.
pub struct Sources {
    /// Judges tokens by the issuers' keys.
    pub verifier: Arc<Verifier>,
    /// Judges verified tokens by the feeds.
    pub revocation: Arc<RevocationPolicies>,
    /// The writing side of each feed that has one, at its place in the configuration.
    pub inboxes: Vec<Option<Inbox>>,
    /// What the feeds have brought, at their places in the configuration.
    pub feeds: Vec<Arc<FeedState>>,
    /// Keeps the sources' series on the metrics page.
    pub registrations: Vec<Registration>,
}

/// What sources are started for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To serve by them.
    Serve,
    /// To see what they say, beside a gateway that serves: nothing may be taken away from it.
    Look,
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
        purpose: Purpose,
        clock: &Clock,
        readiness: &Readiness,
        metrics: &Metrics,
        tasks: &mut JoinSet<()>,
    ) -> Result<Self> {
        let mut registrations = Vec::new();
        let mut issuers = Vec::new();
        for (place, settings) in config.issuers.iter().enumerate() {
            let feed = KeyFeed::new(key_feed_settings(settings, config.state_dir.clone()), clock.clone())
                .with_context(|| format!("issuer {}", settings.name))?;
            registrations.extend(register_keys(&settings.name, &feed, metrics, clock));
            issuers.push(issuer(place, settings, feed.source())?);
            tasks.spawn(feed.run());
        }
        let hasher = load_fact_hasher(config.state_dir.as_deref());
        let issuers: Vec<Arc<Issuer>> = issuers.into_iter().map(Arc::new).collect();
        let surroundings =
            feeds::Surroundings { config, purpose, issuers: &issuers, hasher: &hasher, clock, metrics };
        let feeds = feeds::start(&surroundings, tasks).await?;
        registrations.extend(feeds.registrations);
        let policies = config.issuers.iter().map(|issuer| revocation_policy(issuer, &feeds.states)).collect();
        tasks.spawn(watch(readiness.clone(), issuers.clone(), feeds.states.clone(), clock.clone()));
        Ok(Self {
            verifier: Arc::new(Verifier::new(Issuers::new(issuers))),
            revocation: Arc::new(RevocationPolicies::new(hasher, policies)),
            inboxes: feeds.inboxes,
            feeds: feeds.states,
            registrations,
        })
    }

    /// The feeds that can be written to, with their engines.
    pub fn writable_feeds(&self, config: &Config, clock: &Clock) -> Result<Vec<WritableFeed>> {
        let with_inbox = config.feeds.iter().zip(&self.inboxes);
        with_inbox
            .filter_map(|(feed, inbox)| Some((feed, inbox.clone()?)))
            .map(|(feed, inbox)| {
                Ok(WritableFeed { name: feed.name.clone(), inbox, engine: engines::writable(feed, clock)? })
            })
            .collect()
    }
}

fn keys_name(issuer: &str) -> String {
    format!("keys of {issuer}")
}

fn feed_name(feed: &str) -> String {
    format!("feed {feed}")
}

fn key_feed_settings(issuer: &settings::Issuer, state_dir: Option<PathBuf>) -> KeyFeedSettings {
    let keys = &issuer.keys;
    let intervals = RefreshIntervals::default();
    KeyFeedSettings {
        name: issuer.name.clone(),
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
        fetch: FetchSettings {
            ca: keys.ca.clone().map(TrustAnchors::File),
            timeout: keys.timeout,
            allow_http: keys.insecure_allow_http,
            ..FetchSettings::default()
        },
        algorithms: issuer.algorithms.clone(),
        intervals: RefreshIntervals {
            usual: keys.refresh_interval,
            least: intervals.least.min(keys.refresh_interval),
            most: intervals.most.max(keys.refresh_interval),
        },
        source: KeySourceSettings {
            max_stale: keys.max_stale,
            cooldown: keys.cooldown,
            ..KeySourceSettings::default()
        },
        state_dir,
    }
}

fn issuer(place: usize, settings: &settings::Issuer, keys: Arc<KeySource>) -> Result<Issuer> {
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
    })
}

fn revocation_policy(issuer: &settings::Issuer, feeds: &[Arc<FeedState>]) -> Arc<RevocationPolicy> {
    let policy = match &issuer.revocation {
        None => RevocationPolicy {
            feeds: Vec::new(),
            max_staleness: Duration::MAX,
            when_stale: WhenStale::Reject,
        },
        Some(revocation) => RevocationPolicy {
            feeds: revocation.feeds.iter().filter_map(|index| feeds.get(index.0).cloned()).collect(),
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
    let (source, clock) = (feed.source(), clock.clone());
    vec![
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
        metrics.register_gauge("keys_skipped", "Published keys that cannot be used.", &labels, {
            let stats = Arc::clone(&stats);
            #[allow(clippy::cast_precision_loss, reason = "a count of keys")]
            move || stats.skipped_keys.load(Ordering::Relaxed) as f64
        }),
        metrics.register_gauge(
            "keys_age_seconds",
            "Time since an issuer's keys were last confirmed; absent before the first time.",
            &labels,
            move || stats.last_success().map_or(f64::NAN, |last| last.until(clock.monotonic()).as_secs_f64()),
        ),
    ]
}
