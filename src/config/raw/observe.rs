//! `health`, `admin`, `access_log`, `log`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Reserved;

/// An open address for probes and metrics.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// IP address and port for `/livez` and `/readyz`.
    pub address: String,
    /// Serve `/metrics` here too. Off, since metrics tell names of routes and issuers.
    #[serde(default)]
    pub metrics: bool,
}

/// A private address for everything privileged.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// Loopback IP address and port: whoever can connect may do everything. In this version it serves `/metrics` and
    /// the probes.
    pub address: String,
    /// A Unix socket instead of an address.
    pub socket: Option<Reserved>,
    /// A token that admin requests must carry, which makes other addresses possible.
    pub token: Option<Reserved>,
    /// TLS with client certificates, which makes other addresses possible.
    pub tls: Option<Reserved>,
}

/// One line for each request, or `off`.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum AccessLog {
    Off(Off),
    On(AccessLogFields),
}

/// The word that switches something off.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Off {
    Off,
}

/// How requests are logged.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AccessLogFields {
    /// `json`: one object a line. `text`: `name=value` pairs.
    pub format: LogFormat,
    /// `stdout`, `stderr`, or `{ file: PATH }`.
    pub output: LogOutput,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    #[default]
    Json,
    Text,
}

/// Where log lines go.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogOutput {
    #[default]
    Stdout,
    Stderr,
    File(String),
}

/// What valgate says about itself.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// The least important lines that are written.
    pub level: LogLevel,
    /// `text` for people, `json` for collectors.
    pub format: LogFormat,
}

/// Importance of a log line.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

impl Default for AccessLog {
    fn default() -> Self {
        Self::On(AccessLogFields::default())
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: LogLevel::Info, format: LogFormat::Text }
    }
}
