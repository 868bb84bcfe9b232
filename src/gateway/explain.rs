//! Why a token is accepted or refused: the steps that serve requests, run to their end, with what each one found.
//!
//! Nothing here decides anything. What passes and what fails is said by the same functions that [`super::handle`]
//! calls; this page only puts words beside it.

use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderValue, Method, Request, Uri};

use super::core::RequestLimits;
use super::credential::{self, Sender};
use super::explanation::{CheckReport, Explanation, Refusal, Report};
use super::route::{Route, Routes};
use super::sanitize::CleanRequest;
use super::wording::{PeerCertificate, Shown, Words, note_certificate, told};
use crate::catalogue::Reason;
use crate::certificate::{ClientCertificate, check_binding};
use crate::clock::Clock;
use crate::keys::LookAgain;
use crate::policy::{Access, Policy};
use crate::rejection::Rejection;
use crate::revocation::{Candidate, RevocationPolicies};
use crate::token::{
    Answer, BearerToken, Check, Claims, CollectAll, Compact, Finding, Inputs, IssuerSet, LookedAgain, Need,
    Verdict, Verifier,
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

/// A token that was just refused, and what came to light meanwhile.
#[derive(Clone, Copy, Debug)]
pub(super) struct RefusedToken<'r> {
    pub token: BearerToken<'r>,
    pub route: &'r Route,
    pub refused: &'r Rejection,
    /// What its issuer said, as far as that is known.
    pub answer: Option<&'r Answer>,
    /// What the client showed.
    pub certificate: Option<&'r ClientCertificate>,
}

/// What is known besides the token.
#[derive(Clone, Copy)]
struct Known<'k> {
    looked_again: LookedAgain,
    /// What the issuer said of the token, or why it said nothing; `None` if it was not asked yet.
    introspected: Option<Result<&'k Answer, &'k Rejection>>,
    certificate: PeerCertificate<'k>,
    shown: Shown<'k>,
    /// Otherwise what is missing is left out.
    may_wait: bool,
}

/// What must be waited for before all checks can be made.
enum Lacking {
    Verdict(Need),
    StatusList(Box<Candidate>),
}

impl Explainer {
    /// What would become of a request for this URL with this token, from a client with this certificate; without a URL,
    /// what is to be said of the token whatever the route. Waits for keys as a request does.
    pub async fn explain(
        &self,
        text: &str,
        request: Option<(Method, Uri)>,
        certificate: PeerCertificate<'_>,
    ) -> Explanation {
        let mut report = Report::default();
        let route = request.and_then(|request| self.find_route(text, request, &mut report));
        let token = BearerToken::new(text).filter(|_| text.len() <= self.limits.token);
        match (route.as_deref().map(|route| &route.access), token) {
            (Some(Access::Public), _) => {}
            (Some(Access::Certificate(rules)), _) => {
                let admitted = rules.admit(certificate.shown());
                note_certificate(rules, admitted.as_ref().map(|_| ()), certificate, &mut report);
            }
            (_, Some(token)) => {
                report.append(self.judge_patiently(token, route.as_deref(), certificate).await);
            }
            (_, None) if report.first.is_none() => self.refuse_credential(text, &mut report),
            (_, None) => {}
        }
        Explanation {
            accepted: report.first.is_none() && report.undecided.is_none(),
            undecided: report.undecided.filter(|_| report.first.is_none()).map(str::to_owned),
            refusal: report.first.as_ref().map(Refusal::of),
            token: crate::token::Fingerprint::of(text.as_bytes()).to_string(),
            at: self.clock.wall().to_string(),
            route: route.map(|route| route.name.to_string()),
            checks: report.checks,
        }
    }

    /// All checks of the token; waits for what they need as a request does.
    async fn judge_patiently(
        &self,
        token: BearerToken<'_>,
        route: Option<&Route>,
        certificate: PeerCertificate<'_>,
    ) -> Report {
        let mut looked_again = LookedAgain::NotYet;
        let mut introspected: Option<Result<Answer, Rejection>> = None;
        // Last of all, and once, whatever became of it.
        let mut waited_for_list = false;
        loop {
            let known = Known {
                looked_again,
                introspected: introspected.as_ref().map(Result::as_ref),
                certificate,
                shown: Shown::All,
                may_wait: !waited_for_list,
            };
            match self.judge(token, route, known) {
                Ok(report) => return report,
                Err(Lacking::Verdict(Need::Keys(issuer, kid))) => {
                    looked_again = match issuer.keys.look_again(kid.as_deref()).await {
                        LookAgain::Refreshed => LookedAgain::Refreshed,
                        LookAgain::Failed | LookAgain::TimedOut => LookedAgain::Failed,
                    };
                }
                Err(Lacking::Verdict(Need::Introspection(issuer))) => {
                    introspected = Some(issuer.introspect(token.into()).await);
                }
                Err(Lacking::StatusList(candidate)) => {
                    self.revocation.prepare(&candidate, &self.clock).await;
                    waited_for_list = true;
                }
            }
        }
    }

    /// The checks of a token that was just refused, without waiting for anything.
    pub(super) fn explain_refused(&self, request: RefusedToken<'_>, shown: Shown<'_>) -> Vec<CheckReport> {
        let RefusedToken { token, route, refused, answer, certificate } = request;
        let looked_again = match refused.reason() {
            Reason::KeysUnreachable => LookedAgain::Failed,
            _ => LookedAgain::Refreshed,
        };
        let introspected = match refused.reason() {
            Reason::IntrospectionFailed => Some(Err(refused)),
            _ => answer.map(Ok),
        };
        let certificate = PeerCertificate::Seen(certificate);
        let known = Known { looked_again, introspected, certificate, shown, may_wait: false };
        self.judge(token, Some(route), known).map(|report| report.checks).unwrap_or_default()
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
            let shown = credential::extract(&clean, &route.token_from, from, self.limits.token);
            let token = shown
                .and_then(|shown| shown.token().ok_or_else(|| Rejection::new(Reason::IllegalCharacters)));
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
        known: Known<'_>,
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
        let answer = known.introspected.and_then(Result::ok);
        let inputs =
            Inputs { trusted, now, monotonic, looked_again: known.looked_again, introspected: answer };
        let verdict = self.verifier.verify(token, inputs, &mut all);
        let lacks_answer = matches!(verdict, Verdict::Needs(Need::Introspection(_)));
        let verified = match verdict {
            Verdict::Needs(need) if known.may_ask_for(&need) => return Err(Lacking::Verdict(need)),
            Verdict::Verified(verified) => {
                let candidate = self.revocation.candidate(verified.clone()).ok();
                let candidate = candidate.filter(|candidate| known.may_wait && !candidate.is_ready());
                if let Some(candidate) = candidate {
                    return Err(Lacking::StatusList(Box::new(candidate)));
                }
                Some(verified)
            }
            Verdict::Refused(_) | Verdict::Needs(_) => None,
        };

        let compact = Compact::parse(token.expose()).ok();
        let claims = match (&verified, &compact, answer) {
            (Some(verified), _, _) => Some(verified.claims().clone()),
            (None, Some(compact), _) => compact.claims().ok().map(Claims::new),
            // Those of an opaque token are with its issuer.
            (None, None, Some(Answer::Active(active))) => Some(Claims::new(active.claims.clone())),
            (None, None, _) => None,
        };
        let url = claims.as_ref().and_then(|claims| claims.issuer().ok().flatten());
        let issuer = url.and_then(|url| self.verifier.issuers().find(url));
        let words = Words {
            verifier: &self.verifier,
            clock: &self.clock,
            token,
            compact: compact.as_ref(),
            claims: claims.as_ref(),
            issuer,
            trusted,
            certificate: known.certificate,
            shown: known.shown,
        };

        let mut report = Report::default();
        for Finding { check, failure } in &all.findings {
            let outcome = failure.as_ref().map_or(Ok(()), Err);
            report.note(check.name(), outcome, (words.found(*check), words.expected(*check)));
        }
        if let (true, Some(Err(why))) = (lacks_answer, known.introspected) {
            report.note(Check::Introspection.name(), Err(why), (None, None));
        } else if lacks_answer {
            report.not_made(Check::Introspection.name(), "Not made: the issuer was not asked again.");
        }
        for check in Check::ALL {
            // A verified token needed no other check: an opaque one has no header, and most issuers are not asked.
            let is_asked = issuer.is_some_and(|issuer| issuer.introspection.is_some());
            if verified.is_some() || (check == Check::Introspection && (lacks_answer || !is_asked)) {
                continue;
            }
            if !all.findings.iter().any(|finding| finding.check == check) {
                report.not_made(check.name(), "Not made, since an earlier check failed.");
            }
        }
        let (Some(claims), Some(issuer)) = (&claims, issuer) else { return Ok(report) };
        let kid = match &verified {
            Some(verified) => verified.key_id(),
            None => compact.as_ref().and_then(|compact| compact.header.key_id.as_deref()),
        };
        let survey = self.revocation.survey(issuer, claims, kid, &self.clock);
        let found = told(&survey);
        report.note("revocation", survey.outcome.as_ref().copied(), (Some(found), None));
        if let Some(policy) = policy {
            words.note_policy(policy, issuer, claims, &mut report);
        } else {
            let bound = check_binding(issuer, claims, known.certificate.shown());
            words.note_binding(issuer, claims, bound.as_ref().copied(), &mut report);
            report.not_made("scopes and rules", "Not made, since no URL was given to find a route by.");
        }
        Ok(report)
    }
}

impl Known<'_> {
    fn may_ask_for(&self, need: &Need) -> bool {
        self.may_wait && !(matches!(need, Need::Introspection(_)) && self.introspected.is_some())
    }
}
