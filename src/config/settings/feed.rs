//! Revocation feeds.

use std::path::PathBuf;
use std::time::Duration;

use http::HeaderValue;
use url::Url;

use super::{EventFeed, Nats, SignedFeed, Transport, Valkey};

/// Where revocations come from.
#[derive(Clone, Debug)]
pub struct Feed {
    /// Name in logs and metrics; fit for a file name.
    pub name: String,
    /// Its source.
    pub source: FeedSource,
}

/// The source of a feed.
#[derive(Clone, Debug)]
pub enum FeedSource {
    /// By HTTP.
    Http(Box<HttpFeed>),
    /// In a file that is looked at this often.
    File {
        /// The file.
        path: PathBuf,
        /// How often.
        interval: Duration,
    },
    /// Statements that a provider signs.
    Events(EventFeed),
    /// In a Valkey or Redis.
    Valkey {
        /// Where.
        valkey: Valkey,
        /// What the names of its keys begin with.
        prefix: String,
    },
    /// In NATS `JetStream`.
    Nats {
        /// Where.
        nats: Nats,
        /// The key-value bucket.
        bucket: String,
    },
}

/// A feed by HTTP.
#[derive(Clone, Debug)]
pub struct HttpFeed {
    /// Its URL.
    pub url: Url,
    /// How long the server is asked to hold an answer back.
    pub long_poll: Option<Duration>,
    /// How often to ask without long poll.
    pub interval: Duration,
    /// The `Authorization` header, marked sensitive so that it is never printed.
    pub authorization: Option<HeaderValue>,
    /// The same for writing; none: it is not written to.
    pub write_authorization: Option<HeaderValue>,
    /// How its answers are signed; none: not at all.
    pub signed: Option<SignedFeed>,
    /// How the server is reached; its `timeout` is that of one answer, beyond `long_poll`.
    pub transport: Transport,
}
