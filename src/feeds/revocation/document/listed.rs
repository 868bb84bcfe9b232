//! A snapshot as a list of its entries, for people and for who writes it anew: entry by entry, with its notes. What is
//! broken is kept as it is and counted.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::line::{parse_change, parse_revocation, revocation_line};
use crate::clock::UnixSeconds;
use crate::revocation::{Change, Fact, Page, Revocation};

/// A whole snapshot in memory.
#[derive(Debug, Deserialize, Serialize)]
pub struct Listed {
    version: u64,
    kind: String,
    /// Which history it belongs to.
    pub epoch: String,
    entries: Vec<Box<RawValue>>,
}

impl Listed {
    /// An empty snapshot that begins a history.
    pub fn new(epoch: String) -> Self {
        Self { version: 1, kind: "snapshot".to_owned(), epoch, entries: Vec::new() }
    }

    /// Reads a snapshot.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        let listed: Self = serde_json::from_slice(bytes)
            .map_err(|error| format!("it is not a revocation document (docs/revocation-feed.md): {error}"))?;
        if listed.version != 1 || listed.kind != "snapshot" {
            return Err("it is not a snapshot of version 1 (docs/revocation-feed.md)".to_owned());
        }
        Ok(listed)
    }

    /// The document.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).unwrap_or_default()
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds revocations. Of one fact there is at most one by cut-off and one without, which says what all said.
    pub fn revoke(&mut self, revocations: &[Revocation]) {
        for revocation in revocations {
            let is_like = |other: &Revocation| {
                other.entry.fact() == revocation.entry.fact()
                    && other.entry.before.is_some() == revocation.entry.before.is_some()
            };
            let like =
                self.entries.iter_mut().find_map(|entry| Some((parsed(entry).filter(is_like)?, entry)));
            let merged = like.as_ref().map(|(other, _)| revocation.entry.clone().merged(&other.entry));
            let merged = Revocation {
                entry: merged.unwrap_or_else(|| revocation.entry.clone()),
                ..revocation.clone()
            };
            let Ok(text) = RawValue::from_string(revocation_line(&merged)) else { continue };
            match like {
                Some((other, _)) if other.entry == merged.entry => {}
                Some((_, entry)) => *entry = text,
                None => self.entries.push(text),
            }
        }
    }

    /// Removes every revocation of these facts, and counts them.
    pub fn lift(&mut self, facts: &[Fact]) -> usize {
        let before = self.entries.len();
        self.entries.retain(|entry| parsed(entry).is_none_or(|entry| !facts.contains(&entry.entry.fact())));
        before - self.entries.len()
    }

    /// Removes what ended before `then`.
    pub fn forget(&mut self, then: UnixSeconds) {
        let over = |entry: &Revocation| entry.entry.expires.is_some_and(|expires| expires < then);
        self.entries.retain(|entry| parsed(entry).is_none_or(|entry| !over(&entry)));
    }

    /// The revocations of exactly this fact.
    pub fn look_up(&self, fact: &Fact) -> Vec<Revocation> {
        self.entries
            .iter()
            .filter_map(|entry| parsed(entry))
            .filter(|entry| entry.entry.fact() == *fact)
            .collect()
    }

    /// One page, from the number that `after` says.
    ///
    /// # Errors
    /// `after` is none that a page named as the next.
    pub fn page(&self, after: Option<&str>) -> Result<Page, String> {
        let start = after.map_or(Ok(0), str::parse).map_err(|_| "there is no such page".to_owned())?;
        let mut page = Page::default();
        for entry in self.entries.iter().skip(start).take(PAGE) {
            match (parsed(entry), parse_change(entry.get().as_bytes())) {
                (Some(revocation), _) => page.revocations.push(revocation),
                // In a snapshot a lift takes back what stands before it; it is nothing to show.
                (None, Ok(Change::Lift { .. })) => {}
                (None, _) => page.broken += 1,
            }
        }
        page.next = (start + PAGE < self.entries.len()).then(|| (start + PAGE).to_string());
        Ok(page)
    }
}

fn parsed(entry: &RawValue) -> Option<Revocation> {
    parse_revocation(entry.get().as_bytes()).ok()
}

const PAGE: usize = 1000;
