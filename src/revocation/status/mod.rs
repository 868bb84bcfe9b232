//! Token Status Lists as the data plane sees them, and the port through which a feed fills them
//! (draft-ietf-oauth-status-list-21).
//!
//! A token refers to a list and an index in it. The reference is resolved once, when the token is verified; from then
//! on its status is a read of a few bits. Knows neither HTTP nor signatures.

mod list;
mod tracked;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc;
use url::Url;

use crate::catalogue::Reason;
use crate::clock::UnixSeconds;
use crate::rejection::Rejection;
use crate::token::{Claims, VerifiedToken};
pub use list::StatusList;
pub use tracked::{Copy, Status, TrackedList};

/// Which lists are followed, and how many.
#[derive(Clone, Debug)]
pub struct StatusListSettings {
    /// Where lists may be: whole URLs, or beginnings that end in `/`.
    pub allowed: Vec<Url>,
    /// Whether every token must name a list.
    pub required: bool,
    /// How many lists are followed at a time; at least one.
    pub max_lists: usize,
    /// How long a request waits for a list that was never fetched.
    pub wait: Duration,
}

/// The lists that the tokens of one issuer refer to.
#[derive(Debug)]
pub struct StatusLists {
    settings: StatusListSettings,
    /// Locked when a token is verified, never when it is let in again.
    lists: Mutex<HashMap<Box<str>, Arc<TrackedList>>>,
    wanted: mpsc::Sender<Arc<TrackedList>>,
    generation: AtomicU64,
}

/// The feed's side: the lists that it is to follow, as tokens bring them up.
pub type WantedLists = mpsc::Receiver<Arc<TrackedList>>;

/// A token's place in a list.
#[derive(Clone, Debug)]
pub struct StatusRef {
    /// The list.
    pub list: Arc<TrackedList>,
    /// The place.
    pub index: u64,
}

/// A list is followed for so long after the last token that refers to it has expired: more than any leeway.
const AFTERTIME: Duration = Duration::from_secs(600);

impl StatusLists {
    /// No lists yet, and where the feed hears of those that it is to follow.
    pub fn new(settings: StatusListSettings) -> (Arc<Self>, WantedLists) {
        let (wanted, receiver) = mpsc::channel(settings.max_lists.max(1));
        let lists = Self { settings, lists: Mutex::default(), wanted, generation: AtomicU64::new(0) };
        (Arc::new(lists), receiver)
    }

    /// The place that the token names; `None` if it names none and need not.
    ///
    /// # Errors
    /// The claim is malformed, missing though required, or names a list that may not be fetched; or more lists are in
    /// use than may be.
    pub fn resolve(&self, token: &VerifiedToken) -> Result<Option<StatusRef>, Rejection> {
        let Some((uri, index)) = self.reference(token.claims())? else { return Ok(None) };
        let list = self.track(uri, token.expires().plus(AFTERTIME))?;
        Ok(Some(StatusRef { list, index }))
    }

    /// The place that claims name which nobody has verified, if its list is followed already; `None` else. Nothing is
    /// fetched on the strength of it.
    ///
    /// # Errors
    /// As [`Self::resolve`].
    pub fn known(&self, claims: &Claims) -> Result<Option<StatusRef>, Rejection> {
        let Some((uri, index)) = self.reference(claims)? else { return Ok(None) };
        Ok(self.lists().get(uri).map(|list| StatusRef { list: Arc::clone(list), index }))
    }

    /// How long a request waits for a list that was never fetched.
    pub fn wait(&self) -> Duration {
        self.settings.wait
    }

    /// Changes whenever a list has.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Puts a fetched copy in force; an unchanged one counts as heard again.
    pub fn publish(&self, list: &TrackedList, copy: Copy) {
        let changed = list.replace(copy);
        if changed {
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Whether a token may still refer to the list at `now`; one that is no longer needed is forgotten.
    pub fn keeps(&self, list: &TrackedList, now: UnixSeconds) -> bool {
        // Under the lock, so that no token can want it in between.
        let mut lists = self.lists();
        let needed = list.is_needed(now);
        if !needed {
            lists.remove(list.uri());
        }
        needed
    }

    /// The lists that are followed.
    pub fn tracked(&self) -> Vec<Arc<TrackedList>> {
        self.lists().values().cloned().collect()
    }

    fn reference<'c>(&self, claims: &'c Claims) -> Result<Option<(&'c str, u64)>, Rejection> {
        let Some((uri, index)) = reference(claims)? else {
            if self.settings.required {
                return Err(Rejection::new(Reason::ClaimMissing)
                    .hint("The token lacks the claim status with a status_list."));
            }
            return Ok(None);
        };
        if !self.allows(uri) {
            return Err(Rejection::new(Reason::ClaimInvalid)
                .hint("The token refers to a status list that this gateway is not configured for.")
                .log(format!("status list {} is none of revocation.status_list.allowed", shortened(uri))));
        }
        Ok(Some((uri, index)))
    }

    fn track(&self, uri: &str, until: UnixSeconds) -> Result<Arc<TrackedList>, Rejection> {
        let mut lists = self.lists();
        if let Some(list) = lists.get(uri) {
            list.need_until(until);
            return Ok(Arc::clone(list));
        }
        let full = || {
            Rejection::new(Reason::FeedNotLoaded)
                .log("more status lists are in use than revocation.status_list.max_lists")
                .retry_after(Duration::from_secs(60))
        };
        if lists.len() >= self.settings.max_lists {
            return Err(full());
        }
        let list = Arc::new(TrackedList::new(uri, until));
        self.wanted.try_send(Arc::clone(&list)).map_err(|_| full())?;
        lists.insert(uri.into(), Arc::clone(&list));
        Ok(list)
    }

    /// A token must not choose where the gateway connects.
    fn allows(&self, uri: &str) -> bool {
        let Ok(url) = Url::parse(uri) else { return false };
        let is_within = |allowed: &Url| {
            let (allowed, url) = (allowed.as_str(), url.as_str());
            url == allowed || (allowed.ends_with('/') && url.starts_with(allowed))
        };
        url.fragment().is_none() && self.settings.allowed.iter().any(is_within)
    }

    fn lists(&self) -> MutexGuard<'_, HashMap<Box<str>, Arc<TrackedList>>> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The claim `status.status_list` (section 6.2): list and index.
fn reference(claims: &Claims) -> Result<Option<(&str, u64)>, Rejection> {
    let wrong = || {
        Rejection::new(Reason::ClaimInvalid)
            .hint("The token's claim status is not one of the Token Status List (idx and uri).")
    };
    let status = match claims.all().get("status") {
        None => return Ok(None),
        Some(Value::Object(status)) => status,
        Some(_) => return Err(wrong()),
    };
    let Some(list) = status.get("status_list") else { return Ok(None) };
    let uri = list.get("uri").and_then(Value::as_str);
    let index = list.get("idx").and_then(Value::as_u64);
    uri.zip(index).map(Some).ok_or_else(wrong)
}

fn shortened(text: &str) -> String {
    text.chars().take(200).collect()
}
