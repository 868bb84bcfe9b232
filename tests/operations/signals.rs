//! What makes a gateway reload: SIGHUP, a changed file, a request; and what becomes of a broken file.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::sync::Arc;

use serde_json::json;
use tempfile::TempDir;
use valgate::demo::api::SampleApi;

use crate::process::{Process, routes, write, yaml};
use crate::support::{Answer, Stub, eventually, get, send, write_certificates};

#[tokio::test]
async fn sighup_puts_the_file_in_force_or_says_what_is_wrong_with_it() {
    let api = SampleApi::start().await.unwrap();
    let still =
        |paths: &[&str]| yaml(&routes(api.address(), paths)).replace("interval: 100ms", "watch: false");
    let process = Process::start(&still(&["/orders/a"])).await;
    process.write("valgate.yaml", &still(&["/orders/a", "/orders/b"]).replace("workers: 2", "workers: 1"));
    process.reload().await;
    assert_eq!(get(process.plain(), "/orders/b", &[]).await.status, 200);
    let log = process.log();
    assert!(log.contains("routes[/orders/b] (added)") && log.contains("only after a restart"), "{log}");
    assert!(log.contains("fields=\"workers\"") || log.contains("fields=workers"), "{log}");

    process.write("valgate.yaml", "version: 1\nroutes: nonsense\n");
    process.signal("HUP");
    process.wait_for_line("the new configuration is not put in force").await;
    assert_eq!(get(process.plain(), "/orders/b", &[]).await.status, 200);
    assert_eq!(process.metric("valgate_config_failures_total").await, 1);
    assert_eq!(process.metric("valgate_config_generation").await, 2);
    let ready = get(process.health(), "/readyz", &[]).await;
    assert_eq!(ready.status, 200);
    assert!(ready.text().contains("the configuration file has mistakes"), "{}", ready.text());
}

#[tokio::test]
async fn who_has_not_heard_of_the_end_is_served_for_a_while() {
    let api = SampleApi::start().await.unwrap();
    let routes = routes(api.address(), &["/orders/a"]);
    let process = Process::start(&yaml(&format!("timeouts: {{ drain_delay: 10m }}\n{routes}"))).await;
    process.signal("TERM");
    eventually("not ready any more", || async { get(process.health(), "/readyz", &[]).await.status == 503 })
        .await;
    assert_eq!(get(process.plain(), "/orders/a", &[]).await.status, 200);
    assert_eq!(process.lines("draining"), 0);
}

#[tokio::test]
async fn a_changed_file_is_taken_up_and_a_swapped_directory_too() {
    let api = SampleApi::start().await.unwrap();
    let dir = Arc::new(TempDir::new().unwrap());
    // As Kubernetes mounts a volume: `tls.crt` -> `..data/tls.crt`, `..data` -> a directory of this version.
    let authorities = ["v1", "v2"].map(|version| {
        std::fs::create_dir(dir.path().join(version)).unwrap();
        write_certificates(&dir.path().join(version))
    });
    symlink("v1", dir.path().join("..data")).unwrap();
    for file in ["tls.crt", "tls.key"] {
        symlink(format!("..data/{file}"), dir.path().join(file)).unwrap();
    }
    let text = |paths: &[&str]| yaml(&routes(api.address(), paths));
    write(dir.path(), "valgate.yaml", &text(&["/orders/a"]));
    let process = Process::spawn(Arc::clone(&dir), |_| {});
    process.wait_for_line("answering probes").await;

    process.write("valgate.yaml", &text(&["/orders/a", "/orders/b"]));
    process.wait_for_lines("a new configuration is in force", 1).await;
    assert_eq!(get(process.plain(), "/orders/b", &[]).await.status, 200);

    symlink("v2", dir.path().join("..new")).unwrap();
    std::fs::rename(dir.path().join("..new"), dir.path().join("..data")).unwrap();
    process.wait_for_lines("a new configuration is in force", 2).await;
    let mut connection =
        crate::support::Connection::open_tls(process.tls(), "localhost", &authorities[1], b"http/1.1").await;
    connection.write("GET /orders/a HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(connection.reply().await.unwrap().status, 200);

    // A broken file is tried once, not again and again.
    process.write("valgate.yaml", "version: 7\n");
    process.wait_for_line("the new configuration is not put in force").await;
    process.write("valgate.yaml", &text(&["/orders/c"]));
    process.wait_for_lines("a new configuration is in force", 3).await;
    assert_eq!(process.lines("the new configuration is not put in force"), 1);
    assert_eq!(get(process.plain(), "/orders/c", &[]).await.status, 200);
}

#[tokio::test]
async fn a_secret_is_taken_up_when_its_file_alone_changes() {
    let (api, server) = (SampleApi::start().await.unwrap(), Stub::start().await);
    let nothing = json!({ "version": 1, "epoch": "e", "kind": "snapshot", "entries": [] });
    server.set("/revocations", Answer::json(&nothing));
    let dir = Arc::new(TempDir::new().unwrap());
    write_certificates(dir.path());
    write(dir.path(), "feed.secret", "Bearer the-first\n");
    let feed = format!(
        "feeds: [{{ name: logout, http: {{ url: '{}', interval: 100ms, authorization: 'file:feed.secret' }} }}]\n",
        server.url("/revocations")
    );
    write(dir.path(), "valgate.yaml", &yaml(&(feed + &routes(api.address(), &["/orders/a"]))));
    let process = Process::spawn(Arc::clone(&dir), |_| {});
    let shown = |secret: &str| server.asked("/revocations").iter().any(|asked| asked.head.contains(secret));
    eventually("the first secret is shown", || async { shown("Bearer the-first\r\n") }).await;
    assert!(!shown("the-second"));
    process.write("feed.secret", "Bearer the-second\n");
    eventually("the second secret is shown", || async { shown("Bearer the-second\r\n") }).await;
    process.wait_for_line("a new configuration is in force").await;
    let log = process.log();
    assert!(log.contains("feeds[0].http.authorization (content of"), "{log}");
    assert!(!log.contains("the-first") && !log.contains("the-second"), "{log}");
}

#[tokio::test]
async fn an_administrator_reloads_and_is_told_what_came_of_it() {
    let api = SampleApi::start().await.unwrap();
    let text = |paths: &[&str]| {
        yaml(&format!("admin: {{ address: '127.0.0.1:0' }}\n{}", routes(api.address(), paths)))
            .replace("interval: 100ms", "watch: false")
    };
    let process = Process::start(&text(&["/orders/a"])).await;
    process.wait_for_line("answering administrators").await;
    let admin = process.address("answering administrators", 0);
    let post = "POST /reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";
    process.write("valgate.yaml", &text(&["/orders/a", "/orders/b"]));
    let reply = send(admin, post).await;
    assert_eq!((reply.status, reply.json()["changes"][0].as_str()), (200, Some("routes[/orders/b] (added)")));
    process.write("valgate.yaml", "version: 1\n");
    let reply = send(admin, post).await;
    assert_eq!(reply.status, 409);
    assert!(reply.text().contains("listeners"), "{}", reply.text());
    assert_eq!(get(process.plain(), "/orders/b", &[]).await.status, 200);
    let status = get(admin, "/status", &[]).await.json();
    assert_eq!(status["config"]["generation"], 2);
    assert!(status["reasons"][0].as_str().unwrap().contains("mistakes"), "{status}");
}

#[tokio::test]
async fn a_restart_on_a_broken_file_runs_on_the_last_good_one_only_if_told() {
    let api = SampleApi::start().await.unwrap();
    let mut process = Process::start(&yaml(&routes(api.address(), &["/orders/a"]))).await;
    let copy = process.dir.path().join("state/last-good.yaml");
    assert_eq!(std::fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
    process.write("valgate.yaml", "version: 1\n");
    process.wait_for_line("the new configuration is not put in force").await;
    process.signal("TERM");
    process.exit().await;

    let mut refused = Process::spawn(Arc::clone(&process.dir), |_| {});
    assert_eq!(refused.exit().await.code(), Some(2));
    eventually("told", || async { refused.log().contains("--last-good") }).await;

    let again = Process::spawn(Arc::clone(&process.dir), |command| {
        command.arg("--last-good").arg(&copy);
    });
    again.wait_for_line("answering probes").await;
    assert!(again.log().contains("THE CONFIGURATION FILE HAS MISTAKES"), "{}", again.log());
    assert_eq!(get(again.plain(), "/orders/a", &[]).await.status, 200);
    assert_eq!(again.metric("valgate_config_last_good").await, 1);
    assert!(get(again.health(), "/readyz", &[]).await.text().contains("last good"));
    again.write("valgate.yaml", &yaml(&routes(api.address(), &["/orders/b"])));
    again.wait_for_line("a new configuration is in force").await;
    assert_eq!(again.metric("valgate_config_last_good").await, 0);
    assert_eq!(get(again.plain(), "/orders/b", &[]).await.status, 200);
}
