//! A Security Event Token (RFC 8417) as SSF 1.0 profiles it, and what its events revoke.
//!
//! Every event of CAEP and RISC that is understood here says that what was issued before no longer holds; so it
//! becomes a cut-off at its own time, under which the same account or session can be used again once it is
//! restored. A session that is named by its own id never comes back.

use std::time::Duration;

use serde_json::{Map, Value};

use super::subject::{Found, SubjectMapping};
use super::{Fault, INVALID_AUDIENCE, INVALID_ISSUER, INVALID_REQUEST};
use crate::clock::UnixSeconds;
use crate::revocation::{Entry, Fact, Revocation, Target};
use crate::token::Claims;

/// What a statement of a provider must say to be accepted.
#[derive(Clone, Debug)]
pub struct EventRules {
    /// `iss`, byte for byte.
    pub issuer: String,
    /// `aud` must have one of these.
    pub audiences: Vec<String>,
    /// Tolerance on times.
    pub leeway: Duration,
    /// The longest lifetime of the tokens concerned: entries are kept for so long after the event.
    pub keep: Duration,
    /// What subjects are.
    pub subjects: SubjectMapping,
}

/// A Security Event Token that follows the rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecurityEvent {
    /// Its id.
    pub jti: String,
    /// What it revokes.
    pub revocations: Vec<Revocation>,
    /// What else there is to say of its events.
    pub notices: Vec<Notice>,
}

/// What an event comes to besides a revocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The transmitter shows that the stream works (SSF 1.0 section 8.1.4).
    Verification {
        /// What was sent with the request for it.
        state: Option<String>,
    },
    /// The transmitter paused or disabled the stream, or took it up again (SSF 1.0 section 8.1.5).
    StreamUpdated {
        /// `enabled`, `paused` or `disabled`.
        status: String,
    },
    /// Its subject is none that a fact of tokens is mapped to: nothing is revoked by it.
    Unmapped,
    /// An event of another type: nothing is revoked by it.
    Ignored,
}

impl SecurityEvent {
    /// Reads the claims of a verified token.
    ///
    /// # Errors
    /// Which rule it breaks.
    pub fn read(claims: &Claims, rules: &EventRules, now: UnixSeconds) -> Result<Self, Fault> {
        rules.check_origin(claims)?;
        let jti = EventRules::check_id(claims)?;
        let issued_at = rules.check_issued(claims, now)?;
        for (forbidden, why) in [
            ("exp", "a security event does not expire (RFC 8417 section 2.2, SSF 1.0 section 4.1.7)"),
            ("sub", "its subject stands in sub_id (SSF 1.0 section 4.1.2)"),
        ] {
            if claims.has(forbidden) {
                return Err(Fault::new(INVALID_REQUEST, format!("remove the claim {forbidden}: {why}")));
            }
        }
        let events = claims
            .all()
            .get("events")
            .and_then(Value::as_object)
            .filter(|events| !events.is_empty())
            .ok_or_else(|| {
                Fault::new(INVALID_REQUEST, "the claim events is not an object with at least one event")
            })?;
        let mut event = Self { jti, revocations: Vec::new(), notices: Vec::new() };
        for (kind, payload) in events {
            let payload = payload
                .as_object()
                .ok_or_else(|| Fault::new(INVALID_REQUEST, "the payload of an event is not an object"))?;
            event.take(kind, payload, claims, issued_at, rules)?;
        }
        Ok(event)
    }

    fn take(
        &mut self,
        kind: &str,
        payload: &Map<String, Value>,
        claims: &Claims,
        issued_at: UnixSeconds,
        rules: &EventRules,
    ) -> Result<(), Fault> {
        let text = |name: &str| payload.get(name).and_then(Value::as_str).map(str::to_owned);
        if let Some(name) = kind.strip_prefix(SSF) {
            self.notices.push(match name {
                "verification" => Notice::Verification { state: text("state") },
                "stream-updated" => Notice::StreamUpdated { status: text("status").unwrap_or_default() },
                _ => Notice::Ignored,
            });
            return Ok(());
        }
        if !REVOKING.contains(&kind) {
            self.notices.push(Notice::Ignored);
            return Ok(());
        }
        // Before SSF 1.0 the subject stood in the event.
        let subject = claims.all().get("sub_id").or_else(|| payload.get("subject"));
        let subject = subject.ok_or_else(|| Fault::new(INVALID_REQUEST, "the claim sub_id is missing"))?;
        let facts = match rules.subjects.find(subject) {
            Found::Facts(facts) => facts,
            Found::Unmapped => {
                self.notices.push(Notice::Unmapped);
                return Ok(());
            }
            Found::Broken(why) => return Err(Fault::new(INVALID_REQUEST, format!("{why} (RFC 9493)"))),
        };
        // When it happened, if that is not later than the word of it.
        let at = payload.get("event_timestamp").and_then(Value::as_i64).map_or(issued_at, |at| {
            // Some transmitters send milliseconds; a cut-off in the far future would lock everybody out.
            UnixSeconds(if at >= MILLISECONDS_FROM { at / 1000 } else { at }).min(issued_at)
        });
        let reason = kind.rsplit('/').next().unwrap_or(kind);
        self.revocations.extend(facts.into_iter().map(|fact| rules.revocation(fact, at, issued_at, reason)));
        Ok(())
    }
}

impl EventRules {
    pub(super) fn check_origin(&self, claims: &Claims) -> Result<(), Fault> {
        if claims.issuer().ok().flatten() != Some(self.issuer.as_str()) {
            let description = "the claim iss is not the issuer that this endpoint is configured for";
            return Err(Fault::new(INVALID_ISSUER, description));
        }
        let meant = claims.audiences().ok().flatten().unwrap_or_default();
        if !meant.iter().any(|audience| self.audiences.iter().any(|ours| ours == audience)) {
            let description =
                "the claim aud names none of the audiences that this endpoint is configured for";
            return Err(Fault::new(INVALID_AUDIENCE, description));
        }
        Ok(())
    }

    pub(super) fn check_id(claims: &Claims) -> Result<String, Fault> {
        let jti = claims.token_id().filter(|jti| !jti.is_empty());
        jti.map(str::to_owned).ok_or_else(|| Fault::new(INVALID_REQUEST, "the claim jti is missing"))
    }

    pub(super) fn check_issued(&self, claims: &Claims, now: UnixSeconds) -> Result<UnixSeconds, Fault> {
        let issued_at = claims.issued_at().ok().flatten();
        let issued_at = issued_at.ok_or_else(|| Fault::new(INVALID_REQUEST, "the claim iat is missing"))?;
        if issued_at > now.plus(self.leeway) {
            let description = "the claim iat lies in the future: compare the clocks of the two sides";
            return Err(Fault::new(INVALID_REQUEST, description));
        }
        Ok(issued_at)
    }

    /// Revokes what was issued up to `at`; a single session or token is revoked as such.
    pub(super) fn revocation(
        &self,
        fact: Fact,
        at: UnixSeconds,
        told_at: UnixSeconds,
        reason: &str,
    ) -> Revocation {
        let Fact { target, issuer } = fact;
        let ends_itself = matches!(target, Target::Jti(_) | Target::Sid(_));
        // Tokens of the same second are meant as well: iat has whole seconds.
        let before = (!ends_itself).then_some(at.plus(Duration::from_secs(1)));
        let entry = Entry { target, issuer, before, expires: Some(told_at.plus(self.keep)) };
        Revocation { entry, reason: Some(reason.to_owned()), revoked_at: Some(told_at) }
    }
}

const SSF: &str = "https://schemas.openid.net/secevent/ssf/event-type/";

/// What ends the standing of tokens issued before.
const REVOKING: [&str; 8] = [
    "https://schemas.openid.net/secevent/caep/event-type/session-revoked",
    "https://schemas.openid.net/secevent/caep/event-type/credential-change",
    "https://schemas.openid.net/secevent/caep/event-type/token-claims-change",
    "https://schemas.openid.net/secevent/risc/event-type/account-disabled",
    "https://schemas.openid.net/secevent/risc/event-type/account-purged",
    "https://schemas.openid.net/secevent/risc/event-type/account-credential-change-required",
    "https://schemas.openid.net/secevent/risc/event-type/credential-compromise",
    "https://schemas.openid.net/secevent/risc/event-type/sessions-revoked",
];

/// In seconds, the year 5138.
const MILLISECONDS_FROM: i64 = 100_000_000_000;
