//! One question to the endpoint and its answer (RFC 7662 section 2).

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::StatusCode;
use serde_json::{Map, Value};
use url::Url;
use url::form_urlencoded::Serializer;

use super::answer::{self, AnswerError, SignedAnswers};
use super::credentials::{CredentialsError, Proof};
use crate::clock::{Clock, Monotonic};
use crate::feeds::discovery::{Discovery, DiscoveryError};
use crate::feeds::fetch::{FetchClient, FetchError, FetchRequest, Fetched, Payload};

/// Where the endpoint is.
#[derive(Clone, Debug)]
pub enum EndpointLocation {
    /// At this URL.
    Url(Url),
    /// Where the issuer's metadata says, at this document or else in the well-known places.
    Discovery(Option<Url>),
}

/// Why a question got no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum EndpointError {
    #[error("the introspection endpoint refuses the gateway's own credentials: {0}; check client and secret")]
    Credentials(FetchError),
    #[error(transparent)]
    Fetch(FetchError),
    #[error(transparent)]
    Discovery(#[from] DiscoveryError),
    #[error("the introspection endpoint cannot be used: {0}")]
    Answer(#[from] AnswerError),
    #[error(transparent)]
    Proof(#[from] CredentialsError),
}

pub(super) struct Endpoint {
    pub client: FetchClient,
    pub place: Place,
    pub proof: Proof,
    pub signed: Option<SignedAnswers>,
}

pub(super) enum Place {
    Known(Url),
    Discovered { discovery: Discovery, found: Mutex<Option<(Url, Monotonic)>>, clock: Clock },
}

/// A provider that moves its endpoint says so in its metadata.
const DISCOVERY_LIFETIME: Duration = Duration::from_secs(60 * 60);

impl Endpoint {
    /// The claims of the token if it is active.
    pub(super) async fn ask(&self, token: &str) -> Result<Option<Map<String, Value>>, EndpointError> {
        let url = self.place.url(&self.client).await?;
        let payload =
            Payload { media_type: "application/x-www-form-urlencoded", bytes: self.form(token)?.into() };
        let accept = if self.signed.is_some() { SIGNED } else { "application/json" };
        let request = FetchRequest { accept, authorization: self.proof.header(), ..FetchRequest::default() };
        let fetched = self.client.post(&url, request, payload).await.map_err(blame)?;
        let Fetched::Full { head, body } = fetched else {
            return Err(AnswerError::NotJson("none".to_owned()).into());
        };
        match &self.signed {
            Some(signed) if head.content_type.as_deref() == Some(SIGNED) => Ok(signed.read(&body).await?),
            Some(_) => Err(AnswerError::MediaType(SIGNED).into()),
            None if head.is_json() => Ok(answer::read(&body)?),
            None => Err(AnswerError::MediaType("application/json").into()),
        }
    }

    fn form(&self, token: &str) -> Result<String, CredentialsError> {
        let mut form = Serializer::new(String::new());
        form.append_pair("token", token).append_pair("token_type_hint", "access_token");
        self.proof.complete(&mut form)?;
        Ok(form.finish())
    }
}

impl Place {
    async fn url(&self, client: &FetchClient) -> Result<Url, DiscoveryError> {
        let (discovery, found, clock) = match self {
            Self::Known(url) => return Ok(url.clone()),
            Self::Discovered { discovery, found, clock } => (discovery, found, clock),
        };
        let now = clock.monotonic();
        let known = found.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((url, at)) = known
            && at.until(now) < DISCOVERY_LIFETIME
        {
            return Ok(url);
        }
        let url = discovery.introspection_url(client).await?;
        *found.lock().unwrap_or_else(PoisonError::into_inner) = Some((url.clone(), now));
        Ok(url)
    }
}

/// A refusal of the gateway's own credentials is the operator's to mend, and no token's fault.
fn blame(error: FetchError) -> EndpointError {
    match error {
        FetchError::Status { status: StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, .. } => {
            EndpointError::Credentials(error)
        }
        error => EndpointError::Fetch(error),
    }
}

const SIGNED: &str = "application/token-introspection+jwt";
