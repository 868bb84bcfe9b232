//! Token Status Lists as the data plane sees them, and the port through which a feed fills them
//! (draft-ietf-oauth-status-list-21).
//!
//! A token refers to a list and an index in it. The reference is resolved once, when the token is verified; from then
//! on its status is a read of a few bits. Knows neither HTTP nor signatures.

mod list;
mod tracked;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc;
use url::Url;

use crate::catalogue::Reason;
use crate::clock::{Monotonic, UnixSeconds};
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
    /// How long requests wait for a list that was never fetched: counted from the first of them, for all together.
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
    /// The last fetch took longer than requests wait for one.
    is_slow: AtomicBool,
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
        let lists = Self {
            settings,
            lists: Mutex::default(),
            wanted,
            generation: AtomicU64::new(0),
            is_slow: AtomicBool::new(false),
        };
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

    /// Resolves once fetching the list was tried, or is no longer waited for.
    ///
    /// All requests share [`StatusListSettings::wait`], so that a fetch that hangs costs those who come later nothing.
    /// While fetches are known to be slow, only the first that needs a new list waits for it.
    pub async fn first_try(&self, list: &TrackedList, now: Monotonic) {
        list.first_try(now, self.settings.wait, self.is_slow.load(Ordering::Relaxed)).await;
    }

    /// Fetching the list was tried, and took so long: whoever waits for that goes on.
    pub fn tried(&self, list: &TrackedList, took: Duration) {
        self.is_slow.store(took >= self.settings.wait, Ordering::Relaxed);
        list.tried();
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

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::clock::{Clock, ClockHand};

    const WAIT: Duration = Duration::from_secs(3);

    struct Publisher {
        lists: Arc<StatusLists>,
        _wanted: WantedLists,
        clock: Clock,
        hand: ClockHand,
    }

    impl Publisher {
        fn new() -> Self {
            let settings =
                StatusListSettings { allowed: Vec::new(), required: false, max_lists: 10, wait: WAIT };
            let (lists, wanted) = StatusLists::new(settings);
            let (clock, hand) = Clock::manual(UnixSeconds(1_800_000_000));
            Self { lists, _wanted: wanted, clock, hand }
        }

        fn list(&self, uri: &str) -> Arc<TrackedList> {
            self.lists.track(uri, UnixSeconds(1_900_000_000)).unwrap()
        }

        /// Waits in the background; returns once it does.
        async fn waiting(&self, list: &Arc<TrackedList>) -> tokio::task::JoinHandle<()> {
            let (lists, list, now) = (Arc::clone(&self.lists), Arc::clone(list), self.clock.monotonic());
            let task = tokio::spawn(async move { lists.first_try(&list, now).await });
            tokio::task::yield_now().await;
            task
        }

        /// Whether a request goes on at the first look.
        fn goes_on(&self, list: &TrackedList) -> bool {
            let mut look = pin!(self.lists.first_try(list, self.clock.monotonic()));
            look.as_mut().poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_fetch_that_hangs_is_waited_for_once() {
        let publisher = Publisher::new();
        let list = publisher.list("a");
        let first = publisher.waiting(&list).await;
        publisher.hand.advance(WAIT / 3);
        let second = publisher.waiting(&list).await;
        assert!(!first.is_finished() && !second.is_finished());
        // The second began with less time left, so that it goes on first.
        tokio::select! {
            biased;
            _ = first => panic!("the second waits longer than what is left of the first one's"),
            second = second => second.unwrap(),
        }
        publisher.hand.advance(WAIT);
        for _ in 0..1000 {
            assert!(publisher.goes_on(&list), "the bound is that of all together");
        }
        assert!(!publisher.goes_on(&publisher.list("b")), "of another list nothing is known yet");
    }

    #[tokio::test(start_paused = true)]
    async fn while_fetches_are_slow_only_the_first_who_needs_a_list_waits() {
        let publisher = Publisher::new();
        publisher.lists.tried(&publisher.list("a"), WAIT);
        let list = publisher.list("b");
        let first = publisher.waiting(&list).await;
        assert!(!first.is_finished(), "so that it has an answer if the publisher is quick again");
        assert!(publisher.goes_on(&list), "nobody else waits");
        publisher.lists.tried(&list, WAIT / 2);
        first.await.unwrap();
        let third = publisher.list("c");
        let both = [publisher.waiting(&third).await, publisher.waiting(&third).await];
        assert!(both.iter().all(|waits| !waits.is_finished()), "it is quick again");
    }
}
