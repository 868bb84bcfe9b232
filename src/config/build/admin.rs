//! `admin`.

use http::HeaderValue;

use super::Build;
use crate::config::place::Place;
use crate::config::raw;
use crate::config::settings::{Admin, AdminPlace, AdminTls, CertifiedKey, Refusals};

/// What could be found by trying is no secret.
const LEAST_TOKEN: usize = 16;

/// With 2 KiB each and a core or two, a quarter of a gigabyte: more is a slip of the finger.
const MOST_REFUSALS: u64 = 65_536;

impl Build<'_, '_> {
    pub(super) fn admin(&mut self, raw: &raw::Admin, place: &Place) -> Option<Admin> {
        let one =
            self.exactly_one(place, &[("address", raw.address.is_some()), ("socket", raw.socket.is_some())]);
        let token = self
            .optional(raw.token.as_ref(), |build, secret| build.admin_token(secret, &place.field("token")));
        let tls = self.optional(raw.tls.as_ref(), |build, raw| build.admin_tls(raw, &place.field("tls")));
        let refusals = self.refusals(&raw.refusals, &place.field("refusals"));
        one?;
        let where_it_is = match (raw.address.as_deref(), raw.socket.as_deref()) {
            (Some(address), _) => self.admin_address(address, raw, tls?, &place.field("address")),
            (None, path) => {
                if raw.tls.is_some() {
                    let remedy = "remove it: only the user of the gateway may connect to the socket";
                    self.mistakes.add_at_key(
                        &place.field("tls"),
                        "is for an address, not for a socket",
                        remedy,
                    );
                    return None;
                }
                path.map(|path| AdminPlace::Socket(self.files.resolve(path)))
            }
        };
        Some(Admin { place: where_it_is?, token: token?, refusals: refusals? })
    }

    fn admin_address(
        &mut self,
        text: &str,
        raw: &raw::Admin,
        tls: Option<AdminTls>,
        place: &Place,
    ) -> Option<AdminPlace> {
        let address = self.address(text, place)?;
        let proves = raw.token.is_some() || raw.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
        if !address.ip().is_loopback() && (raw.tls.is_none() || !proves) {
            let message =
                format!("`{text}` is not a loopback address, and whoever can connect may do everything");
            let remedy =
                "write `127.0.0.1:9191`, or add `tls` with a `client_ca` or with a `token` beside it";
            self.mistakes.add(place, message, remedy);
            return None;
        }
        Some(match tls {
            Some(tls) => AdminPlace::Tls(address, tls),
            None => AdminPlace::Address(address),
        })
    }

    fn admin_token(&mut self, secret: &raw::SecretText, place: &Place) -> Option<HeaderValue> {
        let remedy = "write `${ADMIN_TOKEN}` or `file:PATH`, and make the token with `openssl rand -hex 32`";
        let token = self.secret(secret, place, remedy)?;
        if token.len() < LEAST_TOKEN || token.as_bytes().contains(&b' ') {
            let message = format!("the token is shorter than {LEAST_TOKEN} characters, or has blanks");
            self.mistakes.add(place, message, remedy);
            return None;
        }
        Some(token)
    }

    fn admin_tls(&mut self, raw: &raw::AdminTls, place: &Place) -> Option<AdminTls> {
        let certificate = self.file(&raw.certificate, &place.field("certificate"));
        let private_key = self.file(&raw.private_key, &place.field("private_key"));
        let client_ca = self
            .optional(raw.client_ca.as_deref(), |build, path| build.file(path, &place.field("client_ca")));
        Some(AdminTls {
            certificate: CertifiedKey { certificate: certificate?, private_key: private_key? },
            client_ca: client_ca?,
        })
    }

    fn refusals(&mut self, raw: &raw::Refusals, place: &Place) -> Option<Refusals> {
        if raw.keep > MOST_REFUSALS {
            let message = format!("more than {MOST_REFUSALS} refusals");
            let remedy = "keep a few hundred; the access log has them all";
            self.mistakes.add(&place.field("keep"), message, remedy);
            return None;
        }
        self.no_repeats(&raw.claims, &place.field("claims"))?;
        Some(Refusals { keep: usize::try_from(raw.keep).ok()?, claims: raw.claims.clone() })
    }
}
