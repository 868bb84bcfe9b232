//! A register of issued tokens in a real Valkey: who is not on it does not pass.

use serde_json::{Value, json};

use crate::fleet::Node;
use crate::support::engines::{Engine, tls_front};
use crate::support::{ISSUER, Signer, Token, eventually, get, now, refused, write_certificates};

const NOT_RECOGNIZED: &str = "401 VAL-020 not_recognized";

fn yaml(signer: &Signer, server: &Engine, more: &str) -> String {
    yaml_at(signer, &format!("address: \"{}\"", server.address()), more)
}

fn yaml_at(signer: &Signer, valkey: &str, more: &str) -> String {
    format!(
        "
issuers:
  - name: main
    issuer: {ISSUER}
    keys: {{ inline: {} }}
    audiences: [orders-api]
    registry: {{ valkey: {{ {valkey}, timeout: 1s }}, {more} }}
routes:
  - {{ match: {{ path: /orders/** }}, require: {{ issuers: [main] }}, upstream: api }}
",
        signer.jwks()
    )
}

/// Puts the token on the register as docs/issued-tokens.md says.
async fn issue(server: &Engine, token: &Token) {
    let key = format!("{{valgate:issued}}:{}", token.text("jti"));
    let end = (now() + 600).to_string();
    let _: String = server.ask(&["SET", &key, "1", "EXAT", &end]).await;
}

async fn registry(node: &Node, name: &str) -> u64 {
    node.gateway().metric(&format!("valgate_registry_{name}_total{{issuer=\"main\"}}")).await
}

#[tokio::test]
async fn only_tokens_on_the_register_pass() {
    let signer = Signer::es256("k1");
    let server = Engine::valkey(&[]).await;
    let node = Node::start(yaml(&signer, &server, "cache: 100ms")).await;
    let (known, unknown) = (Token::new(), Token::new());
    issue(&server, &known).await;
    assert_eq!(node.ask(&known.sign(&signer)).await, "200");
    let received = node.gateway().received("/orders/1").len();
    assert_eq!(node.ask(&unknown.sign(&signer)).await, NOT_RECOGNIZED);
    assert_eq!(node.ask(&Token::new().without("jti").sign(&signer)).await, NOT_RECOGNIZED);
    assert_eq!(node.ask("opaque-token").await, "401 VAL-020 malformed");
    assert_eq!(node.gateway().received("/orders/1").len(), received, "the API got it");

    // What cannot be verified is not asked about.
    let asked = registry(&node, "unrecognized").await;
    let forged = known.sign(&Signer::es256("k1"));
    assert_eq!(node.ask(&forged).await, "401 VAL-020 signature_mismatch");
    assert_eq!(registry(&node, "unrecognized").await, asked);

    issue(&server, &unknown).await;
    assert_eq!(node.ask(&unknown.sign(&signer)).await, "200", "issued meanwhile");
    let _: usize = server.ask(&["DEL", &format!("{{valgate:issued}}:{}", known.text("jti"))]).await;
    node.until(&known.sign(&signer), NOT_RECOGNIZED, "taken off the register").await;
}

/// The check by what the register said, of what `/refusals` keeps of the request that this token is refused for, and the refusal's reason.
async fn explained(node: &Node, token: &str) -> (Value, Value) {
    let reply = node.gateway().get("/orders/1", token, &[]).await;
    let path = format!("/refusals?request_id={}", reply.header("x-request-id").unwrap());
    let kept = async || get(node.gateway().admin(), &path, &[]).await.json()["refusals"][0].clone();
    eventually("kept", || async { !kept().await.is_null() }).await;
    let kept = kept().await;
    let check =
        kept["checks"].as_array().unwrap().iter().find(|check| check["check"] == "introspection").cloned();
    (check.unwrap_or_default()["outcome"].clone(), kept["refusal"]["reason"].clone())
}

#[tokio::test]
async fn a_refusal_is_explained_by_what_the_register_said() {
    let signer = Signer::es256("k1");
    let mut server = Engine::valkey(&[]).await;
    let admin = "admin: { address: 127.0.0.1:0, refusals: {} }".to_owned();
    let node = Node::start(admin + &yaml(&signer, &server, "cache: 1h")).await;
    let (issued, expired) = (Token::new(), Token::new().claim("exp", now() - 3_600));
    issue(&server, &issued).await;
    let foreign = issued.claim("aud", "billing").sign(&signer);
    assert_eq!(
        explained(&node, &Token::new().sign(&signer)).await,
        (json!("failed"), json!("not_recognized"))
    );
    // What is refused before is not looked up, neither for the client nor for the explanation.
    for (token, reason) in [(foreign, "audience_mismatch"), (expired.sign(&signer), "expired")] {
        let (outcome, kept) = explained(&node, &token).await;
        assert_eq!((outcome == "failed", kept), (false, json!(reason)));
    }
    assert_eq!((registry(&node, "recognized").await, registry(&node, "unrecognized").await), (0, 1));
    server.kill();
    assert_eq!(
        explained(&node, &Token::new().sign(&signer)).await,
        (json!("failed"), json!("introspection_failed"))
    );
}

#[tokio::test]
async fn a_warm_token_is_not_looked_up_and_a_crowd_waits_together() {
    let signer = Signer::es256("k1");
    let server = Engine::valkey(&[]).await;
    let node = Node::start(yaml(&signer, &server, "cache: 1h")).await;
    let token = Token::new();
    issue(&server, &token).await;
    let token = token.sign(&signer);
    let crowd = futures_util::future::join_all((0..20).map(|_| node.ask(&token)));
    assert!(crowd.await.iter().all(|verdict| verdict == "200"));
    let looked_up = registry(&node, "recognized").await;
    for _ in 0..20 {
        assert_eq!(node.ask(&token).await, "200");
    }
    assert_eq!(registry(&node, "recognized").await, looked_up, "not for a warm token");
}

#[tokio::test]
async fn a_register_that_is_down_is_never_the_tokens_fault() {
    let signer = Signer::es256("k1");
    let mut server = Engine::valkey(&[]).await;
    let strict = Node::start(yaml(&signer, &server, "cache: 1h")).await;
    let lenient = Node::start(yaml(&signer, &server, "cache: 1h, when_unavailable: accept")).await;
    let (warm, cold) = (Token::new(), Token::new());
    issue(&server, &warm).await;
    let (warm, cold) = (warm.sign(&signer), cold.sign(&signer));
    assert_eq!(strict.ask(&warm).await, "200");
    server.kill();
    assert_eq!(strict.ask(&warm).await, "200", "known from before");
    let reply = strict.gateway().get("/orders/1", &cold, &[]).await;
    refused(&reply, "VAL-052", "introspection_failed");
    assert!(reply.header("retry-after").is_some());
    assert_eq!(lenient.ask(&cold).await, "200");

    server.restart().await;
    eventually("it is asked again", || async { strict.ask(&cold).await == NOT_RECOGNIZED }).await;
    eventually("here too", || async { lenient.ask(&cold).await == NOT_RECOGNIZED }).await;
}

/// The rights are those that docs/issued-tokens.md names.
#[tokio::test]
async fn tls_and_the_documented_rights_are_enough() {
    let signer = Signer::es256("k1");
    let dir = tempfile::tempdir().unwrap();
    let ca = write_certificates(dir.path());
    let file = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(file("ca.crt"), ca).unwrap();
    let users: Vec<String> = include_str!("../../docs/issued-tokens.md")
        .lines()
        .filter(|line| line.starts_with("user "))
        .map(|line| line.replace("<READER-PASSWORD>", "read-me").replace("<WRITER-PASSWORD>", "write-me"))
        .collect();
    assert_eq!(users.len(), 3, "{users:?}");
    std::fs::write(file("users.acl"), users.join("\n") + "\n").unwrap();
    let server = Engine::valkey(&["--aclfile", &file("users.acl")]).await;
    let port = tls_front(dir.path(), server.port).await;
    let valkey = |password: &str, tls: &str| {
        format!("address: \"localhost:{port}\", username: valgate, password: {password}, tls: {{ {tls} }}")
    };
    let trust = format!("ca: {}", file("ca.crt"));

    // The issuer's own side, by the same document.
    let token = Token::new();
    let key = format!("{{valgate:issued}}:{}", token.text("jti"));
    let write = async |command: &[&str]| -> redis::RedisResult<redis::Value> {
        let url = format!("redis://valgate-issuer:write-me@{}/", server.address());
        let mut connection = redis::Client::open(url)?.get_multiplexed_async_connection().await?;
        redis::cmd(command[0]).arg(&command[1..]).query_async(&mut connection).await
    };
    write(&["SET", &key, "1", "EXAT", &(now() + 600).to_string()]).await.unwrap();
    assert!(write(&["SET", "elsewhere", "1"]).await.is_err());
    assert!(write(&["GET", &key]).await.is_err());

    let node = Node::start(yaml_at(&signer, &valkey("read-me", &trust), "cache: 100ms")).await;
    assert_eq!(node.ask(&token.sign(&signer)).await, "200");
    assert_eq!(node.ask(&Token::new().sign(&signer)).await, NOT_RECOGNIZED);
    write(&["DEL", &key]).await.unwrap();
    node.until(&token.sign(&signer), NOT_RECOGNIZED, "taken off the register").await;
    assert_eq!(registry(&node, "failures").await, 0);

    for (password, tls) in [("wrong", trust.as_str()), ("read-me", "")] {
        let node = Node::start(yaml_at(&signer, &valkey(password, tls), "cache: 100ms")).await;
        assert_eq!(node.ask(&token.sign(&signer)).await, "503 VAL-052 introspection_failed");
        assert!(registry(&node, "failures").await > 0);
    }
}
