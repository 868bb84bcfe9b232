//! One change as the server keeps it: its number, what it is about, and its text, which is what gateways get.

use crate::clock::UnixSeconds;
use crate::feeds::revocation::{lift_line, parse_change, parse_revocation, revocation_line};
use crate::revocation::{Change, Fact};

/// A change with its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// What it is about.
    pub(super) fact: Fact,
    /// The change itself, for comparison.
    pub(super) change: Change,
    /// One JSON object.
    pub(super) text: String,
}

impl Line {
    /// Reads an entry as somebody wrote it; `now` becomes the time of the revocation if it has none.
    pub(super) fn read(text: &[u8], now: Option<UnixSeconds>) -> Result<Self, &'static str> {
        let change = parse_change(text)?;
        let (fact, text) = match &change {
            Change::Lift { target, issuer } => {
                let fact = Fact { target: target.clone(), issuer: issuer.clone() };
                let text = lift_line(&fact);
                (fact, text)
            }
            Change::Revoke(entry) => {
                let mut revocation = parse_revocation(text)?;
                revocation.revoked_at = revocation.revoked_at.or(now);
                (entry.fact(), revocation_line(&revocation))
            }
        };
        Ok(Self { fact, change, text })
    }

    /// Whether it revokes what was issued before some time only.
    pub(super) fn is_cutoff(&self) -> bool {
        matches!(&self.change, Change::Revoke(entry) if entry.before.is_some())
    }

    /// Whether both revoke by cut-off, or both without: then one says what the two say.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        match (&self.change, &other.change) {
            (Change::Revoke(one), Change::Revoke(other)) => one.before.is_some() == other.before.is_some(),
            _ => false,
        }
    }

    /// One line for two that are alike, with the notes of this one.
    pub(super) fn merged(&self, other: &Self) -> Option<Self> {
        let Change::Revoke(other) = &other.change else { return None };
        let mut revocation = parse_revocation(self.text.as_bytes()).ok()?;
        revocation.entry = revocation.entry.merged(other);
        let change = Change::Revoke(revocation.entry.clone());
        Some(Self { fact: self.fact.clone(), change, text: revocation_line(&revocation) })
    }

    /// Whether it takes back.
    pub(super) fn is_lift(&self) -> bool {
        matches!(self.change, Change::Lift { .. })
    }

    /// Whether no gateway needs it any more. Gateways keep entries for a leeway after their end, and clocks differ.
    pub(super) fn is_over(&self, now: UnixSeconds) -> bool {
        self.end().is_some_and(|end| end < now)
    }

    /// After this it [is over](Self::is_over).
    pub(super) fn end(&self) -> Option<UnixSeconds> {
        match &self.change {
            Change::Revoke(entry) => entry.expires.map(|expires| expires.plus(GRACE)),
            Change::Lift { .. } => None,
        }
    }
}

const GRACE: std::time::Duration = std::time::Duration::from_secs(3600);
