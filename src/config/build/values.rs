//! Values that occur in several sections: addresses, URLs, durations, sizes, files, secrets.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use http::HeaderValue;
use url::{Host, Url};

use super::Build;
use super::transport::PlainHttp;
use super::units::{self, UnitError};
use crate::config::place::Place;
use crate::config::raw::{DurationText, SecretText, SizeText};

pub(super) const MILLISECOND: Duration = Duration::from_millis(1);
pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const MINUTE: Duration = Duration::from_secs(60);
pub(super) const HOUR: Duration = Duration::from_secs(3600);
pub(super) const DAY: Duration = Duration::from_secs(86_400);

impl Build<'_, '_> {
    /// A duration within bounds, both included.
    pub(super) fn duration(
        &mut self,
        text: &DurationText,
        place: &Place,
        least: Duration,
        most: Duration,
    ) -> Option<Duration> {
        let text = &text.0;
        match units::duration(text) {
            Ok(duration) if duration < least => {
                self.mistakes.add(
                    place,
                    format!("`{text}` is too short"),
                    at_least(&units::show_duration(least)),
                );
                None
            }
            Ok(duration) if duration > most => {
                self.mistakes.add(
                    place,
                    format!("`{text}` is too long"),
                    at_most(&units::show_duration(most)),
                );
                None
            }
            Ok(duration) => Some(duration),
            Err(error) => {
                let remedy = match &error {
                    UnitError::NoUnit => format!("a number needs a unit: `{}s`, or ms, m, h, d", text.trim()),
                    _ => "write numbers with units: `500ms`, `30s`, `10m`, `24h`, `365d`, `1h30m`".to_owned(),
                };
                self.mistakes.add(place, format!("`{text}` is not a duration"), remedy);
                None
            }
        }
    }

    /// A number of bytes within bounds, both included.
    pub(super) fn size(&mut self, text: &SizeText, place: &Place, least: u64, most: u64) -> Option<u64> {
        let text = &text.0;
        match units::size(text) {
            Ok(bytes) if bytes < least => {
                self.mistakes.add(
                    place,
                    format!("`{text}` is too small"),
                    at_least(&units::show_size(least)),
                );
                None
            }
            Ok(bytes) if bytes > most => {
                self.mistakes.add(place, format!("`{text}` is too large"), at_most(&units::show_size(most)));
                None
            }
            Ok(bytes) => Some(bytes),
            Err(_) => {
                let remedy = "write a whole number of bytes, or with `KiB`, `MiB`, `GiB`: `16KiB`";
                self.mistakes.add(place, format!("`{text}` is not a size"), remedy);
                None
            }
        }
    }

    /// A number within bounds, both included.
    pub(super) fn count(&mut self, count: u64, place: &Place, least: u64, most: u64) -> Option<u64> {
        if (least..=most).contains(&count) {
            return Some(count);
        }
        let remedy = format!("write a number from {least} to {most}");
        self.mistakes.add(place, format!("{count} is out of range"), remedy);
        None
    }

    /// An IP address with port.
    pub(super) fn address(&mut self, text: &str, place: &Place) -> Option<SocketAddr> {
        let address = text.parse().ok();
        if address.is_none() {
            self.mistakes.add(
                place,
                format!("`{text}` is not an IP address with port"),
                "write it as `0.0.0.0:8443` or `[::]:8443` for all interfaces, `127.0.0.1:8443` for this host alone",
            );
        }
        address
    }

    /// A file that must be readable, and that is read when the configuration is put in force.
    pub(super) fn file(&mut self, path: &str, place: &Place) -> Option<PathBuf> {
        let resolved = self.polled_file(path, place)?;
        self.files.depend(place, &resolved);
        Some(resolved)
    }

    /// A file that must be readable, and that its reader looks at again and again.
    pub(super) fn polled_file(&mut self, path: &str, place: &Place) -> Option<PathBuf> {
        if path.is_empty() {
            self.mistakes.add(place, "the path is empty", "write the path of a file");
            return None;
        }
        let resolved = self.files.resolve(path);
        if let Err(error) = self.files.readable(&resolved) {
            let remedy = format!("it was looked for at {}", resolved.display());
            self.mistakes.add(place, format!("the file cannot be read: {error}"), remedy);
            return None;
        }
        Some(resolved)
    }

    /// A URL from which keys or revocations are fetched: `https`, or `http` where nobody is on the way.
    pub(super) fn source_url(&mut self, text: &str, place: &Place, plain: PlainHttp) -> Option<Url> {
        let url = self.url(text, place)?;
        self.plain_http(&url, place, plain)?;
        if !url.username().is_empty() || url.password().is_some() {
            self.mistakes.add(place, "the URL holds credentials", "remove them: URLs are written to logs");
            return None;
        }
        if url.fragment().is_some() {
            self.mistakes.add(place, "the URL has a fragment (`#`)", "remove it: it is never sent");
            return None;
        }
        Some(url)
    }

    /// That nobody is on the way to a URL by `http`.
    pub(super) fn plain_http(&mut self, url: &Url, place: &Place, plain: PlainHttp) -> Option<()> {
        let is_near = is_loopback(url);
        let (message, remedy) = match plain {
            _ if url.scheme() != "http" => return Some(()),
            PlainHttp::Anywhere => return Some(()),
            PlainHttp::ThisMachine if is_near => return Some(()),
            PlainHttp::Nowhere if is_near => (
                "by way of `proxy` a loopback address is the proxy's own, and `http://` goes there in the clear",
                "remove `proxy`: a source on this machine needs none; or use `https://`; or, at your risk, \
                 `insecure_allow_http: true`",
            ),
            PlainHttp::ThisMachine | PlainHttp::Nowhere => (
                "`http://` lets whoever is on the way change the answer",
                "use `https://`; `http://` is for loopback addresses (127.0.0.1, [::1]), or, at your risk, with \
                 `insecure_allow_http: true`",
            ),
        };
        self.mistakes.add(place, message, remedy);
        None
    }

    /// A URL with `http` or `https` and a host.
    pub(super) fn url(&mut self, text: &str, place: &Place) -> Option<Url> {
        let remedy = "write it whole: `https://host.example.com/path`";
        match Url::parse(text) {
            Ok(url) if !matches!(url.scheme(), "http" | "https") => {
                self.mistakes.add(
                    place,
                    format!("a URL of the scheme `{}` is not possible", url.scheme()),
                    remedy,
                );
                None
            }
            Ok(url) => Some(url),
            Err(error) => {
                self.mistakes.add(place, format!("not a URL: {error}"), remedy);
                None
            }
        }
    }

    /// The value of a header that is a secret.
    pub(super) fn secret_header(&mut self, secret: &SecretText, place: &Place) -> Option<HeaderValue> {
        self.secret(secret, place, "write scheme and credentials on one line: `Bearer ${FEED_TOKEN}`")
    }

    /// As [`Self::secret_header`], with the remedy for what cannot be in a header.
    pub(super) fn secret(&mut self, secret: &SecretText, place: &Place, remedy: &str) -> Option<HeaderValue> {
        let text = self.secret_text(secret, place)?;
        let value = HeaderValue::from_str(&text).ok().filter(|value| !value.is_empty());
        let Some(mut value) = value else {
            self.mistakes.add(place, "the secret is empty or cannot be the value of a header", remedy);
            return None;
        };
        value.set_sensitive(true);
        Some(value)
    }

    /// A secret of any characters, from the file itself or, after `file:`, from another one. Never shown.
    pub(super) fn secret_text(&mut self, secret: &SecretText, place: &Place) -> Option<String> {
        let Some(path) = secret.0.strip_prefix("file:") else { return Some(secret.0.clone()) };
        match self.files.read_secret(path, place) {
            Ok(text) => Some(text),
            Err(error) => {
                let remedy = "write `file:` and the path of a readable text file";
                self.mistakes.add(place, format!("the file of the secret cannot be read: {error}"), remedy);
                None
            }
        }
    }

    /// Tells elements that stand in a list twice.
    pub(super) fn no_repeats(&mut self, list: &[String], place: &Place) -> Option<()> {
        let mut good = Some(());
        for (index, element) in list.iter().enumerate() {
            if list.iter().take(index).any(|earlier| earlier == element) {
                self.mistakes.add(
                    &place.index(index),
                    format!("`{element}` stands here twice"),
                    "remove one of the two",
                );
                good = None;
            }
        }
        good
    }
}

/// Whether the URL's host is literally a loopback address. `localhost` is a name, and names can be redirected.
pub(in super::super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => IpAddr::V4(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::V6(address).is_loopback(),
        _ => false,
    }
}

fn at_least(bound: &str) -> String {
    format!("at least `{bound}`")
}

fn at_most(bound: &str) -> String {
    format!("at most `{bound}`")
}
