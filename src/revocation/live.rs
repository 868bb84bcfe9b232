//! A verified token with its facts, and what it becomes when nothing revokes it.

use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;

use super::facts::{FactHasher, FactKeys, TokenFacts};
use super::guard::{RevocationPolicy, RevocationVerdict};
use super::index::Hit;
use super::status::StatusRef;
use crate::catalogue::Reason;
use crate::clock::Clock;
use crate::rejection::Rejection;
use crate::token::{IssuerId, VerifiedToken};

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

    /// The id of the key that signed the token; an opaque one has none.
    pub fn key_id(&self) -> Option<&str> {
        self.candidate.token.key()?.kid()
    }
}

impl Deref for LiveToken {
    type Target = VerifiedToken;

    fn deref(&self) -> &VerifiedToken {
        &self.candidate.token
    }
}

/// The revocation policies of all issuers.
#[derive(Debug)]
pub struct RevocationPolicies {
    hasher: FactHasher,
    by_issuer: Vec<Arc<RevocationPolicy>>,
}

impl RevocationPolicies {
    /// The policies in the order of the issuers' ids. The hasher must be the one of the policies' indexes.
    pub fn new(hasher: FactHasher, by_issuer: Vec<Arc<RevocationPolicy>>) -> Self {
        Self { hasher, by_issuer }
    }

    /// Gets a verified token ready for checks.
    ///
    /// # Errors
    /// The token refers to a status list that cannot be asked: see [`StatusLists::resolve`](super::StatusLists::resolve).
    pub fn candidate(&self, token: VerifiedToken) -> Result<Candidate, Rejection> {
        let policy = self.policy(token.issuer().id)?;
        let status = match &policy.status_lists {
            Some(lists) => lists.resolve(&token)?,
            None => None,
        };
        let claims = token.claims();
        let facts = self.hasher.keys(&TokenFacts {
            issuer: &token.issuer().url,
            jti: claims.token_id(),
            sid: claims.session(),
            sub: claims.subject(),
            client: claims.client(),
            kid: token.key().and_then(|key| key.kid()),
            iat: token.issued_at(),
        });
        Ok(Candidate { token, facts, status })
    }

    /// Waits until what the token needs was looked up at least once. Immediately ready but for the first token of a
    /// status list.
    pub async fn prepare(&self, candidate: &Candidate) {
        let Some(status) = candidate.status.as_ref().filter(|status| !status.list.was_tried()) else {
            return;
        };
        let policy = self.policy(candidate.token.issuer().id).ok();
        if let Some(lists) = policy.and_then(|policy| policy.status_lists.as_ref()) {
            status.list.first_try(lists.wait()).await;
        }
    }

    /// The token as a live one, unless it was revoked or that cannot be told.
    pub fn admit(&self, candidate: Rc<Candidate>, clock: &Clock) -> Result<LiveToken, Rejection> {
        let policy = self.policy(candidate.token.issuer().id)?;
        match policy.check(&candidate.facts, candidate.token.issued_at(), clock) {
            RevocationVerdict::Live { generation, .. } => {
                if let Some(status) = &candidate.status {
                    policy.check_status(status, candidate.token.issued_at(), clock)?;
                }
                Ok(LiveToken { candidate, generation })
            }
            RevocationVerdict::Revoked(hit) => {
                Err(Rejection::new(Reason::Revoked).log(format!("revoked by {}", hit.kind.name())))
            }
            RevocationVerdict::Unavailable(why) => Err(Rejection::new(why.reason()).retry_after(FEED_RETRY)),
        }
    }

    /// Whether a token that was live as of `generation` still is: the generation to ask with next time, or the fact
    /// that revokes it. Costs a comparison while no feed has changed. Staleness is not looked at: what was let in
    /// stays until something is known against it.
    pub fn recheck(&self, token: &LiveToken, generation: u64, clock: &Clock) -> Result<u64, Option<Hit>> {
        let policy = self.policy(token.issuer().id).map_err(|_| None)?;
        if policy.generation() == generation {
            return Ok(generation);
        }
        match policy.check(&token.candidate.facts, token.issued_at(), clock) {
            RevocationVerdict::Live { generation, .. } => {
                let status = token.candidate.status.as_ref();
                let refused =
                    status.and_then(|status| policy.check_status(status, token.issued_at(), clock).err());
                match refused {
                    Some(refused) if refused.reason() == Reason::Revoked => Err(None),
                    _ => Ok(generation),
                }
            }
            RevocationVerdict::Revoked(hit) => Err(Some(hit)),
            RevocationVerdict::Unavailable(_) => Ok(generation),
        }
    }

    /// An issuer without a policy is a defect, and closes.
    fn policy(&self, issuer: IssuerId) -> Result<&RevocationPolicy, Rejection> {
        let missing = || Rejection::new(Reason::Internal).log("the issuer has no revocation policy");
        self.by_issuer.get(usize::from(issuer.0)).map(|policy| &**policy).ok_or_else(missing)
    }
}
