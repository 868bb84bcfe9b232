//! Why a token is refused: what the admin listener and the command line say agrees with what the client got, names every
//! check, and keeps secrets.

use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;

use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};

use crate::support::{ISSUER, Reply, Signer, TestGateway, Token, base64url, eventually, get, now, send};

const ROUTES: &str = "
routes:
  - name: orders
    match: { path: /orders/** }
    require:
      issuers: [main]
      scopes: [orders:read]
      claims: [{ name: tenant, claim: tenant, equals: acme }]
    upstream: api
  - { name: status, match: { path: /status }, public: true, upstream: api }
";

fn issuers(signer: &Signer) -> String {
    format!(
        "
issuers:
  - name: main
    issuer: {ISSUER}
    keys: {{ inline: {} }}
    audiences: [orders-api]
    revocation: {{ feeds: [logout], max_staleness: 1h, when_stale: reject }}
feeds:
  - {{ name: logout, file: {{ path: revocations.json, interval: 100ms }} }}
{ROUTES}",
        signer.jwks()
    )
}

async fn orders(signer: &Signer) -> TestGateway {
    let dir = std::sync::Arc::new(tempfile::tempdir().unwrap());
    let feed = json!({ "version": 1, "kind": "snapshot", "epoch": "1", "entries": [{ "sub": "mallory" }] });
    std::fs::write(dir.path().join("revocations.json"), feed.to_string()).unwrap();
    let admin = "admin: { address: 127.0.0.1:0, refusals: { keep: 3, claims: [iss, aud, exp] } }";
    let gateway = TestGateway::start_in(dir, &format!("{admin}\n{}", issuers(signer))).await;
    gateway.wait_until_ready().await;
    gateway
}

fn good() -> Token {
    Token::new().claim("tenant", "acme").header("typ", "at+jwt")
}

/// A token that is worth something only together with a certificate that nobody has.
fn bound() -> Token {
    good().claim("cnf", json!({ "x5t#S256": base64url(&[7; 32]) }))
}

/// A client certificate, in PEM.
fn certificate() -> &'static str {
    static PEM: LazyLock<String> = LazyLock::new(|| {
        let params = CertificateParams::new(vec!["client.example.org".to_owned()]).unwrap();
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
    });
    &PEM
}

/// Tokens and what becomes of them.
fn tokens(signer: &Signer) -> Vec<(&'static str, String)> {
    vec![
        ("none", good().sign(signer)),
        ("expired", good().claim("exp", now() - 600).sign(signer)),
        ("not_yet_valid", good().claim("nbf", now() + 600).sign(signer)),
        ("audience_mismatch", good().claim("aud", "other").sign(signer)),
        ("issuer_not_trusted", good().claim("iss", "https://other/").sign(signer)),
        ("claim_missing", good().without("exp").sign(signer)),
        ("wrong_type", good().header("typ", "logout+jwt").sign(signer)),
        ("algorithm_not_allowed", good().header("alg", "HS256").sign(signer)),
        ("unknown_key", good().sign(&Signer::es256("k2"))),
        ("signature_mismatch", good().sign(&Signer::es256("k1"))),
        ("malformed", "a.b".to_owned()),
        ("revoked", good().claim("sub", "mallory").sign(signer)),
        ("insufficient_scope", good().without("scope").sign(signer)),
        ("claim_rule", good().claim("tenant", "other").sign(signer)),
        ("binding_mismatch", bound().sign(signer)),
        ("binding_mismatch", bound().without("scope").claim("tenant", "other").sign(signer)),
        ("expired", good().claim("exp", now() - 600).claim("sub", "mallory").without("scope").sign(signer)),
    ]
}

async fn explained(gateway: &TestGateway, token: &str) -> Value {
    asked_of(gateway, token, json!({ "client_certificate": certificate() })).await
}

async fn asked_of(gateway: &TestGateway, token: &str, besides: Value) -> Value {
    let mut body = besides;
    body["token"] = token.into();
    body["url"] = format!("http://{}/orders/1", gateway.plain).into();
    let body = body.to_string();
    let head =
        format!("POST /token/verify HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", body.len());
    let reply: Reply = send(gateway.admin(), head + &body).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()
}

fn outcome<'e>(explanation: &'e Value, check: &str) -> &'e str {
    let checks = explanation["checks"].as_array().unwrap();
    let found = checks.iter().find(|found| found["check"] == check);
    found.unwrap_or_else(|| panic!("no {check} in {explanation:#}"))["outcome"].as_str().unwrap()
}

#[tokio::test]
async fn the_explanation_agrees_with_what_the_client_got() {
    let signer = Signer::es256("k1");
    let gateway = orders(&signer).await;
    for (reason, token) in tokens(&signer) {
        let reply = gateway.get("/orders/1", &token, &[]).await;
        assert_eq!(reply.json()["reason"].as_str().unwrap_or("none"), reason);
        let explanation = explained(&gateway, &token).await;
        assert_eq!(explanation["accepted"], reason == "none", "{reason}: {explanation:#}");
        if reason != "none" {
            assert_eq!(explanation["refusal"]["reason"], reason, "{explanation:#}");
            assert_eq!(explanation["refusal"]["status"], reply.status);
            assert_eq!(explanation["refusal"]["detail"], reply.json()["detail"]);
        }
    }
}

/// What the client certificate decides is left open where nobody says which one it is, and is not called accepted.
#[tokio::test]
async fn without_the_client_certificate_there_is_no_verdict_on_what_depends_on_it() {
    let signer = Signer::es256("k1");
    let gateway = orders(&signer).await;
    let nothing = || json!({});
    let open = asked_of(&gateway, &bound().sign(&signer), nothing()).await;
    assert_eq!((&open["accepted"], &open["refusal"]), (&json!(false), &Value::Null), "{open:#}");
    assert_eq!(outcome(&open, "binding"), "not_made");
    assert!(open["undecided"].as_str().unwrap().contains("client certificate"), "{open:#}");
    // Refused whatever the certificate.
    let narrow = asked_of(&gateway, &bound().without("scope").sign(&signer), nothing()).await;
    assert_eq!(narrow["refusal"]["reason"], "insufficient_scope");
    assert_eq!(narrow["undecided"], Value::Null);
    // Accepted whatever the certificate.
    let free = asked_of(&gateway, &good().sign(&signer), nothing()).await;
    assert_eq!(free["accepted"], true, "{free:#}");

    let broken = json!({ "token": "a.b.c", "client_certificate": "no PEM" }).to_string();
    let head =
        format!("POST /token/verify HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", broken.len());
    assert_eq!(send(gateway.admin(), head + &broken).await.status, 400);

    let live = format!("http://{}", gateway.admin());
    let token = bound().sign(&signer);
    let run = move || valgate(&["token", "verify", "--live", &live], &token);
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("no verdict") && !text.contains("accepted"), "{text}");
}

#[tokio::test]
async fn every_check_is_made_that_can_be_and_says_what_it_found() {
    let signer = Signer::es256("k1");
    let gateway = orders(&signer).await;
    let token = good()
        .claim("exp", now() - 7300)
        .claim("aud", "other")
        .claim("sub", "mallory")
        .without("scope")
        .sign(&Signer::es256("k1"));
    let explanation = explained(&gateway, &token).await;
    for (check, expected) in [
        ("request", "passed"),
        ("route", "passed"),
        ("credential", "passed"),
        ("form", "passed"),
        ("algorithm", "passed"),
        ("issuer", "passed"),
        ("audience", "failed"),
        ("time", "failed"),
        ("key", "passed"),
        ("signature", "failed"),
        ("revocation", "failed"),
        ("binding", "passed"),
        ("scopes", "failed"),
        ("rule tenant", "passed"),
    ] {
        assert_eq!(outcome(&explanation, check), expected, "{check}: {explanation:#}");
    }
    let text = explanation.to_string();
    for words in ["2 h 1 min ago", "orders-api", "an entry for its sub", "fetched 0 s ago", "orders:read"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    for part in token.split('.') {
        assert!(!text.contains(part), "a part of the token is in its explanation");
    }
    let unsigned = explained(&gateway, &good().header("alg", "none").sign(&signer)).await;
    assert_eq!(outcome(&unsigned, "algorithm"), "failed");
    assert_eq!(outcome(&unsigned, "time"), "passed");
    assert_eq!(outcome(&unsigned, "signature"), "not_made");
}

#[tokio::test]
async fn a_refusal_is_found_by_its_request_id_with_only_the_claims_that_may_be_kept() {
    let signer = Signer::es256("k1");
    let gateway = orders(&signer).await;
    let token = good().claim("exp", now() - 600).claim("email", "alice@example.com").sign(&signer);
    let reply = gateway.get("/orders/1?secret=in-query", &token, &[]).await;
    let id = reply.header("x-request-id").unwrap().to_owned();

    let asked = async |query: &str| get(gateway.admin(), &format!("/refusals?{query}"), &[]).await.json();
    let by_id = format!("request_id={id}");
    eventually("kept", || async { asked(&by_id).await["refusals"].as_array().unwrap().len() == 1 }).await;
    let refused = asked(&by_id).await["refusals"][0].clone();
    assert_eq!((&refused["route"], &refused["path"]), (&json!("orders"), &json!("/orders/1")));
    assert_eq!(refused["refusal"]["reason"], "expired");
    assert_eq!(outcome(&refused, "time"), "failed");
    assert_eq!(outcome(&refused, "signature"), "passed");
    assert_eq!(
        (&refused["claims"]["iss"], &refused["claims"]["email"]),
        (&json!(ISSUER), &json!("(not shown)"))
    );
    let text = refused.to_string();
    for secret in ["alice", "in-query", token.split('.').nth(1).unwrap(), token.split('.').nth(2).unwrap()] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }

    let fingerprint = refused["token"].as_str().unwrap();
    assert_eq!(asked(&format!("token={fingerprint}")).await["refusals"][0]["request_id"], id.as_str());
    assert_eq!(asked("request_id=other").await["refusals"], json!([]));
    assert_eq!(asked("code=VAL-030").await["refusals"], json!([]));
    assert_eq!(asked("limit=1").await["refusals"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn each_core_keeps_no_more_refusals_than_it_is_told() {
    let gateway = orders(&Signer::es256("k1")).await;
    for _ in 0..20 {
        assert_eq!(gateway.get("/orders/1", "", &[]).await.status, 401);
    }
    let kept = get(gateway.admin(), "/refusals?limit=100", &[]).await.json();
    // Three by each of two cores.
    assert!((3..=6).contains(&kept["refusals"].as_array().unwrap().len()), "{kept:#}");
}

fn valgate(arguments: &[&str], token: &str) -> Output {
    use std::io::Write as _;

    let mut child = Command::new(env!("CARGO_BIN_EXE_valgate"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(token.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[tokio::test]
async fn the_command_says_the_same_offline_and_by_the_running_gateway() {
    let signer = Signer::es256("k1");
    let gateway = orders(&signer).await;
    let dir = gateway.dir();
    let config = dir.path().join("valgate.yaml");
    let listeners = "listeners: [{ address: 127.0.0.1:0, plaintext: true }]";
    let upstreams = "upstreams: [{ name: api, endpoints: [\"http://127.0.0.1:1\"] }]";
    std::fs::write(&config, format!("version: 1\n{listeners}\n{upstreams}\n{}", issuers(&signer))).unwrap();
    let pem = dir.path().join("client.pem");
    std::fs::write(&pem, certificate()).unwrap();
    let (config, pem) = (config.to_str().unwrap(), pem.to_str().unwrap());
    let live = format!("http://{}", gateway.admin());
    let url = "https://api.example.com/orders/1";
    for (reason, token) in tokens(&signer) {
        let run = |place: [String; 2], token: String| {
            let arguments =
                ["token", "verify", "--json", "--url", url, "--client-certificate", pem].map(str::to_owned);
            tokio::task::spawn_blocking(move || {
                let arguments: Vec<&str> = arguments.iter().chain(&place).map(String::as_str).collect();
                valgate(&arguments, &format!("Authorization: Bearer {token}\n"))
            })
        };
        let offline = run(["-c".to_owned(), config.to_owned()], token.clone()).await.unwrap();
        let live = run(["--live".to_owned(), live.clone()], token.clone()).await.unwrap();
        for output in [offline, live] {
            let explanation: Value = serde_json::from_slice(&output.stdout)
                .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
            assert_eq!(explanation["refusal"]["reason"].as_str().unwrap_or("none"), reason);
            assert_eq!(output.status.code(), Some(if reason == "none" { 0 } else { 3 }), "{reason}");
        }
    }
    let output =
        tokio::task::spawn_blocking(|| valgate(&["token", "verify", "-c", "/nothing"], "x")).await.unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[tokio::test]
async fn a_client_is_told_when_its_token_ends_soon() {
    let signer = Signer::es256("k1");
    let gateway = TestGateway::start(&format!(
        "
issuers:
  - name: main
    issuer: {ISSUER}
    keys: {{ inline: {} }}
    audiences: [orders-api]
    expiry_hint: {{ within: 5m, renew_at: https://id.example.com/token }}
routes:
  - {{ match: {{ path: /orders/** }}, require: {{ issuers: [main] }}, upstream: api }}
  - {{ match: {{ path: /orders/late }}, require: {{ issuers: [main] }}, upstream: api, expiry_hint: {{ within: 10s }} }}
",
        signer.jwks()
    ))
    .await;
    let soon = good().claim("exp", now() + 100).sign(&signer);
    let told = gateway.get("/orders/1", &soon, &[]).await;
    let left: u64 = told.header("token-expires-in").unwrap().parse().unwrap();
    assert!((1..=100).contains(&left), "{left}");
    assert_eq!(told.header("link"), Some("<https://id.example.com/token>; rel=\"urn:valgate:rel:renew\""));
    for (path, token) in [("/orders/1", good().sign(&signer)), ("/orders/late", soon)] {
        let reply = gateway.get(path, &token, &[]).await;
        assert_eq!((reply.header("token-expires-in"), reply.header("link")), (None, None), "{path}");
    }
}
