//! A token that verifies, changed in any way, does not verify: by the whole verifier, claims and all.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use libtest_mimic::{Failed, Trial};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use valgate::clock::{Clock, UnixSeconds};
use valgate::keys::{Algorithm, KeySource, KeySourceSettings};
use valgate::token::{
    Audiences, BearerToken, Expectations, FailFast, Inputs, Issuer, IssuerId, IssuerSet, Issuers,
    LookedAgain, Verdict, Verifier,
};

use super::jws;

const NOW: UnixSeconds = UnixSeconds(1_800_000_000);
const ISSUER: &str = "https://id.example.com/";

pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test("mutation::the_tokens_verify_unchanged", unchanged),
        Trial::test("mutation::a_changed_ed25519_token_is_never_verified", || changed(Fixture::ed25519)),
        Trial::test("mutation::a_changed_es256_token_is_never_verified", || changed(Fixture::es256)),
        Trial::test("mutation::parts_of_two_tokens_never_verify_together", swapped),
    ]
}

fn unchanged() -> Result<(), Failed> {
    for fixture in [Fixture::ed25519(), Fixture::es256()] {
        for token in &fixture.tokens {
            if !fixture.is_verified(token) {
                return Err("a good token was refused: the other tests would prove nothing".into());
            }
        }
    }
    Ok(())
}

fn changed(fixture: fn() -> Fixture) -> Result<(), Failed> {
    let fixture = fixture();
    let [token, _] = &fixture.tokens;
    let change = (any::<Index>(), any::<Index>(), any::<u8>(), 0..7_u8);
    run(change, |(at, other, byte, kind)| {
        let mut bytes = token.clone().into_bytes();
        let (at, other) = (at.index(bytes.len()), other.index(bytes.len()));
        match kind {
            0 => bytes[at] ^= 1 << (byte % 8),
            1 => drop(bytes.remove(at)),
            2 => bytes.insert(at, byte),
            3 => bytes.truncate(at),
            4 => bytes.swap(at, other),
            5 => bytes[at] = byte,
            _ => bytes.splice(at..at, token.bytes().skip(other)).for_each(drop),
        }
        bytes != token.as_bytes() && std::str::from_utf8(&bytes).is_ok_and(|text| fixture.is_verified(text))
    })
}

fn swapped() -> Result<(), Failed> {
    let (one, other) = (Fixture::ed25519(), Fixture::es256());
    let tokens: Vec<String> = one.tokens.iter().chain(&other.tokens).cloned().collect();
    let parts: Vec<Vec<&str>> = tokens.iter().map(|token| token.split('.').collect()).collect();
    let part = || 0..parts.len();
    run((part(), part(), part()), |(header, claims, signature)| {
        let token = [parts[header][0], parts[claims][1], parts[signature][2]].join(".");
        !tokens.contains(&token) && (one.is_verified(&token) || other.is_verified(&token))
    })
}

/// Fails if `is_wrongly_verified` holds for any of many inputs.
fn run<S: Strategy>(inputs: S, is_wrongly_verified: impl Fn(S::Value) -> bool) -> Result<(), Failed> {
    let config = Config { cases: 4096, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&inputs, |input| {
        prop_assert!(!is_wrongly_verified(input), "a changed token was verified");
        Ok(())
    });
    outcome.map_err(|error| error.to_string().into())
}

/// An issuer with one key, its verifier, and two tokens that it issued.
struct Fixture {
    verifier: Verifier,
    trusted: IssuerSet,
    clock: Clock,
    tokens: [String; 2],
}

impl Fixture {
    fn ed25519() -> Self {
        let pair = Ed25519KeyPair::generate().unwrap();
        let x = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
        let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "kid": "k", "x": x });
        Self::new(&jwk, Algorithm::Ed25519, |input| pair.sign(input).as_ref().to_vec())
    }

    fn es256() -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let point = pair.public_key().as_ref();
        let [x, y] = [&point[1..33], &point[33..]].map(|half| URL_SAFE_NO_PAD.encode(half));
        let jwk = json!({ "kty": "EC", "crv": "P-256", "kid": "k", "x": x, "y": y });
        let sign = |input: &[u8]| pair.sign(&SystemRandom::new(), input).unwrap().as_ref().to_vec();
        Self::new(&jwk, Algorithm::Es256, sign)
    }

    fn new(jwk: &Value, algorithm: Algorithm, sign: impl Fn(&[u8]) -> Vec<u8>) -> Self {
        let (clock, _) = Clock::manual(NOW);
        let (keys, feed) = KeySource::new(clock.clone(), KeySourceSettings::default());
        feed.publish(jws::key_set(std::slice::from_ref(jwk)).unwrap());
        let expectations = Expectations {
            audiences: Audiences::AnyOf(vec!["orders-api".into()]),
            algorithms: vec![algorithm],
            leeway: Duration::from_secs(30),
            max_lifetime: None,
            required_claims: Vec::new(),
            profile: None,
            binding: valgate::token::Binding::default(),
        };
        let issuer = Issuer {
            id: IssuerId(0),
            name: "main".into(),
            url: ISSUER.into(),
            expectations,
            keys,
            introspection: None,
        };
        let tokens = ["alice", "bob"].map(|subject| {
            let header = json!({ "alg": algorithm.name(), "kid": "k", "typ": "at+jwt" });
            let claims =
                json!({ "iss": ISSUER, "aud": "orders-api", "sub": subject, "iat": NOW.0, "exp": NOW.0 + 600 });
            let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
            let input = format!("{header}.{claims}");
            let signature = URL_SAFE_NO_PAD.encode(sign(input.as_bytes()));
            format!("{input}.{signature}")
        });
        let trusted = [issuer.id].into_iter().collect();
        Self { verifier: Verifier::new(Issuers::new(vec![Arc::new(issuer)])), trusted, clock, tokens }
    }

    fn is_verified(&self, token: &str) -> bool {
        let inputs = Inputs {
            trusted: &self.trusted,
            now: self.clock.wall(),
            monotonic: self.clock.monotonic(),
            looked_again: LookedAgain::Refreshed,
            introspected: None,
        };
        BearerToken::new(token).is_some_and(|token| {
            matches!(self.verifier.verify(token, inputs, &mut FailFast), Verdict::Verified(_))
        })
    }
}
