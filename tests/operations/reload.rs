//! Reloads within one process: what changes, what goes on, what is refused.

use serde_json::json;
use tokio::net::TcpStream;

use crate::recorder::{OK, Recorder};
use crate::support::{
    Answer, Connection, Signer, Stub, TestGateway, Token, eventually, get, refused, verdict,
};

const OPEN: &str = "routes: [{ match: { path: /orders/a }, public: true, upstream: api }]\n";
const OTHER: &str = "routes: [{ match: { path: /orders/b }, public: true, upstream: api }]\n";

/// The beginning of a stream that goes on.
const EVENTS: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nfirst\n\r\n";

async fn ask(connection: &mut Connection, path: &str) -> u16 {
    connection.write(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
    connection.reply().await.map_or(0, |reply| reply.status)
}

/// One issuer whose keys are at this URL, trusted under `/orders/a`; with more fields of it.
fn secured(keys: &str, more: &str) -> String {
    format!(
        "issuers:
  - {{ name: main, issuer: 'https://id.example.com/', keys: {{ jwks_url: '{keys}' }}, {more} }}
routes: [{{ match: {{ path: /orders/a }}, require: {{ issuers: [main] }}, upstream: api }}]
"
    )
}

#[tokio::test]
async fn an_open_connection_is_served_by_the_new_routes() {
    let mut gateway = TestGateway::start(OPEN).await;
    let mut connection = gateway.connect().await;
    assert_eq!(ask(&mut connection, "/orders/a").await, 200);
    let changes = gateway.reload(OTHER).await.unwrap();
    assert_eq!(changes, ["routes[/orders/a] (removed)", "routes[/orders/b] (added)"]);
    assert_eq!(ask(&mut connection, "/orders/a").await, 404);
    assert_eq!(ask(&mut connection, "/orders/b").await, 200);
    assert_eq!(gateway.metric("valgate_config_generation").await, 2);
    assert_eq!(gateway.received("/orders/a").len(), 1);
}

#[tokio::test]
async fn a_request_in_flight_ends_on_what_it_began_with() {
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
    let upstream = format!("upstreams: [{{ name: slow, endpoints: ['{}'] }}]\n", backend.url());
    let routes = "routes: [{ match: { path: /slow }, public: true, upstream: slow }]\n";
    let mut gateway = TestGateway::start(&format!("{upstream}{routes}")).await;
    let mut connection = gateway.connect().await;
    connection.write("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await;
    backend.wait_for("the request", |request| request.target() == "/slow").await;
    gateway.reload(OTHER).await.unwrap();
    go.send_replace(true);
    assert_eq!(connection.reply().await.unwrap().status, 200);
    assert_eq!(ask(&mut connection, "/slow").await, 404);
    let log = gateway.stop().await;
    assert_eq!(log[0]["upstream"], "slow", "counted and logged as it began: {log:?}");
}

#[tokio::test]
async fn what_cannot_be_put_in_force_changes_nothing() {
    let mut gateway = TestGateway::start(OPEN).await;
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let in_use = format!(
        "listeners: [{{ address: '127.0.0.1:0', plaintext: true }}, {{ address: '{}', plaintext: true }}]\n{OTHER}",
        taken.local_addr().unwrap()
    );
    let certificate = "listeners: [{ address: '127.0.0.1:0', tls: { certificates: [{ certificate: $DIR/tls.key, \
                       private_key: $DIR/tls.key }] } }]\n";
    let keys = OTHER.to_owned()
        + "issuers: [{ name: main, issuer: 'https://id.example.com/', audiences: [x], keys: { inline: { keys: \
           [{ kty: x }] } } }]\n";
    for (wrong, why) in
        [(in_use, "in use"), (format!("{certificate}{OTHER}"), "tls.key"), (keys, "issuer main")]
    {
        let error = gateway.reload(&wrong).await.unwrap_err();
        assert!(error.contains(why), "{error}");
        assert_eq!(get(gateway.plain, "/orders/a", &[]).await.status, 200, "{why}");
        assert_eq!(get(gateway.plain, "/orders/b", &[]).await.status, 404, "{why}");
    }
    assert_eq!(gateway.metric("valgate_config_generation").await, 1);
    assert_eq!(gateway.metric("valgate_config_failures_total").await, 3);
    assert_eq!(gateway.metric("valgate_config_last_reload_successful").await, 0);
    let ready = get(gateway.health, "/readyz", &[]).await;
    assert_eq!(ready.status, 200, "the old configuration is as good as ever");
    assert!(ready.json()["configuration"].as_str().unwrap().contains("the one before stays"));

    gateway.reload(OTHER).await.unwrap();
    assert_eq!(gateway.metric("valgate_config_last_reload_successful").await, 1);
    assert_eq!(get(gateway.health, "/readyz", &[]).await.json().get("configuration"), None);
}

#[tokio::test]
async fn sources_that_stay_the_same_are_not_asked_again() {
    let (provider, signer) = (Stub::start().await, Signer::es256("k1"));
    provider.set("/jwks", Answer::json(&signer.jwks()));
    let keys = provider.url("/jwks");
    let mut gateway = TestGateway::start(&secured(&keys, "audiences: [orders-api]")).await;
    let token = Token::new().sign(&signer);
    assert_eq!(gateway.get("/orders/a", &token, &[]).await.status, 200);
    for scope in ["x", "y", "z"] {
        let more = format!("audiences: [orders-api], required_claims: [sub], leeway: {}s", scope.len());
        let yaml =
            secured(&keys, &more) + &format!("error_detail: {}\n", ["full", "code_only"][scope.len() % 2]);
        gateway.reload(&yaml).await.unwrap();
        assert_eq!(gateway.get("/orders/a", &token, &[]).await.status, 200);
    }
    assert_eq!(provider.hits("/jwks"), 1);
}

#[tokio::test]
async fn verdicts_on_tokens_of_a_changed_issuer_are_forgotten() {
    let (provider, signer) = (Stub::start().await, Signer::es256("k1"));
    provider.set("/jwks", Answer::json(&signer.jwks()));
    let keys = provider.url("/jwks");
    let mut gateway = TestGateway::start(&secured(&keys, "audiences: [orders-api]")).await;
    let token = Token::new().sign(&signer);
    assert_eq!(gateway.get("/orders/a", &token, &[]).await.status, 200);
    gateway.reload(&secured(&keys, "audiences: [another-api]")).await.unwrap();
    let reply = gateway.get("/orders/a", &token, &[]).await;
    refused(&reply, "VAL-020", "audience_mismatch");
    assert_eq!(gateway.received("/orders/a").len(), 1);
    gateway.reload(&secured(&keys, "audiences: [orders-api]")).await.unwrap();
    assert_eq!(gateway.get("/orders/a", &token, &[]).await.status, 200);
}

#[tokio::test]
async fn a_wrong_url_does_not_take_the_place_of_keys_that_work() {
    let (provider, signer) = (Stub::start().await, Signer::es256("k1"));
    provider.set("/jwks", Answer::json(&signer.jwks()));
    let good = secured(&provider.url("/jwks"), "audiences: [orders-api]");
    let mut gateway = TestGateway::start(&good).await;
    let token = Token::new().sign(&signer);
    let error =
        gateway.reload(&secured(&provider.url("/typo"), "audiences: [orders-api]")).await.unwrap_err();
    assert!(error.contains("keys of main cannot be loaded") && error.contains("404"), "{error}");
    assert_eq!(gateway.get("/orders/a", &token, &[]).await.status, 200);
    // The old task goes on, and its metrics are still its own.
    assert_eq!(gateway.metric("valgate_keys{issuer=\"main\"}").await, 1);
    provider.set("/moved", Answer::json(&signer.jwks()));
    gateway.reload(&secured(&provider.url("/moved"), "audiences: [orders-api]")).await.unwrap();
    assert_eq!(gateway.get("/orders/a", &token, &[]).await.status, 200);
}

#[tokio::test]
async fn revocations_hold_when_issuers_change_places_and_for_streams_that_are_open() {
    let (one, two) = (Signer::es256("k1"), Signer::es256("k2"));
    let dir = std::sync::Arc::new(tempfile::TempDir::new().unwrap());
    let write = |entries: serde_json::Value, epoch: &str| {
        let document = json!({ "version": 1, "epoch": epoch, "kind": "snapshot", "entries": entries });
        std::fs::write(dir.path().join("feed.new"), document.to_string()).unwrap();
        std::fs::rename(dir.path().join("feed.new"), dir.path().join("feed.json")).unwrap();
    };
    write(json!([]), "1");
    let backend = Recorder::scripted(|mut conn| async move {
        conn.request().await;
        conn.send(EVENTS).await;
        conn.until_closed().await;
    })
    .await;
    let issuer = |name: &str, url: &str, signer: &Signer, more: &str| {
        let keys = signer.jwks();
        format!(
            "  - {{ name: {name}, issuer: '{url}', keys: {{ inline: {keys} }}, audiences: [orders-api]{more} }}\n"
        )
    };
    let revocable = ", revocation: { feeds: [logout], max_staleness: 10m, when_stale: reject }";
    let main = issuer("main", "https://id.example.com/", &one, revocable);
    let other = issuer("other", "https://other.example.com/", &two, "");
    let rest = |issuers: String, trusted: &str, interval: &str| {
        format!(
            "issuers:\n{issuers}feeds: [{{ name: logout, file: {{ path: $DIR/feed.json, interval: {interval} }} }}]
upstreams: [{{ name: api, endpoints: ['http://$API'] }}, {{ name: events, endpoints: ['{}'] }}]
routes:
  - {{ match: {{ path: /orders/a }}, require: {{ issuers: [{trusted}] }}, upstream: api }}
  - {{ match: {{ path: /events }}, require: {{ issuers: [{trusted}] }}, upstream: events }}\n",
            backend.url()
        )
    };
    let mut gateway =
        TestGateway::start_in(dir.clone(), &rest(format!("{main}{other}"), "main, other", "100ms")).await;
    gateway.wait_until_ready().await;
    let token = Token::new();
    let bearer = token.sign(&one);
    assert_eq!(gateway.get("/orders/a", &bearer, &[]).await.status, 200);
    let mut stream = gateway.connect().await;
    stream.write(format!("GET /events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {bearer}\r\n\r\n")).await;
    backend.wait_for("the stream", |request| request.target() == "/events").await;

    // The other issuer now has the place that the token's issuer had, and the feed is another task.
    gateway.reload(&rest(format!("{other}{main}"), "main, other", "150ms")).await.unwrap();
    assert_eq!(gateway.get("/orders/a", &bearer, &[]).await.status, 200);
    write(json!([{ "jti": token.text("jti"), "exp": crate::support::now() + 7200 }]), "2");
    eventually("revoked", || async {
        verdict(&gateway.get("/orders/a", &bearer, &[]).await) == "401 VAL-020 revoked"
    })
    .await;
    let rest_of_stream = stream.rest().await;
    assert!(!rest_of_stream.ends_with(b"0\r\n\r\n"), "the stream was cut, not completed");
}

#[tokio::test]
async fn listeners_come_and_go() {
    let mut gateway = TestGateway::start(OPEN).await;
    let (plain, tls) = (gateway.plain, gateway.tls);
    let mut open = Connection::open(tls).await;
    let plaintext = "{ address: 127.0.0.1:0, plaintext: true }";
    let one = format!("listeners: [{plaintext}]\n{OPEN}");
    // The second of the same text is the one that goes.
    gateway.reload(&one).await.unwrap();
    assert_eq!(gateway.listener(0), plain);
    assert_eq!(get(plain, "/orders/a", &[]).await.status, 200);
    eventually("closed", || async { TcpStream::connect(tls).await.is_err() }).await;
    assert_eq!(open.rest().await, b"", "a connection without a request is closed");

    let three = format!("listeners: [{plaintext}, {plaintext}, {plaintext}]\n{OPEN}");
    gateway.reload(&three).await.unwrap();
    assert_eq!(gateway.listener(0), plain);
    for place in 0..3 {
        assert_eq!(get(gateway.listener(place), "/orders/a", &[]).await.status, 200);
    }
}

#[tokio::test]
async fn new_connections_are_shown_the_new_certificate_and_old_ones_go_on() {
    let mut gateway = TestGateway::start(OPEN).await;
    let mut old = gateway.connect_tls(b"http/1.1").await;
    assert_eq!(ask(&mut old, "/orders/a").await, 200);
    let renewed = crate::support::write_certificates(gateway.dir().path());
    let changes = gateway.reload(OPEN).await.unwrap();
    assert_eq!(changes.len(), 2, "{changes:?}");
    assert!(changes[0].starts_with("listeners[1].tls.certificates[0].certificate (content of "));
    assert_eq!(ask(&mut old, "/orders/a").await, 200);
    let mut new = Connection::open_tls(gateway.tls, "localhost", &renewed, b"http/1.1").await;
    assert_eq!(ask(&mut new, "/orders/a").await, 200);
}
