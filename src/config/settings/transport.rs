//! How a source is reached.

use std::path::PathBuf;
use std::time::Duration;

use http::HeaderValue;
use url::Url;

/// How a source is reached, and how much of it is read.
#[derive(Clone, Debug)]
pub struct Transport {
    /// Longest time of one exchange.
    pub timeout: Duration,
    /// Largest answer, in bytes.
    pub max_size: u64,
    /// Authorities to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// What to show to the source.
    pub client_certificate: Option<ClientCertificate>,
    /// The way out.
    pub proxy: Option<Proxy>,
    /// Whether `http://` is allowed to addresses other than loopback.
    pub insecure_allow_http: bool,
}

/// A client certificate and its key, in PEM files.
#[derive(Clone, Debug)]
pub struct ClientCertificate {
    /// The chain, leaf first.
    pub certificate: PathBuf,
    /// The key.
    pub private_key: PathBuf,
}

/// A proxy that opens tunnels.
#[derive(Clone, Debug)]
pub struct Proxy {
    /// Its address, with `http`.
    pub url: Url,
    /// The `Proxy-Authorization` header, marked sensitive so that it is never printed.
    pub authorization: Option<HeaderValue>,
}
