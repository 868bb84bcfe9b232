//! Tokens that differ, for measuring what each new one costs, and what the cryptography alone takes of that.

use std::hint::black_box;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::anyhow;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair as _, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair,
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

/// How the library's own verification is timed.
#[derive(clap::Args)]
pub struct Verify {
    /// The private key: PKCS #8 in PEM
    #[arg(long)]
    key: PathBuf,
    /// RS256, ES256 or EdDSA
    #[arg(long)]
    algorithm: String,
    #[arg(long)]
    seconds: f64,
}

/// What a token's signature is over, about as long as that of a real one.
const SIGNED: &[u8] = &[b'x'; 420];

/// Prints how many nanoseconds the library takes to verify a signature with a key that is parsed.
pub fn verify(options: &Verify) -> anyhow::Result<()> {
    let (sign, key) = signer(&options.algorithm, &options.key)?;
    let signature = sign(SIGNED)?;
    let begun = Instant::now();
    let mut verified = 0_u32;
    while begun.elapsed() < Duration::from_secs_f64(options.seconds) {
        // Many for each look at the clock.
        for _ in 0..100 {
            key.verify_sig(black_box(SIGNED), black_box(&signature))?;
        }
        verified += 100;
    }
    println!("{}", (begun.elapsed() / verified).as_nanos());
    Ok(())
}

/// Writes the tokens.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let (sign, _) = signer(&options.algorithm, &options.key)?;
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

fn signer(algorithm: &str, key: &Path) -> anyhow::Result<(Sign, ParsedPublicKey)> {
    let key = PrivatePkcs8KeyDer::from_pem_file(key)?;
    let (pkcs8, random) = (key.secret_pkcs8_der(), SystemRandom::new());
    Ok(match algorithm {
        "RS256" => {
            let key = RsaKeyPair::from_pkcs8(pkcs8)?;
            let public = ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key.public_key())?;
            let sign = move |message: &[u8]| {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)?;
                Ok(signature)
            };
            (Box::new(sign), public)
        }
        "ES256" => {
            let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8)?;
            let public = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key.public_key())?;
            (Box::new(move |message| Ok(key.sign(&random, message)?.as_ref().to_vec())), public)
        }
        "EdDSA" => {
            let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8)?;
            let public = ParsedPublicKey::new(&ED25519, key.public_key())?;
            (Box::new(move |message| Ok(key.sign(message).as_ref().to_vec())), public)
        }
        other => return Err(anyhow!("no such algorithm: {other}")),
    })
}

fn encode(value: &serde_json::Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}
