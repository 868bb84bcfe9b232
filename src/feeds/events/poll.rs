//! The poll client for security events (RFC 8936): asks, hands each event to the feed's inbox, and tells the
//! transmitter with the next request which were taken.
//!
//! What was not acknowledged comes again, so a crash at any point loses nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tracing::{info, warn};
use url::Url;

use crate::clock::Clock;
use crate::events::{Body, Delivery, Inbox, Receipt, Refusal};
use crate::feeds::back_off::{Chance, after_failure};
use crate::feeds::fetch::{FetchClient, FetchError, FetchRequest, FetchSettings, Fetched, Payload};
use crate::feeds::revocation::{RevocationFeedStats, Told, after_long_poll};

/// Where and how to ask.
#[derive(Clone, Debug)]
pub struct PollSettings {
    /// The poll endpoint.
    pub url: Url,
    /// The value of `Authorization`.
    pub authorization: Option<HeaderValue>,
    /// How long the transmitter may hold an answer back.
    pub long_poll: Duration,
    /// How often to ask one that does not.
    pub interval: Duration,
    /// How to fetch.
    pub fetch: FetchSettings,
}

/// The task that asks.
#[derive(Debug)]
pub struct PollClient {
    client: FetchClient,
    settings: PollSettings,
    inbox: Inbox,
    told: Told,
    clock: Clock,
    taken: Vec<String>,
    refused: BTreeMap<String, SetError>,
    failures: u32,
    noted: Option<String>,
}

/// RFC 8936 section 2.2.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Ask<'a> {
    max_events: usize,
    return_immediately: bool,
    ack: &'a [String],
    set_errs: &'a BTreeMap<String, SetError>,
}

/// RFC 8936 section 2.6.
#[derive(Debug, Serialize)]
struct SetError {
    err: &'static str,
    description: String,
}

/// RFC 8936 section 2.3.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    sets: BTreeMap<String, String>,
    #[serde(default)]
    more_available: bool,
}

#[derive(Debug, thiserror::Error)]
enum PollError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("the answer is not that of a poll endpoint (RFC 8936 section 2.3): an object with 'sets'")]
    NotAnAnswer,
    #[error("it answers with more than {MAX_EVENTS} events although it was asked for fewer")]
    TooMany,
    #[error("{0}")]
    NotTaken(String),
}

impl PollClient {
    /// A client that hands events to `inbox`, whose feed knows what was `told`.
    ///
    /// # Errors
    /// A certificate that the settings name cannot be used.
    pub fn new(settings: PollSettings, inbox: Inbox, told: Told, clock: Clock) -> Result<Self, FetchError> {
        Ok(Self {
            client: FetchClient::new(&settings.fetch)?,
            settings,
            inbox,
            told,
            clock,
            taken: Vec::new(),
            refused: BTreeMap::new(),
            failures: 0,
            noted: None,
        })
    }

    /// Asks until it is dropped.
    pub async fn run(mut self) {
        loop {
            let asked_at = self.clock.monotonic();
            let pause = match self.ask().await {
                Ok(is_news) => {
                    self.succeeded();
                    pause(&self.settings, is_news, asked_at.until(self.clock.monotonic()))
                }
                Err(error) => self.failed(&error),
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Asks once; whether there is more to be had or to be acknowledged.
    async fn ask(&mut self) -> Result<bool, PollError> {
        let ask = Ask {
            max_events: MAX_EVENTS,
            return_immediately: false,
            ack: &self.taken,
            set_errs: &self.refused,
        };
        let body = serde_json::to_vec(&ask).map_err(|_| PollError::NotAnAnswer)?;
        let request = FetchRequest {
            accept: "application/json",
            authorization: self.settings.authorization.as_ref(),
            timeout: Some(self.settings.fetch.timeout.saturating_add(self.settings.long_poll)),
            ..FetchRequest::default()
        };
        let payload = Payload { media_type: "application/json", bytes: body.into() };
        let Fetched::Full { head, body } = self.client.post(&self.settings.url, request, payload).await?
        else {
            return Err(PollError::NotAnAnswer);
        };
        let as_of = self.clock.monotonic();
        let answer: Option<Answer> = serde_json::from_slice(&body).ok().filter(|_| head.is_json());
        let Answer { sets, more_available } = answer.ok_or(PollError::NotAnAnswer)?;
        // What was acknowledged is the transmitter's no more.
        self.taken.clear();
        self.refused.clear();
        if sets.len() > MAX_EVENTS {
            return Err(PollError::TooMany);
        }
        self.hand_over(sets).await?;
        // Before that, what the transmitter has to tell is not known here.
        if !more_available {
            self.told.heard(as_of);
        }
        Ok(more_available || !self.taken.is_empty() || !self.refused.is_empty())
    }

    async fn hand_over(&mut self, sets: BTreeMap<String, String>) -> Result<(), PollError> {
        let mut deliveries = JoinSet::new();
        for (jti, set) in sets {
            let delivery = Delivery {
                authorization: None,
                media_type: "application/secevent+jwt".to_owned(),
                body: Bytes::from(set),
            };
            let inbox = self.inbox.clone();
            deliveries.spawn(async move { (jti, inbox.send(Body::Statement(delivery)).await) });
        }
        let mut not_taken = None;
        while let Some(delivered) = deliveries.join_next().await {
            let Ok((jti, receipt)): Result<(String, Receipt), _> = delivered else { continue };
            match receipt {
                Ok(()) => self.taken.push(jti),
                Err(Refusal::Fault(fault)) => {
                    self.refused.insert(jti, SetError { err: fault.code, description: fault.description });
                }
                Err(Refusal::Unavailable(why)) => not_taken = Some(why),
                Err(Refusal::Unauthenticated) => {}
            }
        }
        not_taken.map_or(Ok(()), |why| Err(PollError::NotTaken(why)))
    }

    fn succeeded(&mut self) {
        self.failures = 0;
        if self.noted.take().is_some() {
            let feed = self.told.state().name();
            info!(feed, "the transmitter of the feed {feed} is heard again");
        }
    }

    fn failed(&mut self, error: &PollError) -> Duration {
        self.failures = self.failures.saturating_add(1);
        RevocationFeedStats::add(&self.told.stats().failures, 1);
        let message = error.to_string();
        if self.noted.as_ref() != Some(&message) {
            let feed = self.told.state().name();
            warn!(
                feed,
                error = message,
                "the transmitter of the feed {feed} cannot be heard; what is known stays in force"
            );
            self.noted = Some(message);
        }
        after_failure(self.failures, Chance::draw())
    }
}

/// After an answer that took so long. What comes alone is acknowledged at once, and the next finds a question waiting.
fn pause(settings: &PollSettings, is_news: bool, took: Duration) -> Duration {
    let held_back = took >= settings.long_poll / 2;
    if is_news || held_back { after_long_poll(took) } else { settings.interval }
}

/// Within what an inbox holds.
const MAX_EVENTS: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transmitter_that_holds_back_is_asked_again_at_once_and_no_other_in_a_tight_loop() {
        let second = Duration::from_secs(1);
        let settings = PollSettings {
            url: "https://id.example.com/poll".parse().unwrap(),
            authorization: None,
            long_poll: 30 * second,
            interval: 5 * second,
            fetch: FetchSettings::default(),
        };
        let none = Duration::ZERO;
        for (is_news, took, expected) in [
            (true, second, none..=none),
            (false, 30 * second, none..=none),
            // Events in a burst arrive together; one that repeats what it has, or says that there is more, waits too.
            (true, none, Duration::from_millis(10)..=Duration::from_millis(50)),
            (false, none, settings.interval..=settings.interval),
            (false, second, settings.interval..=settings.interval),
        ] {
            let pause = pause(&settings, is_news, took);
            assert!(expected.contains(&pause), "{is_news} {took:?}: {pause:?}");
        }
        let no_long_poll = PollSettings { long_poll: none, ..settings };
        assert!(!pause(&no_long_poll, false, none).is_zero());
    }
}
