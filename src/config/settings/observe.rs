//! Probes, administration, logs.

use std::net::SocketAddr;
use std::path::PathBuf;

/// The open address for `/livez` and `/readyz`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Where it is bound.
    pub address: SocketAddr,
    /// Whether `/metrics` is served here too.
    pub metrics: bool,
}

/// The private address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Where it is bound; always loopback.
    pub address: SocketAddr,
}

/// How requests are logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLog {
    /// How a line looks.
    pub format: LogFormat,
    /// Where lines go.
    pub output: LogOutput,
}

/// What valgate says about itself, on standard error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// The least important lines that are written.
    pub level: tracing::Level,
    /// How a line looks.
    pub format: LogFormat,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object.
    Json,
    /// `name=value` pairs.
    Text,
}

/// Where log lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogOutput {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Appended to this file.
    File(PathBuf),
}
