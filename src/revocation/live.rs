//! A verified token with its facts, and what it becomes when nothing revokes it.

use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;

use super::facts::{FactHasher, FactKeys, TokenFacts};
use super::freshness::{FeedState, Freshness};
use super::guard::{RevocationPolicy, RevocationVerdict};
use super::index::Hit;
use super::status::StatusRef;
use crate::catalogue::Reason;
use crate::clock::{Clock, UnixSeconds};
use crate::rejection::Rejection;
use crate::token::{Claims, Issuer, VerifiedToken};

/// What a client is told to wait for a feed that cannot be relied on.
pub(super) const FEED_RETRY: std::time::Duration = std::time::Duration::from_secs(5);

/// A verified token, not yet checked for revocation, with its facts hashed once and for all.
#[derive(Clone, Debug)]
pub struct Candidate {
    token: VerifiedToken,
    facts: FactKeys,
    status: Option<StatusRef>,
}

impl Candidate {
    /// The token.
    pub fn token(&self) -> &VerifiedToken {
        &self.token
    }

    /// Whether there is nothing that must be looked up first: see [`RevocationPolicies::prepare`].
    pub fn is_ready(&self) -> bool {
        self.status.as_ref().is_none_or(|status| status.list.was_tried())
    }
}

/// A verified token that nothing known revoked at the time of the request. Made by [`RevocationPolicies::admit`]
/// alone, for one request; cheap to clone within its core.
#[derive(Clone, Debug)]
pub struct LiveToken {
    candidate: Rc<Candidate>,
    generation: u64,
}

impl LiveToken {
    /// The state of the revocation knowledge that this token was checked against.
    pub fn generation(&self) -> u64 {
        self.generation
    }
}

impl Deref for LiveToken {
    type Target = VerifiedToken;

    fn deref(&self) -> &VerifiedToken {
        &self.candidate.token
    }
}

/// What the feeds of an issuer say of a token.
#[derive(Debug)]
pub struct Survey {
    /// What would become of it.
    pub outcome: Result<(), Rejection>,
    /// What each says.
    pub feeds: Vec<Surveyed>,
}

/// What one feed says of a token.
#[derive(Debug)]
pub struct Surveyed {
    /// Which feed.
    pub feed: Arc<FeedState>,
    /// How current it is, by the issuer's policy.
    pub freshness: Freshness,
    /// Why the token is revoked, if it is.
    pub hit: Option<Hit>,
}

/// The revocation policies of all issuers.
#[derive(Debug)]
pub struct RevocationPolicies {
    hasher: FactHasher,
    epoch: u64,
    by_issuer: Vec<(Arc<Issuer>, RevocationPolicy)>,
}

impl RevocationPolicies {
    /// The policies in the order of the issuers' ids. The hasher must be the one of the policies' indexes. `epoch`
    /// tells these policies from those of an earlier configuration.
    pub fn new(hasher: FactHasher, epoch: u64, by_issuer: Vec<(Arc<Issuer>, RevocationPolicy)>) -> Self {
        Self { hasher, epoch, by_issuer }
    }

    /// Gets a verified token ready for checks.
    ///
    /// # Errors
    /// The token refers to a status list that cannot be asked: see [`StatusLists::resolve`](super::StatusLists::resolve).
    pub fn candidate(&self, token: VerifiedToken) -> Result<Candidate, Rejection> {
        let policy = self.policy(token.issuer())?;
        let status = match &policy.status_lists {
            Some(lists) => lists.resolve(&token)?,
            None => None,
        };
        let facts = facts(token.issuer(), token.claims(), token.key_id(), token.issued_at());
        let facts = self.hasher.keys(&facts);
        Ok(Candidate { token, facts, status })
    }

    /// Waits until what the token needs was looked up at least once. Immediately ready but for the first token of a
    /// status list.
    pub async fn prepare(&self, candidate: &Candidate, clock: &Clock) {
        let Some(status) = candidate.status.as_ref().filter(|_| !candidate.is_ready()) else { return };
        let policy = self.policy(candidate.token.issuer()).ok();
        if let Some(lists) = policy.and_then(|policy| policy.status_lists.as_ref()) {
            lists.first_try(&status.list, clock.monotonic()).await;
        }
    }

    /// The token as a live one, unless it was revoked or that cannot be told.
    pub fn admit(&self, candidate: Rc<Candidate>, clock: &Clock) -> Result<LiveToken, Rejection> {
        let policy = self.policy(candidate.token.issuer())?;
        let verdict = policy.check(&candidate.facts, candidate.token.issued_at(), clock);
        let generation = self.stamp(generation(verdict)?);
        if let Some(status) = &candidate.status {
            policy.check_status(status, candidate.token.issued_at(), clock)?;
        }
        Ok(LiveToken { candidate, generation })
    }

    /// What would become of a token with these claims, and what each feed says of it: for an operator who asks why.
    /// The claims need not be verified, so that nothing can be let through on the strength of it.
    pub fn survey(&self, issuer: &Issuer, claims: &Claims, kid: Option<&str>, clock: &Clock) -> Survey {
        let policy = match self.policy(issuer) {
            Ok(policy) => policy,
            Err(defect) => return Survey { outcome: Err(defect), feeds: Vec::new() },
        };
        let iat = claims.issued_at().ok().flatten();
        let facts = self.hasher.keys(&facts(issuer, claims, kid, iat));
        let feeds = policy.feeds.iter().map(|feed| Surveyed {
            feed: Arc::clone(feed),
            freshness: feed.freshness(clock.monotonic(), policy.max_staleness),
            hit: feed.index().check(&facts, iat, clock.wall()),
        });
        let outcome = generation(policy.check(&facts, iat, clock)).and_then(|_| {
            match policy.status_lists.as_ref().map(|lists| lists.known(claims)).transpose()?.flatten() {
                Some(status) => policy.check_status(&status, iat, clock),
                None => Ok(()),
            }
        });
        Survey { feeds: feeds.collect(), outcome }
    }

    /// Whether a token that was live as of `generation` still is: the generation to ask with next time, or the fact
    /// that revokes it. Costs a comparison while no feed has changed. Staleness is not looked at: what was let in
    /// stays until something is known against it. A token from before the last change of configuration is judged by
    /// the feeds that its issuer has now; if it is not an issuer any more, nothing vouches for the token.
    pub fn recheck(&self, token: &LiveToken, generation: u64, clock: &Clock) -> Result<u64, Option<Hit>> {
        let policy = self.policy(token.issuer()).map_err(|_| None)?;
        if self.stamp(policy.generation()) == generation {
            return Ok(generation);
        }
        let next = match policy.check(&token.candidate.facts, token.issued_at(), clock) {
            RevocationVerdict::Live { generation, .. } => self.stamp(generation),
            RevocationVerdict::Revoked(hit) => return Err(Some(hit)),
            // Its status list may still know; and as long as the feed does not, it is asked again.
            RevocationVerdict::Unavailable(_) => generation,
        };
        // Looked up anew: after a reload other lists may be followed.
        match policy.status_lists.as_ref().map(|lists| lists.resolve(token)) {
            Some(Ok(Some(status))) => match policy.check_status(&status, token.issued_at(), clock) {
                Err(refused) if refused.reason() == Reason::Revoked => Err(None),
                _ => Ok(next),
            },
            // There is no room for its list yet. When there is, no generation tells.
            Some(Err(refused)) if refused.reason() == Reason::FeedNotLoaded => Ok(generation),
            _ => Ok(next),
        }
    }

    /// The policy of this issuer, which may be one of an earlier configuration and have stood at another place. That a
    /// request's issuer has none is a defect, and closes.
    fn policy(&self, issuer: &Issuer) -> Result<&RevocationPolicy, Rejection> {
        let same = |(ours, _): &&(Arc<Issuer>, RevocationPolicy)| ours.url == issuer.url;
        let at_its_place = self.by_issuer.get(usize::from(issuer.id.0)).filter(same);
        let missing = || Rejection::new(Reason::Internal).log("the issuer has no revocation policy");
        let found = at_its_place.or_else(|| self.by_issuer.iter().find(same));
        found.map(|(_, policy)| policy).ok_or_else(missing)
    }

    /// A generation that no other configuration's policies have, unless a feed changes 2^40 times.
    fn stamp(&self, generation: u64) -> u64 {
        generation.wrapping_add(self.epoch << 40)
    }
}

fn facts<'t>(
    issuer: &'t Issuer,
    claims: &'t Claims,
    kid: Option<&'t str>,
    iat: Option<UnixSeconds>,
) -> TokenFacts<'t> {
    TokenFacts {
        issuer: &issuer.url,
        jti: claims.token_id(),
        sid: claims.session(),
        sub: claims.subject(),
        client: claims.client(),
        kid,
        iat,
    }
}

/// The generation that a live token was checked against, or why it is none.
fn generation(verdict: RevocationVerdict) -> Result<u64, Rejection> {
    match verdict {
        RevocationVerdict::Live { generation, .. } => Ok(generation),
        RevocationVerdict::Revoked(hit) => {
            Err(Rejection::new(Reason::Revoked).log(format!("revoked by {}", hit.kind.name())))
        }
        RevocationVerdict::Unavailable(why) => Err(Rejection::new(why.reason()).retry_after(FEED_RETRY)),
    }
}

#[cfg(test)]
mod tests;
