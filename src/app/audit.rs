//! What the audit log tells of keys and revocations: a look at them now and then, and a line for what changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::admin::in_force::{Generation, InForce};
use crate::clock::Clock;
use crate::telemetry::audit_log::{Event, Journal};

/// How often it looks. What comes and goes in between is not seen, nor did it decide much.
const LOOK: Duration = Duration::from_millis(250);

/// What was there when it last looked.
#[derive(Debug, Default)]
struct Seen {
    keys: BTreeMap<String, BTreeSet<String>>,
    /// The generation of each feed's index, and its entries.
    feeds: BTreeMap<String, (u64, u64)>,
}

/// Never ends.
pub async fn follow(in_force: InForce, journal: Journal, clock: Clock) {
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
            let name = |key: &Arc<crate::keys::VerificationKey>| key.kid().unwrap_or("(no kid)").to_owned();
            let now: BTreeSet<String> = keys.iter().map(name).collect();
            let before = self.keys.get(&*issuer.name);
            if before != Some(&now) {
                let before = before.cloned().unwrap_or_default();
                let added: Vec<String> = now.difference(&before).cloned().collect();
                let removed: Vec<String> = before.difference(&now).cloned().collect();
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
