//! The feeds that are told of revocations, started: by providers, and by whoever writes through the gateway.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use anyhow::{Context as _, Result};
use tokio::task::JoinSet;

use super::engines;
use super::feeds::{self, FeedTask};
use super::sources::{Ground, Purpose, fetch_settings};
use crate::clock::Clock;
use crate::config::Config;
use crate::config::settings::{self, Arrival, EventFeed, FeedIndex, SetPoll};
use crate::events::{EventRules, Inbox};
use crate::feeds::events::{EventReceiver, EventStats, PollClient, PollSettings, StatementKind, Statements};
use crate::feeds::revocation::{
    Currency, DEFAULT_MAX_ENTRIES, FeedWriter, RevocationFeed, Told, ToldFeedSettings,
};
use crate::keys::KeySource;
use crate::revocation::RevocationEngine;
use crate::telemetry::metrics::{Metrics, Registration};
use crate::token::StatementRules;

/// Starts the task of a feed that reads an engine, through which it can also be written.
pub fn write_behind(
    feed: &RevocationFeed,
    engine: Arc<dyn RevocationEngine>,
    tasks: &mut JoinSet<()>,
) -> Inbox {
    let (inbox, mail) = Inbox::new();
    let (state, receiver) =
        (feed.state(), EventReceiver::new(mail, FeedWriter::for_engine(feed, engine), None));
    tasks.spawn(async move {
        // What is written meanwhile would be lost in the copy that takes its place.
        state.until_restored().await;
        receiver.run().await;
    });
    inbox
}

/// Starts the task of a feed that a provider tells. What the feed of this name was told before, it knows.
pub fn start(
    config: &Config,
    place: FeedIndex,
    feed: &settings::Feed,
    source: &EventFeed,
    ground: &Ground,
    keys: &[Arc<KeySource>],
    before: Option<&Told>,
) -> Result<FeedTask> {
    let issuer = config.issuers.get(source.signed_by.0).context("its issuer does not exist")?;
    let keys = keys.get(source.signed_by.0).cloned().context("its issuer has no keys")?;
    let settings = ToldFeedSettings {
        name: feed.name.clone(),
        origin: format!("{} by {}", kind_name(&source.arrival), issuer.issuer),
        issuers: feeds::bound(config, place).0,
        // What is known is not to depend on what may be configured differently tomorrow.
        leeway: settings::Issuer::MOST_LEEWAY,
        max_entries: DEFAULT_MAX_ENTRIES,
        state_dir: ground.state_dir.clone(),
    };
    let told = told(settings, ground, before);
    let currency = match source.arrival {
        Arrival::SetPush { heartbeat: true, .. } => Currency::WhenTold,
        Arrival::SetPoll(_) => Currency::WhenAsked,
        Arrival::SetPush { .. } | Arrival::BackchannelLogout { .. } => Currency::Always,
    };
    let engine = match source.write_to.and_then(|place| config.feeds.get(place.0)) {
        Some(shared) => engines::writable(shared, &ground.clock)?,
        None => None,
    };
    let statements = statements(feed, source, issuer, keys, &ground.clock);
    let event_stats = Some(statements.stats());
    let (inbox, mail) = Inbox::new();
    let mut task = JoinSet::new();
    let (restored, clock) = (told.clone(), ground.clock.clone());
    task.spawn(async move {
        let writer = FeedWriter::told(restored, currency, engine, clock).await;
        EventReceiver::new(mail, writer, Some(statements)).run().await;
    });
    // What is polled is acknowledged, and then is nobody else's.
    if let (Arrival::SetPoll(poll), Purpose::Serve) = (&source.arrival, ground.purpose) {
        let client = PollClient::new(poll_settings(poll), inbox.clone(), told.clone(), ground.clock.clone())?;
        let state = Arc::clone(told.state());
        task.spawn(async move {
            state.until_restored().await;
            client.run().await;
        });
    }
    Ok(FeedTask {
        identity: FeedTask::identity(config, place.0),
        state: Arc::clone(told.state()),
        inbox: Some(inbox),
        engine: None,
        stats: Arc::clone(told.stats()),
        told: Some(told),
        event_stats,
        registrations: OnceLock::new(),
        _task: task,
    })
}

/// What the feed knew under the configuration before, or else before the restart.
fn told(settings: ToldFeedSettings, ground: &Ground, before: Option<&Told>) -> Told {
    match before {
        Some(before) if before.origin() == settings.origin => {
            before.state().index().also_speak_for(&settings.issuers);
            before.clone()
        }
        other => {
            if let Some(other) = other {
                let (feed, was) = (&settings.name, other.origin());
                tracing::warn!(
                    feed,
                    was,
                    "the feed {feed} is told by another now: what it was told before is no longer in force; keep the \
                     old feed beside it, under its name, until its tokens have expired"
                );
            }
            Told::new(settings, ground.hasher.clone(), ground.clock.clone())
        }
    }
}

fn kind_name(arrival: &Arrival) -> &'static str {
    match arrival {
        Arrival::SetPush { .. } => "set_push",
        Arrival::SetPoll(_) => "set_poll",
        Arrival::BackchannelLogout { .. } => "backchannel_logout",
    }
}

fn statements(
    feed: &settings::Feed,
    source: &EventFeed,
    issuer: &settings::Issuer,
    keys: Arc<KeySource>,
    clock: &Clock,
) -> Statements {
    let (kind, types, allow_untyped, authorization) = match &source.arrival {
        Arrival::SetPush { authorization, .. } => {
            (StatementKind::SecurityEvent, SECURITY_EVENT, false, Some(authorization.clone()))
        }
        Arrival::SetPoll(_) => (StatementKind::SecurityEvent, SECURITY_EVENT, false, None),
        Arrival::BackchannelLogout { allow_untyped } => {
            (StatementKind::LogoutToken, LOGOUT_TOKEN, *allow_untyped, None)
        }
    };
    let signature = StatementRules { types, allow_untyped, algorithms: issuer.algorithms.clone() };
    let rules = EventRules {
        issuer: issuer.issuer.clone(),
        audiences: source.audiences.clone(),
        leeway: issuer.leeway,
        keep: source.token_lifetime,
        subjects: source.subjects,
    };
    Statements::new(feed.name.clone(), kind, signature, (keys, rules), authorization, clock.clone())
}

fn poll_settings(poll: &SetPoll) -> PollSettings {
    PollSettings {
        url: poll.url.clone(),
        authorization: poll.authorization.clone(),
        long_poll: poll.long_poll,
        interval: poll.interval,
        fetch: fetch_settings(&poll.transport),
    }
}

type Read = fn(&EventStats) -> &AtomicU64;

/// The series of a feed of events, beside those of every feed.
pub fn register(feed: &str, stats: &Arc<EventStats>, metrics: &Metrics) -> Vec<Registration> {
    let counters: [(&str, &str, Read); 5] = [
        ("feed_events_accepted", "Security events and logout tokens accepted.", |stats| &stats.accepted),
        ("feed_events_refused", "Security events and logout tokens refused.", |stats| &stats.refused),
        (
            "feed_events_repeated",
            "Security events and logout tokens that had been accepted before.",
            |stats| &stats.repeated,
        ),
        ("feed_events_unmapped", "Security events whose subject is no claim of tokens.", |stats| {
            &stats.unmapped
        }),
        ("feed_events_ignored", "Security events of types that revoke nothing.", |stats| &stats.ignored),
    ];
    counters
        .into_iter()
        .map(|(name, help, read)| {
            let stats = Arc::clone(stats);
            let read = move || read(&stats).load(Ordering::Relaxed);
            metrics.register_counter(name, help, &[("feed", feed)], read)
        })
        .collect()
}

const SECURITY_EVENT: &[&str] = &["secevent+jwt"];
const LOGOUT_TOKEN: &[&str] = &["logout+jwt"];
