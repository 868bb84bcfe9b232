//! The file of cases: which request, with which token, and what shall come of it.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use http::{Method, Uri};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::repeated;
use crate::admin::endpoints::Question;
use crate::catalogue::{Code, Reason};
use crate::certificate::ClientCertificate;
use crate::clock::{Clock, UnixSeconds};
use crate::config::Config;
use crate::config::settings::Issuer;
use crate::gateway::Explanation;

/// Thousands of cases fit.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// The file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cases {
    /// What is revoked, as entries of a revocation feed (docs/revocation-feed.md).
    #[serde(default)]
    pub revocations: Vec<Value>,
    /// The cases, in the order in which they are run.
    #[serde(rename = "cases")]
    pub list: Vec<Case>,
}

/// One case.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    name: Option<String>,
    request: RequestedUrl,
    /// A token as it is, which the issuer's real keys must have signed.
    token: Option<String>,
    /// The same, in a file.
    token_file: Option<PathBuf>,
    /// Claims of a token that is made for the case.
    pub claims: Option<Map<String, Value>>,
    /// Members of its header besides `alg`, `kid` and `typ`, or in their place; null leaves one out.
    #[serde(default)]
    pub header: Map<String, Value>,
    /// The issuer that signs it: by name; the first of the configuration if absent.
    pub issuer: Option<String>,
    /// Sign it with a key that the issuer does not have.
    #[serde(default)]
    pub forged: bool,
    /// A PEM file with the client certificate that the connection shows; none if absent.
    client_certificate: Option<PathBuf>,
    /// The same, read.
    #[serde(skip)]
    pub certificate: Option<ClientCertificate>,
    at: Option<String>,
    pub expect: Expected,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestedUrl {
    url: String,
    method: Option<String>,
}

/// What shall come of a case.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Expected {
    /// `accepted`, or a code such as `VAL-020`.
    Word(String),
    /// A code with its reason.
    #[serde(rename_all = "snake_case")]
    Refusal {
        /// `VAL-020`.
        code: String,
        /// `expired`.
        reason: String,
    },
}

impl Cases {
    /// Reads the file and checks all that can be checked before a case is run.
    pub fn load(path: &Path, config: &Config) -> Result<Self> {
        let size = std::fs::metadata(path).context("cannot read the file")?.len();
        ensure!(size <= MAX_FILE_BYTES, "the file is larger than {MAX_FILE_BYTES} bytes");
        let text = std::fs::read_to_string(path).context("cannot read the file")?;
        let mut cases: Self = serde_yaml::from_str(&text).map_err(|error| anyhow!("{error}"))?;
        let base_dir = path.parent().unwrap_or_else(|| Path::new(""));
        ensure!(!cases.list.is_empty(), "there are no cases in it");
        if let Some(name) = repeated(cases.list.iter().map(Case::name)) {
            bail!("two cases are called '{name}'; give each a name of its own");
        }
        for case in &mut cases.list {
            case.check(config, base_dir).with_context(|| format!("case '{}'", case.name()))?;
        }
        Ok(cases)
    }
}

impl Case {
    /// Its name, or its request where it has none.
    pub fn name(&self) -> String {
        let method = self.request.method.as_deref().unwrap_or("GET");
        self.name.clone().unwrap_or_else(|| format!("{method} {}", self.request.url))
    }

    /// The request.
    pub fn request(&self) -> Result<(Method, Uri)> {
        let RequestedUrl { url, method } = &self.request;
        let question = Question { url: Some(url.clone()), method: method.clone(), ..Question::default() };
        question.request().map_err(|why| anyhow!("{why}"))?.context("there is no URL")
    }

    /// The token that is given; `None` if one is made, or none is sent.
    pub fn given_token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// The time that it is judged at.
    pub fn at(&self) -> Result<UnixSeconds> {
        match &self.at {
            None => Ok(Clock::system().wall()),
            Some(text) => {
                let at: jiff::Timestamp = text
                    .parse()
                    .with_context(|| format!("at: '{text}' is not a time such as 2026-01-31T12:00:00Z"))?;
                Ok(UnixSeconds(at.as_second()))
            }
        }
    }

    /// The issuer that its claims are signed for.
    pub fn issuer<'c>(&self, config: &'c Config) -> Result<(usize, &'c Issuer)> {
        let mut issuers = config.issuers.iter().enumerate();
        match &self.issuer {
            None => issuers.next().context("the configuration has no issuer to sign claims for"),
            Some(name) => issuers
                .find(|(_, issuer)| issuer.name == *name)
                .with_context(|| format!("the configuration has no issuer '{name}'")),
        }
    }

    fn check(&mut self, config: &Config, base_dir: &Path) -> Result<()> {
        let given = [self.token.is_some(), self.token_file.is_some(), self.claims.is_some()];
        ensure!(
            given.iter().filter(|given| **given).count() <= 1,
            "has more than one of token, token_file and claims, which exclude each other"
        );
        ensure!(
            self.claims.is_some() || (self.header.is_empty() && !self.forged && self.issuer.is_none()),
            "header, issuer and forged are for a token that is made of claims"
        );
        self.request()?;
        self.at()?;
        self.expect.check()?;
        if self.claims.is_some() {
            self.issuer(config)?;
        }
        if let Some(path) = &self.token_file {
            let path = base_dir.join(path);
            let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            self.token = Some(text.trim().to_owned());
        }
        if let Some(path) = &self.client_certificate {
            let path = base_dir.join(path);
            let pem = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            let question = Question { client_certificate: Some(pem), ..Question::default() };
            let read = question.certificate().map_err(|why| anyhow!("{why}"));
            self.certificate = read.with_context(|| path.display().to_string())?;
        }
        Ok(())
    }
}

impl Expected {
    /// The word for a request that is forwarded.
    pub const ACCEPTED: &str = "accepted";

    /// Whether it came so.
    pub fn is_met(&self, explanation: &Explanation) -> bool {
        match (self, &explanation.refusal) {
            (Self::Word(word), None) => word == Self::ACCEPTED,
            (Self::Word(word), Some(refusal)) => *word == refusal.code,
            (Self::Refusal { .. }, None) => false,
            (Self::Refusal { code, reason }, Some(refusal)) => {
                *code == refusal.code && *reason == refusal.reason
            }
        }
    }

    fn check(&self) -> Result<()> {
        let known =
            |code: &str| Code::find(code).with_context(|| format!("expect: there is no code '{code}'"));
        match self {
            Self::Word(word) if word == Self::ACCEPTED => Ok(()),
            Self::Word(word) => known(word).map(|_| ()),
            Self::Refusal { code, reason } => {
                let code = known(code)?;
                let fits = Reason::ALL.iter().any(|row| row.code() == code && row.name() == reason);
                ensure!(fits, "expect: {} has no reason '{reason}'", code.number());
                Ok(())
            }
        }
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(word) => f.write_str(word),
            Self::Refusal { code, reason } => write!(f, "{code} {reason}"),
        }
    }
}
