//! How sources are reached.

use std::time::Duration;

use super::Build;
use super::values::{HOUR, MILLISECOND};
use crate::config::place::Place;
use crate::config::raw::{self, DurationText, SizeText};
use crate::config::settings::{ClientCertificate, Proxy, Transport};

/// The largest values that are taken for meant.
#[derive(Clone, Copy)]
pub(super) struct Most {
    pub(super) timeout: Duration,
    pub(super) size: u64,
}

impl Most {
    pub(super) const USUAL: Self = Self { timeout: Duration::from_secs(5 * 60), size: 1 << 30 };
    /// Of revocations, which are read as they come and never held as a whole.
    pub(super) const OF_FEEDS: Self = Self { timeout: HOUR, size: 1 << 36 };
}

/// Where a source may be that is reached without TLS.
#[derive(Clone, Copy)]
pub(super) enum PlainHttp {
    /// The operator takes the risk.
    Anywhere,
    /// At a loopback address, so that nobody is on the way.
    ThisMachine,
    /// What goes through a proxy leaves this machine, whatever the address: loopback is the proxy's own.
    Nowhere,
}

impl PlainHttp {
    pub(super) fn of(insecure_allow_http: bool, proxy: Option<&raw::Proxy>) -> Self {
        match (insecure_allow_http, proxy) {
            (true, _) => Self::Anywhere,
            (false, None) => Self::ThisMachine,
            (false, Some(_)) => Self::Nowhere,
        }
    }
}

/// The fields that sections share, as they stand in one of them.
pub(super) struct Given<'a> {
    pub(super) timeout: &'a DurationText,
    pub(super) max_size: &'a SizeText,
    pub(super) ca: Option<&'a str>,
    pub(super) client_certificate: Option<&'a raw::ClientCertificate>,
    pub(super) proxy: Option<&'a raw::Proxy>,
    pub(super) insecure_allow_http: bool,
    pub(super) most: Most,
}

impl Build<'_, '_> {
    /// The transport of the section at `place`.
    pub(super) fn transport(&mut self, given: &Given<'_>, place: &Place) -> Option<Transport> {
        let timeout =
            self.duration(given.timeout, &place.field("timeout"), 10 * MILLISECOND, given.most.timeout);
        let max_size = self.size(given.max_size, &place.field("max_size"), 1 << 10, given.most.size);
        let ca = self.optional(given.ca, |build, path| build.file(path, &place.field("ca")));
        let client_certificate = self.optional(given.client_certificate, |build, raw| {
            let place = place.field("client_certificate");
            let certificate = build.file(&raw.certificate, &place.field("certificate"));
            let private_key = build.file(&raw.private_key, &place.field("private_key"));
            Some(ClientCertificate { certificate: certificate?, private_key: private_key? })
        });
        let proxy = self.optional(given.proxy, |build, raw| build.proxy(raw, &place.field("proxy")));
        Some(Transport {
            timeout: timeout?,
            max_size: max_size?,
            ca: ca?,
            client_certificate: client_certificate?,
            proxy: proxy?,
            insecure_allow_http: given.insecure_allow_http,
        })
    }

    fn proxy(&mut self, raw: &raw::Proxy, place: &Place) -> Option<Proxy> {
        let here = place.field("url");
        let url = self.url(&raw.url, &here);
        let authorization = self.optional(raw.authorization.as_ref(), |build, secret| {
            build.secret_header(secret, &place.field("authorization"))
        });
        let url = url?;
        let has_more = url.path() != "/" || url.query().is_some() || url.fragment().is_some();
        if url.scheme() != "http" || has_more || !url.username().is_empty() || url.password().is_some() {
            let remedy = "write `http://`, host and port: `http://proxy.example.com:3128`; what goes to \
                          `https://` sources is encrypted all the way; credentials belong in `authorization`";
            self.mistakes.add(&here, "not the address of a proxy", remedy);
            return None;
        }
        Some(Proxy { url, authorization: authorization? })
    }
}
