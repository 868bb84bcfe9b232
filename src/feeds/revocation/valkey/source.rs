//! Follows a list in Valkey: all that is in force once, then each change as it comes.
//!
//! The position is the id of the last change taken over. It is good for as long as that change is still in the stream:
//! streams lose their oldest changes first, so what came after it is there too; and a server that came back with less
//! than it had does not have it. Whenever it is gone, all is read anew.

use std::time::Duration;

use redis::{Value, cmd};

use super::super::super::valkey::{Link, ValkeyConnector};
use super::super::document::{Document, Entries, Kind, parse_dated};
use super::super::error::{Misfit, SyncError};
use super::super::replica::{Replica, Taken, blocking};
use super::{ENTRY, EPOCH, Keys, Pairs};
use crate::clock::Monotonic;
use crate::revocation::EngineError;

pub(in super::super) struct ValkeySource {
    connector: ValkeyConnector,
    keys: Keys,
    link: Option<Checked>,
}

/// A link, and when it was last found to lead to the primary and to the history that the position is of.
struct Checked {
    link: Link,
    at: Option<Monotonic>,
}

/// A change's id, and its members.
type Told = Vec<(Vec<u8>, Pairs)>;
/// A change's id, and the entry in it; a mark has none.
type Changes = Vec<(Vec<u8>, Option<Vec<u8>>)>;

impl ValkeySource {
    pub(in super::super) fn new(connector: ValkeyConnector, keys: Keys) -> Self {
        Self { connector, keys, link: None }
    }

    /// Waits for changes, for about a second, and has the replica take them over.
    pub(in super::super) async fn sync(&mut self, replica: &mut Replica) -> Result<Taken, SyncError> {
        // Taken, so that a link with a fault is not used again.
        let mut checked = match self.link.take() {
            Some(checked) => checked,
            None => Checked { link: self.connector.connect().await?, at: None },
        };
        let taken = self.hear(&mut checked, replica).await?;
        self.link = Some(checked);
        Ok(taken)
    }

    async fn hear(&self, checked: &mut Checked, replica: &mut Replica) -> Result<Taken, SyncError> {
        let link = &mut checked.link;
        let Some(cursor) = replica.cursor().map(str::to_owned) else {
            return self.snapshot(link, replica).await;
        };
        if checked.at.is_none() && !self.holds(link, &cursor).await? {
            return self.snapshot(link, replica).await;
        }
        let now = replica.clock.monotonic();
        checked.at.get_or_insert(now);
        let mut command = cmd("XREAD");
        if replica.state.is_loaded() {
            command.arg("COUNT").arg(CHANGES_AT_ONCE).arg("BLOCK").arg(HOLD_BACK_MILLIS);
        } else {
            // A copy from disk waits for what came since.
            command.arg("COUNT").arg(CHANGES_SINCE_A_RESTART);
        }
        command.arg("STREAMS").arg(&self.keys.changes).arg(&cursor);
        let changes = changes(link.query_held_back(&command, HOLD_BACK).await?)?;
        let as_of = replica.clock.monotonic();
        // Changes that were pushed out between two readings, or a list that was replaced by another.
        if !self.holds(link, &cursor).await? {
            return self.snapshot(link, replica).await;
        }
        if checked.at.is_none_or(|at| at.until(as_of) >= CHECK_EVERY) {
            self.connector.check(link).await?;
            checked.at = Some(as_of);
        }
        let Some((last, _)) = changes.last() else {
            replica.unchanged(as_of).await;
            return Ok(Taken::Unchanged);
        };
        let next = String::from_utf8(last.clone()).map_err(|_| unexpected("an id that is no text"))?;
        let mut entries = Entries::new(replica.stage());
        for (_, change) in &changes {
            if let Some(change) = change {
                entries.push(parse_dated(change)).map_err(Misfit::Full)?;
            }
        }
        let document = Document {
            kind: Kind::Delta,
            epoch: replica.epoch().unwrap_or_default().to_owned(),
            cursor: Some(next),
            since: Some(cursor.clone()),
            entries,
            digest: None,
            surely_empty: false,
        };
        replica.take(document, Some(&cursor), as_of).await
    }

    /// Whether the change at this position is still there. At [`BEGINNING`] there must be none.
    async fn holds(&self, link: &mut Link, cursor: &str) -> Result<bool, EngineError> {
        let command = |from: &str, to: &str| {
            cmd("XRANGE").arg(&self.keys.changes).arg(from).arg(to).arg("COUNT").arg(1).clone()
        };
        let is_beginning = cursor == BEGINNING;
        let command = if is_beginning { command("-", "+") } else { command(cursor, cursor) };
        let found: Vec<Value> = link.query(&command).await?;
        Ok(found.is_empty() == is_beginning)
    }

    /// Reads all that is in force. What changes meanwhile comes with the changes after the position, which is taken
    /// first, and applying a change twice does no harm.
    async fn snapshot(&self, link: &mut Link, replica: &mut Replica) -> Result<Taken, SyncError> {
        let as_of = replica.clock.monotonic();
        let newest = cmd("XREVRANGE").arg(&self.keys.changes).arg("+").arg("-").arg("COUNT").arg(1).clone();
        let newest: Vec<(String, Value)> = link.query(&newest).await?;
        let cursor = newest.into_iter().next().map(|(id, _)| id);
        let epoch = cmd("HGET").arg(&self.keys.entries).arg(EPOCH).clone();
        let named: Option<String> = link.query(&epoch).await?;
        if named.is_none() && cursor.is_some() {
            return Err(lost(&self.keys).into());
        }
        let mut entries = Entries::new(replica.stage());
        let mut page = b"0".to_vec();
        loop {
            let scan =
                cmd("HSCAN").arg(&self.keys.entries).arg(&page).arg("COUNT").arg(ENTRIES_AT_ONCE).clone();
            let (next, pairs): (Vec<u8>, Pairs) = link.query(&scan).await?;
            entries = blocking(move || take_in(entries, &pairs)).await.map_err(SyncError::Interrupted)??;
            if next == b"0" {
                break;
            }
            page = next;
        }
        // What was read is of one list only if nobody replaced it meanwhile.
        if named != link.query::<Option<String>>(&epoch).await? {
            let why = "the list was replaced while it was read; it is read again";
            return Err(EngineError::Unavailable(why.to_owned()).into());
        }
        let surely_empty = named.is_some();
        let epoch = named.or_else(|| replica.epoch().map(str::to_owned)).unwrap_or_else(|| "none".to_owned());
        let document = Document {
            kind: Kind::Snapshot,
            epoch,
            cursor: Some(cursor.unwrap_or_else(|| BEGINNING.to_owned())),
            since: None,
            entries,
            digest: None,
            surely_empty,
        };
        replica.take(document, None, as_of).await
    }
}

fn take_in(mut entries: Entries, pairs: &Pairs) -> Result<Entries, Misfit> {
    for (_, value) in pairs.iter().filter(|(field, _)| field != EPOCH.as_bytes()) {
        entries.push(parse_dated(value))?;
    }
    Ok(entries)
}

/// The changes in an answer to XREAD. No stream at all is what a time-out leaves.
fn changes(answer: Value) -> Result<Changes, EngineError> {
    let streams: Option<Vec<(Vec<u8>, Told)>> =
        redis::from_redis_value(answer).map_err(|_| unexpected("changes of another form"))?;
    let changes = streams.unwrap_or_default().into_iter().flat_map(|(_, changes)| changes);
    let change = |pairs: Pairs| match pairs.into_iter().find(|(name, _)| name != EPOCH.as_bytes()) {
        Some((name, value)) if name == ENTRY.as_bytes() => Some(value),
        Some(_) => Some(Vec::new()),
        None => None,
    };
    Ok(changes.map(|(id, pairs)| (id, change(pairs))).collect())
}

pub(super) fn lost(keys: &Keys) -> EngineError {
    EngineError::Unavailable(format!(
        "{} is gone while {} is there, so what is revoked is lost (was it evicted? set maxmemory-policy noeviction); \
         restore it, or delete {} to begin a new list",
        keys.entries, keys.changes, keys.changes
    ))
}

fn unexpected(what: &str) -> EngineError {
    EngineError::Unavailable(format!("the engine answers with {what}"))
}

/// Before the first change.
const BEGINNING: &str = "0-0";
/// How long the server holds an answer back when nothing changes: so old the knowledge is at most while all is well.
const HOLD_BACK: Duration = Duration::from_millis(HOLD_BACK_MILLIS);
const HOLD_BACK_MILLIS: u64 = 1000;
/// How often the servers are asked who the primary is.
const CHECK_EVERY: Duration = Duration::from_secs(2);
const CHANGES_AT_ONCE: usize = 1000;
const CHANGES_SINCE_A_RESTART: usize = 100_000;
const ENTRIES_AT_ONCE: usize = 1000;
