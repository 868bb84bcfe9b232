//! `feeds` that identity providers tell of sessions and accounts, and `routes` that take revocations.

use super::names::Names;
use super::transport::{Given, Most, PlainHttp};
use super::values::{DAY, HOUR, MILLISECOND, MINUTE, SECOND};
use super::{Build, feed};
use crate::config::place::Place;
use crate::config::raw::{self, DurationText, SubjectFact};
use crate::config::settings::{
    Access, Arrival, EventFeed, Feed, FeedIndex, FeedSource, Issuer, IssuerIndex, Revocation,
    RevocationEndpoint, Revokes, Route, Service, SetPoll, SignedFeed,
};
use crate::events::SubjectMapping;
use crate::revocation::FactKind;

impl Build<'_, '_> {
    pub(super) fn set_push(
        &mut self,
        raw: &raw::SetPush,
        names: &feed::References<'_>,
        place: &Place,
    ) -> Option<EventFeed> {
        let authorization = self.secret_header(&raw.authorization, &place.field("authorization"));
        let common = self.event_feed(&raw.signed_by, &raw.audiences, &raw.token_lifetime, names, place);
        let write_to = self.write_to(raw.write_to.as_deref(), names, place);
        let (signed_by, audiences, token_lifetime) = common?;
        Some(EventFeed {
            signed_by,
            audiences,
            arrival: Arrival::SetPush { authorization: authorization?, heartbeat: raw.heartbeat },
            token_lifetime,
            subjects: subjects(&raw.subjects),
            write_to: write_to?,
        })
    }

    pub(super) fn set_poll(
        &mut self,
        raw: &raw::SetPoll,
        names: &feed::References<'_>,
        place: &Place,
    ) -> Option<EventFeed> {
        let plain = PlainHttp::of(raw.insecure_allow_http, raw.proxy.as_ref());
        let url = self.source_url(&raw.url, &place.field("url"), plain);
        let authorization = self.optional(raw.authorization.as_ref(), |build, secret| {
            build.secret_header(secret, &place.field("authorization"))
        });
        let long_poll = self.duration(&raw.long_poll, &place.field("long_poll"), SECOND, 5 * MINUTE);
        let interval = self.duration(&raw.interval, &place.field("interval"), 100 * MILLISECOND, HOUR);
        let transport = self.transport(
            &Given {
                timeout: &raw.timeout,
                max_size: &raw.max_size,
                ca: raw.ca.as_deref(),
                client_certificate: raw.client_certificate.as_ref(),
                proxy: raw.proxy.as_ref(),
                insecure_allow_http: raw.insecure_allow_http,
                most: Most { size: Most::USUAL.size, ..Most::OF_FEEDS },
            },
            place,
        );
        let common = self.event_feed(&raw.signed_by, &raw.audiences, &raw.token_lifetime, names, place);
        let write_to = self.write_to(raw.write_to.as_deref(), names, place);
        let (signed_by, audiences, token_lifetime) = common?;
        let poll = SetPoll {
            url: url?,
            authorization: authorization?,
            long_poll: long_poll?,
            interval: interval?,
            transport: transport?,
        };
        Some(EventFeed {
            signed_by,
            audiences,
            arrival: Arrival::SetPoll(Box::new(poll)),
            token_lifetime,
            subjects: subjects(&raw.subjects),
            write_to: write_to?,
        })
    }

    pub(super) fn backchannel_logout(
        &mut self,
        raw: &raw::BackchannelLogout,
        names: &feed::References<'_>,
        place: &Place,
    ) -> Option<EventFeed> {
        let common = self.event_feed(&raw.signed_by, &raw.audiences, &raw.token_lifetime, names, place);
        let write_to = self.write_to(raw.write_to.as_deref(), names, place);
        let (signed_by, audiences, token_lifetime) = common?;
        Some(EventFeed {
            signed_by,
            audiences,
            arrival: Arrival::BackchannelLogout { allow_untyped: raw.allow_untyped },
            token_lifetime,
            subjects: SubjectMapping::default(),
            write_to: write_to?,
        })
    }

    pub(super) fn signed_feed(
        &mut self,
        raw: &raw::SignedFeed,
        names: &feed::References<'_>,
        place: &Place,
    ) -> Option<SignedFeed> {
        let signed_by = self.signer(&raw.signed_by, names, place);
        let max_age = self.duration(&raw.max_age, &place.field("max_age"), SECOND, DAY);
        if raw.audience.is_empty() {
            let remedy =
                "write what the server puts into `aud`, so that an answer for another gateway is refused";
            self.mistakes.add(&place.field("audience"), "the audience is empty", remedy);
            return None;
        }
        Some(SignedFeed { signed_by: signed_by?, audience: raw.audience.clone(), max_age: max_age? })
    }

    pub(super) fn revocation_endpoint(
        &mut self,
        raw: &raw::RevocationEndpoint,
        feeds: &Names,
        place: &Place,
    ) -> Option<RevocationEndpoint> {
        let here = place.field("feed");
        let feed = feeds.find(&raw.feed, &here, self.mistakes);
        let token_lifetime = self.token_lifetime(&raw.token_lifetime, place);
        let revokes = match raw.revokes {
            raw::Revokes::Token => Revokes::Token,
            raw::Revokes::Session => Revokes::Session,
        };
        Some(RevocationEndpoint { revokes, feed: FeedIndex(feed?), token_lifetime: token_lifetime? })
    }

    /// What providers push must arrive somewhere, and what arrives must be pushed.
    pub(super) fn received_feeds(&mut self, feeds: &[Option<Feed>], routes: &[Option<Route>], root: &Place) {
        let arrives = |index: usize| {
            let arrival = match feeds.get(index)?.as_ref()?.source {
                FeedSource::Events(EventFeed { ref arrival, .. }) => !matches!(arrival, Arrival::SetPoll(_)),
                _ => false,
            };
            Some(arrival)
        };
        let mut received = Vec::new();
        for (index, route) in routes.iter().enumerate() {
            let Some(Service::Receive(FeedIndex(feed))) = route.as_ref().map(|route| route.service) else {
                continue;
            };
            received.push(feed);
            if arrives(feed) == Some(false) {
                let remedy = "name a feed with `set_push` or `backchannel_logout`";
                let place = root.field("routes").index(index).field("receives");
                self.mistakes.add(
                    &place,
                    "nothing is sent to this feed: the gateway asks its source",
                    remedy,
                );
            }
        }
        // A route that could not be made may be the one.
        if routes.iter().any(Option::is_none) {
            return;
        }
        for index in 0..feeds.len() {
            if arrives(index) == Some(true) && !received.contains(&index) {
                let remedy = "add a route: `{ match: { path: /events, methods: [POST] }, receives: NAME }`";
                let place = root.field("feeds").index(index);
                self.mistakes.add(&place, "no route receives what the provider sends", remedy);
            }
        }
    }

    /// A token that is revoked where nobody looks stays good.
    pub(super) fn effective_revocation(
        &mut self,
        issuers: &[Option<Issuer>],
        routes: &[Option<Route>],
        place: &Place,
    ) {
        for (index, route) in routes.iter().enumerate() {
            let Some(Route { service: Service::Revoke(endpoint), access: Access::Require(needed), .. }) =
                route
            else {
                continue;
            };
            for IssuerIndex(issuer) in &needed.issuers {
                let Some(Some(issuer)) = issuers.get(*issuer) else { continue };
                let looks = |revocation: &Revocation| revocation.feeds.contains(&endpoint.feed);
                if !issuer.revocation.as_ref().is_some_and(looks) {
                    let place = place.index(index).field("revocation_endpoint").field("feed");
                    let message = format!("the issuer `{}` is not revoked by this feed", issuer.name);
                    let remedy = "add the feed to the issuer's `revocation.feeds`";
                    self.mistakes.add(&place, message, remedy);
                }
            }
        }
    }

    fn event_feed(
        &mut self,
        signed_by: &str,
        audiences: &[String],
        token_lifetime: &DurationText,
        names: &feed::References<'_>,
        place: &Place,
    ) -> Option<(IssuerIndex, Vec<String>, std::time::Duration)> {
        let signed_by = self.signer(signed_by, names, place);
        let here = place.field("audiences");
        let some = self.not_empty(audiences, &here, "without one, events for others would be accepted");
        let repeats = self.no_repeats(audiences, &here);
        let token_lifetime = self.token_lifetime(token_lifetime, place);
        some.and(repeats)?;
        Some((signed_by?, audiences.to_vec(), token_lifetime?))
    }

    fn signer(&mut self, name: &str, names: &feed::References<'_>, place: &Place) -> Option<IssuerIndex> {
        let place = place.field("signed_by");
        let issuer = names.issuers.find(name, &place, self.mistakes)?;
        if !names.signing.get(issuer).copied().unwrap_or(false) {
            let message =
                format!("the issuer `{name}` has no keys, so nothing that it signs can be verified");
            self.mistakes.add(&place, message, "add `keys` to it");
            return None;
        }
        Some(IssuerIndex(issuer))
    }

    fn token_lifetime(&mut self, text: &DurationText, place: &Place) -> Option<std::time::Duration> {
        self.duration(text, &place.field("token_lifetime"), MINUTE, 3650 * DAY)
    }

    fn write_to(
        &mut self,
        name: Option<&str>,
        names: &feed::References<'_>,
        place: &Place,
    ) -> Option<Option<FeedIndex>> {
        let place = place.field("write_to");
        self.optional(name, |build, name| {
            let feed = names.feeds.find(name, &place, build.mistakes)?;
            if !names.writable.get(feed).copied().unwrap_or(false) {
                let message = format!("nothing can be written to the feed `{name}`");
                let remedy = "name a feed whose engine all gateways read: `valkey`, `nats`, `file`, or `http` with \
                              `write_authorization`";
                build.mistakes.add(&place, message, remedy);
                return None;
            }
            Some(FeedIndex(feed))
        })
    }
}

fn subjects(raw: &raw::Subjects) -> SubjectMapping {
    let fact = |fact| match fact {
        SubjectFact::None => None,
        SubjectFact::Sub => Some(FactKind::Sub),
        SubjectFact::Sid => Some(FactKind::Sid),
        SubjectFact::Jti => Some(FactKind::Jti),
        SubjectFact::Client => Some(FactKind::Client),
    };
    SubjectMapping {
        opaque: fact(raw.opaque),
        email: fact(raw.email),
        account: fact(raw.account),
        phone_number: fact(raw.phone_number),
        did: fact(raw.did),
        uri: fact(raw.uri),
    }
}
