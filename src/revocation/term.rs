//! What is kept of an entry beside its key: the cut-off and the end, packed into one word so that a reader sees both
//! or neither. Knows nothing of keys and tables.
//!
//! Seconds are held in 32 bits, good until the year 2106. A cut-off beyond that revokes everything and an end beyond
//! it never comes, so nothing that does not fit becomes weaker.

use std::time::Duration;

use crate::clock::UnixSeconds;

/// How strict an entry is and how long it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Term {
    before: u32,
    expires: u32,
}

/// No cut-off: whatever was issued when.
const EVERYTHING: u32 = u32::MAX;
/// No end.
const FOREVER: u32 = u32::MAX;

impl Term {
    /// An end of zero has always passed: the entry was lifted.
    pub(super) const LIFTED: Self = Self { before: 0, expires: 0 };

    /// An entry stays in force for `leeway` after its end, since the tokens that it concerns are accepted for that
    /// long after theirs.
    pub(super) fn new(before: Option<UnixSeconds>, expires: Option<UnixSeconds>, leeway: Duration) -> Self {
        Self {
            before: before.map_or(EVERYTHING, clamp),
            expires: expires.map_or(FOREVER, |end| clamp(end.plus(leeway))),
        }
    }

    pub(super) fn from_word(word: u64) -> Self {
        let [before, expires] =
            [word >> 32, word & u64::from(u32::MAX)].map(|half| u32::try_from(half).unwrap_or(u32::MAX));
        Self { before, expires }
    }

    pub(super) fn word(self) -> u64 {
        (u64::from(self.before) << 32) | u64::from(self.expires)
    }

    pub(super) fn is_lifted(self) -> bool {
        self.expires == 0
    }

    /// Whether the entry still holds at `now`.
    pub(super) fn holds_at(self, now: UnixSeconds) -> bool {
        self.expires == FOREVER || now.0 < i64::from(self.expires)
    }

    /// Whether the entry revokes a token issued at `iat`; one that does not say when it was issued, always.
    pub(super) fn revokes(self, iat: Option<UnixSeconds>) -> bool {
        self.before == EVERYTHING || iat.is_none_or(|iat| iat.0 < i64::from(self.before))
    }

    /// The cut-off, if there is one.
    pub(super) fn before(self) -> Option<UnixSeconds> {
        (self.before != EVERYTHING).then(|| UnixSeconds(i64::from(self.before)))
    }

    /// Whether whatever `other` revokes, and as long, this one does too.
    pub(super) fn covers(self, other: Self) -> bool {
        self.before >= other.before && self.expires >= other.expires
    }

    /// The least strict term that covers both.
    pub(super) fn join(self, other: Self) -> Self {
        Self { before: self.before.max(other.before), expires: self.expires.max(other.expires) }
    }

    /// The stricter of two that hold.
    pub(super) fn stricter(self, other: Self) -> Self {
        if other.before > self.before { other } else { self }
    }
}

fn clamp(time: UnixSeconds) -> u32 {
    u32::try_from(time.0.max(0)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: impl Into<Option<i64>>) -> Option<UnixSeconds> {
        seconds.into().map(UnixSeconds)
    }

    #[test]
    fn what_does_not_fit_becomes_stricter() {
        let huge = Term::new(at(i64::MAX), at(i64::MAX), Duration::MAX);
        assert_eq!(huge, Term::new(None, None, Duration::ZERO));
        assert!(huge.revokes(at(i64::MAX)) && huge.holds_at(UnixSeconds(i64::MAX)));

        let ancient = Term::new(at(i64::MIN), at(10), Duration::ZERO);
        assert!(ancient.revokes(None) && !ancient.revokes(at(0)));
        assert!(Term::new(None, at(-5), Duration::ZERO).is_lifted());
    }

    #[test]
    fn holds_for_the_leeway_after_its_end() {
        let term = Term::new(None, at(100), Duration::from_secs(30));
        assert!(term.holds_at(UnixSeconds(129)) && !term.holds_at(UnixSeconds(130)));
    }

    #[test]
    fn survives_the_word() {
        for term in
            [Term::LIFTED, Term::new(at(5), at(7), Duration::ZERO), Term::new(None, None, Duration::ZERO)]
        {
            assert_eq!(Term::from_word(term.word()), term);
        }
    }
}
