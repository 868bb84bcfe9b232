//! `/config`: the configuration in force, as it stands in its file, with secrets masked.

use http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::now;
use crate::admin::answer::json;
use crate::admin::in_force::InForce;
use crate::admin::{Call, Endpoint, Operation, Reply};

/// The endpoint.
#[derive(Debug)]
pub struct Configuration(pub InForce);

/// The configuration in force.
#[derive(Serialize, JsonSchema)]
struct ConfigurationInForce<'g> {
    /// Counts the configurations since the start, from 1.
    generation: u64,
    /// When it came into force (RFC 3339).
    loaded_at: String,
    /// The file: secrets are masked, environment variables are named and not filled in, defaults are left out.
    config: &'g Value,
}

impl Endpoint for Configuration {
    fn path(&self) -> &'static str {
        "/config"
    }

    fn operations(&self) -> Vec<Operation> {
        vec![Operation::get::<ConfigurationInForce<'_>>("The configuration in force, without its secrets.")]
    }

    fn answer<'c>(&'c self, _: &'c Call) -> Reply<'c> {
        let generation = self.0.current();
        now(json(
            StatusCode::OK,
            &ConfigurationInForce {
                generation: generation.number,
                loaded_at: generation.loaded_at.to_string(),
                config: &generation.document,
            },
        ))
    }
}
