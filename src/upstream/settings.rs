//! What is configured of an upstream; shared by all cores, never changed.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, StatusCode};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

/// What is configured of a named backend service.
#[derive(Debug)]
pub struct UpstreamSettings {
    /// The name that configuration, logs and metrics use.
    pub name: Box<str>,
    /// Where it listens; never empty.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// How long to wait for it.
    pub timeouts: UpstreamTimeouts,
    /// Which HTTP it is spoken to.
    pub protocol: Protocol,
    /// The most idle connections kept to one address by one core.
    pub max_idle: usize,
    /// How often host names are resolved again.
    pub resolve_interval: Duration,
    /// How an endpoint is chosen.
    pub balancing: Balancing,
    /// How endpoints are asked whether they are well; `None` for not at all.
    pub health_check: Option<HealthCheck>,
    /// When an endpoint that fails is left alone.
    pub ejection: Ejection,
    /// When a request is sent again.
    pub retries: Retries,
    /// How much it may be given at a time.
    pub limits: UpstreamLimits,
}

/// One configured endpoint of an upstream: a name may stand for several addresses.
#[derive(Debug)]
pub struct Endpoint {
    /// The Unix socket to connect to, in place of host and port.
    pub socket: Option<Box<Path>>,
    /// Host name or address to connect to, without brackets.
    pub host: Box<str>,
    /// Port to connect to.
    pub port: u16,
    /// `host:port` as the `Host` header names it.
    pub authority: HeaderValue,
    /// TLS towards it, and the name that its certificate must have.
    pub tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    /// Its share of the requests, in relation to those of the others; at least 1.
    pub weight: u32,
}

/// How an endpoint is chosen.
#[derive(Clone, Copy, Debug)]
pub struct Balancing {
    /// Among those that may be used.
    pub method: BalancingMethod,
    /// When fewer endpoints than this share, in percent, are healthy, health is ignored and all are used.
    pub panic_percent: u32,
}

/// How an endpoint is chosen among those that may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BalancingMethod {
    /// Of two drawn by weight, the one with fewer requests of this core in flight for its weight.
    LeastRequest,
    /// In turn, by weight.
    RoundRobin,
}

/// How endpoints are asked whether they are well.
#[derive(Clone, Debug)]
pub struct HealthCheck {
    /// What is asked for, by GET.
    pub path: http::uri::PathAndQuery,
    /// The `Host`; `None` for that of the endpoint.
    pub host: Option<HeaderValue>,
    /// From one check to the next.
    pub interval: Duration,
    /// For a check, connection included.
    pub timeout: Duration,
    /// Good checks in a row that make an unhealthy endpoint healthy.
    pub healthy_after: u32,
    /// Failed checks in a row that make a healthy endpoint unhealthy.
    pub unhealthy_after: u32,
    /// The statuses of a healthy endpoint; empty for 200 to 299.
    pub statuses: Vec<StatusCode>,
}

/// When an endpoint that fails is left alone for a while.
#[derive(Clone, Copy, Debug)]
pub struct Ejection {
    /// Failures in a row; 0 for never.
    pub consecutive_failures: u32,
    /// For how long at first; twice as long each time that follows.
    pub time: Duration,
    /// For how long at most.
    pub max_time: Duration,
    /// The most endpoints that are left alone at the same time, in percent.
    pub max_percent: u32,
}

/// When a request is sent again.
#[derive(Clone, Debug)]
pub struct Retries {
    /// How often, beyond the first time; 0 for never.
    pub attempts: u32,
    /// Retries in relation to requests, in percent, over all requests of a core.
    pub budget_percent: u32,
    /// Retries that each core may make in a second however few requests there are.
    pub budget_min: u32,
    /// The most bytes of a request's body that are kept so that it can be sent again.
    pub buffer: usize,
    /// Statuses after which an idempotent request is sent again.
    pub statuses: Vec<StatusCode>,
    /// Whether a gRPC call is sent again that was answered UNAVAILABLE without a message.
    pub grpc_unavailable: bool,
}

/// How much an upstream may be given at a time.
#[derive(Clone, Copy, Debug)]
pub struct UpstreamLimits {
    /// Requests in flight from all cores; `None` for no bound but those of the clients.
    pub requests: Option<u32>,
    /// HTTP/1.1 connections in use by one core; `None` for as many as there are requests.
    pub connections: Option<usize>,
    /// Requests of one core that wait for one of them.
    pub pending: usize,
}

/// How long to wait for an upstream.
#[derive(Clone, Copy, Debug)]
pub struct UpstreamTimeouts {
    /// For a connection, TLS included.
    pub connect: Duration,
    /// From the request sent to the first byte of the response.
    pub response: Duration,
    /// For which an unused connection is kept.
    pub idle: Duration,
}

/// Which HTTP an upstream is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/2 where TLS negotiates it, else HTTP/1.1.
    Auto,
    /// HTTP/1.1 only.
    Http1,
    /// HTTP/2 only; without TLS by prior knowledge (RFC 9113 section 3.3).
    Http2,
}

/// The gateway's own certificate, for upstreams that ask for one.
#[derive(Debug)]
pub struct OwnCertificate {
    /// The certificate and the intermediate ones behind it.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its private key.
    pub key: PrivateKeyDer<'static>,
}

/// A TLS client configuration that trusts `roots`, or what the operating system trusts if there are none, and
/// negotiates the HTTP version that `protocol` says (RFC 7301). Shows `own` to who asks for a certificate.
pub fn tls_config(
    roots: Vec<CertificateDer<'static>>,
    protocol: Protocol,
    own: Option<OwnCertificate>,
) -> Result<ClientConfig, rustls::Error> {
    let mut store = RootCertStore::empty();
    if roots.is_empty() {
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    } else {
        for root in roots {
            store.add(root)?;
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(store);
    let mut config = match own {
        Some(OwnCertificate { chain, key }) => config.with_client_auth_cert(chain, key)?,
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = match protocol {
        Protocol::Auto => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        Protocol::Http1 => vec![b"http/1.1".to_vec()],
        Protocol::Http2 => vec![b"h2".to_vec()],
    };
    Ok(config)
}
