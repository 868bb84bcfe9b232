//! Asking an issuer about tokens.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use super::Transport;
use crate::keys::Algorithm;

/// How an issuer is asked about tokens (RFC 7662).
#[derive(Clone, Debug)]
pub struct Introspection {
    /// Where.
    pub location: EndpointLocation,
    /// About which tokens.
    pub tokens: IntrospectedTokens,
    /// The client id that the issuer knows the gateway by.
    pub client_id: String,
    /// How the gateway proves it.
    pub client_auth: ClientAuth,
    /// Only signed answers are taken (RFC 9701).
    pub signed: bool,
    /// Answers are taken that do not say of which kind the token is.
    pub insecure_accept_any_token_type: bool,
    /// How long the answer for an active token is relied upon.
    pub cache: Duration,
    /// How long an inactive token is not asked about again.
    pub negative_cache: Duration,
    /// How many inactive tokens are remembered; at least one.
    pub negative_entries: usize,
    /// How many questions may be under way; at least one.
    pub concurrency: usize,
    /// Failures in a row after which the endpoint is left alone; at least one.
    pub breaker_failures: u32,
    /// How long it is.
    pub breaker_pause: Duration,
    /// How to get there.
    pub transport: Transport,
}

/// Where an endpoint is.
#[derive(Clone, Debug)]
pub enum EndpointLocation {
    /// At this URL.
    Url(Url),
    /// Where the issuer's metadata say: in the well-known places, or at this document.
    Discovery(Option<Url>),
}

/// About which tokens an issuer is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntrospectedTokens {
    /// Those that are no JWTs.
    Opaque,
    /// All.
    All,
}

/// How the gateway proves who it is. `Debug` shows no secret.
#[derive(Clone)]
pub enum ClientAuth {
    /// By this secret, in the `Authorization` header.
    Basic(String),
    /// By this secret, in the form.
    Post(String),
    /// By an assertion.
    PrivateKeyJwt(PrivateKeyJwt),
    /// By the certificate of the connection.
    Certificate,
}

/// How client assertions are signed.
#[derive(Clone, Debug)]
pub struct PrivateKeyJwt {
    /// PEM file with the key.
    pub private_key: PathBuf,
    /// With what.
    pub algorithm: Algorithm,
    /// `kid`.
    pub key_id: Option<String>,
    /// `aud`.
    pub audience: String,
}

impl fmt::Debug for ClientAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Basic(_) => "Basic",
            Self::Post(_) => "Post",
            Self::PrivateKeyJwt(_) => "PrivateKeyJwt",
            Self::Certificate => "Certificate",
        })
    }
}
