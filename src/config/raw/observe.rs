//! `health`, `admin`, `access_log`, `audit_log`, `log`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::SecretText;

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

/// A private address for everything privileged. Exactly one of `address` and `socket`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// IP address and port. On a loopback address whoever can connect may do everything, unless there is a `token`.
    /// Any other address needs `tls`, with `tls.client_ca` or a `token`.
    pub address: Option<String>,
    /// Path of a Unix socket, to which only the user of the gateway may connect. Relative to the configuration file.
    pub socket: Option<String>,
    /// A token that requests must carry as `Authorization: Bearer`: at least 16 characters.
    pub token: Option<SecretText>,
    /// TLS on `address`.
    pub tls: Option<AdminTls>,
    /// The refusals that are kept for whoever asks why.
    #[serde(default)]
    pub refusals: Refusals,
}

/// What the admin listener presents, and whom it lets in.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdminTls {
    /// PEM file with the certificate chain, leaf first. Relative to the configuration file.
    pub certificate: String,
    /// PEM file with its private key.
    pub private_key: String,
    /// PEM file with the authorities whose client certificates are let in; without it no certificate is asked for.
    pub client_ca: Option<String>,
}

/// The refusals that are kept in memory, found by request id or token fingerprint.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Refusals {
    /// How many each core keeps; `0` for none. One takes some 2 KiB.
    pub keep: u64,
    /// Claims that are kept with their values; of all others only the name is.
    pub claims: Vec<String>,
}

/// One line for each request, or `off`.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum AccessLog {
    Off(Off),
    On(AccessLogFields),
}

/// A security log of its own: who was refused where and why, keys that come and go, revocations and configurations
/// that change, calls of the admin listener. JSON, one object a line.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuditLog {
    /// `stdout`, `stderr`, or `{ file: PATH }`.
    pub output: LogOutput,
    /// The most lines of one reason or event in a second, 1 to 10000, so that an attack fills no disk. How many were
    /// left out is told.
    #[serde(default = "audit_lines")]
    pub lines_per_second: u64,
}

fn audit_lines() -> u64 {
    10
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

impl Default for Refusals {
    fn default() -> Self {
        let claims =
            ["iss", "aud", "sub", "client_id", "azp", "exp", "nbf", "iat", "jti", "sid", "scope", "scp"];
        Self { keep: 256, claims: claims.map(str::to_owned).to_vec() }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: LogLevel::Info, format: LogFormat::Text }
    }
}
