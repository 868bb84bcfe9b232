//! Writing to a feed server: `POST` to the feed's own URL, as docs/revocation-feed.md has it.

use http::HeaderValue;
use serde::Deserialize;
use serde_json::value::RawValue;
use url::Url;

use super::super::fetch::{FetchClient, FetchError, FetchRequest, FetchSettings, Fetched, Payload};
use super::document::{Listed, check_revocations, lift_line, revocation_line};
use crate::revocation::{EngineError, EngineFuture, Fact, Page, Revocation, RevocationEngine};

/// See the module.
#[derive(Debug)]
pub struct HttpEngine {
    client: FetchClient,
    url: Url,
    read_authorization: Option<HeaderValue>,
    write_authorization: Option<HeaderValue>,
}

/// What the server answers to a write.
#[derive(Deserialize)]
struct Written {
    lifted: usize,
}

impl HttpEngine {
    /// Writes to the server of the feed at `url`. Without `write_authorization` it can only be read.
    ///
    /// # Errors
    /// A certificate that the settings name cannot be used.
    pub fn new(
        url: Url,
        read_authorization: Option<HeaderValue>,
        write_authorization: Option<HeaderValue>,
        fetch: &FetchSettings,
    ) -> Result<Self, FetchError> {
        Ok(Self { client: FetchClient::new(fetch)?, url, read_authorization, write_authorization })
    }

    async fn write(&self, lines: impl Iterator<Item = String>) -> Result<usize, EngineError> {
        let Some(authorization) = &self.write_authorization else {
            let why = "the feed has no `write_authorization`: it can be read, not written";
            return Err(EngineError::ReadOnly(why.to_owned()));
        };
        let lines: Vec<Box<RawValue>> = lines.filter_map(|line| RawValue::from_string(line).ok()).collect();
        let mut lifted = 0;
        for some in lines.chunks(AT_ONCE) {
            let body = serde_json::to_vec(&serde_json::json!({ "entries": some }))
                .map_err(|error| EngineError::Unusable(error.to_string()))?;
            let request =
                FetchRequest { accept: JSON, authorization: Some(authorization), ..FetchRequest::default() };
            let payload = Payload { media_type: JSON, bytes: body.into() };
            match self.client.post(&self.url, request, payload).await {
                Ok(Fetched::Full { body, .. }) => {
                    let written: Written = serde_json::from_slice(&body).map_err(|_| {
                        EngineError::Unavailable(
                            "the answer is not that of a feed server that takes revocations".to_owned(),
                        )
                    })?;
                    lifted += written.lifted;
                }
                Ok(Fetched::NotModified(_)) => {}
                Err(error) => return Err(unavailable(&error)),
            }
        }
        Ok(lifted)
    }

    async fn snapshot(&self) -> Result<Listed, EngineError> {
        let request = FetchRequest {
            accept: JSON,
            authorization: self.read_authorization.as_ref(),
            ..FetchRequest::default()
        };
        match self.client.get(&self.url, request).await {
            Ok(Fetched::Full { body, .. }) => Listed::read(&body).map_err(EngineError::Unavailable),
            Ok(Fetched::NotModified(_)) => {
                Err(EngineError::Unavailable("the server sent no document".to_owned()))
            }
            Err(error) => Err(unavailable(&error)),
        }
    }
}

impl RevocationEngine for HttpEngine {
    fn revoke<'a>(&'a self, revocations: &'a [Revocation]) -> EngineFuture<'a, ()> {
        Box::pin(async move {
            check_revocations(revocations).map_err(|why| EngineError::Unusable(why.to_owned()))?;
            self.write(revocations.iter().map(revocation_line)).await.map(drop)
        })
    }

    fn lift<'a>(&'a self, facts: &'a [Fact]) -> EngineFuture<'a, usize> {
        Box::pin(self.write(facts.iter().map(lift_line)))
    }

    fn look_up<'a>(&'a self, fact: &'a Fact) -> EngineFuture<'a, Vec<Revocation>> {
        Box::pin(async move { Ok(self.snapshot().await?.look_up(fact)) })
    }

    fn list<'a>(&'a self, after: Option<&'a str>) -> EngineFuture<'a, Page> {
        Box::pin(async move { self.snapshot().await?.page(after).map_err(EngineError::Unusable) })
    }
}

fn unavailable(error: &FetchError) -> EngineError {
    EngineError::Unavailable(error.to_string())
}

const JSON: &str = "application/json";
/// Well within what a server takes in one request.
const AT_ONCE: usize = 1000;
