//! `issuers[].introspection`.

use std::time::Duration;

use url::Url;

use super::Build;
use super::transport::{Given, Most, PlainHttp};
use super::values::{HOUR, MILLISECOND, MINUTE, is_loopback};
use crate::config::place::Place;
use crate::config::raw::{self, SecretText};
use crate::config::settings::{
    ClientAuth, EndpointLocation, IntrospectedTokens, Introspection, PrivateKeyJwt,
};
use crate::keys::Algorithm;

impl Build<'_, '_> {
    pub(super) fn introspection(
        &mut self,
        raw: &raw::Introspection,
        issuer: &str,
        place: &Place,
    ) -> Option<Introspection> {
        let location = self.introspection_endpoint(raw, issuer, place);
        let client_auth = self.client_auth(raw, issuer, &place.field("client"));
        let cache = self.duration(&raw.cache, &place.field("cache"), Duration::ZERO, HOUR);
        let negative_cache =
            self.duration(&raw.negative_cache, &place.field("negative_cache"), Duration::ZERO, HOUR);
        let negative_entries =
            self.count(raw.negative_entries, &place.field("negative_entries"), 1, 1_000_000);
        let concurrency = self.count(raw.concurrency, &place.field("concurrency"), 1, 10_000);
        let breaker = place.field("breaker");
        let failures = self.count(raw.breaker.failures, &breaker.field("failures"), 1, 1_000_000);
        let pause = self.duration(&raw.breaker.pause, &breaker.field("pause"), 10 * MILLISECOND, 5 * MINUTE);
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
        Some(Introspection {
            location: location?,
            tokens: match raw.tokens {
                raw::IntrospectedTokens::Opaque => IntrospectedTokens::Opaque,
                raw::IntrospectedTokens::All => IntrospectedTokens::All,
            },
            client_id: raw.client.id.clone(),
            client_auth: client_auth?,
            signed: raw.signed,
            insecure_accept_any_token_type: raw.insecure_accept_any_token_type,
            cache: cache?,
            negative_cache: negative_cache?,
            negative_entries: usize::try_from(negative_entries?).ok()?,
            concurrency: usize::try_from(concurrency?).ok()?,
            breaker_failures: u32::try_from(failures?).ok()?,
            breaker_pause: pause?,
            transport: transport?,
        })
    }

    fn introspection_endpoint(
        &mut self,
        raw: &raw::Introspection,
        issuer: &str,
        place: &Place,
    ) -> Option<EndpointLocation> {
        self.exactly_one(place, &[("url", raw.url.is_some()), ("discovery", raw.discovery.is_some())])?;
        let plain = PlainHttp::of(raw.insecure_allow_http, raw.proxy.as_ref());
        if let Some(url) = &raw.url {
            return self.source_url(url, &place.field("url"), plain).map(EndpointLocation::Url);
        }
        let place = place.field("discovery");
        match raw.discovery.as_ref()? {
            raw::Discovery::Enabled(true) => {
                // Whether it is a URL, and a safe one but for the proxy, is told where the issuer stands.
                if let Ok(url) = Url::parse(issuer)
                    && is_loopback(&url)
                {
                    self.plain_http(&url, &place, plain)?;
                }
                Some(EndpointLocation::Discovery(None))
            }
            raw::Discovery::Url(url) => {
                let url = self.source_url(url, &place, plain)?;
                Some(EndpointLocation::Discovery(Some(url)))
            }
            raw::Discovery::Enabled(false) => {
                let remedy = "remove it and add `url`, or write `discovery: true`";
                self.mistakes.add(&place, "switched off, and so there is no endpoint", remedy);
                None
            }
        }
    }

    fn client_auth(&mut self, raw: &raw::Introspection, issuer: &str, place: &Place) -> Option<ClientAuth> {
        let client = &raw.client;
        if client.id.is_empty() {
            let remedy = "write the client id that the issuer knows the gateway by";
            self.mistakes.add(&place.field("id"), "the client id is empty", remedy);
        }
        self.exactly_one(
            place,
            &[
                ("client_secret_basic", client.client_secret_basic.is_some()),
                ("client_secret_post", client.client_secret_post.is_some()),
                ("private_key_jwt", client.private_key_jwt.is_some()),
                ("tls_client_auth", client.tls_client_auth),
            ],
        )?;
        if let Some(secret) = &client.client_secret_basic {
            return self.client_secret(secret, &place.field("client_secret_basic")).map(ClientAuth::Basic);
        }
        if let Some(secret) = &client.client_secret_post {
            return self.client_secret(secret, &place.field("client_secret_post")).map(ClientAuth::Post);
        }
        if let Some(jwt) = &client.private_key_jwt {
            let place = place.field("private_key_jwt");
            let private_key = self.file(&jwt.private_key, &place.field("private_key"));
            self.check_assertion_algorithm(jwt.algorithm, &place.field("algorithm"))?;
            return Some(ClientAuth::PrivateKeyJwt(PrivateKeyJwt {
                private_key: private_key?,
                algorithm: jwt.algorithm,
                key_id: jwt.key_id.clone(),
                audience: jwt.audience.clone().unwrap_or_else(|| issuer.to_owned()),
            }));
        }
        if raw.client_certificate.is_none() {
            let remedy = "add `client_certificate` beside `client`";
            self.mistakes.add(&place.field("tls_client_auth"), "there is no certificate to show", remedy);
            return None;
        }
        Some(ClientAuth::Certificate)
    }

    fn client_secret(&mut self, secret: &SecretText, place: &Place) -> Option<String> {
        let secret = self.secret_text(secret, place)?;
        if secret.is_empty() {
            let remedy = "write it as `${VARIABLE}`, or as `file:` and the path of the file that holds it";
            self.mistakes.add(place, "the secret is empty", remedy);
            return None;
        }
        Some(secret)
    }

    fn check_assertion_algorithm(&mut self, algorithm: Algorithm, place: &Place) -> Option<()> {
        use Algorithm::{Ed25519, EdDsa, Es256, Es384, Ps256, Rs256};
        if matches!(algorithm, Rs256 | Ps256 | Es256 | Es384 | EdDsa | Ed25519) {
            return Some(());
        }
        let message = format!("client assertions cannot be signed with {}", algorithm.name());
        self.mistakes.add(place, message, "use RS256, PS256, ES256, ES384, EdDSA or Ed25519");
        None
    }
}
