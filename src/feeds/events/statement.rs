//! Whether a delivery is to be believed, and what it revokes: credential, form, signature, claims, in this order.

use std::collections::HashSet;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use http::HeaderValue;
use tracing::{info, warn};

use super::stats::EventStats;
use crate::clock::Clock;
use crate::events::{Delivery, EventRules, Fault, LogoutToken, Notice, Refusal, SecurityEvent, Seen};
use crate::keys::KeySource;
use crate::revocation::Revocation;
use crate::token::{Claims, StatementFault, StatementRules, verify_statement};

/// What kind of statements a feed is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatementKind {
    /// Security Event Tokens (RFC 8417).
    SecurityEvent,
    /// `OpenID` Connect logout tokens.
    LogoutToken,
}

/// The judge of what one feed is told.
#[derive(Debug)]
pub struct Statements {
    /// The feed's name, for logs.
    pub feed: String,
    /// What they are.
    pub kind: StatementKind,
    /// What their signature must be.
    pub signature: StatementRules,
    /// The issuer's keys.
    pub keys: Arc<KeySource>,
    /// What they must say.
    pub rules: EventRules,
    /// What the sender must send along.
    pub authorization: Option<HeaderValue>,
    /// Time.
    pub clock: Clock,
    seen: Seen,
    noted: HashSet<&'static str>,
    stats: Arc<EventStats>,
}

/// A statement that is believed.
#[derive(Debug)]
pub(super) struct Read {
    /// What it revokes; nothing if it was dealt with before.
    pub(super) revocations: Vec<Revocation>,
    /// Its id, if it is new.
    pub(super) jti: Option<String>,
}

impl Statements {
    /// A judge that has seen nothing yet.
    pub fn new(
        feed: String,
        kind: StatementKind,
        signature: StatementRules,
        (keys, rules): (Arc<KeySource>, EventRules),
        authorization: Option<HeaderValue>,
        clock: Clock,
    ) -> Self {
        Self {
            feed,
            kind,
            signature,
            keys,
            rules,
            authorization,
            clock,
            seen: Seen::new(REMEMBERED),
            noted: HashSet::new(),
            stats: Arc::default(),
        }
    }

    /// The numbers for metrics.
    pub fn stats(&self) -> Arc<EventStats> {
        Arc::clone(&self.stats)
    }

    /// Judges a delivery.
    pub(super) async fn read(&mut self, delivery: &Delivery) -> Result<Read, Refusal> {
        let outcome = self.judge(delivery).await;
        match &outcome {
            Ok(_) => EventStats::one(&self.stats.accepted),
            Err(refusal) => {
                EventStats::one(&self.stats.refused);
                self.note_refusal(refusal);
            }
        }
        outcome
    }

    /// It is in force and kept: told again, it is known.
    pub(super) fn remember(&mut self, jti: &str) {
        self.seen.remember(jti);
    }

    async fn judge(&mut self, delivery: &Delivery) -> Result<Read, Refusal> {
        if let Some(expected) = &self.authorization {
            let sent = delivery.authorization.as_deref().unwrap_or_default();
            if verify_slices_are_equal(sent, expected.as_bytes()).is_err() {
                return Err(Refusal::Unauthenticated);
            }
        }
        let text = self.text(delivery).map_err(Refusal::Fault)?;
        let claims = verify_statement(&text, &self.signature, &self.keys, &self.clock).await;
        let claims = claims.map_err(|fault| refused(&fault))?;
        let (jti, revocations) = self.claims(&claims).map_err(Refusal::Fault)?;
        if self.seen.has(&jti) {
            EventStats::one(&self.stats.repeated);
            return Ok(Read { revocations: Vec::new(), jti: None });
        }
        Ok(Read { revocations, jti: Some(jti) })
    }

    fn text(&self, delivery: &Delivery) -> Result<String, Fault> {
        let wrong = |why: &str| Fault::new("invalid_request", why);
        match (self.kind, delivery.media_type.as_str()) {
            (StatementKind::SecurityEvent, "application/secevent+jwt") => std::str::from_utf8(&delivery.body)
                .map(|text| text.trim_ascii().to_owned())
                .map_err(|_| wrong("the body is not a security event token")),
            (StatementKind::SecurityEvent, _) => {
                Err(wrong("Content-Type is not application/secevent+jwt (RFC 8935 section 2.1)"))
            }
            (StatementKind::LogoutToken, "application/x-www-form-urlencoded") => {
                let mut tokens =
                    url::form_urlencoded::parse(&delivery.body).filter(|(name, _)| name == "logout_token");
                match (tokens.next(), tokens.next()) {
                    (Some((_, token)), None) => Ok(token.into_owned()),
                    _ => Err(wrong("the body does not have exactly one parameter logout_token")),
                }
            }
            (StatementKind::LogoutToken, _) => {
                Err(wrong("Content-Type is not application/x-www-form-urlencoded"))
            }
        }
    }

    fn claims(&mut self, claims: &Claims) -> Result<(String, Vec<Revocation>), Fault> {
        let now = self.clock.wall();
        match self.kind {
            StatementKind::LogoutToken => {
                LogoutToken::read(claims, &self.rules, now).map(|token| (token.jti, vec![token.revocation]))
            }
            StatementKind::SecurityEvent => {
                let event = SecurityEvent::read(claims, &self.rules, now)?;
                for notice in &event.notices {
                    self.note(notice);
                }
                Ok((event.jti, event.revocations))
            }
        }
    }

    fn note(&mut self, notice: &Notice) {
        let feed = &self.feed;
        match notice {
            Notice::Verification { .. } => tracing::debug!(feed, "the event stream of the feed {feed} works"),
            Notice::StreamUpdated { status } if status == "enabled" => {
                info!(feed, "the transmitter has enabled the event stream of the feed {feed}");
            }
            Notice::StreamUpdated { status } => {
                // The one value that comes from outside is one of two words, or told as neither.
                let status = if status == "paused" { "paused" } else { "disabled" };
                warn!(
                    feed,
                    "the transmitter has {status} the event stream of the feed {feed}: no revocations arrive"
                );
            }
            Notice::Unmapped => {
                EventStats::one(&self.stats.unmapped);
                if self.noted.insert("unmapped") {
                    warn!(
                        feed,
                        "an event of the feed {feed} names its subject in a format that no claim is mapped to, and so \
                         revoked nothing; set 'subjects' (docs/security-events.md)"
                    );
                }
            }
            Notice::Ignored => EventStats::one(&self.stats.ignored),
        }
    }

    /// Once for each kind of fault: a sender that is set up wrongly tries for days.
    fn note_refusal(&mut self, refusal: &Refusal) {
        let feed = &self.feed;
        let (kind, why) = match refusal {
            Refusal::Unauthenticated => {
                ("unauthenticated", "the sender's Authorization header is not the configured one")
            }
            Refusal::Fault(fault) => (fault.code, fault.description.as_str()),
            Refusal::Unavailable(why) => ("unavailable", why.as_str()),
        };
        if self.noted.insert(kind) {
            warn!(feed, error = why, "the feed {feed} refused what it was sent (told once): {why}");
        }
    }
}

fn refused(fault: &StatementFault) -> Refusal {
    let code = match fault {
        StatementFault::KeysUnavailable => return Refusal::Unavailable(fault.to_string()),
        StatementFault::Malformed(_) | StatementFault::WrongType => "invalid_request",
        StatementFault::AlgorithmNotAllowed
        | StatementFault::UnknownKey
        | StatementFault::SignatureMismatch => "invalid_key",
    };
    Refusal::Fault(Fault::new(code, format!("the token is refused: {fault}")))
}

/// Ids of statements, at some 40 bytes each.
const REMEMBERED: usize = 100_000;
