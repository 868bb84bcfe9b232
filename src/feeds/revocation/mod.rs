//! The background task that keeps one revocation feed's index current (docs/revocation-feed.md).
//!
//! ```text
//! http | file | valkey | nats -> document (parse, stage) -> replica (judge) -> keeper (on record) -> index (in force)
//! ```
//!
//! Whatever the source answers, the last good state stays in force until a better one is there; how old it is, the
//! data plane sees in the [`FeedState`]. Knows nothing of tokens and requests.

mod document;
mod error;
mod file;
mod file_engine;
mod http;
mod http_engine;
mod keeper;
mod lag;
mod local;
mod nats;
mod pace;
mod replica;
mod signed;
mod stats;
mod store;
mod told;
mod valkey;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ::http::HeaderValue;
use tracing::{info, warn};
use url::Url;

use super::fetch::{FetchError, FetchSettings};
use super::nats::NatsConnector;
use super::valkey::ValkeyConnector;
use crate::clock::{Clock, Monotonic};
use crate::config::settings::{Nats, Valkey};
use crate::feeds::back_off::{Chance, after_failure};
use crate::revocation::{FactHasher, FeedState, Index};

pub use document::{lift_line, parse_change, parse_revocation, revocation_line};
use error::SyncError;
use file::FileSource;
pub use file_engine::FileEngine;
use http::HttpSource;
pub use http_engine::HttpEngine;
pub use lag::Lag;
pub use nats::NatsEngine;
use nats::NatsSource;
pub(super) use pace::after_long_poll;
use replica::{Replica, RestoredCopy, Taken};
use signed::Signed;
pub use signed::{SignedSettings, open_signed};
pub use stats::RevocationFeedStats;
use store::Store;
pub use store::{load_fact_hasher, read_forged_copy};
pub use told::{Told, ToldFeedSettings};
pub use valkey::ValkeyEngine;
use valkey::{Keys, ValkeySource};
pub use writer::{Currency, FeedWriter};

/// What one feed needs to be kept current.
#[derive(Clone, Debug)]
pub struct RevocationFeedSettings {
    /// Its name in the configuration, for logs and for the files of its copy.
    pub name: String,
    /// Where it is.
    pub source: RevocationSource,
    /// How often to ask: revocations arrive within this, and sooner with long poll.
    pub interval: Duration,
    /// The issuers that it speaks for, spelled as in their tokens' `iss`.
    pub issuers: Vec<String>,
    /// The largest leeway of these issuers: entries stay in force for so long after their end.
    pub leeway: Duration,
    /// The most entries to hold, at up to 39 bytes each; a feed with more counts as failing.
    pub max_entries: usize,
    /// Where to keep a copy for a restart while the source is down.
    pub state_dir: Option<PathBuf>,
}

/// Where a feed is.
#[derive(Clone, Debug)]
pub enum RevocationSource {
    /// The documented HTTP feed.
    Http {
        /// Its URL; `cursor` and `wait` are added to the query.
        url: Url,
        /// How long the server may hold an answer back until there is news. Less than `max_staleness`, since a held
        /// back answer says nothing; and the server answers at the latest then.
        long_poll: Option<Duration>,
        /// The value of `Authorization`.
        authorization: Option<HeaderValue>,
        /// What its answers must prove; `None` where the transport proves it.
        signed: Option<Box<SignedSettings>>,
        /// How to fetch it; `max_bytes` must allow for a snapshot, see [`DEFAULT_MAX_BYTES`].
        fetch: Box<FetchSettings>,
    },
    /// The same document in a file, always a snapshot.
    File {
        /// The file; replaced by renaming.
        path: PathBuf,
        /// The largest file to read.
        max_bytes: u64,
    },
    /// A list in a Valkey or Redis.
    Valkey {
        /// Where it is.
        valkey: Box<Valkey>,
        /// What the names of its keys begin with.
        prefix: String,
    },
    /// A key-value bucket of NATS `JetStream`.
    Nats {
        /// Where it is.
        nats: Box<Nats>,
        /// Its name.
        bucket: String,
    },
}

/// How often to ask when neither long poll nor the configuration says.
pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(5);
/// How often to look at a file: a revocation stops tokens within a second.
pub const DEFAULT_FILE_INTERVAL: Duration = Duration::from_secs(1);
/// Ten million entries.
pub const DEFAULT_MAX_BYTES: u64 = 1 << 30;
/// Some 800 megabytes in memory; three times that for moments while a snapshot is exchanged.
pub const DEFAULT_MAX_ENTRIES: usize = 20_000_000;

/// Puts a document in force in `index`, and says how many of its entries are of use: the format on its own, for those
/// who want to try a document without a server. Whether a delta fits what was before it is not asked.
///
/// # Errors
/// What is wrong with the document, or that `index` is full.
pub fn apply_document(document: &[u8], index: &Index) -> Result<usize, String> {
    let document = document::parse(document, index.stage()).map_err(|error| error.to_string())?;
    let staged = document.entries.staged;
    match document.kind {
        document::Kind::Snapshot => index.replace(&staged),
        document::Kind::Delta => drop(index.merge(&staged).map_err(|full| full.to_string())?),
    }
    Ok(staged.revocations())
}

/// The task of one feed: made by [`Self::new`], then driven by [`Self::run`]. Dropping it ends the updates; the state
/// ages on.
pub struct RevocationFeed {
    replica: Replica,
    source: Source,
    interval: Duration,
    failures: u32,
    noted: Option<String>,
    forgot_at: Monotonic,
}

enum Source {
    Http(Box<HttpSource>),
    File(FileSource),
    Valkey(Box<ValkeySource>),
    Nats(Box<NatsSource>),
}

/// When to ask again after a success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// The source itself holds back until there is something.
    AtOnce,
    /// The same, for a source that may answer in a tight loop.
    Soon,
    /// The source has to be asked.
    AfterInterval,
}

impl RevocationFeed {
    /// The feed, with nothing loaded. `hasher` is the process's one, see [`load_fact_hasher`].
    ///
    /// # Errors
    /// A certificate that the settings name cannot be used.
    pub fn new(
        settings: RevocationFeedSettings,
        hasher: FactHasher,
        clock: Clock,
    ) -> Result<Self, FetchError> {
        let RevocationFeedSettings { name, source, interval, issuers, leeway, max_entries, state_dir } =
            settings;
        let index = Index::new(hasher, issuers, leeway, max_entries);
        let (source, place) = match source {
            RevocationSource::Http { url, long_poll, authorization, signed, fetch } => {
                let place = url.to_string();
                let kept = state_dir.as_deref().map(|directory| (directory, store::file_stem(&name)));
                let kept = kept.as_ref().map(|(directory, stem)| (*directory, stem.as_str()));
                let signed = signed.map(|signed| Signed::new(*signed, clock.clone(), kept));
                let http = HttpSource::new(url, authorization, long_poll, signed, &fetch)?;
                (Source::Http(Box::new(http)), place)
            }
            RevocationSource::File { path, max_bytes } => {
                let place = path.display().to_string();
                (Source::File(FileSource::new(path, max_bytes)), place)
            }
            RevocationSource::Valkey { valkey, prefix } => {
                let keys = Keys::new(&prefix);
                let connector = ValkeyConnector::new(*valkey, &prefix);
                let place = format!("{} {prefix}", connector.place());
                (Source::Valkey(Box::new(ValkeySource::new(connector, keys))), place)
            }
            RevocationSource::Nats { nats, bucket } => {
                let connector = NatsConnector::new(*nats, bucket);
                let place = connector.place();
                (Source::Nats(Box::new(NatsSource::new(connector))), place)
            }
        };
        let store = state_dir.map(|directory| Store::new(&directory, &name, &place, &index));
        let forgot_at = clock.monotonic();
        let state = Arc::new(FeedState::new(name, index));
        if store.is_some() {
            state.restores();
        }
        let replica = Replica::new(state, clock, store);
        Ok(Self { replica, source, interval, failures: 0, noted: None, forgot_at })
    }

    /// The readers' side.
    pub fn state(&self) -> Arc<FeedState> {
        Arc::clone(&self.replica.state)
    }

    /// The numbers for metrics.
    pub fn stats(&self) -> Arc<RevocationFeedStats> {
        Arc::clone(&self.replica.stats)
    }

    /// Brings back the copy in the state directory, if there is one. Until that is done nobody is let in, whatever
    /// `when_stale` says, so that what was revoked before a restart is revoked after it. The feed does not count as
    /// loaded by it until the source has failed: what was revoked meanwhile would otherwise be accepted by a gateway that
    /// is only about to ask.
    pub async fn restore(&mut self) {
        self.replica.restore().await;
        self.replica.state.restored();
    }

    /// Keeps the index current until it is dropped.
    pub async fn run(mut self) {
        let restored = self.replica.restored();
        let asking = async {
            loop {
                let pause = self.step().await;
                tokio::time::sleep(pause).await;
            }
        };
        let relying = async {
            tokio::time::sleep(CATCH_UP).await;
            restored.iter().for_each(RestoredCopy::rely_on);
        };
        tokio::join!(asking, relying);
    }

    /// Asks the source once; the pause until the next time.
    async fn step(&mut self) -> Duration {
        let asked_at = self.replica.clock.monotonic();
        let pause = match self.sync().await {
            Ok(next) => {
                self.succeeded();
                match next {
                    Next::AtOnce => Duration::ZERO,
                    Next::Soon => pace::after_long_poll(asked_at.until(self.replica.clock.monotonic())),
                    Next::AfterInterval => pace::after_success(self.interval, Chance::draw()),
                }
            }
            Err(error) if error.is_gone() && self.failures == 0 => {
                // The server's way to ask for a new beginning; counted so that it is followed at once only once.
                self.failures = 1;
                pace::LEAST_PAUSE
            }
            Err(error) => self.failed(&error),
        };
        let now = self.replica.clock.monotonic();
        if self.forgot_at.until(now) >= FORGET_EVERY {
            self.forgot_at = now;
            self.replica.forget_expired().await;
        }
        pause
    }

    async fn sync(&mut self) -> Result<Next, SyncError> {
        let replica = &mut self.replica;
        replica.asks();
        match &mut self.source {
            Source::Http(http) => {
                let (_, at_once) = http.sync(replica).await?;
                Ok(if at_once { Next::Soon } else { Next::AfterInterval })
            }
            Source::File(file) => file.sync(replica).await.map(|_: Taken| Next::AfterInterval),
            Source::Valkey(valkey) => valkey.sync(replica).await.map(|_: Taken| Next::AtOnce),
            Source::Nats(nats) => nats.sync(replica).await.map(|_: Taken| Next::AtOnce),
        }
    }

    fn succeeded(&mut self) {
        self.failures = 0;
        if self.noted.take().is_some() {
            let feed = self.replica.state.name();
            info!(feed, "the revocation feed {feed} is heard again");
        }
    }

    fn failed(&mut self, error: &SyncError) -> Duration {
        self.failures = self.failures.saturating_add(1);
        self.replica.rely_on_copy();
        RevocationFeedStats::add(&self.replica.stats.failures, 1);
        let message = error.to_string();
        if self.noted.as_ref() != Some(&message) {
            let feed = self.replica.state.name();
            let state = if self.replica.state.is_loaded() {
                "what is known stays in force and ages"
            } else {
                "nothing is loaded, so whether its issuers' tokens are revoked is unknown"
            };
            warn!(feed, error = message, "the revocation feed {feed} cannot be heard: {state}");
            self.noted = Some(message);
        }
        match self.source {
            Source::Http(_) | Source::Valkey(_) | Source::Nats(_) => {
                after_failure(self.failures, Chance::draw())
            }
            Source::File(_) => pace::after_success(self.interval, Chance::draw()),
        }
    }
}

const FORGET_EVERY: Duration = Duration::from_secs(60);
/// How long a copy from disk waits for what came after it. A source that is silent must not keep a gateway from serving
/// by what it has.
const CATCH_UP: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests;
