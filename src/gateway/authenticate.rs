//! The authentication step: from what is shown for a token to a live one.
//!
//! The verifier says what it needs; here is where a request waits for it, bounded in time and together with all
//! other requests that need the same.

use std::rc::Rc;
use std::sync::Arc;

use super::refused_tokens::{RefusedBefore, RefusedTokens};
use super::verdict_cache::{SharedVerdicts, TokenKey, VerdictCache};
use crate::catalogue::Reason;
use crate::clock::Clock;
use crate::keys::LookAgain;
use crate::rejection::Rejection;
use crate::revocation::{Candidate, LiveToken, RevocationPolicies};
use crate::token::{
    Answer, BearerToken, FailFast, Fingerprint, Inputs, IssuerSet, LookedAgain, Need, Presented, Verdict,
    VerifiedToken, Verifier,
};

/// One core's way from tokens to principals.
#[derive(Debug)]
pub struct Authenticator {
    verifier: Arc<Verifier>,
    revocation: Arc<RevocationPolicies>,
    verdicts: Rc<VerdictCache>,
    refused: RefusedTokens,
    clock: Clock,
}

/// What came to light while a token was judged, whatever the verdict.
#[derive(Debug, Default)]
pub struct Insight {
    /// Where its verification came from, once it was looked for.
    pub temperature: Option<Temperature>,
    /// The token, if its issuer stands behind it and it is refused for what is known of it besides.
    pub verified: Option<VerifiedToken>,
    /// What stands for the token in logs, where that is known already.
    pub fingerprint: Option<Fingerprint>,
    /// What its issuer said, if it was asked.
    pub answer: Option<Answer>,
}

/// Whether a verdict came from the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Temperature {
    /// Verified before.
    Warm,
    /// Verified for this request.
    Cold,
}

impl Authenticator {
    /// An authenticator with an empty cache of its own.
    pub fn new(
        verifier: Arc<Verifier>,
        revocation: Arc<RevocationPolicies>,
        shared: SharedVerdicts,
        clock: Clock,
    ) -> Self {
        let (verdicts, refused) = (Rc::new(VerdictCache::new(shared)), RefusedTokens::new());
        Self { verifier, revocation, verdicts, refused, clock }
    }

    /// The authenticator of the next configuration. It shares the cache, whose verdicts hold for as long as their
    /// issuers stay the same. Who was refused under the rules of before may be let through by the new ones.
    #[must_use]
    pub fn succeeded_by(&self, verifier: Arc<Verifier>, revocation: Arc<RevocationPolicies>) -> Self {
        let verdicts = Rc::clone(&self.verdicts);
        Self { verifier, revocation, verdicts, refused: RefusedTokens::new(), clock: self.clock.clone() }
    }

    /// How tokens are verified.
    pub fn verifier(&self) -> Arc<Verifier> {
        Arc::clone(&self.verifier)
    }

    /// How verified tokens are checked.
    pub fn revocation(&self) -> &RevocationPolicies {
        &self.revocation
    }

    /// How many verdicts this core has at hand.
    pub fn verdicts(&self) -> usize {
        self.verdicts.len()
    }

    /// What is shown, if it is a token, an issuer that the route trusts stands behind it, and it was not revoked. `now`
    /// is a clock that was [stopped](Clock::still) when the request was.
    pub async fn authenticate(
        &self,
        shown: Presented<'_>,
        trusted: &IssuerSet,
        now: &Clock,
        insight: &mut Insight,
    ) -> Result<LiveToken, Rejection> {
        let key = self.verdicts.key(shown);
        let mut cached = self.verdicts.at_hand(key);
        if cached.is_none() {
            if let Some(RefusedBefore { rejection, fingerprint }) =
                self.refused.recall(key, trusted, now.monotonic())
            {
                (insight.temperature, insight.fingerprint) = (Some(Temperature::Warm), Some(fingerprint));
                return Err(rejection);
            }
            cached = self.verdicts.of_any_core(key);
        }
        let inputs = inputs(trusted, now, LookedAgain::NotYet, None);
        let good = cached.filter(|found| self.verifier.still_good(found.token(), inputs));
        let candidate = if let Some(candidate) = good {
            insight.temperature = Some(Temperature::Warm);
            if candidate.is_ready() {
                return self.admit(&candidate, now, insight);
            }
            candidate
        } else {
            let token = shown.token().ok_or_else(|| Rejection::new(Reason::IllegalCharacters))?;
            insight.temperature = Some(Temperature::Cold);
            // Boxed, here and below, since warm requests would otherwise carry the room for it.
            let verified = Box::pin(self.verify(key, token, trusted, insight)).await;
            verified.inspect_err(|refused| {
                // What the issuer said may change, and who its token is about is to be found in each line of the log.
                if insight.answer.is_none() && insight.verified.is_none() {
                    self.refused.keep(key, token, trusted, self.clock.monotonic(), refused);
                }
            })?
        };
        Box::pin(self.revocation.prepare(&candidate, &self.clock)).await;
        self.admit(&candidate, &self.clock, insight)
    }

    fn admit(
        &self,
        candidate: &Rc<Candidate>,
        now: &Clock,
        insight: &mut Insight,
    ) -> Result<LiveToken, Rejection> {
        self.revocation
            .admit(Rc::clone(candidate), now)
            .inspect_err(|_| insight.verified = Some(candidate.token().clone()))
    }

    async fn verify(
        &self,
        key: TokenKey,
        token: BearerToken<'_>,
        trusted: &IssuerSet,
        insight: &mut Insight,
    ) -> Result<Rc<Candidate>, Rejection> {
        let mut looked_again = LookedAgain::NotYet;
        insight.answer = None;
        loop {
            let inputs = inputs(trusted, &self.clock, looked_again, insight.answer.as_ref());
            match self.verifier.verify(token, inputs, &mut FailFast) {
                Verdict::Verified(verified) => {
                    let candidate = self.revocation.candidate(verified.clone());
                    let candidate = Rc::new(candidate.inspect_err(|_| insight.verified = Some(verified))?);
                    self.verdicts.put(key, &candidate);
                    return Ok(candidate);
                }
                Verdict::Refused(rejection) => return Err(rejection),
                // The verifier needs something only while it has not been told what came of asking for it.
                Verdict::Needs(Need::Keys(issuer, kid)) => {
                    looked_again = match issuer.keys.look_again(kid.as_deref()).await {
                        LookAgain::Refreshed => LookedAgain::Refreshed,
                        LookAgain::Failed | LookAgain::TimedOut => LookedAgain::Failed,
                    };
                }
                Verdict::Needs(Need::Introspection(issuer)) => {
                    insight.answer = Some(issuer.introspect(token.into()).await?);
                }
            }
        }
    }
}

fn inputs<'r>(
    trusted: &'r IssuerSet,
    clock: &Clock,
    looked_again: LookedAgain,
    introspected: Option<&'r Answer>,
) -> Inputs<'r> {
    Inputs { trusted, now: clock.wall(), monotonic: clock.monotonic(), looked_again, introspected }
}
