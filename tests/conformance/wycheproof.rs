//! The JWS vectors of C2SP/wycheproof. The file is not part of this repository; without it the tests are skipped
//! and say so.

use std::fs;
use std::path::{Path, PathBuf};

use libtest_mimic::{Failed, Trial};
use serde_json::Value;

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
    /// The vector calls it valid; valgate refuses it, on purpose.
    RefusedByUs(&'static str),
}

impl Vector {
    fn of_group(group: &Value) -> Vec<Self> {
        // HMAC groups have a private key only.
        let key = group.get("public").unwrap_or(&group["private"]);
        let tests = group["tests"].as_array().into_iter().flatten();
        tests.map(|test| Self::new(group, key, test)).collect()
    }

    fn new(group: &Value, key: &Value, test: &Value) -> Self {
        let text = |value: &Value| value.as_str().expect("the field is text").to_owned();
        let outcome = match test["result"].as_str() {
            Some("valid") => departure(key).map_or(Outcome::Accepted, Outcome::RefusedByUs),
            Some("invalid") => Outcome::Refused,
            other => panic!("an unknown result: {other:?}"),
        };
        Self {
            id: test["tcId"].as_u64().expect("a vector has a number"),
            group: text(&group["comment"]),
            comment: text(&test["comment"]),
            // A token in JSON serialization is an object in the file; what a client would send is its text.
            token: test["jws"].as_str().map_or_else(|| test["jws"].to_string(), str::to_owned),
            key: key.clone(),
            outcome,
        }
    }

    fn name(&self) -> String {
        let outcome = match self.outcome {
            Outcome::Accepted => "accepted".to_owned(),
            Outcome::Refused => "refused".to_owned(),
            Outcome::RefusedByUs(why) => format!("refused_since_{why}"),
        };
        let (group, comment) = (plain(&self.group), plain(&self.comment));
        format!("wycheproof::{:03}_{group}_{comment}::{outcome}", self.id)
    }

    fn check(&self) -> Result<(), Failed> {
        let verdict = jws::verify(&self.token, std::slice::from_ref(&self.key));
        match (self.outcome, verdict) {
            (Outcome::Accepted, Ok(_)) | (Outcome::Refused | Outcome::RefusedByUs(_), Err(_)) => Ok(()),
            (_, Ok(_)) => Err("the token was accepted".into()),
            (_, Err(why)) => Err(format!("the token was refused: {why}").into()),
        }
    }
}

/// Why a token that is valid in general is not accepted here, if so.
fn departure(key: &Value) -> Option<&'static str> {
    match (key["kty"].as_str(), key["alg"].as_str()) {
        (Some("oct"), _) => Some("hmac_is_never_accepted"),
        // RFC 7518 knows no such name; the key is for ES512.
        (_, Some("ES521")) => Some("the_key_names_an_unknown_algorithm"),
        _ => None,
    }
}

fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}
