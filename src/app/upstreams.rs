//! Upstreams as the data plane has them, made from those of the configuration.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use http::HeaderValue;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use crate::config::settings;
use crate::upstream::{
    Balancing, BalancingMethod, Ejection, Endpoint, HealthCheck, OwnCertificate, Protocol, Retries, Upstream,
    UpstreamLimits, UpstreamSettings, UpstreamTimeouts, tls_config,
};

/// One upstream.
pub fn build(upstream: &settings::Upstream) -> Result<Arc<Upstream>> {
    build_one(upstream).with_context(|| format!("upstream {}", upstream.name))
}

fn build_one(upstream: &settings::Upstream) -> Result<Arc<Upstream>> {
    let protocol = match upstream.protocol {
        settings::Protocol::Auto => Protocol::Auto,
        settings::Protocol::Http1 => Protocol::Http1,
        settings::Protocol::Http2 => Protocol::Http2,
    };
    let roots = upstream.tls.ca.as_deref().map(certificates).transpose()?.unwrap_or_default();
    let own = upstream.tls.client_certificate.as_ref().map(own_certificate).transpose()?;
    let needs_tls = upstream.endpoints.iter().any(|endpoint| endpoint.tls);
    let tls = needs_tls.then(|| tls_config(roots, protocol, own).map(Arc::new)).transpose()?;
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
        timeouts: UpstreamTimeouts {
            connect: upstream.connect_timeout,
            response: upstream.response_timeout,
            idle: upstream.idle_timeout,
        },
        protocol,
        max_idle: upstream.max_idle_connections,
        resolve_interval: upstream.resolve_interval,
        balancing: balancing(upstream.balancing),
        health_check: upstream.health_check.as_ref().map(health_check).transpose()?,
        ejection: ejection(upstream.ejection),
        retries: retries(&upstream.retries),
        limits: UpstreamLimits {
            requests: upstream.limits.requests,
            connections: upstream.limits.connections,
            pending: upstream.limits.pending,
        },
    })))
}

fn balancing(balancing: settings::Balancing) -> Balancing {
    let method = match balancing.method {
        settings::BalancingMethod::LeastRequest => BalancingMethod::LeastRequest,
        settings::BalancingMethod::RoundRobin => BalancingMethod::RoundRobin,
    };
    Balancing { method, panic_percent: balancing.panic_percent }
}

fn health_check(check: &settings::HealthCheck) -> Result<HealthCheck> {
    let host = check.host.as_ref().map(|host| HeaderValue::from_str(host.as_str())).transpose()?;
    Ok(HealthCheck {
        path: check.path.clone(),
        host,
        interval: check.interval,
        timeout: check.timeout,
        healthy_after: check.healthy_after,
        unhealthy_after: check.unhealthy_after,
        statuses: check.statuses.clone(),
    })
}

fn ejection(ejection: settings::Ejection) -> Ejection {
    Ejection {
        consecutive_failures: ejection.consecutive_failures,
        time: ejection.time,
        max_time: ejection.max_time,
        max_percent: ejection.max_percent,
    }
}

fn retries(retries: &settings::Retries) -> Retries {
    Retries {
        attempts: retries.attempts,
        budget_percent: retries.budget_percent,
        budget_min: retries.budget_min,
        buffer: retries.buffer,
        statuses: retries.statuses.clone(),
        grpc_unavailable: retries.grpc_unavailable,
    }
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
