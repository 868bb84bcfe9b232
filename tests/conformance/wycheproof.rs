//! The JWS vectors of C2SP/wycheproof. The file is not part of this repository; without it the tests are skipped
//! and say so.

use std::fs;
use std::path::{Path, PathBuf};

use libtest_mimic::{Failed, Trial};
use serde_json::Value;
use valgate::token::Compact;

use super::jws;

/// Where the vectors are, unless `VALGATE_WYCHEPROOF` names another file or folder.
const DEFAULT: &str = "../shared/wycheproof";
const FILE: &str = "json_web_signature_test.json";

pub fn trials() -> Vec<Trial> {
    let path = path();
    let Ok(text) = fs::read_to_string(&path) else {
        eprintln!("wycheproof: SKIPPED, no vectors at {}", path.display());
        return vec![Trial::test("wycheproof::SKIPPED_no_vectors", || Ok(())).with_ignored_flag(true)];
    };
    let file: Value = serde_json::from_str(&text).expect("the vectors are JSON");
    let expected = file["numberOfTests"].as_u64().expect("the file says how many vectors it has");
    let vectors: Vec<Vector> = groups(&file).flat_map(Vector::of_group).collect();
    let count = vectors.len() as u64;
    let complete = Trial::test("wycheproof::every_vector_is_a_test", move || {
        if count == expected && count > 0 {
            Ok(())
        } else {
            Err(Failed::from(format!("{count} of {expected} vectors were read")))
        }
    });
    let mut trials = vec![complete];
    trials.extend(vectors.into_iter().map(|vector| {
        let name = vector.name();
        Trial::test(name, move || vector.check())
    }));
    trials
}

fn path() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let given = std::env::var_os("VALGATE_WYCHEPROOF").map_or_else(|| root.join(DEFAULT), PathBuf::from);
    if given.is_dir() { given.join(FILE) } else { given }
}

fn groups(file: &Value) -> impl Iterator<Item = &Value> {
    file["testGroups"].as_array().into_iter().flatten()
}

struct Vector {
    id: u64,
    group: String,
    comment: String,
    token: String,
    key: Value,
    outcome: Outcome,
}

/// What valgate is to do with a vector.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Accepted,
    Refused,
    /// The vector calls it valid; valgate refuses it on purpose.
    Stricter(Departure),
}

/// Why a token that is valid in general is not accepted here.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Departure {
    Hmac,
    /// The vectors of RFC 7520 add to its keys an `alg` that is not the token's: PS256 for PS384, and ES521, which
    /// RFC 7518 does not know, for ES512. A key's `alg` is honoured here. The keys as RFC 7520 prints them have none.
    AlgorithmOfKey,
}

impl Vector {
    fn of_group(group: &Value) -> Vec<Self> {
        // HMAC groups have a private key only.
        let key = group.get("public").unwrap_or(&group["private"]);
        let tests = group["tests"].as_array().into_iter().flatten();
        tests.map(|test| Self::new(group, key, test)).collect()
    }

    fn new(group: &Value, key: &Value, test: &Value) -> Self {
        let owned = |value: &Value| value.as_str().expect("the field is text").to_owned();
        // A token in JSON serialization is an object in the file; what a client would send is its text.
        let token = test["jws"].as_str().map_or_else(|| test["jws"].to_string(), str::to_owned);
        let outcome = match test["result"].as_str() {
            Some("valid") => departure(key, &token).map_or(Outcome::Accepted, Outcome::Stricter),
            Some("invalid") => Outcome::Refused,
            other => panic!("an unknown result: {other:?}"),
        };
        Self {
            id: test["tcId"].as_u64().expect("a vector has a number"),
            group: owned(&group["comment"]),
            comment: owned(&test["comment"]),
            token,
            key: key.clone(),
            outcome,
        }
    }

    fn name(&self) -> String {
        let outcome = match self.outcome {
            Outcome::Accepted => "accepted",
            Outcome::Refused => "refused",
            Outcome::Stricter(Departure::Hmac) => "refused_since_hmac_is_never_accepted",
            Outcome::Stricter(Departure::AlgorithmOfKey) => "refused_since_the_key_is_for_another_algorithm",
        };
        let (group, comment) = (plain(&self.group), plain(&self.comment));
        format!("wycheproof::{:03}_{group}_{comment}::{outcome}", self.id)
    }

    fn check(&self) -> Result<(), Failed> {
        match self.outcome {
            Outcome::Accepted => accepted(&self.token, &self.key),
            Outcome::Refused | Outcome::Stricter(Departure::Hmac) => refused(&self.token, &self.key),
            Outcome::Stricter(Departure::AlgorithmOfKey) => {
                refused(&self.token, &self.key)?;
                let mut as_printed = self.key.clone();
                as_printed.as_object_mut().expect("a key is an object").remove("alg");
                accepted(&self.token, &as_printed)
            }
        }
    }
}

fn accepted(token: &str, key: &Value) -> Result<(), Failed> {
    let verdict = jws::verify(token, std::slice::from_ref(key));
    verdict.map(drop).map_err(|why| format!("the token was refused: {why}").into())
}

fn refused(token: &str, key: &Value) -> Result<(), Failed> {
    match jws::verify(token, std::slice::from_ref(key)) {
        Ok(_) => Err("the token was accepted".into()),
        Err(_) => Ok(()),
    }
}

fn departure(key: &Value, token: &str) -> Option<Departure> {
    let of_token = Compact::parse(token).ok().map(|jws| jws.header.algorithm);
    match (key["kty"].as_str(), key["alg"].as_str()) {
        (Some("oct"), _) => Some(Departure::Hmac),
        (_, Some(of_key)) if of_token.as_deref() != Some(of_key) => Some(Departure::AlgorithmOfKey),
        _ => None,
    }
}

fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}
