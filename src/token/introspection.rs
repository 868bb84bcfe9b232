//! The port through which the issuer is asked about a token (RFC 7662), and its answer.
//!
//! The data plane asks and waits, bounded in time; a task on the control runtime ([`Asks`]) does the asking, once for
//! all who ask for the same. Knows nothing of HTTP.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot};

use super::bearer::{BearerToken, Fingerprint};
use crate::catalogue::Reason;
use crate::clock::Monotonic;
use crate::rejection::Rejection;

/// How an issuer is asked about its tokens.
#[derive(Debug)]
pub struct Introspection {
    /// Where to ask.
    pub port: Introspector,
    /// About which tokens.
    pub tokens: IntrospectedTokens,
    /// Take an answer that does not say of which kind the token is: some issuers vouch for refresh tokens too.
    pub insecure_any_kind: bool,
}

/// Which tokens the issuer is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntrospectedTokens {
    /// Those that only the issuer can read.
    Opaque,
    /// JWTs alone, once their signature is found good.
    Jwt,
    /// All: also JWTs, once their signature is found good.
    All,
}

/// What the issuer says of a token.
#[derive(Clone, Debug)]
pub enum Answer {
    /// It is in force.
    Active(Arc<ActiveToken>),
    /// It is unknown, expired, revoked, or not for us to know of (RFC 7662 section 2.2).
    Inactive,
}

/// A token that its issuer called active.
#[derive(Debug)]
pub struct ActiveToken {
    /// What the issuer says of it.
    pub claims: Map<String, Value>,
    /// How long that may be relied upon.
    pub good_until: Monotonic,
}

/// The asking side. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Introspector {
    asks: mpsc::Sender<Ask>,
    wait: Duration,
}

/// The answering side. Dropping it refuses all who ask.
pub type Asks = mpsc::Receiver<Ask>;

/// A token that somebody waits to hear about.
#[derive(Debug)]
pub struct Ask {
    /// The token.
    pub token: TokenText,
    /// Where the answer goes; closed if nobody waits any more.
    pub reply: oneshot::Sender<Result<Answer, Rejection>>,
}

/// A token kept beyond its request. `Debug` shows its fingerprint only.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TokenText(Arc<str>);

impl Introspector {
    /// A port on which at most `queue` asks wait to be taken up, and each asker waits at most `wait`.
    pub fn new(queue: usize, wait: Duration) -> (Self, Asks) {
        let (asks, receiver) = mpsc::channel(queue.max(1));
        (Self { asks, wait }, receiver)
    }

    /// What the issuer says of the token.
    ///
    /// # Errors
    /// It cannot be asked, or not in time: VAL-052, which is never the token's fault.
    pub async fn ask(&self, token: TokenText) -> Result<Answer, Rejection> {
        let (reply, answer) = oneshot::channel();
        let ask = Ask { token, reply };
        self.asks.try_send(ask).map_err(|_| unavailable("too many tokens wait to be asked about"))?;
        match tokio::time::timeout(self.wait, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(unavailable("nobody asks the issuer any more")),
            Err(_) => Err(unavailable("the issuer did not answer in time")),
        }
    }
}

/// The refusal of a token that could not be asked about; `why` is for the log.
pub fn unavailable(why: impl Into<String>) -> Rejection {
    Rejection::new(Reason::IntrospectionFailed).log(why).retry_after(RETRY)
}

impl From<BearerToken<'_>> for TokenText {
    fn from(token: BearerToken<'_>) -> Self {
        Self(token.expose().into())
    }
}

impl TokenText {
    /// The token itself. Never to be logged.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for TokenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenText({})", Fingerprint::of(self.0.as_bytes()))
    }
}

/// What a client is told to wait: as long as a breaker stays open at the least.
const RETRY: Duration = Duration::from_secs(5);
