//! Upstreams as the data plane has them, made from those of the configuration.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use http::HeaderValue;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use crate::config::settings;
use crate::upstream::{Endpoint, OwnCertificate, Upstream, UpstreamSettings, tls_config};

/// One upstream.
pub fn build(upstream: &settings::Upstream) -> Result<Arc<Upstream>> {
    build_one(upstream).with_context(|| format!("upstream {}", upstream.name))
}

fn build_one(upstream: &settings::Upstream) -> Result<Arc<Upstream>> {
    let roots = upstream.tls.ca.as_deref().map(certificates).transpose()?.unwrap_or_default();
    let own = upstream.tls.client_certificate.as_ref().map(own_certificate).transpose()?;
    let needs_tls = upstream.endpoints.iter().any(|endpoint| endpoint.tls);
    let tls = needs_tls.then(|| tls_config(roots, upstream.protocol, own).map(Arc::new)).transpose()?;
    let endpoint = |endpoint: &settings::Endpoint| -> Result<Arc<Endpoint>> {
        let server_name = match &upstream.tls.server_name {
            Some(name) => name.clone(),
            None => ServerName::try_from(endpoint.host.clone())?,
        };
        Ok(Arc::new(Endpoint {
            socket: endpoint.socket.as_deref().map(Box::from),
            host: endpoint.host.as_str().into(),
            port: endpoint.port,
            authority: HeaderValue::from_str(endpoint.authority.as_str())?,
            tls: tls.clone().filter(|_| endpoint.tls).map(|tls| (tls, server_name)),
            weight: endpoint.weight,
        }))
    };
    Ok(Arc::new(Upstream::new(UpstreamSettings {
        name: upstream.name.as_str().into(),
        endpoints: upstream.endpoints.iter().map(endpoint).collect::<Result<_>>()?,
        timeouts: upstream.timeouts,
        protocol: upstream.protocol,
        max_idle: upstream.max_idle_connections,
        resolve_interval: upstream.resolve_interval,
        balancing: upstream.balancing,
        health_check: upstream.health_check.clone(),
        ejection: upstream.ejection,
        retries: upstream.retries.clone(),
        limits: upstream.limits,
    })))
}

fn own_certificate(pair: &settings::CertifiedKey) -> Result<OwnCertificate> {
    let key = PrivateKeyDer::from_pem_file(&pair.private_key)
        .with_context(|| format!("{}", pair.private_key.display()))?;
    Ok(OwnCertificate { chain: certificates(&pair.certificate)?, key })
}

/// All certificates of a PEM file.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("{}", path.display()))
}
