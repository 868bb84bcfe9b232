//! `valgate feed serve`, and the commands that write to it: what was acknowledged stays, whatever happens.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use http::HeaderValue;
use serde_json::{Value, json};
use tempfile::TempDir;
use url::Url;
use valgate::clock::{Clock, UnixSeconds};
use valgate::feed_server::{FeedServer, FeedSigner, Settings};
use valgate::feeds::fetch::FetchSettings;
use valgate::feeds::revocation::{FileEngine, HttpEngine};
use valgate::revocation::RevocationEngine;

use crate::fleet::{Node, REVOKED, Subject, behaves_like_an_engine, everything, measure, yaml};
use crate::support::{Answer, ISSUER, Signer, Stub, Token, get, send};

pub const WRITE: &str = "Bearer write-write-write-write";

pub async fn server(data: &Path, address: Option<SocketAddr>, signer: Option<FeedSigner>) -> FeedServer {
    try_server(data, address, signer).await.unwrap()
}

async fn try_server(
    data: &Path,
    address: Option<SocketAddr>,
    signer: Option<FeedSigner>,
) -> anyhow::Result<FeedServer> {
    let settings = Settings {
        address: address.unwrap_or_else(|| ([127, 0, 0, 1], 0).into()),
        data: data.to_owned(),
        write_authorization: HeaderValue::from_static(WRITE),
        read_authorization: None,
        tls: None,
        signer,
        max_entries: 1000,
    };
    FeedServer::start(settings, Clock::system()).await
}

pub fn engine(server: &FeedServer) -> HttpEngine {
    engine_at(server.address().port())
}

pub fn engine_at(port: u16) -> HttpEngine {
    let url = Url::parse(&format!("http://127.0.0.1:{port}/revocations")).unwrap();
    HttpEngine::new(url, None, Some(HeaderValue::from_static(WRITE)), &FetchSettings::default()).unwrap()
}

fn feed(address: SocketAddr, extra: &str) -> String {
    format!("http: {{ url: \"http://{address}/revocations\", long_poll: 30s, interval: 100ms {extra} }}")
}

#[tokio::test]
async fn what_is_revoked_and_lifted_counts_at_every_gateway() {
    let signer = Signer::es256("k1");
    let data = TempDir::new().unwrap();
    let server = server(data.path(), None, None).await;
    let yaml = yaml(&signer, &feed(server.address(), ""));
    let nodes =
        [Node::start(yaml.clone()).await, Node::start(yaml.clone()).await, Node::start(yaml.clone()).await];
    let engine = engine(&server);
    behaves_like_an_engine(&engine, &nodes[0], &signer).await;
    measure("feed server", &engine, &nodes, &signer).await;
}

#[tokio::test]
async fn a_file_is_an_engine_too() {
    let signer = Signer::es256("k1");
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("revoked.json");
    let engine = FileEngine::new(path.clone(), 1 << 20, Clock::system());
    let first = Subject::new(&signer);
    engine.revoke(&[first.revocation()]).await.unwrap();
    engine.lift(&[first.fact]).await.unwrap();
    let node =
        Node::start(yaml(&signer, &format!("file: {{ path: \"{}\", interval: 100ms }}", path.display())))
            .await;
    behaves_like_an_engine(&engine, &node, &signer).await;
}

#[tokio::test]
async fn what_was_acknowledged_survives_and_what_was_torn_is_cut_off() {
    let signer = Signer::es256("k1");
    let data = TempDir::new().unwrap();
    let running = server(data.path(), None, None).await;
    let address = running.address();
    let node = Node::start(yaml(&signer, &feed(address, ""))).await;
    let (kept, lifted) = (Subject::new(&signer), Subject::new(&signer));
    engine(&running).revoke(&[kept.revocation(), lifted.revocation()]).await.unwrap();
    engine(&running).lift(std::slice::from_ref(&lifted.fact)).await.unwrap();
    node.until(&kept.token, REVOKED, "revoked").await;
    assert!(try_server(data.path(), None, None).await.is_err(), "two servers on one log");
    running.stop().await;

    let log = data.path().join("feed.log");
    let whole = std::fs::read(&log).unwrap();
    std::fs::write(&log, [&whole[..], b"0123456789abcdef 7 {\"sub\": \"al"].concat()).unwrap();
    let running = server(data.path(), Some(address), None).await;
    assert_eq!(everything(&engine(&running)).await.len(), 1);
    assert_eq!(std::fs::read(&log).unwrap(), whole, "the torn line is gone");
    let next = Subject::new(&signer);
    engine(&running).revoke(&[next.revocation()]).await.unwrap();
    node.until(&next.token, REVOKED, "revoked after the restart").await;
    assert_eq!(node.ask(&kept.token).await, REVOKED);
    running.stop().await;

    let mut damaged = std::fs::read(&log).unwrap();
    let place = damaged.len() / 2;
    damaged[place] ^= 1;
    std::fs::write(&log, damaged).unwrap();
    let refused = format!("{:#}", try_server(data.path(), None, None).await.unwrap_err());
    assert!(refused.contains("is damaged"), "{refused}");
}

/// What a server has written, its successors read.
#[tokio::test]
async fn the_golden_log_is_read_and_one_of_a_later_version_is_refused_and_kept() {
    const GOLDEN: &str = include_str!("../formats/feed-server-1.log");
    let data = TempDir::new().unwrap();
    let log = data.path().join("feed.log");
    std::fs::write(&log, GOLDEN).unwrap();
    let running = server(data.path(), None, None).await;
    let mut listed = everything(&engine(&running)).await;
    listed.sort_by_key(|one| one.revoked_at);
    let facts: Vec<_> =
        listed.iter().map(|one| (format!("{:?}", one.entry.target), one.reason.clone())).collect();
    let lost = Some("lost laptop".to_owned());
    assert_eq!(facts, [(r#"Jti("t1")"#.to_owned(), lost), (r#"Sub("bob")"#.to_owned(), None)]);
    let known = "/revocations?cursor=1800000000-00000000000000aa.1887436800000004";
    let reply = get(running.address(), known, &[]).await.json();
    assert_eq!((&reply["kind"], &reply["entries"]), (&json!("delta"), &json!([])), "its history goes on");
    assert_eq!(std::fs::read_to_string(&log).unwrap(), GOLDEN);
    running.stop().await;

    // Whole, and torn at its end: it is not for this version to mend it.
    let header = GOLDEN.lines().next().unwrap().split_once(' ').unwrap().1.replace(":1,", ":2,");
    let sum = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &[&[0; 8], header.as_bytes()].concat());
    let sum = u64::from_be_bytes(*sum.as_ref().first_chunk().unwrap());
    for end in ["", "torn"] {
        let later = format!("{sum:016x} {header}\n{end}");
        std::fs::write(&log, &later).unwrap();
        let refused = format!("{:#}", try_server(data.path(), None, None).await.unwrap_err());
        assert!(refused.contains("format 2, this one reads 1"), "{refused}");
        assert_eq!(std::fs::read_to_string(&log).unwrap(), later);
    }
}

#[tokio::test]
async fn a_full_feed_makes_room_and_takes_again_what_it_has() {
    let data = TempDir::new().unwrap();
    let (clock, hand) = Clock::manual(UnixSeconds(1_800_000_000));
    let settings = Settings {
        address: ([127, 0, 0, 1], 0).into(),
        data: data.path().to_owned(),
        write_authorization: HeaderValue::from_static(WRITE),
        read_authorization: None,
        tls: None,
        signer: None,
        max_entries: 3,
    };
    let server = FeedServer::start(settings, clock.clone()).await.unwrap();
    let post = async |entries: Value| {
        let body = json!({ "entries": entries }).to_string();
        let head = format!(
            "POST /revocations HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {}\r\n\
             Authorization: {WRITE}\r\n\r\n",
            body.len()
        );
        send(server.address(), head + &body).await.status
    };
    let until = |sub: &str, seconds: i64| json!({ "sub": sub, "exp": clock.wall().0 + seconds });
    assert_eq!(post(json!([until("a", 60), until("b", 60), until("c", 86_400)])).await, 200);
    assert_eq!(post(json!([until("d", 60)])).await, 507);
    assert_eq!(
        post(json!([until("a", 60), until("a", 120), until("c", 60)])).await,
        200,
        "nothing of it is more"
    );
    assert_eq!(post(json!([{ "sub": "a", "lift": true }])).await, 200);
    assert_eq!(post(json!([until("d", 60), until("d", 60)])).await, 200, "the same twice is one");
    assert_eq!(post(json!([until("e", 60), until("f", 60)])).await, 507, "all or none");
    // Gateways may need an entry for an hour after its end, and nobody after that.
    hand.advance(std::time::Duration::from_secs(2 * 3600));
    assert_eq!(post(json!([until("e", 60), until("f", 60)])).await, 200);
    assert_eq!(post(json!([until("g", 60)])).await, 507);
    let listed = everything(&engine(&server)).await;
    let mut subjects: Vec<String> = listed.iter().map(|one| format!("{:?}", one.entry.target)).collect();
    subjects.sort();
    assert_eq!(subjects, [r#"Sub("c")"#, r#"Sub("e")"#, r#"Sub("f")"#]);
}

#[tokio::test]
async fn only_who_has_the_token_writes_and_only_what_is_whole() {
    let data = TempDir::new().unwrap();
    let server = server(data.path(), None, None).await;
    let post = async |authorization: &str, body: &str| {
        let head = format!(
            "POST /revocations HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {}\r\n{authorization}\r\n",
            body.len()
        );
        send(server.address(), head + body).await.status
    };
    let (right, entry) =
        (format!("Authorization: {WRITE}\r\n"), r#"{"entries": [{"sub": "a", "exp": 4000000000}]}"#);
    assert_eq!(post("", entry).await, 401);
    assert_eq!(post("Authorization: Bearer another\r\n", entry).await, 401);
    assert_eq!(post(&format!("{right}{right}"), entry).await, 401);
    for broken in ["", "[]", "{}", r#"{"entries": [{"sub": "a"}, {"exp": 7}]}"#] {
        assert_eq!(post(&right, broken).await, 400, "{broken}");
    }
    assert!(everything(&engine(&server)).await.is_empty(), "of an order that is broken nothing counts");
    assert_eq!(post(&right, entry).await, 200);
    let first = get(server.address(), "/revocations", &[]).await;
    assert_eq!(post(&right, entry).await, 200, "again");
    let tag = first.header("etag").unwrap();
    let again = get(server.address(), "/revocations", &[("If-None-Match", tag)]).await;
    assert_eq!(again.status, 304, "what is known already changes nothing");
    let many: Vec<Value> =
        (0..1000).map(|n| json!({ "jti": n.to_string(), "exp": 4_000_000_000_u64 })).collect();
    assert_eq!(post(&right, &json!({ "entries": many }).to_string()).await, 507);
}

fn signing_key() -> FeedSigner {
    let pem = rcgen::KeyPair::generate().unwrap().serialize_pem();
    FeedSigner::from_pem(pem.as_bytes(), "https://feed.example.com/".to_owned(), "fleet".to_owned()).unwrap()
}

/// Gateways that only believe what this key signs.
fn signed_yaml(signer: &Signer, address: SocketAddr, jwks: &Value) -> String {
    let text = yaml(signer, &feed(address, ", signed: { signed_by: feed, audience: fleet, max_age: 1m }"));
    let issuer = format!(
        "issuers:\n  - {{ name: feed, issuer: https://feed.example.com/, audiences: [none], keys: {{ inline: {jwks} }} }}"
    );
    text.replacen("issuers:", &issuer, 1)
}

#[tokio::test]
async fn a_signed_feed_is_believed_and_nothing_else_is() {
    let signer = Signer::es256("k1");
    let data = TempDir::new().unwrap();
    let key = signing_key();
    let jwks = key.jwks();
    let running = server(data.path(), None, Some(key)).await;
    assert_eq!(get(running.address(), "/jwks", &[]).await.json(), jwks);
    let mut node = Node::start(signed_yaml(&signer, running.address(), &jwks)).await;
    let subject = Subject::new(&signer);
    assert_eq!(node.ask(&subject.token).await, "200");
    engine(&running).revoke(&[subject.revocation()]).await.unwrap();
    node.until(&subject.token, REVOKED, "revoked").await;
    node.stop().await;

    // Somebody on the way: answers of yesterday, of another key, without a signature.
    let way = Stub::start().await;
    let accept = [("Accept", "application/valgate-feed+jwt")];
    let signed = get(running.address(), "/revocations", &accept).await;
    let other = signing_key();
    let forged = server(TempDir::new().unwrap().path(), None, Some(other)).await;
    let forged = get(forged.address(), "/revocations", &accept).await;
    let plain = get(running.address(), "/revocations", &[]).await;
    let kind = "application/valgate-feed+jwt";
    for (what, answer) in [
        ("forged", Answer::body(kind, forged.text())),
        ("unsigned", Answer::body("application/json", plain.text())),
        ("unsigned under the name", Answer::body(kind, plain.text())),
        ("not changed", Answer::Status(304, Vec::new(), Vec::new())),
    ] {
        way.set("/revocations", answer);
        let node = Node::start_unready(signed_yaml(&signer, way.address, &jwks)).await;
        crate::support::eventually(what, || async { node.count("failures").await > 0 }).await;
        assert_eq!(node.ask(&Token::new().sign(&signer)).await, "503 VAL-051 feed_not_loaded", "{what}");
    }
    // An old answer, after a newer one was heard.
    engine(&running).lift(std::slice::from_ref(&subject.fact)).await.unwrap();
    let newer = get(running.address(), "/revocations", &accept).await;
    way.set("/revocations", Answer::body(kind, newer.text()));
    let mut node = Node::start(signed_yaml(&signer, way.address, &jwks)).await;
    node.until(&subject.token, "200", "the newer answer").await;
    way.set("/revocations", Answer::body(kind, signed.text()));
    node.restart().await;
    crate::support::eventually("replay noticed", || async { node.count("failures").await > 0 }).await;
    assert_eq!(node.ask(&subject.token).await, "200", "the serial outlived the restart");
}

pub struct Commands {
    dir: TempDir,
}

impl Commands {
    pub fn new(feed: &str, signer: &Signer) -> Self {
        let dir = TempDir::new().unwrap();
        let text = format!(
            "version: 1\nlisteners: [{{ address: 127.0.0.1:0, plaintext: true }}]\n\
             upstreams: [{{ name: api, endpoints: [\"http://127.0.0.1:9\"] }}]\n{}",
            yaml(signer, feed).replace("$DIR", &dir.path().display().to_string())
        );
        std::fs::write(dir.path().join("valgate.yaml"), text).unwrap();
        Self { dir }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let config: PathBuf = self.dir.path().join("valgate.yaml");
        let mut command = Command::new(env!("CARGO_BIN_EXE_valgate"));
        command.args(arguments).arg("-c").arg(config);
        command.stdin(std::process::Stdio::null()).output().unwrap()
    }

    /// What a command that succeeds prints.
    pub fn told(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Why one fails.
    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(!output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8(output.stderr).unwrap()
    }
}

#[test]
fn people_revoke_look_up_and_lift_by_command() {
    let signer = Signer::es256("k1");
    let commands = Commands::new("file: { path: revoked.json }", &signer);
    let token = Token::new();
    let file = commands.dir.path().join("token.txt");
    std::fs::write(&file, format!("Bearer {}\n", token.sign(&signer))).unwrap();
    let token_file = file.to_str().unwrap();

    let dry = commands.told(&["revoke", "--token-file", token_file, "--dry-run"]);
    assert!(dry.starts_with("would revoke, by the feed logout: the token with jti"), "{dry}");
    assert!(dry.ends_with("nothing was written\n"), "{dry}");
    assert!(!commands.dir.path().join("revoked.json").exists(), "a dry run writes nothing");

    commands.told(&["revoke", "--token-file", token_file, "--reason", "lost phone"]);
    let known = commands.told(&["revocations", "lookup", "--token-file", token_file]);
    assert!(known.contains(&token.text("jti")) && known.contains("reason: \"lost phone\""), "{known}");
    commands.told(&[
        "revoke",
        "--sub",
        "bob",
        "--issued-before",
        "now",
        "--expires",
        "24h",
        "--issuer",
        ISSUER,
    ]);
    let listed = commands.told(&["revocations", "list"]);
    assert_eq!(listed.lines().count(), 2, "{listed}");
    let exported = commands.told(&["revocations", "export"]);
    let entries: Vec<Value> = exported.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&entries[1]["sub"], &entries[1]["iss"]), (&json!("bob"), &json!(ISSUER)));
    let lifted = commands.told(&["revocations", "lift", "--sub", "bob", "--issuer", ISSUER]);
    assert_eq!(lifted, "lifted, by the feed logout: 1\n");
    assert!(!commands.run(&["revocations", "lookup", "--sub", "bob"]).status.success());

    for (arguments, why) in [
        (vec!["revoke", "--sub", "bob"], "--expires"),
        (
            vec!["revoke", "--sub", "bob", "--expires", "1h", "--issuer", "https://other/"],
            "does not revoke tokens of",
        ),
        (vec!["revoke", "--sub", "bob", "--sid", "s", "--expires", "1h"], "cannot be used with"),
        (vec!["revoke", "--sub", "bob", "--expires", "2020-01-01T00:00:00Z"], "nothing to revoke any more"),
        (vec!["revoke", "--sub", "bob", "--expires", "1h", "--feed", "none"], "there is no feed none"),
        (vec!["revocations", "lookup", "--token"], "this is no token"),
    ] {
        let told = commands.refused(&arguments);
        assert!(told.contains(why), "{arguments:?}: {told}");
    }
    let read_only = Commands::new("http: { url: \"http://127.0.0.1:9/\" }", &signer);
    assert!(
        read_only.refused(&["revoke", "--sub", "bob", "--expires", "1h"]).contains("write_authorization")
    );
}
