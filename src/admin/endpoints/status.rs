//! `/status`: how the gateway is, on one page, with the reasons for what is not well.

use http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;

use super::now;
use crate::admin::answer::json;
use crate::admin::in_force::InForce;
use crate::admin::readiness::{Readiness, Report, SourceState};
use crate::admin::{Call, Endpoint, Operation, Reply};
use crate::clock::Clock;

/// The endpoint.
#[derive(Debug)]
pub struct Status {
    /// Whether it should get traffic.
    pub readiness: Readiness,
    /// What it runs on.
    pub in_force: InForce,
    /// For the time since the start.
    pub clock: Clock,
}

/// How the gateway is.
#[derive(Serialize, JsonSchema)]
struct Overview {
    /// The version of valgate.
    version: &'static str,
    /// Its process id.
    pid: u32,
    /// Seconds since it started.
    uptime_seconds: u64,
    /// One word for all of it.
    state: State,
    /// What is not well, a sentence each; empty if all is.
    reasons: Vec<String>,
    /// Which configuration is in force; `/config` shows it.
    config: ConfigurationStatus,
    /// What `/readyz` tells.
    readiness: Report,
}

/// How the gateway is, in one word.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum State {
    /// Not yet ready for traffic.
    Starting,
    /// All is well.
    Well,
    /// It serves, but something that it relies on is in trouble.
    Degraded,
    /// On its way out.
    Draining,
}

/// The configuration in force.
#[derive(Serialize, JsonSchema)]
struct ConfigurationStatus {
    /// Counts the configurations since the start, from 1.
    generation: u64,
    /// When it came into force (RFC 3339).
    loaded_at: String,
}

impl Endpoint for Status {
    fn path(&self) -> &'static str {
        "/status"
    }

    fn operations(&self) -> Vec<Operation> {
        vec![Operation::get::<Overview>("How the gateway is, with the reasons for what is not well.")]
    }

    fn answer<'c>(&'c self, _: &'c Call) -> Reply<'c> {
        let readiness = self.readiness.report();
        let reasons = reasons(&readiness);
        let generation = self.in_force.current();
        let state = match &readiness {
            report if report.draining => State::Draining,
            report if !report.ready => State::Starting,
            _ if !reasons.is_empty() => State::Degraded,
            _ => State::Well,
        };
        now(json(
            StatusCode::OK,
            &Overview {
                version: env!("CARGO_PKG_VERSION"),
                pid: std::process::id(),
                uptime_seconds: self.clock.monotonic().0.as_secs(),
                state,
                reasons,
                config: ConfigurationStatus {
                    generation: generation.number,
                    loaded_at: generation.loaded_at.to_string(),
                },
                readiness,
            },
        ))
    }
}

fn reasons(report: &Report) -> Vec<String> {
    let mut reasons = Vec::new();
    if report.draining {
        reasons.push("It was told to stop and serves what is in flight.".to_owned());
    }
    if !report.listening {
        reasons.push("Its sockets are not bound yet.".to_owned());
    }
    if let Some(why) = &report.configuration {
        reasons.push(format!("Configuration: {why}."));
    }
    for source in report.sources.iter().filter(|source| source.state != SourceState::Loaded) {
        let why = source.why.as_deref().unwrap_or("not loaded yet");
        reasons.push(format!("{}: {why}.", source.name));
    }
    reasons
}
