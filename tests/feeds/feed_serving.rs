//! `valgate feed serve` as it is run: with TLS and a token for readers, and with a log that makes room.

use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use valgate::clock::{Clock, UnixSeconds};
use valgate::feed_server::{FeedServer, Settings};
use valgate::revocation::{Revocation, RevocationEngine};

use crate::feed_server::{WRITE, engine, server};
use crate::fleet::{Node, REVOKED, Subject, yaml};
use crate::support::engines::Engine;
use crate::support::{Connection, Reply, Signer, eventually, get, now, write_certificates};

#[tokio::test]
async fn with_tls_and_a_token_for_readers_only_they_read() {
    let signer = Signer::es256("k1");
    let dir = TempDir::new().unwrap();
    let ca = write_certificates(dir.path());
    std::fs::write(dir.path().join("ca.crt"), &ca).unwrap();
    std::fs::write(dir.path().join("read.token"), "read-read-read-read\n").unwrap();
    let arguments = [
        "--tls-certificate",
        "$DIR/tls.crt",
        "--tls-key",
        "$DIR/tls.key",
        "--read-token-file",
        "$DIR/read.token",
    ];
    let server = Engine::feed_server_in(dir, "write-write-write-write", &arguments).await;
    eventually("it says where", || async {
        server.log().contains(&format!("serving the feed at https://{}/revocations", server.address()))
    })
    .await;
    let address = server.address().parse().unwrap();
    let send = async |request: String| -> Reply {
        let mut connection = Connection::open_tls(address, "localhost", &ca, b"http/1.1").await;
        connection.write(request).await;
        connection.reply().await.unwrap()
    };
    let read = async |authorization: &str| {
        let head = "GET /revocations HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n";
        send(format!("{head}{authorization}\r\n")).await
    };
    let write = async |authorization: &str, body: &str| {
        let head = "POST /revocations HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n";
        send(format!("{head}Content-Length: {}\r\n{authorization}\r\n{body}", body.len())).await
    };
    let (reader, writer) =
        ("Authorization: Bearer read-read-read-read\r\n", format!("Authorization: {WRITE}\r\n"));
    for stranger in ["", "Authorization: Bearer another\r\n", "Authorization: Basic read-read-read-read\r\n"]
    {
        let reply = read(stranger).await;
        assert_eq!(reply.status, 401, "{stranger}");
        assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
        assert!(reply.json().get("entries").is_none());
    }
    assert_eq!(read(reader).await.status, 200);
    let subject = Subject::new(&signer);
    let entry = valgate::feeds::revocation::revocation_line(&subject.revocation());
    let order = format!("{{\"entries\": [{entry}]}}");
    assert_eq!(write(reader, &order).await.status, 401, "who may read may not write");
    assert_eq!(read(reader).await.json()["entries"], json!([]));
    assert_eq!(write(&writer, &order).await.status, 200);
    assert_eq!(read(&writer).await.json()["entries"].as_array().unwrap().len(), 1, "a writer reads too");

    let feed = |scheme: &str, token: &str| {
        let ca = server.dir().join("ca.crt");
        format!(
            "http: {{ url: \"{scheme}://127.0.0.1:{}/revocations\", long_poll: 30s, interval: 100ms, ca: {}{token} }}",
            server.port,
            ca.display()
        )
    };
    let node =
        Node::start(yaml(&signer, &feed("https", ", authorization: \"Bearer read-read-read-read\""))).await;
    node.until(&subject.token, REVOKED, "revoked").await;
    for (scheme, token) in [
        ("https", ""),
        ("https", ", authorization: \"Bearer another\""),
        ("http", ", authorization: \"Bearer read-read-read-read\""),
    ] {
        let stranger = Node::start_unready(yaml(&signer, &feed(scheme, token))).await;
        eventually("it is refused", || async { stranger.count("failures").await > 0 }).await;
        assert_eq!(stranger.ask(&subject.token).await, "503 VAL-051 feed_not_loaded", "{scheme} {token}");
    }
}

#[test]
fn what_would_be_in_the_clear_or_is_no_secret_is_not_served() {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("write.token"), "write-write-write-write").unwrap();
    std::fs::write(dir.path().join("short.token"), "short").unwrap();
    let serve = |more: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_valgate"));
        command.current_dir(dir.path()).args(["feed", "serve", "--data", "data"]).args(more);
        let output = command.stdin(std::process::Stdio::null()).output().unwrap();
        assert!(!output.status.success(), "{more:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let write = ["--write-token-file", "write.token"];
    for (more, why) in [
        (vec!["--address", "0.0.0.0:0"], "give --tls-certificate and --tls-key"),
        (vec!["--tls-certificate", "tls.crt"], "--tls-key"),
        (vec!["--read-token-file", "short.token"], "shorter than 16 characters"),
        (vec!["--read-token-file", "nowhere"], "cannot read nowhere"),
        (vec!["--tls-certificate", "nowhere.crt", "--tls-key", "nowhere.key"], "nowhere."),
    ] {
        let told = serve(&[&write[..], &more].concat());
        assert!(told.contains(why), "{more:?}: {told}");
    }
    assert!(serve(&[]).contains("nobody could revoke"));
}

/// A log of which most is over is written anew, and who is behind its beginning reads all of what is in force.
#[tokio::test]
async fn a_log_of_which_most_is_over_is_written_anew_and_latecomers_read_all() {
    let signer = Signer::es256("k1");
    let data = TempDir::new().unwrap();
    let (clock, hand) = Clock::manual(UnixSeconds(now()));
    let start = async || {
        let settings = Settings {
            address: ([127, 0, 0, 1], 0).into(),
            data: data.path().to_owned(),
            write_authorization: http::HeaderValue::from_static(WRITE),
            read_authorization: None,
            tls: None,
            signer: None,
            max_entries: 10_000,
        };
        FeedServer::start(settings, clock.clone()).await.unwrap()
    };
    let server = start().await;
    let address = server.address();
    let lines = || std::fs::read_to_string(data.path().join("feed.log")).unwrap().lines().count();
    let read = async |query: &str| get(address, &format!("/revocations{query}"), &[]).await.json();
    let cursor = async || read("").await["cursor"].as_str().unwrap().to_owned();

    let [kept, lifted, last] = [(); 3].map(|()| Subject::new(&signer));
    let writer = engine(&server);
    writer.revoke(&[kept.revocation(), lifted.revocation()]).await.unwrap();
    let feed = format!("http: {{ url: \"http://{address}/revocations\", long_poll: 30s, interval: 100ms }}");
    let mut late = Node::start(yaml(&signer, &feed)).await;
    let current = Node::start(yaml(&signer, &feed)).await;
    for node in [&late, &current] {
        node.until(&lifted.token, REVOKED, "before").await;
    }
    late.stop().await;
    let (early, epoch) = (cursor().await, read("").await["epoch"].clone());
    let passing: Vec<Subject> = (0..600).map(|_| Subject::new(&signer)).collect();
    let revocations: Vec<_> = passing.iter().map(Subject::revocation).collect();
    let facts: Vec<_> = passing.iter().map(|subject| subject.fact.clone()).collect();
    writer.revoke(&revocations).await.unwrap();
    writer.lift(&facts).await.unwrap();
    writer.lift(std::slice::from_ref(&lifted.fact)).await.unwrap();
    assert!(lines() > 1200, "everything stands in it: {}", lines());
    assert_eq!(read(&format!("?cursor={early}")).await["kind"], "delta");

    current.until(&lifted.token, "200", "heard to the end").await;
    hand.advance(Duration::from_secs(61));
    let before = cursor().await;
    writer.revoke(&[last.revocation()]).await.unwrap();
    assert_eq!(lines(), 1 + 2, "a header, and what is in force");
    let answer = read(&format!("?cursor={early}")).await;
    let listed: Vec<&Value> = answer["entries"].as_array().unwrap().iter().collect();
    assert_eq!((&answer["kind"], listed.len(), &answer["epoch"]), (&json!("snapshot"), 2, &epoch));
    // Who had heard everything is told what is new, and no more.
    let answer = read(&format!("?cursor={before}")).await;
    assert_eq!((&answer["kind"], answer["entries"].as_array().unwrap().len()), (&json!("delta"), 1));

    current.until(&last.token, REVOKED, "what is new").await;
    assert_eq!(current.ask(&lifted.token).await, "200");
    assert_eq!(current.count("snapshots").await, 1, "it never was behind");
    late.restart().await;
    late.until(&last.token, REVOKED, "a latecomer").await;
    assert_eq!(late.ask(&lifted.token).await, "200", "lifted while it was away, of which no line is left");
    assert_eq!(late.ask(&kept.token).await, REVOKED);
    late.until_count("snapshots", 1).await;

    // The log that was written anew is as good as the old one.
    let newest = cursor().await;
    server.stop().await;
    let server = start().await;
    let answer = get(server.address(), &format!("/revocations?cursor={newest}&wait=0"), &[]).await.json();
    assert_eq!((&answer["epoch"], &answer["cursor"]), (&epoch, &json!(newest)));
    assert_eq!(lines(), 1 + 2);
}

/// How long revocations take shows, by their own word of when they were made.
#[tokio::test]
async fn how_long_a_revocation_took_is_measured() {
    let signer = Signer::es256("k1");
    let data = TempDir::new().unwrap();
    let server = server(data.path(), None, None).await;
    let address = server.address();
    let feed = format!("http: {{ url: \"http://{address}/revocations\", long_poll: 30s, interval: 100ms }}");
    let [early, late, ahead, fresh] = [(); 4].map(|()| Subject::new(&signer));
    let at = |subject: &Subject, at: i64| Revocation {
        revoked_at: Some(UnixSeconds(now() + at)),
        ..subject.revocation()
    };
    engine(&server).revoke(&[at(&early, -100)]).await.unwrap();
    let node = Node::start(yaml(&signer, &feed)).await;
    node.until(&early.token, REVOKED, "the list at the start").await;
    assert_eq!(node.lagged("+Inf").await, 0, "when it came is not known");

    engine(&server).revoke(&[at(&late, -100)]).await.unwrap();
    node.until(&late.token, REVOKED, "late").await;
    eventually("counted", || async { node.lagged("+Inf").await == 1 }).await;
    assert_eq!((node.lagged("60.0").await, node.lagged("300.0").await), (0, 1));
    engine(&server).revoke(&[at(&ahead, 50)]).await.unwrap();
    node.until(&ahead.token, REVOKED, "by a clock that is ahead").await;
    eventually("counted", || async { node.lagged("+Inf").await == 2 }).await;
    assert_eq!(node.lagged("1.0").await, 1);

    // What is lifted, and what is known already, is no revocation that came into force.
    engine(&server).lift(std::slice::from_ref(&late.fact)).await.unwrap();
    engine(&server).revoke(&[at(&fresh, 0)]).await.unwrap();
    node.until(&fresh.token, REVOKED, "after the lift").await;
    eventually("counted", || async { node.lagged("+Inf").await == 3 }).await;
}
