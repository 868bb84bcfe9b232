//! Writes to and reads from a list in Valkey, for people.
//!
//! What an entry becomes is decided here, and the script sees to it that nobody else decided otherwise meanwhile.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use redis::{Cmd, FromRedisValue, cmd};
use tokio::sync::Mutex;

use super::super::super::valkey::{Link, ValkeyConnector};
use super::super::document::{check_usable, lift_line, on_top, parse_revocation, revocation_line};
use super::source::lost;
use super::{EPOCH, Keys, Pairs, field, field_of};
use crate::clock::UnixSeconds;
use crate::config::settings::Valkey;
use crate::revocation::{EngineError, EngineFuture, Fact, Page, Revocation, RevocationEngine};

/// A list in Valkey or Redis that can be written to.
#[derive(Debug)]
pub struct ValkeyEngine {
    connector: ValkeyConnector,
    keys: Keys,
    link: Mutex<Option<Link>>,
}

/// What becomes of one field, and what is told of it.
struct Write<'a> {
    field: &'a str,
    held: Vec<u8>,
    value: String,
    expires: Option<UnixSeconds>,
    change: String,
}

impl ValkeyEngine {
    /// The list under this prefix. Connects when it is first used.
    pub fn new(settings: Valkey, prefix: &str) -> Self {
        let keys = Keys::new(prefix);
        Self { connector: ValkeyConnector::new(settings, &keys.entries), keys, link: Mutex::new(None) }
    }

    /// Asks by the link at hand, and once more by a new one: the old one may lead to a primary that is none. What is
    /// asked must do no harm when it is done twice.
    async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, EngineError> {
        let mut held = self.link.lock().await;
        if let Some(mut link) = held.take()
            && let Ok(answer) = link.query(command).await
        {
            *held = Some(link);
            return Ok(answer);
        }
        let mut link = self.connector.connect().await?;
        let answer = link.query(command).await?;
        *held = Some(link);
        Ok(answer)
    }

    async fn revoke_some(&self, revocations: &[Revocation]) -> Result<(), EngineError> {
        let fields: Vec<String> = revocations.iter().map(|one| field_of(&one.entry)).collect();
        for _ in 0..ATTEMPTS {
            let held = self.held(&fields).await?;
            let mut writes: Vec<Write<'_>> = Vec::new();
            for ((field, held), revocation) in fields.iter().zip(held).zip(revocations) {
                let earlier = writes.iter_mut().find(|write| write.field == field);
                let known = earlier.as_ref().map_or(held.as_slice(), |write| write.value.as_bytes());
                let Some(revocation) = on_top(known, revocation) else { continue };
                let value = revocation_line(&revocation);
                let (expires, change) = (revocation.entry.expires, value.clone());
                match earlier {
                    Some(write) => (write.value, write.expires, write.change) = (value, expires, change),
                    None => writes.push(Write { field, held, value, expires, change }),
                }
            }
            if self.write(&writes).await? {
                return Ok(());
            }
        }
        Err(contended())
    }

    async fn lift_some(&self, facts: &[Fact]) -> Result<usize, EngineError> {
        let both = |fact| [field(fact, false), field(fact, true)];
        let fields: Vec<String> = facts.iter().flat_map(both).collect();
        // Told once for each fact, whether it is there or not: a gateway may know more than the list.
        let changes: Vec<String> = facts.iter().flat_map(|fact| [lift_line(fact), String::new()]).collect();
        for _ in 0..ATTEMPTS {
            let held = self.held(&fields).await?;
            let lifted = held.iter().filter(|held| !held.is_empty()).count();
            let writes: Vec<Write<'_>> = fields
                .iter()
                .zip(held)
                .zip(&changes)
                .map(|((field, held), change)| Write {
                    field,
                    held,
                    value: String::new(),
                    expires: None,
                    change: change.clone(),
                })
                .collect();
            if self.write(&writes).await? {
                return Ok(lifted);
            }
        }
        Err(contended())
    }

    /// Writes all of it, unless something is no longer as it was read.
    async fn write(&self, writes: &[Write<'_>]) -> Result<bool, EngineError> {
        if writes.is_empty() {
            return Ok(true);
        }
        match self.ask::<i64>(&self.script(writes)).await? {
            1 => Ok(true),
            -1 => Err(lost(&self.keys)),
            _ => Ok(false),
        }
    }

    fn script(&self, writes: &[Write<'_>]) -> Cmd {
        let Keys { entries, expiry, changes } = &self.keys;
        let mut command = cmd("EVAL");
        command.arg(SCRIPT).arg(3).arg(entries).arg(expiry).arg(changes).arg(CHANGES_KEPT).arg(new_epoch());
        for Write { field, held, value, expires, change } in writes {
            let expires = expires.map(|expires| expires.0.to_string()).unwrap_or_default();
            command.arg(field).arg(held).arg(value).arg(expires).arg(change);
        }
        command
    }

    async fn held(&self, fields: &[String]) -> Result<Vec<Vec<u8>>, EngineError> {
        let held: Vec<Option<Vec<u8>>> = self.ask(cmd("HMGET").arg(&self.keys.entries).arg(fields)).await?;
        Ok(held.into_iter().map(Option::unwrap_or_default).collect())
    }
}

impl RevocationEngine for ValkeyEngine {
    fn revoke<'a>(&'a self, revocations: &'a [Revocation]) -> EngineFuture<'a, ()> {
        Box::pin(async move {
            check_usable(revocations)?;
            for some in revocations.chunks(WRITES_AT_ONCE) {
                self.revoke_some(some).await?;
            }
            Ok(())
        })
    }

    fn lift<'a>(&'a self, facts: &'a [Fact]) -> EngineFuture<'a, usize> {
        Box::pin(async move {
            let mut lifted = 0;
            for some in facts.chunks(WRITES_AT_ONCE) {
                lifted += self.lift_some(some).await?;
            }
            Ok(lifted)
        })
    }

    fn look_up<'a>(&'a self, fact: &'a Fact) -> EngineFuture<'a, Vec<Revocation>> {
        Box::pin(async move {
            let fields = [field(fact, false), field(fact, true)];
            let held = self.held(&fields).await?;
            Ok(held.iter().filter_map(|held| parse_revocation(held).ok()).collect())
        })
    }

    fn list<'a>(&'a self, after: Option<&'a str>) -> EngineFuture<'a, Page> {
        Box::pin(async move {
            let after = after.unwrap_or("0");
            if after.parse::<u64>().is_err() {
                return Err(EngineError::Unusable("that is not where a page ends".to_owned()));
            }
            let scan = cmd("HSCAN").arg(&self.keys.entries).arg(after).arg("COUNT").arg(PAGE).clone();
            let (next, pairs): (String, Pairs) = self.ask(&scan).await?;
            let mut page = Page { next: Some(next).filter(|next| next != "0"), ..Page::default() };
            for (_, value) in pairs.iter().filter(|(field, _)| field != EPOCH.as_bytes()) {
                match parse_revocation(value) {
                    Ok(revocation) => page.revocations.push(revocation),
                    Err(_) => page.broken += 1,
                }
            }
            Ok(page)
        })
    }
}

fn contended() -> EngineError {
    EngineError::Unavailable("others change the same entries all the time; try again".to_owned())
}

/// A name that no other list has.
fn new_epoch() -> String {
    let mut bytes = [0; 16];
    // Without randomness two lists might share a name, which costs one resync too few after a flush, at worst.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

const SCRIPT: &str = include_str!("write.lua");
/// How many changes a gateway can have missed and still catch up without reading all anew.
const CHANGES_KEPT: usize = 100_000;
const WRITES_AT_ONCE: usize = 500;
const ATTEMPTS: usize = 10;
const PAGE: usize = 500;
