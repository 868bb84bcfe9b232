//! `feeds`.

use super::Build;
use super::names::Names;
use super::transport::{Given, Most, PlainHttp};
use super::values::{HOUR, MILLISECOND, MINUTE, SECOND};
use crate::config::place::Place;
use crate::config::raw;
use crate::config::settings::{Feed, FeedSource, HttpFeed};

/// What feeds may refer to.
pub(super) struct References<'a> {
    pub(super) issuers: &'a Names,
    pub(super) feeds: &'a Names,
    /// Of each feed, whether its engine can be written to.
    pub(super) writable: Vec<bool>,
    /// Of each issuer, whether it has keys.
    pub(super) signing: Vec<bool>,
}

impl<'a> References<'a> {
    pub(super) fn new(raw: &raw::Config, issuers: &'a Names, feeds: &'a Names) -> Self {
        let writable = raw.feeds.iter().map(raw::Feed::is_writable).collect();
        let signing = raw.issuers.iter().map(|issuer| issuer.keys.is_some()).collect();
        Self { issuers, feeds, writable, signing }
    }
}

impl Build<'_, '_> {
    pub(super) fn feed(&mut self, raw: &raw::Feed, names: &References<'_>, place: &Place) -> Option<Feed> {
        let one = self.exactly_one(
            place,
            &[
                ("http", raw.http.is_some()),
                ("file", raw.file.is_some()),
                ("valkey", raw.valkey.is_some()),
                ("nats", raw.nats.is_some()),
                ("set_push", raw.set_push.is_some()),
                ("set_poll", raw.set_poll.is_some()),
                ("backchannel_logout", raw.backchannel_logout.is_some()),
            ],
        );
        let http =
            self.optional(raw.http.as_ref(), |build, raw| build.http_feed(raw, names, &place.field("http")));
        let file = self.optional(raw.file.as_ref(), |build, raw| build.file_feed(raw, &place.field("file")));
        let valkey =
            self.optional(raw.valkey.as_ref(), |build, raw| build.valkey_feed(raw, &place.field("valkey")));
        let nats = self.optional(raw.nats.as_ref(), |build, raw| build.nats_feed(raw, &place.field("nats")));
        let push = self.optional(raw.set_push.as_ref(), |build, raw| {
            build.set_push(raw, names, &place.field("set_push"))
        });
        let poll = self.optional(raw.set_poll.as_ref(), |build, raw| {
            build.set_poll(raw, names, &place.field("set_poll"))
        });
        let logout = self.optional(raw.backchannel_logout.as_ref(), |build, raw| {
            build.backchannel_logout(raw, names, &place.field("backchannel_logout"))
        });
        one?;
        let events = push?.or(poll?).or(logout?).map(FeedSource::Events);
        let source = http?.map(Box::new).map(FeedSource::Http).or(file?).or(valkey?).or(nats?).or(events)?;
        Some(Feed { name: raw.name.clone(), source })
    }

    fn http_feed(&mut self, raw: &raw::HttpFeed, names: &References<'_>, place: &Place) -> Option<HttpFeed> {
        let plain = PlainHttp::of(raw.insecure_allow_http, raw.proxy.as_ref());
        let url = self.source_url(&raw.url, &place.field("url"), plain);
        let long_poll = self.optional(raw.long_poll.as_ref(), |build, text| {
            build.duration(text, &place.field("long_poll"), SECOND, 5 * MINUTE)
        });
        let interval = self.duration(&raw.interval, &place.field("interval"), 100 * MILLISECOND, HOUR);
        let authorization = self.optional(raw.authorization.as_ref(), |build, secret| {
            build.secret_header(secret, &place.field("authorization"))
        });
        let write_authorization = self.optional(raw.write_authorization.as_ref(), |build, secret| {
            build.secret_header(secret, &place.field("write_authorization"))
        });
        let signed = self.optional(raw.signed.as_ref(), |build, raw| {
            build.signed_feed(raw, names, &place.field("signed"))
        });
        let transport = self.transport(
            &Given {
                timeout: &raw.timeout,
                max_size: &raw.max_size,
                ca: raw.ca.as_deref(),
                client_certificate: raw.client_certificate.as_ref(),
                proxy: raw.proxy.as_ref(),
                insecure_allow_http: raw.insecure_allow_http,
                most: Most::OF_FEEDS,
            },
            place,
        );
        Some(HttpFeed {
            url: url?,
            long_poll: long_poll?,
            interval: interval?,
            authorization: authorization?,
            write_authorization: write_authorization?,
            signed: signed?,
            transport: transport?,
        })
    }

    fn file_feed(&mut self, raw: &raw::FileFeed, place: &Place) -> Option<FeedSource> {
        let interval = self.duration(&raw.interval, &place.field("interval"), 100 * MILLISECOND, HOUR);
        // Not probed: a feed that is not there yet is a degraded source, not a wrong configuration.
        Some(FeedSource::File { path: self.files.resolve(&raw.path), interval: interval? })
    }
}
