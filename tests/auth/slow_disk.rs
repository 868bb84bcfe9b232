//! Status lists whose copy lies on a disk that hangs. The copy is a pipe here, open at both ends: whoever reads it waits
//! for what the test writes.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::status_list::{NOT_LOADED, REVOKED, ask, publish, referring, strict, yaml};
use crate::support::{Answer, Signer, Stub, TestGateway, eventually};

fn copy(dir: &Path) -> Option<PathBuf> {
    let files = std::fs::read_dir(dir.join("state")).into_iter().flatten();
    let mut paths = files.map(|file| file.unwrap().path());
    paths.find(|path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with("status-list-") && path.extension().is_some_and(|end| end == "json")
    })
}

fn hang(path: &Path) -> File {
    std::fs::remove_file(path).unwrap();
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    OpenOptions::new().read(true).write(true).open(path).unwrap()
}

#[tokio::test]
async fn a_list_is_fetched_and_refreshed_although_its_copy_hangs() {
    let (signer, stub) = (Signer::es256("k1"), Stub::start().await);
    publish(&stub, "/lists/1", &signer, 1, &[0b10]);
    let yaml = format!("state_dir: $DIR/state\n{}", yaml(&signer, &stub, "", strict()));
    let [valid, revoked] = [0, 1].map(|index| referring(&stub.url("/lists/1"), index).sign(&signer));
    let gateway = TestGateway::start(&yaml).await;
    assert_eq!(ask(&gateway, &valid).await, "200");
    let dir = gateway.dir();
    eventually("stored", || async { copy(dir.path()).is_some() }).await;
    gateway.stop().await;
    let path = copy(dir.path()).unwrap();
    let kept = std::fs::read(&path).unwrap();

    let disk = hang(&path);
    let restarted = TestGateway::start_in(dir.clone(), &yaml).await;
    assert_eq!([ask(&restarted, &valid).await, ask(&restarted, &revoked).await], ["200", REVOKED]);
    publish(&stub, "/lists/1", &signer, 1, &[0b11]);
    eventually("refreshed", || async { ask(&restarted, &valid).await == REVOKED }).await;
    drop(disk);
    restarted.stop().await;

    let mut disk = hang(&path);
    stub.set("/lists/1", Answer::error(500));
    // What is being read may say that it was revoked, whatever else becomes of tokens of which nothing is known.
    let lenient = yaml.replace("when_stale: reject", "when_stale: accept");
    assert_ne!(lenient, yaml);
    let restarted = TestGateway::start_in(dir.clone(), &lenient).await;
    assert_eq!(ask(&restarted, &revoked).await, NOT_LOADED);
    disk.write_all(&kept).unwrap();
    drop(disk);
    eventually("read at last", || async { ask(&restarted, &revoked).await == REVOKED }).await;
    assert_eq!(ask(&restarted, &valid).await, "200");
}

#[tokio::test]
async fn a_copy_waits_for_the_keys_that_prove_it() {
    let (signer, stub) = (Signer::es256("k1"), Stub::start().await);
    publish(&stub, "/lists/1", &signer, 1, &[0b10]);
    let keys = || Answer::json(&signer.jwks());
    stub.set("/keys", keys());
    let list = format!(", keys: {{ jwks_url: \"{}\", cooldown: 1s }}", stub.url("/keys"));
    let yaml = format!("state_dir: $DIR/state\n{}", yaml(&signer, &stub, &list, strict()));
    let revoked = referring(&stub.url("/lists/1"), 1).sign(&signer);
    let gateway = TestGateway::start(&yaml).await;
    eventually("revoked", || async { ask(&gateway, &revoked).await == REVOKED }).await;
    let dir = gateway.dir();
    eventually("stored", || async { copy(dir.path()).is_some() }).await;
    gateway.stop().await;
    for file in std::fs::read_dir(dir.path().join("state")).unwrap() {
        let path = file.unwrap().path();
        if path.file_name().unwrap().to_str().unwrap().starts_with("keys-") {
            std::fs::remove_file(path).unwrap();
        }
    }

    stub.set("/keys", Answer::error(500));
    stub.set("/lists/1", Answer::error(500));
    let restarted = TestGateway::start_in(dir.clone(), &yaml).await;
    assert_eq!(ask(&restarted, &revoked).await, NOT_LOADED);
    stub.set("/keys", keys());
    eventually("proved at last", || async { ask(&restarted, &revoked).await == REVOKED }).await;
}
