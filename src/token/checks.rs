//! The named checks, and the two ways to run them: fail-fast for requests, to the end for an operator who asks
//! why. One implementation of each check serves both.

use std::ops::ControlFlow;

use crate::catalogue::Reason;
use crate::rejection::Rejection;

/// A check by name, in the order in which they are made: cheap ones first, and what reveals the state of the
/// gateway (revoked, scopes, rules) only after a valid signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Check {
    /// Three parts, canonical base64url, JSON objects without duplicates.
    Form,
    /// `alg` is one that the issuer is configured for.
    Algorithm,
    /// `typ` is that of an access token.
    Type,
    /// `iss` is one that the route trusts.
    Issuer,
    /// `aud` names this API.
    Audience,
    /// `exp`, `nbf`, `iat` against the clock.
    Time,
    /// Required claims are there, known ones have their type.
    Claims,
    /// The issuer publishes the key that the token names.
    Key,
    /// The signature is that key's.
    Signature,
    /// The issuer, asked about the token, calls it active.
    Introspection,
}

impl Check {
    /// All of them, in their order.
    pub const ALL: [Self; 10] = [
        Self::Form,
        Self::Algorithm,
        Self::Type,
        Self::Issuer,
        Self::Audience,
        Self::Time,
        Self::Claims,
        Self::Key,
        Self::Signature,
        Self::Introspection,
    ];

    /// The name that people see.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Form => "form",
            Self::Algorithm => "algorithm",
            Self::Type => "type",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::Time => "time",
            Self::Claims => "claims",
            Self::Key => "key",
            Self::Signature => "signature",
            Self::Introspection => "introspection",
        }
    }
}

/// Sees each check as it is made, and says whether to go on after one has failed. It cannot change a verdict.
pub trait Examiner {
    /// Whether the checks after a failed one are made too.
    const TO_THE_END: bool;
    /// One check was made. `None` is a pass.
    fn saw(&mut self, check: Check, failure: Option<&Rejection>);
}

/// Stops at the first failure and keeps nothing: what requests use; compiles to nothing.
#[derive(Debug)]
pub struct FailFast;

impl Examiner for FailFast {
    const TO_THE_END: bool = false;

    #[inline]
    fn saw(&mut self, _: Check, _: Option<&Rejection>) {}
}

/// Makes every check that can still be made, and keeps each finding.
#[derive(Debug, Default)]
pub struct CollectAll {
    /// The checks in the order in which they were made.
    pub findings: Vec<Finding>,
}

/// One check and what came of it.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Which check.
    pub check: Check,
    /// Why it failed; `None` if it passed.
    pub failure: Option<Rejection>,
}

impl Examiner for CollectAll {
    const TO_THE_END: bool = true;

    fn saw(&mut self, check: Check, failure: Option<&Rejection>) {
        self.findings.push(Finding { check, failure: failure.cloned() });
    }
}

/// The state of one run: the first failure is the verdict, whoever looks on.
pub(super) struct Run<'e, E> {
    examiner: &'e mut E,
    first: Option<Rejection>,
}

impl<'e, E: Examiner> Run<'e, E> {
    pub fn new(examiner: &'e mut E) -> Self {
        Self { examiner, first: None }
    }

    /// Takes down a check that hands on nothing. `Break` ends the run.
    pub fn check(&mut self, check: Check, outcome: Result<(), Rejection>) -> ControlFlow<Rejection> {
        match self.value(check, outcome) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) if E::TO_THE_END => ControlFlow::Continue(()),
            Err(first) => ControlFlow::Break(first),
        }
    }

    /// Takes down a check whose value the later ones need; without it the run ends with its first failure.
    pub fn value<T>(&mut self, check: Check, outcome: Result<T, Rejection>) -> Result<T, Rejection> {
        self.examiner.saw(check, outcome.as_ref().err());
        outcome.map_err(|failure| self.first.get_or_insert(failure).clone())
    }

    /// Whether a check has failed already, so that nothing need be asked of others any more.
    pub fn has_failed(&self) -> bool {
        self.first.is_some()
    }

    /// As [`Self::value`], where other checks come before the value is needed: the outer error ends the run, the
    /// inner one waits until then.
    pub fn needed_later<T>(
        &mut self,
        check: Check,
        outcome: Result<T, Rejection>,
    ) -> Result<Result<T, Rejection>, Rejection> {
        match self.value(check, outcome) {
            Err(first) if !E::TO_THE_END => Err(first),
            outcome => Ok(outcome),
        }
    }

    /// The first failure of a run that cannot go on.
    pub fn verdict_so_far(self) -> Rejection {
        self.first.unwrap_or_else(|| Reason::Internal.into())
    }

    /// The verdict once every check was made.
    pub fn first_failure(self) -> Option<Rejection> {
        self.first
    }
}
