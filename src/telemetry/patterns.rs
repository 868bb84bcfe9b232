//! Suspicious conduct: counted and told, never acted upon.
//!
//! Refusals are counted in one table of all cores, since only refused requests ever come there. Of accepted tokens each
//! core notes, in a table of its own, from how many clients they come; housekeeping puts the cores' notes together, so
//! that requests with good tokens write to nothing that another core writes to. Tables are of fixed size and keyed by
//! a hash that nobody outside can compute: a flood may push others out, and costs no more memory.

use std::cell::{Cell, RefCell};
use std::hash::Hasher as _;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use siphasher::sip::SipHasher13;

use super::access_log::Record;
use super::audit_log::{Event, Journal};
use crate::catalogue::{Code, Reason};
use crate::clock::Monotonic;

/// What is watched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// Many refused tokens from one client.
    FailuresByClient,
    /// Many refused tokens that claim to be of one subject.
    FailuresBySubject,
    /// One valid token from many clients.
    TokenFromManyClients,
    /// A token that is used on after it was revoked.
    UseAfterRevocation,
}

/// From which number on it is told; 0: it is not watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PatternLimits {
    /// The time over which is counted; it begins with the first that is.
    pub window: Duration,
    /// For [`Pattern::FailuresByClient`].
    pub failures_by_client: u32,
    /// For [`Pattern::FailuresBySubject`].
    pub failures_by_subject: u32,
    /// For [`Pattern::TokenFromManyClients`].
    pub addresses_of_token: u32,
    /// For [`Pattern::UseAfterRevocation`].
    pub uses_after_revocation: u32,
}

/// What all cores know. Clones share it.
#[derive(Clone, Debug)]
pub struct Patterns(Arc<All>);

#[derive(Debug)]
struct All {
    key: [u8; 16],
    table: Mutex<Table>,
    found: [AtomicU64; Pattern::ALL.len()],
    journal: Journal,
}

/// What one core sees. Its owner calls [`Self::keep_house`] at least every 100 ms.
#[derive(Debug)]
pub struct CorePatterns {
    all: Patterns,
    limits: PatternLimits,
    tokens: RefCell<Vec<Sighting>>,
    /// How far housekeeping has come.
    next: Cell<usize>,
}

/// A token that this core saw; the place of one that none was seen at has no clients.
#[derive(Clone, Copy, Debug, Default)]
struct Sighting {
    token: [u8; 16],
    clients: Clients,
    seen: Monotonic,
    is_new: bool,
}

/// A set of clients of which only about how many are in it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Clients(u128);

/// Counts in windows, in sets of a few places.
#[derive(Debug)]
struct Table(Vec<[Count; WAYS]>);

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    key: u64,
    opened: Monotonic,
    count: u32,
    clients: Clients,
    is_told: bool,
}

/// Tokens that one core notes at a time: some 400 KB.
const SIGHTINGS: usize = 8192;
/// Of which housekeeping looks at so many each time, and so at all of them every five seconds.
const LOOKED_AT: usize = SIGHTINGS / 50 + 1;
/// Sets of the table of all cores, with so many places each: some 2 MB.
const SETS: usize = 8192;
const WAYS: usize = 4;

/// A line of the audit log is to be read.
const MAX_SUBJECT: usize = 100;

impl Pattern {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::FailuresByClient,
        Self::FailuresBySubject,
        Self::TokenFromManyClients,
        Self::UseAfterRevocation,
    ];

    /// As metrics and the audit log have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::FailuresByClient => "failures_by_client",
            Self::FailuresBySubject => "failures_by_subject",
            Self::TokenFromManyClients => "token_from_many_clients",
            Self::UseAfterRevocation => "use_after_revocation",
        }
    }
}

impl PatternLimits {
    fn of(&self, pattern: Pattern) -> u32 {
        match pattern {
            Pattern::FailuresByClient => self.failures_by_client,
            Pattern::FailuresBySubject => self.failures_by_subject,
            Pattern::TokenFromManyClients => self.addresses_of_token,
            Pattern::UseAfterRevocation => self.uses_after_revocation,
        }
    }
}

impl Patterns {
    /// Nothing seen yet; what is found goes to this journal. `None` if there is no randomness to be had.
    pub fn new(journal: Journal) -> Option<Self> {
        let mut key = [0; 16];
        aws_lc_rs::rand::fill(&mut key).ok()?;
        let found = Default::default();
        Some(Self(Arc::new(All { key, table: Mutex::new(Table(Vec::new())), found, journal })))
    }

    /// One core's part, under these limits.
    pub fn per_core(&self, limits: PatternLimits) -> CorePatterns {
        let tokens = if limits.addresses_of_token > 0 { SIGHTINGS } else { 0 };
        let tokens = RefCell::new(vec![Sighting::default(); tokens]);
        CorePatterns { all: self.clone(), limits, tokens, next: Cell::new(0) }
    }

    /// How often it was found.
    pub fn found(&self, pattern: Pattern) -> u64 {
        self.0.found.get(pattern as usize).map_or(0, |found| found.load(Ordering::Relaxed))
    }

    fn hash(&self, kind: u8, bytes: &[u8]) -> u64 {
        let mut hasher = SipHasher13::new_with_key(&self.0.key);
        hasher.write_u8(kind);
        hasher.write(bytes);
        hasher.finish()
    }

    /// Counts one more, and tells when there are enough.
    fn count(&self, limits: PatternLimits, pattern: Pattern, whose: &str, now: Monotonic) {
        let limit = limits.of(pattern);
        if limit == 0 {
            return;
        }
        let key = self.hash(pattern as u8, whose.as_bytes());
        let reached = self.update(key, limits.window, now, |count| {
            count.count = count.count.saturating_add(1);
            (count.count >= limit).then_some(u64::from(count.count))
        });
        if let Some(count) = reached {
            self.tell(pattern, whose, count);
        }
    }

    /// Adds clients of a token, and tells when there are enough.
    fn add_clients(&self, limits: PatternLimits, sighting: &Sighting, now: Monotonic) {
        let pattern = Pattern::TokenFromManyClients;
        let key = self.hash(pattern as u8, &sighting.token);
        let reached = self.update(key, limits.window, now, |count| {
            count.clients.join(sighting.clients);
            let clients = count.clients.estimate();
            (clients >= limits.of(pattern)).then_some(u64::from(clients))
        });
        if let Some(clients) = reached {
            self.tell(pattern, std::str::from_utf8(&sighting.token).unwrap_or_default(), clients);
        }
    }

    /// What `change` says of the count under this key, if it was not told before in its window.
    fn update(
        &self,
        key: u64,
        window: Duration,
        now: Monotonic,
        change: impl FnOnce(&mut Count) -> Option<u64>,
    ) -> Option<u64> {
        let mut table = self.0.table.lock().unwrap_or_else(PoisonError::into_inner);
        let count = table.place(key, window, now)?;
        let reached = change(count)?;
        (!std::mem::replace(&mut count.is_told, true)).then_some(reached)
    }

    fn tell(&self, pattern: Pattern, whose: &str, count: u64) {
        if let Some(found) = self.0.found.get(pattern as usize) {
            found.fetch_add(1, Ordering::Relaxed);
        }
        let whose: String = whose.chars().take(MAX_SUBJECT).collect();
        self.0.journal.note(Event::SuspiciousConduct { pattern, whose: &whose, count });
    }
}

impl CorePatterns {
    /// The limits that it goes by.
    pub fn limits(&self) -> PatternLimits {
        self.limits
    }

    /// Takes note of a request that is over. `claimed` is whose its refused token claims to be.
    pub fn observe(&self, record: &Record<'_>, claimed: Option<&str>, now: Monotonic) {
        let client = one_client(record.client.ip());
        match (record.reason.or(record.shadow), record.token) {
            (Some(Reason::Revoked), Some(token)) => {
                self.all.count(self.limits, Pattern::UseAfterRevocation, token, now);
            }
            (Some(reason), _) if is_failure(reason) => {
                self.all.count(self.limits, Pattern::FailuresByClient, &client.to_string(), now);
                if let Some(subject) = claimed {
                    self.all.count(self.limits, Pattern::FailuresBySubject, subject, now);
                }
            }
            (None, Some(token)) if self.limits.addresses_of_token > 0 => self.sight(token, client, now),
            _ => {}
        }
    }

    /// Notes that this client sent this token.
    fn sight(&self, token: &str, client: IpAddr, now: Monotonic) {
        let Ok(token) = <[u8; 16]>::try_from(token.as_bytes()) else { return };
        // The fingerprint is of a cryptographic hash: any of its bits will do.
        let place = u64::from_le_bytes(token.first_chunk().copied().unwrap_or_default());
        let place = usize::try_from(place % SIGHTINGS as u64).unwrap_or_default();
        let client = match client {
            IpAddr::V4(address) => self.all.hash(4, &address.octets()),
            IpAddr::V6(address) => self.all.hash(6, &address.octets()),
        };
        let mut tokens = self.tokens.borrow_mut();
        let Some(sighting) = tokens.get_mut(place) else { return };
        if sighting.token != token || sighting.seen.until(now) >= self.limits.window {
            *sighting = Sighting { token, clients: Clients::default(), seen: now, is_new: true };
        }
        sighting.is_new |= sighting.clients.add(client);
    }

    /// Puts what was noted since it last looked together with what the other cores note.
    pub fn keep_house(&self, now: Monotonic) {
        let mut tokens = self.tokens.borrow_mut();
        let first = self.next.get();
        for sighting in tokens.iter_mut().skip(first).take(LOOKED_AT).filter(|sighting| sighting.is_new) {
            sighting.is_new = false;
            self.all.add_clients(self.limits, sighting, now);
        }
        self.next.set(if first + LOOKED_AT < tokens.len() { first + LOOKED_AT } else { 0 });
    }
}

/// What counts as one client: an IPv4 address, or the /64 that an IPv6 host may choose its addresses from (RFC 6177).
pub fn one_client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address @ IpAddr::V4(_) => address,
    }
}

/// Whether somebody tried a token that was never good here. One that was good once is no sign of anything.
fn is_failure(reason: Reason) -> bool {
    match reason {
        Reason::Expired | Reason::NotYetValid | Reason::Revoked | Reason::NotBearer | Reason::Empty => false,
        reason => matches!(
            reason.code(),
            Code::InvalidToken | Code::MalformedCredentials | Code::TooManyFailedAttempts
        ),
    }
}

impl Clients {
    const PLACES: u32 = u128::BITS;

    /// Whether that changes it.
    fn add(&mut self, client: u64) -> bool {
        let before = *self;
        self.0 |= 1 << (client % u64::from(Self::PLACES));
        *self != before
    }

    fn join(&mut self, others: Self) {
        self.0 |= others.0;
    }

    /// By how many places are empty (linear counting: Whang, Vander-Zanden and Taylor, 1990).
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 622")]
    fn estimate(self) -> u32 {
        let places = f64::from(Self::PLACES);
        let empty = f64::from(self.0.count_zeros().max(1));
        (places * (places / empty).ln()).round() as u32
    }
}

impl Table {
    /// The count under this key, in the window that is open or a new one. In a full set the one that counts least goes.
    fn place(&mut self, key: u64, window: Duration, now: Monotonic) -> Option<&mut Count> {
        if self.0.is_empty() {
            self.0 = vec![Default::default(); SETS];
        }
        let set = self.0.get_mut(usize::try_from(key % SETS as u64).unwrap_or_default())?;
        let is_over = |count: &Count| count.opened.until(now) >= window;
        let way = match set.iter().position(|count| count.key == key && !is_over(count)) {
            Some(way) => return set.get_mut(way),
            None => set.iter().enumerate().min_by_key(|(_, count)| {
                let weight = count.count.max(count.clients.estimate());
                if is_over(count) { 0 } else { weight }
            }),
        };
        let way = way.map(|(way, _)| way)?;
        let count = set.get_mut(way)?;
        *count = Count { key, opened: now, ..Count::default() };
        Some(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: PatternLimits = PatternLimits {
        window: Duration::from_secs(60),
        failures_by_client: 3,
        failures_by_subject: 2,
        addresses_of_token: 5,
        uses_after_revocation: 2,
    };

    fn at(second: u64) -> Monotonic {
        Monotonic(Duration::from_secs(second))
    }

    struct Watch {
        all: Patterns,
        cores: Vec<CorePatterns>,
    }

    impl Watch {
        fn new(cores: usize) -> Self {
            let all = Patterns::new(Journal::off()).unwrap();
            let cores = (0..cores).map(|_| all.per_core(LIMITS)).collect();
            Self { all, cores }
        }

        fn request(&self, core: usize, client: &str, reason: Option<Reason>, token: &str, second: u64) {
            let address = format!("{client}:4711").parse().unwrap();
            let mut record = Record::new(Duration::ZERO, "", "", address);
            record.reason = reason;
            record.token = Some(token);
            self.cores[core].observe(&record, Some("alice"), at(second));
        }

        fn keep_house(&self, second: u64) {
            for core in &self.cores {
                (0..50).for_each(|_| core.keep_house(at(second)));
            }
        }

        fn found(&self) -> [u64; 4] {
            Pattern::ALL.map(|pattern| self.all.found(pattern))
        }
    }

    const TOKEN: &str = "0123456789abcdef";
    const FORGED: Option<Reason> = Some(Reason::SignatureMismatch);

    #[test]
    fn failures_are_told_once_in_a_window_whichever_core_sees_them() {
        let watch = Watch::new(2);
        watch.request(0, "192.0.2.1", FORGED, TOKEN, 100);
        assert_eq!(watch.found(), [0, 0, 0, 0]);
        watch.request(1, "192.0.2.1", FORGED, TOKEN, 110);
        assert_eq!(watch.found(), [0, 1, 0, 0], "two of one subject");
        watch.request(0, "192.0.2.1", FORGED, TOKEN, 120);
        watch.request(1, "192.0.2.1", FORGED, TOKEN, 120);
        assert_eq!(watch.found(), [1, 1, 0, 0], "three from one client, told once");
        (0..3).for_each(|_| watch.request(0, "192.0.2.1", FORGED, TOKEN, 200));
        assert_eq!(watch.found(), [2, 2, 0, 0], "a new window");
    }

    #[test]
    fn a_token_that_was_good_once_is_no_failure() {
        let watch = Watch::new(1);
        for reason in [Reason::Expired, Reason::Missing, Reason::InsufficientScope, Reason::NoRoute] {
            (0..9).for_each(|_| watch.request(0, "192.0.2.1", Some(reason), TOKEN, 100));
        }
        assert_eq!(watch.found(), [0, 0, 0, 0]);
        (0..9).for_each(|_| watch.request(0, "192.0.2.1", Some(Reason::Revoked), TOKEN, 100));
        assert_eq!(watch.found(), [0, 0, 0, 1]);
    }

    #[test]
    fn clients_of_a_token_are_put_together_from_all_cores() {
        let watch = Watch::new(2);
        for client in 0..20 {
            watch.request(client % 2, "192.0.2.1", None, TOKEN, 100);
        }
        watch.keep_house(101);
        assert_eq!(watch.found(), [0; 4], "one client, many requests");
        for client in 0..12 {
            watch.request(client % 2, &format!("192.0.2.{client}"), None, TOKEN, 102);
        }
        assert_eq!(watch.found(), [0; 4], "not before housekeeping");
        watch.keep_house(103);
        watch.keep_house(104);
        assert_eq!(watch.found(), [0, 0, 1, 0]);
    }

    #[test]
    fn an_estimate_is_near_enough() {
        for many in [1, 5, 10, 50, 100] {
            let mut clients = Clients::default();
            let all = Patterns::new(Journal::off()).unwrap();
            (0..many).for_each(|client: u32| {
                clients.add(all.hash(4, &client.to_be_bytes()));
            });
            let estimate = clients.estimate();
            assert!(estimate.abs_diff(many) <= 2 + many / 2, "{many}: {estimate}");
        }
    }

    #[test]
    fn a_flood_pushes_out_those_who_count_least() {
        let watch = Watch::new(1);
        (0..2).for_each(|_| watch.request(0, "192.0.2.1", FORGED, TOKEN, 100));
        for client in 0..200_000_u32 {
            let address = std::net::Ipv4Addr::from_bits(0x0a00_0000 + client).to_string();
            watch.all.count(LIMITS, Pattern::FailuresByClient, &address, at(101));
        }
        watch.request(0, "192.0.2.1", FORGED, TOKEN, 102);
        assert_eq!(watch.found()[0], 1, "two failures outweigh any number of single ones");
        assert_eq!(watch.all.0.table.lock().unwrap().0.len(), SETS);
    }
}
