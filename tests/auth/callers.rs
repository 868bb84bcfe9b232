//! Who calls the admin listener: let in by what they show, and named in the audit log.

use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{ISSUER, Signer, TestGateway, Token, get};

fn yaml(signer: &Signer, admin: &str) -> String {
    format!(
        "
audit_log: {{ output: {{ file: $DIR/audit.log }} }}
admin: {admin}
issuers:
  - {{ name: main, issuer: {ISSUER}, keys: {{ inline: {} }}, audiences: [orders-api] }}
routes:
  - {{ name: orders, match: {{ path: /orders/** }}, require: {{ issuers: [main] }}, upstream: api }}
",
        signer.jwks()
    )
}

/// `valgate token verify` with these arguments, asked for this token.
async fn verify(arguments: Vec<String>, token: &str) -> Output {
    let token = token.to_owned();
    let run = move || {
        use std::io::Write as _;

        let mut child = Command::new(env!("CARGO_BIN_EXE_valgate"))
            .args(["token", "verify"])
            .args(arguments)
            .env_remove("VALGATE_ADMIN_TOKEN")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(token.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

/// The lines on calls in the audit log of a gateway, which is stopped.
async fn calls(gateway: TestGateway) -> Vec<Value> {
    let dir = gateway.dir();
    gateway.stop().await;
    let log = std::fs::read_to_string(dir.path().join("audit.log")).unwrap();
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["event"] == "admin_called").collect()
}

/// Writes `client-ca.pem`, and `client.pem` and `client.key` of one whom it stands behind.
fn write_client_certificate(dir: &std::path::Path) {
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut client = CertificateParams::new(vec!["operator.example.org".to_owned()]).unwrap();
    client.distinguished_name.push(DnType::CommonName, "operator");
    client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = client.signed_by(&key, &ca).unwrap();
    std::fs::write(dir.join("client-ca.pem"), ca.pem()).unwrap();
    std::fs::write(dir.join("client.pem"), certificate.pem()).unwrap();
    std::fs::write(dir.join("client.key"), key.serialize_pem()).unwrap();
}

#[tokio::test]
async fn a_client_certificate_lets_a_command_in_and_names_its_bearer() {
    let signer = Signer::es256("k1");
    let dir = Arc::new(TempDir::new().unwrap());
    write_client_certificate(dir.path());
    let tls = "{ certificate: $DIR/tls.crt, private_key: $DIR/tls.key, client_ca: $DIR/client-ca.pem }";
    let yaml = yaml(&signer, &format!("{{ address: 127.0.0.1:0, tls: {tls} }}"));
    let gateway = TestGateway::start_in(Arc::clone(&dir), &yaml).await;
    gateway.wait_until_ready().await;
    std::fs::write(dir.path().join("ca.pem"), gateway.ca()).unwrap();
    let file = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let token = Token::new().sign(&signer);
    let place = format!("https://localhost:{}", gateway.admin().port());
    let with_ca = ["--live".to_owned(), place, "--live-ca".to_owned(), file("ca.pem")];

    let without = verify(with_ca.to_vec(), &token).await;
    assert_eq!(without.status.code(), Some(1), "{}", String::from_utf8_lossy(&without.stdout));
    let mine =
        ["--live-certificate".to_owned(), file("client.pem"), "--live-key".to_owned(), file("client.key")];
    let with = verify(with_ca.iter().chain(&mine).cloned().collect(), &token).await;
    assert_eq!(with.status.code(), Some(0), "{}", String::from_utf8_lossy(&with.stderr));
    let mixed_up =
        ["--live-certificate".to_owned(), file("ca.pem"), "--live-key".to_owned(), file("client.key")];
    let mixed_up = verify(with_ca.iter().chain(&mixed_up).cloned().collect(), &token).await;
    assert_eq!(mixed_up.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&mixed_up.stderr).contains("do not fit together"), "{mixed_up:?}");

    let calls = calls(gateway).await;
    assert_eq!(calls.len(), 1, "{calls:#?}");
    let call = &calls[0];
    assert_eq!((&call["path"], &call["status"]), (&json!("/token/verify"), &json!(200)));
    assert_eq!(
        (&call["certificate"], &call["client_ip"]),
        (&json!("operator.example.org"), &json!("127.0.0.1"))
    );
    assert!(call["credential"].is_null());
}

#[tokio::test]
async fn the_kernel_names_who_is_behind_a_socket() {
    let signer = Signer::es256("k1");
    let gateway = TestGateway::start(&yaml(&signer, "{ socket: $DIR/admin.sock }")).await;
    let socket = gateway.dir().path().join("admin.sock").to_str().unwrap().to_owned();
    let output = verify(vec!["--live".to_owned(), socket], &Token::new().sign(&signer)).await;
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let calls = calls(gateway).await;
    assert_eq!(calls[0]["uid"], rustix::process::getuid().as_raw(), "{calls:#?}");
    assert!(
        calls[0]["pid"].as_u64().is_some_and(|pid| pid != u64::from(std::process::id())),
        "the command's"
    );
    assert!(calls[0]["client_ip"].is_null());
}

#[tokio::test]
async fn the_token_is_told_only_of_those_who_showed_it() {
    let signer = Signer::es256("k1");
    let gateway =
        TestGateway::start(&yaml(&signer, "{ address: 127.0.0.1:0, token: s3cret-s3cret-s3cret }")).await;
    assert_eq!(get(gateway.admin(), "/status", &[]).await.status, 401);
    let authorization = [("Authorization", "Bearer s3cret-s3cret-s3cret")];
    assert_eq!(get(gateway.admin(), "/status", &authorization).await.status, 200);
    let calls = calls(gateway).await;
    let told: Vec<_> = calls.iter().map(|call| (&call["status"], &call["credential"])).collect();
    assert_eq!(told, [(&json!(401), &Value::Null), (&json!(200), &json!("admin.token"))]);
}
