//! What the tests of all engines share: gateways that follow one list, and the tokens that it is about.

use std::sync::Arc;
use std::time::Instant;

use tempfile::TempDir;
use valgate::clock::UnixSeconds;
use valgate::revocation::{Entry, Fact, Revocation, RevocationEngine, Target};

use crate::support::{ISSUER, Signer, TestGateway, Token, eventually, now, verdict};

pub const REVOKED: &str = "401 VAL-020 revoked";

/// The configuration of a gateway with this feed (`valkey: {...}`).
pub fn yaml(signer: &Signer, feed: &str) -> String {
    format!(
        "
state_dir: $DIR
issuers:
  - name: main
    issuer: {ISSUER}
    keys: {{ inline: {} }}
    audiences: [orders-api]
    leeway: 0s
    revocation: {{ feeds: [logout], max_staleness: 10m, when_stale: reject }}
feeds:
  - {{ name: logout, {feed} }}
routes:
  - {{ match: {{ path: /orders/** }}, require: {{ issuers: [main] }}, upstream: api }}
",
        signer.jwks()
    )
}

/// A gateway that is restarted with the same directory.
pub struct Node {
    yaml: String,
    dir: Arc<TempDir>,
    gateway: Option<TestGateway>,
}

impl Node {
    pub async fn start(yaml: String) -> Self {
        let node = Self::start_unready(yaml).await;
        node.gateway().wait_until_ready().await;
        node
    }

    pub async fn start_unready(yaml: String) -> Self {
        let mut node = Self { yaml, dir: Arc::new(TempDir::new().unwrap()), gateway: None };
        Box::pin(node.restart()).await;
        node
    }

    pub fn gateway(&self) -> &TestGateway {
        self.gateway.as_ref().unwrap()
    }

    pub async fn stop(&mut self) {
        if let Some(gateway) = self.gateway.take() {
            gateway.stop().await;
        }
    }

    /// Does not wait until it is ready.
    pub async fn restart(&mut self) {
        self.stop().await;
        self.gateway = Some(TestGateway::start_in(Arc::clone(&self.dir), &self.yaml).await);
    }

    pub async fn ask(&self, token: &str) -> String {
        verdict(&self.gateway().get("/orders/1", token, &[]).await)
    }

    pub async fn until(&self, token: &str, expected: &str, what: &str) {
        eventually(what, || async { self.ask(token).await == expected }).await;
    }

    /// Waits for what is counted a moment after it is in force.
    pub async fn until_count(&self, name: &str, expected: u64) {
        eventually(name, || async { self.count(name).await == expected }).await;
    }

    /// How many revocations were seen to come into force at most so many seconds after they were made, or at all.
    pub async fn lagged(&self, at_most: &str) -> u64 {
        self.gateway()
            .metric(&format!("valgate_feed_lag_seconds_bucket{{le=\"{at_most}\",feed=\"logout\"}}"))
            .await
    }

    /// The feed's counter of this name.
    pub async fn count(&self, name: &str) -> u64 {
        self.gateway().metric(&format!("valgate_feed_{name}_total{{feed=\"logout\"}}")).await
    }
}

/// A token, and what revokes it alone.
pub struct Subject {
    pub token: String,
    pub fact: Fact,
    expires: i64,
}

impl Subject {
    pub fn new(signer: &Signer) -> Self {
        let token = Token::new();
        let fact = Fact { target: Target::Jti(token.text("jti").clone()), issuer: None };
        Self { token: token.sign(signer), fact, expires: now() + 3600 }
    }

    pub fn revocation(&self) -> Revocation {
        revocation(&self.fact, None, Some(self.expires))
    }
}

pub fn revocation(fact: &Fact, before: Option<i64>, expires: Option<i64>) -> Revocation {
    let Fact { target, issuer } = fact.clone();
    Revocation {
        entry: Entry { target, issuer, before: before.map(UnixSeconds), expires: expires.map(UnixSeconds) },
        reason: Some("test".to_owned()),
        revoked_at: Some(UnixSeconds(now())),
    }
}

/// Everything on the list.
pub async fn everything(engine: &dyn RevocationEngine) -> Vec<Revocation> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = engine.list(after.as_deref()).await.unwrap();
        assert_eq!(page.broken, 0);
        all.extend(page.revocations);
        after = page.next;
        if after.is_none() {
            return all;
        }
    }
}

/// Revokes tokens one after the other and prints how long each took from the engine's word to the first refusal at
/// every gateway.
#[allow(clippy::disallowed_methods, clippy::print_stdout, reason = "it measures real time, and shows it")]
pub async fn measure(name: &str, engine: &dyn RevocationEngine, nodes: &[Node], signer: &Signer) {
    let mut times = Vec::new();
    for _ in 0..30 {
        let subject = Subject::new(signer);
        for node in nodes {
            assert_eq!(node.ask(&subject.token).await, "200");
        }
        engine.revoke(&[subject.revocation()]).await.unwrap();
        let begin = Instant::now();
        for node in nodes {
            while node.ask(&subject.token).await != REVOKED {
                assert!(begin.elapsed() < crate::support::PATIENCE, "{name}: not revoked");
            }
        }
        times.push(begin.elapsed());
    }
    times.sort();
    println!(
        "{name}: median {:?}, longest {:?} of {}",
        times[times.len() / 2],
        times[times.len() - 1],
        times.len()
    );
}

/// What every engine must do, as seen by a gateway that follows it.
pub async fn behaves_like_an_engine(engine: &dyn RevocationEngine, node: &Node, signer: &Signer) {
    let (one, other) = (Subject::new(signer), Subject::new(signer));
    for subject in [&one, &other] {
        assert_eq!(node.ask(&subject.token).await, "200");
    }
    assert_eq!(engine.look_up(&one.fact).await.unwrap(), []);
    assert_eq!(everything(engine).await, []);

    // Twice, as after an answer that was lost.
    for _ in 0..2 {
        engine.revoke(&[one.revocation(), other.revocation()]).await.unwrap();
    }
    node.until(&one.token, REVOKED, "one").await;
    node.until(&other.token, REVOKED, "other").await;
    // Of a list that is read as a whole, what is new is told by its second, which may have passed.
    if node.count("deltas").await > 0 {
        eventually("measured", || async { node.lagged("+Inf").await >= 1 }).await;
    }
    let received = node.gateway().received("/orders/1").len();
    assert_eq!(node.ask(&one.token).await, REVOKED);
    assert_eq!(node.gateway().received("/orders/1").len(), received, "the API got it");
    let found = engine.look_up(&one.fact).await.unwrap();
    assert_eq!(found.iter().map(|one| &one.entry).collect::<Vec<_>>(), [&one.revocation().entry]);
    assert_eq!(found[0].reason.as_deref(), Some("test"));
    assert_eq!(everything(engine).await.len(), 2);

    assert_eq!(engine.lift(std::slice::from_ref(&one.fact)).await.unwrap(), 1);
    node.until(&one.token, "200", "lifted").await;
    assert_eq!(node.ask(&other.token).await, REVOKED);
    assert_eq!(engine.lift(std::slice::from_ref(&one.fact)).await.unwrap(), 0);
    assert_eq!(everything(engine).await.len(), 1);

    // A later, weaker entry does not weaken an earlier one; a bare one and a cut-off stand beside each other.
    let user = Fact { target: Target::Sub("nobody".to_owned()), issuer: Some(ISSUER.to_owned()) };
    let end = now() + 1000;
    let entries = [(Some(5), Some(end)), (Some(4), Some(end + 1)), (None, None), (None, Some(end))];
    for (before, expires) in entries {
        engine.revoke(&[revocation(&user, before, expires)]).await.unwrap();
    }
    let mut terms: Vec<_> = engine
        .look_up(&user)
        .await
        .unwrap()
        .iter()
        .map(|found| (found.entry.before.map(|at| at.0), found.entry.expires.map(|at| at.0)))
        .collect();
    terms.sort();
    assert_eq!(terms, [(None, None), (Some(5), Some(end + 1))]);
    assert_eq!(engine.look_up(&Fact { issuer: None, ..user.clone() }).await.unwrap(), []);
    assert_eq!(engine.lift(&[user]).await.unwrap(), 2);

    let empty = Fact { target: Target::Jti(String::new()), issuer: None };
    let refused = engine.revoke(&[revocation(&empty, None, None)]).await.unwrap_err();
    assert!(refused.to_string().contains("empty"), "{refused}");
    assert!(engine.list(Some("no such place")).await.is_err());
}
