//! What the data plane holds of one issuer's keys, and the port through which a feed fills it.
//!
//! Readers take a snapshot without a lock; a reader that misses a key may ask for one more look, which all of them
//! share. Knows neither HTTP nor where keys come from.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use tokio::sync::{Notify, watch};

use super::KeySet;
use super::unknown::UnknownKids;
use crate::clock::{Clock, Monotonic};

/// The time limits of one issuer's keys.
#[derive(Clone, Copy, Debug)]
pub struct KeySourceSettings {
    /// How long keys serve on after the last successful refresh.
    pub max_stale: Duration,
    /// Between two refreshes that unknown keys ask for: a flood of bogus ones must not reach the provider.
    pub cooldown: Duration,
    /// How long a key that the provider was just found not to have is not asked for again.
    pub unknown_kid_ttl: Duration,
    /// How long requests wait for a refresh: counted from its begin, for all of them together.
    pub wait: Duration,
}

impl Default for KeySourceSettings {
    fn default() -> Self {
        Self {
            max_stale: Duration::from_secs(24 * 60 * 60),
            cooldown: Duration::from_secs(5),
            unknown_kid_ttl: Duration::from_secs(30),
            wait: Duration::from_secs(3),
        }
    }
}

/// The keys of one issuer, as of a moment.
#[derive(Clone, Debug, Default)]
pub struct KeyState {
    set: Option<Arc<KeySet>>,
    generation: u64,
    expires: Monotonic,
    last_error: Option<String>,
}

impl KeyState {
    /// The keys, unless there are none yet or the last successful refresh is too long ago.
    pub fn keys(&self, now: Monotonic) -> Option<&Arc<KeySet>> {
        self.set.as_ref().filter(|_| now < self.expires)
    }

    /// The keys, however long ago they were last confirmed.
    pub fn latest(&self) -> Option<&Arc<KeySet>> {
        self.set.as_ref()
    }

    /// The number of these keys: another one means other keys. A verdict that was reached with keys of this
    /// generation holds only while this answers the same, and `None` (see [`Self::keys`]) never holds.
    pub fn generation(&self, now: Monotonic) -> Option<u64> {
        self.keys(now).map(|_| self.generation)
    }

    /// Whether these are the keys of that generation, usable or not.
    pub fn is_of(&self, generation: Option<u64>) -> bool {
        self.set.is_some() && generation == Some(self.generation)
    }

    /// When the keys stop being used if no refresh succeeds.
    pub fn expires(&self) -> Option<Monotonic> {
        self.set.as_ref().map(|_| self.expires)
    }

    /// Why the last refresh failed; `None` after one that succeeded.
    pub fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }
}

/// What came of asking for another look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookAgain {
    /// The keys are as the provider has them now, or had them within the cooldown: what is still unknown is
    /// unknown to the provider.
    Refreshed,
    /// The provider could not be asked: nothing can be said of the key.
    Failed,
    /// The provider does not answer in time, or is known for it: nothing can be said of the key.
    TimedOut,
}

/// The readers' side.
#[derive(Debug)]
pub struct KeySource {
    state: ArcSwap<KeyState>,
    clock: Clock,
    settings: KeySourceSettings,
    progress: watch::Sender<Progress>,
    asked: Notify,
    asks: AtomicU64,
    /// Held for a look-up at a time, and only by those who miss a key.
    unknown: Mutex<UnknownKids>,
}

/// How far refreshing has come.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    /// Since when a refresh is asked for or under way, so that one is going to complete.
    pending: Option<Monotonic>,
    /// The last refresh took longer than requests wait for one.
    slow: bool,
    completed: u64,
    /// Whether the last refresh succeeded; `None` before the first.
    good: Option<bool>,
    last_ask: Option<Monotonic>,
    /// The feed is gone: nobody will complete anything.
    closed: bool,
}

/// The feed's side. Dropping it tells readers that nobody refreshes any more.
#[derive(Debug)]
pub struct KeyFeedHandle(Arc<KeySource>);

impl KeySource {
    /// A source without keys, and the handle that fills it.
    pub fn new(clock: Clock, settings: KeySourceSettings) -> (Arc<Self>, KeyFeedHandle) {
        let source = Arc::new(Self {
            state: ArcSwap::default(),
            clock,
            settings,
            progress: watch::Sender::new(Progress::default()),
            asked: Notify::new(),
            asks: AtomicU64::new(0),
            unknown: Mutex::new(UnknownKids::new(settings.unknown_kid_ttl)),
        });
        (Arc::clone(&source), KeyFeedHandle(source))
    }

    /// Of an issuer that signs nothing: every key is unknown, and nobody is asked for it.
    pub fn of_none(clock: Clock) -> Arc<Self> {
        let settings = KeySourceSettings { max_stale: Duration::MAX, ..KeySourceSettings::default() };
        let (source, handle) = Self::new(clock, settings);
        handle.publish(KeySet::default());
        source
    }

    /// The keys at this moment; lock-free. Not to be held across an await.
    pub fn current(&self) -> Guard<Arc<KeyState>> {
        self.state.load()
    }

    /// Asks for a refresh because a token names a key that is not known, or no keys are there, and waits for its
    /// end. All askers share one refresh, and there is at most one per cooldown: within it, the outcome of the last
    /// refresh answers at once, and so it is for longer with the very `kid` that it did not bring. A refresh that is
    /// already under way is joined.
    ///
    /// A refresh is waited for only while it is younger than [`KeySourceSettings::wait`]: a provider that hangs costs
    /// those who come later nothing. While it is known to be slow, nobody joins its refreshes, so that the wait is that
    /// of one asker in a cooldown, the one that has the provider asked.
    pub async fn look_again(&self, kid: Option<&str>) -> LookAgain {
        self.asks.fetch_add(1, Ordering::Relaxed);
        let mut progress = self.progress.subscribe();
        let before = *progress.borrow();
        let now = self.clock.monotonic();
        if before.good == Some(true) && kid.is_some_and(|kid| self.unknown_kids().contains(kid, now)) {
            return LookAgain::Refreshed;
        }
        if before.pending.is_none() && (before.closed || self.cooling_down(before, now)) {
            return before.verdict();
        }
        let asked = before.pending.is_none() && self.ask(now);
        let left = self.settings.wait.saturating_sub(before.age(now));
        if left.is_zero() || (before.slow && !asked) {
            return LookAgain::TimedOut;
        }
        let ended = progress.wait_for(|now| now.completed != before.completed || now.closed);
        match tokio::time::timeout(left, ended).await {
            Ok(Ok(after)) => {
                self.note_unknown(kid, *after);
                after.verdict()
            }
            Ok(Err(_)) => LookAgain::Failed,
            Err(_) => LookAgain::TimedOut,
        }
    }

    fn note_unknown(&self, kid: Option<&str>, after: Progress) {
        let now = self.clock.monotonic();
        let has = |kid: &str| self.current().keys(now).is_none_or(|keys| keys.has_kid(kid));
        if let Some(kid) = kid.filter(|kid| after.good == Some(true) && !has(kid)) {
            self.unknown_kids().insert(kid, now);
        }
    }

    fn unknown_kids(&self) -> MutexGuard<'_, UnknownKids> {
        self.unknown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long ago the keys were last fetched or confirmed, a copy from before a restart included; `None` before the
    /// first time.
    pub fn age(&self, now: Monotonic) -> Option<Duration> {
        let fresh_until = self.current().expires()?;
        Some(now.0.saturating_add(self.settings.max_stale).saturating_sub(fresh_until.0))
    }

    /// How often a refresh was asked for, granted or not.
    pub fn asks(&self) -> u64 {
        self.asks.load(Ordering::Relaxed)
    }

    /// The time limits.
    pub fn settings(&self) -> KeySourceSettings {
        self.settings
    }

    fn cooling_down(&self, progress: Progress, now: Monotonic) -> bool {
        progress.last_ask.is_some_and(|last| last.until(now) < self.settings.cooldown)
    }

    /// Whether this asker is the one that has the provider asked.
    fn ask(&self, now: Monotonic) -> bool {
        let first = self.progress.send_if_modified(|progress| {
            // Another asker may have been faster; joining its refresh needs no second one.
            if progress.pending.is_some() || progress.closed || self.cooling_down(*progress, now) {
                return false;
            }
            progress.pending = Some(now);
            progress.last_ask = Some(now);
            true
        });
        if first {
            self.asked.notify_one();
        }
        first
    }

    fn store(&self, change: impl FnOnce(&mut KeyState)) {
        let mut next = KeyState::clone(&self.state.load());
        change(&mut next);
        self.state.store(Arc::new(next));
    }

    fn complete(&self, good: bool) {
        let now = self.clock.monotonic();
        self.progress.send_modify(|progress| {
            progress.slow = progress.age(now) >= self.settings.wait;
            progress.pending = None;
            progress.completed = progress.completed.wrapping_add(1);
            progress.good = Some(good);
        });
    }
}

impl Progress {
    /// Of the refresh that is under way.
    fn age(self, now: Monotonic) -> Duration {
        self.pending.map_or(Duration::ZERO, |since| since.until(now))
    }

    fn verdict(self) -> LookAgain {
        if self.good == Some(true) { LookAgain::Refreshed } else { LookAgain::Failed }
    }
}

impl KeyFeedHandle {
    /// Resolves when a reader asked for a refresh. Cancel-safe.
    pub async fn asked(&self) {
        self.0.asked.notified().await;
    }

    /// A refresh begins: askers join it. It must end by [`Self::publish`], [`Self::confirm`] or [`Self::fail`].
    pub fn begin(&self) {
        let now = self.0.clock.monotonic();
        // One that was asked for began when it was.
        self.0.progress.send_modify(|progress| progress.pending = progress.pending.or(Some(now)));
    }

    /// The refresh brought this set. Whether it differs from the one before: only then the generation moves on.
    pub fn publish(&self, set: KeySet) -> bool {
        let changed = self.replace(set, Duration::ZERO);
        self.0.complete(true);
        changed
    }

    /// The refresh found the keys unchanged.
    pub fn confirm(&self) {
        let source = &self.0;
        let expires = Monotonic(source.clock.monotonic().0.saturating_add(source.settings.max_stale));
        source.store(|state| {
            state.expires = expires;
            state.last_error = None;
        });
        source.complete(true);
    }

    /// The refresh failed; the keys at hand serve on until they expire.
    pub fn fail(&self, error: String) {
        self.0.store(|state| state.last_error = Some(error));
        self.0.complete(false);
    }

    /// Keys that are `age` old already, from before a restart. This is no refresh: who asks for another look still
    /// waits for one. Whether they are young enough to be used.
    pub fn restore(&self, set: KeySet, age: Duration) -> bool {
        let usable = age < self.0.settings.max_stale;
        if usable {
            self.replace(set, age);
        }
        usable
    }

    /// What readers see.
    pub fn source(&self) -> &Arc<KeySource> {
        &self.0
    }

    fn replace(&self, set: KeySet, age: Duration) -> bool {
        let source = &self.0;
        let left = source.settings.max_stale.saturating_sub(age);
        let expires = Monotonic(source.clock.monotonic().0.saturating_add(left));
        let changed = !source.current().set.as_ref().is_some_and(|known| known.same_keys(&set));
        source.store(|state| {
            if changed {
                state.set = Some(Arc::new(set));
                state.generation = state.generation.wrapping_add(1);
            }
            state.expires = expires;
            state.last_error = None;
        });
        if changed {
            // A provider that has begun to rotate may publish the next key any moment.
            source.unknown_kids().clear();
        }
        changed
    }
}

impl Drop for KeyFeedHandle {
    fn drop(&mut self) {
        self.0.progress.send_modify(|progress| {
            progress.pending = None;
            progress.closed = true;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ClockHand, UnixSeconds};
    use crate::keys::testing::Signer;

    const SECOND: Duration = Duration::from_secs(1);

    fn source() -> (Arc<KeySource>, KeyFeedHandle, ClockHand) {
        let (clock, hand) = Clock::manual(UnixSeconds(1_800_000_000));
        let (source, handle) = KeySource::new(clock, KeySourceSettings::default());
        (source, handle, hand)
    }

    fn set(signer: &Signer) -> KeySet {
        KeySet::new(vec![signer.named_key(Some("k"))])
    }

    /// Asks in the background; returns once the ask is waiting.
    async fn asking(source: &Arc<KeySource>) -> tokio::task::JoinHandle<LookAgain> {
        let source = Arc::clone(source);
        let task = tokio::spawn(async move { source.look_again(None).await });
        tokio::task::yield_now().await;
        task
    }

    fn was_asked(handle: &KeyFeedHandle) -> bool {
        let mut asked = std::pin::pin!(handle.asked());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        asked.as_mut().poll(&mut context).is_ready()
    }

    #[test]
    fn the_generation_moves_only_when_the_keys_do() {
        let (source, handle, _) = source();
        let now = Monotonic::default();
        assert_eq!(source.current().generation(now), None);
        let (a, b) = (Signer::p256(), Signer::p256());
        assert!(handle.publish(set(&a)));
        let first = source.current().generation(now);
        assert!(first.is_some());
        assert!(!handle.publish(set(&a)));
        handle.confirm();
        handle.fail("down".to_owned());
        assert_eq!(source.current().generation(now), first);
        assert!(handle.publish(set(&b)));
        assert_ne!(source.current().generation(now), first);
    }

    #[test]
    fn keys_serve_until_max_stale_after_the_last_success() {
        let (source, handle, hand) = source();
        let usable = || source.current().keys(source.clock.monotonic()).is_some();
        handle.publish(set(&Signer::p256()));
        hand.advance(SECOND * 60 * 60 * 23);
        handle.fail("down".to_owned());
        assert!(usable());
        assert_eq!(source.current().last_error(), Some("down"));
        handle.confirm();
        assert_eq!(source.current().last_error(), None);
        hand.advance(SECOND * 60 * 60 * 23);
        assert!(usable(), "a confirmation counts as a refresh");
        hand.advance(SECOND * 60 * 60);
        assert!(!usable());
        assert_eq!(source.current().generation(source.clock.monotonic()), None);
        handle.confirm();
        assert!(usable());
    }

    #[test]
    fn restored_keys_count_with_their_age() {
        let (source, handle, hand) = source();
        assert!(!handle.restore(set(&Signer::p256()), SECOND * 60 * 60 * 24));
        assert!(source.current().expires().is_none());
        assert!(handle.restore(set(&Signer::p256()), SECOND * 60 * 60 * 23));
        hand.advance(SECOND * 60 * 59);
        assert!(source.current().keys(source.clock.monotonic()).is_some());
        hand.advance(SECOND * 60);
        assert!(source.current().keys(source.clock.monotonic()).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn all_askers_share_one_refresh() {
        let (source, handle, _) = source();
        let one = asking(&source).await;
        let two = asking(&source).await;
        assert!(was_asked(&handle));
        assert!(!was_asked(&handle), "two asks, one refresh");
        handle.begin();
        let three = asking(&source).await;
        handle.publish(set(&Signer::p256()));
        for task in [one, two, three] {
            assert_eq!(task.await.unwrap(), LookAgain::Refreshed);
        }
        assert!(!was_asked(&handle));
        assert_eq!(source.asks(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn within_the_cooldown_the_last_outcome_answers_at_once() {
        let (source, handle, hand) = source();
        for (good, expected) in [(true, LookAgain::Refreshed), (false, LookAgain::Failed)] {
            let ask = asking(&source).await;
            assert!(was_asked(&handle));
            handle.begin();
            if good {
                handle.publish(set(&Signer::p256()));
            } else {
                handle.fail("down".to_owned());
            }
            assert_eq!(ask.await.unwrap(), expected);
            for _ in 0..100 {
                assert_eq!(source.look_again(None).await, expected);
            }
            hand.advance(SECOND * 4);
            assert_eq!(source.look_again(None).await, expected);
            assert!(!was_asked(&handle));
            hand.advance(SECOND);
        }
        let _ask = asking(&source).await;
        assert!(was_asked(&handle), "the cooldown is over");
    }

    #[tokio::test(start_paused = true)]
    async fn a_scheduled_refresh_neither_uses_up_the_cooldown_nor_is_asked_for_twice() {
        let (source, handle, _) = source();
        handle.begin();
        let joined = asking(&source).await;
        assert!(!was_asked(&handle), "one is under way");
        handle.publish(set(&Signer::p256()));
        assert_eq!(joined.await.unwrap(), LookAgain::Refreshed);
        let _ask = asking(&source).await;
        assert!(
            was_asked(&handle),
            "a key that appears right after a scheduled refresh is found on first sight"
        );
    }

    /// Whether an ask is answered without waiting: at the first look.
    fn at_once(source: &Arc<KeySource>) -> Option<LookAgain> {
        let mut look = std::pin::pin!(source.look_again(Some("another")));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match look.as_mut().poll(&mut context) {
            std::task::Poll::Ready(outcome) => Some(outcome),
            std::task::Poll::Pending => None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_refresh_that_hangs_is_waited_for_once() {
        let (source, handle, hand) = source();
        let first = asking(&source).await;
        assert!(was_asked(&handle));
        handle.begin();
        hand.advance(SECOND);
        let second = asking(&source).await;
        hand.advance(SECOND * 2);
        assert_eq!(first.await.unwrap(), LookAgain::TimedOut);
        assert_eq!(second.await.unwrap(), LookAgain::TimedOut);
        for _ in 0..1000 {
            assert_eq!(at_once(&source), Some(LookAgain::TimedOut), "the bound is that of the refresh");
        }
        handle.publish(set(&Signer::p256()));
        assert_eq!(at_once(&source), Some(LookAgain::Refreshed), "its outcome counts, however late it came");
    }

    #[tokio::test(start_paused = true)]
    async fn while_the_provider_is_slow_only_who_has_it_asked_waits() {
        let (source, handle, hand) = source();
        handle.begin();
        hand.advance(SECOND * 3);
        handle.fail("took too long".to_owned());
        handle.begin();
        assert_eq!(at_once(&source), Some(LookAgain::TimedOut), "a retry is not waited for");
        handle.fail("took too long".to_owned());
        assert_eq!(at_once(&source), None, "it was quick this time, and may be waited for");
        assert!(was_asked(&handle));

        hand.advance(SECOND * 3);
        handle.fail("took too long".to_owned());
        assert_eq!(at_once(&source), Some(LookAgain::Failed), "within the cooldown");
        hand.advance(SECOND * 2);
        let asker = asking(&source).await;
        assert!(was_asked(&handle), "one has the provider asked");
        assert_eq!(at_once(&source), Some(LookAgain::TimedOut), "nobody else waits");
        handle.publish(set(&Signer::p256()));
        assert_eq!(asker.await.unwrap(), LookAgain::Refreshed);
        handle.begin();
        assert_eq!(at_once(&source), None, "it is quick again");
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_feed_nobody_waits() {
        let (source, handle, _) = source();
        let waiting = asking(&source).await;
        drop(handle);
        assert_eq!(waiting.await.unwrap(), LookAgain::Failed);

        let (source, handle, _) = self::source();
        handle.publish(set(&Signer::p256()));
        drop(handle);
        assert_eq!(source.look_again(None).await, LookAgain::Refreshed, "fixed keys are all there are");
    }
}
