//! The audit log as the process has it. Of keys and revocations it tells what a look at them now and then shows to have
//! changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio::task::JoinSet;

use super::log_output;
use crate::admin::in_force::{Generation, InForce};
use crate::clock::Clock;
use crate::config::settings;
use crate::keys::{Thumbprint, VerificationKey};
use crate::telemetry::access_log::{self, AccessLog};
use crate::telemetry::audit_log::{AuditLog, CoreAudit, Event, Journal};
use crate::telemetry::metrics::{Metrics, Registration};

/// The log, if there is one.
#[derive(Debug)]
pub struct Audit {
    log: Option<AuditLog>,
    journal: Journal,
}

/// How often it looks. What comes and goes in between is not seen, nor did it decide much.
const LOOK: Duration = Duration::from_millis(250);

/// What was there when it last looked.
#[derive(Debug, Default)]
struct Seen {
    /// Ids and thumbprints, of each issuer.
    keys: BTreeMap<String, BTreeSet<(String, Thumbprint)>>,
    /// The generation of each feed's index, and its entries.
    feeds: BTreeMap<String, (u64, u64)>,
}

impl Audit {
    /// Opens its output.
    pub fn start(settings: Option<&settings::AuditLog>, clock: &Clock) -> Result<Self> {
        let Some(settings) = settings else { return Ok(Self { log: None, journal: Journal::off() }) };
        let lines = AccessLog::start(&access_log::Settings {
            name: "audit log",
            output: log_output(&settings.output),
            ..access_log::Settings::default()
        })?;
        let log = AuditLog::new(lines, settings.lines_per_second);
        let journal = log.journal(clock.clone());
        Ok(Self { log: Some(log), journal })
    }

    /// Where the control runtime notes what happens.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// The part of one of so many cores.
    pub fn per_core(&self, cores: usize) -> Option<CoreAudit> {
        Some(self.log.as_ref()?.per_core(cores))
    }

    /// Notes that the gateway began to serve, and from now on what becomes of keys and revocations.
    pub fn follow(&self, in_force: &InForce, clock: &Clock, tasks: &mut JoinSet<()>) {
        if self.log.is_none() {
            return;
        }
        self.journal.note(Event::Started { version: env!("CARGO_PKG_VERSION") });
        tasks.spawn(follow(in_force.clone(), self.journal.clone(), clock.clone()));
    }

    /// Has metrics tell which lines are missing, for as long as what is returned lasts.
    pub fn register(&self, metrics: &Metrics) -> Vec<Registration> {
        let Some(log) = &self.log else { return Vec::new() };
        let (dropped, left_out) = (log.lines().dropped_lines(), log.left_out());
        let dropped = metrics.register_counter(
            "audit_log_dropped_lines",
            "Lines of the audit log that were dropped because the writer could not keep up.",
            &[],
            move || dropped.count(),
        );
        let left_out = metrics.register_counter(
            "audit_log_left_out_lines",
            "Lines of the audit log that were left out because there were too many of a kind.",
            &[],
            move || left_out.count(),
        );
        vec![dropped, left_out]
    }

    /// Begins a new file, after the old one was moved away.
    pub fn reopen(&self) {
        if let Some(log) = &self.log {
            log.lines().reopen();
        }
    }

    /// Notes that the gateway stopped, and gives the lines to be written to their end.
    pub fn finish(self) -> Option<AccessLog> {
        self.journal.note(Event::Stopped);
        self.journal.finish();
        self.log.map(AuditLog::into_lines)
    }
}

/// Never ends.
async fn follow(in_force: InForce, journal: Journal, clock: Clock) {
    let mut seen = Seen::default();
    loop {
        seen.look(&in_force.current(), &journal, &clock);
        journal.keep_house();
        tokio::time::sleep(LOOK).await;
    }
}

impl Seen {
    fn look(&mut self, generation: &Arc<Generation>, journal: &Journal, clock: &Clock) {
        for issuer in &generation.issuers {
            let state = issuer.keys.current();
            let Some(keys) = state.keys(clock.monotonic()) else { continue };
            // Another key under the same id is another key.
            let named =
                |key: &Arc<VerificationKey>| (key.kid().unwrap_or("(no kid)").to_owned(), key.thumbprint());
            let now: BTreeSet<_> = keys.iter().map(named).collect();
            let before = self.keys.get(&*issuer.name);
            // An issuer that signs nothing has no keys from the start, which is no change.
            if before != Some(&now) && !(before.is_none() && now.is_empty()) {
                let before = before.cloned().unwrap_or_default();
                let added: Vec<String> = now.difference(&before).map(|(kid, _)| kid.clone()).collect();
                let removed: Vec<String> = before.difference(&now).map(|(kid, _)| kid.clone()).collect();
                journal.note(Event::KeysChanged { issuer: &issuer.name, added: &added, removed: &removed });
                self.keys.insert(issuer.name.to_string(), now);
            }
        }
        for feed in &generation.feeds {
            let now = (feed.index().generation(), feed.index().len() as u64);
            let before = self.feeds.insert(feed.name().to_owned(), now).unwrap_or_default();
            if before != now {
                let (entries, before) = (now.1, before.1);
                journal.note(Event::RevocationsChanged { feed: feed.name(), entries, before });
            }
        }
        self.keys.retain(|name, _| generation.issuers.iter().any(|issuer| *issuer.name == **name));
        self.feeds.retain(|name, _| generation.feeds.iter().any(|feed| feed.name() == name));
    }
}
