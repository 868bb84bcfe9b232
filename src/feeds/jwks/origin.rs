//! Where one issuer's key set comes from, and fetching its bytes from there. Knows nothing of what is in them.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use tokio::fs::File;
use tokio::io::AsyncReadExt;
use url::Url;

use super::KeyFeedError;
use crate::clock::{Clock, Monotonic};
use crate::feeds::discovery::{Discovery, DiscoveryError};
use crate::feeds::fetch::{FetchClient, FetchError, FetchRequest, FetchSettings, Fetched, shown};
use crate::keys::JwksError;

/// Where the operator said that the keys are.
#[derive(Clone, Debug)]
pub enum KeyOrigin {
    /// At this URL.
    JwksUrl(Url),
    /// Where the issuer's metadata says: at `document`, or else in the well-known places of the issuer.
    Discovery {
        /// The metadata document, where it is not in a well-known place.
        document: Option<Url>,
    },
    /// In this file, which is read again when it changes.
    File(PathBuf),
    /// In the configuration itself.
    Inline(Vec<u8>),
}

/// What asking the origin brought.
pub(super) enum Answer {
    /// What was last accepted is current.
    Unchanged { max_age: Option<Duration> },
    /// A document, to be judged.
    Document { bytes: Bytes, max_age: Option<Duration>, etag: Option<String> },
}

/// Why a refresh failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum RefreshError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Discovery(#[from] DiscoveryError),
    #[error("the key file {} cannot be read: {cause}; check the path and its permissions", path.display())]
    File { path: PathBuf, cause: io::Error },
    #[error(
        "{place} answers with {media_type}, which is no key set; check the URL, and the page that it shows"
    )]
    MediaType { place: String, media_type: String },
    #[error("{place} is not used: {cause}")]
    Set { place: String, cause: JwksError },
}

/// An origin, with what is remembered between two fetches.
pub(super) enum Origin {
    Http(Box<HttpOrigin>),
    File(FileOrigin),
    /// The set was read when the configuration was; there is nothing to fetch.
    Inline(Vec<u8>),
}

pub(super) struct HttpOrigin {
    client: FetchClient,
    clock: Clock,
    discovery: Option<Discovery>,
    located: Option<Located>,
    /// The tag of the set that was last accepted, and whose tag it is: another URL may use the same for another set.
    etag: Option<(Url, String)>,
}

struct Located {
    keys: Url,
    at: Monotonic,
}

pub(super) struct FileOrigin {
    path: PathBuf,
    max_bytes: u64,
    accepted: Option<Bytes>,
}

impl Origin {
    pub(super) fn new(
        origin: KeyOrigin,
        issuer: &str,
        fetch: &FetchSettings,
        clock: &Clock,
    ) -> Result<Self, KeyFeedError> {
        let http = |discovery, located| {
            Ok::<_, KeyFeedError>(Self::Http(Box::new(HttpOrigin {
                client: FetchClient::new(fetch)?,
                clock: clock.clone(),
                discovery,
                located,
                etag: None,
            })))
        };
        match origin {
            KeyOrigin::JwksUrl(keys) => http(None, Some(Located { keys, at: clock.monotonic() })),
            KeyOrigin::Discovery { document } => {
                http(Some(Discovery::new(issuer, document, fetch.allow_http)?), None)
            }
            KeyOrigin::File(path) => {
                Ok(Self::File(FileOrigin { path, max_bytes: fetch.max_bytes, accepted: None }))
            }
            KeyOrigin::Inline(jwks) => Ok(Self::Inline(jwks)),
        }
    }

    pub(super) async fn fetch(&mut self) -> Result<Answer, RefreshError> {
        match self {
            Self::Http(http) => http.fetch().await,
            Self::File(file) => file.fetch().await,
            Self::Inline(_) => Ok(Answer::Unchanged { max_age: None }),
        }
    }

    /// The document that this origin answered with was good: it need not be sent or read again.
    pub(super) fn accept(&mut self, document: Bytes, etag: Option<String>) {
        match self {
            Self::Http(http) => {
                http.etag = http.located.as_ref().and_then(|located| Some((located.keys.clone(), etag?)));
            }
            Self::File(file) => file.accepted = Some(document),
            Self::Inline(_) => {}
        }
    }

    /// Where the answer came from, for messages.
    pub(super) fn place(&self) -> String {
        match self {
            Self::Http(http) => http.located.as_ref().map(|located| shown(&located.keys)).unwrap_or_default(),
            Self::File(file) => file.path.display().to_string(),
            Self::Inline(_) => "the inline keys".to_owned(),
        }
    }

    /// The refresh failed: what was remembered may be the cause.
    pub(super) fn forget(&mut self) {
        if let Self::Http(http) = self
            && http.discovery.is_some()
        {
            http.located = None;
        }
    }
}

impl HttpOrigin {
    async fn fetch(&mut self) -> Result<Answer, RefreshError> {
        let keys = self.locate().await?;
        let request = FetchRequest {
            accept: "application/jwk-set+json, application/json",
            etag: self.etag.as_ref().filter(|(of, _)| *of == keys).map(|(_, etag)| etag.as_str()),
            ..FetchRequest::default()
        };
        Ok(match self.client.get(&keys, request).await? {
            Fetched::NotModified(head) => Answer::Unchanged { max_age: head.max_age },
            Fetched::Full { head, .. } if !may_be_keys(head.content_type.as_deref()) => {
                let media_type = head.content_type.unwrap_or_default();
                return Err(RefreshError::MediaType { place: shown(&keys), media_type });
            }
            Fetched::Full { head, body } => {
                Answer::Document { bytes: body, max_age: head.max_age, etag: head.etag }
            }
        })
    }

    async fn locate(&mut self) -> Result<Url, RefreshError> {
        let now = self.clock.monotonic();
        if let Some(located) = &self.located
            && (self.discovery.is_none() || located.at.until(now) < DISCOVERY_LIFETIME)
        {
            return Ok(located.keys.clone());
        }
        let Some(discovery) = &self.discovery else {
            // Without discovery the place is given and never forgotten.
            return Err(DiscoveryError::NotDiscoverable { issuer: String::new() }.into());
        };
        let keys = discovery.keys_url(&self.client).await?;
        self.located = Some(Located { keys: keys.clone(), at: now });
        Ok(keys)
    }
}

/// JSON, or what servers call a file that they know nothing of. A page for people is none, whatever stands in it.
fn may_be_keys(media_type: Option<&str>) -> bool {
    media_type.is_none_or(|media_type| {
        let plain = ["application/json", "text/plain", "application/octet-stream", "binary/octet-stream"];
        plain.contains(&media_type) || media_type.ends_with("+json")
    })
}

impl FileOrigin {
    async fn fetch(&self) -> Result<Answer, RefreshError> {
        let bytes =
            self.read().await.map_err(|cause| RefreshError::File { path: self.path.clone(), cause })?;
        if self.accepted.as_ref() == Some(&bytes) {
            return Ok(Answer::Unchanged { max_age: None });
        }
        Ok(Answer::Document { bytes, max_age: None, etag: None })
    }

    /// One byte beyond the limit is read, so that a file that is too large is seen to be.
    async fn read(&self) -> io::Result<Bytes> {
        let mut bytes = Vec::new();
        let file = open_regular(&self.path).await?;
        file.take(self.max_bytes.saturating_add(1)).read_to_end(&mut bytes).await?;
        Ok(bytes.into())
    }
}

/// Reading a pipe or a device might never end.
async fn open_regular(path: &Path) -> io::Result<File> {
    if !tokio::fs::metadata(path).await?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    File::open(path).await
}

/// A provider that moves its keys says so in its metadata; a failed fetch asks earlier.
const DISCOVERY_LIFETIME: Duration = Duration::from_secs(60 * 60);
