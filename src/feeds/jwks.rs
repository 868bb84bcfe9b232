//! The background task that keeps one issuer's keys current.
//!
//! It refreshes ahead of expiry, at once when the data plane misses a key, and again and again while the provider fails;
//! whatever the provider answers, good keys are replaced by good keys only. Knows nothing of tokens.

mod origin;
mod schedule;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tracing::{error, info, warn};

use super::discovery::DiscoveryError;
use super::fetch::{FetchError, FetchSettings};
use crate::clock::{Clock, Monotonic};
use crate::feeds::back_off::{Chance, after_failure};
use crate::feeds::kept::{KeptCopy, Moment};
use crate::feeds::stored::{Restored, Store, fingerprint};
use crate::keys::{
    Algorithm, JwksError, JwksLimits, KeyFeedHandle, KeySet, KeySource, KeySourceSettings, Kid, ParsedSet,
    SkippedKey, Unusable, parse_jwks,
};
pub use origin::KeyOrigin;
use origin::{Answer, Origin, RefreshError};
pub use schedule::RefreshIntervals;

/// What one issuer's keys need to be kept current.
#[derive(Clone, Debug)]
pub struct KeyFeedSettings {
    /// The issuer's name in the configuration, for logs.
    pub name: String,
    /// The issuer's identifier, as in the claim `iss`.
    pub issuer: String,
    /// Where the keys are.
    pub origin: KeyOrigin,
    /// How to fetch them. `max_bytes` bounds files too.
    pub fetch: FetchSettings,
    /// The algorithms that the issuer may use; keys that serve none of them are kept out.
    pub algorithms: Vec<Algorithm>,
    /// How often to refresh.
    pub intervals: RefreshIntervals,
    /// How long keys last, and how often and how long readers may ask.
    pub source: KeySourceSettings,
    /// Where to keep a copy for a restart while the provider is down.
    pub state_dir: Option<PathBuf>,
}

/// Why an issuer's keys cannot be kept current at all: mistakes of the configuration, not of the provider.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum KeyFeedError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Discovery(#[from] DiscoveryError),
    #[error("the inline keys cannot be used: {0}")]
    Inline(#[from] JwksError),
}

/// Numbers for metrics, written by the feed and read by anyone. How often a refresh was asked for is
/// [`KeySource::asks`].
#[derive(Debug)]
pub struct KeyFeedStats {
    /// Refreshes that succeeded, by 200 or 304.
    pub refreshes_ok: AtomicU64,
    /// Refreshes that failed.
    pub refreshes_failed: AtomicU64,
    /// Keys in use, as of the last set.
    pub keys: AtomicU64,
    skipped_keys: [AtomicU64; Unusable::NAMES.len()],
    last_success_millis: AtomicU64,
    next_refresh_millis: AtomicU64,
}

impl Default for KeyFeedStats {
    fn default() -> Self {
        Self {
            refreshes_ok: AtomicU64::new(0),
            refreshes_failed: AtomicU64::new(0),
            keys: AtomicU64::new(0),
            skipped_keys: Default::default(),
            last_success_millis: AtomicU64::new(NEVER),
            next_refresh_millis: AtomicU64::new(NEVER),
        }
    }
}

impl KeyFeedStats {
    /// When the last refresh succeeded; `None` if none has since the start.
    pub fn last_success(&self) -> Option<Monotonic> {
        let millis = self.last_success_millis.load(Ordering::Relaxed);
        (millis != NEVER).then(|| Monotonic(Duration::from_millis(millis)))
    }

    /// When the next refresh is due; `None` while one is under way, and where there is none.
    pub fn next_refresh(&self) -> Option<Monotonic> {
        let millis = self.next_refresh_millis.load(Ordering::Relaxed);
        (millis != NEVER).then(|| Monotonic(Duration::from_millis(millis)))
    }

    /// Keys that were skipped as of the last set, by the reason of this place in [`Unusable::NAMES`].
    pub fn skipped_keys(&self, reason: usize) -> u64 {
        self.skipped_keys.get(reason).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    fn skipped(&self, skipped: &[SkippedKey]) {
        for (count, name) in self.skipped_keys.iter().zip(Unusable::NAMES) {
            let skipped = skipped.iter().filter(|key| key.why.name() == name).count();
            count.store(skipped as u64, Ordering::Relaxed);
        }
    }

    fn due(&self, at: Option<Monotonic>) {
        let millis = at.and_then(|at| u64::try_from(at.0.as_millis()).ok()).unwrap_or(NEVER);
        self.next_refresh_millis.store(millis, Ordering::Relaxed);
    }

    fn succeeded(&self, now: Monotonic) {
        self.refreshes_ok.fetch_add(1, Ordering::Relaxed);
        let millis = u64::try_from(now.0.as_millis()).unwrap_or(NEVER - 1);
        self.last_success_millis.store(millis, Ordering::Relaxed);
    }
}

/// The task of one issuer: made by [`Self::new`], then driven by [`Self::run`]. Dropping it ends the refreshing; the
/// keys stay until they are too old.
pub struct KeyFeed {
    name: String,
    algorithms: Vec<Algorithm>,
    limits: JwksLimits,
    intervals: RefreshIntervals,
    origin: Origin,
    handle: KeyFeedHandle,
    copy: Option<KeptCopy>,
    clock: Clock,
    stats: Arc<KeyFeedStats>,
    noted: Noted,
    failures: u32,
}

/// What was logged last, so that each change is logged once and a retry never.
#[derive(Default)]
struct Noted {
    failure: Option<String>,
    skipped: Vec<SkippedKey>,
    leaked: Vec<Option<Kid>>,
}

impl KeyFeed {
    /// The feed, with the keys that are at hand: inline ones.
    ///
    /// # Errors
    /// See [`KeyFeedError`].
    pub fn new(settings: KeyFeedSettings, clock: Clock) -> Result<Self, KeyFeedError> {
        let mut source_settings = settings.source;
        if matches!(settings.origin, KeyOrigin::Inline(_)) {
            // They are as current as the configuration, for as long as that is in force.
            source_settings.max_stale = Duration::MAX;
        }
        let (_, handle) = KeySource::new(clock.clone(), source_settings);
        let limits = JwksLimits {
            bytes: usize::try_from(settings.fetch.max_bytes).unwrap_or(usize::MAX),
            ..JwksLimits::default()
        };
        let copy = settings.state_dir.as_deref().and_then(|directory| {
            let (origin, name) = (stored_origin(&settings)?, &settings.name);
            let store = Store::new(directory, "keys", name, origin, settings.fetch.max_bytes);
            Some(KeptCopy::new(store, "the keys of an issuer", name, clock.clone()))
        });
        let mut feed = Self {
            origin: Origin::new(settings.origin, &settings.issuer, &settings.fetch, &clock)?,
            name: settings.name,
            algorithms: settings.algorithms,
            limits,
            intervals: settings.intervals,
            handle,
            copy,
            clock,
            stats: Arc::default(),
            noted: Noted::default(),
            failures: 0,
        };
        if let Origin::Inline(jwks) = &feed.origin {
            let set = feed.parse(jwks)?;
            feed.note_oddities(&set);
            feed.publish(KeySet::new(set.keys));
            feed.stats.succeeded(feed.clock.monotonic());
        }
        Ok(feed)
    }

    /// The readers' side.
    pub fn source(&self) -> Arc<KeySource> {
        Arc::clone(self.handle.source())
    }

    /// The numbers for metrics.
    pub fn stats(&self) -> Arc<KeyFeedStats> {
        Arc::clone(&self.stats)
    }

    /// Has it begin with what the provider says. Where keys are in force already, the copy may be older than those: what
    /// was withdrawn since would be accepted again.
    pub fn forgo_copy(&mut self) {
        if let Some(copy) = &mut self.copy {
            copy.forgo();
        }
    }

    /// Puts the copy in the state directory in force, if there is one and nothing newer. A disk that does not answer is not
    /// waited for.
    pub async fn restore(&mut self) {
        if self.source().current().latest().is_some() {
            return;
        }
        let Some(copy) = &mut self.copy else { return };
        let Some(Restored { document, age }) = copy.restore().await else { return };
        match self.parse(&document) {
            Ok(set) => {
                let set = KeySet::new(set.keys);
                let (keys, seconds) = (set.len(), age.as_secs());
                if self.handle.restore(set, age) {
                    self.stats.keys.store(keys as u64, Ordering::Relaxed);
                    info!(
                        issuer = self.name,
                        keys,
                        age = seconds,
                        "the keys of {} start from a stored copy",
                        self.name
                    );
                } else {
                    warn!(
                        issuer = self.name,
                        age = seconds,
                        "the stored keys of {} are too old to be used",
                        self.name
                    );
                }
            }
            Err(error) => warn!(issuer = self.name, "the stored keys of {} are not used: {error}", self.name),
        }
    }

    /// Refreshes until it is dropped. Ends at once for inline keys.
    pub async fn run(mut self) {
        if matches!(self.origin, Origin::Inline(_)) {
            return;
        }
        loop {
            self.restore().await;
            self.stats.due(None);
            let pause = self.refresh().await;
            self.stats.due(Some(Monotonic(self.clock.monotonic().0.saturating_add(pause))));
            // An asked refresh stands in for the scheduled one: it is the same refresh, so nothing is put off.
            tokio::select! {
                biased;
                () = self.handle.asked() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// One refresh; the pause until the next.
    async fn refresh(&mut self) -> Duration {
        self.handle.begin();
        let max_age = match self.attempt().await {
            Ok(max_age) => max_age,
            Err(error) => return self.failed(&error),
        };
        self.stats.succeeded(self.clock.monotonic());
        self.failures = 0;
        if self.noted.failure.take().is_some() {
            info!(issuer = self.name, "the keys of {} are refreshed again", self.name);
        }
        match self.origin {
            Origin::File(_) => FILE_POLL,
            _ => self.intervals.after_success(max_age, Chance::draw()),
        }
    }

    async fn attempt(&mut self) -> Result<Option<Duration>, RefreshError> {
        let asked_at = Moment::now(&self.clock);
        match self.origin.fetch().await? {
            Answer::Unchanged { max_age } => {
                self.handle.confirm();
                if let Some(copy) = &mut self.copy {
                    copy.keep(None, asked_at);
                }
                Ok(max_age)
            }
            Answer::Document { bytes, max_age, etag } => {
                let set = self
                    .parse(&bytes)
                    .map_err(|cause| RefreshError::Set { place: self.origin.place(), cause })?;
                self.note_oddities(&set);
                self.publish(KeySet::new(set.keys));
                self.origin.accept(bytes.clone(), etag);
                if let Some(copy) = &mut self.copy {
                    copy.keep(Some(bytes), asked_at);
                }
                Ok(max_age)
            }
        }
    }

    fn parse(&self, bytes: &[u8]) -> Result<ParsedSet, JwksError> {
        parse_jwks(bytes, &self.algorithms, self.limits)
    }

    fn failed(&mut self, error: &RefreshError) -> Duration {
        let message = error.to_string();
        self.stats.refreshes_failed.fetch_add(1, Ordering::Relaxed);
        self.failures = self.failures.saturating_add(1);
        self.origin.forget();
        if self.noted.failure.as_ref() != Some(&message) {
            let state = if self.source().current().keys(self.clock.monotonic()).is_some() {
                "the last good keys serve on"
            } else {
                "there are no keys, so its tokens cannot be judged"
            };
            warn!(
                issuer = self.name,
                error = message,
                "the keys of {} cannot be refreshed: {state}",
                self.name
            );
            self.noted.failure = Some(message.clone());
        }
        self.handle.fail(message);
        match self.origin {
            Origin::File(_) => FILE_POLL,
            _ => after_failure(self.failures, Chance::draw()),
        }
    }

    fn publish(&mut self, set: KeySet) {
        let before = self.source().current().keys(self.clock.monotonic()).cloned().unwrap_or_default();
        for key in set.without(&before) {
            info!(
                issuer = self.name,
                kid = key.kid(),
                thumbprint = key.thumbprint().prefix(),
                algorithms = ?key.algorithms(),
                "{} signs with a new key",
                self.name
            );
        }
        for key in before.without(&set) {
            info!(
                issuer = self.name,
                kid = key.kid(),
                thumbprint = key.thumbprint().prefix(),
                "{} has withdrawn a key: its tokens are refused from now on",
                self.name
            );
        }
        self.stats.keys.store(set.len() as u64, Ordering::Relaxed);
        self.handle.publish(set);
    }

    fn note_oddities(&mut self, set: &ParsedSet) {
        self.stats.skipped(&set.skipped);
        if self.noted.skipped != set.skipped {
            for skipped in &set.skipped {
                warn!(issuer = self.name, "a key of {} is not used: {skipped}", self.name);
            }
            self.noted.skipped.clone_from(&set.skipped);
        }
        if self.noted.leaked != set.leaked {
            for kid in &set.leaked {
                error!(
                    issuer = self.name,
                    kid,
                    "{} publishes a PRIVATE key: whoever fetches it can sign tokens; have it replaced",
                    self.name
                );
            }
            self.noted.leaked.clone_from(&set.leaked);
        }
    }
}

/// What a stored copy must have come from to be used; `None` where a copy would be of no use.
fn stored_origin(settings: &KeyFeedSettings) -> Option<String> {
    let origin = match &settings.origin {
        KeyOrigin::JwksUrl(url) => format!("url {url}"),
        KeyOrigin::Discovery { document } => {
            format!("discovery {} {}", settings.issuer, document.as_ref().map_or("", |url| url.as_str()))
        }
        KeyOrigin::File(_) | KeyOrigin::Inline(_) => return None,
    };
    // Hashed, since a URL may hold what should not lie on disk.
    Some(fingerprint(origin.as_bytes()))
}

/// How soon a changed file is noticed.
const FILE_POLL: Duration = Duration::from_secs(2);
const NEVER: u64 = u64::MAX;
