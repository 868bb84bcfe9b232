//! Engines that a fleet shares: Valkey and NATS.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{DurationText, SecretText};

/// Where a Valkey or Redis is. Exactly one of `address`, `cluster` and `sentinel`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Valkey {
    /// Host and port of a single server: `valkey.example.com:6379`.
    pub address: Option<String>,
    /// Hosts and ports of some nodes of a cluster. They lead to the others.
    pub cluster: Option<Vec<String>>,
    /// Sentinels, which know the primary and change it when it fails.
    pub sentinel: Option<Sentinel>,
    /// What the names of its keys begin with: `valgate:revocations` if it is a feed, `valgate:issued` if it is a
    /// registry.
    pub prefix: Option<String>,
    /// Number of the database. A cluster has only 0.
    #[serde(default)]
    pub database: u64,
    /// Name of the ACL user. Without it, the user `default`.
    pub username: Option<String>,
    /// Its password: `${VALKEY_PASSWORD}`, or `file:PATH` of a file that holds it.
    pub password: Option<SecretText>,
    /// TLS to the servers and Sentinels. `{}` trusts the system's authorities.
    pub tls: Option<EngineTls>,
    /// Connect without TLS to other addresses than loopback. Whoever is on the way can then lift revocations.
    #[serde(default)]
    pub insecure_allow_plaintext: bool,
    /// Longest time for a connection, and for an answer.
    #[serde(default = "default_timeout")]
    pub timeout: DurationText,
}

/// Sentinels of a Valkey or Redis.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sentinel {
    /// Name under which they watch the primary (`sentinel monitor NAME ...`).
    pub primary: String,
    /// Their hosts and ports.
    pub addresses: Vec<String>,
    /// Name of the ACL user of the Sentinels themselves, if they have any.
    pub username: Option<String>,
    /// Its password.
    pub password: Option<SecretText>,
}

/// A feed from NATS `JetStream`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NatsFeed {
    /// Hosts and ports of servers: `nats.example.com:4222`.
    pub servers: Vec<String>,
    /// The key-value bucket that holds the revocations. See docs/revocation-nats.md.
    #[serde(default = "default_bucket")]
    pub bucket: String,
    /// User name, beside `password`.
    pub username: Option<String>,
    /// Its password: `${NATS_PASSWORD}`, or `file:PATH` of a file that holds it.
    pub password: Option<SecretText>,
    /// A token instead of user and password.
    pub token: Option<SecretText>,
    /// The seed of an `NKey` instead: `file:PATH` of a file that holds it.
    pub nkey: Option<SecretText>,
    /// A credentials file instead, as `nsc` writes it: `file:PATH`.
    pub credentials: Option<SecretText>,
    /// TLS to the servers. `{}` trusts the system's authorities.
    pub tls: Option<EngineTls>,
    /// Connect without TLS to other addresses than loopback. Whoever is on the way can then lift revocations.
    #[serde(default)]
    pub insecure_allow_plaintext: bool,
    /// Longest time for a connection, and for an answer.
    #[serde(default = "default_timeout")]
    pub timeout: DurationText,
}

/// TLS to an engine.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EngineTls {
    /// PEM file with certificate authorities to trust instead of the system's.
    pub ca: Option<String>,
    /// Certificate to show, if the engine asks for one.
    pub client_certificate: Option<EngineCertificate>,
}

/// A client certificate and its key.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EngineCertificate {
    /// PEM file with the chain, leaf first.
    pub certificate: String,
    /// PEM file with the private key.
    pub private_key: String,
}

fn default_bucket() -> String {
    "valgate-revocations".to_owned()
}

fn default_timeout() -> DurationText {
    "5s".into()
}
