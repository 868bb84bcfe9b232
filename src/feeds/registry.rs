//! Answers whether tokens are on a register of issued tokens in Valkey or Redis (docs/issued-tokens.md).
//!
//! It answers the same port as introspection does, for JWTs that are well signed: a token is recognized while its `jti`
//! is a key there. All who wait when a question is asked are asked about together, so that one connection serves any
//! number of gateways' cores and requests. Knows nothing of requests.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis::{Value, cmd};
use serde_json::Map;
use tracing::{info, warn};

use super::valkey::{Link, ValkeyConnector};
use crate::clock::{Clock, Monotonic};
use crate::config::settings::Valkey;
use crate::revocation::EngineError;
use crate::token::{ActiveToken, Answer, Ask, Asks, Claims, Compact, unavailable};

/// What is needed to ask one register.
#[derive(Clone, Debug)]
pub struct RegistrySettings {
    /// The issuer's name in the configuration, for logs.
    pub name: String,
    /// Where the register is.
    pub valkey: Valkey,
    /// What the names of its keys begin with.
    pub prefix: String,
    /// How long a token that was found is not looked up again.
    pub cache: Duration,
    /// Take every token for recognized while the register cannot be asked.
    pub accept_when_unavailable: bool,
}

/// Numbers for metrics.
#[derive(Debug, Default)]
pub struct RegistryStats {
    /// Tokens that were found.
    pub recognized: AtomicU64,
    /// Tokens that were not.
    pub unrecognized: AtomicU64,
    /// Tokens that could not be looked up.
    pub failed: AtomicU64,
}

/// The task of one register: made by [`Self::new`], then driven by [`Self::run`].
pub struct RegistryFeed {
    settings: RegistrySettings,
    connector: ValkeyConnector,
    asks: Asks,
    clock: Clock,
    stats: Arc<RegistryStats>,
    link: Option<Link>,
    failed_at: Option<Monotonic>,
    noted: bool,
}

impl RegistryFeed {
    /// The task that answers `asks`.
    pub fn new(settings: RegistrySettings, asks: Asks, clock: Clock) -> Self {
        let connector = ValkeyConnector::new(settings.valkey.clone(), key(&settings.prefix, ""));
        let stats = Arc::default();
        Self { settings, connector, asks, clock, stats, link: None, failed_at: None, noted: false }
    }

    /// The numbers for metrics.
    pub fn stats(&self) -> Arc<RegistryStats> {
        Arc::clone(&self.stats)
    }

    /// Answers until nobody can ask any more.
    pub async fn run(mut self) {
        let mut asks = Vec::with_capacity(ASKS_AT_ONCE);
        while self.asks.recv_many(&mut asks, ASKS_AT_ONCE).await > 0 {
            self.answer(std::mem::take(&mut asks)).await;
        }
    }

    async fn answer(&mut self, asks: Vec<Ask>) {
        // Each token once, whoever asks about it.
        let mut waiting: HashMap<String, Vec<Ask>> = HashMap::new();
        for ask in asks {
            match token_id(&ask) {
                Some(id) => waiting.entry(key(&self.settings.prefix, &id)).or_default().push(ask),
                None => drop(ask.reply.send(Ok(Answer::Inactive))),
            }
        }
        let (keys, waiting): (Vec<String>, Vec<Vec<Ask>>) = waiting.into_iter().unzip();
        if keys.is_empty() {
            return;
        }
        let asked_at = self.clock.monotonic();
        match self.look_up(&keys).await {
            Ok(found) => {
                self.heard();
                for (found, waiting) in found.iter().zip(waiting) {
                    self.tell(waiting, *found, asked_at);
                }
            }
            Err(error) => {
                self.failed(&error);
                waiting.into_iter().flatten().for_each(|ask| self.excuse(ask));
            }
        }
    }

    /// Which of the keys are there.
    async fn look_up(&mut self, keys: &[String]) -> Result<Vec<bool>, EngineError> {
        let now = self.clock.monotonic();
        if self.failed_at.is_some_and(|at| at.until(now) < LEAVE_ALONE) {
            return Err(EngineError::Unavailable(
                "the register failed a moment ago and is left alone".to_owned(),
            ));
        }
        // Taken, so that a link with a fault is not used again.
        let mut link = match self.link.take() {
            Some(link) => link,
            None => self.connector.connect().await?,
        };
        let found: Vec<Value> = link.query(cmd("MGET").arg(keys)).await?;
        self.link = Some(link);
        if found.len() != keys.len() {
            return Err(EngineError::Unavailable("the register answers for other tokens".to_owned()));
        }
        Ok(found.iter().map(|value| !matches!(value, Value::Nil)).collect())
    }

    fn tell(&self, waiting: Vec<Ask>, found: bool, asked_at: Monotonic) {
        let counter = if found { &self.stats.recognized } else { &self.stats.unrecognized };
        counter.fetch_add(waiting.len() as u64, Ordering::Relaxed);
        let answer = if found { recognized(asked_at, self.settings.cache) } else { Answer::Inactive };
        for ask in waiting {
            let _ = ask.reply.send(Ok(answer.clone()));
        }
    }

    /// The register's silence is never the token's fault.
    fn excuse(&self, ask: Ask) {
        self.stats.failed.fetch_add(1, Ordering::Relaxed);
        let answer = if self.settings.accept_when_unavailable {
            Ok(recognized(self.clock.monotonic(), LEAVE_ALONE))
        } else {
            Err(unavailable("the register of issued tokens cannot be asked"))
        };
        let _ = ask.reply.send(answer);
    }

    fn heard(&mut self) {
        self.failed_at = None;
        if std::mem::take(&mut self.noted) {
            info!(
                issuer = self.settings.name,
                "the register of issued tokens of {} answers again", self.settings.name
            );
        }
    }

    fn failed(&mut self, error: &EngineError) {
        let now = self.clock.monotonic();
        if self.failed_at.is_none_or(|at| at.until(now) >= LEAVE_ALONE) {
            self.failed_at = Some(now);
        }
        if !std::mem::replace(&mut self.noted, true) {
            let then = if self.settings.accept_when_unavailable {
                "its tokens pass"
            } else {
                "its tokens are refused (VAL-052)"
            };
            warn!(
                issuer = self.settings.name, %error,
                "the register of issued tokens of {} cannot be asked: {then} until it can", self.settings.name
            );
        }
    }
}

fn recognized(from: Monotonic, for_so_long: Duration) -> Answer {
    let good_until = Monotonic(from.0.saturating_add(for_so_long));
    Answer::Active(Arc::new(ActiveToken { claims: Map::new(), good_until }))
}

/// The braces keep all keys of a register in one slot of a cluster.
fn key(prefix: &str, token_id: &str) -> String {
    format!("{{{prefix}}}:{token_id}")
}

/// The `jti` of a token whose signature was found good.
fn token_id(ask: &Ask) -> Option<String> {
    let claims = Claims::new(Compact::parse(ask.token.expose()).ok()?.claims().ok()?);
    claims.token_id().filter(|id| !id.is_empty()).map(str::to_owned)
}

const ASKS_AT_ONCE: usize = 256;
/// After a failure.
const LEAVE_ALONE: Duration = Duration::from_millis(500);
