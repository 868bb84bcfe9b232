//! `routes[].cors`.

use std::time::Duration;

use http::{HeaderName, Method};
use url::Url;

use super::values::DAY;
use super::{Build, all, each, http_names};
use crate::config::place::Place;
use crate::config::raw;
use crate::cors::{AnsweredBy, Cors, OriginPattern, Origins};
use crate::route::MethodSet;

/// What routes without `methods` let pages do.
const USUAL_METHODS: [Method; 6] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

impl Build<'_, '_> {
    pub(super) fn cors(
        &mut self,
        raw: &raw::Cors,
        methods: Option<&MethodSet>,
        place: &Place,
    ) -> Option<Cors> {
        let origins = self.origins(raw, &place.field("allow_origins"));
        let here = place.field("allow_methods");
        let methods = match (raw.allow_methods.as_deref(), methods) {
            (Some(raw), _) => self.methods(Some(raw), &here),
            (None, methods) => methods.cloned(),
        };
        let headers = self.cors_headers(&raw.allow_headers, &place.field("allow_headers"));
        let exposed = self.cors_headers(&raw.expose_headers, &place.field("expose_headers"));
        let max_age = self.duration(&raw.max_age, &place.field("max_age"), Duration::ZERO, DAY);
        let methods = match methods? {
            MethodSet::Any => USUAL_METHODS.to_vec(),
            MethodSet::Only(methods) => methods,
        };
        let preflight = match raw.preflight {
            raw::AnsweredBy::Answer => AnsweredBy::Gateway,
            raw::AnsweredBy::Forward => AnsweredBy::Api,
        };
        Some(Cors::new(origins?, &methods, &headers?, &exposed?, (raw.credentials, max_age?, preflight)))
    }

    fn origins(&mut self, raw: &raw::Cors, place: &Place) -> Option<Origins> {
        self.not_empty(&raw.allow_origins, place, "or remove `cors`: no page could call")?;
        self.no_repeats(&raw.allow_origins, place);
        if raw.allow_origins.iter().any(|origin| origin == "*") {
            if raw.credentials {
                let remedy =
                    "name the origins: any page could otherwise act with the cookies of whoever opens it";
                self.mistakes.add(place, "`*` is not possible with `credentials: true`", remedy);
                return None;
            }
            if raw.allow_origins.len() > 1 {
                self.mistakes.add(
                    place,
                    "`*` is every origin, and others stand beside it",
                    "keep one or the other",
                );
                return None;
            }
            return Some(Origins::Any);
        }
        all(each(&raw.allow_origins, place, |origin, place| self.origin(origin, place))).map(Origins::Listed)
    }

    fn origin(&mut self, text: &str, place: &Place) -> Option<OriginPattern> {
        let probe = text.replacen("://*.", "://", 1);
        let is_origin = Url::parse(&probe).is_ok_and(|url| {
            !probe.contains('*')
                && matches!(url.scheme(), "http" | "https")
                && url.origin().ascii_serialization() == probe
        });
        if !is_origin {
            let remedy = "write it as browsers do: `https://app.example.com`, with a port only if it is not the \
                          scheme's own, and no slash at the end; or `https://*.example.com`";
            self.mistakes.add(place, format!("`{text}` is not an origin"), remedy);
            return None;
        }
        Some(match text.split_once("*.") {
            Some((before, behind)) => OriginPattern::Below(before.to_owned(), format!(".{behind}")),
            None => OriginPattern::Exact(text.to_owned()),
        })
    }

    fn cors_headers(&mut self, raw: &[String], place: &Place) -> Option<Vec<HeaderName>> {
        let headers = each(raw, place, |name, place| {
            let header = http_names::header(name).filter(|_| name != "*");
            if header.is_none() {
                let remedy = "name each header: browsers do not count `Authorization` to `*`";
                self.mistakes.add(place, format!("`{name}` is not a header name"), remedy);
            }
            header
        });
        all(headers)
    }
}
