//! What stands in for the world around a configuration: keys that are made for the run, and feeds that say what the
//! cases say.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::{Map, Value, json};

use super::cases::{Case, Cases};
use crate::app::{Offline, PrivateDirectory};
use crate::clock::{Clock, ClockHand, UnixSeconds};
use crate::config::Config;
use crate::config::settings::{Audiences, FeedSource, Issuer, JwksLocation, Profile};
use crate::demo::issuer::{SigningKey, sign_raw};
use crate::gateway::{Explanation, PeerCertificate};
use crate::keys::Algorithm;

/// How long a token lives that is made for a case and does not say.
const LIFETIME: Duration = Duration::from_secs(300);

/// The configuration with its stand-ins.
pub struct Bench {
    config: Config,
    /// One for each issuer.
    signers: Vec<Signer>,
    hand: ClockHand,
    made: Offline,
    /// With the issuers' real keys, where a case brings a token that they signed.
    real: Option<Offline>,
    _feeds: PrivateDirectory,
}

struct Signer {
    published: SigningKey,
    forger: SigningKey,
}

impl Bench {
    /// Makes the keys and starts the sources.
    pub async fn set_up(config: &Config, cases: &Cases) -> Result<Self> {
        let feeds = PrivateDirectory::new().context("cannot make a directory for the revocations")?;
        let path = feeds.path().join("revocations.json");
        let document =
            json!({ "version": 1, "kind": "snapshot", "epoch": "test", "entries": cases.revocations });
        std::fs::write(&path, document.to_string()).with_context(|| path.display().to_string())?;

        let mut real = Config { state_dir: None, ..config.clone() };
        for feed in &mut real.feeds {
            feed.source = FeedSource::File { path: path.clone(), interval: Duration::from_secs(3600) };
        }
        let mut made = real.clone();
        let mut signers = Vec::new();
        for issuer in &mut made.issuers {
            let published = key_for(issuer)?;
            // Who signs nothing keeps to that: a JWT of it is refused here as it is by the gateway.
            if let Some(keys) = &mut issuer.keys {
                keys.location = JwksLocation::Inline(json!({ "keys": [published.jwk()] }).to_string());
            }
            signers.push(Signer { forger: key_for(issuer)?, published });
        }
        let (clock, hand) = Clock::manual(Clock::system().wall());
        let needs_real = cases.list.iter().any(|case| case.given_token().is_some());
        Ok(Self {
            config: config.clone(),
            signers,
            hand,
            made: Offline::start(made, clock.clone()).await?,
            real: if needs_real { Some(Offline::start(real, clock).await?) } else { None },
            _feeds: feeds,
        })
    }

    /// The verdict on a case.
    pub async fn judge(&self, case: &Case) -> Result<Explanation> {
        let at = case.at()?;
        self.hand.jump_wall_to(at);
        let request = Some(case.request()?);
        // A case is a whole request: one that says nothing of a certificate shows none.
        let certificate = PeerCertificate::Seen(case.certificate.as_ref());
        if let (Some(token), Some(real)) = (case.given_token(), &self.real) {
            return Ok(real.explainer.explain(token, request, certificate).await);
        }
        let token = match &case.claims {
            None => String::new(),
            Some(claims) => self.token(case, claims, at)?,
        };
        Ok(self.made.explainer.explain(&token, request, certificate).await)
    }

    fn token(&self, case: &Case, claims: &Map<String, Value>, at: UnixSeconds) -> Result<String> {
        let (place, issuer) = case.issuer(&self.config)?;
        let signer = self.signers.get(place).context("the issuer has no key")?;
        let key = if case.forged { &signer.forger } else { &signer.published };
        let typ = if issuer.profile == Some(Profile::Rfc9068) { "at+jwt" } else { "JWT" };
        let header = json!({ "alg": key.algorithm().name(), "kid": key.kid(), "typ": typ });
        let audience = match &issuer.audiences {
            Audiences::AnyOf(audiences) => audiences.first().cloned(),
            Audiences::NotChecked => None,
        };
        let ordinary = json!({
            "iss": issuer.issuer,
            "aud": audience,
            "iat": at.0,
            "exp": at.plus(LIFETIME).0,
        });
        let mut said = claims.clone();
        for name in ["exp", "nbf", "iat"] {
            if let Some(Value::String(text)) = said.get(name) {
                let time = relative(text, at).with_context(|| {
                    format!("claim {name}: '{text}' is neither a number nor a time from then on such as +5m or -1h")
                })?;
                said.insert(name.to_owned(), time.0.into());
            }
        }
        sign_raw(&changed(header, &case.header)?, &changed(ordinary, &said)?, key)
    }
}

/// The members with others put in; null takes one out.
fn changed(members: Value, others: &Map<String, Value>) -> Result<String> {
    let Value::Object(mut members) = members else { bail!("not an object") };
    members.extend(others.clone());
    members.retain(|_, value| !value.is_null());
    Ok(Value::Object(members).to_string())
}

/// A key for an algorithm that the issuer is configured for, or for ES256, which is then added for the run.
fn key_for(issuer: &mut Issuer) -> Result<SigningKey> {
    let kid = "valgate-test";
    for algorithm in &issuer.algorithms {
        match algorithm {
            Algorithm::Es256 => return SigningKey::es256(kid),
            Algorithm::EdDsa | Algorithm::Ed25519 => return SigningKey::ed25519(kid),
            Algorithm::Rs256 if issuer.algorithms.len() == 1 => return SigningKey::rs256(kid),
            _ => {}
        }
    }
    if !issuer.algorithms.contains(&Algorithm::Es256) {
        issuer.algorithms.push(Algorithm::Es256);
    }
    SigningKey::es256(kid)
}

/// `+5m` and `-1h`, from this time on.
fn relative(text: &str, at: UnixSeconds) -> Result<UnixSeconds> {
    let wrong = || anyhow!("not a time");
    let (is_later, rest) = match text.split_at_checked(1) {
        Some(("+", rest)) => (true, rest),
        Some(("-", rest)) => (false, rest),
        _ => return Err(wrong()),
    };
    let (digits, unit) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let by = Duration::from_secs(digits.parse::<u32>().map_err(|_| wrong())?.into()) * seconds;
    Ok(if is_later { at.plus(by) } else { at.minus(by) })
}

#[cfg(test)]
mod tests {
    use super::{UnixSeconds, relative};

    #[test]
    fn times_count_from_the_time_of_the_case() {
        let at = UnixSeconds(1_000_000);
        for (text, seconds) in [("+5m", 300), ("-1h", -3600), ("+0s", 0), ("-2d", -172_800)] {
            assert_eq!(relative(text, at).unwrap(), UnixSeconds(1_000_000 + seconds), "{text}");
        }
        for wrong in ["", "5m", "+", "+m", "+5", "+5y", "tomorrow", "+99999999999s"] {
            assert!(relative(wrong, at).is_err(), "{wrong}");
        }
    }
}
