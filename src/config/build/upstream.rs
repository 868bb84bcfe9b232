//! `upstreams`.

use http::uri::Authority;
use rustls_pki_types::ServerName;
use url::Host;

use super::values::{DAY, HOUR, MILLISECOND, SECOND};
use super::{Build, all, each};
use crate::config::place::Place;
use crate::config::raw;
use crate::config::settings::{Endpoint, Protocol, Upstream, UpstreamTimeouts, UpstreamTls};

/// Sockets that a worker may hold for one upstream.
const MAX_IDLE_CONNECTIONS: u64 = 65_536;
/// Enough for any ratio that can be told from its neighbours.
const MAX_WEIGHT: u64 = 1_000;

impl Build<'_, '_> {
    pub(super) fn upstream(&mut self, raw: &raw::Upstream, place: &Place) -> Option<Upstream> {
        let endpoints = self.endpoints(&raw.endpoints, &place.field("endpoints"));
        let tls = self.optional(raw.tls.as_ref(), |build, raw| build.upstream_tls(raw, &place.field("tls")));
        if let Some(endpoints) = &endpoints
            && raw.tls.is_some()
            && !endpoints.iter().any(|endpoint| endpoint.tls)
        {
            let remedy = "remove it, or write the endpoints with `https://`";
            self.mistakes.add(&place.field("tls"), "no endpoint of this upstream speaks TLS", remedy);
        }
        let here = place.field("timeouts");
        let connect = self.duration(&raw.timeouts.connect, &here.field("connect"), MILLISECOND, HOUR);
        let response = self.duration(&raw.timeouts.response, &here.field("response"), MILLISECOND, DAY);
        let total = self.optional(raw.timeouts.total.as_ref(), |build, total| {
            build.duration(total, &here.field("total"), MILLISECOND, DAY)
        });
        let idle = self.duration(&raw.timeouts.idle, &here.field("idle"), MILLISECOND, DAY);
        let max_idle = self.count(
            raw.max_idle_connections,
            &place.field("max_idle_connections"),
            0,
            MAX_IDLE_CONNECTIONS,
        );
        let resolve = place.field("resolve_interval");
        let resolve_interval = self.duration(&raw.resolve_interval, &resolve, SECOND, DAY);
        let balancing = self.balancing(&raw.balancing, &place.field("balancing"));
        let health_check = self.optional(raw.health_check.as_ref(), |build, raw| {
            build.health_check(raw, &place.field("health_check"))
        });
        let ejection = self.ejection(&raw.ejection, &place.field("ejection"));
        let retries = self.retries(&raw.retries, &place.field("retries"));
        let limits = self.upstream_limits(&raw.limits, &place.field("limits"));
        Some(Upstream {
            name: raw.name.clone(),
            endpoints: endpoints?,
            protocol: match raw.protocol {
                raw::Protocol::Auto => Protocol::Auto,
                raw::Protocol::Http1 => Protocol::Http1,
                raw::Protocol::Http2 => Protocol::Http2,
            },
            tls: tls?.unwrap_or_default(),
            timeouts: UpstreamTimeouts { connect: connect?, response: response?, total: total?, idle: idle? },
            max_idle_connections: usize::try_from(max_idle?).ok()?,
            resolve_interval: resolve_interval?,
            balancing: balancing?,
            health_check: health_check?,
            ejection: ejection?,
            retries: retries?,
            limits: limits?,
        })
    }

    fn endpoints(&mut self, raw: &[raw::Endpoint], place: &Place) -> Option<Vec<Endpoint>> {
        self.not_empty(raw, place, "requests must go somewhere")?;
        let texts: Vec<String> = raw.iter().map(|endpoint| endpoint.url().to_owned()).collect();
        self.no_repeats(&texts, place);
        let endpoints = each(raw, place, |raw, place| match raw {
            raw::Endpoint::Url(url) => self.endpoint(url, raw.weight(), place, place),
            raw::Endpoint::Detailed(detailed) => {
                self.endpoint(&detailed.url, raw.weight(), &place.field("url"), &place.field("weight"))
            }
        });
        all(endpoints)
    }

    fn endpoint(&mut self, text: &str, weight: u64, place: &Place, weight_place: &Place) -> Option<Endpoint> {
        let weight = self.count(weight, weight_place, 1, MAX_WEIGHT).map(u32::try_from);
        if let Some(path) = text.strip_prefix("unix:") {
            let socket = self.socket(path, place);
            return Some(Endpoint { weight: weight?.ok()?, ..socket? });
        }
        let url = self.url(text, place)?;
        let credentials = !url.username().is_empty() || url.password().is_some();
        if credentials || url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            let remedy = "write scheme, host and port only: paths are forwarded as they come";
            self.mistakes.add(place, "an endpoint has no path, query or credentials", remedy);
            return None;
        }
        let host = match url.host()? {
            Host::Domain(name) => name.to_owned(),
            Host::Ipv4(address) => address.to_string(),
            Host::Ipv6(address) => address.to_string(),
        };
        let text = url.port().map_or_else(
            || url.host_str().unwrap_or_default().to_owned(),
            |port| format!("{}:{port}", url.host_str().unwrap_or_default()),
        );
        let Ok(authority) = text.parse::<Authority>() else {
            self.mistakes.add(
                place,
                "the host cannot be the value of `Host`",
                "write a host name or an IP address",
            );
            return None;
        };
        let port = url.port_or_known_default().filter(|port| *port != 0);
        let Some(port) = port else {
            self.mistakes.add(place, "the port is 0", "write the port on which the API listens");
            return None;
        };
        Some(Endpoint {
            socket: None,
            tls: url.scheme() == "https",
            host,
            port,
            authority,
            weight: weight?.ok()?,
        })
    }

    /// An endpoint on this host that is no place in the network: its `Host` is `localhost`.
    fn socket(&mut self, path: &str, place: &Place) -> Option<Endpoint> {
        if !path.starts_with('/') || path.ends_with('/') {
            let remedy = "write its absolute path: `unix:/run/orders.sock`";
            self.mistakes.add(place, format!("`{path}` is not the path of a Unix socket"), remedy);
            return None;
        }
        Some(Endpoint {
            socket: Some(path.into()),
            tls: false,
            host: "localhost".to_owned(),
            port: 0,
            authority: Authority::from_static("localhost"),
            weight: 1,
        })
    }

    fn upstream_tls(&mut self, raw: &raw::UpstreamTls, place: &Place) -> Option<UpstreamTls> {
        let ca = self.optional(raw.ca.as_deref(), |build, path| build.file(path, &place.field("ca")));
        let server_name = self.optional(raw.server_name.as_ref(), |build, name| {
            let parsed = ServerName::try_from(name.clone()).ok();
            if parsed.is_none() {
                let remedy = "write a host name as the certificate has it";
                build.mistakes.add(
                    &place.field("server_name"),
                    format!("`{name}` is not a host name"),
                    remedy,
                );
            }
            parsed
        });
        let client_certificate = self.optional(raw.client_certificate.as_ref(), |build, raw| {
            build.certified_key(raw, &place.field("client_certificate"))
        });
        Some(UpstreamTls { ca: ca?, server_name: server_name?, client_certificate: client_certificate? })
    }
}
