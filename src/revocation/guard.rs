//! The step of a request that asks whether its verified token is still live.
//!
//! Everything here is a few atomic loads and table look-ups. Knows nothing of how a refusal is worded.

use std::sync::Arc;
use std::time::Duration;

use crate::catalogue::Reason;
use crate::clock::{Clock, UnixSeconds};
use crate::rejection::Rejection;

use super::facts::FactKeys;
use super::freshness::{FeedState, Freshness};
use super::index::Hit;
use super::live::FEED_RETRY;
use super::status::{Status, StatusLists, StatusRef};

/// How the tokens of one issuer are checked.
#[derive(Clone, Debug)]
pub struct RevocationPolicy {
    /// The feeds that speak for the issuer; each of them can revoke.
    pub feeds: Vec<Arc<FeedState>>,
    /// The lists that its tokens refer to; `None`: what they refer to is not looked at.
    pub status_lists: Option<Arc<StatusLists>>,
    /// How long a feed, or the list of a token, may be silent.
    pub max_staleness: Duration,
    /// What happens when one has been silent for longer.
    pub when_stale: WhenStale,
}

/// What to do with tokens while a feed cannot be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenStale {
    /// Refuse them.
    Reject,
    /// Accept them, unless what is known revokes them.
    Accept,
    /// Accept those that were issued at most this long ago: the younger a token, the less likely it was revoked.
    AcceptIssuedWithin(Duration),
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RevocationVerdict {
    /// Nothing known revokes the token.
    Live {
        /// To be compared with [`RevocationPolicy::generation`] later: if that differs, check again.
        generation: u64,
        /// A feed could not be relied on, and the operator chose to accept that.
        stale_accepted: bool,
    },
    /// The token was revoked.
    Revoked(Hit),
    /// Whether it was cannot be told.
    Unavailable(Unavailable),
}

/// Why it cannot be told whether a token was revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// A feed was never loaded.
    NotLoaded,
    /// A feed was silent for too long.
    Stale,
}

impl RevocationPolicy {
    /// Whether a token with these facts is live. What is known to be revoked is refused however old the knowledge.
    pub fn check(&self, keys: &FactKeys, iat: Option<UnixSeconds>, clock: &Clock) -> RevocationVerdict {
        if self.feeds.is_empty() {
            return RevocationVerdict::Live { generation: self.generation(), stale_accepted: false };
        }
        // Before the look-up: a change that the look-up misses then shows as another generation.
        let generation = self.generation();
        let now = clock.wall();
        if let Some(hit) = self.feeds.iter().find_map(|feed| feed.index().check(keys, iat, now)) {
            return RevocationVerdict::Revoked(hit);
        }
        match self.unavailable(clock) {
            None => RevocationVerdict::Live { generation, stale_accepted: false },
            Some(_) if self.accepts_stale(iat, now) && !self.is_restoring() => {
                RevocationVerdict::Live { generation, stale_accepted: true }
            }
            Some(why) => RevocationVerdict::Unavailable(why),
        }
    }

    /// What the list says that the token refers to. To be asked after [`Self::check`], whose generation covers it.
    pub fn check_status(
        &self,
        status: &StatusRef,
        iat: Option<UnixSeconds>,
        clock: &Clock,
    ) -> Result<(), Rejection> {
        let unavailable = |why: Unavailable| {
            let is_unread = why == Unavailable::NotLoaded && status.list.is_restoring();
            if self.accepts_stale(iat, clock.wall()) && !is_unread {
                return Ok(());
            }
            Err(Rejection::new(why.reason())
                .log(format!("status list {}", status.list.uri()))
                .retry_after(FEED_RETRY))
        };
        match status.list.status(status.index, clock, self.max_staleness) {
            Status::Valid => Ok(()),
            Status::NotValid(value) => {
                Err(Rejection::new(Reason::Revoked).log(format!("its status list says {value}")))
            }
            Status::Stale => unavailable(Unavailable::Stale),
            Status::NotLoaded => unavailable(Unavailable::NotLoaded),
            Status::OutOfRange => Err(Rejection::new(Reason::ClaimInvalid).hint(
                "The token's place in its status list (status.status_list.idx) is beyond the list's end.",
            )),
        }
    }

    /// Changes whenever one of the feeds or lists changed. Comparable only within one policy: another one, as after a reload,
    /// calls for a new check.
    pub fn generation(&self) -> u64 {
        let lists = self.status_lists.as_ref().map_or(0, |lists| lists.generation());
        self.feeds.iter().fold(lists, |sum, feed| sum.wrapping_add(feed.index().generation()))
    }

    /// What is wrong with the feeds, if anything; the worst of them.
    pub fn unavailable(&self, clock: &Clock) -> Option<Unavailable> {
        let now = clock.monotonic();
        let mut worst = None;
        for feed in &self.feeds {
            match feed.freshness(now, self.max_staleness) {
                Freshness::NotLoaded => return Some(Unavailable::NotLoaded),
                Freshness::Stale { .. } => worst = Some(Unavailable::Stale),
                Freshness::Fresh { .. } => {}
            }
        }
        worst
    }

    /// Whether tokens may be revoked by what this gateway itself knows and has not read yet: that is no staleness, which
    /// an operator may choose to accept, but over soon.
    fn is_restoring(&self) -> bool {
        self.feeds.iter().any(|feed| feed.is_restoring())
    }

    fn accepts_stale(&self, iat: Option<UnixSeconds>, now: UnixSeconds) -> bool {
        match self.when_stale {
            WhenStale::Reject => false,
            WhenStale::Accept => true,
            WhenStale::AcceptIssuedWithin(age) => iat.is_some_and(|iat| iat.plus(age) >= now),
        }
    }
}

impl Unavailable {
    /// Its entry in the catalogue.
    pub fn reason(self) -> Reason {
        match self {
            Self::NotLoaded => Reason::FeedNotLoaded,
            Self::Stale => Reason::FeedStale,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Change, Entry, FactHasher, FactKind, Index, Target, TokenFacts};
    use super::*;

    const ISSUER: &str = "https://id.example.com/";
    const NOW: UnixSeconds = UnixSeconds(1_000_000);
    const IAT: Option<UnixSeconds> = Some(UnixSeconds(999_900));

    fn feed(hasher: &FactHasher) -> Arc<FeedState> {
        let index = Index::new(hasher.clone(), [ISSUER.to_owned()], Duration::ZERO, 100);
        Arc::new(FeedState::new("logout", index))
    }

    fn policy(feeds: &[&Arc<FeedState>], when_stale: WhenStale) -> RevocationPolicy {
        RevocationPolicy {
            feeds: feeds.iter().map(|feed| Arc::clone(feed)).collect(),
            status_lists: None,
            max_staleness: Duration::from_secs(60),
            when_stale,
        }
    }

    fn revoke_subject(before: Option<UnixSeconds>) -> Change {
        let target = Target::Sub("u1".to_owned());
        Change::Revoke(Entry { target, issuer: None, before, expires: None })
    }

    fn keys(hasher: &FactHasher) -> FactKeys {
        hasher.keys(&TokenFacts { issuer: ISSUER, sub: Some("u1"), ..TokenFacts::default() })
    }

    #[test]
    fn follows_when_stale_and_a_hit_always_wins() {
        use WhenStale::{Accept, AcceptIssuedWithin, Reject};
        let within = |seconds| AcceptIssuedWithin(Duration::from_secs(seconds));
        let cases = [
            (Reject, IAT, false),
            (Accept, IAT, true),
            (Accept, None, true),
            (within(100), IAT, true),
            (within(99), IAT, false),
            (within(100), None, false),
        ];
        for (when_stale, iat, accepted) in cases {
            let (clock, hand) = Clock::manual(NOW);
            let hasher = FactHasher::random();
            let feed = feed(&hasher);
            let policy = policy(&[&feed], when_stale);
            let stale_accepted = RevocationVerdict::Live { generation: 0, stale_accepted: true };

            feed.restores();
            let unknown = RevocationVerdict::Unavailable(Unavailable::NotLoaded);
            assert_eq!(policy.check(&keys(&hasher), iat, &clock), unknown, "being restored, {when_stale:?}");
            feed.restored();
            let expected = if accepted {
                stale_accepted
            } else {
                RevocationVerdict::Unavailable(Unavailable::NotLoaded)
            };
            assert_eq!(policy.check(&keys(&hasher), iat, &clock), expected, "not loaded, {when_stale:?}");

            feed.heard(clock.monotonic());
            let fresh = RevocationVerdict::Live { generation: 0, stale_accepted: false };
            assert_eq!(policy.check(&keys(&hasher), iat, &clock), fresh, "fresh, {when_stale:?}");

            hand.advance(Duration::from_secs(61));
            hand.jump_wall_to(NOW);
            let expected =
                if accepted { stale_accepted } else { RevocationVerdict::Unavailable(Unavailable::Stale) };
            assert_eq!(policy.check(&keys(&hasher), iat, &clock), expected, "stale, {when_stale:?}");

            feed.index().apply(&revoke_subject(None)).unwrap();
            let revoked = RevocationVerdict::Revoked(Hit { kind: FactKind::Sub, before: None });
            assert_eq!(policy.check(&keys(&hasher), iat, &clock), revoked, "revoked, {when_stale:?}");
        }
    }

    #[test]
    fn each_feed_can_revoke_and_each_must_be_fresh() {
        let (clock, _) = Clock::manual(NOW);
        let hasher = FactHasher::random();
        let (one, other) = (feed(&hasher), feed(&hasher));
        let policy = policy(&[&one, &other], WhenStale::Reject);
        one.heard(clock.monotonic());
        let not_loaded = RevocationVerdict::Unavailable(Unavailable::NotLoaded);
        assert_eq!(policy.check(&keys(&hasher), IAT, &clock), not_loaded);

        other.heard(clock.monotonic());
        let before = policy.generation();
        other.index().apply(&revoke_subject(Some(NOW))).unwrap();
        assert_ne!(policy.generation(), before);
        let hit = Hit { kind: FactKind::Sub, before: Some(NOW) };
        assert_eq!(policy.check(&keys(&hasher), IAT, &clock), RevocationVerdict::Revoked(hit));
        let live = policy.check(&keys(&hasher), Some(NOW), &clock);
        assert_eq!(live, RevocationVerdict::Live { generation: policy.generation(), stale_accepted: false });
    }

    #[test]
    fn without_feeds_every_token_is_live() {
        let (clock, _) = Clock::manual(NOW);
        let verdict = policy(&[], WhenStale::Reject).check(&keys(&FactHasher::random()), None, &clock);
        assert_eq!(verdict, RevocationVerdict::Live { generation: 0, stale_accepted: false });
    }
}
