//! `issuers[].introspection`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::issuer::AlgorithmName;
use super::{ClientCertificate, Discovery, DurationText, Proxy, SecretText, SizeText};
use crate::keys::Algorithm;

/// Asking the issuer about tokens (RFC 7662). Exactly one of `url` and `discovery`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Introspection {
    /// URL of the introspection endpoint.
    pub url: Option<String>,
    /// `true`: find the endpoint through the issuer's metadata. Or the URL of the metadata, if it is not where the
    /// standards say.
    pub discovery: Option<Discovery>,
    /// `opaque`: ask about tokens that are no JWTs. `all`: about JWTs too, once their signature is found good, so that
    /// the issuer can take them back without a feed, at the price of a question for each token and `cache`.
    #[serde(default)]
    pub tokens: IntrospectedTokens,
    /// Who the gateway is to the issuer.
    pub client: IntrospectionClient,
    /// Take only answers that the issuer signs (RFC 9701).
    #[serde(default)]
    pub signed: bool,
    /// Take answers that do not say that the token is an access token. Issuers that call refresh tokens active too
    /// would then let those pass.
    #[serde(default)]
    pub insecure_accept_any_token_type: bool,
    /// How long the answer for an active token is relied upon, never beyond its `exp`. A token that the issuer takes
    /// back stops within this time. `0s`: ask for every request.
    #[serde(default = "default_cache")]
    pub cache: DurationText,
    /// How long an inactive token is not asked about again.
    #[serde(default = "default_negative_cache")]
    pub negative_cache: DurationText,
    /// How many inactive tokens are remembered.
    #[serde(default = "default_negative_entries")]
    pub negative_entries: u64,
    /// How many questions may be under way at a time. Four times as many may wait; more are refused (VAL-052).
    #[serde(default = "default_concurrency")]
    pub concurrency: u64,
    /// When an endpoint that fails is left alone.
    #[serde(default)]
    pub breaker: Breaker,
    /// Longest time that one question may take.
    #[serde(default = "default_timeout")]
    pub timeout: DurationText,
    /// Largest answer that is read.
    #[serde(default = "default_max_size")]
    pub max_size: SizeText,
    /// PEM file with certificate authorities to trust for this endpoint, instead of the system's.
    pub ca: Option<String>,
    /// Certificate to show to the endpoint.
    pub client_certificate: Option<ClientCertificate>,
    /// Proxy on the way to the endpoint.
    pub proxy: Option<Proxy>,
    /// Ask by `http://` at addresses other than loopback. Whoever is on the way can then read tokens and call them
    /// active.
    #[serde(default)]
    pub insecure_allow_http: bool,
}

/// About which tokens the issuer is asked.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum IntrospectedTokens {
    #[default]
    Opaque,
    All,
}

/// Who the gateway is to the issuer. Exactly one of `client_secret_basic`, `client_secret_post`, `private_key_jwt` and
/// `tls_client_auth`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IntrospectionClient {
    /// The client id that the issuer knows the gateway by.
    pub id: String,
    /// Client secret, sent in the `Authorization` header (RFC 6749 section 2.3.1): `${SECRET}` or `file:PATH`.
    pub client_secret_basic: Option<SecretText>,
    /// Client secret, sent in the form: `${SECRET}` or `file:PATH`.
    pub client_secret_post: Option<SecretText>,
    /// A key of the gateway's own signs an assertion (RFC 7523 section 2.2): no secret is sent.
    pub private_key_jwt: Option<PrivateKeyJwt>,
    /// `client_certificate` proves who the gateway is (RFC 8705 section 2).
    #[serde(default)]
    pub tls_client_auth: bool,
}

/// How client assertions are signed.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PrivateKeyJwt {
    /// PEM file with the private key, unencrypted.
    pub private_key: String,
    /// `RS256`, `PS256`, `ES256`, `ES384`, `EdDSA` or `Ed25519`.
    #[schemars(with = "AlgorithmName")]
    pub algorithm: Algorithm,
    /// The key's id (`kid`) at the issuer.
    pub key_id: Option<String>,
    /// For whom the assertion is (`aud`). The default is the issuer; some want the URL of their token endpoint.
    pub audience: Option<String>,
}

/// When an endpoint that fails is left alone.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Breaker {
    /// After so many failures in a row.
    #[serde(default = "default_failures")]
    pub failures: u64,
    /// For so long; then a single question tries it again.
    #[serde(default = "default_pause")]
    pub pause: DurationText,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { failures: default_failures(), pause: default_pause() }
    }
}

fn default_cache() -> DurationText {
    "30s".into()
}

fn default_negative_cache() -> DurationText {
    "5s".into()
}

fn default_negative_entries() -> u64 {
    10_000
}

fn default_concurrency() -> u64 {
    64
}

fn default_failures() -> u64 {
    5
}

fn default_pause() -> DurationText {
    "5s".into()
}

fn default_timeout() -> DurationText {
    "3s".into()
}

fn default_max_size() -> SizeText {
    "64KiB".into()
}
