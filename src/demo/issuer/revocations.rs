//! The development issuer's revocation feed, in memory: snapshot, deltas by cursor, long poll.
//!
//! The format is that of `docs/revocation-feed.md`. Knows nothing of HTTP, and nothing of the index that the
//! gateway keeps.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::keys::random_name;
use crate::clock::UnixSeconds;

/// The longest that a poll is held open, whatever it asks for.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// A development issuer that is asked for more has met a runaway client.
const MAX_ENTRIES: usize = 1_000_000;

/// Whom a revocation hits: one of `jti`, `sid`, `sub`, `client`, `kid`, or with `before` alone everybody.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revocation {
    /// The token with this id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
    /// All tokens of this session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sid: Option<String>,
    /// All tokens of this user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub: Option<String>,
    /// All tokens of this client; `/revoke` takes it by the claim's name too.
    #[serde(default, alias = "client_id", skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// All tokens signed with this key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kid: Option<String>,
    /// Only what was issued before this time, in Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<i64>,
    /// When the entry may be forgotten, in Unix seconds: when the last token that it hits has expired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exp: Option<i64>,
}

impl Revocation {
    /// Revokes the token with this id.
    pub fn token(jti: impl Into<String>) -> Self {
        Self { jti: Some(jti.into()), ..Self::default() }
    }

    /// Revokes the session with this id.
    pub fn session(sid: impl Into<String>) -> Self {
        Self { sid: Some(sid.into()), ..Self::default() }
    }

    fn check(&self) -> anyhow::Result<()> {
        let named = [&self.jti, &self.sid, &self.sub, &self.client, &self.kid];
        let count = named.into_iter().flatten().count();
        ensure!(count <= 1, "name one of jti, sid, sub, client and kid, not several");
        ensure!(
            count == 1 || self.before.is_some(),
            "say what to revoke: one of jti, sid, sub, client and kid, or before"
        );
        Ok(())
    }
}

/// All revocations in the order in which they were made.
pub(super) struct RevocationLog {
    log: Mutex<Log>,
    /// The sequence number of the newest entry; waiting polls watch it.
    newest: watch::Sender<u64>,
}

struct Log {
    epoch: String,
    entries: Vec<(u64, Revocation)>,
}

impl RevocationLog {
    pub(super) fn new() -> anyhow::Result<Self> {
        let log = Log { epoch: random_name()?, entries: Vec::new() };
        Ok(Self { log: Mutex::new(log), newest: watch::Sender::new(0) })
    }

    /// Adds an entry, kept until `default_exp` if it does not say itself, and wakes all waiting polls.
    pub(super) fn add(
        &self,
        mut entry: Revocation,
        now: UnixSeconds,
        default_exp: UnixSeconds,
    ) -> anyhow::Result<()> {
        entry.check()?;
        entry.exp.get_or_insert(default_exp.0);
        let mut log = self.lock();
        log.entries.retain(|(_, entry)| entry.exp.is_none_or(|exp| exp > now.0));
        if log.entries.len() >= MAX_ENTRIES {
            bail!("the development issuer holds {MAX_ENTRIES} revocations already");
        }
        let number = *self.newest.borrow() + 1;
        log.entries.push((number, entry));
        // Under the lock: numbers are given out in the order in which they are announced.
        self.newest.send_replace(number);
        Ok(())
    }

    /// Forgets everything and begins a new epoch, as a feed does that lost its storage.
    pub(super) fn reset(&self) -> anyhow::Result<()> {
        let epoch = random_name()?;
        let mut log = self.lock();
        *log = Log { epoch, entries: Vec::new() };
        self.newest.send_modify(|_| ());
        Ok(())
    }

    /// The feed's answer: what came after `cursor`, waiting up to `wait` for there to be something; or the
    /// snapshot, without a cursor or with one that this epoch did not give out.
    pub(super) async fn answer(&self, cursor: Option<&str>, wait: Duration) -> Value {
        let mut newest = self.newest.subscribe();
        if let Some(after) = self.position(cursor)
            && after == *newest.borrow_and_update()
        {
            // Whether something came or time is up, what there is now is the answer.
            let _ = tokio::time::timeout(wait.min(MAX_WAIT), newest.changed()).await;
        }
        let position = self.position(cursor);
        let log = self.lock();
        let after = position.unwrap_or(0);
        let entries: Vec<_> =
            log.entries.iter().filter(|(number, _)| *number > after).map(|(_, entry)| entry).collect();
        let mut document = json!({
            "version": 1,
            "epoch": log.epoch,
            "cursor": format!("{}.{}", log.epoch, *self.newest.borrow()),
            "kind": if position.is_some() { "delta" } else { "snapshot" },
            "entries": entries,
        });
        if position.is_some()
            && let Some(members) = document.as_object_mut()
        {
            members.insert("since".to_owned(), json!(cursor));
        }
        document
    }

    /// The sequence number in a cursor that this epoch gave out.
    fn position(&self, cursor: Option<&str>) -> Option<u64> {
        let (epoch, number) = cursor?.rsplit_once('.')?;
        let number = number.parse().ok()?;
        (epoch == self.lock().epoch && number <= *self.newest.borrow()).then_some(number)
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
