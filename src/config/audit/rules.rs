//! The rules of the audit, section by section of the file.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::Severity::{High, Low, Medium};
use super::{Auditor, Rule};
use crate::config::build::is_loopback;
use crate::config::place::Place;
use crate::config::settings::{
    Access, AdminPlace, Audiences, Config, FeedSource, Issuer, JwksLocation, KeySettings, Listener,
    ListenerKind, Route, Upstream, WhenStale,
};
use crate::config::tree::{Node, Value};
use crate::keys::Algorithm;
use crate::policy::Enforcement;
use crate::token::Binding;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// All rules.
pub fn apply(config: &Config, auditor: &mut Auditor<'_>) {
    let root = Place::root();
    for (index, settings) in config.listeners.iter().enumerate() {
        listener(settings, &root.field("listeners").index(index), auditor);
    }
    admin(config, &root, auditor);
    for (index, settings) in config.issuers.iter().enumerate() {
        issuer(settings, &root.field("issuers").index(index), auditor);
    }
    for (index, settings) in config.feeds.iter().enumerate() {
        if let FeedSource::Http(http) = &settings.source
            && http.authorization.is_none()
            && !is_loopback(&http.url)
        {
            auditor.add(
                ("open_feed", Low, "CWE-306"),
                &root.field("feeds").index(index),
                "the feed is asked without credentials, so whoever reaches it can read who was revoked",
                "give it `authorization: Bearer ${FEED_TOKEN}`",
            );
        }
    }
    for (index, settings) in config.upstreams.iter().enumerate() {
        upstream(settings, &root.field("upstreams").index(index), auditor);
    }
    for (index, settings) in config.routes.iter().enumerate() {
        route(settings, &root.field("routes").index(index), auditor);
    }
    let forwarded = root.field("forwarded").field("trusted_proxies");
    wide_networks(&forwarded, "may say where its requests come from", auditor);
    insecure(auditor.tree, &root, auditor);
}

fn listener(listener: &Listener, place: &Place, auditor: &mut Auditor<'_>) {
    match &listener.kind {
        ListenerKind::Plaintext if !listener.address.ip().is_loopback() => auditor.add(
            ("plaintext_listener", High, "RFC 6750 section 5.3, RFC 9700 section 2.6"),
            &place.field("plaintext"),
            "tokens arrive here unencrypted, and whoever is on the way can use them",
            "give it `tls`, or bind it to a loopback address behind what ends TLS",
        ),
        ListenerKind::Tls(tls) if tls.hsts.is_none() => auditor.add(
            ("no_hsts", Low, "RFC 6797"),
            &place.field("tls"),
            "browsers are not told to stay with HTTPS",
            "add `hsts: { max_age: 365d }` if browsers call this API",
        ),
        _ => {}
    }
    let from = |field: &str| place.field(field).field("from");
    wide_networks(&from("proxy_protocol"), "may say where its connections come from", auditor);
    wide_networks(&from("decision"), "may ask for verdicts, and say who asked for what", auditor);
}

fn admin(config: &Config, root: &Place, auditor: &mut Auditor<'_>) {
    let place = root.field("admin");
    if let Some(admin) = &config.admin {
        match &admin.place {
            AdminPlace::Address(_) if admin.token.is_none() => auditor.add(
                ("open_admin", Low, "CWE-306"),
                &place.field("address"),
                "every user and container that shares this network namespace may administer the gateway",
                "use `socket`, or add a `token`",
            ),
            AdminPlace::Tls(address, tls) if !address.ip().is_loopback() && tls.client_ca.is_none() => {
                auditor.add(
                    ("admin_by_token_alone", Medium, "CWE-308"),
                    &place.field("address"),
                    "the admin listener is reachable from elsewhere, and one text is all that is asked for",
                    "add `tls.client_ca`, or use `socket`",
                );
            }
            _ => {}
        }
    }
    if config.health.as_ref().is_some_and(|health| health.metrics && !health.address.ip().is_loopback()) {
        auditor.add(
            ("open_metrics", Low, "CWE-200"),
            &root.field("health").field("metrics"),
            "metrics tell anyone who connects the names of routes and issuers",
            "let Prometheus scrape `admin`, or keep the port inside",
        );
    }
}

fn issuer(issuer: &Issuer, place: &Place, auditor: &mut Auditor<'_>) {
    // insecure_accept_any_audience is among the names that say it themselves.
    if let Audiences::AnyOf(audiences) = &issuer.audiences
        && audiences.len() > 3
    {
        auditor.add(
            ("many_audiences", Low, "RFC 9700 section 2.3"),
            &place.field("audiences"),
            "tokens for many APIs are accepted, and each of those can call this one with what it receives",
            "name this API alone",
        );
    }
    match issuer.max_lifetime {
        None => auditor.add(
            ("unbounded_lifetime", Low, "RFC 6750 section 5.3"),
            place,
            "tokens live as long as their issuer says, be it years",
            "add `max_lifetime: 1h`, or what the issuer really uses",
        ),
        Some(longest) if longest > DAY => auditor.add(
            ("long_lifetime", Medium, "RFC 6750 section 5.3"),
            &place.field("max_lifetime"),
            "a stolen token is good for more than a day",
            "minutes to hours are usual; clients renew",
        ),
        Some(_) => {}
    }
    if !auditor.has(&place.field("algorithms")) {
        auditor.add(
            ("algorithms_not_named", Low, "RFC 8725 section 3.1"),
            place,
            "every common algorithm is accepted, not only the issuer's own",
            "add `algorithms: [...]` with what its tokens have as `alg`",
        );
    } else if issuer.algorithms.contains(&Algorithm::EdDsa) {
        auditor.add(
            ("deprecated_algorithm", Low, "RFC 9864"),
            &place.field("algorithms"),
            "the name EdDSA is deprecated, since it does not say which curve",
            "write `Ed25519` once the issuer does",
        );
    }
    if issuer.profile.is_none() {
        auditor.add(
            ("no_profile", Low, "RFC 8725 section 3.11, RFC 9068 section 5"),
            place,
            "tokens of type JWT or of none are accepted, so an ID token for the same audience passes too",
            "add `profile: rfc9068` if the issuer's access tokens have the type at+jwt",
        );
    }
    if issuer.leeway > MINUTE {
        auditor.add(
            ("long_leeway", Low, "RFC 7519 section 4.1.4"),
            &place.field("leeway"),
            "every token is good for that long after it expired",
            "let clocks be synchronised and write `30s`",
        );
    }
    if issuer.binding == Binding::InsecureIgnore {
        auditor.add(
            ("insecure", High, "RFC 8705 section 3"),
            &place.field("binding"),
            "a token that its issuer bound to a certificate passes for whoever holds it",
            "write `if_bound`, and have the listeners ask for client certificates",
        );
    }
    if issuer.registry.as_ref().is_some_and(|registry| registry.accept_when_unavailable) {
        auditor.add(
            ("registry_fails_open", High, "CWE-636"),
            &place.field("registry").field("when_unavailable"),
            "while the register cannot be asked, tokens pass that are not on it",
            "write `reject`",
        );
    }
    if let Some(settings) = &issuer.keys {
        keys(settings, &place.field("keys"), auditor);
    }
    revocation(issuer, place, auditor);
}

fn keys(keys: &KeySettings, place: &Place, auditor: &mut Auditor<'_>) {
    if matches!(keys.location, JwksLocation::Inline(_)) {
        auditor.add(
            ("inline_keys", Low, "CWE-324"),
            &place.field("inline"),
            "the keys change only with this file, so one that leaked stays in force until somebody edits it",
            "use `jwks_url` or `discovery` where the issuer publishes its keys",
        );
    }
    let remote = matches!(keys.location, JwksLocation::Url(_) | JwksLocation::Discovery(_));
    if remote && keys.refresh_interval > HOUR {
        auditor.add(
            ("slow_key_refresh", Medium, "CWE-324"),
            &place.field("refresh_interval"),
            "a key that the issuer withdrew is trusted for that long",
            "write `5m`; the provider is asked no more often than that",
        );
    }
    if remote && keys.max_stale > 7 * DAY {
        auditor.add(
            ("long_key_staleness", Medium, "CWE-324"),
            &place.field("max_stale"),
            "who can keep the gateway from its issuer keeps a withdrawn key in force for that long",
            "write `24h`",
        );
    }
}

fn revocation(issuer: &Issuer, place: &Place, auditor: &mut Auditor<'_>) {
    let Some(revocation) = &issuer.revocation else {
        auditor.add(
            ("no_revocation", Medium, "RFC 7009"),
            place,
            "a stolen token is good until it expires, whatever the issuer learns",
            "add a feed and `revocation`; see docs/revocation-feed.md",
        );
        return;
    };
    let place = place.field("revocation");
    let rule: Rule = ("revocation_fails_open", High, "CWE-636");
    match revocation.when_stale {
        WhenStale::Accept => auditor.add(
            rule,
            &place.field("when_stale"),
            "who can keep the gateway from its feed makes revoked tokens good again",
            "write `reject`, or `{ accept_issued_within: 15m }` for young tokens only",
        ),
        WhenStale::AcceptIssuedWithin(age) if age > HOUR => auditor.add(
            (rule.0, Medium, rule.2),
            &place.field("when_stale"),
            "who can keep the gateway from its feed makes tokens good again that were revoked hours ago",
            "write a few minutes",
        ),
        WhenStale::AcceptIssuedWithin(_) | WhenStale::Reject => {}
    }
    if revocation.max_staleness > HOUR {
        auditor.add(
            ("long_staleness", Medium, "CWE-636"),
            &place.field("max_staleness"),
            "who can keep the gateway from its feed has that long before anything is refused",
            "write `10m`",
        );
    }
}

fn upstream(upstream: &Upstream, place: &Place, auditor: &mut Auditor<'_>) {
    for (index, endpoint) in upstream.endpoints.iter().enumerate() {
        let is_near = endpoint.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        if !endpoint.tls && !is_near {
            auditor.add(
                ("plaintext_upstream", Low, "RFC 9700 section 4.13"),
                &place.field("endpoints").index(index),
                "who is on the way reads the API's answers and can claim to be the gateway",
                "write `https://`, unless the network between is the host's or a mesh's own",
            );
        }
    }
}

fn route(route: &Route, place: &Place, auditor: &mut Auditor<'_>) {
    let path = place.field("match").field("path");
    let pattern = text(auditor.tree, &path).unwrap_or_default();
    match &route.access {
        Access::Public if pattern == "/**" => auditor.add(
            ("everything_is_public", High, "CWE-862"),
            &path,
            "whatever no other route matches is served to everybody",
            "name the paths that are meant to be public; without a route a request is refused",
        ),
        Access::Public if pattern.ends_with("/**") => auditor.add(
            ("broad_public_route", Medium, "CWE-862"),
            &path,
            "whatever the API ever serves below this path is served to everybody",
            "name the paths, or `/*` for one segment",
        ),
        Access::Public | Access::Certificate(_) => {}
        Access::Require(needed) => {
            if needed.scopes.is_empty() && needed.any_scopes.is_empty() && needed.claims.is_empty() {
                auditor.add(
                    ("no_scopes", Low, "RFC 9700 section 2.3"),
                    &place.field("require"),
                    "any token of these issuers will do, whatever it was granted for",
                    "add `scopes` or `claims`, unless the API decides that itself",
                );
            }
        }
    }
    if route.enforcement == Enforcement::Shadow {
        auditor.add(
            ("shadow_mode", High, "CWE-862"),
            &place.field("enforce"),
            "nobody is refused here: what the route requires is only judged and counted",
            "remove it once `valgate shadow-report` names nobody who should pass",
        );
    }
    if route.forward_token {
        auditor.add(
            ("forwarded_token", Medium, "RFC 9700 section 4.9"),
            &place.field("forward_token"),
            "the API gets the token and can call others, or this gateway, in its client's name",
            "use `identity_headers`, unless the API verifies tokens itself",
        );
    }
    if !route.allow_override_headers.is_empty() {
        auditor.add(
            ("override_headers", Medium, "CWE-444"),
            &place.field("allow_override_headers"),
            "these headers can make the API serve something other than what was authorized",
            "remove them, unless the API is known to ignore them",
        );
    }
    let allowed = route.allow;
    if allowed.encoded_slash || allowed.double_slash || allowed.path_parameters {
        auditor.add(
            ("ambiguous_paths", Low, "CWE-22"),
            &place.field("allow"),
            "the API may read these paths as others than those that were authorized",
            "keep it to routes whose API is known to read them literally",
        );
    }
}

/// Those whose word is taken should be few.
fn wide_networks(place: &Place, power: &str, auditor: &mut Auditor<'_>) {
    let Some(Value::Sequence(networks)) = auditor.tree.find(place).map(|node| &node.value) else { return };
    for index in 0..networks.len() {
        let place = place.index(index);
        let network = text(auditor.tree, &place).and_then(|text| text.parse::<IpNet>().ok());
        let is_wide = |network: &IpNet| match network {
            IpNet::V4(network) => network.prefix_len() < 8,
            IpNet::V6(network) => network.prefix_len() < 32,
        };
        if network.as_ref().is_some_and(is_wide) {
            auditor.add(
                ("wide_trusted_proxies", High, "CWE-348"),
                &place,
                format!("half the world {power}"),
                "name the networks of your own proxies",
            );
        }
    }
}

/// Every switch that is called insecure, whichever it is.
fn insecure(node: &Node, place: &Place, auditor: &mut Auditor<'_>) {
    match &node.value {
        Value::Mapping(entries) => {
            for entry in entries {
                let here = place.field(&entry.key);
                let is_on = matches!(&entry.node.value, Value::Scalar(scalar) if scalar.text == "true");
                if entry.key.starts_with("insecure_") && is_on {
                    let (reference, message) = what_is_insecure(&entry.key);
                    auditor.add(("insecure", High, reference), &here, message, "remove it outside of tests");
                }
                insecure(&entry.node, &here, auditor);
            }
        }
        Value::Sequence(nodes) => {
            for (index, node) in nodes.iter().enumerate() {
                insecure(node, &place.index(index), auditor);
            }
        }
        Value::Scalar(_) => {}
    }
}

fn what_is_insecure(name: &str) -> (&'static str, &'static str) {
    match name {
        "insecure_accept_any_audience" => (
            "RFC 8725 section 3.9, RFC 9700 section 2.3",
            "a token for any API of this issuer is accepted, so each of those can call this one",
        ),
        "insecure_accept_any_token_type" => {
            ("RFC 9700 section 2.2.2", "a refresh token passes too, if the issuer calls it active")
        }
        "insecure_allow_plaintext" => {
            ("CWE-319, CWE-345", "who is on the way can read the password, and change what the engine says")
        }
        "insecure_allow_http" => {
            ("RFC 9700 section 3", "who is on the way can read what is sent, and put in answers of their own")
        }
        _ => ("RFC 9700", "its name says it"),
    }
}

fn text<'t>(tree: &'t Node, place: &Place) -> Option<&'t str> {
    match &tree.find(place)?.value {
        Value::Scalar(scalar) => Some(&scalar.text),
        _ => None,
    }
}
