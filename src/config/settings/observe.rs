//! Probes, administration, logs.

use std::net::SocketAddr;
use std::path::PathBuf;

use http::HeaderValue;

use super::{CarriedProbe, CertifiedKey};

/// The open address for `/livez` and `/readyz`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Where it is bound.
    pub address: SocketAddr,
    /// Whether `/metrics` is served here too.
    pub metrics: bool,
    /// Probes of the application behind the gateway; not of the file, but of who runs the gateway beside it.
    pub carried: Vec<CarriedProbe>,
}

/// The private address.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Where it is.
    pub place: AdminPlace,
    /// What requests must carry after `Authorization: Bearer`, marked sensitive so that it is never printed.
    pub token: Option<HeaderValue>,
    /// What is kept of refusals.
    pub refusals: Refusals,
}

/// Where the private address is. Other than on loopback and a Unix socket a proof is demanded: a client certificate,
/// or the token, by TLS.
#[derive(Clone, Debug)]
pub enum AdminPlace {
    /// An IP address.
    Address(SocketAddr),
    /// An IP address, by TLS.
    Tls(SocketAddr, AdminTls),
    /// A Unix socket.
    Socket(PathBuf),
}

/// TLS of the private address.
#[derive(Clone, Debug)]
pub struct AdminTls {
    /// What is presented.
    pub certificate: CertifiedKey,
    /// Whose client certificates are let in; none: no certificate is asked for.
    pub client_ca: Option<PathBuf>,
}

/// The refusals that are kept in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusals {
    /// How many by each core.
    pub keep: usize,
    /// Claims that are kept with their values.
    pub claims: Vec<String>,
}

/// How requests are logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLog {
    /// How a line looks.
    pub format: LogFormat,
    /// Where lines go.
    pub output: LogOutput,
}

/// How what concerns security is logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditLog {
    /// Where lines go.
    pub output: LogOutput,
    /// The most lines of one reason or event in a second; at least 1.
    pub lines_per_second: u32,
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
