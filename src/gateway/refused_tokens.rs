//! Tokens that this core refused a moment ago: a client that comes back with the same one, as those do that know no
//! better, costs little more than one that is let through.
//!
//! It holds refusals only, so that nothing gets past by it, and only those that the token itself is to blame for. What
//! can change while the token stays the same, as keys that have yet to arrive, revocations and the word of an issuer,
//! is judged each time. It belongs to one configuration, and forgets within [`KEPT`], so that a key or a clock that was
//! wrong until now is wrong no longer than that.

use std::cell::RefCell;
use std::time::Duration;

use super::verdict_cache::TokenKey;
use crate::catalogue::Reason;
use crate::clock::Monotonic;
use crate::rejection::Rejection;
use crate::token::{BearerToken, Fingerprint, IssuerSet};

/// How long a refusal is kept.
const KEPT: Duration = Duration::from_secs(1);

/// How many are kept: a power of two. Who sends many different tokens finds few of them again, and is judged each time.
const SLOTS: usize = 256;

/// A token that was refused.
#[derive(Clone, Debug)]
pub(super) struct RefusedBefore {
    pub rejection: Rejection,
    pub fingerprint: Fingerprint,
}

/// The refusals of one core under one configuration.
#[derive(Debug)]
pub(super) struct RefusedTokens(RefCell<Vec<Option<Slot>>>);

#[derive(Clone, Debug)]
struct Slot {
    key: TokenKey,
    trusted: IssuerSet,
    since: Monotonic,
    refused: RefusedBefore,
}

impl RefusedTokens {
    /// Without any.
    pub fn new() -> Self {
        Self(RefCell::new(vec![None; SLOTS]))
    }

    /// What the token was refused for just now, where the route trusted the same issuers.
    pub fn recall(&self, key: TokenKey, trusted: &IssuerSet, now: Monotonic) -> Option<RefusedBefore> {
        let slots = self.0.borrow();
        let slot = slots.get(key.slot(SLOTS))?.as_ref()?;
        let is_same = slot.key == key && slot.since.until(now) < KEPT && slot.trusted == *trusted;
        is_same.then(|| slot.refused.clone())
    }

    /// Keeps a refusal, if it is the token's own fault.
    pub fn keep(
        &self,
        key: TokenKey,
        token: BearerToken<'_>,
        trusted: &IssuerSet,
        now: Monotonic,
        rejection: &Rejection,
    ) {
        if !is_final(rejection.reason()) {
            return;
        }
        if let Some(slot) = self.0.borrow_mut().get_mut(key.slot(SLOTS)) {
            let refused = RefusedBefore { rejection: rejection.clone(), fingerprint: token.fingerprint() };
            *slot = Some(Slot { key, trusted: trusted.clone(), since: now, refused });
        }
    }
}

fn is_final(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::Malformed
            | Reason::Expired
            | Reason::SignatureMismatch
            | Reason::AlgorithmNotAllowed
            | Reason::IssuerNotTrusted
            | Reason::AudienceMismatch
            | Reason::WrongType
            | Reason::ClaimMissing
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{KEPT, RefusedTokens};
    use crate::catalogue::Reason;
    use crate::clock::{Clock, Monotonic, UnixSeconds};
    use crate::gateway::verdict_cache::{SharedVerdicts, TokenKey, VerdictCache};
    use crate::rejection::Rejection;
    use crate::token::{BearerToken, IssuerId, IssuerSet, Presented};

    fn token() -> BearerToken<'static> {
        BearerToken::new("a.b.c").unwrap()
    }

    fn key(token: BearerToken<'_>) -> TokenKey {
        let (clock, _) = Clock::manual(UnixSeconds(0));
        VerdictCache::new(SharedVerdicts::new(1, clock).unwrap())
            .key(Presented::new(token.expose().as_bytes()))
    }

    fn set(issuer: u16) -> IssuerSet {
        [IssuerId(issuer)].into_iter().collect()
    }

    #[test]
    fn a_refusal_is_known_for_a_moment_to_routes_with_the_same_issuers() {
        let (refused, key, then) = (RefusedTokens::new(), key(token()), Monotonic(Duration::from_secs(5)));
        refused.keep(key, token(), &set(1), then, &Rejection::new(Reason::Expired).hint("late"));
        let recalled = |issuer, after| {
            refused.recall(key, &set(issuer), Monotonic(then.0 + after)).map(|before| before.rejection)
        };
        let found = recalled(1, KEPT / 2).unwrap();
        assert_eq!((found.reason(), found.hint_text()), (Reason::Expired, Some("late")));
        assert!(recalled(2, KEPT / 2).is_none());
        assert!(recalled(1, KEPT).is_none());
        let other = super::tests::key(BearerToken::new("d.e.f").unwrap());
        assert!(refused.recall(other, &set(1), then).is_none());
    }

    #[test]
    fn what_may_change_without_the_token_is_judged_each_time() {
        let (refused, key, now) = (RefusedTokens::new(), key(token()), Monotonic::default());
        let kept = |reason: Reason| {
            refused.keep(key, token(), &set(1), now, &reason.into());
            refused.recall(key, &set(1), now).is_some_and(|before| before.rejection.reason() == reason)
        };
        for reason in [
            Reason::NotYetValid,
            Reason::UnknownKey,
            Reason::Revoked,
            Reason::NotRecognized,
            Reason::KeysNotLoaded,
            Reason::KeysUnreachable,
            Reason::IntrospectionFailed,
            Reason::FeedStale,
        ] {
            assert!(!kept(reason), "{reason:?}");
        }
        assert!(kept(Reason::SignatureMismatch) && kept(Reason::Malformed));
    }
}
