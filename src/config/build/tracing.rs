//! `tracing` and `patterns`.

use http::{HeaderMap, HeaderName};

use super::transport::{Given, Most, PlainHttp};
use super::values::{HOUR, SECOND};
use super::{Build, units};
use crate::config::place::Place;
use crate::config::raw::{self, SizeText};
use crate::config::settings::{Patterns, Tracing};
use url::Url;

/// The largest answer of a collector that is read. It says how many spans it did not take, and why.
const MAX_ANSWER: &str = "64KiB";

/// More clients of one token than this cannot be told apart by what is remembered of them.
const MAX_ADDRESSES: u64 = 100;

impl Build<'_, '_> {
    pub(super) fn tracing(&mut self, raw: &raw::Tracing, place: &Place) -> Option<Tracing> {
        let endpoint = self.collector(raw, &place.field("endpoint"));
        let headers = self.collector_headers(raw, &place.field("headers"));
        let sample = self.share(&raw.sample.0, &place.field("sample"));
        self.no_repeats(&raw.claims, &place.field("claims"));
        let queue = self.count(raw.queue, &place.field("queue"), 512, 1_000_000);
        let transport = self.transport(
            &Given {
                timeout: &raw.timeout,
                max_size: &SizeText::from(MAX_ANSWER),
                ca: raw.ca.as_deref(),
                client_certificate: raw.client_certificate.as_ref(),
                proxy: raw.proxy.as_ref(),
                insecure_allow_http: raw.insecure_allow_http,
                most: Most::USUAL,
            },
            place,
        );
        let service = [("service.name".to_owned(), raw.service_name.clone())];
        let others = raw.resource.iter().map(|(name, value)| (name.clone(), value.clone()));
        Some(Tracing {
            endpoint: endpoint?,
            headers: headers?,
            sample: sample?,
            follow_callers: raw.follow_callers,
            resource: service.into_iter().chain(others).collect(),
            url_path: raw.url_path,
            client_address: raw.client_address,
            claims: raw.claims.clone(),
            queue: usize::try_from(queue?).ok()?,
            transport: transport?,
        })
    }

    fn collector(&mut self, raw: &raw::Tracing, place: &Place) -> Option<Url> {
        let plain = PlainHttp::of(raw.insecure_allow_http, raw.proxy.as_ref());
        let url = self.source_url(&raw.endpoint, place, plain)?;
        if url.path() == "/" {
            let remedy = "write the URL whole, as it is posted to: collectors have it at `/v1/traces`";
            self.mistakes.add(place, "the URL has no path", remedy);
            return None;
        }
        Some(url)
    }

    fn collector_headers(&mut self, raw: &raw::Tracing, place: &Place) -> Option<HeaderMap> {
        let mut headers = HeaderMap::new();
        let mut good = Some(());
        for (name, secret) in &raw.headers {
            let place = place.field(name);
            let Ok(header) = HeaderName::from_bytes(name.as_bytes()) else {
                let remedy = "names have letters, digits and `-`, and no spaces: `X-Api-Key`";
                self.mistakes.add(&place, format!("`{name}` is not the name of a header"), remedy);
                good = None;
                continue;
            };
            match self.secret_header(secret, &place) {
                Some(value) => drop(headers.insert(header, value)),
                None => good = None,
            }
        }
        good.map(|()| headers)
    }

    fn share(&mut self, text: &str, place: &Place) -> Option<u32> {
        let share = units::share(text);
        if share.is_none() {
            let remedy =
                "write a number from 0 to 100 with at most four decimals and `%`: `100%`, `1%`, `0.1%`";
            self.mistakes.add(place, format!("`{text}` is not a share"), remedy);
        }
        share
    }

    pub(super) fn patterns(&mut self, raw: &raw::Patterns, place: &Place) -> Option<Patterns> {
        let window = self.duration(&raw.window, &place.field("window"), SECOND, HOUR);
        let mut number = |number: u64, field: &str, most: u64| {
            let number = self.count(number, &place.field(field), 0, most)?;
            u32::try_from(number).ok()
        };
        let failures_by_client = number(raw.failures_by_client, "failures_by_client", 1_000_000);
        let failures_by_subject = number(raw.failures_by_subject, "failures_by_subject", 1_000_000);
        let addresses_of_token = number(raw.addresses_of_token, "addresses_of_token", MAX_ADDRESSES);
        let uses_after_revocation = number(raw.uses_after_revocation, "uses_after_revocation", 1_000_000);
        Some(Patterns {
            window: window?,
            failures_by_client: failures_by_client?,
            failures_by_subject: failures_by_subject?,
            addresses_of_token: addresses_of_token?,
            uses_after_revocation: uses_after_revocation?,
        })
    }
}
