//! A name of an API that changes its addresses while there is traffic, as the system's own resolver tells it: the
//! gateway runs where `/etc/hosts` is a file of the test.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;

use crate::process::Process;
use crate::recorder::{OK, PATIENCE, Recorder};
use crate::setup::{write_certificates, yaml};
use crate::wire::Wire;

async fn api(address: Ipv4Addr, port: u16) -> Recorder {
    Recorder::scripted_at(SocketAddr::from((address, port)), |mut conn| async move {
        while conn.request().await.is_some() {
            conn.send(OK).await;
        }
    })
    .await
}

/// In place, since what is mounted is the file and not its name.
fn write_hosts(dir: &Path, addresses: &[&str]) {
    let mut file =
        std::fs::File::options().write(true).create(true).truncate(true).open(dir.join("hosts")).unwrap();
    let lines: String = addresses.iter().map(|address| format!("{address} api.test\n")).collect();
    file.write_all(lines.as_bytes()).unwrap();
}

/// A command in a place where the name has these addresses, and no other resolver is asked. `None` where the system lets
/// nobody make such a place.
fn with_hosts(dir: &Path, command: &[&str]) -> Option<Command> {
    std::fs::write(dir.join("resolv.conf"), "nameserver 127.0.0.1\noptions attempts:1 timeout:1\n").unwrap();
    let script = "mount --bind \"$0/hosts\" /etc/hosts && mount --bind \"$0/resolv.conf\" /etc/resolv.conf && exec \"$@\"";
    let within = |command: &[&str]| {
        let mut unshare = Command::new("unshare");
        unshare.args(["--map-root-user", "--mount", "sh", "-c", script]).arg(dir).args(command);
        unshare.stdout(Stdio::null()).stderr(Stdio::null());
        unshare
    };
    let is_possible = within(&["true"]).status().is_ok_and(|status| status.success());
    is_possible.then(|| within(command))
}

/// Asks until the answer is yes.
async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let asking = async {
        while !is() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, asking).await.is_ok(), "never: {what}");
}

/// Waits until all requests for a while go to the one and none to the other.
async fn until_all_go_to(one: &Recorder, other: &Recorder) {
    let settling = async {
        loop {
            one.forget();
            other.forget();
            until("more requests", || one.requests().len() + other.requests().len() >= 100).await;
            if other.requests().is_empty() {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, settling).await.expect("the traffic moves");
}

#[tokio::test]
async fn traffic_follows_a_name_to_its_addresses_and_no_request_fails() {
    let first = api(Ipv4Addr::LOCALHOST, 0).await;
    let port = first.address().port();
    let second = api(Ipv4Addr::new(127, 0, 0, 2), port).await;
    let dir = tempfile::tempdir().unwrap();
    write_certificates(dir.path());
    write_hosts(dir.path(), &["127.0.0.1"]);
    let text = yaml(&format!(
        "upstreams: [{{ name: api, endpoints: ['http://api.test:{port}'], resolve_interval: 1s, retries: {{ attempts: 0 }} }}]
routes: [{{ match: {{ path: '/**' }}, public: true, upstream: api }}]
log: {{ format: text }}
"
    ));
    let file = dir.path().join("valgate.yaml");
    std::fs::write(&file, text).unwrap();
    let command = [env!("CARGO_BIN_EXE_valgate"), "run", "-c", file.to_str().unwrap()];
    let Some(command) = with_hosts(dir.path(), &command) else {
        eprintln!("left out: this system lets nobody have an /etc/hosts of their own (unshare --mount)");
        return;
    };
    let hosts = dir.path().to_owned();
    let gateway = Process::spawn(command, dir);

    let is_over = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    for _ in 0..4 {
        let (is_over, address) = (Arc::clone(&is_over), gateway.plain);
        clients.spawn(async move {
            let mut wire = Wire::plain(address).await;
            let mut answered = 0_u32;
            while !is_over.load(Ordering::Relaxed) {
                wire.send("GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
                let answer = wire.answer().await.expect("an answer");
                assert_eq!(answer.status, 200, "after {answered}: {answer:?}");
                answered += 1;
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            answered
        });
    }
    until("the first address is used", || first.requests().len() > 100).await;
    second.assert_untouched("an address that the name does not have");

    write_hosts(&hosts, &["127.0.0.2"]);
    until_all_go_to(&second, &first).await;
    write_hosts(&hosts, &["127.0.0.1", "127.0.0.2"]);
    first.forget();
    until("both addresses are used", || first.requests().len() > 100).await;
    second.forget();
    until("both addresses are used", || second.requests().len() > 100).await;
    write_hosts(&hosts, &["127.0.0.1"]);
    until_all_go_to(&first, &second).await;

    // A name that is gone takes nothing away.
    write_hosts(&hosts, &[]);
    until("the resolver is found failing", || gateway.has_said("name cannot be resolved")).await;
    until_all_go_to(&first, &second).await;
    write_hosts(&hosts, &["127.0.0.2"]);
    until_all_go_to(&second, &first).await;
    assert!(gateway.has_said("names can be resolved again"));

    is_over.store(true, Ordering::Relaxed);
    let answered: u32 = clients.join_all().await.into_iter().sum();
    println!("{answered} requests, none of them failed");
}
