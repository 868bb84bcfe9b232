//! Why a token is accepted or refused: the steps that serve requests, run to their end, with what each one found.
//!
//! Nothing here decides anything. What passes and what fails is said by the same functions that [`super::handle`]
//! calls; this page only puts words beside it.

use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderValue, Method, Request, Uri};
use serde_json::Value;

use super::core::RequestLimits;
use super::credential::{self, Sender};
use super::explanation::{CheckReport, Explanation, Refusal, Report};
use super::route::{Route, Routes};
use super::sanitize::CleanRequest;
use crate::catalogue::Reason;
use crate::clock::{Clock, UnixSeconds, in_words};
use crate::keys::LookAgain;
use crate::policy::{Access, Policy, PolicyCheck};
use crate::rejection::Rejection;
use crate::revocation::{Candidate, Freshness, RevocationPolicies, Survey};
use crate::token::{
    Answer, Audiences, BearerToken, Check, Claims, CollectAll, Compact, Expectations, Finding, Inputs,
    Issuer, IssuerSet, LookedAgain, Need, Profile, Verdict, Verifier,
};

/// Explains verdicts. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Explainer {
    /// The routes.
    pub routes: Arc<Routes>,
    /// Who tells tokens apart.
    pub verifier: Arc<Verifier>,
    /// Who knows which were revoked.
    pub revocation: Arc<RevocationPolicies>,
    /// The bounds on requests.
    pub limits: RequestLimits,
    /// Time.
    pub clock: Clock,
}

/// Which claims may be shown with their values.
#[derive(Clone, Copy, Debug)]
pub enum Shown<'s> {
    /// All: the operator has the token.
    All,
    /// These.
    Only(&'s [String]),
}

/// What must be waited for before all checks can be made.
enum Lacking {
    Verdict(Need),
    StatusList(Box<Candidate>),
}
/// What stands for a value that may not be shown.
pub(super) const NOT_SHOWN: &str = "(not shown)";

/// Longest value that is shown.
pub(super) const MAX_SHOWN: usize = 160;

impl Explainer {
    /// What would become of a request for this URL with this token; without a URL, what is to be said of the token
    /// whatever the route. Waits for keys as a request does.
    pub async fn explain(&self, text: &str, request: Option<(Method, Uri)>) -> Explanation {
        let mut report = Report::default();
        let route = request.and_then(|request| self.find_route(text, request, &mut report));
        let token = BearerToken::new(text).filter(|_| text.len() <= self.limits.token);
        match token {
            _ if route.as_deref().is_some_and(|route| !matches!(route.access, Access::Require(_))) => {}
            Some(token) => {
                let checks = self.judge_patiently(token, route.as_deref()).await;
                report.checks.extend(checks.checks);
                report.first = report.first.or(checks.first);
            }
            None if report.first.is_none() => self.refuse_credential(text, &mut report),
            None => {}
        }
        Explanation {
            accepted: report.first.is_none(),
            refusal: report.first.as_ref().map(Refusal::of),
            token: crate::token::Fingerprint::of(text.as_bytes()).to_string(),
            at: self.clock.wall().to_string(),
            route: route.map(|route| route.name.to_string()),
            checks: report.checks,
        }
    }

    /// All checks of the token; waits for what they need as a request does.
    async fn judge_patiently(&self, token: BearerToken<'_>, route: Option<&Route>) -> Report {
        let (mut looked_again, mut introspected) = (LookedAgain::NotYet, None);
        loop {
            match self.judge(token, route, looked_again, introspected.as_ref(), Shown::All) {
                Ok(report) => return report,
                Err(Lacking::Verdict(Need::Keys(issuer, kid))) => {
                    looked_again = match issuer.keys.look_again(kid.as_deref()).await {
                        LookAgain::Refreshed => LookedAgain::Refreshed,
                        LookAgain::Failed | LookAgain::TimedOut => LookedAgain::Failed,
                    };
                }
                Err(Lacking::Verdict(Need::Introspection(issuer))) => {
                    match issuer.introspect(token.into()).await {
                        Ok(answer) => introspected = Some(answer),
                        Err(unavailable) => {
                            let mut report = Report::default();
                            report.note(Check::Introspection.name(), Err(&unavailable), (None, None));
                            return report;
                        }
                    }
                }
                Err(Lacking::StatusList(candidate)) => self.revocation.prepare(&candidate).await,
            }
        }
    }

    /// The checks of a token that was just refused, without waiting for anything.
    pub(super) fn explain_refused(
        &self,
        token: BearerToken<'_>,
        route: &Route,
        refused: &Rejection,
        shown: Shown<'_>,
    ) -> Vec<CheckReport> {
        let looked_again = match refused.reason() {
            Reason::KeysUnreachable => LookedAgain::Failed,
            _ => LookedAgain::Refreshed,
        };
        let report = self.judge(token, Some(route), looked_again, None, shown);
        report.map(|report| report.checks).unwrap_or_default()
    }

    /// The steps before the token itself is looked at.
    fn find_route(
        &self,
        text: &str,
        (method, uri): (Method, Uri),
        report: &mut Report,
    ) -> Option<Arc<Route>> {
        let asked = format!("{method} {uri}");
        let is_https = uri.scheme_str() == Some("https");
        let mut request = Request::new(());
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        if !text.is_empty()
            && let Ok(value) = HeaderValue::from_str(&format!("Bearer {text}"))
        {
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        let clean = CleanRequest::sanitize(Box::new(request), self.limits);
        report.note("request", clean.as_ref().map(|_| ()), (Some(asked), None));
        let clean = clean.ok()?;
        let found = self.routes.find(&clean);
        let name = found.as_ref().ok().map(|route| match route.access {
            Access::Public => format!("{} (public: no token is asked for)", route.name),
            Access::Certificate(_) => {
                format!("{} (a client certificate is asked for, and no token)", route.name)
            }
            Access::Require(Policy { client_certificate: Some(_), .. }) => {
                format!("{} (a client certificate is asked for besides)", route.name)
            }
            Access::Require(_) => route.name.to_string(),
        });
        report.note("route", found.as_ref().map(|_| ()), (name, None));
        let route = found.ok()?;
        if matches!(route.access, Access::Require(_)) {
            let from = Sender { is_https, is_trusted_page: false };
            let token = credential::extract(&clean, &route.token_from, from, self.limits.token);
            let size = format!("a bearer token of {} bytes", text.len());
            let most = format!("at most {} bytes", self.limits.token);
            report.note("credential", token.as_ref().map(|_| ()), (Some(size), Some(most)));
        }
        Some(Arc::clone(route))
    }

    /// The step that a token cannot pass which has not even the form of one.
    fn refuse_credential(&self, text: &str, report: &mut Report) {
        let reason = if text.is_empty() {
            Reason::Empty
        } else if text.len() > self.limits.token {
            Reason::TokenTooLarge
        } else {
            Reason::IllegalCharacters
        };
        let size = format!("{} bytes", text.len());
        report.note("credential", Err(&reason.into()), (Some(size), None));
    }

    /// All checks of the token, or what must be waited for first.
    fn judge(
        &self,
        token: BearerToken<'_>,
        route: Option<&Route>,
        looked_again: LookedAgain,
        introspected: Option<&Answer>,
        shown: Shown<'_>,
    ) -> Result<Report, Lacking> {
        let policy = route.and_then(|route| match &route.access {
            Access::Require(policy) => Some(policy),
            Access::Public | Access::Certificate(_) => None,
        });
        let everyone: IssuerSet;
        let trusted = if let Some(policy) = policy {
            &policy.issuers
        } else {
            everyone = self.verifier.issuers().iter().map(|issuer| issuer.id).collect();
            &everyone
        };
        let (now, monotonic) = (self.clock.wall(), self.clock.monotonic());
        let mut all = CollectAll::default();
        let inputs = Inputs { trusted, now, monotonic, looked_again, introspected };
        let verdict = self.verifier.verify(token, inputs, &mut all);
        let verified = match verdict {
            Verdict::Needs(need) => return Err(Lacking::Verdict(need)),
            Verdict::Verified(verified) => {
                let candidate = self.revocation.candidate(verified.clone()).ok();
                if let Some(candidate) = candidate.filter(|candidate| !candidate.is_ready()) {
                    return Err(Lacking::StatusList(Box::new(candidate)));
                }
                Some(verified)
            }
            Verdict::Refused(_) => None,
        };

        let compact = Compact::parse(token.expose()).ok();
        // Those of an opaque token are with its issuer.
        let claims = match &verified {
            Some(verified) => Some(verified.claims().clone()),
            None => compact.as_ref().and_then(|compact| compact.claims().ok()).map(Claims::new),
        };
        let url = claims.as_ref().and_then(|claims| claims.issuer().ok().flatten());
        let issuer = url.and_then(|url| self.verifier.issuers().find(url));
        let words = Words {
            explainer: self,
            token,
            compact: compact.as_ref(),
            claims: claims.as_ref(),
            issuer,
            trusted,
            shown,
        };

        let mut report = Report::default();
        for Finding { check, failure } in &all.findings {
            let outcome = failure.as_ref().map_or(Ok(()), Err);
            report.note(check.name(), outcome, (words.found(*check), words.expected(*check)));
        }
        for check in Check::ALL {
            // A verified token needed no other check: an opaque one has no header, and most issuers are not asked.
            let is_asked = issuer.is_some_and(|issuer| issuer.introspection.is_some());
            if verified.is_some() || (check == Check::Introspection && !is_asked) {
                continue;
            }
            if !all.findings.iter().any(|finding| finding.check == check) {
                report.not_made(check.name(), "Not made, since an earlier check failed.");
            }
        }
        let (Some(claims), Some(issuer)) = (&claims, issuer) else { return Ok(report) };
        let kid = match &verified {
            Some(verified) => verified.key().and_then(|key| key.kid()),
            None => compact.as_ref().and_then(|compact| compact.header.key_id.as_deref()),
        };
        let survey = self.revocation.survey(issuer, claims, kid, &self.clock);
        let found = told(&survey);
        report.note("revocation", survey.outcome.as_ref().copied(), (Some(found), None));
        match policy {
            Some(policy) => words.policy(policy, claims, &mut report),
            None => {
                report.not_made("scopes and rules", "Not made, since no URL was given to find a route by.");
            }
        }
        Ok(report)
    }
}

/// What stands beside the verdicts on one token.
struct Words<'w> {
    explainer: &'w Explainer,
    token: BearerToken<'w>,
    compact: Option<&'w Compact<'w>>,
    claims: Option<&'w Claims>,
    issuer: Option<&'w Arc<Issuer>>,
    trusted: &'w IssuerSet,
    shown: Shown<'w>,
}

impl Words<'_> {
    fn found(&self, check: Check) -> Option<String> {
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

    fn expected(&self, check: Check) -> Option<String> {
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
                let issuers = self.explainer.verifier.issuers().iter();
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
                let now = self.explainer.clock.wall();
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
        let now = self.explainer.clock.monotonic();
        let state = issuer.keys.current();
        let age = issuer.keys.age(now).map(|age| in_words(i64::try_from(age.as_secs()).unwrap_or(i64::MAX)));
        let trouble = state.last_error().map(|error| format!("; the last refresh failed: {error}"));
        let trouble = trouble.unwrap_or_default();
        match (state.keys(now), age) {
            (Some(keys), Some(age)) => {
                let kids = list(keys.iter().map(|key| key.kid().unwrap_or("a key without kid")));
                format!("{kids} of {}, fetched {age} ago{trouble}", issuer.name)
            }
            (None, Some(age)) => format!("keys of {}, too old: fetched {age} ago{trouble}", issuer.name),
            (_, None) => format!("keys of {}, never fetched{trouble}", issuer.name),
        }
    }

    fn times(&self, claims: &Claims) -> String {
        let now = self.explainer.clock.wall();
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

    fn policy(&self, policy: &Policy, claims: &Claims, report: &mut Report) {
        for (check, outcome) in policy.checks(claims) {
            let outcome = outcome.as_ref().copied();
            match check {
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

fn told(survey: &Survey) -> String {
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

/// Short, and without characters that would move a terminal's cursor.
pub(super) fn brief(text: &str) -> String {
    let mut brief: String = text
        .chars()
        .take(MAX_SHOWN)
        .map(|character| if character.is_control() { '\u{fffd}' } else { character })
        .collect();
    if text.chars().nth(MAX_SHOWN).is_some() {
        brief.push('…');
    }
    brief
}
