//! `/reload`: has the configuration read from its file and put in force, and says what came of it.

use http::{Method, StatusCode};
use schemars::JsonSchema;
use serde::Serialize;

use crate::admin::answer::{json, problem};
use crate::admin::reloads::ReloadHandle;
use crate::admin::{Call, Endpoint, Operation, Reply};

/// The endpoint.
#[derive(Debug)]
pub struct Reload(pub ReloadHandle);

/// A configuration that was put in force.
#[derive(Serialize, JsonSchema)]
struct Reloaded {
    /// The paths of the fields that differ from those before, and files whose content does; never values.
    changes: Vec<String>,
}

impl Endpoint for Reload {
    fn path(&self) -> &'static str {
        "/reload"
    }

    fn operations(&self) -> Vec<Operation> {
        let about = "Reads the configuration from its file and puts it in force, as a whole.";
        vec![
            Operation::new(Method::POST, about)
                .answers::<Reloaded>(StatusCode::OK, "It is in force.")
                .refuses(StatusCode::CONFLICT, "It is not; the one before stays."),
        ]
    }

    fn answer<'c>(&'c self, _: &'c Call) -> Reply<'c> {
        Box::pin(async {
            match self.0.reload().await {
                Ok(changes) => json(StatusCode::OK, &Reloaded { changes }),
                Err(why) => problem(StatusCode::CONFLICT, &why),
            }
        })
    }
}
