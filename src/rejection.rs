//! A refusal on its way from the step that decided it to the one place that answers it.
//!
//! Carries the reason and what the answer needs (a scope, the allowed methods, a waiting time), and words for
//! the operator that the client never sees. Knows nothing of HTTP bodies: `gateway::respond` renders it.

use std::borrow::Cow;
use std::time::Duration;

use crate::catalogue::{Code, Reason};

/// Why a request was refused. Small, since it travels in every `Result` of the request path.
#[derive(Clone, Debug)]
pub struct Rejection {
    reason: Reason,
    extra: Option<Box<Extra>>,
}

#[derive(Clone, Debug, Default)]
struct Extra {
    hint: Option<Cow<'static, str>>,
    log: Option<String>,
    scope: Option<String>,
    allow: Option<String>,
    retry_after: Option<Duration>,
}

impl Rejection {
    /// A refusal for this reason.
    pub fn new(reason: Reason) -> Self {
        Self { reason, extra: None }
    }

    /// The same without what only the log has.
    #[must_use]
    pub fn without_log(&self) -> Self {
        let without = |extra: &Extra| {
            let Extra { hint, log: _, scope, allow, retry_after } = extra;
            let (hint, scope, allow, retry_after) =
                (hint.clone(), scope.clone(), allow.clone(), *retry_after);
            Box::new(Extra { hint, log: None, scope, allow, retry_after })
        };
        Self { reason: self.reason, extra: self.extra.as_deref().map(without) }
    }

    fn with(mut self, set: impl FnOnce(&mut Extra)) -> Self {
        set(self.extra.get_or_insert_default());
        self
    }

    /// What exactly was wrong, safe for the client to see: it stands before the remedy in `detail`.
    /// Never a token's content, a key, or server state that the client must not learn.
    #[must_use]
    pub fn hint(self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.with(|extra| extra.hint = Some(hint.into()))
    }

    /// What exactly was wrong, for the operator's log only. Never a token or a secret.
    #[must_use]
    pub fn log(self, log: impl Into<String>) -> Self {
        self.with(|extra| extra.log = Some(log.into()))
    }

    /// The scope that the challenge asks for (RFC 6750 section 3).
    #[must_use]
    pub fn scope(self, scope: impl Into<String>) -> Self {
        self.with(|extra| extra.scope = Some(scope.into()))
    }

    /// The value of `Allow` (RFC 9110 section 10.2.1).
    #[must_use]
    pub fn allow(self, methods: impl Into<String>) -> Self {
        self.with(|extra| extra.allow = Some(methods.into()))
    }

    /// How long waiting may help (RFC 9110 section 10.2.3).
    #[must_use]
    pub fn retry_after(self, wait: Duration) -> Self {
        self.with(|extra| extra.retry_after = Some(wait))
    }

    /// The cause.
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// The public code.
    pub fn code(&self) -> Code {
        self.reason.code()
    }

    /// See [`Self::hint`].
    pub fn hint_text(&self) -> Option<&str> {
        self.extra.as_ref()?.hint.as_deref()
    }

    /// See [`Self::log`].
    pub fn log_text(&self) -> Option<&str> {
        self.extra.as_ref()?.log.as_deref()
    }

    /// See [`Self::scope`].
    pub fn scope_text(&self) -> Option<&str> {
        self.extra.as_ref()?.scope.as_deref()
    }

    /// See [`Self::allow`].
    pub fn allow_text(&self) -> Option<&str> {
        self.extra.as_ref()?.allow.as_deref()
    }

    /// See [`Self::retry_after`].
    pub fn wait(&self) -> Option<Duration> {
        self.extra.as_ref()?.retry_after
    }
}

impl From<Reason> for Rejection {
    fn from(reason: Reason) -> Self {
        Self::new(reason)
    }
}
