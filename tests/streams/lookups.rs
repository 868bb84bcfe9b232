//! Streams of tokens that were looked up: at the issuer, or in a status list.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use futures_util::FutureExt as _;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;

use crate::support::{Answer, ISSUER, Signer, Stub, TestGateway, Token, base64url, eventually, jws, now};
use crate::{SSE, endless, open, read_to_end, read_until};

fn snapshot(epoch: &str, entries: &Value) -> Answer {
    Answer::json(&json!({ "version": 1, "kind": "snapshot", "epoch": epoch, "entries": entries }))
}

fn list(stub: &Stub, signer: &Signer, bits: u8) -> Answer {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&[bits]).unwrap();
    let claims = json!({
        "sub": stub.url("/lists/1"), "iat": now(), "ttl": 60,
        "status_list": { "bits": 1, "lst": base64url(&encoder.finish().unwrap()) },
    });
    let header = r#"{"alg":"ES256","kid":"k1","typ":"statuslist+jwt"}"#;
    Answer::body("application/statuslist+jwt", jws(header, claims.to_string(), signer))
}

#[tokio::test]
async fn a_stream_ends_with_a_token_that_was_looked_up() {
    let (signer, backend) = (Signer::es256("k1"), endless(SSE, "data: 1\n\n").await);
    let stub = Stub::start().await;
    let active = |sub: &str, lifetime: i64| {
        Answer::json(&json!({
            "active": true, "token_type": "Bearer", "sub": sub, "aud": "orders-api", "exp": now() + lifetime,
        }))
    };
    stub.set_to("/introspect", "token=short&", active("alice", 2));
    stub.set_to("/introspect", "token=revoked&", active("bob", 3600));
    stub.set_to("/introspect", "token=taken-back&", active("carol", 3600));
    stub.set("/feed", snapshot("a", &json!([])));
    stub.set("/lists/1", list(&stub, &signer, 0));
    let gateway = TestGateway::start(&format!(
        "
issuers:
  - name: main
    issuer: {ISSUER}
    keys: {{ inline: {} }}
    audiences: [orders-api]
    leeway: 0s
    introspection: {{ url: \"{}\", client: {{ id: gateway, client_secret_basic: secret }}, cache: 300ms }}
    revocation:
      feeds: [logout]
      status_list: {{ allowed: [\"{}\"], refresh_interval: 100ms }}
      max_staleness: 10m
      when_stale: reject
feeds: [{{ name: logout, http: {{ url: \"{}\", interval: 100ms }} }}]
upstreams: [{{ name: stream, endpoints: [\"{}\"] }}]
routes: [{{ match: {{ path: /** }}, require: {{ issuers: [main] }}, upstream: stream }}]
",
        signer.jwks(),
        stub.url("/introspect"),
        stub.url("/lists/1"),
        stub.url("/feed"),
        backend.url(),
    ))
    .await;
    let listed = json!({ "status_list": { "idx": 3, "uri": stub.url("/lists/1") } });
    let listed = Token::new().claim("status", listed).sign(&signer);
    let mut streams = Vec::new();
    for (path, token) in [
        ("/short", "short"),
        ("/revoked", "revoked"),
        ("/taken-back", "taken-back"),
        ("/listed", listed.as_str()),
    ] {
        let head = format!("Host: api.example.com\r\nAuthorization: Bearer {token}\r\n");
        let mut stream = open(&gateway, path, &head).await;
        read_until(&mut stream, b"data: 1").await;
        streams.push(stream);
    }
    stub.set("/feed", snapshot("b", &json!([{ "sub": "bob" }])));
    stub.set("/lists/1", list(&stub, &signer, 0b1000));
    // Its issuer is asked again once the kept answer has run out; one that cannot be asked ends nothing.
    stub.set_to("/introspect", "token=taken-back&", Answer::error(500));
    let asked = || stub.asked("/introspect").iter().filter(|ask| ask.body.contains("taken-back")).count();
    let before = asked();
    eventually("asked again, twice", || async { asked() > before + 1 }).await;
    stub.set_to("/introspect", "token=taken-back&", Answer::json(&json!({ "active": false })));
    for stream in &mut streams {
        let rest = read_to_end(stream).await;
        assert!(!rest.ends_with(b"0\r\n\r\n"), "a cut stream must not look like a whole one");
    }
    let log = gateway.stop().await;
    for (path, outcome) in [
        ("/short", "token_expired"),
        ("/revoked", "token_revoked"),
        ("/taken-back", "token_revoked"),
        ("/listed", "token_revoked"),
    ] {
        let line = log.iter().find(|line| line["path"] == path).unwrap();
        assert_eq!(line["outcome"], outcome, "{line}");
    }
}

/// Who is asked after a reload is the issuer as it is configured then; the one before asks nobody any more.
#[tokio::test]
async fn a_stream_from_before_a_reload_of_its_issuer_still_ends_with_the_issuers_word() {
    let (signer, backend) = (Signer::es256("k1"), endless(SSE, "data: 1\n\n").await);
    let stub = Stub::start().await;
    let active = |sub: &str| {
        Answer::json(&json!({
            "active": true, "token_type": "Bearer", "sub": sub, "aud": "orders-api", "exp": now() + 3600,
        }))
    };
    let jwt = Token::new().sign(&signer);
    stub.set_to("/introspect", "token=opaque&", active("bob"));
    stub.set_to("/introspect", &jwt, active("alice"));
    let yaml = |leeway: &str, introspection: &str| {
        format!(
            "
issuers:
  - name: main
    issuer: {ISSUER}
    keys: {{ inline: {} }}
    audiences: [orders-api]
    leeway: {leeway}
    {introspection}
upstreams: [{{ name: stream, endpoints: [\"{}\"] }}]
routes: [{{ match: {{ path: /** }}, require: {{ issuers: [main] }}, upstream: stream }}]
",
            signer.jwks(),
            backend.url(),
        )
    };
    let introspection = format!(
        "introspection: {{ url: \"{}\", client: {{ id: gateway, client_secret_basic: secret }}, cache: 300ms, \
         tokens: all }}",
        stub.url("/introspect")
    );
    let mut gateway = TestGateway::start(&yaml("0s", &introspection)).await;
    let mut streams = Vec::new();
    for (path, token) in [("/opaque", "opaque"), ("/jwt", jwt.as_str())] {
        let head = format!("Host: api.example.com\r\nAuthorization: Bearer {token}\r\n");
        let mut stream = open(&gateway, path, &head).await;
        read_until(&mut stream, b"data: 1").await;
        streams.push(stream);
    }
    gateway.reload(&yaml("5s", &introspection)).await.unwrap();
    let before = stub.hits("/introspect");
    eventually("asked again, by the new one", || async { stub.hits("/introspect") > before + 2 }).await;
    stub.set_to("/introspect", &jwt, Answer::json(&json!({ "active": false })));
    let rest = read_to_end(&mut streams.remove(1)).await;
    assert!(!rest.ends_with(b"0\r\n\r\n"), "a cut stream must not look like a whole one");
    // Of an opaque token nobody else could say anything.
    gateway.reload(&yaml("5s", "")).await.unwrap();
    read_to_end(&mut streams.remove(0)).await;
    let log = gateway.stop().await;
    for path in ["/opaque", "/jwt"] {
        let line = log.iter().find(|line| line["path"] == path).unwrap();
        assert_eq!(line["outcome"], "token_revoked", "{line}");
    }
}

/// Disabling a key is how many a provider invalidates what it signed.
#[tokio::test]
async fn a_stream_ends_when_the_key_of_its_token_is_withdrawn() {
    let (old, new) = (Signer::es256("old"), Signer::es256("new"));
    let backend = endless(SSE, "data: 1\n\n").await;
    let provider = Stub::start().await;
    let set = |signers: &[&Signer]| {
        Answer::json(&json!({ "keys": signers.iter().map(|signer| signer.jwk()).collect::<Vec<_>>() }))
    };
    provider.set("/jwks", set(&[&old, &new]));
    let mut gateway_yaml = format!(
        "
issuers:
  - name: main
    issuer: {ISSUER}
    keys: {{ jwks_url: \"{}\", refresh_interval: 100ms, max_stale: 2s, cooldown: 100ms }}
    audiences: [orders-api]
    leeway: 0s
upstreams:
  - {{ name: stream, endpoints: [\"{}\"] }}
  - {{ name: api, endpoints: [\"http://$API\"] }}
routes:
  - {{ match: {{ path: /** }}, require: {{ issuers: [main] }}, upstream: stream }}
  - {{ match: {{ path: /orders/** }}, require: {{ issuers: [main] }}, upstream: api }}
",
        provider.url("/jwks"),
        backend.url(),
    );
    let mut gateway = TestGateway::start(&gateway_yaml).await;
    let start = async |gateway: &TestGateway, path: &str, token: String| {
        let head = format!("Host: api.example.com\r\nAuthorization: Bearer {token}\r\n");
        let mut stream = open(gateway, path, &head).await;
        read_until(&mut stream, b"data: 1").await;
        stream
    };
    let mut withdrawn = start(&gateway, "/withdrawn", Token::new().sign(&old)).await;
    let mut kept = start(&gateway, "/kept", Token::new().sign(&new)).await;

    let mut short = start(&gateway, "/short", Token::new().claim("exp", now() + 4).sign(&old)).await;

    // Nobody knows what a provider that is down would say; keys that are too old are not withdrawn.
    provider.set("/jwks", Answer::error(500));
    let fresh = Token::new().sign(&new);
    eventually("too old", || async { gateway.get("/orders/1", &fresh, &[]).await.status == 503 }).await;
    read_to_end(&mut short).await;
    for stream in [&mut withdrawn, &mut kept] {
        assert!(stream.read_u8().now_or_never().is_none(), "looked at together with the one that ended");
    }

    provider.set("/jwks", set(&[&new]));
    let rest = read_to_end(&mut withdrawn).await;
    assert!(!rest.ends_with(b"0\r\n\r\n"), "a cut stream must not look like a whole one");
    assert!(kept.read_u8().now_or_never().is_none());

    // The issuer as it is after a reload has keys of its own, and another under the same name.
    let impostor = Signer::es256("new");
    provider.set("/jwks-2", set(&[&impostor]));
    gateway_yaml = gateway_yaml.replace("/jwks", "/jwks-2");
    gateway.reload(&gateway_yaml).await.unwrap();
    read_to_end(&mut kept).await;
    let log = gateway.stop().await;
    for path in ["/withdrawn", "/kept"] {
        let line = log.iter().find(|line| line["path"] == path).unwrap();
        assert_eq!(line["outcome"], "token_revoked", "{line}");
    }
}
