//! Routes as the data plane has them, made from those of the configuration.

use std::sync::Arc;

use anyhow::{Result, anyhow};
use http::{HeaderValue, Method};

use crate::config::Config;
use crate::config::settings::{self, Arrival, EventFeed, FeedIndex, FeedSource};
use crate::gateway::{
    Accepts, ExpiryHint, ExpiryHints, HostHeader, IdentityHeader, IdentitySource, MetricIds, OwnRevocation,
    Receiver, ReservedNames, Revokes, Route, Routes, Service, TokenSource,
};
use crate::policy::{Access, ClaimRule, ClaimTest, Enforcement, Policy};
use crate::route::{Ambiguity, RouteId, RouteTable};
use crate::telemetry::metrics::Metrics;
use crate::token::{IssuerId, scalar_text};
use crate::upstream::AnswerTimeouts;

/// The routes and the table that finds them.
pub fn build(config: &Config) -> Result<Routes> {
    let table = RouteTable::build(config.routes.iter().map(|route| &route.matches))
        .map_err(|conflicts| anyhow!("{} routes match the same requests as another", conflicts.len()))?;
    let all = config
        .routes
        .iter()
        .enumerate()
        .map(|(place, route)| build_route(config, place, route))
        .collect::<Result<_>>()?;
    Ok(Routes::new(table, all))
}

/// Says aloud which routes refuse nobody.
pub fn warn_of_shadow_mode(config: &Config) {
    for route in config.routes.iter().filter(|route| route.enforcement == Enforcement::Shadow) {
        tracing::warn!(
            route = route.name,
            "SHADOW MODE: this route refuses nobody, requests without a good token reach its API; see \
             'valgate shadow-report', then remove `enforce: false`"
        );
    }
}

/// The header names that no client may send.
pub fn reserved_names(config: &Config) -> ReservedNames {
    ReservedNames::new(
        config.routes.iter().flat_map(|route| route.identity_headers.iter().map(|(name, _)| name)),
    )
}

/// Whether a WebSocket can be opened on any route: it begins with a GET, and an API has to be there to take it.
pub fn take_websockets(config: &Config) -> bool {
    config.routes.iter().any(|route| {
        matches!(route.service, settings::Service::Upstream(_))
            && route.matches.methods.contains(&Method::GET)
    })
}

/// Where everything is counted.
pub fn metric_ids(config: &Config, metrics: &Metrics) -> MetricIds {
    MetricIds {
        routes: config.routes.iter().map(|route| metrics.route(&route.name)).collect(),
        upstreams: config.upstreams.iter().map(|upstream| metrics.upstream(&upstream.name)).collect(),
        issuers: config.issuers.iter().map(|issuer| metrics.issuer(&issuer.name)).collect(),
    }
}

/// The value of `Strict-Transport-Security` (RFC 6797 section 6.1).
pub fn hsts_value(hsts: &settings::Hsts) -> Result<HeaderValue> {
    let mut value = format!("max-age={}", hsts.max_age.as_secs());
    if hsts.include_subdomains {
        value.push_str("; includeSubDomains");
    }
    if hsts.preload {
        value.push_str("; preload");
    }
    Ok(HeaderValue::from_str(&value)?)
}

fn build_route(config: &Config, place: usize, route: &settings::Route) -> Result<Arc<Route>> {
    let identity = |(header, source): &(http::HeaderName, settings::IdentitySource)| IdentityHeader {
        header: header.clone(),
        source: match source {
            settings::IdentitySource::Claim(path) => IdentitySource::Claim(boxed(&path.0).into()),
            settings::IdentitySource::Certificate(fact) => IdentitySource::Certificate(*fact),
        },
    };
    Ok(Arc::new(Route {
        id: RouteId(u16::try_from(place)?),
        name: route.name.as_str().into(),
        template: route.matches.path.as_str().into(),
        access: match &route.access {
            settings::Access::Public => Access::Public,
            settings::Access::Certificate(rules) => Access::Certificate(rules.clone()),
            settings::Access::Require(needed) => Access::Require(policy(needed)?),
        },
        token_from: match &route.token_from {
            settings::TokenFrom::Header => TokenSource::Header,
            settings::TokenFrom::Cookie(name) => TokenSource::Cookie(name.as_str().into()),
        },
        service: service(route, config),
        identity_headers: route.identity_headers.iter().map(identity).collect(),
        forward_token: route.forward_token,
        host: match route.host {
            settings::UpstreamHost::Preserve => HostHeader::Preserve,
            settings::UpstreamHost::Upstream => HostHeader::Upstream,
        },
        allow: ambiguities(route.allow),
        allow_override_headers: route.allow_override_headers.clone(),
        max_body: route.max_body,
        body_rate: route.body_rate,
        timeouts: answer_timeouts(config, route),
        expiry_hints: expiry_hints(config, route)?,
        error_detail: route.error_detail,
        cors: route.cors.clone().map(Arc::new),
        enforcement: route.enforcement,
    }))
}

/// The route's own, or its upstream's.
fn answer_timeouts(config: &Config, route: &settings::Route) -> AnswerTimeouts {
    let of_upstream = route.upstream().and_then(|index| config.upstreams.get(index.0));
    let of_upstream = of_upstream.map(|upstream| upstream.timeouts);
    AnswerTimeouts {
        response: route
            .timeouts
            .response
            .or(of_upstream.map(|timeouts| timeouts.response))
            .unwrap_or_default(),
        total: route
            .timeouts
            .total
            .or(of_upstream.and_then(|timeouts| timeouts.total))
            .filter(|total| !total.is_zero()),
    }
}

/// The route's own hint for all of its issuers, or each issuer's.
fn expiry_hints(config: &Config, route: &settings::Route) -> Result<ExpiryHints> {
    let settings::Access::Require(needed) = &route.access else { return Ok(ExpiryHints::default()) };
    let mut hints = Vec::new();
    for index in &needed.issuers {
        let of_issuer = config.issuers.get(index.0).and_then(|issuer| issuer.expiry_hint.as_ref());
        let Some(hint) = route.expiry_hint.as_ref().or(of_issuer) else { continue };
        let link = hint.renew_at.as_ref().map(|url| format!("<{url}>; rel=\"{RENEW}\""));
        let link = link.as_deref().map(HeaderValue::from_str).transpose()?;
        hints.push((IssuerId(u16::try_from(index.0)?), ExpiryHint { within: hint.within, link }));
    }
    Ok(hints.into_iter().collect())
}

/// No relation of this kind is registered, so it is a URI of our own (RFC 8288 section 2.1.2).
const RENEW: &str = "urn:valgate:rel:renew";

/// Who serves a route; the gateway itself does so by a feed.
fn service(route: &settings::Route, config: &Config) -> Service {
    match route.service {
        settings::Service::Upstream(upstream) => Service::Upstream(upstream.0),
        settings::Service::Receive(FeedIndex(feed)) => {
            let is_logout = config.feeds.get(feed).is_some_and(|feed| {
                matches!(
                    feed.source,
                    FeedSource::Events(EventFeed { arrival: Arrival::BackchannelLogout { .. }, .. })
                )
            });
            let accepts = if is_logout { Accepts::LogoutTokens } else { Accepts::SecurityEvents };
            Service::Receive(Receiver { feed, accepts })
        }
        settings::Service::Decision => Service::Decision,
        settings::Service::Revoke(endpoint) => Service::Revoke(OwnRevocation {
            revokes: match endpoint.revokes {
                settings::Revokes::Token => Revokes::Token,
                settings::Revokes::Session => Revokes::Session,
            },
            feed: endpoint.feed.0,
            token_lifetime: endpoint.token_lifetime,
        }),
    }
}

fn policy(needed: &settings::Requirements) -> Result<Policy> {
    let issuers = needed.issuers.iter().map(|index| Ok(IssuerId(u16::try_from(index.0)?)));
    Ok(Policy {
        issuers: issuers.collect::<Result<_>>()?,
        all_scopes: boxed(&needed.scopes),
        any_scopes: boxed(&needed.any_scopes),
        rules: needed.claims.iter().map(claim_rule).collect::<Result<_>>()?,
        client_certificate: needed.client_certificate.clone(),
    })
}

fn claim_rule(rule: &settings::ClaimRule) -> Result<ClaimRule> {
    let text = |value: &serde_json::Value| {
        scalar_text(value)
            .map(Box::from)
            .ok_or_else(|| anyhow!("claim rule '{}' compares with a list", rule.name))
    };
    Ok(ClaimRule {
        name: rule.name.as_str().into(),
        claim: boxed(&rule.claim.0),
        test: match &rule.test {
            settings::ClaimTest::Equals(value) => ClaimTest::Equals(text(value)?),
            settings::ClaimTest::Contains(value) => ClaimTest::Contains(text(value)?),
            settings::ClaimTest::OneOf(values) => {
                ClaimTest::OneOf(values.iter().map(text).collect::<Result<_>>()?)
            }
        },
    })
}

fn ambiguities(allowed: settings::AllowedSpellings) -> Vec<Ambiguity> {
    [
        (allowed.encoded_slash, Ambiguity::EncodedSlash),
        (allowed.double_slash, Ambiguity::DoubleSlash),
        (allowed.path_parameters, Ambiguity::PathParameters),
    ]
    .into_iter()
    .filter_map(|(is_allowed, ambiguity)| is_allowed.then_some(ambiguity))
    .collect()
}

fn boxed(texts: &[String]) -> Vec<Box<str>> {
    texts.iter().map(|text| text.as_str().into()).collect()
}
