//! Follows a bucket of NATS: all its messages once, then each as it comes.
//!
//! The position is the sequence number and the time of the last message taken over. It is good for as long as that very
//! message is there. It need not be: a bucket keeps the last message of each key only. Then all is read anew, which is
//! also what happens after a long silence, when the messages that lifted something may have expired.

use std::pin::Pin;
use std::time::Duration;

use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::{Ordered, OrderedConfig};
use async_nats::jetstream::stream::{Info, RawMessageErrorKind, Stream};
use async_nats::jetstream::{Context, Message};
use futures_util::Stream as _;

use super::super::super::nats::NatsConnector;
use super::super::document::{Document, Entries, Kind, parse_dated};
use super::super::error::{Misfit, SyncError};
use super::super::replica::{Replica, Taken, blocking};
use crate::clock::Monotonic;
use crate::revocation::EngineError;

pub(in super::super) struct NatsSource {
    connector: NatsConnector,
    link: Option<Link>,
    from_scratch: bool,
}

/// A connection that follows the bucket from the position on.
struct Link {
    context: Context,
    messages: Ordered,
    position: Position,
    /// The history that the position is of.
    epoch: String,
}

/// The last message taken over, or the place of one that is no longer there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Position {
    sequence: u64,
    /// In nanoseconds since 1970.
    time: Option<i128>,
}

impl NatsSource {
    pub(in super::super) fn new(connector: NatsConnector) -> Self {
        Self { connector, link: None, from_scratch: false }
    }

    /// Waits for changes, for about a second, and has the replica take them over.
    pub(in super::super) async fn sync(&mut self, replica: &mut Replica) -> Result<Taken, SyncError> {
        // Taken, so that a link with a fault is not used again.
        if let Some(mut link) = self.link.take() {
            let taken = self.hear(&mut link, replica).await?;
            // Something is gone in a way that does not say what: only the whole says what is left.
            self.link = Some(link).filter(|_| !self.from_scratch);
            return Ok(taken);
        }
        let asked_at = replica.clock.monotonic();
        let context = self.connector.connect().await?;
        let stream = self.connector.stream(&context).await?.ok_or_else(|| self.connector.missing())?;
        if !self.from_scratch
            && let Some(position) = good_position(&self.connector, &stream, replica).await?
        {
            let (messages, pending) = follow(&self.connector, &stream, Some(position)).await?;
            self.link = Some(Link { context, messages, position, epoch: epoch(stream.cached_info()) });
            if pending == 0 {
                replica.unchanged(asked_at).await;
            }
            // Else it is not heard yet: what came meanwhile is on its way.
            return Ok(Taken::Unchanged);
        }
        let taken = self.snapshot(context, &stream, replica).await?;
        self.from_scratch = false;
        Ok(taken)
    }

    async fn snapshot(
        &mut self,
        context: Context,
        stream: &Stream<Info>,
        replica: &mut Replica,
    ) -> Result<Taken, SyncError> {
        let as_of = replica.clock.monotonic();
        let info = stream.cached_info();
        let (mut messages, pending) = follow(&self.connector, stream, None).await?;
        let mut position = Position { sequence: 0, time: None };
        let mut entries = Entries::new(replica.stage());
        let mut left = pending;
        while left > 0 {
            let batch = batch(&self.connector, &mut messages, SILENCE).await?;
            let Some(last) = batch.last() else {
                let why = format!("{left} messages of the bucket do not arrive");
                return Err(self.connector.failed(why).into());
            };
            (position, left) = place_of(&self.connector, last)?;
            entries = blocking(move || take_in(entries, &batch)).await.map_err(SyncError::Interrupted)??.0;
        }
        if position.sequence < info.state.last_sequence {
            // The newest messages are gone, so none of them is to be waited for.
            position = Position { sequence: info.state.last_sequence, time: None };
        }
        let epoch = epoch(info);
        let document = Document {
            kind: Kind::Snapshot,
            epoch: epoch.clone(),
            cursor: Some(position.write()),
            since: None,
            entries,
            digest: None,
            surely_empty: false,
        };
        let taken = replica.take(document, None, as_of).await?;
        self.link = Some(Link { context, messages, position, epoch });
        Ok(taken)
    }

    async fn hear(&mut self, link: &mut Link, replica: &mut Replica) -> Result<Taken, SyncError> {
        let batch = batch(&self.connector, &mut link.messages, HOLD_BACK).await?;
        let Some(last) = batch.last() else {
            return self.look_around(link, replica).await;
        };
        let as_of = replica.clock.monotonic();
        let (position, _) = place_of(&self.connector, last)?;
        let entries = Entries::new(replica.stage());
        let (entries, removed) =
            blocking(move || take_in(entries, &batch)).await.map_err(SyncError::Interrupted)??;
        self.from_scratch |= removed;
        let since = replica.cursor().map(str::to_owned);
        let document = Document {
            kind: Kind::Delta,
            epoch: link.epoch.clone(),
            cursor: Some(position.write()),
            since: since.clone(),
            entries,
            digest: None,
            surely_empty: false,
        };
        let taken = replica.take(document, since.as_deref(), as_of).await?;
        link.position = position;
        Ok(taken)
    }

    /// Nothing came: is there nothing?
    async fn look_around(&mut self, link: &mut Link, replica: &mut Replica) -> Result<Taken, SyncError> {
        let asked_at: Monotonic = replica.clock.monotonic();
        let stream = self.connector.stream(&link.context).await?.ok_or_else(|| self.connector.missing())?;
        let info = stream.cached_info();
        if epoch(info) != link.epoch || info.state.last_sequence < link.position.sequence {
            return Err(self
                .connector
                .failed("the bucket is another one than before; it is read anew")
                .into());
        }
        if info.state.last_sequence > link.position.sequence {
            // A server that was restarted forgets whom it was to tell.
            let (messages, pending) = follow(&self.connector, &stream, Some(link.position)).await?;
            link.messages = messages;
            if pending > 0 {
                return Ok(Taken::Unchanged);
            }
            link.position = Position { sequence: info.state.last_sequence, time: None };
        }
        replica.unchanged(asked_at).await;
        Ok(Taken::Unchanged)
    }
}

impl Position {
    fn read(text: &str) -> Option<Self> {
        let (sequence, time) = text.split_once('@')?;
        let time = if time.is_empty() { None } else { Some(time.parse().ok()?) };
        Some(Self { sequence: sequence.parse().ok()?, time })
    }

    fn write(self) -> String {
        let time = self.time.map(|time| time.to_string()).unwrap_or_default();
        format!("{}@{time}", self.sequence)
    }
}

/// Where the replica stands, if all that came after can be had.
async fn good_position(
    connector: &NatsConnector,
    stream: &Stream<Info>,
    replica: &Replica,
) -> Result<Option<Position>, EngineError> {
    let info = stream.cached_info();
    let Some(silence) = replica.silence() else { return Ok(None) };
    let same_history = replica.epoch() == Some(epoch(info).as_str());
    let position = replica.cursor().and_then(Position::read).filter(|_| same_history);
    let Some(position) = position.filter(|_| silence < LIFTS_ARE_KEPT) else { return Ok(None) };
    let Some(time) = position.time else {
        return Ok(Some(position).filter(|position| position.sequence == info.state.last_sequence));
    };
    match stream.get_raw_message(position.sequence).await {
        Ok(message) => Ok(Some(position).filter(|_| message.time.unix_timestamp_nanos() == time)),
        Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
        Err(error) => Err(connector.failed(error)),
    }
}

/// The messages after the position, and how many there are already.
async fn follow(
    connector: &NatsConnector,
    stream: &Stream<Info>,
    position: Option<Position>,
) -> Result<(Ordered, u64), EngineError> {
    let deliver_policy = match position {
        None => DeliverPolicy::All,
        Some(Position { sequence, .. }) => {
            DeliverPolicy::ByStartSequence { start_sequence: sequence.saturating_add(1) }
        }
    };
    let config = OrderedConfig { deliver_policy, ..OrderedConfig::default() };
    let consumer = stream.create_consumer(config).await.map_err(|error| connector.failed(error))?;
    let pending = consumer.cached_info().num_pending;
    let messages = consumer.messages().await.map_err(|error| connector.failed(error))?;
    Ok((messages, pending))
}

/// Waits so long for a first message, and takes what is there besides.
async fn batch(
    connector: &NatsConnector,
    messages: &mut Ordered,
    patience: Duration,
) -> Result<Vec<Message>, EngineError> {
    let mut batch = Vec::new();
    let mut patience = patience;
    while batch.len() < MESSAGES_AT_ONCE {
        let next = std::future::poll_fn(|context| Pin::new(&mut *messages).poll_next(context));
        match tokio::time::timeout(patience, next).await {
            Ok(Some(Ok(message))) => batch.push(message),
            Ok(Some(Err(error))) => return Err(connector.failed(error)),
            Ok(None) => return Err(connector.failed("the connection was closed")),
            Err(_) => break,
        }
        patience = Duration::ZERO;
    }
    Ok(batch)
}

/// Where a message stands, and how many come after it.
fn place_of(connector: &NatsConnector, message: &Message) -> Result<(Position, u64), EngineError> {
    let info = message.info().map_err(|error| connector.failed(error))?;
    let time = Some(info.published.unix_timestamp_nanos());
    Ok((Position { sequence: info.stream_sequence, time }, info.pending))
}

/// The entries of messages; and whether one of them removes a key, which does not say what was revoked by it.
fn take_in(mut entries: Entries, batch: &[Message]) -> Result<(Entries, bool), Misfit> {
    let mut removed = false;
    for message in batch {
        let header = |name| {
            message
                .headers
                .as_ref()
                .and_then(|headers| headers.get(name))
                .map(async_nats::HeaderValue::as_str)
        };
        match (header("KV-Operation"), header("Nats-Marker-Reason")) {
            (None, None) => entries.push(parse_dated(&message.payload))?,
            // It expired, and so it did here.
            (_, Some("MaxAge")) => entries.total += 1,
            _ => {
                entries.total += 1;
                removed = true;
            }
        }
    }
    Ok((entries, removed))
}

/// Sequence numbers belong to the stream that was made then.
fn epoch(info: &Info) -> String {
    info.created.unix_timestamp_nanos().to_string()
}

/// How long nothing needs to be heard before it is asked whether there is nothing.
const HOLD_BACK: Duration = Duration::from_secs(1);
/// Between the messages of a snapshot.
const SILENCE: Duration = Duration::from_secs(10);
/// Less than the life of a message that lifts something, with room for clocks that differ.
const LIFTS_ARE_KEPT: Duration = Duration::from_secs(12 * 60 * 60);
const MESSAGES_AT_ONCE: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_read_as_they_were_written() {
        for position in [
            Position { sequence: 0, time: None },
            Position { sequence: u64::MAX, time: Some(1_790_000_000_123_456_789) },
        ] {
            assert_eq!(Position::read(&position.write()), Some(position));
        }
        for nonsense in ["", "7", "x@", "7@x", "-1@"] {
            assert_eq!(Position::read(nonsense), None, "{nonsense}");
        }
    }
}
