//! A list in one real Valkey: propagation, restarts, gaps, losses.

use std::time::Duration;

use valgate::clock::UnixSeconds;
use valgate::config::settings::{HostPort, Valkey, ValkeyTopology};
use valgate::feeds::revocation::ValkeyEngine;
use valgate::revocation::RevocationEngine;

use crate::fleet::{Node, REVOKED, Subject, behaves_like_an_engine, everything, measure, revocation, yaml};
use crate::support::engines::Engine;
use crate::support::{Signer, eventually, now};

const PREFIX: &str = "valgate:revocations";
const ENTRIES: &str = "{valgate:revocations}:entries";
const CHANGES: &str = "{valgate:revocations}:changes";

pub fn settings(topology: ValkeyTopology) -> Valkey {
    Valkey { topology, database: 0, credentials: None, tls: None, timeout: Duration::from_secs(5) }
}

pub fn at(port: u16) -> HostPort {
    HostPort { host: "127.0.0.1".to_owned(), port }
}

pub fn engine(server: &Engine) -> ValkeyEngine {
    ValkeyEngine::new(settings(ValkeyTopology::Single(at(server.port))), PREFIX)
}

pub fn feed(server: &Engine) -> String {
    format!("valkey: {{ address: \"{}\", timeout: 1s }}", server.address())
}

#[tokio::test]
async fn what_is_revoked_and_lifted_counts_at_every_gateway() {
    let signer = Signer::es256("k1");
    let server = Engine::valkey(&[]).await;
    let nodes = [
        Node::start(yaml(&signer, &feed(&server))).await,
        Node::start(yaml(&signer, &feed(&server))).await,
        Node::start(yaml(&signer, &feed(&server))).await,
    ];
    let engine = engine(&server);
    behaves_like_an_engine(&engine, &nodes[0], &signer).await;
    measure("valkey", &engine, &nodes, &signer).await;
}

#[tokio::test]
async fn writers_at_the_same_time_lose_nothing() {
    let server = Engine::valkey(&[]).await;
    let signer = Signer::es256("k1");
    let subject = Subject::new(&signer);
    let mut writers = tokio::task::JoinSet::new();
    let first = now() + 1000;
    for end in first..first + 8 {
        let (engine, fact) = (engine(&server), subject.fact.clone());
        writers.spawn(async move { engine.revoke(&[revocation(&fact, Some(end), Some(end))]).await });
    }
    for written in writers.join_all().await {
        written.unwrap();
    }
    let all = everything(&engine(&server)).await;
    let terms: Vec<_> = all.iter().map(|one| (one.entry.before, one.entry.expires)).collect();
    let last = Some(UnixSeconds(first + 7));
    assert_eq!(terms, [(last, last)]);
}

#[tokio::test]
async fn entries_leave_the_engine_after_their_end() {
    let server = Engine::valkey(&[]).await;
    let engine = engine(&server);
    let signer = Signer::es256("k1");
    let [past, present] = [Subject::new(&signer), Subject::new(&signer)];
    engine.revoke(&[revocation(&past.fact, None, Some(now() - 3600))]).await.unwrap();
    engine.revoke(&[present.revocation()]).await.unwrap();
    let all = everything(&engine).await;
    assert_eq!(all.iter().map(|one| one.entry.fact()).collect::<Vec<_>>(), [present.fact]);
    let waiting: usize = server.ask(&["ZCARD", "{valgate:revocations}:expiry"]).await;
    assert_eq!(waiting, 1);
}

#[tokio::test]
async fn a_gateway_that_was_away_catches_up_by_position() {
    let signer = Signer::es256("k1");
    let server = Engine::valkey(&[]).await;
    let engine = engine(&server);
    let [before, lifted, during] = [(); 3].map(|()| Subject::new(&signer));
    engine.revoke(&[before.revocation(), lifted.revocation()]).await.unwrap();
    let mut node = Node::start(yaml(&signer, &feed(&server))).await;
    node.until(&lifted.token, REVOKED, "before").await;
    node.stop().await;
    engine.lift(std::slice::from_ref(&lifted.fact)).await.unwrap();
    engine.revoke(&[during.revocation()]).await.unwrap();
    node.restart().await;
    node.until(&during.token, REVOKED, "while it was away").await;
    assert_eq!(node.ask(&lifted.token).await, "200");
    assert_eq!(node.ask(&before.token).await, REVOKED);
    eventually("by position", || async { node.count("deltas").await > 0 }).await;
    assert_eq!(node.count("snapshots").await, 0);
}

#[tokio::test]
async fn changes_that_are_trimmed_away_lead_to_reading_all_anew() {
    let signer = Signer::es256("k1");
    let server = Engine::valkey(&[]).await;
    let engine = engine(&server);
    let [kept, lifted, during] = [(); 3].map(|()| Subject::new(&signer));
    engine.revoke(&[kept.revocation(), lifted.revocation()]).await.unwrap();
    let mut node = Node::start(yaml(&signer, &feed(&server))).await;
    node.until(&lifted.token, REVOKED, "before").await;
    node.stop().await;
    engine.revoke(&[during.revocation()]).await.unwrap();
    engine.lift(std::slice::from_ref(&lifted.fact)).await.unwrap();
    let _: usize = server.ask(&["XTRIM", CHANGES, "MAXLEN", "1"]).await;
    node.restart().await;
    node.until(&during.token, REVOKED, "trimmed away").await;
    assert_eq!(node.ask(&lifted.token).await, "200");
    assert_eq!(node.ask(&kept.token).await, REVOKED);
    node.until_count("snapshots", 1).await;

    // The last entry is lifted while the gateway cannot know it from the stream: an empty list that is whole counts.
    node.stop().await;
    engine.lift(&[kept.fact.clone(), during.fact.clone()]).await.unwrap();
    let _: usize = server.ask(&["XTRIM", CHANGES, "MAXLEN", "1"]).await;
    node.restart().await;
    node.until(&kept.token, "200", "nothing is left").await;
}

#[tokio::test]
async fn an_engine_that_lost_everything_lifts_nothing() {
    let signer = Signer::es256("k1");
    let server = Engine::valkey(&[]).await;
    let engine = engine(&server);
    let [known, next] = [(); 2].map(|()| Subject::new(&signer));
    engine.revoke(&[known.revocation()]).await.unwrap();
    let node = Node::start(yaml(&signer, &feed(&server))).await;
    node.until(&known.token, REVOKED, "known").await;

    let _: String = server.ask(&["FLUSHALL"]).await;
    eventually("it is noticed", || async { node.count("failures").await > 0 }).await;
    assert_eq!(node.ask(&known.token).await, REVOKED);
    assert_eq!(node.ask(&next.token).await, "200", "what is known counts until it is stale");

    // A new list is another history: its word counts.
    engine.revoke(&[next.revocation()]).await.unwrap();
    node.until(&next.token, REVOKED, "the new list").await;
    assert_eq!(node.ask(&known.token).await, "200");

    // The entries alone are lost, as by eviction: no list can be made of that, neither read nor written.
    let _: usize = server.ask(&["DEL", ENTRIES]).await;
    let refused = engine.revoke(&[known.revocation()]).await.unwrap_err().to_string();
    assert!(refused.contains("noeviction"), "{refused}");
    let stranger = Node::start_unready(yaml(&signer, &feed(&server))).await;
    eventually("it is noticed", || async { stranger.count("failures").await > 0 }).await;
    assert_eq!(stranger.ask(&next.token).await, "503 VAL-051 feed_not_loaded");
    assert_eq!(node.ask(&next.token).await, REVOKED);
}

#[tokio::test]
async fn a_killed_server_costs_nothing_but_time() {
    let signer = Signer::es256("k1");
    let mut server = Engine::valkey(&["--appendfsync", "always"]).await;
    let engine = engine(&server);
    let [before, after] = [(); 2].map(|()| Subject::new(&signer));
    engine.revoke(&[before.revocation()]).await.unwrap();
    let mut node = Node::start(yaml(&signer, &feed(&server))).await;
    node.until(&before.token, REVOKED, "before").await;
    server.kill();
    eventually("it is noticed", || async { node.count("failures").await > 0 }).await;
    assert_eq!(node.ask(&before.token).await, REVOKED);
    assert!(engine.revoke(&[after.revocation()]).await.is_err());

    // A gateway that comes up while the engine is down knows what it knew.
    node.restart().await;
    assert_eq!(node.ask(&before.token).await, REVOKED);
    assert_eq!(node.ask(&after.token).await, "200");

    server.restart().await;
    // It listens before it has read what it kept, and says so (LOADING).
    eventually("it takes commands", || async { engine.revoke(&[after.revocation()]).await.is_ok() }).await;
    node.until(&after.token, REVOKED, "after").await;
    assert_eq!(node.ask(&before.token).await, REVOKED);
    assert_eq!(node.count("snapshots").await, 0, "the position is still good");
}

#[tokio::test]
async fn what_cannot_be_read_is_skipped_and_counted() {
    let signer = Signer::es256("k1");
    let server = Engine::valkey(&[]).await;
    let engine = engine(&server);
    let [one, other] = [(); 2].map(|()| Subject::new(&signer));
    engine.revoke(&[one.revocation()]).await.unwrap();
    let _: usize = server.ask(&["HSET", ENTRIES, "jti * x", "{\"jti\": 7}"]).await;
    let node = Node::start(yaml(&signer, &feed(&server))).await;
    node.until(&one.token, REVOKED, "beside it").await;
    node.until_count("broken_entries", 1).await;
    let _: String = server.ask(&["XADD", CHANGES, "*", "entry", "no JSON"]).await;
    let _: String = server.ask(&["XADD", CHANGES, "*", "something", "else"]).await;
    engine.revoke(&[other.revocation()]).await.unwrap();
    node.until(&other.token, REVOKED, "after it").await;
    node.until_count("broken_entries", 3).await;
    assert_eq!(engine.list(None).await.unwrap().broken, 1);
}
