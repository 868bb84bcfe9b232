//! The checks of tokens that their issuer is asked about: opaque ones, whose claims are in the answer, and JWTs that
//! the issuer must confirm besides. The rules on claims are those of every token.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::bearer::BearerToken;
use super::checks::{Check, Examiner, Run};
use super::claims::Claims;
use super::introspection::{ActiveToken, Answer, Introspection};
use super::issuer::Issuer;
use super::verified::{Confirmation, Evidence, Times, VerifiedToken};
use super::verify::{Inputs, Need, Verdict, audience, go_on, required, times, wrong_type};
use crate::catalogue::Reason;
use crate::clock::Monotonic;
use crate::rejection::Rejection;

/// Whether the token is for its issuer alone to read: anything that has not the three parts of a signed JWT with a
/// JSON object in the first. What has them is never taken for opaque, however wrong it is, so that a forged JWT cannot
/// walk around its signature.
pub(super) fn is_opaque(token: BearerToken<'_>) -> bool {
    let mut parts = token.expose().split('.');
    let header = URL_SAFE_NO_PAD.decode(parts.next().unwrap_or_default()).unwrap_or_default();
    parts.count() != 2 || !header.trim_ascii_start().starts_with(b"{")
}

/// Makes the checks of an opaque token in the order of [`Check`], on what its issuer says.
pub(super) fn examine<E: Examiner>(
    issuer: &Arc<Issuer>,
    introspection: &Introspection,
    token: BearerToken<'_>,
    inputs: Inputs<'_>,
    mut run: Run<'_, E>,
) -> Result<Verdict, Rejection> {
    go_on(run.check(Check::Form, Ok(())))?;
    let Some(answer) = inputs.introspected else {
        return Ok(Verdict::Needs(Need::Introspection(Arc::clone(issuer))));
    };
    let active = run.value(Check::Introspection, active(answer))?;
    let mut members = active.claims.clone();
    // The endpoint is the issuer's own: it need not say so (RFC 7662 section 2.2).
    members.entry("iss").or_insert_with(|| Value::String(issuer.url.to_string()));
    let claims = Claims::new(members);
    let expected = &issuer.expectations;
    go_on(run.check(Check::Type, kind(&active.claims, introspection)))?;
    go_on(run.check(Check::Issuer, same_issuer(&claims, issuer)))?;
    go_on(run.check(Check::Audience, audience(&claims, expected)))?;
    let times = run.value(Check::Time, times(&claims, expected, inputs.now));
    if !E::TO_THE_END {
        times.as_ref().map_err(Clone::clone)?;
    }
    go_on(run.check(Check::Claims, required(&claims, expected)))?;
    if let Some(failure) = run.first_failure() {
        return Err(failure);
    }
    let times = times?;
    let confirmed = Confirmation { until: good_until(active, &times, inputs), token: token.into() };
    let evidence = Evidence { signed_by: None, confirmed: Some(confirmed) };
    Ok(Verdict::Verified(VerifiedToken::new(
        Arc::clone(issuer),
        claims,
        &times,
        evidence,
        token.fingerprint(),
    )))
}

/// How long the issuer's word holds: never past the token's end. A leeway may let it pass after that, but then its issuer
/// is asked each time.
pub(super) fn good_until(active: &ActiveToken, times: &Times, inputs: Inputs<'_>) -> Monotonic {
    let left = u64::try_from(times.expires.0.saturating_sub(inputs.now.0)).unwrap_or(0);
    let end = inputs.monotonic.0.saturating_add(Duration::from_secs(left));
    active.good_until.min(Monotonic(end))
}

/// Whether the issuer stands behind a JWT of which it was asked: it calls it active, and speaks of this very token.
pub(super) fn confirmed<'a>(
    answer: &'a Answer,
    claims: &Claims,
    issuer: &Issuer,
) -> Result<&'a ActiveToken, Rejection> {
    let active = active(answer)?;
    let said = Claims::new(active.claims.clone());
    same_issuer(&said, issuer)?;
    let differs = |ours: Option<&str>, theirs: Option<&str>| ours.zip(theirs).is_some_and(|(a, b)| a != b);
    if differs(claims.subject(), said.subject()) || differs(claims.token_id(), said.token_id()) {
        return Err(Rejection::new(Reason::NotRecognized)
            .log("the introspection endpoint answered for another token (sub or jti differ)"));
    }
    Ok(active)
}

fn active(answer: &Answer) -> Result<&ActiveToken, Rejection> {
    match answer {
        Answer::Active(active) => Ok(active),
        Answer::Inactive => Err(Reason::NotRecognized.into()),
    }
}

fn same_issuer(claims: &Claims, issuer: &Issuer) -> Result<(), Rejection> {
    match claims.issuer().map_err(wrong_type)? {
        Some(named) if named != &*issuer.url => Err(Reason::IssuerNotTrusted.into()),
        _ => Ok(()),
    }
}

/// Issuers call refresh tokens active too. An answer must say that it is of an access token: by `token_type` (RFC 7662,
/// a type of access token by RFC 6749 section 7.1), `token_use` or `typ`, as the issuers of this world do.
fn kind(said: &serde_json::Map<String, Value>, introspection: &Introspection) -> Result<(), Rejection> {
    let is = |member: &str, known: &[&str]| match said.get(member) {
        None => None,
        Some(Value::String(kind)) => Some(known.iter().any(|known| kind.eq_ignore_ascii_case(known))),
        Some(_) => Some(false),
    };
    let said = [
        is("token_type", &["Bearer", "DPoP", "access_token"]),
        is("token_use", &["access_token", "access"]),
        is("typ", &["Bearer", "DPoP", "JWT", "at+jwt", "application/at+jwt"]),
    ];
    match (said.contains(&Some(false)), said.contains(&Some(true))) {
        (false, true) => Ok(()),
        (false, false) if introspection.insecure_any_kind => Ok(()),
        (false, false) => Err(Rejection::new(Reason::WrongType).hint(
            "The issuer does not say that this is an access token (token_type): it may be a refresh token.",
        )),
        (true, _) => Err(Reason::WrongType.into()),
    }
}
