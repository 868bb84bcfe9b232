//! Types that mirror the configuration file, field by field.
//!
//! Their doc comments become the descriptions in the schema and in docs/configuration.md: meaning, unit, default
//! and its reason. They hold texts where the file has texts; `super::build` says what those mean.

mod certificate;
mod cors;
mod engine;
mod events;
mod feed;
mod introspection;
mod issuer;
mod limits;
mod listener;
mod observe;
mod reload;
mod route;
mod status_list;
mod text;
mod tracing;
mod transport;
mod upstream;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::tracing::{Patterns, Tracing};
pub use certificate::{
    CertificateFact, CertifiedKey, ClientCertificates, IdentitySource, OneOrMany, RequiredCertificate,
};
pub use cors::{AnsweredBy, Cors};
pub use engine::{EngineTls, NatsFeed, Valkey};
pub use events::{
    BackchannelLogout, RevocationEndpoint, Revokes, SetPoll, SetPush, SignedFeed, SubjectFact, Subjects,
};
pub use feed::{Feed, FileFeed, HttpFeed};
pub use introspection::{IntrospectedTokens, Introspection};
pub use issuer::{
    Binding, Discovery, ExpiryHint, Issuer, Keys, Profile, Registry, Revocation, WhenStale, WhenUnavailable,
};
pub use limits::{FailedAttempts, Limits, Overload, Timeouts};
pub use listener::{Decision, DecisionProtocol, Hsts, Listener, ProxyProtocol, Tls, TlsVersion};
pub use observe::{
    AccessLog, Admin, AdminTls, AuditLog, Health, Log, LogFormat, LogLevel, LogOutput, Refusals,
};
pub use reload::Reload;
pub use route::{
    ClaimPath, ClaimRule, Match, PathSpelling, Require, Route, RouteTimeouts, TokenFrom, UpstreamHost,
};
pub use status_list::StatusList;
pub use text::{DurationText, Reserved, SecretText, ShareText, SizeText};
pub use transport::{ClientCertificate, Proxy};
pub use upstream::{
    Balancing, BalancingMethod, Ejection, Endpoint, HealthCheck, Protocol, Retries, Upstream, UpstreamLimits,
    UpstreamTls,
};

/// The configuration of valgate: one YAML file.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "valgate configuration")]
pub struct Config {
    /// The version of this file's shape. Always `1`.
    pub version: u64,
    /// Directory for copies of keys and revocations, so that a restart with the identity provider down still
    /// knows them. Without it nothing is kept. A full disk or a corrupt file is a warning, not a failure.
    pub state_dir: Option<String>,
    /// How much of a refusal the outside sees: `full` adds the reason and a sentence on what to do next,
    /// `code_only` leaves the `VAL-` code and the status. Logs always have all of it.
    #[serde(default)]
    pub error_detail: ErrorDetail,
    /// Where the codes are documented for whoever meets one: `https://docs.example.com/errors#`. The `type` of a refusal
    /// is this and the code after it. Without it, it is a URN.
    pub error_documents: Option<String>,
    /// Worker threads, each with its own connections. `0` means one for each core.
    #[serde(default)]
    pub workers: u64,
    /// Addresses on which requests arrive.
    pub listeners: Vec<Listener>,
    /// An open address for probes and metrics. Without it there is none.
    pub health: Option<Health>,
    /// A private address for everything privileged. Without it there is none.
    pub admin: Option<Admin>,
    /// One line for each request, or `off`.
    #[serde(default)]
    pub access_log: AccessLog,
    /// A security log of its own. Without it there is none.
    pub audit_log: Option<AuditLog>,
    /// What valgate says about itself; goes to standard error.
    #[serde(default)]
    pub log: Log,
    /// Who may issue tokens.
    #[serde(default)]
    pub issuers: Vec<Issuer>,
    /// Where revocations come from.
    #[serde(default)]
    pub feeds: Vec<Feed>,
    /// The APIs behind the gateway.
    #[serde(default)]
    pub upstreams: Vec<Upstream>,
    /// What is served, to whom. What no route matches is refused.
    pub routes: Vec<Route>,
    /// How much of anything a client may send or hold.
    #[serde(default)]
    pub limits: Limits,
    /// How long anything may take.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// When requests are refused because there are too many.
    #[serde(default)]
    pub overload: Overload,
    /// When a client is told to wait because its tokens are no good. Without it none is.
    pub failed_attempts: Option<FailedAttempts>,
    /// When changes of this file and of those that it names are put in force.
    #[serde(default)]
    pub reload: Reload,
    /// Whose word on the client's address counts.
    #[serde(default)]
    pub forwarded: Forwarded,
    /// Spans of requests for an OpenTelemetry collector. Without it there are none.
    pub tracing: Option<Tracing>,
    /// Which conduct is told as suspicious. Without it none is.
    pub patterns: Option<Patterns>,
}

/// How much of a refusal the outside sees.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorDetail {
    #[default]
    Full,
    CodeOnly,
}

/// Whose word on the client's address counts.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Forwarded {
    /// Networks of the proxies in front of valgate: `10.0.0.0/8`, `2001:db8::/32`, or single addresses. What they
    /// say of the client's address, scheme and host is believed; from everybody else it is replaced. Empty: the
    /// client is whoever connects.
    pub trusted_proxies: Vec<String>,
    /// The header in which they say it. Only this one is believed, since a proxy that writes the one lets the other
    /// pass as the client sent it. `x_forwarded_for` goes with `X-Forwarded-Proto` and `X-Forwarded-Host`,
    /// `forwarded` is RFC 7239.
    pub header: ForwardedHeader,
}

/// The header in which proxies name the client.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ForwardedHeader {
    #[default]
    XForwardedFor,
    Forwarded,
}
