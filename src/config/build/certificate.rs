//! Certificates: the gateway's own, and what is demanded of those of clients.

use super::{Build, all, each};
use crate::certificate::{CertificateFact, CertificateRules};
use crate::config::place::Place;
use crate::config::raw::{self, OneOrMany};
use crate::config::settings::CertifiedKey;

/// Hexadecimal digits of a SHA-256 digest.
const THUMBPRINT_DIGITS: usize = 64;

impl Build<'_, '_> {
    pub(super) fn certified_key(&mut self, raw: &raw::CertifiedKey, place: &Place) -> Option<CertifiedKey> {
        let certificate = self.file(&raw.certificate, &place.field("certificate"));
        let private_key = self.file(&raw.private_key, &place.field("private_key"));
        Some(CertifiedKey { certificate: certificate?, private_key: private_key? })
    }

    pub(super) fn required_certificate(
        &mut self,
        raw: &raw::RequiredCertificate,
        place: &Place,
    ) -> Option<CertificateRules> {
        let fields = [
            (CertificateFact::Subject, &raw.subject),
            (CertificateFact::CommonName, &raw.common_name),
            (CertificateFact::SanDns, &raw.san_dns),
            (CertificateFact::SanUri, &raw.san_uri),
            (CertificateFact::SanEmail, &raw.san_email),
            (CertificateFact::Thumbprint, &raw.thumbprint),
        ];
        let given = fields.into_iter().filter_map(|(fact, texts)| Some((fact, texts.as_ref()?)));
        let rules = given.map(|(fact, texts)| {
            let texts = self.allowed_texts(fact, texts, &place.field(fact.name()));
            Some((fact, texts?))
        });
        all(rules.collect()).map(CertificateRules::new)
    }

    fn allowed_texts(
        &mut self,
        fact: CertificateFact,
        raw: &OneOrMany,
        place: &Place,
    ) -> Option<Vec<String>> {
        match raw {
            OneOrMany::One(text) => Some(vec![self.allowed_text(fact, text, place)?]),
            OneOrMany::Many(texts) => {
                self.not_empty(texts, place, "with no text possible, nobody would pass")?;
                self.no_repeats(texts, place);
                all(each(texts, place, |text, place| self.allowed_text(fact, text, place)))
            }
        }
    }

    fn allowed_text(&mut self, fact: CertificateFact, text: &str, place: &Place) -> Option<String> {
        if text.is_empty() {
            self.mistakes.add(place, "the text is empty", "write what the certificate says there");
            return None;
        }
        match fact {
            CertificateFact::SanDns => Some(text.to_ascii_lowercase()),
            CertificateFact::Thumbprint => {
                let digits: String = text.chars().filter(|c| *c != ':').collect();
                if digits.len() == THUMBPRINT_DIGITS && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                    return Some(digits.to_ascii_lowercase());
                }
                let remedy = "write the 64 digits that `openssl x509 -noout -fingerprint -sha256` shows";
                self.mistakes.add(place, format!("`{text}` is not a SHA-256 digest"), remedy);
                None
            }
            _ => Some(text.to_owned()),
        }
    }

    /// Routes and issuers that need a client certificate are shut where no listener asks for one.
    pub(super) fn somebody_asks_for_certificates(&mut self, raw: &raw::Config) {
        let asks = |listener: &raw::Listener| {
            listener.tls.as_ref().is_some_and(|tls| tls.client_certificates.is_some())
        };
        if raw.listeners.iter().any(asks) || self.mistakes.is_replaced(&Place::root().field("listeners")) {
            return;
        }
        let routes = Place::root().field("routes");
        let by_route = raw.routes.iter().enumerate().filter_map(|(index, route)| {
            route.require.as_ref()?.client_certificate.as_ref()?;
            Some(routes.index(index).field("require").field("client_certificate"))
        });
        let issuers = Place::root().field("issuers");
        let bound =
            raw.issuers.iter().enumerate().filter(|(_, issuer)| issuer.binding == raw::Binding::Certificate);
        let by_issuer = bound.map(|(index, _)| issuers.index(index).field("binding"));
        for place in by_route.chain(by_issuer) {
            let remedy = "give a listener `tls.client_certificates: { ca: FILE }`";
            self.mistakes.add(&place, "no listener asks for client certificates", remedy);
        }
    }
}
