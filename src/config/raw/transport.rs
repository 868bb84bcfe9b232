//! How a source is reached: what sections that fetch something share.

use schemars::JsonSchema;
use serde::Deserialize;

use super::SecretText;

/// A client certificate.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientCertificate {
    /// PEM file with the certificate and its chain, leaf first.
    pub certificate: String,
    /// PEM file with its private key, unencrypted.
    pub private_key: String,
}

/// A proxy on the way out. It opens a tunnel (HTTP CONNECT), so that it sees neither credentials nor answers
/// of `https://` sources. `http://` sources need `insecure_allow_http`, on loopback too: that is the proxy's own then.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Proxy {
    /// Its address: `http://proxy.example.com:3128`.
    pub url: String,
    /// Value of the `Proxy-Authorization` header: `Basic ${PROXY_CREDENTIALS}`, or `file:PATH` of a file that holds it.
    pub authorization: Option<SecretText>,
}
