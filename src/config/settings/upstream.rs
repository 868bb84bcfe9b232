//! Upstreams.

use std::path::PathBuf;
use std::time::Duration;

use http::uri::Authority;
use rustls_pki_types::ServerName;

use super::CertifiedKey;

/// An API behind the gateway.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// Name in logs and metrics.
    pub name: String,
    /// Used in turn; at least one, none twice.
    pub endpoints: Vec<Endpoint>,
    /// The version of HTTP that is spoken.
    pub protocol: Protocol,
    /// For endpoints with TLS.
    pub tls: UpstreamTls,
    /// Longest time for a connection with TLS to be made.
    pub connect_timeout: Duration,
    /// Longest time from the end of the request to the first byte of the answer.
    pub response_timeout: Duration,
    /// How long an idle connection is kept.
    pub idle_timeout: Duration,
    /// Idle connections that each worker keeps.
    pub max_idle_connections: usize,
}

/// One server of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The Unix socket on which it listens, in place of host and port.
    pub socket: Option<PathBuf>,
    /// Whether TLS is spoken.
    pub tls: bool,
    /// Host without brackets: a name or an IP address.
    pub host: String,
    /// Port, that of the scheme if none was written.
    pub port: u16,
    /// Host and port as `Host` or `:authority` has them, without the scheme's own port.
    pub authority: Authority,
}

/// The version of HTTP towards an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// By ALPN with TLS, HTTP/1.1 without.
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2; without TLS by prior knowledge (RFC 9113 section 3.3).
    Http2,
}

/// TLS towards an upstream.
#[derive(Clone, Debug, Default)]
pub struct UpstreamTls {
    /// Authorities to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// The name that certificates must bear, if not the endpoint's host.
    pub server_name: Option<ServerName<'static>>,
    /// The gateway's own certificate.
    pub client_certificate: Option<CertifiedKey>,
}
