//! Listeners.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

/// An address on which requests arrive.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Where it is bound.
    pub address: SocketAddr,
    /// What is spoken there.
    pub kind: ListenerKind,
    /// Networks of load balancers whose connections begin with the PROXY protocol; none: no connection does.
    pub proxy_protocol: Option<Vec<IpNet>>,
    /// How it answers another proxy that asks about requests; none: it serves requests itself.
    pub decision: Option<Decision>,
}

/// How another proxy asks whether a request may pass.
#[derive(Clone, Debug)]
pub struct Decision {
    /// How requests are described and verdicts told.
    pub protocol: DecisionProtocol,
    /// Networks of the proxies that may ask; at least one.
    pub from: Vec<IpNet>,
}

/// How requests are described and verdicts told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DecisionProtocol {
    /// Headers describe the request; status, headers and body tell the verdict.
    ForwardAuth,
    /// The same, and the body of a refusal in a header as well.
    AuthRequest,
    /// The headers that ingress-nginx sends; a status that its clients can be told.
    IngressNginx,
    /// Envoy's `envoy.service.auth.v3.Authorization`.
    ExtAuthz,
    /// Envoy's `http_service`: the question is the request's own head.
    ExtAuthzHttp {
        /// What stands before the path; may be empty.
        path_prefix: Box<str>,
    },
}

/// What a listener speaks.
#[derive(Clone, Debug)]
pub enum ListenerKind {
    /// HTTPS.
    Tls(Tls),
    /// HTTP without encryption.
    Plaintext,
    /// HTTP that only redirects to HTTPS.
    RedirectToHttps,
}

/// What a TLS listener presents.
#[derive(Clone, Debug)]
pub struct Tls {
    /// At least one; the first serves names that no other bears.
    pub certificates: Vec<CertifiedKey>,
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
    /// The client certificates that are asked for; none: none are.
    pub client_certificates: Option<ClientCertificates>,
    /// What `Strict-Transport-Security` says; none: not sent.
    pub hsts: Option<Hsts>,
}

/// Client certificates that are asked for.
#[derive(Clone, Debug)]
pub struct ClientCertificates {
    /// PEM file of the authorities that issue them.
    pub ca: PathBuf,
    /// Files of what these authorities have revoked; none: that is not looked at.
    pub crls: Vec<PathBuf>,
    /// Whether a connection without one is refused.
    pub required: bool,
}

/// PEM files of a certificate chain and its private key.
#[derive(Clone, Debug)]
pub struct CertifiedKey {
    /// The chain, leaf first.
    pub certificate: PathBuf,
    /// The key.
    pub private_key: PathBuf,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names are the standard's")]
pub enum TlsVersion {
    Tls12,
    Tls13,
}

/// HTTP Strict Transport Security (RFC 6797 section 6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hsts {
    /// How long browsers remember.
    pub max_age: Duration,
    /// Also for all subdomains.
    pub include_subdomains: bool,
    /// Consent to preload lists.
    pub preload: bool,
}
