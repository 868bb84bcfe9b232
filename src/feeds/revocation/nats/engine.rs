//! Writes to and reads from a bucket of NATS, for people.
//!
//! A key is written only over the message that was read, so nobody's word is lost. Several keys are written one after
//! the other.

use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::pull::OrderedConfig;
use async_nats::jetstream::consumer::{Consumer, DeliverPolicy};
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{Info, LastRawMessageErrorKind, Stream};
use futures_util::Stream as _;
use tokio::sync::Mutex;

use super::super::super::nats::NatsConnector;
use super::super::document::{
    check_usable, lift_line, on_top, parse_change, parse_revocation, revocation_line,
};
use super::key;
use crate::clock::{Clock, UnixSeconds};
use crate::config::settings::Nats;
use crate::revocation::{Change, EngineError, EngineFuture, Fact, Page, Revocation, RevocationEngine};

/// A bucket of NATS `JetStream` that can be written to.
#[derive(Debug)]
pub struct NatsEngine {
    connector: NatsConnector,
    clock: Clock,
    context: Mutex<Option<Context>>,
}

/// What a key holds.
struct Held {
    payload: Vec<u8>,
    /// Of its message; 0 if there is none.
    sequence: u64,
}

impl NatsEngine {
    /// The list in this bucket. Connects when it is first used, and makes the bucket when it is first written.
    pub fn new(settings: Nats, bucket: String, clock: Clock) -> Self {
        Self { connector: NatsConnector::new(settings, bucket), clock, context: Mutex::new(None) }
    }

    /// The bucket by the connection at hand, or by a new one: the old one may lead to a server that is gone.
    async fn bucket(&self) -> Result<(Context, Option<Stream<Info>>), EngineError> {
        let mut held = self.context.lock().await;
        if let Some(context) = held.take()
            && let Ok(stream) = self.connector.stream(&context).await
        {
            *held = Some(context.clone());
            return Ok((context, stream));
        }
        let context = self.connector.connect().await?;
        let stream = self.connector.stream(&context).await?;
        *held = Some(context.clone());
        Ok((context, stream))
    }

    async fn bucket_to_write(&self) -> Result<(Context, Stream<Info>), EngineError> {
        match self.bucket().await? {
            (context, Some(stream)) => Ok((context, stream)),
            (context, None) => {
                let stream = self.connector.create(&context).await?;
                Ok((context, stream))
            }
        }
    }

    async fn held(&self, stream: &Stream<Info>, key: &str) -> Result<Held, EngineError> {
        match stream.get_last_raw_message_by_subject(&self.connector.subject(key)).await {
            Ok(message) => Ok(Held { payload: message.payload.to_vec(), sequence: message.sequence }),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => {
                Ok(Held { payload: Vec::new(), sequence: 0 })
            }
            Err(error) => Err(self.connector.failed(error)),
        }
    }

    /// Writes the line unless the key holds something else by now.
    async fn write(
        &self,
        context: &Context,
        key: &str,
        held: &Held,
        line: String,
        lives: Option<Duration>,
    ) -> Result<bool, EngineError> {
        let mut message =
            PublishMessage::build().payload(line.into()).expected_last_subject_sequence(held.sequence);
        if let Some(lives) = lives {
            message = message.ttl(lives);
        }
        let published = context.send_publish(self.connector.subject(key), message).await;
        let acknowledged = match published {
            Ok(acknowledgement) => acknowledgement.await,
            Err(error) => Err(error),
        };
        match acknowledged {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => Ok(false),
            Err(error) => Err(self.connector.failed(format!(
                "{error}; the bucket must allow a time to live for each message: `nats kv add ... --marker-ttl 24h`"
            ))),
        }
    }

    async fn revoke_one(
        &self,
        context: &Context,
        stream: &Stream<Info>,
        revocation: &Revocation,
    ) -> Result<(), EngineError> {
        let key = key(&revocation.entry.fact(), revocation.entry.before.is_some());
        for _ in 0..ATTEMPTS {
            let held = self.held(stream, &key).await?;
            let Some(revocation) = on_top(&held.payload, revocation) else { return Ok(()) };
            let life = revocation.entry.expires.map(|expires| self.life(expires));
            if self.write(context, &key, &held, revocation_line(&revocation), life).await? {
                return Ok(());
            }
        }
        Err(contended())
    }

    async fn lift_one(
        &self,
        context: &Context,
        stream: &Stream<Info>,
        fact: &Fact,
        key: &str,
    ) -> Result<bool, EngineError> {
        for _ in 0..ATTEMPTS {
            let held = self.held(stream, key).await?;
            let lifted = parse_revocation(&held.payload).is_ok();
            if self.write(context, key, &held, lift_line(fact), Some(LIFT_LIFE)).await? {
                return Ok(lifted);
            }
        }
        Err(contended())
    }

    /// Somewhat longer than it must: gateways allow for clocks that differ.
    fn life(&self, expires: UnixSeconds) -> Duration {
        let left = expires.0.saturating_sub(self.clock.wall().0).saturating_add(GRACE);
        Duration::from_secs(u64::try_from(left).unwrap_or(0).clamp(1, LONGEST_LIFE))
    }

    /// A way to read what comes after this place.
    async fn consumer(
        &self,
        stream: &Stream<Info>,
        after: u64,
    ) -> Result<Consumer<OrderedConfig>, EngineError> {
        let deliver_policy = DeliverPolicy::ByStartSequence { start_sequence: after.saturating_add(1) };
        let config = OrderedConfig { deliver_policy, ..OrderedConfig::default() };
        stream.create_consumer(config).await.map_err(|error| self.connector.failed(error))
    }

    async fn page(&self, after: u64) -> Result<Page, EngineError> {
        let (_, Some(stream)) = self.bucket().await? else { return Ok(Page::default()) };
        let consumer = self.consumer(&stream, after).await?;
        let mut left = consumer.cached_info().num_pending;
        let mut messages = consumer.messages().await.map_err(|error| self.connector.failed(error))?;
        let mut page = Page::default();
        let (mut seen, mut last, mut silences) = (0, after, 0);
        while left > 0 {
            let next = std::future::poll_fn(|context| std::pin::Pin::new(&mut messages).poll_next(context));
            let message = match tokio::time::timeout(SILENCE, next).await {
                Ok(Some(Ok(message))) => message,
                Ok(Some(Err(error))) => return Err(self.connector.failed(error)),
                Err(_) if silences < SILENCES => {
                    // What was counted may have come to its end before it was sent: the server has removed it.
                    left = self.consumer(&stream, last).await?.cached_info().num_pending;
                    silences += 1;
                    continue;
                }
                Ok(None) | Err(_) => return Err(self.connector.failed("the messages do not arrive")),
            };
            let info = message.info().map_err(|error| self.connector.failed(error))?;
            (left, last, silences) = (info.pending, info.stream_sequence, 0);
            match parse_revocation(&message.payload) {
                Ok(revocation) => page.revocations.push(revocation),
                Err(_) if is_lift(&message.payload) => {}
                Err(_) => page.broken += 1,
            }
            seen += 1;
            if seen == PAGE && left > 0 {
                page.next = Some(info.stream_sequence.to_string());
                break;
            }
        }
        Ok(page)
    }
}

impl RevocationEngine for NatsEngine {
    fn revoke<'a>(&'a self, revocations: &'a [Revocation]) -> EngineFuture<'a, ()> {
        Box::pin(async move {
            check_usable(revocations)?;
            let (context, stream) = self.bucket_to_write().await?;
            for revocation in revocations {
                self.revoke_one(&context, &stream, revocation).await?;
            }
            Ok(())
        })
    }

    fn lift<'a>(&'a self, facts: &'a [Fact]) -> EngineFuture<'a, usize> {
        Box::pin(async move {
            let (context, stream) = self.bucket_to_write().await?;
            let mut lifted = 0;
            for fact in facts {
                for is_cutoff in [false, true] {
                    let key = key(fact, is_cutoff);
                    lifted += usize::from(self.lift_one(&context, &stream, fact, &key).await?);
                }
            }
            Ok(lifted)
        })
    }

    fn look_up<'a>(&'a self, fact: &'a Fact) -> EngineFuture<'a, Vec<Revocation>> {
        Box::pin(async move {
            let (_, Some(stream)) = self.bucket().await? else { return Ok(Vec::new()) };
            let mut found = Vec::new();
            for is_cutoff in [false, true] {
                let held = self.held(&stream, &key(fact, is_cutoff)).await?;
                found.extend(parse_revocation(&held.payload).ok());
            }
            Ok(found)
        })
    }

    fn list<'a>(&'a self, after: Option<&'a str>) -> EngineFuture<'a, Page> {
        Box::pin(async move {
            let after = after.unwrap_or("0").parse();
            let after =
                after.map_err(|_| EngineError::Unusable("that is not where a page ends".to_owned()))?;
            self.page(after).await
        })
    }
}

/// A message that lifts, or that a removed key left behind.
fn is_lift(payload: &[u8]) -> bool {
    payload.is_empty() || matches!(parse_change(payload), Ok(Change::Lift { .. }))
}

fn contended() -> EngineError {
    EngineError::Unavailable("others change the same entries all the time; try again".to_owned())
}

const ATTEMPTS: usize = 20;
const PAGE: usize = 500;
const SILENCE: Duration = Duration::from_secs(1);
/// For how many of them in a row a message is waited for that is there.
const SILENCES: u32 = 10;
const GRACE: i64 = 15 * 60;
/// A hundred years: what is beyond is a slip.
const LONGEST_LIFE: u64 = 100 * 365 * 24 * 60 * 60;
/// How long a gateway may be away and still hear that something was lifted.
const LIFT_LIFE: Duration = Duration::from_secs(24 * 60 * 60);
