//! What the gateway runs on: settings that cannot be wrong.
//!
//! Only [`super::parse`] and [`super::load`] make them, after every check. Names are resolved to positions in
//! the lists of [`Config`], texts to addresses, URLs, durations.

mod carried;
mod engine;
mod events;
mod feed;
mod forwarded;
mod introspection;
mod issuer;
mod limits;
mod listener;
mod observe;
mod reload;
mod route;
mod tracing;
mod transport;
mod upstream;

use std::num::NonZeroUsize;
use std::path::PathBuf;

pub use self::tracing::{Patterns, Tracing};
use super::document::Document;
pub use carried::{CarriedProbe, ProbeError};
pub use engine::{
    EngineTls, HostPort, Nats, NatsCredentials, Secret, Valkey, ValkeyCredentials, ValkeyTopology,
};
pub use events::{Arrival, EventFeed, RevocationEndpoint, Revokes, SetPoll, SignedFeed};
pub use feed::{Feed, FeedSource, HttpFeed};
pub use forwarded::{Forwarded, ForwardedHeader};
pub use introspection::{ClientAuth, EndpointLocation, IntrospectedTokens, Introspection, PrivateKeyJwt};
pub use issuer::{
    Audiences, ExpiryHint, Issuer, JwksLocation, KeySettings, MetadataLocation, Profile, Registry,
    Revocation, StatusList, WhenStale,
};
pub use limits::{FailedAttempts, Limits, Overload, Timeouts};
pub use listener::{
    CertifiedKey, ClientCertificates, Decision, DecisionProtocol, Hsts, Listener, ListenerKind, Tls,
    TlsVersion,
};
pub use observe::{
    AccessLog, Admin, AdminPlace, AdminTls, AuditLog, Health, Log, LogFormat, LogOutput, Refusals,
};
pub use reload::Reload;
pub use route::{
    Access, AllowedSpellings, ClaimPath, ClaimRule, ClaimTest, IdentitySource, Requirements, Route,
    RouteTimeouts, Service, TokenFrom, UpstreamHost,
};
pub use transport::{ClientCertificate, Proxy, Transport};
pub use upstream::{
    Balancing, BalancingMethod, Ejection, Endpoint, HealthCheck, Protocol, Retries, Upstream, UpstreamLimits,
    UpstreamTimeouts, UpstreamTls,
};

/// A whole configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where copies of keys and revocations are kept; none: nowhere.
    pub state_dir: Option<PathBuf>,
    /// How much of a refusal the outside sees, unless the route says otherwise.
    pub error_detail: ErrorDetail,
    /// What stands before a code in the `type` of a refusal; none: what makes it a URN.
    pub error_documents: Option<String>,
    /// Worker threads; none: one for each core.
    pub workers: Option<NonZeroUsize>,
    /// At least one.
    pub listeners: Vec<Listener>,
    /// The open address for probes.
    pub health: Option<Health>,
    /// The private address for everything privileged.
    pub admin: Option<Admin>,
    /// One line for each request; none: off.
    pub access_log: Option<AccessLog>,
    /// What concerns security; none: off.
    pub audit_log: Option<AuditLog>,
    /// What valgate says about itself.
    pub log: Log,
    /// Those who may issue tokens; [`IssuerIndex`] counts into this.
    pub issuers: Vec<Issuer>,
    /// Where revocations come from; [`FeedIndex`] counts into this.
    pub feeds: Vec<Feed>,
    /// The APIs behind the gateway; [`UpstreamIndex`] counts into this.
    pub upstreams: Vec<Upstream>,
    /// At least one; no two match the same requests with the same precedence.
    pub routes: Vec<Route>,
    /// How much of anything a client may send or hold.
    pub limits: Limits,
    /// How long anything may take on the side of the clients.
    pub timeouts: Timeouts,
    /// Whose word on the client's address counts.
    pub forwarded: Forwarded,
    /// When requests are refused because there are too many.
    pub overload: Overload,
    /// When a client is told to wait because its tokens are no good; none: never.
    pub failed_attempts: Option<FailedAttempts>,
    /// When it is put in force anew.
    pub reload: Reload,
    /// Where spans go; none: nowhere.
    pub tracing: Option<Tracing>,
    /// Which conduct is told as suspicious; none: none.
    pub patterns: Option<Patterns>,
    /// What the file said, to be compared with another.
    pub document: Document,
}

/// How much of a refusal the outside sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorDetail {
    /// Code, reason, and a sentence on what to do next.
    Full,
    /// Code and status.
    CodeOnly,
}

/// A position in [`Config::issuers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IssuerIndex(pub usize);

/// A position in [`Config::feeds`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FeedIndex(pub usize);

/// A position in [`Config::upstreams`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UpstreamIndex(pub usize);
