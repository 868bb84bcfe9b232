//! `routes[].cors`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::DurationText;

/// Which pages of other origins may call the route from a browser, and read its answers and refusals.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cors {
    /// Origins as browsers write them: `https://app.example.com`, `https://*.example.com` for all hosts below, or
    /// `*` alone for every page.
    pub allow_origins: Vec<String>,
    /// Methods that a page may use. Those of the route if absent.
    pub allow_methods: Option<Vec<String>>,
    /// Headers that a page may send.
    #[serde(default = "default_allow_headers")]
    pub allow_headers: Vec<String>,
    /// Headers of answers that a page may read, beside the few that are always readable, and `X-Request-Id`,
    /// `WWW-Authenticate` and `Retry-After`.
    #[serde(default)]
    pub expose_headers: Vec<String>,
    /// Let pages send cookies along; needed with `token_from: { cookie: NAME }` only.
    #[serde(default)]
    pub credentials: bool,
    /// How long a browser may remember the answer to a preflight.
    #[serde(default = "default_max_age")]
    pub max_age: DurationText,
    /// `answer`: the gateway answers preflights, and its CORS headers replace those of the API. `forward`: the API
    /// answers them, without a token, and its CORS headers stay; those of the gateway are on its refusals only.
    #[serde(default)]
    pub preflight: AnsweredBy,
}

/// Who answers preflights.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AnsweredBy {
    #[default]
    Answer,
    Forward,
}

fn default_allow_headers() -> Vec<String> {
    vec!["Authorization".to_owned(), "Content-Type".to_owned()]
}

fn default_max_age() -> DurationText {
    "10m".into()
}
