//! Routes: what is served, to whom.

use std::fmt;
use std::time::Duration;

use http::HeaderName;

use super::{ErrorDetail, ExpiryHint, FeedIndex, IssuerIndex, RevocationEndpoint, UpstreamIndex};
use crate::certificate::{CertificateFact, CertificateRules};
use crate::cors::Cors;
use crate::policy::Enforcement;
use crate::route::RouteMatch;

/// What is served, to whom.
#[derive(Clone, Debug)]
pub struct Route {
    /// Name in logs and metrics; no other route has it.
    pub name: String,
    /// Which requests it is for.
    pub matches: RouteMatch,
    /// Who may pass.
    pub access: Access,
    /// Who serves it.
    pub service: Service,
    /// Headers that tell the API who calls, each with what fills it. Empty on public routes.
    pub identity_headers: Vec<(HeaderName, IdentitySource)>,
    /// Whether the token itself is passed on.
    pub forward_token: bool,
    /// Where the token is.
    pub token_from: TokenFrom,
    /// What a client is told before its token expires; none: as its issuer has it.
    pub expiry_hint: Option<ExpiryHint>,
    /// How much of a refusal the outside sees.
    pub error_detail: ErrorDetail,
    /// The `Host` that the API sees.
    pub host: UpstreamHost,
    /// Largest request body, in bytes; none: unbounded.
    pub max_body: Option<u64>,
    /// How many bytes of a request's body have to come in a second; zero: as few as may be.
    pub body_rate: u64,
    /// How long the API may take here.
    pub timeouts: RouteTimeouts,
    /// Spellings of paths that this route lets pass.
    pub allow: AllowedSpellings,
    /// Override headers that this route lets pass.
    pub allow_override_headers: Vec<HeaderName>,
    /// Which pages of other origins may call; none: none may read what they are answered.
    pub cors: Option<Cors>,
    /// Whether who may not pass is refused. Never `Shadow` without something to enforce.
    pub enforcement: Enforcement,
}

/// How long the API may take on one route; none: as its upstream has it.
#[derive(Clone, Copy, Debug, Default)]
pub struct RouteTimeouts {
    /// From the end of the request to the first byte of the answer.
    pub response: Option<Duration>,
    /// From sending the request to the last byte of the answer; zero: as long as it takes.
    pub total: Option<Duration>,
}

/// Who serves the requests of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// An API.
    Upstream(UpstreamIndex),
    /// The gateway, which takes what a provider sends for this feed. The feed knows its sender, so access is public.
    Receive(FeedIndex),
    /// The gateway, which revokes what the bearer sends.
    Revoke(RevocationEndpoint),
    /// Another proxy, which asks about each request.
    Decision,
}

/// Who may pass.
#[derive(Clone, Debug)]
pub enum Access {
    /// Everybody.
    Public,
    /// Who has a client certificate that meets these rules.
    Certificate(CertificateRules),
    /// Who has a token that meets all of this.
    Require(Requirements),
}

/// What fills an identity header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentitySource {
    /// A claim of the token.
    Claim(ClaimPath),
    /// A part of the client certificate.
    Certificate(CertificateFact),
}

/// What a token must be and have.
#[derive(Clone, Debug)]
pub struct Requirements {
    /// Accepted issuers; at least one, none twice.
    pub issuers: Vec<IssuerIndex>,
    /// All of these scopes.
    pub scopes: Vec<String>,
    /// At least one of these, unless empty.
    pub any_scopes: Vec<String>,
    /// All of these rules.
    pub claims: Vec<ClaimRule>,
    /// What the client certificate must say besides; none: no certificate is asked for.
    pub client_certificate: Option<CertificateRules>,
}

/// A rule on one claim.
#[derive(Clone, Debug, PartialEq)]
pub struct ClaimRule {
    /// Name in logs.
    pub name: String,
    /// The claim.
    pub claim: ClaimPath,
    /// What it must be.
    pub test: ClaimTest,
}

/// The names that lead to a claim, outermost first; at least one, none empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClaimPath(pub Vec<String>);

/// What a claim must be. Values are texts, numbers or booleans.
#[derive(Clone, Debug, PartialEq)]
pub enum ClaimTest {
    /// This value.
    Equals(serde_json::Value),
    /// A list that holds this value.
    Contains(serde_json::Value),
    /// One of these values; never empty.
    OneOf(Vec<serde_json::Value>),
}

/// Where the token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenFrom {
    /// `Authorization: Bearer` (RFC 6750 section 2.1).
    Header,
    /// The cookie of this name.
    Cookie(String),
}

/// The `Host` that the API sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamHost {
    /// What the client sent.
    Preserve,
    /// That of the endpoint.
    Upstream,
}

/// Spellings of paths that are refused unless a route lets them pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AllowedSpellings {
    /// `%2F` within a segment.
    pub encoded_slash: bool,
    /// `//`.
    pub double_slash: bool,
    /// `;` and what follows it in a segment.
    pub path_parameters: bool,
}

impl Route {
    /// The API that serves it, if it is not the gateway itself.
    pub fn upstream(&self) -> Option<UpstreamIndex> {
        match self.service {
            Service::Upstream(upstream) => Some(upstream),
            Service::Receive(_) | Service::Revoke(_) | Service::Decision => None,
        }
    }
}

impl fmt::Display for ClaimPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("."))
    }
}
