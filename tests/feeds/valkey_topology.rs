//! Real Valkeys of every shape: with Sentinel, as a cluster, with TLS and ACL users.

use valgate::config::settings::{EngineTls, Secret, Valkey, ValkeyCredentials, ValkeyTopology};
use valgate::feeds::revocation::ValkeyEngine;
use valgate::revocation::RevocationEngine;

use crate::fleet::{Node, REVOKED, Subject, behaves_like_an_engine, yaml};
use crate::support::engines::{Engine, free_port, tls_front};
use crate::support::{Signer, eventually, write_certificates};
use crate::valkey::{at, settings};

const PREFIX: &str = "valgate:revocations";

#[tokio::test]
async fn a_failover_by_sentinel_is_followed() {
    let signer = Signer::es256("k1");
    let mut first = Engine::valkey(&[]).await;
    let port = first.port.to_string();
    let second = Engine::valkey(&["--replicaof", "127.0.0.1", &port]).await;
    let sentinel = Engine::sentinel(first.port).await;
    eventually("the replica follows", || async {
        second.ask::<String>(&["INFO", "replication"]).await.contains("master_link_status:up")
    })
    .await;
    eventually("the sentinel knows the replica", || async {
        sentinel.ask::<Vec<redis::Value>>(&["SENTINEL", "REPLICAS", "main"]).await.len() == 1
    })
    .await;

    let topology = ValkeyTopology::Sentinel {
        primary: "main".to_owned(),
        addresses: vec![at(free_port()), at(sentinel.port)],
        credentials: None,
    };
    let engine = ValkeyEngine::new(settings(topology), PREFIX);
    let feed = format!(
        "valkey: {{ sentinel: {{ primary: main, addresses: [\"127.0.0.1:{}\", \"{}\"] }}, timeout: 1s }}",
        free_port(),
        sentinel.address()
    );
    let node = Node::start(yaml(&signer, &feed)).await;
    let [before, after] = [(); 2].map(|()| Subject::new(&signer));
    engine.revoke(&[before.revocation()]).await.unwrap();
    node.until(&before.token, REVOKED, "before").await;
    eventually("the replica has it", || async {
        second.ask::<usize>(&["XLEN", "{valgate:revocations}:changes"]).await == 2
    })
    .await;

    let snapshots = node.count("snapshots").await;
    first.kill();
    eventually("the replica is promoted", || async {
        second.ask::<String>(&["INFO", "replication"]).await.contains("role:master")
    })
    .await;
    assert_eq!(node.ask(&before.token).await, REVOKED);
    eventually("the new primary can be written", || async {
        engine.revoke(&[after.revocation()]).await.is_ok()
    })
    .await;
    node.until(&after.token, REVOKED, "by the new primary").await;
    assert_eq!(node.ask(&before.token).await, REVOKED);
    assert_eq!(node.count("snapshots").await, snapshots, "the position is as good there");
}

#[tokio::test]
async fn a_replica_is_not_taken_for_the_primary() {
    let signer = Signer::es256("k1");
    let first = Engine::valkey(&[]).await;
    let port = first.port.to_string();
    let replica = Engine::valkey(&["--replicaof", "127.0.0.1", &port]).await;
    let engine = ValkeyEngine::new(settings(ValkeyTopology::Single(at(replica.port))), PREFIX);
    let error = engine.revoke(&[Subject::new(&signer).revocation()]).await.unwrap_err().to_string();
    assert!(error.contains("is a replica"), "{error}");
    let feed = format!("valkey: {{ address: \"{}\" }}", replica.address());
    let node = Node::start_unready(yaml(&signer, &feed)).await;
    eventually("it is refused", || async { node.count("failures").await > 0 }).await;
    assert_eq!(node.ask(&Subject::new(&signer).token).await, "503 VAL-051 feed_not_loaded");
}

#[tokio::test]
async fn a_cluster_is_followed_through_a_failover() {
    let signer = Signer::es256("k1");
    let nodes = [cluster_node().await, cluster_node().await, cluster_node().await, cluster_node().await];
    let [one, two, three, spare] = &nodes;
    for (node, from, to) in [(one, "0", "5460"), (two, "5461", "10922"), (three, "10923", "16383")] {
        let _: String = node.ask(&["CLUSTER", "ADDSLOTSRANGE", from, to]).await;
    }
    for node in [two, three, spare] {
        let shards: String =
            one.ask(&["CLUSTER", "MEET", "127.0.0.1", &node.port.to_string(), &bus(node)]).await;
        assert_eq!(shards, "OK");
    }
    for node in &nodes {
        eventually("the cluster is whole", || async {
            let info: String = node.ask(&["CLUSTER", "INFO"]).await;
            info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:4")
        })
        .await;
    }
    let slot: u16 = one.ask(&["CLUSTER", "KEYSLOT", "{valgate:revocations}:entries"]).await;
    let owner = [one, two, three][usize::from(slot / 5461).min(2)];
    let id: String = owner.ask(&["CLUSTER", "MYID"]).await;
    let _: String = spare.ask(&["CLUSTER", "REPLICATE", &id]).await;
    eventually("the replica follows", || async {
        spare.ask::<String>(&["INFO", "replication"]).await.contains("master_link_status:up")
    })
    .await;

    let seeds = nodes.each_ref().map(|node| at(node.port));
    let engine = ValkeyEngine::new(settings(ValkeyTopology::Cluster(seeds.to_vec())), PREFIX);
    let addresses = nodes.each_ref().map(|node| format!("\"{}\"", node.address())).join(", ");
    let gateway =
        Node::start(yaml(&signer, &format!("valkey: {{ cluster: [{addresses}], timeout: 1s }}"))).await;
    behaves_like_an_engine(&engine, &gateway, &signer).await;

    let [before, after] = [(); 2].map(|()| Subject::new(&signer));
    engine.revoke(&[before.revocation()]).await.unwrap();
    gateway.until(&before.token, REVOKED, "before").await;
    let snapshots = gateway.count("snapshots").await;
    let _: String = spare.ask(&["CLUSTER", "FAILOVER"]).await;
    eventually("the replica takes over", || async {
        spare.ask::<String>(&["INFO", "replication"]).await.contains("role:master")
    })
    .await;
    eventually("the new primary can be written", || async {
        engine.revoke(&[after.revocation()]).await.is_ok()
    })
    .await;
    gateway.until(&after.token, REVOKED, "by the new primary").await;
    assert_eq!(gateway.ask(&before.token).await, REVOKED);
    assert_eq!(gateway.count("snapshots").await, snapshots, "the position is as good there");
}

async fn cluster_node() -> Engine {
    let bus = free_port().to_string();
    let arguments = ["--cluster-enabled", "yes", "--cluster-port", &bus, "--cluster-node-timeout", "2000"];
    Engine::valkey(&arguments).await
}

fn bus(node: &Engine) -> String {
    let position = node.arguments().iter().position(|argument| argument == "--cluster-port").unwrap();
    node.arguments()[position + 1].clone()
}

/// The rights are those that docs/revocation-valkey.md names.
#[tokio::test]
async fn tls_and_the_documented_rights_are_enough() {
    let signer = Signer::es256("k1");
    let dir = tempfile::tempdir().unwrap();
    let ca = write_certificates(dir.path());
    std::fs::write(dir.path().join("ca.crt"), ca).unwrap();
    let users = include_str!("../../docs/revocation-valkey.md")
        .lines()
        .filter(|line| line.starts_with("user "))
        .map(|line| line.replace("<READER-PASSWORD>", "read-me").replace("<WRITER-PASSWORD>", "write-me"))
        .collect::<Vec<_>>();
    assert_eq!(users.len(), 3, "{users:?}");
    std::fs::write(dir.path().join("users.acl"), users.join("\n") + "\n").unwrap();
    let file = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let server = Engine::valkey(&["--aclfile", &file("users.acl")]).await;
    let tls_port = tls_front(dir.path(), server.port).await;

    let valkey = |username: &str, password: &str, tls| Valkey {
        credentials: Some(ValkeyCredentials {
            username: Some(username.to_owned()),
            password: Secret::new(password.to_owned()),
        }),
        tls,
        ..settings(ValkeyTopology::Single(at(tls_port)))
    };
    let trust = || Some(EngineTls { ca: Some(dir.path().join("ca.crt")), client_certificate: None });
    let writer = ValkeyEngine::new(valkey("valgate-writer", "write-me", trust()), PREFIX);
    let feed = |password: &str| {
        format!(
            "valkey: {{ address: \"localhost:{tls_port}\", username: valgate, password: {password}, tls: {{ ca: {} }} }}",
            file("ca.crt")
        )
    };
    let node = Node::start(yaml(&signer, &feed("read-me"))).await;
    behaves_like_an_engine(&writer, &node, &signer).await;

    let refusals = [
        (valkey("valgate", "read-me", trust()), "lacks a right"),
        (valkey("valgate-writer", "read-me", trust()), "check username and password"),
        (
            valkey("valgate-writer", "write-me", Some(EngineTls { ca: None, client_certificate: None })),
            "certificate",
        ),
    ];
    for (settings, expected) in refusals {
        let engine = ValkeyEngine::new(settings, PREFIX);
        let error = engine.revoke(&[Subject::new(&signer).revocation()]).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains("-me"), "{error}");
    }
    let stranger = Node::start_unready(yaml(&signer, &feed("wrong"))).await;
    eventually("it is refused", || async { stranger.count("failures").await > 0 }).await;
    assert_eq!(stranger.ask(&Subject::new(&signer).token).await, "503 VAL-051 feed_not_loaded");
}
