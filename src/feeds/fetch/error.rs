//! What can go wrong with a fetch, in words that say what to do. Never shows credentials or queries of URLs.

use std::error::Error;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use http::StatusCode;
use url::Url;

/// Why a source could not be fetched.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it, and the fields are named after what they show")]
#[non_exhaustive]
pub enum FetchError {
    #[error("cannot read {what} {}: {cause}; check the path and its permissions", path.display())]
    Unreadable { what: &'static str, path: PathBuf, cause: Cause },
    #[error("{what} holds no usable PEM data: {cause}; it must contain {expected}")]
    Pem { what: String, expected: &'static str, cause: Cause },
    #[error("the client certificate and its private key do not fit together or are not supported: {cause}")]
    ClientCertificate { cause: Cause },
    #[error("TLS cannot be set up: {cause}")]
    Tls { cause: Cause },
    #[error(
        "{url} cannot be trusted: the operating system has no certificate authorities; install them (often the package ca-certificates) or name a ca file"
    )]
    NoTrustAnchors { url: String },
    #[error(
        "{url} is plain HTTP, which anyone on the way can change; use https, or a literal loopback address, or allow it by insecure_allow_http"
    )]
    PlainHttp { url: String },
    #[error(
        "{url} is plain HTTP by way of a proxy, whose own loopback address that is: anyone between can read and change it; use https, or reach it without the proxy, or allow it by insecure_allow_http"
    )]
    PlainHttpByProxy { url: String },
    #[error("{url} has the scheme '{scheme}'; use https")]
    Scheme { url: String, scheme: String },
    #[error(
        "{url} carries a user name or password; remove it from the URL and configure authorization instead"
    )]
    CredentialsInUrl { url: String },
    #[error("the request to {url} cannot be made: its {what} contains characters that HTTP does not allow")]
    IllegalRequest { url: String, what: &'static str },
    #[error("{url} cannot be reached: {cause}; check name, network and certificate")]
    Unreachable { url: String, cause: Cause },
    #[error(
        "{url} did not answer completely within {after:?}; check its load and the network, or raise the timeout"
    )]
    Timeout { url: String, after: Duration },
    #[error("{url} redirects ({status}){}; redirects are not followed: configure the final URL", target(to.as_deref()))]
    Redirect { url: String, status: StatusCode, to: Option<String> },
    #[error("{url} answers with status {status}; expected 200")]
    Status { url: String, status: StatusCode },
    #[error("{url} compresses its answer although it was not asked to; turn content coding off for it")]
    ContentCoding { url: String },
    #[error(
        "{url} answers with more than {limit} bytes; it is probably not the document meant, or the limit is too low"
    )]
    TooLarge { url: String, limit: u64 },
    #[error("the answer of {url} broke off: {cause}")]
    Interrupted { url: String, cause: Cause },
}

/// The chain of a foreign error's messages in one line.
#[derive(Debug)]
pub struct Cause(String);

impl Cause {
    /// Joins `error` and what caused it; a message that only repeats its own cause is told once.
    pub fn of(error: &(dyn Error + 'static)) -> Self {
        let mut text = String::new();
        let mut next = Some(error);
        while let Some(error) = next {
            let message = error.to_string();
            if text.is_empty() {
                text = message;
            } else if !text.ends_with(&message) {
                text.push_str(": ");
                text.push_str(&message);
            }
            next = error.source();
        }
        Self(text)
    }

    pub(super) fn text(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The URL without user, password, query and fragment, any of which may be a secret.
pub(in crate::feeds) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    // Fails only for URLs that cannot carry credentials in the first place.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    url.into()
}

fn target(to: Option<&str>) -> String {
    to.map(|to| format!(" to {to}")).unwrap_or_default()
}
