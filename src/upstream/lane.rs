//! The lanes of one core: its own pool and its own count of requests for each member of an upstream, and the choice
//! among them.

use std::cell::{Cell, RefCell};
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::rc::Rc;
use std::sync::Arc;

use super::health::State;
use super::member::Member;
use super::pool::EndpointPool;
use super::settings::{Balancing, BalancingMethod, Endpoint};
use super::stats::CoreCount;
use crate::clock::{Clock, Monotonic};

/// One core's lane to one member.
#[derive(Debug)]
pub struct Lane {
    pub(super) member: Arc<Member>,
    pub(super) pool: Rc<EndpointPool>,
    count: Arc<CoreCount>,
    /// For taking turns: how far it is behind its share.
    credit: Cell<i64>,
}

/// A request that is in flight on a lane until this is dropped.
#[derive(Debug)]
pub(super) struct OnLane(Rc<Lane>);

/// All lanes of one core to one upstream, as of one generation of its members.
#[derive(Debug)]
pub(super) struct Lanes {
    pub generation: u64,
    all: Vec<Rc<Lane>>,
}

/// Chooses lanes.
#[derive(Debug)]
pub(super) struct Chooser {
    balancing: Balancing,
    clock: Clock,
    random: Cell<u64>,
    scratch: RefCell<Vec<Rc<Lane>>>,
}

impl Lane {
    pub(super) fn new(member: Arc<Member>, pool: EndpointPool) -> Self {
        let (count, pool) = (member.stats.count(), Rc::new(pool));
        Self { member, pool, count, credit: Cell::new(0) }
    }

    /// The endpoint that it leads to.
    pub fn endpoint(&self) -> &Endpoint {
        &self.member.endpoint
    }

    pub(super) fn enter(self: &Rc<Self>) -> OnLane {
        self.count.begin();
        OnLane(Rc::clone(self))
    }

    /// Whether there is an HTTP/2 connection, which requests share.
    pub(super) fn speaks_http2(&self) -> bool {
        self.pool.http2.is_open()
    }

    fn weight(&self) -> u64 {
        u64::from(self.member.endpoint.weight)
    }

    /// Requests in flight for each unit of weight are fewer than, or as many as, on the other.
    fn is_no_busier_than(&self, other: &Self) -> bool {
        self.count.in_flight().saturating_mul(other.weight())
            <= other.count.in_flight().saturating_mul(self.weight())
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.member.stats.retire(&self.count);
    }
}

impl Drop for OnLane {
    fn drop(&mut self) {
        self.0.count.end();
    }
}

impl Lanes {
    /// Lanes to these members; those that there were before are kept, with their connections.
    pub fn new(
        generation: u64,
        members: &[Arc<Member>],
        before: &[Rc<Lane>],
        make: impl Fn(&Arc<Member>) -> Lane,
    ) -> Self {
        let lane = |member: &Arc<Member>| {
            let kept = before.iter().find(|lane| Arc::ptr_eq(&lane.member, member));
            kept.map_or_else(|| Rc::new(make(member)), Rc::clone)
        };
        Self { generation, all: members.iter().map(lane).collect() }
    }

    pub fn all(&self) -> &[Rc<Lane>] {
        &self.all
    }
}

impl Chooser {
    pub fn new(balancing: Balancing, clock: Clock) -> Self {
        // Any seed but zero will do: nobody gains by guessing it.
        let seed = RandomState::new().build_hasher().finish() | 1;
        Self { balancing, clock, random: Cell::new(seed), scratch: RefCell::default() }
    }

    /// A lane that may be used and is none of those that were tried; `None` if there is none.
    pub fn choose(&self, lanes: &Lanes, tried: &[Rc<Lane>]) -> Option<Rc<Lane>> {
        let now = || self.clock.monotonic();
        if let ([only], []) = (lanes.all(), tried) {
            return self.may_use(only, lanes, now).then(|| Rc::clone(only));
        }
        let mut candidates = self.scratch.take();
        let fresh = |lane: &&Rc<Lane>| !tried.iter().any(|other| Rc::ptr_eq(lane, other));
        if self.is_panic(lanes, now) {
            candidates.extend(lanes.all().iter().filter(fresh).cloned());
        } else {
            let usable = |lane: &&Rc<Lane>| lane.member.health.state(now) == State::Healthy;
            candidates.extend(lanes.all().iter().filter(usable).filter(fresh).cloned());
        }
        let chosen = match self.balancing.method {
            BalancingMethod::LeastRequest => self.less_busy_of_two(&candidates),
            BalancingMethod::RoundRobin => next_in_turn(&candidates),
        };
        let chosen = chosen.cloned();
        candidates.clear();
        self.scratch.replace(candidates);
        chosen
    }

    fn may_use(&self, only: &Lane, lanes: &Lanes, now: impl Fn() -> Monotonic + Copy) -> bool {
        only.member.health.state(now) == State::Healthy || self.is_panic(lanes, now)
    }

    /// So few are healthy that they would break down too, or that health is more likely to be what is wrong.
    fn is_panic(&self, lanes: &Lanes, now: impl Fn() -> Monotonic + Copy) -> bool {
        if self.balancing.panic_percent == 0 {
            return false;
        }
        let healthy =
            lanes.all().iter().filter(|lane| lane.member.health.state(now) == State::Healthy).count();
        let (healthy, all) = (healthy as u64, lanes.all().len() as u64);
        healthy.saturating_mul(100) < all.saturating_mul(u64::from(self.balancing.panic_percent))
    }

    /// The power of two choices: nearly as even as the least busy of all, without every core running to that one.
    fn less_busy_of_two<'l>(&self, candidates: &'l [Rc<Lane>]) -> Option<&'l Rc<Lane>> {
        let first = self.draw(candidates, None)?;
        let second = self.draw(candidates, Some(first)).unwrap_or(first);
        Some(if first.is_no_busier_than(second) { first } else { second })
    }

    /// One of them by weight, other than the one excluded.
    fn draw<'l>(&self, candidates: &'l [Rc<Lane>], excluded: Option<&Rc<Lane>>) -> Option<&'l Rc<Lane>> {
        let others =
            || candidates.iter().filter(|lane| !excluded.is_some_and(|other| Rc::ptr_eq(lane, other)));
        let total: u64 = others().map(|lane| lane.weight()).sum();
        let mut rest = self.random().checked_rem(total)?;
        others().find(|lane| match rest.checked_sub(lane.weight()) {
            None => true,
            Some(left) => {
                rest = left;
                false
            }
        })
    }

    /// xorshift64*: even enough to spread requests, and nothing more is asked of it.
    fn random(&self) -> u64 {
        let mut x = self.random.get();
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.random.set(x);
        x.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }
}

/// Smooth weighted turns: each gains by its weight, the one furthest ahead goes and pays for all.
fn next_in_turn(candidates: &[Rc<Lane>]) -> Option<&Rc<Lane>> {
    let weight = |lane: &Lane| i64::from(lane.member.endpoint.weight);
    let total: i64 = candidates.iter().map(|lane| weight(lane)).sum();
    for lane in candidates {
        lane.credit.set(lane.credit.get().saturating_add(weight(lane)));
    }
    // The first of those with the most credit.
    let next = candidates.iter().rev().max_by_key(|lane| lane.credit.get())?;
    next.credit.set(next.credit.get().saturating_sub(total));
    Some(next)
}

#[cfg(test)]
mod tests;
