//! `/keys`: the keys of each issuer, and how old they are.

use http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;

use super::now;
use crate::admin::answer::json;
use crate::admin::in_force::InForce;
use crate::admin::{Call, Endpoint, Operation, Reply};
use crate::clock::{Clock, Monotonic};
use crate::token::Issuer;

/// The endpoint.
#[derive(Debug)]
pub struct Keys {
    /// Whose issuers.
    pub in_force: InForce,
    /// For ages.
    pub clock: Clock,
}

/// The keys of all issuers.
#[derive(Serialize, JsonSchema)]
struct KeyReport {
    issuers: Vec<IssuerKeys>,
}

/// The keys of one issuer.
#[derive(Serialize, JsonSchema)]
struct IssuerKeys {
    /// Its name in the configuration.
    name: String,
    /// Its `iss`.
    issuer: String,
    /// Seconds since the keys were last fetched or confirmed; absent before the first time.
    #[serde(skip_serializing_if = "Option::is_none")]
    age_seconds: Option<u64>,
    /// Seconds until the keys are no longer used, unless they are refreshed before.
    #[serde(skip_serializing_if = "Option::is_none")]
    usable_seconds: Option<u64>,
    /// Why the last refresh failed; absent after one that succeeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<String>,
    /// The keys in use.
    keys: Vec<PublicKey>,
}

/// One key. All of it is public.
#[derive(Serialize, JsonSchema)]
struct PublicKey {
    /// `kid`, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<String>,
    /// What it may verify.
    algorithms: Vec<&'static str>,
    /// The start of its thumbprint (RFC 7638).
    thumbprint: String,
}

impl Endpoint for Keys {
    fn path(&self) -> &'static str {
        "/keys"
    }

    fn operations(&self) -> Vec<Operation> {
        vec![Operation::get::<KeyReport>("The keys of each issuer, with their age.")]
    }

    fn answer<'c>(&'c self, _: &'c Call) -> Reply<'c> {
        let time = self.clock.monotonic();
        let issuers = self.in_force.current().issuers.iter().map(|issuer| report(issuer, time)).collect();
        now(json(StatusCode::OK, &KeyReport { issuers }))
    }
}

fn report(issuer: &Issuer, now: Monotonic) -> IssuerKeys {
    let state = issuer.keys.current();
    let keys = state.keys(now).into_iter().flat_map(|keys| keys.iter());
    IssuerKeys {
        name: issuer.name.to_string(),
        issuer: issuer.url.to_string(),
        age_seconds: issuer.keys.age(now).map(|age| age.as_secs()),
        usable_seconds: state.expires().map(|expires| now.until(expires).as_secs()),
        last_error: state.last_error().map(str::to_owned),
        keys: keys
            .map(|key| PublicKey {
                kid: key.kid().map(str::to_owned),
                algorithms: key.algorithms().iter().map(|algorithm| algorithm.name()).collect(),
                thumbprint: key.thumbprint().prefix(),
            })
            .collect(),
    }
}
