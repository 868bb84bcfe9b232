//! A new process takes over by SIGUSR2: what goes on, and what happens when it cannot.

use serde_json::json;
use valgate::demo::api::SampleApi;

use crate::process::{Process, routes, yaml};
use crate::recorder::{OK, Recorder};
use crate::support::{Connection, ISSUER, Signer, Token, eventually, get, now, verdict};

const SECRET: &str = "Bearer s3cret-s3cret-s3cret";

#[tokio::test]
async fn the_new_process_has_the_sockets_and_the_old_one_ends_what_it_began() {
    let (go, gate) = tokio::sync::watch::channel(false);
    let backend = Recorder::scripted(move |mut conn| {
        let mut gate = gate.clone();
        async move {
            conn.request().await;
            gate.wait_for(|open| *open).await.unwrap();
            conn.send(OK).await;
        }
    })
    .await;
    let api = SampleApi::start().await.unwrap();
    let slow = format!(
        "upstreams: [{{ name: slow, endpoints: ['{}'] }}, {{ name: api, endpoints: ['http://{}'] }}]
routes:
  - {{ match: {{ path: /slow }}, public: true, upstream: slow }}
  - {{ match: {{ path: /orders/a }}, public: true, upstream: api }}
",
        backend.url(),
        api.address()
    );
    let mut process = Process::start(&yaml(&slow)).await;
    let (plain, old) = (process.plain(), process.id());
    let mut in_flight = crate::support::Connection::open(plain).await;
    in_flight.write("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await;
    backend.wait_for("the request", |request| request.target() == "/slow").await;

    // More cores than sockets were handed over, and another configuration.
    let changed = yaml(&routes(api.address(), &["/orders/b"])).replace("workers: 2", "workers: 3");
    process.write("valgate.yaml", &changed);
    process.hand_over().await;
    assert_ne!(process.id(), old);
    process.wait_for_lines(" listening", 4).await;
    assert_eq!(process.address(" listening", 2), plain, "the same sockets");
    for _ in 0..20 {
        assert_eq!(get(plain, "/orders/b", &[]).await.status, 200);
    }
    eventually("probes of the new process alone", || async {
        get(process.health(), "/readyz", &[]).await.status == 200
    })
    .await;
    assert_eq!(process.child.try_wait().unwrap(), None, "the old process waits for what is in flight");
    go.send_replace(true);
    let reply = in_flight.reply().await.unwrap();
    assert_eq!((reply.status, reply.header("connection")), (200, Some("close")));
    assert!(process.exit().await.success());

    // And once more, with fewer cores than sockets.
    process.write("valgate.yaml", &changed.replace("workers: 3", "workers: 1"));
    process.hand_over().await;
    process.wait_for_lines(" stopped", 2).await;
    for _ in 0..20 {
        assert_eq!(
            get(plain, "/orders/b", &[]).await.status,
            200,
            "a connection waits in a socket that nobody serves"
        );
    }
}

#[tokio::test]
async fn what_the_old_process_is_told_while_it_ends_holds_at_the_new_one() {
    let (signer, api) = (Signer::es256("k1"), SampleApi::start().await.unwrap());
    let mut process = Process::start(&yaml(&format!(
        "issuers:
  - name: main
    issuer: {ISSUER}
    keys: {{ inline: {} }}
    audiences: [orders-api]
    revocation: {{ feeds: [told], max_staleness: 10m, when_stale: reject }}
feeds:
  - name: told
    set_push: {{ signed_by: main, audiences: [gateway], authorization: \"{SECRET}\" }}
upstreams: [{{ name: api, endpoints: ['http://{}'] }}]
routes:
  - {{ match: {{ path: /orders/** }}, require: {{ issuers: [main] }}, upstream: api }}
  - {{ match: {{ path: /told }}, receives: told }}
",
        signer.jwks(),
        api.address()
    )))
    .await;
    let [alice, bob] = ["alice", "bob"].map(|sub| Token::new().claim("sub", sub).sign(&signer));
    let plain = process.plain();
    let ask = async |token: &str| {
        verdict(&get(plain, "/orders/1", &[("Authorization", &format!("Bearer {token}"))]).await)
    };
    let mut kept = Connection::open(plain).await;
    kept.write(format!("GET /orders/1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {alice}\r\n\r\n")).await;
    assert_eq!(kept.reply().await.unwrap().status, 200);

    // Begun before another process serves, and ended after.
    let event = revokes("alice").sign(&signer);
    let (begin, end) = event.split_at(event.len() / 2);
    let length = event.len();
    kept.write(format!(
        "POST /told HTTP/1.1\r\nHost: x\r\nContent-Type: application/secevent+jwt\r\nAuthorization: {SECRET}\r\n\
         Content-Length: {length}\r\n\r\n{begin}"
    ))
    .await;
    process.hand_over().await;
    assert_eq!([ask(&alice).await, ask(&bob).await], ["200", "200"]);
    kept.write(end).await;
    let receipt = kept.reply().await.unwrap();
    assert_eq!((receipt.status, receipt.header("connection")), (202, Some("close")), "by the old process");
    eventually("revoked at the new process", || async { ask(&alice).await == "401 VAL-020 revoked" }).await;
    assert_eq!(ask(&bob).await, "200");
    assert!(process.exit().await.success());
}

/// A security event that ends the sessions of this subject.
fn revokes(sub: &str) -> Token {
    let kind = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";
    let token = Token::new()
        .header("typ", "secevent+jwt")
        .claim("aud", "gateway")
        .claim("iat", now())
        .claim("sub_id", json!({ "format": "opaque", "id": sub }))
        .claim("events", json!({ kind: { "event_timestamp": now() } }));
    ["sub", "exp", "scope", "client_id"].into_iter().fold(token, Token::without)
}

#[tokio::test]
async fn a_process_that_cannot_take_over_leaves_the_old_one_serving() {
    let api = SampleApi::start().await.unwrap();
    let good = yaml(&routes(api.address(), &["/orders/a"])).replace("interval: 100ms", "watch: false");
    let mut process = Process::start(&good).await;
    process.write("valgate.yaml", "version: 1\n");
    process.signal("USR2");
    process.wait_for_line("this process is not replaced and serves on").await;
    assert_eq!(get(process.plain(), "/orders/a", &[]).await.status, 200);
    assert_eq!(get(process.health(), "/readyz", &[]).await.status, 200);
    assert!(
        process.log().contains("`listeners` is missing"),
        "what is wrong with the file is told: {}",
        process.log()
    );

    process.write("valgate.yaml", &good);
    process.hand_over().await;
    assert!(process.exit().await.success());
    assert_eq!(get(process.plain(), "/orders/a", &[]).await.status, 200);
}
