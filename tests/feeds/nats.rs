//! A list in a bucket of a real NATS server: propagation, restarts, gaps, losses, and who may do what.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream;
use valgate::clock::Clock;
use valgate::config::settings::{EngineTls, HostPort, Nats, NatsCredentials, Secret};
use valgate::feeds::revocation::NatsEngine;
use valgate::revocation::RevocationEngine;

use crate::fleet::{Node, REVOKED, Subject, behaves_like_an_engine, everything, measure, revocation, yaml};
use crate::support::engines::Engine;
use crate::support::{Signer, eventually, now, within, write_certificates};

const STREAM: &str = "KV_valgate-revocations";

pub fn engine_as(server: &Engine, credentials: NatsCredentials, tls: Option<EngineTls>) -> NatsEngine {
    let servers = vec![HostPort { host: "127.0.0.1".to_owned(), port: server.port }];
    let nats = Nats { servers, credentials, tls, timeout: Duration::from_secs(5) };
    NatsEngine::new(nats, "valgate-revocations".to_owned(), Clock::system())
}

pub fn engine(server: &Engine) -> NatsEngine {
    engine_as(server, NatsCredentials::None, None)
}

pub fn feed(server: &Engine) -> String {
    format!("nats: {{ servers: [\"{}\"], timeout: 1s }}", server.address())
}

/// A server with an empty bucket.
pub async fn server(signer: &Signer) -> Engine {
    let server = Engine::nats("").await;
    engine(&server).lift(&[Subject::new(signer).fact]).await.unwrap();
    server
}

async fn jetstream(server: &Engine) -> jetstream::Context {
    jetstream::new(async_nats::connect(server.address()).await.unwrap())
}

#[tokio::test]
async fn what_is_revoked_and_lifted_counts_at_every_gateway() {
    let signer = Signer::es256("k1");
    let server = server(&signer).await;
    let nodes = [
        Node::start(yaml(&signer, &feed(&server))).await,
        Node::start(yaml(&signer, &feed(&server))).await,
        Node::start(yaml(&signer, &feed(&server))).await,
    ];
    let engine = engine(&server);
    behaves_like_an_engine(&engine, &nodes[0], &signer).await;
    measure("nats", &engine, &nodes, &signer).await;
}

#[tokio::test]
async fn writers_at_the_same_time_lose_nothing() {
    let signer = Signer::es256("k1");
    let server = server(&signer).await;
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
    let last = Some(valgate::clock::UnixSeconds(first + 7));
    assert_eq!(terms, [(last, last)]);
}

#[tokio::test]
async fn entries_leave_the_engine_after_their_end() {
    let signer = Signer::es256("k1");
    let server = server(&signer).await;
    let engine = engine(&server);
    let [past, present] = [(); 2].map(|()| Subject::new(&signer));
    engine.revoke(&[revocation(&past.fact, None, Some(now() - 3600)), present.revocation()]).await.unwrap();
    // The server looks for what has ended when it has the time.
    within(Duration::from_secs(60), "it is gone", || async {
        everything(&engine).await.iter().map(|one| one.entry.fact()).collect::<Vec<_>>()
            == [present.fact.clone()]
    })
    .await;
}

#[tokio::test]
async fn a_bucket_of_another_name_is_not_an_empty_list() {
    let signer = Signer::es256("k1");
    let server = Engine::nats("").await;
    let node = Node::start_unready(yaml(&signer, &feed(&server))).await;
    let subject = Subject::new(&signer);
    eventually("it is refused", || async { node.count("failures").await > 0 }).await;
    assert_eq!(node.ask(&subject.token).await, "503 VAL-051 feed_not_loaded");
    assert_eq!(everything(&engine(&server)).await, []);
    engine(&server).revoke(&[subject.revocation()]).await.unwrap();
    node.until(&subject.token, REVOKED, "the bucket is there").await;
}

#[tokio::test]
async fn a_gateway_that_was_away_catches_up_by_position_or_by_reading_all_anew() {
    let signer = Signer::es256("k1");
    let server = server(&signer).await;
    let engine = engine(&server);
    let [kept, lifted, last, during] = [(); 4].map(|()| Subject::new(&signer));
    engine.revoke(&[kept.revocation(), lifted.revocation(), last.revocation()]).await.unwrap();
    let mut node = Node::start(yaml(&signer, &feed(&server))).await;
    node.until(&last.token, REVOKED, "before").await;
    node.stop().await;
    engine.lift(std::slice::from_ref(&lifted.fact)).await.unwrap();
    engine.revoke(&[during.revocation()]).await.unwrap();
    node.restart().await;
    node.until(&during.token, REVOKED, "while it was away").await;
    assert_eq!(node.ask(&lifted.token).await, "200");
    eventually("by position", || async { node.count("deltas").await > 0 }).await;
    assert_eq!(node.count("snapshots").await, 0);

    // What it heard last is replaced, so its position cannot be found any more.
    node.stop().await;
    engine.lift(&[during.fact.clone(), kept.fact.clone()]).await.unwrap();
    node.restart().await;
    node.until(&during.token, "200", "read anew").await;
    assert_eq!(node.ask(&kept.token).await, "200");
    assert_eq!(node.ask(&last.token).await, REVOKED);
    node.until_count("snapshots", 1).await;
}

#[tokio::test]
async fn a_killed_server_costs_nothing_but_time() {
    let signer = Signer::es256("k1");
    let mut server = server(&signer).await;
    let engine = engine(&server);
    let [before, after] = [(); 2].map(|()| Subject::new(&signer));
    engine.revoke(&[before.revocation()]).await.unwrap();
    let running = Node::start(yaml(&signer, &feed(&server))).await;
    let mut restarted = Node::start(yaml(&signer, &feed(&server))).await;
    for node in [&running, &restarted] {
        node.until(&before.token, REVOKED, "before").await;
    }
    let snapshots = running.count("snapshots").await;
    server.kill();
    eventually("it is noticed", || async { running.count("failures").await > 0 }).await;
    assert_eq!(running.ask(&before.token).await, REVOKED);
    assert!(engine.revoke(&[after.revocation()]).await.is_err());

    // A gateway that comes up while the engine is down knows what it knew.
    restarted.restart().await;
    assert_eq!(restarted.ask(&before.token).await, REVOKED);
    assert_eq!(restarted.ask(&after.token).await, "200");

    server.restart().await;
    eventually("it can be written", || async { engine.revoke(&[after.revocation()]).await.is_ok() }).await;
    for node in [&running, &restarted] {
        node.until(&after.token, REVOKED, "after").await;
        assert_eq!(node.ask(&before.token).await, REVOKED);
    }
    assert_eq!(running.count("snapshots").await, snapshots, "the position is still good");
    assert_eq!(restarted.count("snapshots").await, 0, "the position is still good");
}

#[tokio::test]
async fn a_bucket_that_lost_everything_lifts_nothing() {
    let signer = Signer::es256("k1");
    let server = server(&signer).await;
    let engine = engine(&server);
    let [known, next] = [(); 2].map(|()| Subject::new(&signer));
    engine.revoke(&[known.revocation()]).await.unwrap();
    let mut node = Node::start(yaml(&signer, &feed(&server))).await;
    node.until(&known.token, REVOKED, "known").await;
    node.stop().await;

    let context = jetstream(&server).await;
    context.get_stream(STREAM).await.unwrap().purge().await.unwrap();
    node.restart().await;
    eventually("it is noticed", || async { node.count("failures").await > 0 }).await;
    assert_eq!(node.ask(&known.token).await, REVOKED);

    // A new bucket is another history: its word counts.
    context.delete_stream(STREAM).await.unwrap();
    engine.revoke(&[next.revocation()]).await.unwrap();
    node.until(&next.token, REVOKED, "the new bucket").await;
    assert_eq!(node.ask(&known.token).await, "200");
}

#[tokio::test]
async fn a_key_that_is_deleted_by_hand_is_lifted_and_nonsense_is_counted() {
    let signer = Signer::es256("k1");
    let server = server(&signer).await;
    let node = Node::start(yaml(&signer, &feed(&server))).await;
    let [one, other] = [(); 2].map(|()| Subject::new(&signer));
    let context = jetstream(&server).await;
    let put = async |key: &str, headers: HeaderMap, value: String| {
        let subject = format!("$KV.valgate-revocations.{key}");
        context.publish_with_headers(subject, headers, value.into()).await.unwrap().await.unwrap();
    };
    let entry = |subject: &Subject| valgate::feeds::revocation::revocation_line(&subject.revocation());
    put("mine", HeaderMap::new(), entry(&one)).await;
    put("broken", HeaderMap::new(), "{\"jti\": 7}".to_owned()).await;
    put("theirs", HeaderMap::new(), entry(&other)).await;
    node.until(&one.token, REVOKED, "by hand").await;
    node.until(&other.token, REVOKED, "after nonsense").await;
    node.until_count("broken_entries", 1).await;

    let mut deleted = HeaderMap::new();
    deleted.insert("KV-Operation", "DEL");
    put("mine", deleted, String::new()).await;
    node.until(&one.token, "200", "deleted").await;
    assert_eq!(node.ask(&other.token).await, REVOKED);
}

/// From the documentation of NATS.
const SEED: &str = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY";
const PUBLIC_KEY: &str = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4";

/// The permissions are those that docs/revocation-nats.md names.
#[tokio::test]
async fn tls_and_the_documented_permissions_are_enough() {
    let signer = Signer::es256("k1");
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(file("ca.crt"), write_certificates(dir.path())).unwrap();
    let documented = include_str!("../../docs/revocation-nats.md");
    let (_, users) = documented.split_once("```conf\n").unwrap();
    let (users, _) = users.split_once("```").unwrap();
    let users = users
        .replace("<READER-PASSWORD>", "read-me")
        .replace("<WRITER-PASSWORD>", "write-me")
        .replace("users: [", &format!("users: [\n    {{ nkey: {PUBLIC_KEY} }}"));
    let tls = format!("tls {{ cert_file: \"{}\", key_file: \"{}\" }}", file("tls.crt"), file("tls.key"));
    let server = Engine::nats(&format!("{users}\n{tls}")).await;

    let trust = || Some(EngineTls { ca: Some(dir.path().join("ca.crt")), client_certificate: None });
    let user = |username: &str, password: &str| NatsCredentials::User {
        username: username.to_owned(),
        password: Secret::new(password.to_owned()),
    };
    let all = engine_as(&server, NatsCredentials::NKey(Secret::new(SEED.to_owned())), trust());
    all.lift(&[Subject::new(&signer).fact]).await.unwrap();
    let feed = |credentials: &str| {
        let address = server.address();
        format!(
            "nats: {{ servers: [\"{address}\"], {credentials}, tls: {{ ca: {} }}, timeout: 1s }}",
            file("ca.crt")
        )
    };
    let node = Node::start(yaml(&signer, &feed("username: valgate, password: read-me"))).await;
    let writer = engine_as(&server, user("valgate-writer", "write-me"), trust());
    behaves_like_an_engine(&writer, &node, &signer).await;
    let by_nkey = Node::start(yaml(&signer, &feed(&format!("nkey: {SEED}")))).await;
    let subject = Subject::new(&signer);
    writer.revoke(&[subject.revocation()]).await.unwrap();
    by_nkey.until(&subject.token, REVOKED, "by NKey").await;

    let bare = EngineTls { ca: None, client_certificate: None };
    let refusals = [
        engine_as(&server, user("valgate", "read-me"), trust()),
        engine_as(&server, user("valgate-writer", "read-me"), trust()),
        engine_as(&server, user("valgate-writer", "write-me"), Some(bare)),
    ];
    for engine in refusals {
        let error = engine.revoke(&[Subject::new(&signer).revocation()]).await.unwrap_err().to_string();
        assert!(error.contains("credentials and permissions") && !error.contains("-me"), "{error}");
    }
    let stranger = Node::start_unready(yaml(&signer, &feed("token: wrong"))).await;
    eventually("it is refused", || async { stranger.count("failures").await > 0 }).await;
    assert_eq!(stranger.ask(&Subject::new(&signer).token).await, "503 VAL-051 feed_not_loaded");
}
