//! A gateway whose copy of a feed takes long to read answers what it can meanwhile, and lets nobody in whom the copy may
//! revoke. The copy is a pipe here, which is read for as long as the test likes.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use serde_json::json;
use tempfile::TempDir;
use valgate::demo::api::SampleApi;

use crate::process::{Process, yaml};
use crate::support::{ISSUER, Signer, Token, eventually, get, verdict};

const NOT_LOADED: &str = "503 VAL-051 feed_not_loaded";
const REVOKED: &str = "401 VAL-020 revoked";

#[tokio::test]
async fn probes_and_public_routes_are_answered_while_a_copy_is_read() {
    let (signer, api) = (Signer::es256("k1"), SampleApi::start().await.unwrap());
    // Not even who accepts tokens while a feed is silent accepts those that the gateway itself knows to be revoked.
    let text = yaml(&format!(
        "issuers:
  - name: main
    issuer: {ISSUER}
    keys: {{ inline: {} }}
    audiences: [orders-api]
    revocation: {{ feeds: [logout], max_staleness: 10m, when_stale: accept }}
feeds:
  - {{ name: logout, file: {{ path: revoked.json, interval: 100ms }} }}
upstreams: [{{ name: api, endpoints: ['http://{}'] }}]
routes:
  - {{ match: {{ path: /orders/** }}, require: {{ issuers: [main] }}, upstream: api }}
  - {{ match: {{ path: /open }}, public: true, upstream: api }}
",
        signer.jwks(),
        api.address()
    ));
    let [alice, bob] = ["alice", "bob"].map(|sub| Token::new().claim("sub", sub).sign(&signer));
    let dir = Arc::new(TempDir::new().unwrap());
    crate::support::write_certificates(dir.path());
    std::fs::write(dir.path().join("valgate.yaml"), text).unwrap();
    let list = json!({ "version": 1, "kind": "snapshot", "epoch": "1", "entries": [{ "sub": "alice" }] });
    std::fs::write(dir.path().join("revoked.json"), list.to_string()).unwrap();

    let mut process = Process::spawn(Arc::clone(&dir), |_| {});
    process.wait_for_line("answering probes").await;
    eventually("revoked", || async { ask(&process, &alice).await == REVOKED }).await;
    eventually("kept", || async { copy(&dir).is_some() }).await;
    process.child.kill().unwrap();
    process.child.wait().unwrap();

    // It comes up alone: its source is gone.
    std::fs::remove_file(dir.path().join("revoked.json")).unwrap();
    let place = copy(&dir).unwrap();
    let kept = std::fs::read(&place).unwrap();
    std::fs::remove_file(&place).unwrap();
    assert!(Command::new("mkfifo").arg(&place).status().unwrap().success());
    let mut stuck = Process::spawn(Arc::clone(&dir), |_| {});
    stuck.wait_for_line("answering probes").await;
    stuck.signal("TERM");
    assert!(stuck.exit().await.success(), "a disk that hangs does not keep it from its end");

    let process = Process::spawn(Arc::clone(&dir), |_| {});
    process.wait_for_line("answering probes").await;
    for _ in 0..3 {
        assert_eq!(get(process.health(), "/livez", &[]).await.status, 200);
        let ready = get(process.health(), "/readyz", &[]).await;
        assert_eq!(ready.status, 503, "{}", ready.text());
        assert!(ready.text().contains("feed logout"), "{}", ready.text());
        assert_ne!(get(process.plain(), "/open", &[]).await.status, 503, "public");
        assert_eq!([ask(&process, &alice).await, ask(&process, &bob).await], [NOT_LOADED, NOT_LOADED]);
    }
    tokio::task::spawn_blocking(move || std::fs::write(place, kept)).await.unwrap().unwrap();
    eventually("read at last", || async { ask(&process, &bob).await == "200" }).await;
    assert_eq!(ask(&process, &alice).await, REVOKED);
    eventually("ready", || async { get(process.health(), "/readyz", &[]).await.status == 200 }).await;
}

async fn ask(process: &Process, token: &str) -> String {
    let bearer = format!("Bearer {token}");
    verdict(&get(process.plain(), "/orders/1", &[("Authorization", &bearer)]).await)
}

/// Where the feed is kept, once it is.
fn copy(dir: &TempDir) -> Option<PathBuf> {
    let files = std::fs::read_dir(dir.path().join("state")).into_iter().flatten();
    let mut paths = files.map(|file| file.unwrap().path());
    paths.find(|path| path.extension().is_some_and(|end| end == "snapshot"))
}
