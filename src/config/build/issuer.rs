//! `issuers`.

use std::time::Duration;

use url::Url;

use super::names::Names;
use super::transport::{Given, Most, PlainHttp};
use super::values::{DAY, HOUR, MILLISECOND, MINUTE, SECOND, is_loopback};
use super::{Build, all, each};
use crate::config::place::Place;
use crate::config::raw;
use crate::config::settings::{
    Audiences, ExpiryHint, FeedIndex, Issuer, JwksLocation, KeySettings, MetadataLocation, Profile, Registry,
    Revocation, WhenStale,
};
use crate::keys::Algorithm;
use crate::token::Binding;

impl Build<'_, '_> {
    pub(super) fn issuer(&mut self, raw: &raw::Issuer, feeds: &Names, place: &Place) -> Option<Issuer> {
        let issuer = self.issuer_url(raw, &place.field("issuer"));
        let keys = self
            .optional(raw.keys.as_ref(), |build, keys| build.keys(keys, &raw.issuer, &place.field("keys")));
        if raw.keys.is_none() {
            self.signs_nothing(raw, place);
        }
        let audiences = self.audiences(raw, place);
        let algorithms = self.algorithms(&raw.algorithms, &place.field("algorithms"));
        let leeway = self.duration(&raw.leeway, &place.field("leeway"), Duration::ZERO, Issuer::MOST_LEEWAY);
        let max_lifetime = self.optional(raw.max_lifetime.as_ref(), |build, text| {
            build.duration(text, &place.field("max_lifetime"), SECOND, 3650 * DAY)
        });
        let claims = place.field("required_claims");
        self.no_repeats(&raw.required_claims, &claims);
        for (index, claim) in raw.required_claims.iter().enumerate() {
            if claim.is_empty() {
                self.mistakes.add(&claims.index(index), "the name is empty", "write the name of a claim");
            }
        }
        let revocation = self.optional(raw.revocation.as_ref(), |build, revocation| {
            build.revocation(revocation, raw, feeds, &place.field("revocation"))
        });
        let introspection = self.optional(raw.introspection.as_ref(), |build, introspection| {
            build.introspection(introspection, &raw.issuer, &place.field("introspection"))
        });
        let expiry_hint = self.optional(raw.expiry_hint.as_ref(), |build, raw| {
            build.expiry_hint(raw, &place.field("expiry_hint"))
        });
        let registry = self.optional(raw.registry.as_ref(), |build, registry| {
            build.registry(registry, raw.introspection.is_some(), &place.field("registry"))
        });
        Some(Issuer {
            name: raw.name.clone(),
            issuer: issuer?,
            keys: keys?,
            audiences: audiences?,
            algorithms: algorithms?,
            leeway: leeway?,
            max_lifetime: max_lifetime?,
            required_claims: raw.required_claims.clone(),
            profile: raw.profile.map(|raw::Profile::Rfc9068| Profile::Rfc9068),
            binding: match raw.binding {
                raw::Binding::IfBound => Binding::IfBound,
                raw::Binding::Certificate => Binding::Certificate,
                raw::Binding::InsecureIgnore => Binding::InsecureIgnore,
            },
            revocation: revocation?,
            introspection: introspection?,
            expiry_hint: expiry_hint?,
            registry: registry?,
        })
    }

    /// Tells what an issuer without `keys` cannot have: whatever it would have to sign.
    fn signs_nothing(&mut self, raw: &raw::Issuer, place: &Place) {
        let remedy = "add `keys`, as `keys: { discovery: true }`";
        let Some(introspection) = &raw.introspection else {
            let message = "there are no keys to verify its tokens by";
            let remedy = "add `keys`, as `keys: { discovery: true }`; only an issuer whose tokens are all opaque does \
                          without, and has `introspection`";
            self.mistakes.add(place, message, remedy);
            return;
        };
        let asked = place.field("introspection");
        if matches!(introspection.tokens, raw::IntrospectedTokens::All) {
            let message = "there are no keys: a JWT is asked about once its signature is found good";
            self.mistakes.add(&asked.field("tokens"), message, "add `keys` to the issuer, or write `opaque`");
        }
        if introspection.signed {
            let message = "there are no keys to verify signed answers by";
            self.mistakes.add(&asked.field("signed"), message, remedy);
        }
        let lists = raw.revocation.as_ref().and_then(|revocation| revocation.status_list.as_ref());
        if lists.is_some_and(|lists| lists.keys.is_none()) {
            let message = "there are no keys to verify status lists by";
            let remedy = "add `keys` to the issuer, or here if the lists are signed by others";
            self.mistakes.add(&place.field("revocation").field("status_list"), message, remedy);
        }
    }

    pub(super) fn expiry_hint(&mut self, raw: &raw::ExpiryHint, place: &Place) -> Option<ExpiryHint> {
        let within = self.duration(&raw.within, &place.field("within"), SECOND, DAY);
        let renew_at =
            self.optional(raw.renew_at.as_deref(), |build, url| build.url(url, &place.field("renew_at")));
        Some(ExpiryHint { within: within?, renew_at: renew_at? })
    }

    fn registry(&mut self, raw: &raw::Registry, is_introspected: bool, place: &Place) -> Option<Registry> {
        let valkey = self.valkey(&raw.valkey, "valgate:issued", &place.field("valkey"));
        let cache = self.duration(&raw.cache, &place.field("cache"), Duration::ZERO, DAY);
        if is_introspected {
            let remedy = "keep one; `introspection: { tokens: all }` asks about JWTs too";
            self.mistakes.add(
                place,
                "the issuer is already asked about its tokens (`introspection`)",
                remedy,
            );
            return None;
        }
        let (valkey, prefix) = valkey?;
        let accept_when_unavailable = matches!(raw.when_unavailable, raw::WhenUnavailable::Accept);
        Some(Registry { valkey, prefix, cache: cache?, accept_when_unavailable })
    }

    /// One `iss` with two key sets would make it a matter of luck by which a token is judged.
    pub(super) fn distinct_issuers(&mut self, raw: &[raw::Issuer], place: &Place) {
        for (index, issuer) in raw.iter().enumerate() {
            if let Some(first) = raw.iter().take(index).position(|earlier| earlier.issuer == issuer.issuer) {
                let line = self.mistakes.line_of(&place.index(first).field("issuer"));
                let message = format!("`{}` is already configured, on line {line}", issuer.issuer);
                let remedy = "keep one; several audiences or algorithms are lists of one issuer";
                self.mistakes.add(&place.index(index).field("issuer"), message, remedy);
            }
        }
    }

    /// Kept as written, since tokens carry it so; the URL is only looked at.
    fn issuer_url(&mut self, raw: &raw::Issuer, place: &Place) -> Option<String> {
        let url = self.url(&raw.issuer, place)?;
        let allowed = match (&raw.keys, &raw.introspection) {
            (Some(keys), _) => keys.insecure_allow_http,
            (None, asked) => asked.as_ref().is_some_and(|asked| asked.insecure_allow_http),
        };
        if url.scheme() == "http" && !is_loopback(&url) && !allowed {
            let remedy = "an issuer is an `https://` URL; for tests in a closed network set \
                          `keys.insecure_allow_http: true`";
            self.mistakes.add(place, "an issuer by `http://` proves nothing", remedy);
            return None;
        }
        if raw.issuer.trim() != raw.issuer || raw.issuer.chars().any(|c| c.is_control() || c == ' ') {
            let remedy = "write it exactly as it stands in the tokens";
            self.mistakes.add(place, "the URL holds blanks or control characters", remedy);
            return None;
        }
        Some(raw.issuer.clone())
    }

    fn audiences(&mut self, raw: &raw::Issuer, place: &Place) -> Option<Audiences> {
        self.exactly_one(
            place,
            &[
                ("audiences", raw.audiences.is_some()),
                ("insecure_accept_any_audience", raw.insecure_accept_any_audience),
            ],
        )?;
        let Some(audiences) = &raw.audiences else { return Some(Audiences::NotChecked) };
        let place = place.field("audiences");
        self.not_empty(audiences, &place, "without an audience tokens for other APIs would be accepted")?;
        self.no_repeats(audiences, &place);
        if let Some(index) = audiences.iter().position(String::is_empty) {
            let remedy = "write the name of this API as the issuer knows it";
            self.mistakes.add(&place.index(index), "the audience is empty", remedy);
        }
        Some(Audiences::AnyOf(audiences.clone()))
    }

    fn algorithms(&mut self, algorithms: &[Algorithm], place: &Place) -> Option<Vec<Algorithm>> {
        self.not_empty(algorithms, place, "no token could be verified")?;
        let names: Vec<String> = algorithms.iter().map(|algorithm| algorithm.name().to_owned()).collect();
        self.no_repeats(&names, place)?;
        Some(algorithms.to_vec())
    }

    pub(super) fn keys(&mut self, raw: &raw::Keys, issuer: &str, place: &Place) -> Option<KeySettings> {
        let one = self.exactly_one(
            place,
            &[
                ("jwks_url", raw.jwks_url.is_some()),
                ("discovery", raw.discovery.is_some()),
                ("file", raw.file.is_some()),
                ("inline", raw.inline.is_some()),
            ],
        );
        let location = one.and_then(|()| self.jwks_location(raw, issuer, place));
        let refresh_interval =
            self.duration(&raw.refresh_interval, &place.field("refresh_interval"), 100 * MILLISECOND, DAY);
        let max_stale = self.duration(&raw.max_stale, &place.field("max_stale"), Duration::ZERO, 365 * DAY);
        let cooldown = self.duration(&raw.cooldown, &place.field("cooldown"), 100 * MILLISECOND, HOUR);
        let unknown_kid_ttl =
            self.duration(&raw.unknown_kid_ttl, &place.field("unknown_kid_ttl"), Duration::ZERO, HOUR);
        let wait = self.duration(&raw.wait, &place.field("wait"), MILLISECOND, MINUTE);
        let transport = self.transport(
            &Given {
                timeout: &raw.timeout,
                max_size: &raw.max_size,
                ca: raw.ca.as_deref(),
                client_certificate: raw.client_certificate.as_ref(),
                proxy: raw.proxy.as_ref(),
                insecure_allow_http: raw.insecure_allow_http,
                most: Most::USUAL,
            },
            place,
        );
        if let (Some(refresh_interval), Some(max_stale)) = (refresh_interval, max_stale)
            && max_stale < refresh_interval
        {
            let message = "shorter than `refresh_interval`: keys would be thrown away between two fetches";
            self.mistakes.add(&place.field("max_stale"), message, "make it several times `refresh_interval`");
        }
        Some(KeySettings {
            location: location?,
            refresh_interval: refresh_interval?,
            max_stale: max_stale?,
            cooldown: cooldown?,
            unknown_kid_ttl: unknown_kid_ttl?,
            wait: wait?,
            transport: transport?,
        })
    }

    fn jwks_location(&mut self, raw: &raw::Keys, issuer: &str, place: &Place) -> Option<JwksLocation> {
        let plain = PlainHttp::of(raw.insecure_allow_http, raw.proxy.as_ref());
        if let Some(url) = &raw.jwks_url {
            let url = self.source_url(url, &place.field("jwks_url"), plain)?;
            return Some(JwksLocation::Url(url));
        }
        if let Some(path) = &raw.file {
            return self.polled_file(path, &place.field("file")).map(JwksLocation::File);
        }
        if let Some(set) = &raw.inline {
            return self.inline(set, &place.field("inline"));
        }
        let place = place.field("discovery");
        match raw.discovery.as_ref()? {
            raw::Discovery::Url(url) => {
                let url = self.source_url(url, &place, plain)?;
                Some(JwksLocation::Discovery(MetadataLocation::Url(url)))
            }
            raw::Discovery::Enabled(true) => {
                // Whether it is a URL at all is told where the issuer stands.
                let url = Url::parse(issuer).ok()?;
                if url.query().is_some() || url.fragment().is_some() {
                    let message = "an issuer with a query or fragment has no metadata (RFC 8414 section 2)";
                    self.mistakes.add(
                        &place,
                        message,
                        "use `jwks_url`, or give the URL of the metadata here",
                    );
                    return None;
                }
                // What is not loopback is told there as well.
                if is_loopback(&url) {
                    self.plain_http(&url, &place, plain)?;
                }
                Some(JwksLocation::Discovery(MetadataLocation::WellKnown(url)))
            }
            raw::Discovery::Enabled(false) => {
                let remedy = "remove it and add `jwks_url`, `file` or `inline`, or write `discovery: true`";
                self.mistakes.add(&place, "switched off, and so there are no keys", remedy);
                None
            }
        }
    }

    fn inline(&mut self, set: &serde_json::Value, place: &Place) -> Option<JwksLocation> {
        let keys = set.get("keys").and_then(serde_json::Value::as_array);
        if keys.is_none_or(Vec::is_empty) {
            let remedy = "write `inline: { keys: [{ kty: ..., kid: ..., ... }] }` (RFC 7517 section 5)";
            self.mistakes.add(place, "not a set with at least one key", remedy);
            return None;
        }
        Some(JwksLocation::Inline(set.to_string()))
    }

    fn revocation(
        &mut self,
        raw: &raw::Revocation,
        issuer: &raw::Issuer,
        feeds: &Names,
        place: &Place,
    ) -> Option<Revocation> {
        let some = if raw.feeds.is_empty() && raw.status_list.is_none() {
            let remedy = "name at least one of `feeds`, add `status_list`, or remove `revocation`";
            self.mistakes.add(place, "has no source of revocations", remedy);
            None
        } else {
            Some(())
        };
        let status_list = self.optional(raw.status_list.as_ref(), |build, raw| {
            build.status_list(raw, issuer, &place.field("status_list"))
        });
        let here = place.field("feeds");
        let repeats = self.no_repeats(&raw.feeds, &here);
        let feeds =
            each(&raw.feeds, &here, |name, place| feeds.find(name, place, self.mistakes).map(FeedIndex));
        let max_staleness =
            self.duration(&raw.max_staleness, &place.field("max_staleness"), SECOND, 30 * DAY);
        let place = place.field("when_stale");
        let when_stale = match &raw.when_stale {
            raw::WhenStale::Reject => Some(WhenStale::Reject),
            raw::WhenStale::Accept => Some(WhenStale::Accept),
            raw::WhenStale::AcceptIssuedWithin(text) => {
                let within = self.duration(text, &place.field("accept_issued_within"), SECOND, 30 * DAY);
                within.map(WhenStale::AcceptIssuedWithin)
            }
        };
        some.and(repeats)?;
        Some(Revocation {
            feeds: all(feeds)?,
            status_list: status_list?,
            max_staleness: max_staleness?,
            when_stale: when_stale?,
        })
    }
}
