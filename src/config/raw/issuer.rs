//! `issuers`.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::{ClientCertificate, DurationText, Introspection, Proxy, SizeText, StatusList, Valkey};
use crate::keys::Algorithm;

/// Who may issue tokens, for whom, and how that is verified. Exactly one of `audiences` and
/// `insecure_accept_any_audience`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(clippy::struct_field_names, reason = "the claim and the section have one name")]
pub struct Issuer {
    /// Name for routes, logs and metrics: letters, digits, `.`, `_`, `-`.
    pub name: String,
    /// The `iss` claim of its tokens, compared exactly, to the last slash (RFC 7519 section 4.1.1).
    pub issuer: String,
    /// Where its signature keys come from. To be left out only by an issuer that signs nothing: whose tokens are all
    /// opaque, see `introspection`.
    pub keys: Option<Keys>,
    /// Names of this API: a token must carry at least one of them in `aud`.
    pub audiences: Option<Vec<String>>,
    /// Accept tokens that were issued for other APIs too. Whoever runs one of those can then call this one with
    /// the tokens sent to theirs.
    #[serde(default)]
    pub insecure_accept_any_audience: bool,
    /// Signature algorithms that are accepted. The default are the common ones; naming just those that the
    /// issuer uses is safer still. There is no HMAC, since who can verify could also forge.
    #[serde(default = "default_algorithms")]
    #[schemars(with = "Vec<AlgorithmName>")]
    pub algorithms: Vec<Algorithm>,
    /// Tolerance for clocks that differ, on `exp`, `nbf` and `iat`. At most `5m`: it also prolongs every token.
    #[serde(default = "default_leeway")]
    pub leeway: DurationText,
    /// Longest time from `iat` to `exp` that is accepted. Without it tokens live as long as their issuer says.
    pub max_lifetime: Option<DurationText>,
    /// Claims that a token must have, beside `exp`, `iss` and `aud`.
    #[serde(default)]
    pub required_claims: Vec<String>,
    /// A set of rules by name. `rfc9068` (JWT access tokens) demands the type `at+jwt` and the claims `sub`,
    /// `client_id`, `iat` and `jti`.
    pub profile: Option<Profile>,
    /// How revoked tokens are recognized. Without it a token is good until it expires.
    pub revocation: Option<Revocation>,
    /// Telling clients that their token is about to expire. Without it they learn it by a refusal.
    pub expiry_hint: Option<ExpiryHint>,
    /// Asking the issuer about tokens (RFC 7662): those that only it can read, or all.
    pub introspection: Option<Introspection>,
    /// A register of issued tokens: one that is not on it is refused, however well signed. Not beside
    /// `introspection`.
    pub registry: Option<Registry>,
    /// Tokens bound to the client's certificate by the claim `cnf` (RFC 8705). `if_bound`: a token that is bound is
    /// refused without its certificate. `certificate`: tokens that are not bound are refused too.
    /// `insecure_ignore`: bound tokens pass without their certificate, as if they were not.
    #[serde(default)]
    pub binding: Binding,
}

/// What becomes of tokens that are bound to a certificate, and of others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Binding {
    #[default]
    IfBound,
    Certificate,
    InsecureIgnore,
}

/// A register of issued tokens, as docs/issued-tokens.md describes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Registry {
    /// The Valkey or Redis that holds it.
    pub valkey: Valkey,
    /// How long a token that was found is not looked up again. A token that is removed stops within this time.
    #[serde(default = "default_registry_cache")]
    pub cache: DurationText,
    /// What happens while the register cannot be asked. `reject`: no token passes that is not known from before
    /// (VAL-052). `accept`: all pass that are otherwise good.
    #[serde(default)]
    pub when_unavailable: WhenUnavailable,
}

/// What happens while a register cannot be asked.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhenUnavailable {
    #[default]
    Reject,
    Accept,
}

/// Where signature keys come from. Exactly one of `jwks_url`, `discovery`, `file` and `inline`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    /// URL of the key set (RFC 7517).
    pub jwks_url: Option<String>,
    /// `true`: find the key set through the issuer's metadata (`OpenID` Connect Discovery, RFC 8414). Or the URL of
    /// the metadata, if it is not where the standards say.
    pub discovery: Option<Discovery>,
    /// File with the key set, re-read when it changes. Relative to the configuration file.
    pub file: Option<String>,
    /// The key set itself: `{ keys: [...] }`.
    pub inline: Option<serde_json::Value>,
    /// How often keys are fetched when the answer's `Cache-Control` does not say. A withdrawn key stops within
    /// this time; a new one is fetched on first sight.
    #[serde(default = "default_refresh_interval")]
    pub refresh_interval: DurationText,
    /// How long the last good keys serve while the identity provider is down.
    #[serde(default = "default_max_stale")]
    pub max_stale: DurationText,
    /// Shortest time between two fetches for unknown key ids, so that bogus tokens cannot flood the provider.
    #[serde(default = "default_cooldown")]
    pub cooldown: DurationText,
    /// How long the provider is not asked again for a key id that it was just found not to have.
    #[serde(default = "default_unknown_kid_ttl")]
    pub unknown_kid_ttl: DurationText,
    /// How long requests wait for keys that are being fetched for their sake, from the begin of that fetch.
    #[serde(default = "default_wait")]
    pub wait: DurationText,
    /// Longest time that one fetch may take.
    #[serde(default = "default_timeout")]
    pub timeout: DurationText,
    /// Largest key set that is read.
    #[serde(default = "default_max_size")]
    pub max_size: SizeText,
    /// PEM file with certificate authorities to trust for this provider, instead of the system's.
    pub ca: Option<String>,
    /// Certificate to show to the provider.
    pub client_certificate: Option<ClientCertificate>,
    /// Proxy on the way to the provider.
    pub proxy: Option<Proxy>,
    /// Fetch by `http://` from addresses other than loopback. Whoever is on the way can then issue tokens.
    #[serde(default)]
    pub insecure_allow_http: bool,
}

/// Whether and where to look for metadata.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Discovery {
    /// Where the standards say.
    Enabled(bool),
    /// At this URL.
    Url(String),
}

/// A set of rules by name.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    Rfc9068,
}

/// How revoked tokens are recognized: by `feeds`, by `status_list`, or both.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Revocation {
    /// Names of the feeds that may revoke this issuer's tokens.
    #[serde(default)]
    pub feeds: Vec<String>,
    /// Lists that the tokens themselves refer to.
    pub status_list: Option<StatusList>,
    /// How old the newest successful contact with a feed, or with a token's status list, may be before `when_stale`
    /// applies.
    pub max_staleness: DurationText,
    /// What happens then. `reject`: no token passes (VAL-051). `accept`: all pass, revoked ones too.
    /// `{ accept_issued_within: 15m }`: only tokens issued so recently. There is no default: it is a choice
    /// between availability and security that only the operator can make.
    pub when_stale: WhenStale,
}

/// Response headers that tell a client in time to renew its token: `Token-Expires-In` with the seconds left and, with
/// `renew_at`, a `Link` there.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpiryHint {
    /// How long before the token's `exp` responses begin to have them.
    pub within: DurationText,
    /// URL where clients renew.
    pub renew_at: Option<String>,
}

/// What happens while a feed is out of contact for too long.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhenStale {
    Reject,
    Accept,
    AcceptIssuedWithin(DurationText),
}

/// A stand-in for [`Algorithm`] in the schema, which adds why HMAC is missing.
#[derive(Serialize)]
pub(super) struct AlgorithmName;

impl JsonSchema for AlgorithmName {
    fn schema_name() -> Cow<'static, str> {
        "Algorithm".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let names: Vec<_> = Algorithm::ALL.iter().map(|algorithm| algorithm.name()).collect();
        json_schema!({
            "type": "string",
            "enum": names,
            "x-hint": "name what the issuer signs with; there is no HMAC, since who can verify could also forge, and no `none`"
        })
    }
}

fn default_algorithms() -> Vec<Algorithm> {
    vec![Algorithm::Rs256, Algorithm::Ps256, Algorithm::Es256, Algorithm::EdDsa, Algorithm::Ed25519]
}

fn default_registry_cache() -> DurationText {
    "30s".into()
}

fn default_leeway() -> DurationText {
    "30s".into()
}

fn default_refresh_interval() -> DurationText {
    "5m".into()
}

fn default_max_stale() -> DurationText {
    "24h".into()
}

fn default_cooldown() -> DurationText {
    "5s".into()
}

fn default_unknown_kid_ttl() -> DurationText {
    "30s".into()
}

fn default_wait() -> DurationText {
    "3s".into()
}

fn default_max_size() -> SizeText {
    "1MiB".into()
}

fn default_timeout() -> DurationText {
    "10s".into()
}
