//! A development issuer: keys, discovery, JWKS, a token endpoint, a revocation feed, and switches that make it
//! fail as providers do.
//!
//! FOR DEVELOPMENT ONLY: it gives a token to whoever asks and takes revocations from anybody, on loopback. Only
//! `valgate demo` and tests start it; no configuration of the gateway can. Knows nothing of the gateway.

mod endpoints;
mod keys;
mod mode;
mod revocations;
#[cfg(test)]
mod tests;
mod token;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;

use super::serve::{FREE_PORT, Server};
use crate::clock::{Clock, UnixSeconds};
pub(super) use keys::random_name;
use revocations::RevocationLog;

pub use keys::SigningKey;
pub use mode::EndpointMode;
pub use revocations::Revocation;
pub use token::{KeyChoice, TokenRequest, sign_hmac, sign_raw};

/// What `GET /` answers, and what the demo prints.
pub const BANNER: &str = "\
valgate's development issuer. FOR DEVELOPMENT ONLY: it gives a token to whoever asks.
GET  /.well-known/openid-configuration
GET  /jwks
POST /token        form: grant_type=client_credentials, client_id, scope
GET  /revocations  the feed; ?cursor=C&wait=30 waits for what comes after C
POST /revoke       JSON: jti, sid, sub, client or kid, and before, exp
POST /rotate       signs with the next key from now on
";

/// How an issuer is set up.
#[derive(Clone, Debug)]
pub struct IssuerOptions {
    /// The `aud` of its tokens.
    pub audience: String,
    /// How long its tokens are valid.
    pub lifetime: Duration,
    /// Where it listens; by default any free port of 127.0.0.1.
    pub address: SocketAddr,
    /// What it takes `iat` and `exp` from.
    pub clock: Clock,
}

impl Default for IssuerOptions {
    fn default() -> Self {
        Self {
            audience: "orders-api".to_owned(),
            lifetime: Duration::from_secs(60 * 60),
            address: FREE_PORT,
            clock: Clock::system(),
        }
    }
}

/// A running issuer; dropping it closes its socket and forgets its keys.
pub struct DevIssuer {
    issuer: Arc<Issuer>,
    server: Server,
}

/// What the endpoints share.
struct Issuer {
    url: String,
    options: IssuerOptions,
    keys: Mutex<Keys>,
    revocations: RevocationLog,
    modes: Mutex<Modes>,
    fetches: Fetches,
}

struct Keys {
    current: Arc<SigningKey>,
    next: Arc<SigningKey>,
    rsa: Arc<SigningKey>,
    /// Still published, since tokens that they signed are still about.
    former: Vec<Arc<SigningKey>>,
}

#[derive(Clone, Default)]
struct Modes {
    jwks: EndpointMode,
    feed: EndpointMode,
}

#[derive(Default)]
struct Fetches {
    discovery: AtomicU64,
    jwks: AtomicU64,
    feed: AtomicU64,
}

impl DevIssuer {
    /// Makes keys and starts to listen.
    ///
    /// # Errors
    /// The address is taken, or the system gives no random bytes.
    pub async fn start(options: IssuerOptions) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(options.address)
            .await
            .with_context(|| format!("the development issuer cannot listen on {}", options.address))?;
        let issuer = Arc::new(Issuer {
            url: format!("http://{}", listener.local_addr()?),
            options,
            keys: Mutex::new(Keys::generate()?),
            revocations: RevocationLog::new()?,
            modes: Mutex::default(),
            fetches: Fetches::default(),
        });
        let shared = Arc::clone(&issuer);
        let server = Server::start(listener, move |request| endpoints::answer(Arc::clone(&shared), request))?;
        Ok(Self { issuer, server })
    }

    /// Stops it; the address is free when this returns.
    pub async fn stop(self) {
        self.server.stop().await;
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// The `iss` of its tokens: the base of its endpoints, without a slash at the end.
    pub fn issuer_url(&self) -> &str {
        &self.issuer.url
    }

    /// The URL of one of its endpoints, for example `/jwks`.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.issuer.url)
    }

    /// Signs a token.
    pub fn mint(&self, request: &TokenRequest) -> anyhow::Result<String> {
        self.issuer.mint(request)
    }

    /// Signs a token with a key of the caller's, which the issuer does not publish.
    pub fn mint_with(&self, request: &TokenRequest, key: &SigningKey) -> anyhow::Result<String> {
        self.issuer.mint_with(request, key)
    }

    /// The claims that [`Self::mint`] would put into the token, as JSON.
    pub fn claims(&self, request: &TokenRequest) -> anyhow::Result<String> {
        self.issuer.claims(request)
    }

    /// The key of this choice, to sign bytes of the caller's with [`sign_raw`].
    pub fn key(&self, choice: KeyChoice) -> Arc<SigningKey> {
        self.issuer.key(choice)
    }

    /// Brings the next key into use and publishes it; the former one stays published. Gives the new `kid`.
    pub fn rotate(&self) -> anyhow::Result<String> {
        self.issuer.rotate()
    }

    /// Stops to publish the keys that were rotated out.
    pub fn drop_former_keys(&self) {
        self.issuer.keys().former.clear();
    }

    /// Puts an entry on the revocation feed. Without an `exp` it stays for as long as tokens live.
    ///
    /// # Errors
    /// The entry does not say what to revoke, or says it twice.
    pub fn revoke(&self, entry: Revocation) -> anyhow::Result<()> {
        self.issuer.revoke(entry)
    }

    /// Begins a new epoch of the feed, without entries: all revocations are lifted.
    pub fn reset_revocations(&self) -> anyhow::Result<()> {
        self.issuer.revocations.reset()
    }

    /// How `/jwks` behaves from now on.
    pub fn set_jwks_mode(&self, mode: EndpointMode) {
        self.issuer.lock_modes().jwks = mode;
    }

    /// How `/revocations` behaves from now on; polls that wait already still end well.
    pub fn set_feed_mode(&self, mode: EndpointMode) {
        self.issuer.lock_modes().feed = mode;
    }

    /// How often the discovery document was asked for.
    pub fn discovery_fetches(&self) -> u64 {
        self.issuer.fetches.discovery.load(Ordering::Relaxed)
    }

    /// How often `/jwks` was asked for, whatever it answered.
    pub fn jwks_fetches(&self) -> u64 {
        self.issuer.fetches.jwks.load(Ordering::Relaxed)
    }

    /// How often the revocation feed was asked for, whatever it answered.
    pub fn feed_fetches(&self) -> u64 {
        self.issuer.fetches.feed.load(Ordering::Relaxed)
    }
}

impl Issuer {
    fn mint(&self, request: &TokenRequest) -> anyhow::Result<String> {
        self.mint_with(request, &self.key(request.key))
    }

    fn mint_with(&self, request: &TokenRequest, key: &SigningKey) -> anyhow::Result<String> {
        let header = token::merge(default_header(key), &request.header);
        sign_raw(&Value::Object(header).to_string(), &self.claims(request)?, key)
    }

    fn claims(&self, request: &TokenRequest) -> anyhow::Result<String> {
        Ok(Value::Object(token::merge(self.default_claims()?, &request.claims)).to_string())
    }

    /// RFC 9068 section 2.2.
    fn default_claims(&self) -> anyhow::Result<Map<String, Value>> {
        let now = self.now();
        Ok(object(json!({
            "iss": self.url,
            "aud": self.options.audience,
            "sub": "alice",
            "client_id": "demo-client",
            "scope": "orders:read",
            "jti": random_name()?,
            "iat": now.0,
            "exp": now.plus(self.options.lifetime).0,
        })))
    }

    fn key(&self, choice: KeyChoice) -> Arc<SigningKey> {
        let keys = self.keys();
        Arc::clone(match choice {
            KeyChoice::Current => &keys.current,
            KeyChoice::Next => &keys.next,
            KeyChoice::Rsa => &keys.rsa,
        })
    }

    fn rotate(&self) -> anyhow::Result<String> {
        let fresh = Arc::new(SigningKey::es256(random_name()?)?);
        let mut keys = self.keys();
        let current = std::mem::replace(&mut keys.next, fresh);
        let kid = current.kid().to_owned();
        let former = std::mem::replace(&mut keys.current, current);
        keys.former.push(former);
        Ok(kid)
    }

    fn revoke(&self, entry: Revocation) -> anyhow::Result<()> {
        let now = self.now();
        self.revocations.add(entry, now, now.plus(self.options.lifetime).plus(LEEWAY_ALLOWANCE))
    }

    fn jwks(&self) -> Value {
        let keys = self.keys();
        let published = [&keys.current, &keys.rsa].into_iter().chain(&keys.former);
        json!({ "keys": published.map(|key| key.jwk()).collect::<Vec<_>>() })
    }

    fn now(&self) -> UnixSeconds {
        self.options.clock.wall()
    }

    fn keys(&self) -> MutexGuard<'_, Keys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn modes(&self) -> Modes {
        self.lock_modes().clone()
    }

    fn lock_modes(&self) -> MutexGuard<'_, Modes> {
        self.modes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gateways accept a token a little longer than its `exp` says, so its revocation must outlive it by more.
const LEEWAY_ALLOWANCE: Duration = Duration::from_secs(5 * 60);

impl Keys {
    fn generate() -> anyhow::Result<Self> {
        Ok(Self {
            current: Arc::new(SigningKey::es256(random_name()?)?),
            next: Arc::new(SigningKey::es256(random_name()?)?),
            rsa: Arc::new(SigningKey::rs256(random_name()?)?),
            former: Vec::new(),
        })
    }
}

fn default_header(key: &SigningKey) -> Map<String, Value> {
    object(json!({ "typ": "at+jwt", "alg": key.algorithm().name(), "kid": key.kid() }))
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}
