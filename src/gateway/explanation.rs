//! A verdict with its reasons, as an operator reads it: every check, what it found and expected, and what to do.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::respond::{as_sentence, sentence};
use crate::rejection::Rejection;

/// What would become of a token, and why.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
pub struct Explanation {
    /// Whether a request with the token would be forwarded.
    pub accepted: bool,
    /// Why it is neither accepted nor refused: what the verdict depends on was not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undecided: Option<String>,
    /// What the client would be told instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refusal>,
    /// What stands for the token in logs.
    pub token: String,
    /// The time that the token was judged at (RFC 3339).
    pub at: String,
    /// The name of the route, if the verdict is for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// Every check, in the order in which they are made; the first that failed is the verdict.
    pub checks: Vec<CheckReport>,
}

/// The answer to a client that is refused.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct Refusal {
    /// `VAL-020`.
    pub code: String,
    /// The code's title.
    pub title: String,
    /// The cause, as in logs and metrics.
    pub reason: String,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong and what to do, in full, whatever `error_detail` lets the client see.
    pub detail: String,
}

/// One check and what came of it.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
pub struct CheckReport {
    /// Its name.
    pub check: String,
    /// What came of it.
    pub outcome: Outcome,
    /// What the request or the token has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
    /// What it should have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// What is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// What came of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It passed.
    Passed,
    /// It failed.
    Failed,
    /// It could not be made, because of one that failed before it or because what it looks at was not said.
    NotMade,
}

/// An explanation in the making.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub checks: Vec<CheckReport>,
    pub first: Option<Rejection>,
    /// Why there is no verdict unless a check failed.
    pub undecided: Option<&'static str>,
}

/// What a check found, and what it expected.
pub(super) type FoundAndExpected = (Option<String>, Option<String>);

impl Report {
    /// Takes a check down.
    pub fn note(
        &mut self,
        check: impl Into<String>,
        outcome: Result<(), &Rejection>,
        (found, expected): FoundAndExpected,
    ) {
        let (problem, remedy) = match outcome {
            Ok(()) => (None, None),
            Err(rejection) => {
                self.first.get_or_insert_with(|| rejection.clone());
                (Some(problem(rejection)), Some(rejection.reason().remedy().to_owned()))
            }
        };
        let outcome = if outcome.is_ok() { Outcome::Passed } else { Outcome::Failed };
        self.checks.push(CheckReport { check: check.into(), outcome, found, expected, problem, remedy });
    }

    /// Takes down that a check was not made, and need not be for a verdict.
    pub fn not_made(&mut self, check: impl Into<String>, why: &str) {
        self.leave_out(check.into(), why, (None, None));
    }

    /// Takes down that a check could not be made without the client certificate, so that there is no verdict unless
    /// another one failed.
    pub fn needs_certificate(&mut self, check: impl Into<String>, sides: FoundAndExpected) {
        self.undecided = Some("It depends on the client certificate, which was not given.");
        self.leave_out(check.into(), "Not made: it needs the client certificate.", sides);
    }

    /// Adds checks that come after these.
    pub fn append(&mut self, later: Self) {
        self.checks.extend(later.checks);
        self.first = self.first.take().or(later.first);
        self.undecided = self.undecided.or(later.undecided);
    }

    fn leave_out(&mut self, check: String, why: &str, (found, expected): FoundAndExpected) {
        let (outcome, problem) = (Outcome::NotMade, Some(why.to_owned()));
        self.checks.push(CheckReport { check, outcome, found, expected, problem, remedy: None });
    }
}

impl Refusal {
    /// The refusal as a client would get it.
    pub fn of(rejection: &Rejection) -> Self {
        let reason = rejection.reason();
        Self {
            code: reason.code().number().to_owned(),
            title: reason.code().title().to_owned(),
            reason: reason.name().to_owned(),
            status: reason.status().as_u16(),
            detail: sentence(rejection),
        }
    }
}

/// For the operator: what the client is told, and what only the log has.
fn problem(rejection: &Rejection) -> String {
    let hint = as_sentence(rejection.hint_text().unwrap_or(rejection.reason().cause()));
    match rejection.log_text() {
        Some(log) => format!("{hint} {}", as_sentence(log)),
        None => hint,
    }
}
