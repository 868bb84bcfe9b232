//! What providers tell: security events by push and by poll, logout tokens; and bearers that log themselves out.

use std::sync::Arc;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::fleet::REVOKED;
use crate::support::{
    Answer, ISSUER, Reply, Signer, Stub, TestGateway, Token, eventually, get, now, refused, send, verdict,
};

pub const CAEP: &str = "https://schemas.openid.net/secevent/caep/event-type/";
const RISC: &str = "https://schemas.openid.net/secevent/risc/event-type/";
const SSF: &str = "https://schemas.openid.net/secevent/ssf/event-type/";
pub const SECRET: &str = "Bearer s3cret-s3cret-s3cret";

/// A gateway whose issuer is revoked by `told` and by the file `shared`; with endpoints for events and for bearers.
pub fn yaml(signer: &Signer, told: &str, is_received: bool) -> String {
    let receives = if is_received { "- { match: { path: /told }, receives: told }" } else { "" };
    format!(
        "
state_dir: $DIR/state
admin: {{ address: 127.0.0.1:0 }}
issuers:
  - name: main
    issuer: {ISSUER}
    keys: {{ inline: {} }}
    audiences: [orders-api]
    leeway: 0s
    revocation: {{ feeds: [told, shared], max_staleness: 10m, when_stale: reject }}
feeds:
  - name: told
    {told}
  - {{ name: shared, file: {{ path: $DIR/shared.json, interval: 100ms }} }}
routes:
  - {{ match: {{ path: /orders/** }}, require: {{ issuers: [main] }}, upstream: api }}
  - match: {{ path: /logout }}
    require: {{ issuers: [main] }}
    revocation_endpoint: {{ revokes: token, feed: shared }}
  - match: {{ path: /logout-all }}
    require: {{ issuers: [main] }}
    revocation_endpoint: {{ revokes: session, feed: told }}
  {receives}
",
        signer.jwks()
    )
}

pub fn push(extra: &str) -> String {
    format!("set_push: {{ signed_by: main, audiences: [gateway], authorization: \"{SECRET}\" {extra} }}")
}

fn empty_list(dir: &TempDir) {
    let list = json!({ "version": 1, "kind": "snapshot", "epoch": "first", "entries": [] });
    std::fs::write(dir.path().join("shared.json"), list.to_string()).unwrap();
}

pub async fn start(signer: &Signer, told: &str) -> TestGateway {
    let dir = Arc::new(TempDir::new().unwrap());
    empty_list(&dir);
    let gateway = TestGateway::start_in(dir, &yaml(signer, told, !told.starts_with("set_poll"))).await;
    gateway.wait_until_ready().await;
    gateway
}

/// A security event token about this subject.
pub fn event(kind: &str, subject: Value) -> Token {
    let mut token = Token::new()
        .header("typ", "secevent+jwt")
        .claim("aud", "gateway")
        .claim("iat", now())
        .claim("sub_id", subject)
        .claim("events", json!({ kind: { "event_timestamp": now() } }));
    for claim in ["sub", "exp", "scope", "client_id"] {
        token = token.without(claim);
    }
    token
}

pub fn logout(sid: Option<&str>) -> Token {
    let token = Token::new()
        .header("typ", "logout+jwt")
        .claim("aud", "shop")
        .claim("iat", now())
        .claim("events", json!({ "http://schemas.openid.net/event/backchannel-logout": {} }));
    match sid {
        Some(sid) => token.claim("sid", sid).without("sub"),
        None => token,
    }
}

pub async fn post(gateway: &TestGateway, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
    let mut request =
        format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        request.extend([name, ": ", value, "\r\n"]);
    }
    send(gateway.plain, request + "\r\n" + body).await
}

pub async fn tell(gateway: &TestGateway, set: &str) -> Reply {
    let headers = [("Content-Type", "application/secevent+jwt"), ("Authorization", SECRET)];
    post(gateway, "/told", &headers, set).await
}

async fn tell_logout(gateway: &TestGateway, token: &str) -> Reply {
    let headers = [("Content-Type", "application/x-www-form-urlencoded")];
    post(gateway, "/told", &headers, &format!("logout_token={token}")).await
}

pub async fn ask(gateway: &TestGateway, token: &str) -> String {
    verdict(&gateway.get("/orders/1", token, &[]).await)
}

#[tokio::test]
async fn an_event_revokes_whom_it_names_and_nobody_else() {
    let signer = Signer::es256("k1");
    let gateway = start(&signer, &push(", subjects: { email: sub }")).await;
    let iss_sub = |sub: &str| json!({ "format": "iss_sub", "iss": ISSUER, "sub": sub });
    let rows = [
        ("session-revoked", iss_sub("u1"), ("sub", "u1")),
        ("credential-change", json!({ "format": "opaque", "id": "u2" }), ("sub", "u2")),
        (
            "token-claims-change",
            json!({ "format": "email", "email": "u3@example.com" }),
            ("sub", "u3@example.com"),
        ),
        (
            "session-revoked",
            json!({ "format": "complex", "session": { "format": "opaque", "id": "s4" }, "user": iss_sub("u4") }),
            ("sid", "s4"),
        ),
        (
            "session-revoked",
            json!({ "format": "complex", "user": iss_sub("u5"), "device": {} }),
            ("sub", "u5"),
        ),
        (
            "session-revoked",
            json!({ "format": "aliases", "identifiers": [{ "format": "did", "url": "did:x" }, iss_sub("u6")] }),
            ("sub", "u6"),
        ),
        ("token-claims-change", json!({ "format": "jwt_id", "iss": ISSUER, "jti": "t7" }), ("jti", "t7")),
    ];
    for (kind, subject, (claim, value)) in rows {
        let hit = Token::new().claim(claim, value).sign(&signer);
        let other = Token::new().claim(claim, "another").sign(&signer);
        assert_eq!(ask(&gateway, &hit).await, "200", "{kind} {subject}");
        let reply = tell(&gateway, &event(&format!("{CAEP}{kind}"), subject.clone()).sign(&signer)).await;
        assert_eq!((reply.status, reply.text().as_str()), (202, ""), "{kind} {subject}");
        assert_eq!(ask(&gateway, &hit).await, REVOKED, "{kind} {subject}");
        assert_eq!(ask(&gateway, &other).await, "200", "{kind} {subject}");
    }
    assert!(gateway.metric("valgate_feed_lag_seconds_count{feed=\"told\"}").await > 0, "how long they took");
    for (number, kind) in ["account-disabled", "account-purged", "sessions-revoked"].into_iter().enumerate() {
        let sub = format!("risc{number}");
        let hit = Token::new().claim("sub", sub.as_str()).sign(&signer);
        tell(&gateway, &event(&format!("{RISC}{kind}"), iss_sub(&sub)).sign(&signer)).await;
        assert_eq!(ask(&gateway, &hit).await, REVOKED, "{kind}");
        let later = Token::new().claim("sub", sub.as_str()).claim("iat", now() + 1).sign(&signer);
        assert_ne!(ask(&gateway, &later).await, REVOKED, "{kind}: what is issued later is another matter");
    }
}

#[tokio::test]
async fn an_event_that_proves_nothing_is_refused_and_revokes_nothing() {
    let (signer, stranger) = (Signer::es256("k1"), Signer::es256("k1"));
    let gateway = start(&signer, &push("")).await;
    let good = || {
        event(
            &format!("{CAEP}session-revoked"),
            json!({ "format": "iss_sub", "iss": ISSUER, "sub": "alice" }),
        )
    };
    let alice = Token::new().sign(&signer);
    let rows = [
        (good().header("typ", "JWT").sign(&signer), "invalid_request"),
        (Token::new().claim("aud", "gateway").sign(&signer), "invalid_request"),
        (good().sign(&stranger), "invalid_key"),
        (good().claim("iss", "https://other.example.com/").sign(&signer), "invalid_issuer"),
        (good().claim("aud", "another").sign(&signer), "invalid_audience"),
        (good().without("jti").sign(&signer), "invalid_request"),
        (good().without("iat").sign(&signer), "invalid_request"),
        (good().claim("iat", now() + 600).sign(&signer), "invalid_request"),
        (good().claim("exp", now() + 600).sign(&signer), "invalid_request"),
        (good().claim("sub", "alice").sign(&signer), "invalid_request"),
        (good().without("events").sign(&signer), "invalid_request"),
        (good().without("sub_id").sign(&signer), "invalid_request"),
        (
            good().claim("sub_id", json!({ "format": "iss_sub", "sub": "alice" })).sign(&signer),
            "invalid_request",
        ),
        ("garbage".to_owned(), "invalid_request"),
    ];
    for (set, code) in rows {
        let reply = tell(&gateway, &set).await;
        assert_eq!((reply.status, &reply.json()["err"]), (400, &json!(code)), "{}", reply.text());
        assert_eq!(reply.header("content-language"), Some("en"));
    }
    let set = good().sign(&signer);
    for headers in [
        vec![("Content-Type", "application/secevent+jwt")],
        vec![("Content-Type", "application/secevent+jwt"), ("Authorization", "Bearer another")],
        vec![
            ("Content-Type", "application/secevent+jwt"),
            ("Authorization", SECRET),
            ("Authorization", SECRET),
        ],
    ] {
        let reply = post(&gateway, "/told", &headers, &set).await;
        assert_eq!((reply.status, &reply.json()["err"]), (401, &json!("authentication_failed")));
    }
    let reply =
        post(&gateway, "/told", &[("Content-Type", "text/plain"), ("Authorization", SECRET)], &set).await;
    assert_eq!(reply.status, 400);
    refused(&get(gateway.plain, "/told", &[]).await, "VAL-041", "method_not_allowed");
    assert_eq!(ask(&gateway, &alice).await, "200", "nothing of this revoked anything");
    let as_access = good().claim("aud", "orders-api").claim("exp", now() + 600).sign(&signer);
    assert_eq!(ask(&gateway, &as_access).await, "401 VAL-020 wrong_type", "an event is no access token");
    assert_eq!(gateway.metric("valgate_feed_events_accepted_total{feed=\"told\"}").await, 0);
}

#[tokio::test]
async fn what_was_told_outlives_a_restart_and_reaches_the_shared_list() {
    let signer = Signer::es256("k1");
    let dir = Arc::new(TempDir::new().unwrap());
    empty_list(&dir);
    let yaml = yaml(&signer, &push(", write_to: shared"), true);
    let gateway = TestGateway::start_in(Arc::clone(&dir), &yaml).await;
    gateway.wait_until_ready().await;
    let set =
        event(&format!("{CAEP}session-revoked"), json!({ "format": "opaque", "id": "alice" })).sign(&signer);
    let alice = Token::new().sign(&signer);
    for _ in 0..2 {
        assert_eq!(tell(&gateway, &set).await.status, 202, "told again, it is known");
    }
    assert_eq!(gateway.metric("valgate_feed_events_repeated_total{feed=\"told\"}").await, 1);
    gateway.stop().await;
    let shared: Value =
        serde_json::from_slice(&std::fs::read(dir.path().join("shared.json")).unwrap()).unwrap();
    assert_eq!(shared["entries"][0]["sub"], "alice", "{shared}");
    assert_eq!(shared["entries"][0]["reason"], "session-revoked", "{shared}");

    // The list is lost; what this gateway was told is not.
    empty_list(&dir);
    let gateway = TestGateway::start_in(Arc::clone(&dir), &yaml).await;
    gateway.wait_until_ready().await;
    assert_eq!(ask(&gateway, &alice).await, REVOKED);
    // The same list at another gateway, which was told nothing.
    std::fs::write(dir.path().join("shared.json"), shared.to_string()).unwrap();
    let elsewhere = Arc::new(TempDir::new().unwrap());
    std::fs::copy(dir.path().join("shared.json"), elsewhere.path().join("shared.json")).unwrap();
    let other = TestGateway::start_in(elsewhere, &yaml).await;
    other.wait_until_ready().await;
    assert_eq!(ask(&other, &alice).await, REVOKED);
}

#[tokio::test]
async fn a_stream_is_polled_and_each_event_acknowledged_or_refused() {
    let signer = Signer::es256("k1");
    let transmitter = Stub::start().await;
    let good = event(&format!("{CAEP}session-revoked"), json!({ "format": "opaque", "id": "alice" }));
    let bad = event(&format!("{CAEP}session-revoked"), json!({ "format": "opaque", "id": "bob" }))
        .claim("aud", "x");
    let check = event(&format!("{SSF}verification"), json!({ "format": "opaque", "id": "stream" }));
    let sets = json!({ "sets": {
        good.text("jti"): good.sign(&signer), bad.text("jti"): bad.sign(&signer), check.text("jti"): check.sign(&signer),
    } });
    transmitter.set("/poll", Answer::json(&sets));
    let told = format!(
        "set_poll: {{ url: \"{}\", signed_by: main, audiences: [gateway], interval: 100ms, long_poll: 1s }}",
        transmitter.url("/poll")
    );
    let gateway = start(&signer, &told).await;
    let (alice, bob) = (Token::new().sign(&signer), Token::new().claim("sub", "bob").sign(&signer));
    eventually("revoked", || async { ask(&gateway, &alice).await == REVOKED }).await;
    assert_eq!(ask(&gateway, &bob).await, "200", "an event for somebody else");
    eventually("acknowledged", || async { transmitter.hits("/poll") > 1 }).await;
    let polls = polls(&transmitter);
    assert_eq!(polls[0], json!({ "maxEvents": 100, "returnImmediately": false, "ack": [], "setErrs": {} }));
    let mut taken: Vec<&str> =
        polls[1]["ack"].as_array().unwrap().iter().map(|jti| jti.as_str().unwrap()).collect();
    taken.sort_unstable();
    let mut good = [good.text("jti"), check.text("jti")];
    good.sort_unstable();
    assert_eq!(taken, good);
    let refused = polls[1]["setErrs"].as_object().unwrap();
    assert_eq!(refused.keys().collect::<Vec<_>>(), [&bad.text("jti")]);
    assert_eq!(refused[&bad.text("jti")]["err"], "invalid_audience");
}

fn polls(transmitter: &Stub) -> Vec<Value> {
    let polls = transmitter.asked("/poll");
    polls.iter().map(|poll| serde_json::from_str(&poll.body).unwrap()).collect()
}

/// RFC 8936 section 2.4: what is not acknowledged comes again.
#[tokio::test]
async fn what_cannot_be_kept_is_not_acknowledged_and_the_feed_not_heard_until_it_is() {
    let signer = Signer::es256("k1");
    let transmitter = Stub::start().await;
    let event = event(&format!("{CAEP}session-revoked"), json!({ "format": "opaque", "id": "alice" }));
    let (jti, set) = (event.text("jti"), event.sign(&signer));
    let answer = |more: bool| Answer::json(&json!({ "sets": { jti.clone(): set }, "moreAvailable": more }));
    transmitter.set("/poll", answer(false));
    let told = format!(
        "set_poll: {{ url: \"{}\", signed_by: main, audiences: [gateway], interval: 100ms, long_poll: 1s, \
         write_to: shared }}",
        transmitter.url("/poll")
    );
    let yaml = yaml(&signer, &told, false)
        .replace("[told, shared]", "[told]")
        .replace("revokes: token, feed: shared", "revokes: token, feed: told");
    let dir = Arc::new(TempDir::new().unwrap());
    // Nothing can be written there.
    std::fs::create_dir(dir.path().join("shared.json")).unwrap();
    let gateway = TestGateway::start_in(Arc::clone(&dir), &yaml).await;
    let (alice, bob) = (Token::new().sign(&signer), Token::new().claim("sub", "bob").sign(&signer));
    eventually("asked again", || async { transmitter.hits("/poll") > 2 }).await;
    assert_eq!(ask(&gateway, &alice).await, REVOKED, "it counts here all the same");
    assert_eq!(ask(&gateway, &bob).await, "503 VAL-051 feed_not_loaded");
    for poll in polls(&transmitter) {
        assert_eq!((&poll["ack"], &poll["setErrs"]), (&json!([]), &json!({})));
    }
    assert!(gateway.metric("valgate_feed_failures_total{feed=\"told\"}").await > 1);

    transmitter.set("/poll", answer(true));
    std::fs::remove_dir(dir.path().join("shared.json")).unwrap();
    empty_list(&dir);
    eventually("acknowledged", || async {
        polls(&transmitter).iter().any(|poll| poll["ack"] == json!([jti]))
    })
    .await;
    assert_eq!(
        ask(&gateway, &bob).await,
        "503 VAL-051 feed_not_loaded",
        "there is more, which may concern him"
    );
    transmitter.set("/poll", answer(false));
    eventually("heard", || async { ask(&gateway, &bob).await == "200" }).await;
    assert_eq!(ask(&gateway, &alice).await, REVOKED);
}

/// What nobody could be asked for again outlives what is configured otherwise.
#[tokio::test]
async fn what_was_told_outlives_a_change_of_configuration() {
    let signer = Signer::es256("k1");
    let rules = [
        push(""),
        push(", heartbeat: true"),
        "backchannel_logout: { signed_by: main, audiences: [gateway] }".to_owned(),
    ];
    for (told, is_kept) in rules.iter().flat_map(|told| [(told, true), (told, false)]) {
        let kept = |yaml: String| if is_kept { yaml } else { yaml.replace("state_dir: $DIR/state\n", "") };
        let before = kept(yaml(&signer, told, true));
        let other = format!(
            "issuers:\n  - {{ name: other, issuer: https://other.example.com, keys: {{ inline: {} }}, \
             audiences: [orders-api], revocation: {{ feeds: [told], max_staleness: 10m, when_stale: reject }} }}\n",
            signer.jwks()
        );
        let after = before.replace("issuers:\n", &other).replace("leeway: 0s", "leeway: 20s");
        assert!(after.contains("other.example.com") && after.contains("leeway: 20s"));
        let dir = Arc::new(TempDir::new().unwrap());
        empty_list(&dir);
        let mut gateway = TestGateway::start_in(Arc::clone(&dir), &before).await;
        let alice = Token::new().claim("sid", "s1").sign(&signer);
        if told.starts_with("set_push") {
            let subject = json!({ "format": "opaque", "id": "alice" });
            let set = event(&format!("{CAEP}session-revoked"), subject).sign(&signer);
            assert_eq!(tell(&gateway, &set).await.status, 202);
        } else {
            let logout = logout(Some("s1")).claim("aud", "gateway").sign(&signer);
            assert_eq!(tell_logout(&gateway, &logout).await.status, 200);
        }
        gateway.wait_until_ready().await;
        assert_eq!(ask(&gateway, &alice).await, REVOKED, "{told}");
        gateway.reload(&after).await.unwrap();
        assert_eq!(ask(&gateway, &alice).await, REVOKED, "{told} {is_kept}");
        let elsewhere = Token::new().claim("iss", "https://other.example.com").sign(&signer);
        assert_eq!(ask(&gateway, &elsewhere).await, "401 VAL-020 issuer_not_trusted", "{told}");
        // And what it is told from now on is in the same place.
        let bob = Token::new().claim("sub", "bob").claim("sid", "s2").sign(&signer);
        if told.starts_with("set_push") {
            let subject = json!({ "format": "opaque", "id": "bob" });
            let set = event(&format!("{CAEP}session-revoked"), subject).sign(&signer);
            assert_eq!(tell(&gateway, &set).await.status, 202);
        } else {
            let logout = logout(Some("s2")).claim("aud", "gateway").sign(&signer);
            assert_eq!(tell_logout(&gateway, &logout).await.status, 200);
        }
        gateway.reload(&before).await.unwrap();
        assert_eq!([ask(&gateway, &alice).await, ask(&gateway, &bob).await], [REVOKED, REVOKED], "{told}");
        gateway.stop().await;
        if is_kept {
            let gateway = TestGateway::start_in(dir, &after).await;
            let both = [ask(&gateway, &alice).await, ask(&gateway, &bob).await];
            assert_eq!(both, [REVOKED, REVOKED], "{told} after a restart");
        }
    }
}

#[tokio::test]
async fn a_logout_token_ends_the_session_or_all_of_the_subject() {
    let signer = Signer::es256("k1");
    let gateway = start(&signer, "backchannel_logout: { signed_by: main, audiences: [shop] }").await;
    let token = |sid: &str, sub: &str| Token::new().claim("sid", sid).claim("sub", sub).sign(&signer);
    let (one, two, third) = (token("s1", "u1"), token("s2", "u1"), token("s3", "u2"));
    let rows = [
        logout(Some("s1")).claim("nonce", "n").sign(&signer),
        logout(Some("s1")).header("typ", "JWT").sign(&signer),
        logout(Some("s1")).header("typ", Value::Null).sign(&signer),
        logout(Some("s1")).without("events").sign(&signer),
        logout(Some("s1")).claim("events", json!({ "other": {} })).sign(&signer),
        logout(Some("s1")).claim("exp", now() - 60).sign(&signer),
        logout(Some("s1")).without("jti").sign(&signer),
        logout(Some("s1")).without("iat").sign(&signer),
        logout(Some("s1")).claim("aud", "another").sign(&signer),
        logout(None).without("sub").sign(&signer),
        logout(Some("s1")).sign(&Signer::es256("k1")),
        Token::new().claim("aud", "shop").claim("sid", "s1").sign(&signer),
    ];
    for bad in rows {
        let reply = tell_logout(&gateway, &bad).await;
        assert_eq!((reply.status, &reply.json()["error"]), (400, &json!("invalid_request")));
    }
    assert_eq!(ask(&gateway, &one).await, "200", "nothing of this ended the session");
    let good = logout(Some("s1")).sign(&signer);
    refused(
        &gateway.get("/orders/1", &logout(None).claim("aud", "orders-api").sign(&signer), &[]).await,
        "VAL-020",
        "wrong_type",
    );
    let reply = tell_logout(&gateway, &good).await;
    assert_eq!((reply.status, reply.header("cache-control")), (200, Some("no-store")));
    assert_eq!([ask(&gateway, &one).await, ask(&gateway, &two).await], [REVOKED, "200"]);
    tell_logout(&gateway, &logout(None).claim("sub", "u1").sign(&signer)).await;
    assert_eq!([ask(&gateway, &two).await, ask(&gateway, &third).await], [REVOKED, "200"]);
}

#[tokio::test]
async fn a_bearer_logs_itself_out() {
    let signer = Signer::es256("k1");
    let gateway = start(&signer, &push("")).await;
    let token = |sid: &str| Token::new().claim("sid", sid).sign(&signer);
    let (one, another) = (token("s1"), token("s1"));
    let bearer = |token: &str| format!("Bearer {token}");
    let reply = post(&gateway, "/logout", &[("Authorization", &bearer(&one))], "").await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!([ask(&gateway, &one).await, ask(&gateway, &another).await], [REVOKED, "200"]);
    let again = post(&gateway, "/logout", &[("Authorization", &bearer(&one))], "").await;
    refused(&again, "VAL-020", "revoked");
    let third = token("s1");
    post(&gateway, "/logout-all", &[("Authorization", &bearer(&another))], "").await;
    assert_eq!([ask(&gateway, &another).await, ask(&gateway, &third).await], [REVOKED, REVOKED]);
    let nameless = Token::new().without("jti").sign(&signer);
    let reply = post(&gateway, "/logout", &[("Authorization", &bearer(&nameless))], "").await;
    refused(&reply, "VAL-020", "claim_missing");
    refused(&post(&gateway, "/logout", &[], "").await, "VAL-010", "missing");
    refused(&gateway.get("/logout", &nameless, &[]).await, "VAL-041", "method_not_allowed");

    // What cannot be kept is not said to be done, though it counts here.
    let dir = gateway.dir();
    std::fs::remove_file(dir.path().join("shared.json")).unwrap();
    std::fs::create_dir(dir.path().join("shared.json")).unwrap();
    let last = token("s9");
    let reply = post(&gateway, "/logout", &[("Authorization", &bearer(&last))], "").await;
    refused(&reply, "VAL-051", "revocation_not_kept");
    assert_eq!(ask(&gateway, &last).await, REVOKED);
}

#[tokio::test]
async fn an_administrator_revokes_lists_and_lifts() {
    let signer = Signer::es256("k1");
    let gateway = start(&signer, &push("")).await;
    let order = async |body: Value| {
        let body = body.to_string();
        let head = format!(
            "POST /revocations HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        send(gateway.admin(), head + &body).await
    };
    let alice = Token::new().sign(&signer);
    let entry = json!({ "sub": "alice", "exp": now() + 3600, "reason": "lost laptop" });
    let reply = order(json!({ "feed": "shared", "entries": [entry] })).await;
    assert_eq!(reply.json(), json!({ "feed": "shared", "revoked": 1, "lifted": 0 }));
    assert_eq!(ask(&gateway, &alice).await, REVOKED);
    let listed = get(gateway.admin(), "/revocations?feed=shared", &[]).await.json();
    assert_eq!(
        (&listed["entries"][0]["sub"], &listed["entries"][0]["reason"]),
        (&json!("alice"), &json!("lost laptop"))
    );
    order(json!({ "feed": "shared", "entries": [{ "sub": "alice", "lift": true }] })).await;
    assert_eq!(ask(&gateway, &alice).await, "200");
    for (bad, status) in [
        (json!({ "feed": "shared", "entries": [{ "sub": "a", "jti": "b" }] }), 400),
        (json!({ "feed": "shared", "entries": [{ "exp": 7 }] }), 400),
        (json!({ "feed": "none", "entries": [] }), 404),
        (json!({ "entries": [] }), 404),
    ] {
        assert_eq!(order(bad.clone()).await.status, status, "{bad}");
    }
    let told = get(gateway.admin(), "/revocations?feed=told", &[]).await;
    assert_eq!(told.status, 501, "of what it was told it keeps only hashes");
}
