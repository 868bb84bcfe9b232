//! What a feed was told lies on a disk that hangs when the gateway comes up again. The copy is a pipe here, open at both
//! ends: whoever reads it waits for what the test writes.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::process::Command;

use serde_json::json;

use crate::events::{CAEP, ask, event, push, start, tell, yaml};
use crate::fleet::REVOKED;
use crate::support::{Signer, TestGateway, Token, eventually};

const NOT_LOADED: &str = "503 VAL-051 feed_not_loaded";

#[tokio::test]
async fn a_gateway_starts_and_lets_nobody_in_before_it_knows_what_it_was_told() {
    let signer = Signer::es256("k1");
    let [alice, bob, carol] =
        ["alice", "bob", "carol"].map(|sub| Token::new().claim("sub", sub).sign(&signer));
    let revokes = |sub: &str| {
        event(&format!("{CAEP}session-revoked"), json!({ "format": "opaque", "id": sub })).sign(&signer)
    };
    let gateway = start(&signer, &push("")).await;
    assert_eq!(tell(&gateway, &revokes("alice")).await.status, 202);
    let dir = gateway.dir();
    gateway.stop().await;
    let kept_as =
        |path: &std::path::Path| path.file_name().unwrap().to_str().unwrap().starts_with("revocation-told-");
    let mut copies: Vec<_> = std::fs::read_dir(dir.path().join("state"))
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| kept_as(path) && path.extension().unwrap() == "snapshot")
        .collect();
    let (path, none) = (copies.pop().unwrap(), copies.pop());
    assert_eq!(none, None);
    let kept = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    let mut disk = OpenOptions::new().read(true).write(true).open(&path).unwrap();

    // Not even who accepts tokens while a feed is silent accepts those that the gateway itself knows to be revoked.
    let yaml = yaml(&signer, &push(""), true).replace("when_stale: reject", "when_stale: accept");
    let mut gateway = TestGateway::start_in(dir, &yaml).await;
    assert_eq!([ask(&gateway, &alice).await, ask(&gateway, &bob).await], [NOT_LOADED, NOT_LOADED]);
    // Another configuration is no worse off by that, and no better.
    gateway.reload(&yaml.replace("leeway: 0s", "leeway: 1s")).await.unwrap();
    assert_eq!([ask(&gateway, &alice).await, ask(&gateway, &bob).await], [NOT_LOADED, NOT_LOADED]);
    let told = revokes("carol");
    // Whoever reads has it open; what is written from now on goes to a file.
    let whole = path.with_extension("whole");
    std::fs::write(&whole, &kept).unwrap();
    std::fs::rename(whole, &path).unwrap();
    let release = async {
        disk.write_all(&kept).unwrap();
        drop(disk);
    };
    let (receipt, ()) = tokio::join!(tell(&gateway, &told), release);
    assert_eq!(receipt.status, 202, "what comes meanwhile waits");
    eventually("read at last", || async { ask(&gateway, &bob).await == "200" }).await;
    assert_eq!([ask(&gateway, &alice).await, ask(&gateway, &carol).await], [REVOKED, REVOKED]);
    gateway.wait_until_ready().await;
}
