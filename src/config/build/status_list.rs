//! `issuers[].revocation.status_list`.

use url::Url;

use super::transport::{Given, Most, PlainHttp};
use super::values::{DAY, MILLISECOND, MINUTE};
use super::{Build, all, each};
use crate::config::place::Place;
use crate::config::raw;
use crate::config::settings::StatusList;

impl Build<'_, '_> {
    pub(super) fn status_list(
        &mut self,
        raw: &raw::StatusList,
        issuer: &raw::Issuer,
        place: &Place,
    ) -> Option<StatusList> {
        let here = place.field("allowed");
        let some = self.not_empty(&raw.allowed, &here, "without it no list could be fetched");
        let plain = PlainHttp::of(raw.insecure_allow_http, raw.proxy.as_ref());
        let allowed = each(&raw.allowed, &here, |text, place| {
            self.source_url(text, place, plain).and_then(|url| self.without_query(url, place))
        });
        let keys = self.optional(raw.keys.as_ref(), |build, keys| {
            build.keys(keys, &issuer.issuer, &place.field("keys"))
        });
        let refresh_interval =
            self.duration(&raw.refresh_interval, &place.field("refresh_interval"), 100 * MILLISECOND, DAY);
        let wait = self.duration(&raw.wait, &place.field("wait"), MILLISECOND, MINUTE);
        let max_lists = self.count(raw.max_lists, &place.field("max_lists"), 1, 10_000);
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
        some?;
        Some(StatusList {
            allowed: all(allowed)?,
            required: raw.required,
            keys: keys?,
            refresh_interval: refresh_interval?,
            wait: wait?,
            max_lists: usize::try_from(max_lists?).ok()?,
            transport: transport?,
        })
    }

    fn without_query(&mut self, url: Url, place: &Place) -> Option<Url> {
        if url.query().is_some() {
            let remedy = "write the URL of a list, or the beginning of the URLs of several, up to a `/`";
            self.mistakes.add(place, "the URL has a query (`?`)", remedy);
            return None;
        }
        Some(url)
    }
}
