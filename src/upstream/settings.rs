//! What is configured of an upstream; shared by all cores, never changed.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

pub use crate::config::settings::{
    Balancing, BalancingMethod, Ejection, HealthCheck, Protocol, Retries, UpstreamLimits, UpstreamTimeouts,
};

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
