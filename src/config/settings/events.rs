//! Feeds that identity providers tell of sessions and accounts, and what else revokes.

use std::time::Duration;

use http::HeaderValue;
use url::Url;

use super::{FeedIndex, IssuerIndex, Transport};
use crate::events::SubjectMapping;

/// A feed of statements that a provider signs.
#[derive(Clone, Debug)]
pub struct EventFeed {
    /// Whose keys sign them, and whose `issuer` is their `iss`.
    pub signed_by: IssuerIndex,
    /// At least one; `aud` must have one of them.
    pub audiences: Vec<String>,
    /// How they arrive, and what they are.
    pub arrival: Arrival,
    /// How long a revocation is kept after its event.
    pub token_lifetime: Duration,
    /// Which facts subjects are.
    pub subjects: SubjectMapping,
    /// The feed whose engine gets them too.
    pub write_to: Option<FeedIndex>,
}

/// How statements arrive.
#[derive(Clone, Debug)]
pub enum Arrival {
    /// Security events by push (RFC 8935).
    SetPush {
        /// The `Authorization` header that the transmitter sends, marked sensitive.
        authorization: HeaderValue,
        /// Whether silence makes the feed stale.
        heartbeat: bool,
    },
    /// Security events by poll (RFC 8936).
    SetPoll(Box<SetPoll>),
    /// Logout tokens.
    BackchannelLogout {
        /// Whether those without type are accepted.
        allow_untyped: bool,
    },
}

/// Where security events are fetched.
#[derive(Clone, Debug)]
pub struct SetPoll {
    /// The poll endpoint.
    pub url: Url,
    /// The `Authorization` header, marked sensitive.
    pub authorization: Option<HeaderValue>,
    /// How long the transmitter is asked to hold an answer back.
    pub long_poll: Duration,
    /// How often to ask one that does not.
    pub interval: Duration,
    /// How the transmitter is reached; its `timeout` is that of one answer, beyond `long_poll`.
    pub transport: Transport,
}

/// How the answers of a feed are signed.
#[derive(Clone, Debug)]
pub struct SignedFeed {
    /// Whose keys sign them, and whose `issuer` is their `iss`.
    pub signed_by: IssuerIndex,
    /// What `aud` must be or have.
    pub audience: String,
    /// How old a signature may be.
    pub max_age: Duration,
}

/// How a bearer takes back what is its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RevocationEndpoint {
    /// What.
    pub revokes: Revokes,
    /// Where it is written.
    pub feed: FeedIndex,
    /// How long the revocation of a session is kept.
    pub token_lifetime: Duration,
}

/// What a bearer revokes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revokes {
    /// The token that it sends.
    Token,
    /// The session of that token.
    Session,
}
