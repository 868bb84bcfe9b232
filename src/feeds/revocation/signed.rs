//! A feed that is signed: what its answers must prove before they are looked into.
//!
//! On an untrusted way somebody may change, hold back or repeat an answer. The signature tells the first; that it must
//! be young, the second; that its serial never goes back, not even over a restart, the third. An answer without
//! signature says nothing here, so neither does 304: there is no `ETag` in this.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::store::replace_file;
use crate::clock::Clock;
use crate::keys::{Algorithm, KeySource};
use crate::token::{StatementFault, StatementRules, verify_payload};

/// What the answers of a signed feed must prove.
#[derive(Clone, Debug)]
pub struct SignedSettings {
    /// The keys of who signs.
    pub keys: Arc<KeySource>,
    /// Accepted algorithms.
    pub algorithms: Vec<Algorithm>,
    /// What `iss` must be.
    pub issuer: String,
    /// What `aud` must be or have.
    pub audience: String,
    /// How old a signature may be.
    pub max_age: Duration,
    /// Tolerance on its time.
    pub leeway: Duration,
}

/// The judge of one feed's signatures.
#[derive(Debug)]
pub(super) struct Signed {
    settings: SignedSettings,
    rules: StatementRules,
    clock: Clock,
    serial: u64,
    kept_in: Option<PathBuf>,
}

/// The members that a signed document has besides.
#[derive(Deserialize)]
struct Claims {
    iss: Option<String>,
    aud: Option<Audience>,
    iat: Option<i64>,
    serial: Option<u64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

/// Why an answer proves nothing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SignedFault {
    #[error("the signed answer is refused: {0}")]
    Statement(StatementFault),
    #[error("the signed answer is not the one asked for: its {0} is missing or another")]
    Claim(&'static str),
    #[error(
        "the signature is too old or from the future: the answer was held back on the way, or the clocks differ"
    )]
    Age,
    #[error("the answer is older than one that was heard before (serial): it was replayed on the way")]
    Replayed,
}

/// The document in a signed answer of a feed.
///
/// # Errors
/// What it does not prove.
pub async fn open_signed(answer: &[u8], settings: SignedSettings, clock: Clock) -> Result<Vec<u8>, String> {
    let opened = Signed::new(settings, clock, None).open(answer).await;
    opened.map(|(document, _)| document).map_err(|fault| fault.to_string())
}

impl Signed {
    /// A judge that knows the highest serial from before a restart, if `state` is where it is kept.
    pub(super) fn new(settings: SignedSettings, clock: Clock, state: Option<(&Path, &str)>) -> Self {
        let rules = StatementRules {
            types: &["valgate-feed+jwt"],
            allow_untyped: false,
            algorithms: settings.algorithms.clone(),
        };
        let kept_in = state.map(|(directory, stem)| directory.join(format!("{stem}.serial")));
        let serial =
            kept_in.as_ref().and_then(|path| std::fs::read_to_string(path).ok()?.trim().parse().ok());
        Self { settings, rules, clock, serial: serial.unwrap_or(0), kept_in }
    }

    /// The document in an answer that proves where it comes from, and its serial.
    pub(super) async fn open(&self, answer: &[u8]) -> Result<(Vec<u8>, u64), SignedFault> {
        let malformed = || SignedFault::Statement(StatementFault::Malformed("it is not text".to_owned()));
        let text = std::str::from_utf8(answer).map_err(|_| malformed())?.trim_ascii();
        let payload = verify_payload(text, &self.rules, &self.settings.keys, &self.clock)
            .await
            .map_err(SignedFault::Statement)?;
        let claims: Claims = serde_json::from_slice(&payload).map_err(|_| SignedFault::Claim("form"))?;
        let serial = self.check(&claims)?;
        Ok((payload, serial))
    }

    /// The answer with this serial is in force.
    pub(super) fn taken(&mut self, serial: u64) -> io::Result<()> {
        if serial <= self.serial {
            return Ok(());
        }
        self.serial = serial;
        let Some(path) = &self.kept_in else { return Ok(()) };
        replace_file(path, |file| io::Write::write_all(file, serial.to_string().as_bytes()))
    }

    fn check(&self, claims: &Claims) -> Result<u64, SignedFault> {
        let SignedSettings { issuer, audience, max_age, leeway, .. } = &self.settings;
        if claims.iss.as_ref() != Some(issuer) {
            return Err(SignedFault::Claim("iss"));
        }
        let meant = match &claims.aud {
            Some(Audience::One(one)) => one == audience,
            Some(Audience::Many(many)) => many.contains(audience),
            None => false,
        };
        if !meant {
            return Err(SignedFault::Claim("aud"));
        }
        let now = self.clock.wall();
        let signed_at = claims.iat.ok_or(SignedFault::Claim("iat"))?;
        if signed_at > now.plus(*leeway).0 || signed_at < now.minus(max_age.saturating_add(*leeway)).0 {
            return Err(SignedFault::Age);
        }
        let serial = claims.serial.ok_or(SignedFault::Claim("serial"))?;
        if serial < self.serial { Err(SignedFault::Replayed) } else { Ok(serial) }
    }
}
