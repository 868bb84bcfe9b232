//! The background task that asks one issuer about tokens (RFC 7662).
//!
//! It asks once for all who wait for the same token, never about more than so many at a time, not at all while the
//! endpoint keeps failing, and not again about a token that was inactive a moment ago. What it learns of active tokens
//! is kept with their verdicts, by the data plane. Knows nothing of requests and of what claims mean.

mod answer;
mod breaker;
mod credentials;
mod endpoint;
mod recent;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tracing::{info, warn};

use super::discovery::{Discovery, DiscoveryError};
use super::fetch::{FetchClient, FetchError, FetchSettings};
use super::signed::SignedBy;
use crate::clock::{Clock, Monotonic, UnixSeconds};
use crate::keys::{Algorithm, KeySource};
use crate::rejection::Rejection;
use crate::token::{ActiveToken, Answer, Ask, Asks, TokenText, unavailable};
use answer::SignedAnswers;
use breaker::Breaker;
pub use breaker::BreakerSettings;
use credentials::Proof;
pub use credentials::{ClientAssertion, Credentials, CredentialsError};
pub use endpoint::EndpointLocation;
use endpoint::{Endpoint, EndpointError, Place};
use recent::Recent;

/// What is needed to ask one issuer.
#[derive(Clone, Debug)]
pub struct IntrospectionSettings {
    /// The issuer's name in the configuration, for logs.
    pub name: String,
    /// The issuer's identifier.
    pub issuer: String,
    /// Where to ask.
    pub location: EndpointLocation,
    /// How to get there.
    pub fetch: FetchSettings,
    /// Who asks.
    pub credentials: Credentials,
    /// Take signed answers only, for these audiences.
    pub signed_for: Option<Vec<String>>,
    /// The algorithms that the issuer may sign with.
    pub algorithms: Vec<Algorithm>,
    /// How long an active token is not asked about again.
    pub cache: Duration,
    /// How long an inactive one is not.
    pub negative_cache: Duration,
    /// How many inactive ones are remembered.
    pub negative_entries: usize,
    /// How many questions may be under way at a time.
    pub concurrency: usize,
    /// When to leave the endpoint alone.
    pub breaker: BreakerSettings,
}

/// Why an issuer cannot be asked at all: mistakes of the configuration.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum IntrospectionFeedError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Discovery(#[from] DiscoveryError),
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
}

/// Numbers for metrics.
#[derive(Debug, Default)]
pub struct IntrospectionStats {
    /// Answers that called a token active.
    pub active: AtomicU64,
    /// Answers that did not.
    pub inactive: AtomicU64,
    /// Questions without a usable answer.
    pub failed: AtomicU64,
    /// Askers that joined a question that was under way, or was answered just now.
    pub joined: AtomicU64,
    /// Askers that were answered from memory: the token was inactive a moment ago.
    pub remembered: AtomicU64,
    /// Askers that were turned away because the endpoint kept failing.
    pub turned_away: AtomicU64,
    /// Questions under way.
    pub under_way: AtomicU64,
    /// 1 while the endpoint is left alone.
    pub breaker_open: AtomicU64,
}

type Waiting = Vec<oneshot::Sender<Result<Answer, Rejection>>>;
type Outcome = Result<Option<Map<String, Value>>, EndpointError>;

/// The task of one issuer: made by [`Self::new`], then driven by [`Self::run`].
pub struct IntrospectionFeed {
    name: String,
    endpoint: Arc<Endpoint>,
    asks: Asks,
    waiting: HashMap<TokenText, (Monotonic, Waiting)>,
    under_way: JoinSet<(TokenText, Outcome)>,
    inactive: Recent<()>,
    active: Recent<Arc<ActiveToken>>,
    breaker: Breaker,
    cache: Duration,
    concurrency: usize,
    clock: Clock,
    stats: Arc<IntrospectionStats>,
    /// The failure that was logged last, so that each is logged once and a repetition never.
    noted: Option<String>,
}

impl IntrospectionFeed {
    /// The task that answers `asks`; signed answers are verified by `keys`.
    ///
    /// # Errors
    /// See [`IntrospectionFeedError`].
    pub fn new(
        settings: IntrospectionSettings,
        asks: Asks,
        keys: Arc<KeySource>,
        clock: Clock,
    ) -> Result<Self, IntrospectionFeedError> {
        let place = match settings.location {
            EndpointLocation::Url(url) => Place::Known(url),
            EndpointLocation::Discovery(document) => Place::Discovered {
                discovery: Discovery::new(&settings.issuer, document, settings.fetch.allow_http)?,
                found: Mutex::new(None),
                clock: clock.clone(),
            },
        };
        let signed = settings.signed_for.map(|audiences| SignedAnswers {
            issuer: settings.issuer,
            audiences,
            signed_by: SignedBy { keys, algorithms: settings.algorithms, clock: clock.clone() },
        });
        let endpoint = Endpoint {
            client: FetchClient::new(&settings.fetch)?,
            place,
            proof: Proof::new(settings.credentials, &clock)?,
            signed,
        };
        Ok(Self {
            name: settings.name,
            endpoint: Arc::new(endpoint),
            asks,
            waiting: HashMap::new(),
            under_way: JoinSet::new(),
            inactive: Recent::new(settings.negative_cache, settings.negative_entries),
            active: Recent::new(settings.cache.min(HANDED_OVER), MOST_HANDED_OVER),
            breaker: Breaker::new(settings.breaker),
            cache: settings.cache,
            concurrency: settings.concurrency.max(1),
            clock,
            stats: Arc::default(),
            noted: None,
        })
    }

    /// The numbers for metrics.
    pub fn stats(&self) -> Arc<IntrospectionStats> {
        Arc::clone(&self.stats)
    }

    /// Answers until nobody can ask any more. While as many questions are under way as may be, further asks wait in
    /// their queue, which is bounded.
    pub async fn run(mut self) {
        loop {
            tokio::select! {
                biased;
                Some(ended) = self.under_way.join_next() => {
                    if let Ok((token, outcome)) = ended {
                        self.answered(&token, outcome);
                    }
                }
                ask = self.asks.recv(), if self.under_way.len() < self.concurrency => {
                    let Some(ask) = ask else { return };
                    self.take_up(ask);
                }
            }
        }
    }

    fn take_up(&mut self, ask: Ask) {
        let Ask { token, reply } = ask;
        if reply.is_closed() {
            return;
        }
        let now = self.clock.monotonic();
        if self.inactive.get(token.expose(), now).is_some() {
            self.stats.remembered.fetch_add(1, Ordering::Relaxed);
            let _ = reply.send(Ok(Answer::Inactive));
            return;
        }
        if let Some(active) = self.active.get(token.expose(), now).filter(|active| now < active.good_until) {
            self.stats.joined.fetch_add(1, Ordering::Relaxed);
            let _ = reply.send(Ok(Answer::Active(Arc::clone(active))));
            return;
        }
        if let Some((_, waiting)) = self.waiting.get_mut(&token) {
            self.stats.joined.fetch_add(1, Ordering::Relaxed);
            waiting.push(reply);
            return;
        }
        if !self.breaker.admits(now) {
            self.stats.turned_away.fetch_add(1, Ordering::Relaxed);
            let why = unavailable("the introspection endpoint keeps failing and is left alone for a while");
            let _ = reply.send(Err(why.retry_after(self.breaker.left(now).max(LEAST_RETRY))));
            return;
        }
        self.waiting.insert(token.clone(), (now, vec![reply]));
        let endpoint = Arc::clone(&self.endpoint);
        self.under_way.spawn(async move {
            let outcome = endpoint.ask(token.expose()).await;
            (token, outcome)
        });
        self.stats.under_way.store(self.under_way.len() as u64, Ordering::Relaxed);
    }

    fn answered(&mut self, token: &TokenText, outcome: Outcome) {
        self.stats.under_way.store(self.under_way.len() as u64, Ordering::Relaxed);
        let Some((asked_at, waiting)) = self.waiting.remove(token) else { return };
        let now = self.clock.monotonic();
        let answer = match outcome {
            Ok(claims) => {
                self.breaker.succeeded();
                if self.noted.take().is_some() {
                    info!(issuer = self.name, "the introspection endpoint of {} answers again", self.name);
                }
                Ok(self.learned(token, claims, asked_at))
            }
            Err(error) => {
                self.breaker.failed(now);
                Err(self.failed(&error))
            }
        };
        self.stats.breaker_open.store(u64::from(self.breaker.is_open()), Ordering::Relaxed);
        for reply in waiting {
            let _ = reply.send(answer.clone());
        }
    }

    fn learned(
        &mut self,
        token: &TokenText,
        claims: Option<Map<String, Value>>,
        asked_at: Monotonic,
    ) -> Answer {
        let Some(claims) = claims else {
            self.stats.inactive.fetch_add(1, Ordering::Relaxed);
            self.inactive.insert(token.expose(), asked_at, ());
            return Answer::Inactive;
        };
        self.stats.active.fetch_add(1, Ordering::Relaxed);
        // A leeway may let the token pass after its end, but then the issuer is asked each time.
        let now = (self.clock.wall(), self.clock.monotonic());
        let end = end_of(&claims, now).unwrap_or(Monotonic(Duration::MAX));
        let good_until = Monotonic(asked_at.0.saturating_add(self.cache)).min(end);
        let active = Arc::new(ActiveToken { claims, good_until });
        self.active.insert(token.expose(), asked_at, Arc::clone(&active));
        Answer::Active(active)
    }

    fn failed(&mut self, error: &EndpointError) -> Rejection {
        self.stats.failed.fetch_add(1, Ordering::Relaxed);
        let message = error.to_string();
        if self.noted.as_ref() != Some(&message) {
            warn!(
                issuer = self.name,
                error = message,
                "{} cannot be asked about tokens: those that need it are refused with VAL-052",
                self.name
            );
            self.noted = Some(message.clone());
        }
        unavailable(message)
    }
}

/// When the token ends by its issuer's word; one that does not say is refused later, for that.
fn end_of(claims: &Map<String, Value>, (wall, now): (UnixSeconds, Monotonic)) -> Option<Monotonic> {
    let expires = claims.get("exp")?.as_f64()?;
    #[allow(clippy::cast_precision_loss, reason = "seconds of this age are far below 2^52")]
    let left = Duration::try_from_secs_f64((expires - wall.0 as f64).max(0.0)).ok()?;
    Some(Monotonic(now.0.saturating_add(left)))
}

/// From the answer until it is in the cache of each core that waits for it, on the slowest of machines. At most as long
/// as the answer may be kept at all.
const HANDED_OVER: Duration = Duration::from_secs(5);
/// A thousand new tokens a second.
const MOST_HANDED_OVER: usize = 5_000;
/// A `Retry-After` of nothing would be an invitation to hammer.
const LEAST_RETRY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_ends_with_the_token_and_at_once_if_that_is_over() {
        let now = (UnixSeconds(1_800_000_000), Monotonic(Duration::from_secs(7)));
        let rows = [
            (json!({ "exp": 1_800_000_005 }), Some(12)),
            (json!({ "exp": 1_800_000_000 }), Some(7)),
            (json!({ "exp": 1_799_999_990 }), Some(7)),
            (json!({ "exp": "soon" }), None),
            (json!({}), None),
        ];
        for (claims, expected) in rows {
            let end = end_of(claims.as_object().unwrap(), now);
            assert_eq!(end, expected.map(|seconds| Monotonic(Duration::from_secs(seconds))), "{claims}");
        }
        assert!(end_of(json!({ "exp": 1e300 }).as_object().unwrap(), now).is_none());
    }
}
