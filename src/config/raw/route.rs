//! `routes`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Cors, DurationText, ErrorDetail, ExpiryHint, IdentitySource, RequiredCertificate, Reserved,
    RevocationEndpoint, SizeText,
};

/// What is served, to whom. Exactly one of `require` and `public`, and of `upstream`, `receives`,
/// `revocation_endpoint` and `decision`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(clippy::struct_excessive_bools, reason = "each is a field of the file")]
pub struct Route {
    /// Name in logs and metrics: letters, digits, `.`, `_`, `-`. Made of methods, host and path if absent.
    pub name: Option<String>,
    /// Which requests it is for.
    #[serde(rename = "match")]
    pub matches: Match,
    /// Serve everybody, with or without a token.
    #[serde(default)]
    pub public: bool,
    /// What the client must have: a token, a certificate, or both.
    pub require: Option<Require>,
    /// Name of the upstream that serves it.
    pub upstream: Option<String>,
    /// Name of the feed whose events or logout tokens arrive here: the gateway itself answers. The sender is known by
    /// the feed's own rules, so the route has neither `require` nor `public`.
    pub receives: Option<String>,
    /// The gateway itself answers, and takes back the token or session of the bearer (in the manner of RFC 7009).
    pub revocation_endpoint: Option<RevocationEndpoint>,
    /// Another proxy serves it, and asks on a listener with `decision`. Routes with an `upstream` can be asked about
    /// too.
    #[serde(default)]
    pub decision: bool,
    /// Headers that tell the API who calls: header name to claim name, to a list of names that leads to a nested
    /// claim, or to a part of the client certificate: `{ certificate: san_uri }`. Arrays are joined by spaces, other than ASCII is percent-encoded, an absent claim leaves the
    /// header out. Clients cannot send these headers themselves, on any route.
    #[serde(default)]
    pub identity_headers: BTreeMap<String, IdentitySource>,
    /// Pass the token itself on to the API. Off, so that an API that leaks cannot leak tokens.
    #[serde(default)]
    pub forward_token: bool,
    /// Where the token is: `header` (`Authorization: Bearer`), or `{ cookie: NAME }`.
    #[serde(default)]
    pub token_from: TokenFrom,
    /// Instead of the issuer's.
    pub expiry_hint: Option<ExpiryHint>,
    /// As the field of the same name at the top of the file, for this route.
    pub error_detail: Option<ErrorDetail>,
    /// The `Host` that the API sees: `preserve`: what the client sent, as it builds links from it. `upstream`:
    /// that of the endpoint.
    #[serde(default)]
    pub host: UpstreamHost,
    /// Largest request body. Without it that of `limits.body`.
    pub max_body: Option<SizeText>,
    /// How fast request bodies have to come, in a second. Without it that of `limits.body_rate`. `0B` turns it off.
    pub body_rate: Option<SizeText>,
    /// How long the API may take here. Without it as the upstream has it.
    #[serde(default)]
    pub timeouts: RouteTimeouts,
    /// Spellings of paths that are otherwise refused (VAL-042), since servers differ in how they read them.
    #[serde(default)]
    pub allow: Vec<PathSpelling>,
    /// Headers such as `X-HTTP-Method-Override` or `X-Original-URL` that are otherwise removed, since they can make
    /// the API serve something other than what was authorized.
    #[serde(default)]
    pub allow_override_headers: Vec<String>,
    /// Cross-origin requests of browsers. Without it a page of another origin cannot read what it is answered.
    pub cors: Option<Cors>,
    /// `false` for a rollout without fear (shadow mode): tokens, certificates and rules are judged, logged and counted
    /// as ever, but nobody is refused for them. What is wrong with the request itself is still refused.
    #[serde(default = "enforced")]
    pub enforce: bool,
    /// Bounds on the rate of requests.
    pub rate_limits: Option<Reserved>,
}

fn enforced() -> bool {
    true
}

/// How long the API may take on one route, where that is not as for its upstream.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RouteTimeouts {
    /// From the end of the request to the first byte of the answer, in place of the upstream's `timeouts.response`.
    pub response: Option<DurationText>,
    /// From sending the request to the last byte of the answer, in place of the upstream's `timeouts.total`. `0s`: none.
    pub total: Option<DurationText>,
}

/// Which requests a route is for. Host first, then the most specific path, then the method.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Match {
    /// Host name without port; `*.example.com` for all names below it. Every host if absent.
    pub host: Option<String>,
    /// Path, matched by whole segments and case-sensitively: `/orders` alone, `/orders/*` with one more segment,
    /// `/orders/**` with any number more, none included.
    pub path: String,
    /// Methods; `GET` includes `HEAD`. All if absent.
    pub methods: Option<Vec<String>>,
}

/// What the client must have. At least one of `issuers` and `client_certificate`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Require {
    /// Names of the issuers whose tokens are accepted here. Without it no token is asked for.
    pub issuers: Option<Vec<String>>,
    /// What the client certificate must say. Without it none is asked for.
    pub client_certificate: Option<RequiredCertificate>,
    /// Scopes of which the token needs all.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// Scopes of which the token needs at least one.
    #[serde(default)]
    pub any_scopes: Vec<String>,
    /// Rules on claims, all of which must hold.
    #[serde(default)]
    pub claims: Vec<ClaimRule>,
}

/// A rule on one claim. Exactly one of `equals`, `contains` and `one_of`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClaimRule {
    /// Name in logs. The claim's name if absent.
    pub name: Option<String>,
    /// The claim's name, or a list of names that leads to a nested claim: `[realm_access, roles]`. A dot in a name
    /// is part of the name.
    pub claim: ClaimPath,
    /// The claim is this value.
    pub equals: Option<serde_json::Value>,
    /// The claim is a list with this value among others.
    pub contains: Option<serde_json::Value>,
    /// The claim is one of these values.
    pub one_of: Option<Vec<serde_json::Value>>,
}

/// A claim: its name, or a list of names that leads to a nested one.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ClaimPath {
    /// At the top of the token.
    Name(String),
    /// Nested.
    Path(Vec<String>),
}

/// Where the token is.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TokenFrom {
    #[default]
    Header,
    Cookie(String),
}

/// The `Host` that the API sees.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UpstreamHost {
    #[default]
    Preserve,
    Upstream,
}

/// A spelling of paths that servers read differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PathSpelling {
    EncodedSlash,
    DoubleSlash,
    PathParameters,
}
