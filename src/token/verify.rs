//! The verifier: the named checks in their order. Pure: time and the outcome of a key refresh are inputs.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use super::bearer::BearerToken;
use super::checks::{Check, Examiner, Run};
use super::claims::{Claims, WrongType};
use super::compact::Compact;
use super::header::Header;
use super::introspection::{Answer, IntrospectedTokens};
use super::issuer::{Audiences, Expectations, Issuer, IssuerSet, Issuers, Profile};
use super::opaque;
use super::verified::{Confirmation, Evidence, SignedBy, Times, VerifiedToken};
use crate::catalogue::Reason;
use crate::clock::{Monotonic, UnixSeconds, in_words};
use crate::keys::{Algorithm, KeyMiss, KeyState, VerificationKey};
use crate::rejection::Rejection;

/// Judges tokens by the issuers' rules and keys.
#[derive(Debug)]
pub struct Verifier {
    issuers: Issuers,
}

/// What a verdict depends on besides the token.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'r> {
    /// The issuers that the route trusts.
    pub trusted: &'r IssuerSet,
    /// Wall time, for the claims.
    pub now: UnixSeconds,
    /// Monotonic time, for the age of keys.
    pub monotonic: Monotonic,
    /// What came of asking the issuer for its keys again, if that was done for this token.
    pub looked_again: LookedAgain,
    /// What the issuer says of this token, if it was asked.
    pub introspected: Option<&'r Answer>,
}

/// Whether the issuer was asked for its keys on behalf of this token, and how that went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookedAgain {
    /// Not asked yet: an unknown key is a need, not a refusal.
    NotYet,
    /// The keys are as fresh as the provider's: an unknown key is the token's fault.
    Refreshed,
    /// The provider could not be asked: an unknown key is nobody's fault but the provider's.
    Failed,
}

/// The answer to a token.
#[derive(Debug)]
pub enum Verdict {
    /// Every check passed.
    Verified(VerifiedToken),
    /// The first check that failed.
    Refused(Rejection),
    /// Something must be fetched first; then ask again.
    Needs(Need),
}

/// What the verifier lacks to judge a token.
#[derive(Debug)]
pub enum Need {
    /// This issuer's keys, freshly, for the key of this `kid`.
    Keys(Arc<Issuer>, Option<String>),
    /// This issuer's word on the token.
    Introspection(Arc<Issuer>),
}

impl Verifier {
    /// A verifier for tokens of these issuers.
    pub fn new(issuers: Issuers) -> Self {
        Self { issuers }
    }

    /// The issuers that it judges by.
    pub fn issuers(&self) -> &Issuers {
        &self.issuers
    }

    /// Makes the checks in the order of [`Check`].
    pub fn verify<E: Examiner>(
        &self,
        token: BearerToken<'_>,
        inputs: Inputs<'_>,
        examiner: &mut E,
    ) -> Verdict {
        match self.examine(token, inputs, Run::new(examiner)) {
            Ok(verdict) => verdict,
            Err(rejection) => Verdict::Refused(rejection),
        }
    }

    fn examine<E: Examiner>(
        &self,
        token: BearerToken<'_>,
        inputs: Inputs<'_>,
        mut run: Run<'_, E>,
    ) -> Result<Verdict, Rejection> {
        if opaque::is_opaque(token)
            && let Some((issuer, introspection)) = self.issuers.of_opaque(inputs.trusted)
        {
            return opaque::examine(issuer, introspection, token, inputs, run);
        }
        let (compact, claims) = run.value(Check::Form, form(token))?;
        let issuer = claims.issuer().ok().flatten().and_then(|url| self.issuers.find(url));

        let algorithm = run.needed_later(Check::Algorithm, algorithm(&compact.header, issuer))?;
        go_on(run.check(Check::Type, kind(&compact.header, issuer)))?;
        go_on(run.check(Check::Issuer, trusted(&claims, issuer, inputs.trusted)))?;
        // Known, but not trusted by the route: only then are there rules by which the checks can go on.
        let Some(issuer) = issuer else { return Err(run.verdict_so_far()) };
        let expected = &issuer.expectations;
        go_on(run.check(Check::Audience, audience(&claims, expected)))?;
        let times = run.needed_later(Check::Time, times(&claims, expected, inputs.now))?;
        go_on(run.check(Check::Claims, required(&claims, expected)))?;

        let algorithm = algorithm?;
        let state = issuer.keys.current();
        let key = match find_key(&state, &compact.header, algorithm, inputs) {
            KeyAnswer::Found(key) => run.value(Check::Key, Ok(key))?,
            KeyAnswer::Refused(rejection) => run.value(Check::Key, Err(rejection))?,
            KeyAnswer::LookAgain => {
                return Ok(Verdict::Needs(Need::Keys(Arc::clone(issuer), compact.header.key_id)));
            }
        };
        let signed = key.verify(algorithm, compact.signing_input, &compact.signature);
        let signature = match (signed, compact.header.key_id.is_some(), inputs.looked_again) {
            (true, _, _) => Ok(()),
            (false, true, _) | (false, false, LookedAgain::Refreshed) => {
                Err(Reason::SignatureMismatch.into())
            }
            // Without a kid, a rotated key shows as a signature that does not match: look once more before saying so.
            (false, false, LookedAgain::NotYet) => {
                return Ok(Verdict::Needs(Need::Keys(Arc::clone(issuer), compact.header.key_id)));
            }
            // As with an unknown kid: the key may be one that only the provider knows. A forger gains nothing by the
            // other answer, which an invented kid got always; and who is sent away for good for a fault of the
            // provider loses a session.
            (false, false, LookedAgain::Failed) => Err(unavailable(Reason::KeysUnreachable)),
        };
        go_on(run.check(Check::Signature, signature))?;

        let asks = |issuer: &Issuer| {
            issuer.introspection.as_ref().is_some_and(|how| how.tokens != IntrospectedTokens::Opaque)
        };
        let active = match inputs.introspected {
            _ if !asks(issuer) => None,
            Some(answer) => {
                Some(run.value(Check::Introspection, opaque::confirmed(answer, &claims, issuer))?)
            }
            None if run.has_failed() => None,
            None => return Ok(Verdict::Needs(Need::Introspection(Arc::clone(issuer)))),
        };
        if let Some(failure) = run.first_failure() {
            return Err(failure);
        }
        let times = times?;
        let generation = state.generation(inputs.monotonic);
        let signed_by = SignedBy { key, algorithm, key_id: compact.header.key_id, generation };
        let confirmed = active.map(|active| Confirmation {
            until: opaque::good_until(active, &times, inputs),
            token: token.into(),
        });
        let evidence = Evidence { signed_by: Some(signed_by), confirmed };
        let issuer = Arc::clone(issuer);
        Ok(Verdict::Verified(VerifiedToken::new(issuer, claims, &times, evidence, token.fingerprint())))
    }

    /// Whether a token verified before would be verified now: the route trusts the issuer, the times still hold, and
    /// the key is still the one that the issuer publishes for it, and its word on the token is recent enough. A cached
    /// verdict is used only after this.
    pub fn still_good(&self, token: &VerifiedToken, inputs: Inputs<'_>) -> bool {
        let issuer = token.issuer();
        self.issuers.has(issuer)
            && inputs.trusted.contains(issuer.id)
            && check_times(&token.times(), &issuer.expectations, inputs.now).is_ok()
            && token.confirmed_until().is_none_or(|until| inputs.monotonic < until)
            && token.evidence().signed_by.as_ref().is_none_or(|signed_by| {
                is_still_published(signed_by, &issuer.keys.current(), inputs.monotonic)
            })
    }
}

pub(super) fn go_on(flow: ControlFlow<Rejection>) -> Result<(), Rejection> {
    match flow {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(rejection) => Err(rejection),
    }
}

fn form(token: BearerToken<'_>) -> Result<(Compact<'_>, Claims), Rejection> {
    Compact::parse(token.expose())
        .and_then(|compact| compact.claims().map(|claims| (compact, Claims::new(claims))))
        .map_err(|why| Rejection::new(Reason::Malformed).hint(format!("The token is malformed: {why}.")))
}

/// RFC 8725 section 3.1: the issuer's configuration decides, the token may only agree. While the issuer is not
/// known, any algorithm of ours passes, and the check of the issuer refuses.
fn algorithm(header: &Header, issuer: Option<&Arc<Issuer>>) -> Result<Algorithm, Rejection> {
    let refused = || Rejection::new(Reason::AlgorithmNotAllowed);
    let algorithm = Algorithm::from_name(&header.algorithm).ok_or_else(refused)?;
    let allowed = issuer
        .is_none_or(|issuer| issuer.expectations.algorithms.iter().any(|allowed| allowed.same_as(algorithm)));
    if allowed { Ok(algorithm) } else { Err(refused()) }
}

/// RFC 8725 section 3.11, RFC 9068 section 4: tokens of other kinds are not access tokens, even if well signed.
fn kind(header: &Header, issuer: Option<&Arc<Issuer>>) -> Result<(), Rejection> {
    let profile = issuer.and_then(|issuer| issuer.expectations.profile);
    match (header.media_type().as_deref(), profile) {
        (Some("at+jwt"), _) | (None | Some("jwt"), None) => Ok(()),
        (_, Some(Profile::Rfc9068)) => Err(Rejection::new(Reason::WrongType)
            .hint("The token's type (header typ) is not at+jwt, as RFC 9068 demands.")),
        (Some(_), None) => Err(Reason::WrongType.into()),
    }
}

fn trusted(claims: &Claims, issuer: Option<&Arc<Issuer>>, trusted: &IssuerSet) -> Result<(), Rejection> {
    if claims.issuer().map_err(wrong_type)?.is_none() {
        return Err(missing("iss"));
    }
    let is_trusted = issuer.is_some_and(|issuer| trusted.contains(issuer.id));
    if is_trusted { Ok(()) } else { Err(Reason::IssuerNotTrusted.into()) }
}

pub(super) fn audience(claims: &Claims, expected: &Expectations) -> Result<(), Rejection> {
    let audiences = claims.audiences().map_err(wrong_type)?;
    match &expected.audiences {
        Audiences::InsecureAny => Ok(()),
        Audiences::AnyOf(ours) => {
            let named = audiences.ok_or_else(|| missing("aud"))?;
            let meant = named.iter().any(|name| ours.iter().any(|our| &**our == *name));
            if meant { Ok(()) } else { Err(Reason::AudienceMismatch.into()) }
        }
    }
}

pub(super) fn times(claims: &Claims, expected: &Expectations, now: UnixSeconds) -> Result<Times, Rejection> {
    let times = Times {
        expires: claims.expires().map_err(wrong_type)?.ok_or_else(|| missing("exp"))?,
        not_before: claims.not_before().map_err(wrong_type)?,
        issued_at: claims.issued_at().map_err(wrong_type)?,
    };
    check_times(&times, expected, now)?;
    if let Some(longest) = expected.max_lifetime {
        let issued_at = times.issued_at.ok_or_else(|| missing("iat"))?;
        if times.expires > issued_at.plus(longest) {
            return Err(Rejection::new(Reason::ClaimInvalid)
                .hint("The token's lifetime (exp - iat) is longer than this gateway accepts."));
        }
    }
    Ok(times)
}

/// RFC 7519 sections 4.1.4 to 4.1.6, with leeway: good while `now < exp + leeway` and `now >= nbf - leeway`.
fn check_times(times: &Times, expected: &Expectations, now: UnixSeconds) -> Result<(), Rejection> {
    if now >= times.expires.plus(expected.leeway) {
        let ago = now.0.saturating_sub(times.expires.0);
        return Err(Rejection::new(Reason::Expired).hint(format!("The token expired {} ago.", in_words(ago))));
    }
    let earliest = now.plus(expected.leeway);
    for (claim, start) in [("nbf", times.not_before), ("iat", times.issued_at)] {
        if let Some(start) = start.filter(|start| *start > earliest) {
            let ahead = in_words(start.0.saturating_sub(now.0));
            let wait = u64::try_from(start.0.saturating_sub(earliest.0)).unwrap_or_default();
            return Err(Rejection::new(Reason::NotYetValid)
                .hint(format!("The token becomes valid in {ahead} (claim {claim})."))
                .retry_after(Duration::from_secs(wait)));
        }
    }
    Ok(())
}

pub(super) fn required(claims: &Claims, expected: &Expectations) -> Result<(), Rejection> {
    claims.check_types().map_err(wrong_type)?;
    let profile = expected.profile.map(Profile::required_claims).unwrap_or_default();
    let configured = expected.required_claims.iter().map(|claim| &**claim);
    for claim in profile.iter().copied().chain(configured) {
        if !claims.has(claim) {
            return Err(missing(claim));
        }
    }
    Ok(())
}

enum KeyAnswer {
    Found(Arc<VerificationKey>),
    Refused(Rejection),
    LookAgain,
}

/// The key that the token names, of this issuer and no other. A key that is not there is looked for once more; if
/// the provider cannot be asked, that is the provider's fault and not the token's.
fn find_key(state: &KeyState, header: &Header, algorithm: Algorithm, inputs: Inputs<'_>) -> KeyAnswer {
    let not_found =
        match state.keys(inputs.monotonic).map(|keys| keys.select(header.key_id.as_deref(), algorithm)) {
            Some(Ok(key)) => return KeyAnswer::Found(Arc::clone(key)),
            Some(Err(KeyMiss::AlgorithmMismatch)) => {
                return KeyAnswer::Refused(
                    Rejection::new(Reason::AlgorithmNotAllowed)
                        .hint("The token's algorithm (alg) does not fit the key that it names."),
                );
            }
            // A provider without kids may have changed to a key of another type.
            Some(Err(KeyMiss::NoKid | KeyMiss::UnknownKid)) => Reason::UnknownKey,
            None if state.expires().is_some() => Reason::KeysExpired,
            None => Reason::KeysNotLoaded,
        };
    match (inputs.looked_again, not_found) {
        (LookedAgain::NotYet, _) => KeyAnswer::LookAgain,
        (LookedAgain::Refreshed, Reason::UnknownKey) if header.key_id.is_none() => {
            KeyAnswer::Refused(Rejection::new(Reason::UnknownKey).hint(
                "The token names no signing key (kid), and not exactly one of the issuer's keys fits it.",
            ))
        }
        (LookedAgain::Refreshed, Reason::UnknownKey) => KeyAnswer::Refused(Reason::UnknownKey.into()),
        (LookedAgain::Failed, Reason::UnknownKey) => KeyAnswer::Refused(unavailable(Reason::KeysUnreachable)),
        (_, reason) => KeyAnswer::Refused(unavailable(reason)),
    }
}

/// The provider is at fault, not the token.
fn unavailable(reason: Reason) -> Rejection {
    Rejection::new(reason).retry_after(KEYS_RETRY)
}

/// The generation answers for most; after a change of keys, whether the token would select the very same key.
fn is_still_published(signed_by: &SignedBy, state: &KeyState, now: Monotonic) -> bool {
    let SignedBy { key, algorithm, key_id, generation } = signed_by;
    let Some(keys) = state.keys(now) else { return false };
    state.generation(now) == *generation
        || keys
            .select(key_id.as_deref(), *algorithm)
            .is_ok_and(|found| found.thumbprint() == key.thumbprint())
}

/// What a client is told to wait for keys: the cap of the back-off with which they are fetched.
const KEYS_RETRY: Duration = Duration::from_secs(5);

fn missing(claim: &str) -> Rejection {
    Rejection::new(Reason::ClaimMissing).hint(format!("The token lacks the claim {claim}."))
}

pub(super) fn wrong_type(WrongType { claim, expected }: WrongType) -> Rejection {
    Rejection::new(Reason::ClaimInvalid).hint(format!("The token's claim {claim} is not {expected}."))
}
