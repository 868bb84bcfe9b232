//! `listeners`, and that no address is bound twice.

use std::net::SocketAddr;

use ipnet::IpNet;

use super::values::DAY;
use super::{Build, all, each};
use crate::config::place::Place;
use crate::config::raw;
use crate::config::settings::{
    ClientCertificates, Decision, DecisionProtocol, Hsts, Listener, ListenerKind, Tls, TlsVersion,
};

impl Build<'_, '_> {
    pub(super) fn listeners(&mut self, raw: &[raw::Listener], place: &Place) -> Vec<Option<Listener>> {
        each(raw, place, |raw, place| self.listener(raw, place))
    }

    /// Two sockets on one address: the second bind would fail, or worse, share its connections.
    pub(super) fn distinct_addresses(&mut self, raw: &raw::Config) {
        let root = Place::root();
        let mut texts: Vec<(&str, Place)> = Vec::new();
        for (index, listener) in raw.listeners.iter().enumerate() {
            texts.push((&listener.address, root.field("listeners").index(index).field("address")));
        }
        texts.extend(
            raw.health.iter().map(|health| (health.address.as_str(), root.field("health").field("address"))),
        );
        let admin = raw.admin.as_ref().and_then(|admin| admin.address.as_deref());
        texts.extend(admin.map(|address| (address, root.field("admin").field("address"))));
        let mut taken: Vec<(SocketAddr, Place)> = Vec::new();
        for (text, place) in texts {
            let Ok(address) = text.parse::<SocketAddr>() else { continue };
            match taken.iter().find(|(other, _)| clash(*other, address)) {
                Some((_, other)) => {
                    let line = self.mistakes.line_of(other);
                    let message = format!("`{text}` is already taken by `{other}`, on line {line}");
                    self.mistakes.add(&place, message, "choose another port");
                }
                None => taken.push((address, place)),
            }
        }
    }

    fn listener(&mut self, raw: &raw::Listener, place: &Place) -> Option<Listener> {
        let address = self.address(&raw.address, &place.field("address"));
        let one = self.exactly_one(
            place,
            &[
                ("tls", raw.tls.is_some()),
                ("plaintext", raw.plaintext),
                ("redirect_to_https", raw.redirect_to_https),
            ],
        );
        if raw.hsts.is_some() && raw.tls.is_none() {
            let remedy =
                "move it to a listener with `tls`: browsers ignore it elsewhere (RFC 6797 section 8.1)";
            self.mistakes.add(&place.field("hsts"), "only possible with `tls`", remedy);
        }
        let hsts = self.optional(raw.hsts.as_ref(), |build, raw| build.hsts(raw, &place.field("hsts")));
        let tls = self.optional(raw.tls.as_ref(), |build, raw| build.tls(raw, &place.field("tls")));
        let proxy_protocol = self.optional(raw.proxy_protocol.as_ref(), |build, raw| {
            build.load_balancers(raw, &place.field("proxy_protocol"))
        });
        let decision = self.optional(raw.decision.as_ref(), |build, decision| {
            build.decision(decision, raw, &place.field("decision"))
        });
        let kind = match (one, tls?) {
            (Some(()), Some(tls)) => ListenerKind::Tls(Tls { hsts: hsts?, ..tls }),
            (Some(()), None) if raw.plaintext => ListenerKind::Plaintext,
            (Some(()), None) => ListenerKind::RedirectToHttps,
            (None, _) => return None,
        };
        Some(Listener { address: address?, kind, proxy_protocol: proxy_protocol?, decision: decision? })
    }

    fn decision(&mut self, raw: &raw::Decision, listener: &raw::Listener, place: &Place) -> Option<Decision> {
        for (is_there, name, why) in [
            (listener.redirect_to_https, "redirect_to_https", "a redirect is no verdict"),
            (listener.hsts.is_some(), "hsts", "a proxy asks here, no browser"),
            (
                listener.proxy_protocol.is_some(),
                "proxy_protocol",
                "it would hide from which address is asked",
            ),
        ] {
            if is_there {
                let message = format!("not possible together with `{name}`");
                self.mistakes.add_at_key(place, message, format!("remove `{name}`: {why}"));
            }
        }
        let here = place.field("from");
        self.not_empty(&raw.from, &here, "only proxies in networks that are named here are answered")?;
        let protocol = self.decision_protocol(raw, place);
        Some(Decision { from: self.networks(&raw.from, &here)?, protocol: protocol? })
    }

    fn decision_protocol(&mut self, raw: &raw::Decision, place: &Place) -> Option<DecisionProtocol> {
        let path_prefix = raw.path_prefix.as_deref().unwrap_or_default();
        let place = place.field("path_prefix");
        if raw.path_prefix.is_some() && !matches!(raw.protocol, raw::DecisionProtocol::ExtAuthzHttp) {
            let remedy = "remove it: the other protocols tell the path in a field of its own";
            self.mistakes.add_at_key(&place, "only possible with `protocol: ext_authz_http`", remedy);
        }
        let is_path = path_prefix.starts_with('/')
            && path_prefix.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#'));
        if raw.path_prefix.is_some() && !is_path {
            let remedy = "write what Envoy has as its `path_prefix`, such as `/check`";
            self.mistakes.add(&place, format!("`{path_prefix}` is not the beginning of a path"), remedy);
            return None;
        }
        Some(match raw.protocol {
            raw::DecisionProtocol::ForwardAuth => DecisionProtocol::ForwardAuth,
            raw::DecisionProtocol::AuthRequest => DecisionProtocol::AuthRequest,
            raw::DecisionProtocol::IngressNginx => DecisionProtocol::IngressNginx,
            raw::DecisionProtocol::ExtAuthz => DecisionProtocol::ExtAuthz,
            raw::DecisionProtocol::ExtAuthzHttp => {
                DecisionProtocol::ExtAuthzHttp { path_prefix: path_prefix.into() }
            }
        })
    }

    /// A route that is only decided about needs somebody who asks.
    pub(super) fn somebody_asks_for_decisions(&mut self, raw: &raw::Config) {
        if raw.listeners.iter().any(|listener| listener.decision.is_some()) {
            return;
        }
        for (index, _) in raw.routes.iter().enumerate().filter(|(_, route)| route.decision) {
            let place = Place::root().field("routes").index(index).field("decision");
            let remedy = "give a listener `decision`, or the route an `upstream`";
            self.mistakes.add(&place, "no listener answers questions about it", remedy);
        }
    }

    fn load_balancers(&mut self, raw: &raw::ProxyProtocol, place: &Place) -> Option<Vec<IpNet>> {
        let place = place.field("from");
        self.not_empty(&raw.from, &place, "only connections from networks that are named here are served")?;
        self.networks(&raw.from, &place)
    }

    fn tls(&mut self, raw: &raw::Tls, place: &Place) -> Option<Tls> {
        let here = place.field("certificates");
        self.not_empty(&raw.certificates, &here, "TLS needs a certificate");
        let certificates = each(&raw.certificates, &here, |raw, place| self.certified_key(raw, place));
        let client_certificates = self.optional(raw.client_certificates.as_ref(), |build, raw| {
            let here = place.field("client_certificates");
            let ca = build.file(&raw.ca, &here.field("ca"));
            build.no_repeats(&raw.crls, &here.field("crls"));
            let crls = all(each(&raw.crls, &here.field("crls"), |path, place| build.file(path, place)));
            Some(ClientCertificates { ca: ca?, crls: crls?, required: raw.required })
        });
        let min_version = match raw.min_version {
            raw::TlsVersion::Tls12 => TlsVersion::Tls12,
            raw::TlsVersion::Tls13 => TlsVersion::Tls13,
        };
        Some(Tls {
            certificates: all(certificates)?,
            min_version,
            client_certificates: client_certificates?,
            hsts: None,
        })
    }

    fn hsts(&mut self, raw: &raw::Hsts, place: &Place) -> Option<Hsts> {
        let max_age =
            self.duration(&raw.max_age, &place.field("max_age"), std::time::Duration::ZERO, DAY * 3650)?;
        if raw.preload && (!raw.include_subdomains || max_age < DAY * 365) {
            let remedy = "preload lists demand `include_subdomains: true` and a `max_age` of at least `365d`";
            self.mistakes.add(&place.field("preload"), "would be refused by preload lists", remedy);
        }
        Some(Hsts { max_age, include_subdomains: raw.include_subdomains, preload: raw.preload })
    }
}

/// Port 0 asks for any free port and clashes with nothing; an unspecified address covers all others.
fn clash(a: SocketAddr, b: SocketAddr) -> bool {
    let covers = a.ip() == b.ip()
        || (a.is_ipv4() == b.is_ipv4() && (a.ip().is_unspecified() || b.ip().is_unspecified()));
    a.port() == b.port() && a.port() != 0 && covers
}
