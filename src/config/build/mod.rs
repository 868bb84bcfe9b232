//! From raw texts to settings: what values mean, and whether they fit each other.
//!
//! Every function tells its mistakes and goes on; a setting that could not be made is `None`, and the
//! configuration as a whole is only made when nothing was told. Knows nothing of YAML.

#![allow(clippy::option_option, reason = "what is left out and what is wrong are different things")]

mod admin;
mod certificate;
mod claims;
mod conflicts;
mod cors;
mod engine;
mod events;
mod feed;
mod files;
mod forwarded;
mod http_names;
mod introspection;
mod issuer;
mod limits;
mod listener;
mod names;
mod observe;
mod reload;
mod resilience;
mod route;
mod route_bounds;
mod status_list;
mod tracing;
mod transport;
mod units;
mod upstream;
mod values;

use std::num::NonZeroUsize;

pub(super) use files::Files;
pub(super) use values::is_loopback;

use super::document::Document;
use super::mistakes::Mistakes;
use super::place::Place;
use super::raw;
use super::settings::{Config, ErrorDetail};
use names::Names;

/// More threads than any machine has cores is a slip of the finger.
const MAX_WORKERS: u64 = 1024;

/// The settings; none if there are mistakes.
pub(super) fn config(raw: &raw::Config, files: &Files<'_>, mistakes: &mut Mistakes<'_>) -> Option<Config> {
    Build { files, mistakes }.config(raw)
}

/// What every step of the building needs.
struct Build<'build, 'source> {
    files: &'build Files<'build>,
    mistakes: &'build mut Mistakes<'source>,
}

impl Build<'_, '_> {
    fn config(&mut self, raw: &raw::Config) -> Option<Config> {
        let root = Place::root();
        self.known_version(raw.version, &root.field("version"));
        let error_documents = self.optional(raw.error_documents.as_deref(), |build, text| {
            build.url(text, &root.field("error_documents")).map(|_| text.to_owned())
        });
        let workers = self.workers(raw.workers, &root.field("workers"));
        self.not_empty(&raw.listeners, &root.field("listeners"), "a gateway without listeners serves nobody");
        self.not_empty(
            &raw.routes,
            &root.field("routes"),
            "what no route matches is refused, so all would be",
        );
        let forwarded = self.forwarded(&raw.forwarded, &root.field("forwarded"));

        let feed_names =
            Names::collect("feed", &raw.feeds, |feed| &feed.name, &root.field("feeds"), self.mistakes);
        let issuer_names = Names::collect(
            "issuer",
            &raw.issuers,
            |issuer| &issuer.name,
            &root.field("issuers"),
            self.mistakes,
        );
        let upstream_names = Names::collect(
            "upstream",
            &raw.upstreams,
            |upstream| &upstream.name,
            &root.field("upstreams"),
            self.mistakes,
        );

        let listeners = self.listeners(&raw.listeners, &root.field("listeners"));
        let health =
            self.optional(raw.health.as_ref(), |build, raw| build.health(raw, &root.field("health")));
        let admin = self.optional(raw.admin.as_ref(), |build, raw| build.admin(raw, &root.field("admin")));
        self.distinct_addresses(raw);
        self.somebody_asks_for_certificates(raw);
        self.somebody_asks_for_decisions(raw);
        let access_log = self.access_log(&raw.access_log, &root.field("access_log"));
        let audit_log = self
            .optional(raw.audit_log.as_ref(), |build, raw| build.audit_log(raw, &root.field("audit_log")));
        let references = feed::References::new(raw, &issuer_names, &feed_names);
        let feeds = each(&raw.feeds, &root.field("feeds"), |raw, place| self.feed(raw, &references, place));
        let issuers =
            each(&raw.issuers, &root.field("issuers"), |raw, place| self.issuer(raw, &feed_names, place));
        self.distinct_issuers(&raw.issuers, &root.field("issuers"));
        let upstreams =
            each(&raw.upstreams, &root.field("upstreams"), |raw, place| self.upstream(raw, place));
        let limits = self.limits(&raw.limits, &root.field("limits"));
        let timeouts = self.timeouts(&raw.timeouts, &root.field("timeouts"));
        let overload = self.overload(&raw.overload, &root.field("overload"));
        let failed_attempts = self.optional(raw.failed_attempts.as_ref(), |build, raw| {
            build.failed_attempts(raw, &root.field("failed_attempts"))
        });
        let tracing =
            self.optional(raw.tracing.as_ref(), |build, raw| build.tracing(raw, &root.field("tracing")));
        let patterns =
            self.optional(raw.patterns.as_ref(), |build, raw| build.patterns(raw, &root.field("patterns")));
        let reload = self.reload(&raw.reload, &root.field("reload"));
        let defaults = route::Defaults {
            error_detail: error_detail(raw.error_detail),
            max_body: limits.and_then(|limits| limits.body),
            body_rate: limits.map_or(0, |limits| limits.body_rate),
            issuers: &issuer_names,
            introspecting: raw.issuers.iter().map(|issuer| issuer.introspection.is_some()).collect(),
            feeds: &feed_names,
            upstreams: &upstream_names,
        };
        let routes = each(&raw.routes, &root.field("routes"), |raw, place| self.route(raw, &defaults, place));
        self.distinct_routes(&routes, &root.field("routes"));
        self.received_feeds(&feeds, &routes, &root);
        self.effective_revocation(&issuers, &routes, &root.field("routes"));

        Some(Config {
            state_dir: raw.state_dir.as_deref().map(|path| self.files.resolve(path)),
            error_detail: error_detail(raw.error_detail),
            error_documents: error_documents?,
            workers,
            listeners: all(listeners)?,
            health: health?,
            admin: admin?,
            access_log: access_log?,
            audit_log: audit_log?,
            log: observe::log(&raw.log),
            issuers: all(issuers)?,
            feeds: all(feeds)?,
            upstreams: all(upstreams)?,
            routes: all(routes)?,
            limits: limits?,
            timeouts: timeouts?,
            forwarded: forwarded?,
            overload: overload?,
            failed_attempts: failed_attempts?,
            reload: reload?,
            tracing: tracing?,
            patterns: patterns?,
            document: Document::default(),
        })
    }

    fn known_version(&mut self, version: u64, place: &Place) {
        if version != 1 {
            let remedy = "write `version: 1`; a later version of this file needs a later valgate";
            self.mistakes.add(place, format!("version {version} is not known"), remedy);
        }
    }

    fn workers(&mut self, workers: u64, place: &Place) -> Option<NonZeroUsize> {
        if workers > MAX_WORKERS {
            let remedy = "leave it out for one worker on each core, which is the fastest";
            self.mistakes.add(place, format!("more than {MAX_WORKERS} worker threads"), remedy);
        }
        usize::try_from(workers).ok().and_then(NonZeroUsize::new)
    }

    fn not_empty<T>(&mut self, list: &[T], place: &Place, why: &str) -> Option<()> {
        if list.is_empty() {
            self.mistakes.add(place, "the list is empty", format!("add at least one: {why}"));
            return None;
        }
        Some(())
    }

    /// `Some(None)` for what the file leaves out, `None` for what is wrong.
    fn optional<T: ?Sized, U>(
        &mut self,
        raw: Option<&T>,
        build: impl FnOnce(&mut Self, &T) -> Option<U>,
    ) -> Option<Option<U>> {
        match raw {
            None => Some(None),
            Some(raw) => build(self, raw).map(Some),
        }
    }

    /// Checks that exactly one of the fields of the mapping at `place` is given.
    fn exactly_one(&mut self, place: &Place, fields: &[(&str, bool)]) -> Option<()> {
        let names: Vec<&str> = fields.iter().map(|(name, _)| *name).collect();
        let given: Vec<&str> = fields.iter().filter(|(_, given)| *given).map(|(name, _)| *name).collect();
        let names = super::shape::list(&names);
        match given.as_slice() {
            [_] => Some(()),
            [] => {
                self.mistakes.add(place, format!("needs one of {names}"), "add exactly one of them");
                None
            }
            given => {
                let given = super::shape::list(given).replace(" or ", " and ");
                self.mistakes.add(
                    place,
                    format!("has {given}, which exclude each other"),
                    "keep exactly one of them",
                );
                None
            }
        }
    }
}

fn error_detail(raw: raw::ErrorDetail) -> ErrorDetail {
    match raw {
        raw::ErrorDetail::Full => ErrorDetail::Full,
        raw::ErrorDetail::CodeOnly => ErrorDetail::CodeOnly,
    }
}

/// Builds every element of a list, so that the mistakes of all are told.
fn each<T, U>(list: &[T], place: &Place, mut build: impl FnMut(&T, &Place) -> Option<U>) -> Vec<Option<U>> {
    list.iter().enumerate().map(|(index, raw)| build(raw, &place.index(index))).collect()
}

/// All elements, if all could be made.
fn all<T>(list: Vec<Option<T>>) -> Option<Vec<T>> {
    list.into_iter().collect()
}
