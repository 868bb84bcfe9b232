//! `demo --check`: sends every scenario over HTTP/1.1 and HTTP/2 and compares what came of it.
//!
//! What reached the API is looked up after the last answer, so that a request which was refused and forwarded all
//! the same is found even if it was slow.

use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use serde_json::Value;

use super::Demo;
use super::api::Received;
use super::client::{Client, Protocol, send_plain};
use super::scenarios::{Before, Credential, Expect, Probe, SCENARIOS, Scenario};
use super::tokens::Token;
use crate::clock::Clock;

/// Marks a request, so that it is recognized when it arrives at the API.
const MARK: HeaderName = HeaderName::from_static("x-demo-request");

const SUBJECT: HeaderName = HeaderName::from_static("x-auth-subject");

const BETWEEN_POLLS: Duration = Duration::from_millis(10);

/// What came of one scenario.
pub(super) struct Verdict {
    pub(super) scenario: &'static Scenario,
    /// For each protocol, what the client got.
    pub(super) answers: [(Protocol, Answer); 2],
    /// For each protocol, whether the API got the request.
    pub(super) reached: [bool; 2],
    /// What is not as it should be; empty if all is well.
    pub(super) deviations: Vec<String>,
    /// How long after the revocation the gateway refused the token.
    pub(super) took: Option<Duration>,
}

/// What the client got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// A response that is not a refusal of valgate's.
    Response { status: u16 },
    /// A refusal.
    Problem { status: u16, code: String, reason: String },
    /// No response.
    Broken(String),
}

/// The scenarios, ready to be run.
pub(super) struct Check<'a> {
    demo: &'a Demo,
    clock: &'a Clock,
    client: Client,
    patience: Duration,
}

impl<'a> Check<'a> {
    /// A check that waits at most for `patience` for keys, feed and revocations to arrive at the gateway.
    pub(super) fn new(demo: &'a Demo, clock: &'a Clock, patience: Duration) -> anyhow::Result<Self> {
        Ok(Self { demo, clock, client: Client::new(demo.gateway, &demo.ca)?, patience })
    }

    /// What is checked.
    pub(super) fn demo(&self) -> &Demo {
        self.demo
    }

    /// Runs all scenarios in their order.
    pub(super) async fn run_all(&self) -> Vec<Verdict> {
        self.wait_until_ready().await;
        let mut verdicts = Vec::new();
        for (index, scenario) in SCENARIOS.iter().enumerate() {
            verdicts.push(self.run(index, scenario).await);
        }
        let received = self.demo.api.received();
        for (index, verdict) in verdicts.iter_mut().enumerate() {
            judge(index, verdict, &received, self.demo.tokens.all());
        }
        verdicts
    }

    /// Waits while the gateway says that it has no keys or revocations yet. If that does not end, the scenarios
    /// will show it.
    pub(super) async fn wait_until_ready(&self) {
        let probe = Probe {
            method: "GET",
            path: "/orders/7",
            credential: Credential::Bearer(Token::Valid),
            headers: &[],
            body: None,
        };
        let unavailable = StatusCode::SERVICE_UNAVAILABLE.as_u16();
        self.poll(&probe, |answer| answer.status().is_some_and(|status| status != unavailable)).await;
    }

    async fn run(&self, index: usize, scenario: &'static Scenario) -> Verdict {
        let mut deviations = Vec::new();
        let took = self.before(scenario).await.unwrap_or_else(|error| {
            deviations.push(format!("{error:#}"));
            None
        });
        let [first, second] = Protocol::BOTH;
        let answers = [
            (first, self.ask(first, &scenario.request, &mark(index, first)).await),
            (second, self.ask(second, &scenario.request, &mark(index, second)).await),
        ];
        Verdict { scenario, answers, reached: [false; 2], deviations, took }
    }

    /// What has to happen at the issuer; gives how long the gateway took to act on a revocation.
    async fn before(&self, scenario: &Scenario) -> anyhow::Result<Option<Duration>> {
        match scenario.before {
            Before::Nothing => Ok(None),
            Before::Rotate => {
                self.tell_issuer("/rotate", String::new()).await?;
                Ok(None)
            }
            Before::RevokeToken | Before::RevokeSession => {
                let answer = self.ask(Protocol::Http2, &scenario.request, "before-revocation").await;
                ensure!(answer.status() == Some(200), "was not accepted before its revocation: {answer}");
                let entry = self.demo.revocation(scenario.before).context("nothing to revoke")?;
                self.tell_issuer("/revoke", serde_json::to_string(&entry)?).await?;
                let revoked = self.clock.monotonic();
                let refused = self.poll(&scenario.request, |answer| answer.status() != Some(200)).await;
                ensure!(refused, "still accepted {} s after its revocation", self.patience.as_secs());
                Ok(Some(revoked.until(self.clock.monotonic())))
            }
        }
    }

    async fn tell_issuer(&self, path: &str, body: String) -> anyhow::Result<()> {
        let request = Request::post(path).body(Full::from(body))?;
        let answer = send_plain(self.demo.issuer.address(), request).await?;
        ensure!(answer.status().is_success(), "the issuer answered {path} with {}", answer.status());
        Ok(())
    }

    /// Repeats the request until the answer is as wanted; false if that takes too long.
    async fn poll(&self, probe: &Probe, wanted: impl Fn(&Answer) -> bool) -> bool {
        let polling = async {
            while !wanted(&self.ask(Protocol::Http1, probe, "poll").await) {
                tokio::time::sleep(BETWEEN_POLLS).await;
            }
        };
        tokio::time::timeout(self.patience, polling).await.is_ok()
    }

    async fn ask(&self, protocol: Protocol, probe: &Probe, mark: &str) -> Answer {
        let answer = async { self.client.send(protocol, self.request(probe, mark)?).await };
        answer
            .await
            .map_or_else(|error| Answer::Broken(format!("{error:#}")), |response| Answer::of(&response))
    }

    fn request(&self, probe: &Probe, mark: &str) -> anyhow::Result<Request<Full<Bytes>>> {
        let body = Full::from(probe.body.unwrap_or_default());
        let mut request = Request::builder().method(probe.method).uri(probe.path).body(body)?;
        let headers = request.headers_mut();
        headers.insert(MARK, HeaderValue::from_str(mark)?);
        if probe.body.is_some() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        for (name, value) in probe.headers {
            headers.append(HeaderName::from_bytes(name.as_bytes())?, HeaderValue::from_static(value));
        }
        for value in self.demo.tokens.authorization(probe.credential) {
            headers.append(header::AUTHORIZATION, HeaderValue::from_str(&value)?);
        }
        Ok(request)
    }
}

/// Fills in what reached the API, and what of all this is not as it should be.
fn judge(index: usize, verdict: &mut Verdict, received: &[Received], tokens: &[(Token, String)]) {
    let expect = verdict.scenario.expect;
    for ((protocol, answer), reached) in verdict.answers.iter().zip(&mut verdict.reached) {
        let mark = mark(index, *protocol);
        let arrived: Vec<_> = received
            .iter()
            .filter(|request| request.headers.get(MARK).is_some_and(|it| *it == mark))
            .collect();
        *reached = !arrived.is_empty();
        let mut deviate = |what: String| verdict.deviations.push(format!("{}: {what}", protocol.name()));
        if !answer.is(expect) {
            deviate(format!("expected {expect}, got {answer}"));
        }
        match expect {
            Expect::Refused { .. } if *reached => deviate("the API got the request".to_owned()),
            Expect::Reaches { .. } if arrived.len() != 1 => {
                deviate(format!("the API got the request {} times", arrived.len()));
            }
            Expect::Refused { .. } => {}
            Expect::Reaches { subject, .. } => {
                for request in arrived {
                    judge_received(request, subject, verdict.scenario.request, tokens, &mut deviate);
                }
            }
        }
    }
}

/// What the API must and must not have seen.
fn judge_received(
    request: &Received,
    subject: Option<&str>,
    sent: Probe,
    tokens: &[(Token, String)],
    deviate: &mut impl FnMut(String),
) {
    let subjects = request.values(&SUBJECT);
    if !subjects.iter().map(String::as_str).eq(subject) {
        deviate(format!("the API saw the subjects {subjects:?}, expected {subject:?}"));
    }
    for name in request.headers.keys() {
        let spelled_otherwise = name.as_str().replace('_', "-") == SUBJECT.as_str() && *name != SUBJECT;
        if spelled_otherwise {
            deviate(format!("the API saw the spoofed header {name}"));
        }
        let leaks = |value: &String| tokens.iter().any(|(_, token)| value.contains(token.as_str()));
        if *name == header::AUTHORIZATION || request.values(name).iter().any(leaks) {
            deviate(format!("the API saw the token, in {name}"));
        }
    }
    let length = sent.body.map_or(0, str::len) as u64;
    if !request.body_complete || request.body_len != length {
        deviate(format!("the API got {} bytes of a body of {length}", request.body_len));
    }
}

fn mark(index: usize, protocol: Protocol) -> String {
    format!("{index}-{}", protocol.name())
}

impl Answer {
    fn of(response: &Response<Bytes>) -> Self {
        let status = response.status().as_u16();
        let problem = response
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|it| it.as_bytes().starts_with(b"application/problem+json"));
        if !problem {
            return Self::Response { status };
        }
        let body: Value = serde_json::from_slice(response.body()).unwrap_or_default();
        let member = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or("-").to_owned();
        Self::Problem { status, code: member("code"), reason: member("reason") }
    }

    fn status(&self) -> Option<u16> {
        match self {
            Self::Response { status } | Self::Problem { status, .. } => Some(*status),
            Self::Broken(_) => None,
        }
    }

    fn is(&self, expect: Expect) -> bool {
        match (self, expect) {
            (Self::Response { status }, Expect::Reaches { status: wanted, .. }) => *status == wanted,
            (
                Self::Problem { status, code, reason },
                Expect::Refused { status: wanted, code: wanted_code, reason: wanted_reason },
            ) => *status == wanted && code == wanted_code && reason == wanted_reason,
            _ => false,
        }
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Response { status } => write!(f, "{status}"),
            Self::Problem { status, code, reason } => write!(f, "{status} {code} {reason}"),
            Self::Broken(error) => write!(f, "no answer ({error})"),
        }
    }
}
