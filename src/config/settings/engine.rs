//! Engines that a fleet shares: where they are, and how one gets in.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// A Valkey or Redis.
#[derive(Clone, Debug)]
pub struct Valkey {
    /// Where its primary is, or who knows.
    pub topology: ValkeyTopology,
    /// The database number; 0 in a cluster.
    pub database: u16,
    /// Name and password of an ACL user; a password without name is that of the user `default`.
    pub credentials: Option<ValkeyCredentials>,
    /// TLS, to Sentinels as well; `None` is plaintext.
    pub tls: Option<EngineTls>,
    /// For connecting, and for each answer.
    pub timeout: Duration,
}

/// Where the primary is, or who knows.
#[derive(Clone, Debug)]
pub enum ValkeyTopology {
    /// Here.
    Single(HostPort),
    /// Any of these nodes of a cluster knows which node has a key.
    Cluster(Vec<HostPort>),
    /// Any of these Sentinels knows.
    Sentinel {
        /// The name under which they watch the primary.
        primary: String,
        /// Where they are.
        addresses: Vec<HostPort>,
        /// For the Sentinels themselves.
        credentials: Option<ValkeyCredentials>,
    },
}

/// Who one is to a Valkey.
#[derive(Clone, Debug)]
pub struct ValkeyCredentials {
    /// The ACL user.
    pub username: Option<String>,
    /// Its password.
    pub password: Secret,
}

/// A NATS system with `JetStream`.
#[derive(Clone, Debug)]
pub struct Nats {
    /// Its servers, any of which will do.
    pub servers: Vec<HostPort>,
    /// Who one is.
    pub credentials: NatsCredentials,
    /// TLS; `None` is plaintext.
    pub tls: Option<EngineTls>,
    /// For connecting, and for each answer.
    pub timeout: Duration,
}

/// Who one is to a NATS system.
#[derive(Clone, Debug)]
pub enum NatsCredentials {
    /// Nobody in particular, or who the client certificate says.
    None,
    /// A user with a password.
    User {
        /// The name.
        username: String,
        /// The password.
        password: Secret,
    },
    /// A token.
    Token(Secret),
    /// The seed of an `NKey` (`SU...`).
    NKey(Secret),
    /// The text of a credentials file: a user's JWT and its seed.
    File(Secret),
}

/// A server's name or address, and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// A name, or an IP address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// TLS to an engine.
#[derive(Clone, Debug)]
pub struct EngineTls {
    /// Authorities to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// Certificate chain and private key, if the engine asks for them.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
}

/// A text that is never shown.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Wraps it.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text. Never to be logged.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}
