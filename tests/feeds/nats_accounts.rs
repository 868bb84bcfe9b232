//! NATS with decentralized accounts: an operator that signs accounts, which sign users, who log in with the credentials
//! file that `nsc` writes. All of it is made here, as the format is documented.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};
use tempfile::TempDir;
use valgate::config::settings::{NatsCredentials, Secret};
use valgate::revocation::RevocationEngine;

use crate::fleet::{Node, REVOKED, Subject, behaves_like_an_engine, yaml};
use crate::nats::engine_as;
use crate::support::engines::Engine;
use crate::support::{Signer, base64url, eventually, now};

/// Who a key is of: the first letter of its public form.
const OPERATOR: u8 = 14 << 3;
const ACCOUNT: u8 = 0;
const USER: u8 = 20 << 3;
const SEED: u8 = 18 << 3;

struct NKey {
    pair: Ed25519KeyPair,
    seed: [u8; 32],
    kind: u8,
}

impl NKey {
    fn new(kind: u8) -> Self {
        let mut seed = [0; 32];
        aws_lc_rs::rand::fill(&mut seed).unwrap();
        Self { pair: Ed25519KeyPair::from_seed_unchecked(&seed).unwrap(), seed, kind }
    }

    fn public(&self) -> String {
        encoded(&[&[self.kind], self.pair.public_key().as_ref()].concat())
    }

    fn seed(&self) -> String {
        encoded(&[&[SEED | self.kind >> 5, (self.kind & 31) << 3], self.seed.as_slice()].concat())
    }

    /// A JWT by this key on another.
    fn on(&self, subject: &Self, nats: &Value) -> String {
        let header = json!({ "typ": "JWT", "alg": "ed25519-nkey" });
        let claims = json!({
            "jti": "any", "iat": now(), "iss": self.public(), "sub": subject.public(), "name": "any",
            "nats": nats,
        });
        let part = |value: &Value| base64url(value.to_string().as_bytes());
        let input = format!("{}.{}", part(&header), part(&claims));
        let signature = self.pair.sign(input.as_bytes());
        format!("{input}.{}", base64url(signature.as_ref()))
    }
}

/// Base32 of the bytes and their CRC-16 (XMODEM).
fn encoded(bytes: &[u8]) -> String {
    let crc = bytes.iter().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    });
    let bytes = [bytes, &crc.to_le_bytes()].concat();
    let bits: Vec<u8> =
        bytes.iter().flat_map(|byte| (0..8).rev().map(move |place| byte >> place & 1)).collect();
    bits.chunks(5)
        .map(|five| {
            let value = (0..5).fold(0, |value, place| value << 1 | five.get(place).unwrap_or(&0));
            char::from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"[usize::from(value)])
        })
        .collect()
}

/// A credentials file for a new user of this account.
fn credentials(account: &NKey) -> String {
    let user = NKey::new(USER);
    let all =
        json!({ "type": "user", "version": 2, "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1 });
    format!(
        "-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\n\
         ************************* IMPORTANT *************************\n\
         NKEY Seed printed below can be used to sign and prove identity.\n\n\
         -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
        account.on(&user, &all),
        user.seed()
    )
}

#[tokio::test]
async fn a_credentials_file_is_enough() {
    let signer = Signer::es256("k1");
    let (operator, system, account) = (NKey::new(OPERATOR), NKey::new(ACCOUNT), NKey::new(ACCOUNT));
    let limits = |storage: i64| {
        json!({
            "type": "account", "version": 2, "default_permissions": { "pub": {}, "sub": {} },
            "limits": {
                "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true,
                "conn": -1, "leaf": -1, "mem_storage": storage, "disk_storage": storage, "streams": storage,
                "consumer": storage,
            },
        })
    };
    let itself = json!({ "type": "operator", "version": 2, "system_account": system.public() });
    let server = Engine::nats(&format!(
        "operator: {}\nresolver: MEMORY\nresolver_preload: {{ {}: {}, {}: {} }}\n",
        operator.on(&operator, &itself),
        system.public(),
        operator.on(&system, &limits(0)),
        account.public(),
        operator.on(&account, &limits(-1)),
    ))
    .await;

    let by = |text: &str| engine_as(&server, NatsCredentials::File(Secret::new(text.to_owned())), None);
    let writer = by(&credentials(&account));
    writer.lift(&[Subject::new(&signer).fact]).await.unwrap();
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("gateway.creds");
    let feed = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let address = server.address();
        format!("nats: {{ servers: [\"{address}\"], credentials: \"file:{}\", timeout: 1s }}", file.display())
    };
    let node = Node::start(yaml(&signer, &feed(&credentials(&account)))).await;
    behaves_like_an_engine(&writer, &node, &signer).await;
    let subject = Subject::new(&signer);
    writer.revoke(&[subject.revocation()]).await.unwrap();
    node.until(&subject.token, REVOKED, "by its file").await;

    // A user of an account that the operator never signed, and a file that is none.
    for text in [credentials(&NKey::new(ACCOUNT)), "nothing".to_owned()] {
        let error = by(&text).revoke(&[Subject::new(&signer).revocation()]).await.unwrap_err().to_string();
        assert!(error.contains("credentials") && !error.contains("BEGIN"), "{error}");
        let stranger = Node::start_unready(yaml(&signer, &feed(&text))).await;
        eventually("it is refused", || async { stranger.count("failures").await > 0 }).await;
        assert_eq!(stranger.ask(&subject.token).await, "503 VAL-051 feed_not_loaded");
    }
}
