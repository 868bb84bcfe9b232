//! `routes`.

use http::HeaderName;

use super::http_names::{self, HeaderFault};
use super::names::{self, Names};
use super::{Build, all, each, error_detail};
use crate::certificate::CertificateFact;
use crate::config::place::Place;
use crate::config::raw::{self, PathSpelling};
use crate::config::settings::{
    Access, AllowedSpellings, ErrorDetail, FeedIndex, IdentitySource, IssuerIndex, Requirements, Route,
    Service, TokenFrom, UpstreamHost, UpstreamIndex,
};
use crate::policy::Enforcement;
use crate::route::{HostPattern, MethodSet, PathPattern, RouteMatch};

/// What routes take from the rest of the file.
pub(super) struct Defaults<'a> {
    pub(super) error_detail: ErrorDetail,
    pub(super) max_body: Option<u64>,
    pub(super) body_rate: u64,
    pub(super) issuers: &'a Names,
    /// Which issuers are asked about opaque tokens, in their order.
    pub(super) introspecting: Vec<bool>,
    pub(super) feeds: &'a Names,
    pub(super) upstreams: &'a Names,
}

impl Build<'_, '_> {
    pub(super) fn route(
        &mut self,
        raw: &raw::Route,
        defaults: &Defaults<'_>,
        place: &Place,
    ) -> Option<Route> {
        if let Some(name) = &raw.name {
            names::check(name, &place.field("name"), self.mistakes);
        }
        let matches = self.matches(&raw.matches, &place.field("match"));
        let access = self.access(raw, defaults, place);
        let service = self.service(raw, defaults, place);
        let identity_headers = self.identity_headers(raw, &place.field("identity_headers"));
        let token_from = self.token_from(raw, place);
        let max_body = self.optional(raw.max_body.as_ref(), |build, size| {
            build.size(size, &place.field("max_body"), 0, 1 << 40)
        });
        let body_rate = self.body_rate(raw, &place.field("body_rate"));
        let timeouts = self.route_timeouts(raw, &place.field("timeouts"));
        let overrides =
            self.override_headers(&raw.allow_override_headers, &place.field("allow_override_headers"));
        let cors = self.optional(raw.cors.as_ref(), |build, raw| {
            build.cors(raw, matches.as_ref().map(|matches| &matches.methods), &place.field("cors"))
        });
        let enforcement = self.enforcement(raw, &place.field("enforce"));
        let matches = matches?;
        let here = place.field("expiry_hint");
        if raw.public && raw.expiry_hint.is_some() {
            let remedy = "remove it: on a public route no token is looked at";
            self.mistakes.add_at_key(&here, "not possible on a public route", remedy);
        }
        let expiry_hint = self.optional(raw.expiry_hint.as_ref(), |build, raw| build.expiry_hint(raw, &here));
        Some(Route {
            name: raw.name.clone().unwrap_or_else(|| matches.to_string()),
            matches,
            access: access?,
            service: service?,
            identity_headers: identity_headers?,
            forward_token: raw.forward_token,
            token_from: token_from?,
            expiry_hint: expiry_hint?,
            error_detail: raw.error_detail.map_or(defaults.error_detail, error_detail),
            host: match raw.host {
                raw::UpstreamHost::Preserve => UpstreamHost::Preserve,
                raw::UpstreamHost::Upstream => UpstreamHost::Upstream,
            },
            max_body: max_body?.or(defaults.max_body),
            body_rate: body_rate?.unwrap_or(defaults.body_rate),
            timeouts: timeouts?,
            allow: AllowedSpellings {
                encoded_slash: raw.allow.contains(&PathSpelling::EncodedSlash),
                double_slash: raw.allow.contains(&PathSpelling::DoubleSlash),
                path_parameters: raw.allow.contains(&PathSpelling::PathParameters),
            },
            allow_override_headers: overrides?,
            cors: cors?,
            enforcement: enforcement?,
        })
    }

    fn enforcement(&mut self, raw: &raw::Route, place: &Place) -> Option<Enforcement> {
        if raw.enforce {
            return Some(Enforcement::Enforced);
        }
        if raw.require.is_none() {
            let remedy = "remove it: without `require` there is nothing that could be left unenforced";
            self.mistakes.add_at_key(place, "the route requires nothing", remedy);
            return None;
        }
        if raw.revocation_endpoint.is_some() {
            let remedy = "remove it: the gateway itself answers, and revokes only what a good token asks for";
            self.mistakes.add_at_key(place, "not possible on a revocation endpoint", remedy);
            return None;
        }
        Some(Enforcement::Shadow)
    }

    fn matches(&mut self, raw: &raw::Match, place: &Place) -> Option<RouteMatch> {
        let host = match &raw.host {
            None => Some(HostPattern::Any),
            Some(host) => self.host(host, &place.field("host")),
        };
        let path = match raw.path.parse::<PathPattern>() {
            Ok(path) => Some(path),
            Err(error) => {
                self.mistakes.add(&place.field("path"), format!("`{}` {error}", raw.path), error.remedy());
                None
            }
        };
        let methods = self.methods(raw.methods.as_deref(), &place.field("methods"));
        Some(RouteMatch { host: host?, path: path?, methods: methods? })
    }

    fn host(&mut self, text: &str, place: &Place) -> Option<HostPattern> {
        let lower = text.to_ascii_lowercase();
        let (name, pattern): (_, fn(String) -> HostPattern) = match lower.strip_prefix("*.") {
            Some(parent) => (parent, HostPattern::Below),
            None => (lower.as_str(), HostPattern::Exact),
        };
        if http_names::is_host(name) {
            return Some(pattern(name.to_owned()));
        }
        let remedy = "write a name without scheme and port, `api.example.com`, or `*.example.com` for all below it; \
                      names in other scripts as `xn--...`";
        self.mistakes.add(place, format!("`{text}` is not a host name"), remedy);
        None
    }

    pub(super) fn methods(&mut self, raw: Option<&[String]>, place: &Place) -> Option<MethodSet> {
        let Some(raw) = raw else { return Some(MethodSet::Any) };
        self.not_empty(raw, place, "or leave `methods` out for all of them")?;
        self.no_repeats(raw, place);
        let methods = each(raw, place, |name, place| match http_names::method(name) {
            Ok(method) => Some(method),
            Err(remedy) => {
                self.mistakes.add(place, format!("`{name}` cannot be a method here"), remedy);
                None
            }
        });
        all(methods).map(MethodSet::Only)
    }

    fn service(&mut self, raw: &raw::Route, defaults: &Defaults<'_>, place: &Place) -> Option<Service> {
        let one = self.exactly_one(
            place,
            &[
                ("upstream", raw.upstream.is_some()),
                ("receives", raw.receives.is_some()),
                ("revocation_endpoint", raw.revocation_endpoint.is_some()),
                ("decision", raw.decision),
            ],
        );
        let upstream = self.optional(raw.upstream.as_deref(), |build, name| {
            defaults.upstreams.find(name, &place.field("upstream"), build.mistakes)
        });
        let receives = self.optional(raw.receives.as_deref(), |build, name| {
            defaults.feeds.find(name, &place.field("receives"), build.mistakes)
        });
        let revokes = self.optional(raw.revocation_endpoint.as_ref(), |build, raw| {
            build.revocation_endpoint(raw, defaults.feeds, &place.field("revocation_endpoint"))
        });
        one?;
        let upstream = upstream?.map(|place| Service::Upstream(UpstreamIndex(place)));
        let receive = receives?.map(|place| Service::Receive(FeedIndex(place)));
        upstream.or(receive).or(revokes?.map(Service::Revoke)).or(raw.decision.then_some(Service::Decision))
    }

    fn access(&mut self, raw: &raw::Route, defaults: &Defaults<'_>, place: &Place) -> Option<Access> {
        if raw.receives.is_some() {
            if raw.public || raw.require.is_some() {
                let remedy = "remove `public` and `require`: the feed itself says who may send to it";
                self.mistakes.add(
                    &place.field("receives"),
                    "knows its sender by the feed's own rules",
                    remedy,
                );
            }
            return Some(Access::Public);
        }
        if raw.public && raw.revocation_endpoint.is_some() {
            let remedy = "`require` the issuers whose tokens can be taken back here";
            self.mistakes.add(&place.field("public"), "without a token there is nothing to revoke", remedy);
        }
        let one = self.exactly_one(place, &[("require", raw.require.is_some()), ("public", raw.public)]);
        if raw.public && raw.forward_token {
            let remedy = "remove one of the two: a token that nobody checked must not reach the API as if it were good";
            self.mistakes.add(&place.field("forward_token"), "not possible on a public route", remedy);
        }
        let requirements = self.optional(raw.require.as_ref(), |build, raw| {
            build.requirements(raw, defaults, &place.field("require"))
        });
        one?;
        Some(requirements?.unwrap_or(Access::Public))
    }

    fn requirements(&mut self, raw: &raw::Require, defaults: &Defaults<'_>, place: &Place) -> Option<Access> {
        let certificate = self.optional(raw.client_certificate.as_ref(), |build, raw| {
            build.required_certificate(raw, &place.field("client_certificate"))
        });
        let Some(names) = &raw.issuers else {
            return self.without_token(raw, place).and(certificate?).map(Access::Certificate);
        };
        let here = place.field("issuers");
        let some = self.not_empty(names, &here, "only tokens of issuers that are named here pass");
        self.no_repeats(names, &here);
        let issuers = each(names, &here, |name, place| {
            defaults.issuers.find(name, place, self.mistakes).map(IssuerIndex)
        });
        self.one_for_opaque_tokens(&issuers, defaults, raw, &here);
        self.scopes(&raw.scopes, &place.field("scopes"));
        self.scopes(&raw.any_scopes, &place.field("any_scopes"));
        let claims = self.claim_rules(&raw.claims, &place.field("claims"));
        some?;
        Some(Access::Require(Requirements {
            issuers: all(issuers)?,
            scopes: raw.scopes.clone(),
            any_scopes: raw.any_scopes.clone(),
            claims: claims?,
            client_certificate: certificate?,
        }))
    }

    /// Without issuers there must be a certificate, and nothing can be said of a token.
    fn without_token(&mut self, raw: &raw::Require, place: &Place) -> Option<()> {
        if self.mistakes.is_replaced(&place.field("issuers")) {
            return None;
        }
        if raw.client_certificate.is_none() {
            let remedy = "name the `issuers` whose tokens pass, or require a `client_certificate`";
            self.mistakes.add(place, "requires neither a token nor a certificate", remedy);
            return None;
        }
        let of_tokens = [
            ("scopes", !raw.scopes.is_empty()),
            ("any_scopes", !raw.any_scopes.is_empty()),
            ("claims", !raw.claims.is_empty()),
        ];
        for (field, _) in of_tokens.into_iter().filter(|(_, given)| *given) {
            let remedy = "name the `issuers` whose tokens pass, or remove it";
            self.mistakes.add(&place.field(field), "says something of a token, and none is required", remedy);
        }
        Some(())
    }

    /// An opaque token does not say whose it is: it must be clear whom to ask.
    fn one_for_opaque_tokens(
        &mut self,
        issuers: &[Option<IssuerIndex>],
        defaults: &Defaults<'_>,
        raw: &raw::Require,
        place: &Place,
    ) {
        let asked = |issuer: &Option<IssuerIndex>| {
            issuer.is_some_and(|index| defaults.introspecting.get(index.0) == Some(&true))
        };
        let mut asked =
            issuers.iter().enumerate().filter(|(_, issuer)| asked(issuer)).map(|(place, _)| place);
        if let (Some(first), Some(second)) = (asked.next(), asked.next()) {
            let names = raw.issuers.as_deref().unwrap_or_default();
            let name = |place: usize| names.get(place).map_or("", String::as_str);
            let message = format!(
                "`{}` and `{}` both have `introspection`: an opaque token does not say which of them to ask",
                name(first),
                name(second)
            );
            self.mistakes.add(
                &place.index(second),
                message,
                "keep one of them, or give each a route of its own",
            );
        }
    }

    fn scopes(&mut self, scopes: &[String], place: &Place) {
        self.no_repeats(scopes, place);
        for (index, scope) in scopes.iter().enumerate() {
            if !http_names::is_scope(scope) {
                let remedy = "a scope is one word of visible ASCII without quotes and backslash (RFC 6749 section \
                              3.3); several are several elements of the list";
                self.mistakes.add(&place.index(index), format!("`{scope}` is not a scope"), remedy);
            }
        }
    }

    fn identity_headers(
        &mut self,
        raw: &raw::Route,
        place: &Place,
    ) -> Option<Vec<(HeaderName, IdentitySource)>> {
        if raw.public && !raw.identity_headers.is_empty() {
            let remedy = "remove them, or `require` a token: on a public route nobody is known";
            self.mistakes.add(place, "not possible on a public route", remedy);
        }
        let mut headers: Vec<Option<(HeaderName, IdentitySource)>> = Vec::new();
        for (name, source) in &raw.identity_headers {
            let here = place.field(name);
            let source = self.identity_source(raw, source, &here);
            let header = self.identity_header(name, &here);
            let taken = |other: &Option<(HeaderName, IdentitySource)>| {
                other.as_ref().map(|(other, _)| other) == header.as_ref() && header.is_some()
            };
            if headers.iter().any(taken) {
                let remedy = "keep one of the two: case makes no difference";
                self.mistakes.add_at_key(&here, format!("the header `{name}` stands here twice"), remedy);
            }
            headers.push(header.zip(source));
        }
        all(headers)
    }

    fn identity_source(
        &mut self,
        route: &raw::Route,
        raw: &raw::IdentitySource,
        place: &Place,
    ) -> Option<IdentitySource> {
        match raw {
            raw::IdentitySource::Claim(claim) => {
                if route.require.as_ref().is_some_and(|require| require.issuers.is_none()) {
                    let remedy = "name the `issuers` whose tokens pass, or write `{ certificate: san_uri }`";
                    self.mistakes.add(place, "is a claim of a token, and none is required", remedy);
                }
                self.claim_path(claim, place).map(IdentitySource::Claim)
            }
            raw::IdentitySource::Certificate(source) => {
                Some(IdentitySource::Certificate(match source.certificate {
                    raw::CertificateFact::Subject => CertificateFact::Subject,
                    raw::CertificateFact::CommonName => CertificateFact::CommonName,
                    raw::CertificateFact::SanDns => CertificateFact::SanDns,
                    raw::CertificateFact::SanUri => CertificateFact::SanUri,
                    raw::CertificateFact::SanEmail => CertificateFact::SanEmail,
                    raw::CertificateFact::Thumbprint => CertificateFact::Thumbprint,
                    raw::CertificateFact::Rfc9440 => CertificateFact::Rfc9440,
                }))
            }
        }
    }

    fn identity_header(&mut self, name: &str, place: &Place) -> Option<HeaderName> {
        let (message, remedy) = match http_names::identity_header(name) {
            Ok(header) => return Some(header),
            Err(HeaderFault::Syntax) => {
                ("is not a header name", "use letters, digits and `-`: `X-Auth-Subject`")
            }
            Err(HeaderFault::Underscore) => (
                "has an underscore, which many servers read as `-`",
                "use `-` instead: clients could otherwise send the other spelling",
            ),
            Err(HeaderFault::Taken) => (
                "has a meaning of its own in HTTP or to the gateway",
                "choose a name of your own: `X-Auth-Subject`",
            ),
        };
        self.mistakes.add_at_key(place, format!("`{name}` {message}"), remedy);
        None
    }

    fn token_from(&mut self, raw: &raw::Route, place: &Place) -> Option<TokenFrom> {
        match &raw.token_from {
            raw::TokenFrom::Header => Some(TokenFrom::Header),
            raw::TokenFrom::Cookie(name) if http_names::is_cookie_name(name) => {
                Some(TokenFrom::Cookie(name.clone()))
            }
            raw::TokenFrom::Cookie(name) => {
                let place = place.field("token_from").field("cookie");
                let remedy = "use letters, digits and `-` or `_` (RFC 6265 section 4.1.1): `__Host-session`";
                self.mistakes.add(&place, format!("`{name}` is not a cookie name"), remedy);
                None
            }
        }
    }

    fn override_headers(&mut self, raw: &[String], place: &Place) -> Option<Vec<HeaderName>> {
        let headers = each(raw, place, |name, place| {
            let header = http_names::header(name);
            if header.is_none() {
                let remedy = "write a header such as `X-HTTP-Method-Override`";
                self.mistakes.add(place, format!("`{name}` is not a header name"), remedy);
            }
            header
        });
        all(headers)
    }
}
