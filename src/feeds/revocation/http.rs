//! The documented HTTP feed: asks for a snapshot, then for deltas by cursor, held back by the server if it can.
//!
//! Knows how to ask and how long to wait, not what a document means.

use std::io::{self, Read};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::HeaderValue;
use tokio::sync::mpsc;
use url::Url;

use super::super::fetch::{BodyStream, FetchClient, FetchError, FetchRequest, FetchSettings, FetchedStream};
use super::document::{Document, DocumentError, parse};
use super::error::SyncError;
use super::replica::{Replica, Taken, blocking};
use super::signed::Signed;
use crate::clock::Monotonic;
use crate::revocation::Staged;

pub(super) struct HttpSource {
    client: FetchClient,
    url: Url,
    authorization: Option<HeaderValue>,
    long_poll: Option<Duration>,
    signed: Option<Signed>,
    timeout: Duration,
    /// The tag of the last answer, and the cursor that it answered: tags belong to URLs.
    validator: Option<(Option<String>, String)>,
    /// Asking on from the cursor is of no use.
    from_scratch: bool,
    /// How long the last snapshot took.
    snapshot_took: Option<Duration>,
}

impl HttpSource {
    pub(super) fn new(
        url: Url,
        authorization: Option<HeaderValue>,
        long_poll: Option<Duration>,
        signed: Option<Signed>,
        fetch: &FetchSettings,
    ) -> Result<Self, FetchError> {
        Ok(Self {
            client: FetchClient::new(fetch)?,
            url,
            authorization,
            long_poll,
            signed,
            timeout: fetch.timeout,
            validator: None,
            from_scratch: false,
            snapshot_took: None,
        })
    }

    /// Asks once, and has the replica take over the answer. Also says whether the server held the request back, or
    /// answered with news: then it may be asked again at once.
    pub(super) async fn sync(&mut self, replica: &mut Replica) -> Result<(Taken, bool), SyncError> {
        let cursor = replica.cursor().filter(|_| !self.from_scratch).map(str::to_owned);
        let result = self.ask(replica, cursor.as_deref()).await;
        match &result {
            Ok(_) => self.from_scratch = false,
            Err(error) => {
                self.validator = None;
                self.from_scratch |= cursor.is_some() && error.calls_for_snapshot();
                if cursor.is_none() {
                    self.snapshot_took = None;
                }
            }
        }
        result
    }

    async fn ask(&mut self, replica: &mut Replica, cursor: Option<&str>) -> Result<(Taken, bool), SyncError> {
        // A copy from disk waits for the first answer.
        let wait = self.long_poll.filter(|_| cursor.is_some() && replica.state.is_loaded());
        let asked_at = replica.clock.monotonic();
        let etag =
            self.validator.as_ref().filter(|(of, _)| of.as_deref() == cursor).map(|(_, etag)| etag.clone());
        let request = FetchRequest {
            accept: if self.signed.is_some() { SIGNED } else { "application/json" },
            etag: etag.as_deref(),
            headers: None,
            authorization: self.authorization.as_ref(),
            timeout: Some(self.patience(cursor, wait)),
            silence: Some(self.timeout.saturating_add(wait.unwrap_or_default())),
        };
        let answer = self.client.get_stream(&self.asked_url(cursor, wait), request).await?;
        let as_of = replica.clock.monotonic();
        let held_back = wait.is_some_and(|wait| asked_at.until(as_of) >= wait / 2);
        let (head, body) = match answer {
            FetchedStream::NotModified(_) => {
                replica.unchanged(as_of).await;
                return Ok((Taken::Unchanged, held_back));
            }
            FetchedStream::Full { head, body } => (head, body),
        };
        let taken = match &mut self.signed {
            None if !head.is_json() => return Err(SyncError::NotJson { content_type: head.content_type }),
            None => {
                let document = read(body, replica.stage()).await?;
                let taken = replica.take(document, cursor, as_of).await?;
                self.validator = head.etag.map(|etag| (cursor.map(str::to_owned), etag));
                taken
            }
            Some(_) if head.content_type.as_deref() != Some(SIGNED) => {
                return Err(SyncError::NotSigned { content_type: head.content_type });
            }
            Some(signed) => take_signed(signed, body, replica, cursor, as_of).await?,
        };
        if cursor.is_none() {
            self.snapshot_took = Some(asked_at.until(replica.clock.monotonic()));
        }
        let more_at_once =
            self.long_poll.is_some() && replica.cursor().is_some() && taken != Taken::Unchanged;
        Ok((taken, held_back || more_at_once))
    }

    fn asked_url(&self, cursor: Option<&str>, wait: Option<Duration>) -> Url {
        let mut url = self.url.clone();
        if let Some(cursor) = cursor {
            url.query_pairs_mut().append_pair("cursor", cursor);
        }
        if let Some(wait) = wait {
            url.query_pairs_mut().append_pair("wait", &wait.as_secs().to_string());
        }
        url
    }

    /// A first snapshot may be large; later ones may take some times as long as the one before.
    fn patience(&self, cursor: Option<&str>, wait: Option<Duration>) -> Duration {
        match (cursor, self.snapshot_took) {
            (Some(_), _) => self.timeout.saturating_add(wait.unwrap_or_default()),
            (None, None) => self.timeout.max(FIRST_SNAPSHOT),
            (None, Some(took)) => self.timeout.max(took.saturating_mul(4)),
        }
    }
}

/// A signature is over the whole, so the whole is read before any of it counts.
async fn take_signed(
    signed: &mut Signed,
    mut body: BodyStream,
    replica: &mut Replica,
    cursor: Option<&str>,
    as_of: Monotonic,
) -> Result<Taken, SyncError> {
    let mut answer = Vec::new();
    while let Some(chunk) = body.chunk().await? {
        answer.extend_from_slice(&chunk);
    }
    let (payload, serial) = signed.open(&answer).await?;
    drop(answer);
    let staged = replica.stage();
    let document =
        blocking(move || parse(payload.as_slice(), staged)).await.map_err(SyncError::Interrupted)??;
    let taken = replica.take(document, cursor, as_of).await?;
    if let Err(error) = signed.taken(serial) {
        tracing::warn!(%error, "the serial of a signed feed cannot be kept in state_dir: after a restart an old answer is only told by its age");
    }
    Ok(taken)
}

/// Parses on a blocking thread while the body arrives, a few chunks apart.
async fn read(mut body: BodyStream, staged: Staged) -> Result<Document, SyncError> {
    let (sender, receiver) = mpsc::channel(CHUNKS_IN_FLIGHT);
    let parsing = tokio::task::spawn_blocking(move || {
        parse(Chunks { receiver, chunk: Bytes::new(), ended: false }, staged)
    });
    let arrival = loop {
        match body.chunk().await {
            Ok(Some(chunk)) if chunk.is_empty() => {}
            // A parser that is gone has found a fault, and says so below.
            Ok(Some(chunk)) => {
                if sender.send(chunk).await.is_err() {
                    break Ok(());
                }
            }
            Ok(None) => {
                let _ = sender.send(END).await;
                break Ok(());
            }
            Err(error) => break Err(error),
        }
    };
    drop(sender);
    let parsed = parsing.await.map_err(|error| SyncError::Interrupted(io::Error::other(error)))?;
    match (arrival, parsed) {
        (Err(error), Ok(_) | Err(DocumentError::Io(_) | DocumentError::Empty)) => Err(error.into()),
        (_, parsed) => Ok(parsed?),
    }
}

/// Chunks as a reader that tells the end of the body from its breaking off.
struct Chunks {
    receiver: mpsc::Receiver<Bytes>,
    chunk: Bytes,
    ended: bool,
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.chunk.is_empty() && !self.ended {
            self.chunk = self
                .receiver
                .blocking_recv()
                .ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "the answer broke off"))?;
            self.ended = self.chunk.is_empty();
        }
        let length = self.chunk.len().min(buffer.len());
        if let Some(buffer) = buffer.get_mut(..length) {
            self.chunk.copy_to_slice(buffer);
        }
        Ok(length)
    }
}

const SIGNED: &str = "application/valgate-feed+jwt";
/// The mark that a body ended as it should; chunks that are sent are never empty.
const END: Bytes = Bytes::new();
const CHUNKS_IN_FLIGHT: usize = 16;
/// A hundred megabytes, which is a million entries, by a line of 20 Mbit/s.
const FIRST_SNAPSHOT: Duration = Duration::from_secs(60);
