//! The verdict cache: tokens that were verified before, by a keyed hash of their bytes.
//!
//! Two levels: a small table of this core's own, which costs no lock and no shared write, in front of a moka cache
//! that all cores share. It holds successes only. A hit is used only after [`crate::token::Verifier::still_good`] and
//! always before the revocation check, so that it can neither outlive `exp`, key or configuration nor delay a
//! revocation. moka's own expiry is memory hygiene, not judgement.

use std::cell::RefCell;
use std::hash::Hasher as _;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use moka::Expiry;
use moka::sync::Cache;
use siphasher::sip128::{Hasher128 as _, SipHasher13};

use crate::clock::{Clock, UnixSeconds};
use crate::revocation::Candidate;
use crate::token::Presented;

/// The hash of a token under a key that no client knows: none can make two tokens meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct TokenKey(u128);

impl TokenKey {
    /// Its place in a table of so many slots, which is a power of two.
    pub fn slot(self, slots: usize) -> usize {
        usize::try_from(self.0 & (slots as u128 - 1)).unwrap_or_default()
    }
}

/// The level that all cores share. Cheap to clone.
#[derive(Clone)]
pub struct SharedVerdicts {
    cache: Cache<TokenKey, Arc<Candidate>>,
    hash_key: [u8; 16],
}

impl std::fmt::Debug for SharedVerdicts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedVerdicts").field("entries", &self.cache.entry_count()).finish_non_exhaustive()
    }
}

struct UntilExpired(Clock);

impl Expiry<TokenKey, Arc<Candidate>> for UntilExpired {
    fn expire_after_create(
        &self,
        _: &TokenKey,
        candidate: &Arc<Candidate>,
        _: std::time::Instant,
    ) -> Option<Duration> {
        let UnixSeconds(expires) = candidate.token().expires();
        let left = expires.saturating_sub(self.0.wall().0);
        Some(Duration::from_secs(u64::try_from(left).unwrap_or(0)).saturating_add(Duration::from_secs(60)))
    }
}

impl SharedVerdicts {
    /// A cache of at most this many tokens. Fails if the operating system has no randomness for its hash key.
    pub fn new(max_entries: u64, clock: Clock) -> Result<Self, aws_lc_rs::error::Unspecified> {
        let mut hash_key = [0; 16];
        aws_lc_rs::rand::fill(&mut hash_key)?;
        let cache = Cache::builder().max_capacity(max_entries).expire_after(UntilExpired(clock)).build();
        Ok(Self { cache, hash_key })
    }
}

/// How many verdicts one core keeps at hand: a power of two.
const SLOTS: usize = 4096;

type Slot = Option<(TokenKey, Rc<Candidate>)>;

/// One core's cache.
#[derive(Debug)]
pub(super) struct VerdictCache {
    near: RefCell<Vec<Slot>>,
    shared: SharedVerdicts,
}

impl VerdictCache {
    pub fn new(shared: SharedVerdicts) -> Self {
        Self { near: RefCell::new(vec![None; SLOTS]), shared }
    }

    pub fn key(&self, token: Presented<'_>) -> TokenKey {
        let mut hasher = SipHasher13::new_with_key(&self.shared.hash_key);
        hasher.write(token.expose());
        TokenKey(hasher.finish128().as_u128())
    }

    /// The verdict that this core has at hand.
    pub fn at_hand(&self, key: TokenKey) -> Option<Rc<Candidate>> {
        let near = self.near.borrow();
        let (held, candidate) = near.get(key.slot(SLOTS))?.as_ref()?;
        (*held == key).then(|| Rc::clone(candidate))
    }

    /// The verdict that any core came to; this one has it at hand from now on.
    pub fn of_any_core(&self, key: TokenKey) -> Option<Rc<Candidate>> {
        let candidate = Rc::new(self.shared.cache.get(&key)?.as_ref().clone());
        self.keep(key, &candidate);
        Some(candidate)
    }

    pub fn put(&self, key: TokenKey, candidate: &Rc<Candidate>) {
        self.keep(key, candidate);
        self.shared.cache.insert(key, Arc::new(candidate.as_ref().clone()));
    }

    /// How many verdicts this core has at hand.
    pub fn len(&self) -> usize {
        self.near.borrow().iter().flatten().count()
    }

    /// What stood in the slot is still in the shared level.
    fn keep(&self, key: TokenKey, candidate: &Rc<Candidate>) {
        if let Some(place) = self.near.borrow_mut().get_mut(key.slot(SLOTS)) {
            *place = Some((key, Rc::clone(candidate)));
        }
    }
}
