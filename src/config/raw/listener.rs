//! `listeners`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CertifiedKey, ClientCertificates, DurationText};

/// An address on which requests arrive. Exactly one of `tls`, `plaintext` and `redirect_to_https`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// IP address and port: `0.0.0.0:8443`, `[::]:8443`.
    pub address: String,
    /// Serve HTTPS: HTTP/1.1 and HTTP/2, by ALPN.
    pub tls: Option<Tls>,
    /// Serve without encryption. Tokens then travel in the clear: only for a loopback address, a pod's own
    /// network, or behind a load balancer that terminates TLS.
    #[serde(default)]
    pub plaintext: bool,
    /// Answer every request with a redirect to the same URL under `https`, and serve nothing.
    #[serde(default)]
    pub redirect_to_https: bool,
    /// Tell browsers to come back by HTTPS only (RFC 6797). Only with `tls`. Without it the header is not sent,
    /// since it cannot be taken back before its time.
    pub hsts: Option<Hsts>,
    /// Expect the PROXY protocol (version 1 or 2) of a load balancer at the start of every connection, TLS or not.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Serve nothing, and answer another proxy that asks whether a request may pass.
    pub decision: Option<Decision>,
}

/// How another proxy asks whether a request may pass (see docs/beside.md). Keep the address private: who may ask
/// says what is asked about.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// `forward_auth`: Traefik, Caddy, a script. `auth_request`: nginx. `ingress_nginx`: its `auth-url` annotation.
    /// `ext_authz`: Envoy, by gRPC. `ext_authz_http`: Envoy, by HTTP.
    pub protocol: DecisionProtocol,
    /// What Envoy sets before each path (its own `path_prefix`); a question without it is refused. Only with
    /// `ext_authz_http`.
    pub path_prefix: Option<String>,
    /// Networks of the proxies that may ask: `10.0.0.0/8`, or single addresses. Others are refused.
    #[serde(default = "loopback")]
    pub from: Vec<String>,
}

/// How a request is described, and the verdict told.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DecisionProtocol {
    ForwardAuth,
    AuthRequest,
    IngressNginx,
    ExtAuthz,
    ExtAuthzHttp,
}

fn loopback() -> Vec<String> {
    vec!["127.0.0.0/8".to_owned(), "::1".to_owned()]
}

/// The PROXY protocol, by which load balancers that pass bytes on unread tell the client's address.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProxyProtocol {
    /// Networks of the load balancers: `10.0.0.0/8`, or single addresses. A connection from elsewhere is closed, and
    /// so is one from there that does not begin with the protocol's header.
    pub from: Vec<String>,
}

/// What a TLS listener presents.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// Certificates, chosen by the name that the client asks for; the first serves all other names.
    pub certificates: Vec<CertifiedKey>,
    /// The oldest version of TLS that is spoken.
    #[serde(default)]
    pub min_version: TlsVersion,
    /// Ask clients for certificates (mutual TLS). Without it none is asked for.
    pub client_certificates: Option<ClientCertificates>,
}

/// A version of TLS, in quotes.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema)]
pub enum TlsVersion {
    #[default]
    #[serde(rename = "1.2")]
    Tls12,
    #[serde(rename = "1.3")]
    Tls13,
}

/// HTTP Strict Transport Security (RFC 6797).
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Hsts {
    /// How long browsers remember. A year is what preload lists ask for.
    pub max_age: DurationText,
    /// Also for all subdomains.
    pub include_subdomains: bool,
    /// Consent to be in the preload lists of browsers.
    pub preload: bool,
}

impl Default for Hsts {
    fn default() -> Self {
        Self { max_age: "365d".into(), include_subdomains: false, preload: false }
    }
}
