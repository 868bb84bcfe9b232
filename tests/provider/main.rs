//! The gateway with a real `OpenID` provider, oidc-provider from npm: discovery, introspection by clients that prove who
//! they are in every way, signed answers, tokens that are taken back.
//!
//! The provider is installed by `./check`, together with what the tutorial needs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "these are tests"
)]

#[path = "../support/mod.rs"]
mod support;

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use support::{Connection, TestGateway, base64url, eventually, verdict};

/// A running provider; dropping it ends it.
struct Provider {
    process: Child,
    issuer: String,
    address: SocketAddr,
}

impl Provider {
    /// Starts it; the client `jwt` proves itself with this public key.
    fn start(client_key: &Value) -> Self {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let modules = root.join("target/tools/tutorial/node_modules");
        assert!(modules.join("oidc-provider").exists(), "run ./check once: it installs oidc-provider");
        let mut process = Command::new("node")
            .arg(root.join("tests/provider/provider.mjs"))
            .arg(&modules)
            .arg(client_key.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("Node.js is there: ./check sees to it");
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let issuer = lines.next().unwrap().unwrap();
        let address = issuer.strip_prefix("http://").unwrap().parse().unwrap();
        Self { process, issuer, address }
    }

    async fn post(&self, path: &str, form: &str) -> Value {
        let basic = STANDARD.encode("app:app-secret-of-some-length");
        let mut connection = Connection::open(self.address).await;
        connection
            .write(format!(
                "POST {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Basic {basic}\r\nConnection: close\r\n\
                 Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{form}",
                self.address,
                form.len()
            ))
            .await;
        connection.reply().await.unwrap().json()
    }

    /// An access token for this API.
    async fn token(&self, resource: &str) -> String {
        let form =
            format!("grant_type=client_credentials&scope=read&resource=https://api.example.com/{resource}");
        let answer = self.post("/token", &form).await;
        answer["access_token"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    }

    async fn revoke(&self, token: &str) {
        self.post("/token/revocation", &format!("token={token}")).await;
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn yaml(provider: &Provider, client: &str, more: &str) -> String {
    format!(
        "
issuers:
  - name: main
    issuer: {}
    keys: {{ discovery: true }}
    audiences: [https://api.example.com/opaque, https://api.example.com/jwt]
    introspection:
      discovery: true
      client: {{ {client} }}
      cache: 100ms
      negative_cache: 100ms
      {more}
routes:
  - match: {{ path: /orders/** }}
    require: {{ issuers: [main], scopes: [read] }}
    identity_headers: {{ X-Auth-Client: client_id }}
    upstream: api
",
        provider.issuer
    )
}

/// A private key in PEM form, and the public one as a JWK.
fn client_key() -> (String, Value) {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let der = pair.to_pkcs8v1().unwrap();
    let pem = format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
        STANDARD.encode(der.as_ref())
    );
    let point = pair.public_key().as_ref();
    let jwk = json!({
        "kty": "EC", "crv": "P-256", "kid": "c1", "use": "sig", "alg": "ES256",
        "x": base64url(&point[1..33]), "y": base64url(&point[33..]),
    });
    (pem, jwk)
}

#[tokio::test]
async fn opaque_tokens_are_introspected_by_every_kind_of_client() {
    let (pem, jwk) = client_key();
    let provider = Provider::start(&jwk);
    let dir = std::sync::Arc::new(tempfile::TempDir::new().unwrap());
    std::fs::write(dir.path().join("client.pem"), pem).unwrap();
    for (client, more) in [
        ("id: basic, client_secret_basic: basic-secret-of-some-length", ""),
        ("id: post, client_secret_post: post-secret-of-some-length", ""),
        ("id: jwt, private_key_jwt: { private_key: client.pem, algorithm: ES256, key_id: c1 }", ""),
        ("id: signed, client_secret_basic: signed-secret-of-some-length", "signed: true"),
    ] {
        let gateway =
            TestGateway::start_in(std::sync::Arc::clone(&dir), &yaml(&provider, client, more)).await;
        gateway.wait_until_ready().await;
        let ask = async |token: &str| verdict(&gateway.get("/orders/1", token, &[]).await);
        let token = provider.token("opaque").await;
        assert!(!token.contains('.'), "opaque");
        assert_eq!(ask(&token).await, "200", "{client}");
        let received = gateway.received("/orders/1");
        assert_eq!(received[0].headers["x-auth-client"], "app");
        assert_eq!(ask(&format!("{token}x")).await, "401 VAL-020 not_recognized", "{client}");
        assert_eq!(
            ask(&provider.token("elsewhere").await).await,
            "401 VAL-020 audience_mismatch",
            "{client}"
        );
        assert_eq!(ask(&provider.token("jwt").await).await, "200", "{client}: a JWT needs no question");
        provider.revoke(&token).await;
        eventually("taken back", || async { ask(&token).await == "401 VAL-020 not_recognized" }).await;
    }
    let wrong = yaml(&provider, "id: basic, client_secret_basic: not-the-secret-of-this-client", "");
    let gateway = TestGateway::start(&wrong).await;
    let reply = gateway.get("/orders/1", &provider.token("opaque").await, &[]).await;
    support::refused(&reply, "VAL-052", "introspection_failed");
}
