//! The background task that follows the status lists that tokens of one issuer refer to.
//!
//! Each list is fetched when the first token names it, then ahead of the end of its life (`ttl`, `exp`), and again and
//! again while that fails; whatever is published, a good list is replaced by a good one only. Knows nothing of requests.

mod document;
mod kept;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::{JoinSet, spawn_blocking};
use tracing::{info, warn};
use url::Url;

use super::back_off::{Chance, after_failure};
use super::fetch::{FetchClient, FetchError, FetchRequest, FetchSettings, Fetched};
use super::kept::{KeptCopy, Moment};
use super::signed::{SignatureError, SignedBy};
use crate::clock::{Clock, Monotonic, UnixSeconds};
use crate::keys::{Algorithm, KeySource};
use crate::revocation::{StatusList, StatusListCopy, StatusLists, TrackedList, WantedLists};
use crate::token::json_object;
use document::{Document, DocumentError, Expected};
use kept::KeptList;
pub use kept::tidy_status_lists;

/// What is needed to follow the lists of one issuer.
#[derive(Clone, Debug)]
pub struct StatusListFeedSettings {
    /// The issuer's name in the configuration, for logs.
    pub name: String,
    /// Who must have made a list, if it says who; `None`: whoever holds the keys.
    pub issuer: Option<String>,
    /// How to fetch them.
    pub fetch: FetchSettings,
    /// How often, when a list does not say, and at least.
    pub refresh_interval: Duration,
    /// The largest list, inflated, in bytes.
    pub max_size: u64,
    /// The algorithms that lists may be signed with.
    pub algorithms: Vec<Algorithm>,
    /// Where lists are kept over a restart; none: nowhere.
    pub state_dir: Option<PathBuf>,
}

/// Numbers for metrics.
#[derive(Debug, Default)]
pub struct StatusListStats {
    /// Fetches that brought or confirmed a list.
    pub refreshes_ok: AtomicU64,
    /// Fetches that failed.
    pub refreshes_failed: AtomicU64,
}

/// The task of one issuer: made by [`Self::new`], then driven by [`Self::run`].
pub struct StatusListFeed {
    lists: Arc<StatusLists>,
    wanted: WantedLists,
    follower: Follower,
}

/// What the tasks of all lists share. Cheap to clone.
#[derive(Clone)]
struct Follower {
    lists: Arc<StatusLists>,
    name: Arc<str>,
    issuer: Option<Arc<str>>,
    client: FetchClient,
    signed_by: SignedBy,
    refresh_interval: Duration,
    max_size: u64,
    state_dir: Option<Arc<PathBuf>>,
    places: Arc<Semaphore>,
    stats: Arc<StatusListStats>,
}

#[derive(Debug, thiserror::Error)]
enum RefreshError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("it is not used: {0}")]
    Document(#[from] DocumentError),
    #[error("its URI is none")]
    NoUrl,
    #[error("it could not be inflated")]
    Stopped,
}

/// So many lists are fetched at a time: they may be large.
const AT_A_TIME: usize = 4;
/// However short-lived a list calls itself.
const LEAST_PAUSE: Duration = Duration::from_secs(1);
const MEDIA_TYPE: &str = "application/statuslist+jwt";

/// The list in claims whose signature was found good; `size` bounds it, inflated.
///
/// # Errors
/// Why it is none.
pub fn parse_status_list(
    claims: &[u8],
    uri: &str,
    size: u64,
    now: UnixSeconds,
) -> Result<StatusList, String> {
    let expected = Expected { uri, issuer: None, max_size: size, now, may_be_over: false };
    let read = document::read(json_object(claims)?, &expected);
    read.map(|document| document.list).map_err(|error| error.to_string())
}

impl StatusListFeed {
    /// The task that fetches `wanted` lists into `lists`, signed by one of `keys`.
    ///
    /// # Errors
    /// A certificate or key file cannot be used.
    pub fn new(
        settings: StatusListFeedSettings,
        (lists, wanted): (Arc<StatusLists>, WantedLists),
        keys: Arc<KeySource>,
        clock: Clock,
    ) -> Result<Self, FetchError> {
        let follower = Follower {
            lists: Arc::clone(&lists),
            name: settings.name.into(),
            issuer: settings.issuer.map(Into::into),
            client: FetchClient::new(&settings.fetch)?,
            signed_by: SignedBy { keys, algorithms: settings.algorithms, clock },
            refresh_interval: settings.refresh_interval,
            max_size: settings.max_size,
            state_dir: settings.state_dir.map(Arc::new),
            places: Arc::new(Semaphore::new(AT_A_TIME)),
            stats: Arc::default(),
        };
        Ok(Self { lists, wanted, follower })
    }

    /// The numbers for metrics.
    pub fn stats(&self) -> Arc<StatusListStats> {
        Arc::clone(&self.follower.stats)
    }

    /// The lists that it follows.
    pub fn lists(&self) -> Arc<StatusLists> {
        Arc::clone(&self.lists)
    }

    /// Follows lists until it is dropped.
    pub async fn run(mut self) {
        let mut following = JoinSet::new();
        loop {
            tokio::select! {
                Some(_) = following.join_next() => {}
                wanted = self.wanted.recv() => {
                    let Some(list) = wanted else { return };
                    following.spawn(self.follower.clone().follow(list));
                }
            }
        }
    }
}

impl Follower {
    /// Keeps one list current for as long as a token may refer to it.
    async fn follow(self, list: Arc<TrackedList>) {
        let (mut etag, mut failures, mut noted) = (None, 0_u32, None);
        let mut kept = self.state_dir.as_deref().map(|directory| {
            KeptList::new(directory, &self.name, list.uri(), self.max_size, &self.signed_by.clock)
        });
        loop {
            if let Some(kept) = &mut kept {
                list.restores(kept.copy.is_being_read());
                self.restore(&list, kept).await;
                list.restores(kept.copy.is_being_read());
            }
            let begun = self.signed_by.clock.monotonic();
            let refreshed = self.refresh(&list, &mut etag, kept.as_mut().map(|kept| &mut kept.copy)).await;
            let pause = match refreshed {
                Ok(lifetime) => {
                    self.stats.refreshes_ok.fetch_add(1, Ordering::Relaxed);
                    failures = 0;
                    if noted.take().is_some() {
                        info!(issuer = &*self.name, uri = list.uri(), "a status list is refreshed again");
                    }
                    lifetime * 8 / 10 + Chance::draw().of(lifetime / 10)
                }
                Err(error) => {
                    self.tried(&list, begun);
                    self.stats.refreshes_failed.fetch_add(1, Ordering::Relaxed);
                    failures = failures.saturating_add(1);
                    let message = error.to_string();
                    if noted.as_ref() != Some(&message) {
                        warn!(
                            issuer = &*self.name,
                            uri = list.uri(),
                            error = message,
                            "a status list cannot be refreshed"
                        );
                        noted = Some(message);
                    }
                    after_failure(failures, Chance::draw())
                }
            };
            tokio::time::sleep(pause).await;
            if !self.lists.keeps(&list, self.signed_by.clock.wall()) {
                if let Some(kept) = kept {
                    kept.copy.remove();
                }
                return;
            }
        }
    }

    /// Puts the copy from before a restart in force, which counts with its age and proves itself as an answer does. Once,
    /// unless there are no keys to prove it by.
    async fn restore(&self, list: &TrackedList, kept: &mut KeptList) {
        if !list.is_empty() {
            kept.restored = None;
            return;
        }
        let Some(restored) = kept.restored(&self.signed_by.clock).await else { return };
        let (age, heard) = (restored.age, restored.read_at);
        match self.read(list, &restored.text, true).await {
            Ok(document) => {
                info!(
                    issuer = &*self.name,
                    uri = list.uri(),
                    age = age.as_secs(),
                    "a status list starts from a stored copy"
                );
                let (issued_at, expires) = (document.issued_at, document.expires);
                let list_read = Arc::new(document.list);
                self.lists.publish(list, StatusListCopy { list: list_read, heard, age, issued_at, expires });
            }
            Err(RefreshError::Document(DocumentError::Signature(SignatureError::NoKeys))) => return,
            Err(error) => {
                warn!(issuer = &*self.name, uri = list.uri(), %error, "the copy of a status list is not used");
            }
        }
        kept.restored = None;
    }

    /// The list in this text, if its signature is good.
    async fn read(
        &self,
        list: &TrackedList,
        text: &[u8],
        may_be_over: bool,
    ) -> Result<Document, RefreshError> {
        let claims = self.signed_by.claims(text, "statuslist+jwt").await.map_err(DocumentError::from)?;
        let (uri, issuer, max_size) = (list.uri().to_owned(), self.issuer.clone(), self.max_size);
        let now = self.signed_by.clock.wall();
        // Inflating takes a while: other sources wait for this thread.
        let read = spawn_blocking(move || {
            let issuer = issuer.as_deref();
            document::read(claims, &Expected { uri: &uri, issuer, max_size, now, may_be_over })
        });
        Ok(read.await.map_err(|_| RefreshError::Stopped)??)
    }

    /// One fetch; how long the list lasts.
    async fn refresh(
        &self,
        list: &TrackedList,
        remembered: &mut Option<(String, Duration)>,
        kept: Option<&mut KeptCopy>,
    ) -> Result<Duration, RefreshError> {
        let url = Url::parse(list.uri()).map_err(|_| RefreshError::NoUrl)?;
        let etag = remembered.as_ref().map(|(etag, _)| etag.as_str());
        let request = FetchRequest { accept: MEDIA_TYPE, etag, ..FetchRequest::default() };
        let asked = Moment::now(&self.signed_by.clock);
        let asked_at = asked.monotonic;
        // The semaphore is never closed.
        let place = self.places.acquire().await;
        let fetched = self.client.get(&url, request).await?;
        let (head, body) = match fetched {
            Fetched::NotModified(_) => {
                list.confirm(asked_at);
                self.tried(list, asked_at);
                if let Some(kept) = kept {
                    kept.keep(None, asked);
                }
                return Ok(remembered.as_ref().map_or(self.refresh_interval, |(_, lifetime)| *lifetime));
            }
            Fetched::Full { head, body } => (head, body),
        };
        let document = self.read(list, &body, false).await?;
        drop(place);
        // A replay, or a mirror that is behind: it would lift what the newer one revoked.
        if list.issued_at().is_some_and(|known| document.issued_at < known) {
            return Err(DocumentError::Older.into());
        }
        let lifetime = self.lifetime(&document);
        *remembered = head.etag.map(|etag| (etag, lifetime));
        self.lists.publish(
            list,
            StatusListCopy {
                list: Arc::new(document.list),
                heard: asked_at,
                age: Duration::ZERO,
                issued_at: document.issued_at,
                expires: document.expires,
            },
        );
        self.tried(list, asked_at);
        if let Some(kept) = kept {
            kept.keep(Some(body), asked);
        }
        Ok(lifetime)
    }

    /// Those who wait for the list go on.
    fn tried(&self, list: &TrackedList, asked_at: Monotonic) {
        self.lists.tried(list, asked_at.until(self.signed_by.clock.monotonic()));
    }

    /// Until when the list counts, by what it says of itself, within what is configured.
    fn lifetime(&self, document: &Document) -> Duration {
        let now = self.signed_by.clock.wall();
        let left = document.expires.map(|expires| {
            Duration::from_secs(u64::try_from(expires.0.saturating_sub(now.0)).unwrap_or_default())
        });
        let shortest = document.ttl.into_iter().chain(left).min().unwrap_or(self.refresh_interval);
        shortest.min(self.refresh_interval).max(LEAST_PAUSE.min(self.refresh_interval))
    }
}
