//! The words beside each verdict: what a check found, and what it expected. Decides nothing.

use std::sync::Arc;

use serde_json::Value;

use super::explanation::Report;
use crate::certificate::{CertificateRules, ClientCertificate, bound_to};
use crate::clock::{Clock, UnixSeconds, in_words};
use crate::policy::{Policy, PolicyCheck};
use crate::rejection::Rejection;
use crate::revocation::{Freshness, Survey};
use crate::telemetry::access_log::acts_on_a_terminal;
use crate::token::{
    Audiences, BearerToken, Binding, Check, Claims, Compact, Expectations, Issuer, IssuerSet, Profile,
    Verifier,
};

/// What stands beside the verdicts on one token.
pub(super) struct Words<'w> {
    pub verifier: &'w Verifier,
    pub clock: &'w Clock,
    pub token: BearerToken<'w>,
    pub compact: Option<&'w Compact<'w>>,
    pub claims: Option<&'w Claims>,
    pub issuer: Option<&'w Arc<Issuer>>,
    pub trusted: &'w IssuerSet,
    pub certificate: PeerCertificate<'w>,
    pub shown: Shown<'w>,
}

/// Which claims may be shown with their values.
#[derive(Clone, Copy, Debug)]
pub enum Shown<'s> {
    /// All: the operator has the token.
    All,
    /// These.
    Only(&'s [String]),
}

/// What is known of the client certificate.
#[derive(Clone, Copy, Debug)]
pub enum PeerCertificate<'c> {
    /// What the client showed, which may be none.
    Seen(Option<&'c ClientCertificate>),
    /// Nothing: there is no connection, and nobody said what it would show.
    Unknown,
}

/// What stands for a value that may not be shown.
pub(super) const NOT_SHOWN: &str = "(not shown)";

/// Longest value that is shown.
pub(super) const MAX_SHOWN: usize = 160;

impl<'c> PeerCertificate<'c> {
    /// What somebody says that the client would show; who says nothing does not say that it is none.
    pub fn said(certificate: Option<&'c ClientCertificate>) -> Self {
        certificate.map_or(Self::Unknown, |certificate| Self::Seen(Some(certificate)))
    }

    /// The certificate that the checks are made with.
    pub(super) fn shown(self) -> Option<&'c ClientCertificate> {
        match self {
            Self::Seen(certificate) => certificate,
            Self::Unknown => None,
        }
    }
}

/// Takes down what became of the rules for the client certificate.
pub(super) fn note_certificate(
    rules: &CertificateRules,
    outcome: Result<(), &Rejection>,
    certificate: PeerCertificate<'_>,
    report: &mut Report,
) {
    let expected = Some(brief(&rules.to_string()));
    match certificate {
        PeerCertificate::Unknown => report.needs_certificate("certificate", (None, expected)),
        PeerCertificate::Seen(seen) => {
            let found = seen.map_or_else(|| "none".to_owned(), |seen| brief(seen.principal()));
            report.note("certificate", outcome, (Some(found), expected));
        }
    }
}

impl Words<'_> {
    /// What the token has.
    pub fn found(&self, check: Check) -> Option<String> {
        let header = self.compact.map(|compact| &compact.header);
        match check {
            Check::Form => Some(format!("{} bytes", self.token.expose().len())),
            Check::Algorithm => header.map(|header| format!("alg {}", brief(&header.algorithm))),
            Check::Type => header.map(|header| match &header.kind {
                Some(kind) => format!("typ {}", brief(kind)),
                None => "no typ".to_owned(),
            }),
            Check::Issuer => Some(self.claim("iss")),
            Check::Audience => Some(self.claim("aud")),
            Check::Time => self.claims.map(|claims| self.times(claims)),
            Check::Claims => {
                self.issuer.filter(|issuer| !required(&issuer.expectations).is_empty()).map(|issuer| {
                    let there = |name: &&str| self.claims.is_some_and(|claims| claims.has(name));
                    let there: Vec<_> = required(&issuer.expectations).into_iter().filter(there).collect();
                    if there.is_empty() { "none of them".to_owned() } else { there.join(", ") }
                })
            }
            Check::Key => header.map(|header| match &header.key_id {
                Some(kid) => format!("kid {}", brief(kid)),
                None => "no kid".to_owned(),
            }),
            Check::Signature | Check::Introspection => None,
        }
    }

    /// What it should have.
    pub fn expected(&self, check: Check) -> Option<String> {
        let issuer = self.issuer?;
        let expected = &issuer.expectations;
        match check {
            Check::Form | Check::Signature => None,
            Check::Introspection => Some(format!("{} calls it active", issuer.name)),
            Check::Algorithm => Some(list(expected.algorithms.iter().map(|algorithm| algorithm.name()))),
            Check::Type => Some(match expected.profile {
                Some(Profile::Rfc9068) => "at+jwt".to_owned(),
                None => "at+jwt, JWT or none".to_owned(),
            }),
            Check::Issuer => {
                let issuers = self.verifier.issuers().iter();
                Some(list(
                    issuers.filter(|issuer| self.trusted.contains(issuer.id)).map(|issuer| &*issuer.url),
                ))
            }
            Check::Audience => Some(match &expected.audiences {
                Audiences::AnyOf(ours) => list(ours.iter().map(|our| &**our)),
                Audiences::InsecureAny => "any (insecure_accept_any_audience)".to_owned(),
            }),
            Check::Time => {
                let longest = expected.max_lifetime.map(|longest| {
                    let seconds = i64::try_from(longest.as_secs()).unwrap_or(i64::MAX);
                    format!(", lifetime at most {}", in_words(seconds))
                });
                let now = self.clock.wall();
                Some(format!(
                    "now {now}, leeway {} s{}",
                    expected.leeway.as_secs(),
                    longest.unwrap_or_default()
                ))
            }
            Check::Claims => match required(expected).as_slice() {
                [] => Some("known claims of their types".to_owned()),
                names => Some(names.join(", ")),
            },
            Check::Key => Some(self.keys(issuer)),
        }
    }

    fn keys(&self, issuer: &Issuer) -> String {
        let now = self.clock.monotonic();
        let state = issuer.keys.current();
        let age = issuer.keys.age(now).map(|age| in_words(i64::try_from(age.as_secs()).unwrap_or(i64::MAX)));
        let trouble = state.last_error().map(|error| format!("; the last refresh failed: {error}"));
        let trouble = trouble.unwrap_or_default();
        match (state.keys(now), age) {
            (Some(keys), _) if keys.is_empty() => format!("none: {} signs no tokens", issuer.name),
            (Some(keys), Some(age)) => {
                let kids = list(keys.iter().map(|key| key.kid().unwrap_or("a key without kid")));
                format!("{kids} of {}, fetched {age} ago{trouble}", issuer.name)
            }
            (None, Some(age)) => format!("keys of {}, too old: fetched {age} ago{trouble}", issuer.name),
            (_, None) => format!("keys of {}, never fetched{trouble}", issuer.name),
        }
    }

    fn times(&self, claims: &Claims) -> String {
        let now = self.clock.wall();
        let part = |name: &str, value: Option<UnixSeconds>| {
            value.filter(|_| self.may_show(name)).map(|at| format!("{name} {at} ({})", relative(at, now)))
        };
        let read = |value: Result<Option<UnixSeconds>, _>| value.ok().flatten();
        let parts = [
            part("exp", read(claims.expires())),
            part("nbf", read(claims.not_before())),
            part("iat", read(claims.issued_at())),
        ];
        let parts: Vec<_> = parts.into_iter().flatten().collect();
        if parts.is_empty() { "no times".to_owned() } else { parts.join(", ") }
    }

    /// Takes down the checks of a route's policy.
    pub fn note_policy(&self, policy: &Policy, issuer: &Issuer, claims: &Claims, report: &mut Report) {
        for (check, outcome) in policy.checks(issuer, claims, self.certificate.shown()) {
            let outcome = outcome.as_ref().copied();
            match check {
                PolicyCheck::Certificate(rules) => {
                    note_certificate(rules, outcome, self.certificate, report);
                }
                PolicyCheck::Binding => self.note_binding(issuer, claims, outcome, report),
                PolicyCheck::Scopes => {
                    let held = match claims.scopes() {
                        _ if !self.may_show("scope") => NOT_SHOWN.to_owned(),
                        [] => "none".to_owned(),
                        scopes => brief(&scopes.join(" ")),
                    };
                    report.note("scopes", outcome, (Some(held), Some(needed(policy))));
                }
                PolicyCheck::Rule(rule) => {
                    let name = format!("rule {}", rule.name);
                    let path = rule.claim.join(".");
                    let value = rule.claim.first().map(|first| self.value(first, claims.at(&rule.claim)));
                    let found = format!("{path} {}", value.unwrap_or_default());
                    report.note(name, outcome, (Some(found), Some(rule.test.to_string())));
                }
            }
        }
    }

    /// Takes down whether the token is of no use without a client certificate.
    pub fn note_binding(
        &self,
        issuer: &Issuer,
        claims: &Claims,
        outcome: Result<(), &Rejection>,
        report: &mut Report,
    ) {
        let bound_to = bound_to(claims);
        let found = match bound_to {
            None => "bound to no certificate".to_owned(),
            digest => format!("bound to {}", self.value("cnf", digest)),
        };
        let expected = match (issuer.expectations.binding, self.certificate.shown()) {
            (Binding::InsecureIgnore, _) => Some("not looked at (binding: insecure_ignore)".to_owned()),
            (_, Some(shown)) if bound_to.is_some() => {
                Some(format!("{}, the client certificate", shown.x5t_s256()))
            }
            (Binding::Certificate, _) => Some("bound (binding: certificate)".to_owned()),
            (Binding::IfBound, _) => None,
        };
        let sides = (Some(found), expected);
        match (outcome, self.certificate) {
            (Err(_), PeerCertificate::Unknown) if bound_to.is_some() => {
                report.needs_certificate("binding", sides);
            }
            _ => report.note("binding", outcome, sides),
        }
    }

    fn claim(&self, name: &str) -> String {
        let value = self.claims.and_then(|claims| claims.all().get(name));
        format!("{name} {}", self.value(name, value))
    }

    fn value(&self, claim: &str, value: Option<&Value>) -> String {
        match value {
            None => "absent".to_owned(),
            Some(_) if !self.may_show(claim) => NOT_SHOWN.to_owned(),
            Some(Value::String(text)) => brief(text),
            Some(value) => brief(&value.to_string()),
        }
    }

    fn may_show(&self, claim: &str) -> bool {
        match self.shown {
            Shown::All => true,
            Shown::Only(names) => names.iter().any(|name| name == claim),
        }
    }
}

/// `expired 3 h ago`, in words; both ways.
fn relative(at: UnixSeconds, now: UnixSeconds) -> String {
    let ahead = at.0.saturating_sub(now.0);
    if ahead > 0 { format!("in {}", in_words(ahead)) } else { format!("{} ago", in_words(-ahead)) }
}

fn required(expected: &Expectations) -> Vec<&str> {
    let profile = expected.profile.map(Profile::required_claims).unwrap_or_default();
    profile.iter().copied().chain(expected.required_claims.iter().map(|claim| &**claim)).collect()
}

fn needed(policy: &Policy) -> String {
    let all = policy.all_scopes.join(" ");
    match (policy.all_scopes.is_empty(), policy.any_scopes.is_empty()) {
        (true, true) => "none".to_owned(),
        (false, true) => all,
        (true, false) => list(policy.any_scopes.iter().map(|scope| &**scope)),
        (false, false) => format!("{all}, and {}", list(policy.any_scopes.iter().map(|scope| &**scope))),
    }
}

/// What the feeds say of a token.
pub(super) fn told(survey: &Survey) -> String {
    if survey.feeds.is_empty() {
        return "no feed: tokens of this issuer are good until they expire".to_owned();
    }
    let feeds = survey.feeds.iter().map(|surveyed| {
        let name = surveyed.feed.name();
        let heard = |age: std::time::Duration| in_words(i64::try_from(age.as_secs()).unwrap_or(i64::MAX));
        let freshness = match surveyed.freshness {
            Freshness::NotLoaded => "never heard".to_owned(),
            Freshness::Fresh { age } => format!("heard {} ago", heard(age)),
            Freshness::Stale { age } => format!("stale: heard {} ago", heard(age)),
        };
        let entry = match surveyed.hit {
            None => "no entry".to_owned(),
            Some(hit) => match hit.before {
                None => format!("an entry for its {}", hit.kind.name()),
                Some(before) => format!("an entry for its {} issued before {before}", hit.kind.name()),
            },
        };
        format!("feed {name}: {entry} ({freshness})")
    });
    feeds.collect::<Vec<_>>().join("; ")
}

/// `a`, `one of a, b`.
fn list<'t>(words: impl Iterator<Item = &'t str>) -> String {
    let words: Vec<String> = words.map(brief).collect();
    match words.as_slice() {
        [] => "none".to_owned(),
        [word] => word.clone(),
        words => brief(&format!("one of {}", words.join(", "))),
    }
}

/// Short, and without characters that would act on a terminal.
pub(super) fn brief(text: &str) -> String {
    let mut brief: String = text
        .chars()
        .take(MAX_SHOWN)
        .map(|character| if acts_on_a_terminal(character) { '\u{fffd}' } else { character })
        .collect();
    if text.chars().nth(MAX_SHOWN).is_some() {
        brief.push('…');
    }
    brief
}

#[cfg(test)]
mod tests {
    use super::{MAX_SHOWN, brief};

    #[test]
    fn what_is_shown_is_short_and_leaves_a_terminal_alone() {
        assert_eq!(brief("a\u{1b}[31m\u{202e}b\u{2066}\u{feff}"), "a\u{fffd}[31m\u{fffd}b\u{fffd}\u{fffd}");
        assert_eq!(brief("zażółć 🦀"), "zażółć 🦀");
        assert_eq!(brief(&"x".repeat(MAX_SHOWN + 1)), "x".repeat(MAX_SHOWN) + "…");
    }
}
