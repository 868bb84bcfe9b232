//! `/log-level`: how much the gateway says about itself, changed while it runs.

use std::borrow::Cow;

use http::{Method, StatusCode};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::now;
use crate::admin::answer::{Answer, json, problem};
use crate::admin::{Call, Endpoint, Operation, Reply};
use crate::telemetry::logging::LevelHandle;

/// The endpoint; `None` where the log is not this process's to set, as in tests.
#[derive(Debug)]
pub struct LogLevel(pub Option<LevelHandle>);

/// What is logged.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Level {
    /// A level for all, and after commas levels for modules: `info,valgate::feeds=debug`.
    level: LevelText,
}

#[derive(Serialize, Deserialize)]
struct LevelText(String);

impl JsonSchema for LevelText {
    fn schema_name() -> Cow<'static, str> {
        "LevelText".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let level = "(off|error|warn|info|debug|trace)";
        json_schema!({
            "type": "string",
            "maxLength": MAX_TEXT,
            "pattern": format!("^{level}(,[a-z][a-z0-9_]*(::[a-z][a-z0-9_]*)*={level})*$"),
        })
    }
}

const MAX_TEXT: usize = 1000;

impl Endpoint for LogLevel {
    fn path(&self) -> &'static str {
        "/log-level"
    }

    fn operations(&self) -> Vec<Operation> {
        let gone = "The log of this process is not the gateway's to set.";
        vec![
            Operation::get::<Level>("What is logged.").refuses(StatusCode::CONFLICT, gone),
            Operation::new(
                Method::PUT,
                "Sets what is logged, until it is set again or the gateway restarts.",
            )
            .takes::<Level>()
            .answers::<Level>(StatusCode::OK, "As it is now.")
            .refuses(StatusCode::CONFLICT, gone),
        ]
    }

    fn answer<'c>(&'c self, call: &'c Call) -> Reply<'c> {
        let Some(handle) = &self.0 else {
            return now(problem(
                StatusCode::CONFLICT,
                "The log of this process is not the gateway's to set.",
            ));
        };
        now(if call.method == Method::PUT { set(handle, &call.body) } else { tell(handle) })
    }
}

fn tell(handle: &LevelHandle) -> Answer {
    match handle.current() {
        Ok(level) => json(StatusCode::OK, &Level { level: LevelText(level) }),
        Err(error) => problem(StatusCode::CONFLICT, &error.to_string()),
    }
}

fn set(handle: &LevelHandle, body: &[u8]) -> Answer {
    let Ok(Level { level: LevelText(level) }) = serde_json::from_slice(body) else {
        return problem(
            StatusCode::BAD_REQUEST,
            "The body must be a JSON object such as {\"level\": \"debug\"}.",
        );
    };
    if level.len() > MAX_TEXT {
        return problem(StatusCode::BAD_REQUEST, "The level is too long.");
    }
    match handle.set(&level) {
        Ok(()) => {
            tracing::warn!(?level, "the log level was changed by an administrator");
            tell(handle)
        }
        Err(error) => problem(StatusCode::BAD_REQUEST, &error.to_string()),
    }
}
