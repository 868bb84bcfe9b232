//! Keys and revocations: one task for each issuer and each feed, and what the data plane reads of them.
//!
//! A task outlives every configuration that says the same of its source: keys, positions and indexes are kept, and
//! nothing is fetched anew. It ends when the last [`Sources`] that have it are dropped.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::admin::endpoints::WritableFeed;
use crate::admin::readiness::Readiness;
use crate::clock::Clock;
use crate::config::settings::{self, JwksLocation, MetadataLocation};
use crate::config::{Config, Identity};
use crate::events::Inbox;
use crate::feeds::fetch::{ClientCertificate, EgressProxy, FetchSettings, TrustAnchors};
use crate::feeds::jwks::{KeyFeed, KeyFeedSettings, KeyFeedStats, KeyOrigin, RefreshIntervals};
use crate::keys::{KeySource, KeySourceSettings, Unusable};
use crate::revocation::{
    FactHasher, FeedState, RevocationPolicies, RevocationPolicy, StatusLists, WhenStale,
};
use crate::telemetry::metrics::{Metrics, Registration};
use crate::token::{Audiences, Expectations, Introspection, Issuer, IssuerId, Issuers, Profile, Verifier};

use super::feeds::FeedTask;
use super::lookups::Lookups;
use super::status_lists;

/// What all sources of a process have in common.
#[derive(Clone, Debug)]
pub struct Ground {
    pub clock: Clock,
    pub hasher: FactHasher,
    pub state_dir: Option<PathBuf>,
    pub purpose: Purpose,
}

/// What sources are started for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To serve by them.
    Serve,
    /// To see what they say, beside a gateway that serves: nothing may be taken away from it.
    Look,
}

/// See the module.
#[derive(Debug)]
pub struct Sources {
    ground: Ground,
    keys: Vec<Arc<KeyTask>>,
    feeds: Vec<Arc<FeedTask>>,
    issuers: Vec<TrustedIssuer>,
    watch: JoinSet<()>,
}

/// The task that keeps one issuer's keys, until dropped; there is nothing to keep of one that signs nothing.
#[derive(Debug)]
struct KeyTask {
    name: String,
    identity: Identity,
    source: Arc<KeySource>,
    /// None of an issuer that signs nothing.
    stats: Option<Arc<KeyFeedStats>>,
    /// Closed once the copy from before a restart is in force, or is not to be had.
    restored: watch::Receiver<()>,
    registrations: OnceLock<Vec<Registration>>,
    _task: JoinSet<()>,
}

#[derive(Clone, Debug)]
struct TrustedIssuer {
    identity: Identity,
    issuer: Arc<Issuer>,
    policy: RevocationPolicy,
    lookups: Arc<Lookups>,
}

/// How often readiness looks at the sources.
const LOOK: Duration = Duration::from_millis(250);

/// How often one who waits for the sources looks at them.
const CLOSE_LOOK: Duration = Duration::from_millis(20);

impl Sources {
    /// The names under which readiness shows the sources.
    pub fn names(config: &Config) -> Vec<String> {
        let signing = config.issuers.iter().filter(|issuer| issuer.keys.is_some());
        let issuers = signing.map(|issuer| keys_name(&issuer.name));
        let feeds = config.feeds.iter().map(|feed| feed_name(&feed.name));
        issuers.chain(feeds).collect()
    }

    /// No sources yet.
    pub fn none(ground: Ground) -> Self {
        let (keys, feeds, issuers) = Default::default();
        Self { ground, keys, feeds, issuers, watch: JoinSet::new() }
    }

    /// What they have in common.
    pub fn ground(&self) -> &Ground {
        &self.ground
    }

    /// The sources of this configuration: those that run already, and a new task for each other. Keys and feeds need
    /// not be there yet.
    ///
    /// # Errors
    /// A certificate or inline keys that cannot be used. What was newly started ends.
    pub fn next(&self, config: &Config) -> Result<Self> {
        let ground = &self.ground;
        let mut next = Self::none(ground.clone());
        for (place, settings) in config.issuers.iter().enumerate() {
            let fields = ["name", "issuer", "keys", "algorithms"];
            let identity = config.document.identity("issuers", place, &fields);
            let running = self.keys.iter().find(|task| task.identity == identity);
            let task = match running {
                Some(running) => Arc::clone(running),
                None => Arc::new(
                    KeyTask::start(settings, identity, ground, &self.keys)
                        .with_context(|| format!("issuer {}", settings.name))?,
                ),
            };
            next.keys.push(task);
        }
        let keys: Vec<Arc<KeySource>> = next.keys.iter().map(|task| Arc::clone(&task.source)).collect();
        for (place, feed) in config.feeds.iter().enumerate() {
            let identity = FeedTask::identity(config, place);
            let running = self.feeds.iter().find(|task| task.identity == identity);
            next.feeds.push(match running {
                Some(running) => Arc::clone(running),
                None => Arc::new(
                    FeedTask::start(config, place, ground, &keys, &self.feeds)
                        .with_context(|| format!("feed {}", feed.name))?,
                ),
            });
        }
        for ((place, settings), keys) in config.issuers.iter().enumerate().zip(&keys) {
            next.issuers.push(self.issuer(config, place, settings, keys, &next.feeds)?);
        }
        Ok(next)
    }

    /// Removes from `state_dir` what this configuration has no use for, in the background.
    pub fn tidy(&self, config: &Config) {
        status_lists::tidy(config, &self.ground);
    }

    /// Waits until what was kept of them over a restart was read, where anything was.
    pub async fn restored(&self) {
        self.restored_besides(&Self::none(self.ground.clone())).await;
    }

    /// The same, but for those that `before` has as well, which are no worse off than they were.
    pub async fn restored_besides(&self, before: &Self) {
        let is_new = |task: &&Arc<KeyTask>| !before.keys.iter().any(|known| Arc::ptr_eq(known, task));
        for task in self.keys.iter().filter(is_new) {
            // Nothing is ever sent.
            let _ = task.restored.clone().changed().await;
        }
        let known = before.feeds();
        for feed in self.feeds().iter().filter(|feed| !known.iter().any(|known| Arc::ptr_eq(known, feed))) {
            feed.until_restored().await;
        }
    }

    /// Waits until those sources are loaded that `before` had loaded under the same names, so that a change of a
    /// source is no gap.
    ///
    /// # Errors
    /// One is not, after so long.
    pub async fn settle(&self, before: &Self, patience: Duration) -> Result<()> {
        let loaded = before.names_that(|loaded| loaded);
        let missing = || self.names_that(|loaded| !loaded).into_iter().find(|name| loaded.contains(name));
        self.wait(missing, patience).await
    }

    /// Waits until all sources are loaded.
    ///
    /// # Errors
    /// One is not, after so long.
    pub async fn load(&self, patience: Duration) -> Result<()> {
        self.wait(|| self.names_that(|loaded| !loaded).into_iter().next(), patience).await
    }

    /// Has the sources shown by metrics and readiness from now on.
    pub fn show(&mut self, metrics: &Metrics, readiness: &Readiness) {
        let clock = &self.ground.clock;
        for (task, stats) in self.kept_keys() {
            task.registrations.get_or_init(|| register_keys(task, stats, metrics, clock));
        }
        for task in &self.feeds {
            task.register(metrics, clock);
        }
        for trusted in &self.issuers {
            trusted.lookups.register(&trusted.issuer.name, metrics, clock);
        }
        let keys = self.kept_keys().map(|(task, _)| (task.name.clone(), Arc::clone(&task.source))).collect();
        let watching = watch(readiness.clone(), keys, self.feeds(), clock.clone());
        self.watch = JoinSet::new();
        self.watch.spawn(watching);
    }

    /// What the feeds have brought, at their places in the configuration.
    pub fn feeds(&self) -> Vec<Arc<FeedState>> {
        self.feeds.iter().map(|task| Arc::clone(&task.state)).collect()
    }

    /// The writing side of each feed that has one, at its place in the configuration.
    pub fn inboxes(&self) -> Vec<Option<Inbox>> {
        self.feeds.iter().map(|task| task.inbox.clone()).collect()
    }

    /// The feeds that can be written to, with their engines.
    pub fn writable_feeds(&self) -> Vec<WritableFeed> {
        let writable = |task: &Arc<FeedTask>| {
            let (name, engine) = (task.state.name().to_owned(), task.engine.clone());
            task.inbox.clone().map(|inbox| WritableFeed { name, inbox, engine })
        };
        self.feeds.iter().filter_map(writable).collect()
    }

    /// Judges tokens by the issuers' keys.
    pub fn verifier(&self) -> Arc<Verifier> {
        let issuers = self.issuers.iter().map(|trusted| Arc::clone(&trusted.issuer)).collect();
        Arc::new(Verifier::new(Issuers::new(issuers)))
    }

    /// Judges verified tokens by the feeds, in the generation of this number.
    pub fn revocation(&self, generation: u64) -> RevocationPolicies {
        let policy = |trusted: &TrustedIssuer| (Arc::clone(&trusted.issuer), trusted.policy.clone());
        let hasher = self.ground.hasher.clone();
        RevocationPolicies::new(hasher, generation, self.issuers.iter().map(policy).collect())
    }

    /// The very same issuer if nothing about it has changed, so that verdicts on its tokens hold.
    fn issuer(
        &self,
        config: &Config,
        place: usize,
        settings: &settings::Issuer,
        keys: &Arc<KeySource>,
        feeds: &[Arc<FeedTask>],
    ) -> Result<TrustedIssuer> {
        let identity = config.document.identity("issuers", place, &[]);
        let same = |old: &&TrustedIssuer| old.identity == identity && Arc::ptr_eq(&old.issuer.keys, keys);
        let (issuer, lookups) = if let Some(old) = self.issuers.get(place).filter(same) {
            (Arc::clone(&old.issuer), Arc::clone(&old.lookups))
        } else {
            let (introspection, lookups) = Lookups::start(settings, keys, &self.ground)
                .with_context(|| format!("issuer {}", settings.name))?;
            (Arc::new(issuer(place, settings, Arc::clone(keys), introspection)?), Arc::new(lookups))
        };
        let policy = revocation_policy(settings, feeds, lookups.status_lists());
        Ok(TrustedIssuer { identity, issuer, policy, lookups })
    }

    async fn wait(&self, missing: impl Fn() -> Option<String>, patience: Duration) -> Result<()> {
        let there = async {
            while missing().is_some() {
                tokio::time::sleep(CLOSE_LOOK).await;
            }
        };
        if tokio::time::timeout(patience, there).await.is_ok() {
            return Ok(());
        }
        let Some(name) = missing() else { return Ok(()) };
        let error = self.kept_keys().find(|(task, _)| keys_name(&task.name) == name);
        let error = error.map(|(task, _)| task.source.current());
        let why = error.as_ref().and_then(|state| state.last_error()).unwrap_or("no answer yet");
        bail!("{name} cannot be loaded: {why}")
    }

    /// The tasks of the issuers that sign.
    fn kept_keys(&self) -> impl Iterator<Item = (&KeyTask, &Arc<KeyFeedStats>)> {
        self.keys.iter().filter_map(|task| Some((&**task, task.stats.as_ref()?)))
    }

    fn names_that(&self, wanted: impl Fn(bool) -> bool) -> Vec<String> {
        let now = self.ground.clock.monotonic();
        let keys = self
            .kept_keys()
            .map(|(task, _)| (keys_name(&task.name), task.source.current().keys(now).is_some()));
        let feeds = self.feeds.iter().map(|task| (feed_name(task.state.name()), task.state.is_loaded()));
        keys.chain(feeds).filter(|(_, loaded)| wanted(*loaded)).map(|(name, _)| name).collect()
    }
}

impl KeyTask {
    /// `before`: those of the configuration before.
    fn start(
        settings: &settings::Issuer,
        identity: Identity,
        ground: &Ground,
        before: &[Arc<Self>],
    ) -> Result<Self> {
        let (name, registrations) = (settings.name.clone(), OnceLock::new());
        let mut task = JoinSet::new();
        let (restoring, restored) = watch::channel(());
        let Some(keys) = &settings.keys else {
            let source = KeySource::of_none(ground.clock.clone());
            return Ok(Self { name, identity, source, stats: None, restored, registrations, _task: task });
        };
        let mut feed = KeyFeed::new(
            key_feed_settings(name.clone(), settings, keys, ground.state_dir.as_deref()),
            ground.clock.clone(),
        )?;
        if before.iter().any(|task| task.name == settings.name && task.source.current().latest().is_some()) {
            feed.forgo_copy();
        }
        let (source, stats) = (feed.source(), Some(feed.stats()));
        task.spawn(async move {
            feed.restore().await;
            drop(restoring);
            feed.run().await;
        });
        Ok(Self { name, identity, source, stats, restored, registrations, _task: task })
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
    state_dir: Option<&Path>,
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
        state_dir: state_dir.map(Path::to_owned),
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
            binding: settings.binding,
        },
        keys,
        introspection,
    })
}

fn revocation_policy(
    issuer: &settings::Issuer,
    feeds: &[Arc<FeedTask>],
    status_lists: Option<Arc<StatusLists>>,
) -> RevocationPolicy {
    match &issuer.revocation {
        None => RevocationPolicy {
            feeds: Vec::new(),
            status_lists: None,
            max_staleness: Duration::MAX,
            when_stale: WhenStale::Reject,
        },
        Some(revocation) => RevocationPolicy {
            feeds: revocation
                .feeds
                .iter()
                .filter_map(|index| Some(Arc::clone(&feeds.get(index.0)?.state)))
                .collect(),
            status_lists,
            max_staleness: revocation.max_staleness,
            when_stale: match revocation.when_stale {
                settings::WhenStale::Reject => WhenStale::Reject,
                settings::WhenStale::Accept => WhenStale::Accept,
                settings::WhenStale::AcceptIssuedWithin(age) => WhenStale::AcceptIssuedWithin(age),
            },
        },
    }
}

/// Tells readiness which sources are loaded. Never ends.
async fn watch(
    readiness: Readiness,
    keys: Vec<(String, Arc<KeySource>)>,
    feeds: Vec<Arc<FeedState>>,
    clock: Clock,
) {
    loop {
        for (issuer, source) in &keys {
            let name = keys_name(issuer);
            let state = source.current();
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

fn register_keys(
    task: &KeyTask,
    stats: &Arc<KeyFeedStats>,
    metrics: &Metrics,
    clock: &Clock,
) -> Vec<Registration> {
    let labels = [("issuer", task.name.as_str())];
    let count = |name, help, read: fn(&KeyFeedStats) -> u64| {
        let stats = Arc::clone(stats);
        metrics.register_counter(name, help, &labels, move || read(&stats))
    };
    let (source, due) = (Arc::clone(&task.source), Arc::clone(stats));
    let (aged, clock, due_clock) = (Arc::clone(&task.source), clock.clone(), clock.clone());
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
            let stats = Arc::clone(stats);
            #[allow(clippy::cast_precision_loss, reason = "a count of keys")]
            move || stats.keys.load(Ordering::Relaxed) as f64
        }),
        metrics.register_gauge(
            "keys_age_seconds",
            "Time since an issuer's keys were last confirmed, before a restart too; absent before the first time.",
            &labels,
            move || aged.age(clock.monotonic()).map_or(f64::NAN, |age| age.as_secs_f64()),
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
        let stats = Arc::clone(stats);
        metrics.register_gauge(
            "keys_skipped",
            "Published keys that cannot be used.",
            &[("issuer", task.name.as_str()), ("reason", reason)],
            #[allow(clippy::cast_precision_loss, reason = "a count of keys")]
            move || stats.skipped_keys(place) as f64,
        )
    }));
    registrations
}
