//! Tokens that differ, for measuring what each new one costs.

use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::anyhow;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::json;

/// How the mint is called.
#[derive(clap::Args)]
pub struct Options {
    /// The private key: PKCS #8 in PEM
    #[arg(long)]
    key: PathBuf,
    #[arg(long)]
    kid: String,
    /// RS256, ES256 or EdDSA
    #[arg(long)]
    algorithm: String,
    #[arg(long)]
    issuer: String,
    #[arg(long)]
    audience: String,
    /// For how many seconds the tokens are good
    #[arg(long)]
    lifetime: u64,
    #[arg(long)]
    count: usize,
    #[arg(long)]
    out: PathBuf,
}

/// Writes the tokens.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let key = PrivatePkcs8KeyDer::from_pem_file(&options.key)?;
    let sign = signer(&options.algorithm, key.secret_pkcs8_der())?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let header = encode(&json!({ "alg": options.algorithm, "typ": "JWT", "kid": options.kid }));
    let mut out = BufWriter::new(std::fs::File::create(&options.out)?);
    for number in 0..options.count {
        let claims = json!({
            "iss": options.issuer, "sub": format!("user-{number}"), "aud": options.audience,
            "exp": now + options.lifetime, "iat": now, "jti": format!("{now:x}-{number}"),
            "scope": "orders:read orders:write", "client_id": "bench",
        });
        let signed = format!("{header}.{}", encode(&claims));
        let signature = URL_SAFE_NO_PAD.encode(sign(signed.as_bytes())?);
        writeln!(out, "{signed}.{signature}")?;
    }
    Ok(out.flush()?)
}

type Sign = Box<dyn Fn(&[u8]) -> anyhow::Result<Vec<u8>>>;

fn signer(algorithm: &str, pkcs8: &[u8]) -> anyhow::Result<Sign> {
    let random = SystemRandom::new();
    Ok(match algorithm {
        "RS256" => {
            let key = RsaKeyPair::from_pkcs8(pkcs8)?;
            Box::new(move |message| {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)?;
                Ok(signature)
            })
        }
        "ES256" => {
            let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8)?;
            Box::new(move |message| Ok(key.sign(&random, message)?.as_ref().to_vec()))
        }
        "EdDSA" => {
            let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8)?;
            Box::new(move |message| Ok(key.sign(message).as_ref().to_vec()))
        }
        other => return Err(anyhow!("no such algorithm: {other}")),
    })
}

fn encode(value: &serde_json::Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}
