//! The connections of one core, bounded in number: when it is full, the one that has been doing nothing for the
//! longest makes room. No cap for each client address: behind a NAT or a load balancer all share one.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::vouching::{Looks, Shown};
use crate::clock::{Clock, Monotonic};
use crate::gateway::Activity;
use crate::telemetry::metrics::Closed;

/// How often it is looked for idle connections, which so stay that much longer at the most.
const LOOK: Duration = Duration::from_millis(250);

/// How long a connection goes without a request before it is asked to rest. To be woken costs it some per cent of a
/// request, which those that come and go all the time should not pay.
const REST_AFTER: Duration = Duration::from_secs(1);

/// How many of the longest idle are found at a time. One by one, each new connection of a flood would cost a look at all
/// that there are.
const ROUND: usize = 128;

/// When a look at many finds fewer than this, nearly all are busy, and each new connection would cost another look. None
/// is had for so long: whoever comes meanwhile and finds none left is turned away.
const FEW: usize = 8;
const REST: Duration = Duration::from_millis(10);

/// All connections of one core.
#[derive(Debug)]
pub struct Crowd {
    members: RefCell<HashMap<u64, Rc<State>>>,
    /// Who had been idle the longest when it was last looked, since when; the longest at the end.
    next_to_leave: RefCell<Vec<(Monotonic, u64)>>,
    /// When it was last looked in nearly vain.
    found_few: Cell<Option<Monotonic>>,
    next: Cell<u64>,
    most: Cell<usize>,
    clock: Clock,
    left: Notify,
}

#[derive(Debug)]
struct State {
    activity: Rc<Activity>,
    /// How long it may go without a request, where that is for the crowd to see to.
    patience: Cell<Option<Duration>>,
    /// Since when it had been idle when it was last asked to rest: once is enough.
    asked_to_rest: Cell<Option<Monotonic>>,
    shall_rest: Cell<bool>,
    /// It is asked for something.
    asked: Notify,
    has_lost_its_place: Cell<bool>,
    certificate: RefCell<Option<Rc<LetIn>>>,
}

/// What let a connection in.
#[derive(Debug)]
struct LetIn {
    by: Shown,
    client: SocketAddr,
    listener: Arc<str>,
}

/// What a connection is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// To leave, and why.
    ToLeave(Closed),
    /// To hold as little as it can until there is something to do.
    ToRest,
}

/// A connection's place; given up when dropped.
#[derive(Debug)]
pub struct Member {
    crowd: Rc<Crowd>,
    id: u64,
    state: Rc<State>,
}

impl Crowd {
    /// Room for this many.
    pub fn new(most: usize, clock: Clock) -> Rc<Self> {
        let (members, next_to_leave, found_few, next, left) = Default::default();
        Rc::new(Self { members, next_to_leave, found_few, next, most: Cell::new(most.max(1)), clock, left })
    }

    /// From now on there is room for this many; those who are in stay.
    pub fn resize(&self, most: usize) {
        self.most.set(most.max(1));
    }

    /// Takes a connection in; if there is no room, asks the one that has been idle or unfinished the longest to
    /// leave. `None` if all are busy.
    pub fn enter(self: &Rc<Self>) -> Option<Member> {
        if self.members.borrow().len() >= self.most.get() && !self.make_room() {
            return None;
        }
        let id = self.next.replace(self.next.get().wrapping_add(1));
        let state = Rc::new(State {
            activity: Activity::new(self.clock.monotonic()),
            patience: Cell::new(None),
            asked_to_rest: Cell::new(None),
            shall_rest: Cell::new(false),
            asked: Notify::new(),
            has_lost_its_place: Cell::new(false),
            certificate: RefCell::new(None),
        });
        self.members.borrow_mut().insert(id, Rc::clone(&state));
        Some(Member { crowd: Rc::clone(self), id, state })
    }

    /// Asks the connection that has been idle or unfinished the longest to leave. False if all are busy.
    pub fn make_room(&self) -> bool {
        let Some(longest) = self.longest_idle() else { return false };
        // It has its place no longer, whenever it gets round to leaving.
        self.members.borrow_mut().remove(&longest).is_some_and(|state| {
            state.has_lost_its_place.set(true);
            state.asked.notify_one();
            true
        })
    }

    fn longest_idle(&self) -> Option<u64> {
        let members = self.members.borrow();
        let mut next = self.next_to_leave.borrow_mut();
        // Whoever has left or had a request since is no longer it.
        let is_still = |since, id| {
            members.get(&id).is_some_and(|state: &Rc<State>| state.activity.quiet_since() == Some(since))
        };
        while let Some((since, id)) = next.pop() {
            if is_still(since, id) {
                return Some(id);
            }
        }
        let now = self.clock.monotonic();
        if self.found_few.get().is_some_and(|when| when.until(now) < REST) {
            return None;
        }
        next.extend(members.iter().filter_map(|(id, state)| Some((state.activity.quiet_since()?, *id))));
        self.found_few.set((next.len() < FEW && members.len() > ROUND).then_some(now));
        if next.len() > ROUND {
            next.select_nth_unstable(ROUND);
            next.truncate(ROUND);
            next.shrink_to(2 * ROUND);
        }
        next.sort_unstable_by(|one, other| other.cmp(one));
        next.pop().map(|(_, id)| id)
    }

    /// Asks those to leave that have gone without a request for longer than they may, and those to rest that have not
    /// had one for a moment. Never ends. One look at all of them now and then is cheaper than a timer for each, which
    /// every request would have to move.
    pub async fn watch(self: Rc<Self>) {
        loop {
            tokio::time::sleep(LOOK).await;
            let now = self.clock.monotonic();
            for state in self.members.borrow().values() {
                let Some(patience) = state.patience.get() else { continue };
                let Some(since) = state.activity.quiet_since() else { continue };
                let idle = since.until(now);
                if idle >= patience {
                    state.asked.notify_one();
                } else if idle >= REST_AFTER && state.asked_to_rest.get() != Some(since) {
                    state.asked_to_rest.set(Some(since));
                    state.shall_rest.set(true);
                    state.asked.notify_one();
                }
            }
        }
    }

    /// Looks at all certificates again by which connections were let in, where those who vouched for them have changed,
    /// and asks those to leave whose certificate is not accepted any more, whatever they are doing. Each look takes its
    /// turn among the requests.
    pub async fn look_at_certificates(self: Rc<Self>) {
        let is_outdated = |state: &&Rc<State>| {
            state.certificate.borrow().as_ref().is_some_and(|let_in| let_in.by.is_outdated())
        };
        let outdated: Vec<_> =
            self.members.borrow().values().filter(is_outdated).map(Rc::downgrade).collect();
        let mut looks = Looks::default();
        for state in outdated {
            if let Some(state) = state.upgrade() {
                state.look_at_certificate(&self.clock, &mut looks);
            }
            tokio::task::yield_now().await;
        }
    }

    /// Resolves when nobody is left.
    pub async fn empty(&self) {
        while !self.members.borrow().is_empty() {
            self.left.notified().await;
        }
    }
}

impl State {
    fn look_at_certificate(&self, clock: &Clock, looks: &mut Looks) {
        let Some(let_in) = self.certificate.borrow().clone() else { return };
        if let_in.by.is_outdated()
            && let Err(why) = let_in.by.judge(clock, looks)
        {
            let LetIn { client, listener, .. } = &*let_in;
            tracing::info!(%client, %listener, %why, "a connection is ended");
            self.activity.disown();
            self.asked.notify_one();
        }
    }
}

impl Member {
    /// This client's connection was let in by this certificate, and stays no longer than that is good.
    pub fn stands_on(&self, by: Shown, client: SocketAddr, listener: Arc<str>) {
        self.state.certificate.replace(Some(Rc::new(LetIn { by, client, listener })));
        self.state.look_at_certificate(&self.crowd.clock, &mut Looks::default());
    }

    /// What this connection is doing.
    pub fn activity(&self) -> &Rc<Activity> {
        &self.state.activity
    }

    /// From now on the connection is asked to leave when it has gone without a request for so long, and to rest before.
    pub fn may_be_idle_for(&self, patience: Duration) {
        self.state.patience.set(Some(patience));
    }

    /// Resolves when this connection has to make room, has been idle for too long, or has lost its certificate, and says
    /// which.
    pub async fn asked_to_leave(&self) -> Closed {
        loop {
            if let Asked::ToLeave(why) = self.asked().await {
                return why;
            }
        }
    }

    /// Resolves when this connection is asked to leave, or to rest.
    pub async fn asked(&self) -> Asked {
        loop {
            self.state.asked.notified().await;
            let shall_rest = self.state.shall_rest.take();
            if self.activity().is_disowned() {
                return Asked::ToLeave(Closed::Certificate);
            }
            if self.state.has_lost_its_place.get() {
                return Asked::ToLeave(Closed::Evicted);
            }
            // A request may have come since it was asked.
            match self.activity().quiet_since() {
                Some(since) if shall_rest && self.state.asked_to_rest.get() == Some(since) => {
                    return Asked::ToRest;
                }
                Some(_) if !shall_rest => return Asked::ToLeave(Closed::Idle),
                _ => {}
            }
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.crowd.members.borrow_mut().remove(&self.id);
        self.crowd.left.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::time::Duration;

    use super::{Asked, Crowd, LOOK, Member, REST, REST_AFTER};
    use crate::clock::{Clock, UnixSeconds};
    use crate::telemetry::metrics::Closed;

    #[test]
    fn the_longest_idle_makes_room_and_the_busy_stay() {
        let (clock, hand) = Clock::manual(UnixSeconds(0));
        let crowd = Crowd::new(2, clock);
        let first = crowd.enter().unwrap();
        hand.advance(Duration::from_secs(1));
        let second = crowd.enter().unwrap();
        let busy = first.activity().busy();
        let third = crowd.enter().unwrap();
        assert!(!crowd.members.borrow().contains_key(&second.id));
        let _also_busy = third.activity().busy();
        assert!(crowd.enter().is_none(), "all are busy");
        drop(busy);
        assert!(crowd.enter().is_some());
        assert!(!crowd.members.borrow().contains_key(&first.id));
    }

    #[test]
    fn many_leave_in_the_order_in_which_they_fell_idle() {
        let (clock, hand) = Clock::manual(UnixSeconds(0));
        let crowd = Crowd::new(1000, clock);
        let mut members: Vec<Member> = Vec::new();
        for _ in 0..1000 {
            hand.advance(Duration::from_millis(1));
            members.push(crowd.enter().unwrap());
        }
        let is_in = |member: &Member| crowd.members.borrow().contains_key(&member.id);
        // One in ten has a request while the others leave.
        let mut busy = Vec::new();
        for round in 0..900 {
            if round == 50 {
                busy.extend(members.iter().skip(5).step_by(10).map(|member| member.activity().busy()));
            }
            hand.advance(Duration::from_millis(1));
            assert!(crowd.make_room(), "{round}");
        }
        let gone: Vec<usize> = (0..1000).filter(|place| !is_in(&members[*place])).collect();
        let expected: Vec<usize> = (0..50).chain((50..1000).filter(|place| place % 10 != 5)).collect();
        assert_eq!(gone, expected[..900]);
        while crowd.make_room() {}
        assert_eq!(members.iter().filter(|member| is_in(member)).count(), 95, "the busy stay");
    }

    #[test]
    fn a_crowd_that_was_busy_a_moment_ago_is_not_looked_through_again() {
        let (clock, hand) = Clock::manual(UnixSeconds(0));
        let crowd = Crowd::new(200, clock);
        let members: Vec<Member> = (0..200).map(|_| crowd.enter().unwrap()).collect();
        let mut busy: Vec<_> = members[3..].iter().map(|member| member.activity().busy()).collect();
        for _ in 0..3 {
            assert!(crowd.make_room(), "what was found is used up first");
        }
        drop(busy.pop());
        assert!(!crowd.make_room());
        hand.advance(REST);
        assert!(crowd.make_room() && !crowd.make_room());
    }

    #[tokio::test(start_paused = true)]
    async fn the_idle_are_asked_to_leave_once_they_have_been_so_for_too_long() {
        let (clock, hand) = Clock::manual(UnixSeconds(0));
        let crowd = Crowd::new(9, clock);
        let (idle, busy, patient) = (crowd.enter().unwrap(), crowd.enter().unwrap(), crowd.enter().unwrap());
        idle.may_be_idle_for(Duration::from_secs(60));
        busy.may_be_idle_for(Duration::from_secs(60));
        let request = busy.activity().busy();
        let leaves = async |member: &Member| {
            tokio::select! {
                biased;
                () = Rc::clone(&crowd).watch() => false,
                _ = member.asked_to_leave() => true,
                () = tokio::time::sleep(3 * LOOK) => false,
            }
        };
        hand.advance(Duration::from_secs(59));
        assert!(!leaves(&idle).await);
        hand.advance(Duration::from_secs(1));
        assert!(leaves(&idle).await && !leaves(&busy).await && !leaves(&patient).await);
        request.ends(crowd.clock.monotonic());
        drop(request);
        assert!(!leaves(&busy).await, "it has only just become idle");
        hand.advance(Duration::from_secs(60));
        assert!(leaves(&busy).await && !leaves(&patient).await);
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_no_request_for_a_moment_is_asked_to_rest_once() {
        let (clock, hand) = Clock::manual(UnixSeconds(0));
        let crowd = Crowd::new(9, clock);
        let member = crowd.enter().unwrap();
        member.may_be_idle_for(Duration::from_secs(60));
        let asked = async || {
            tokio::select! {
                biased;
                () = Rc::clone(&crowd).watch() => None,
                asked = member.asked() => Some(asked),
                () = tokio::time::sleep(3 * LOOK) => None,
            }
        };
        assert_eq!(asked().await, None);
        hand.advance(REST_AFTER);
        assert_eq!(asked().await, Some(Asked::ToRest));
        assert_eq!(asked().await, None, "it was asked already");
        let request = member.activity().busy();
        hand.advance(REST_AFTER);
        assert_eq!(asked().await, None, "it is busy");
        request.ends(crowd.clock.monotonic());
        drop(request);
        assert_eq!(asked().await, None, "it has only just become idle");
        hand.advance(REST_AFTER);
        assert_eq!(asked().await, Some(Asked::ToRest));
        hand.advance(Duration::from_secs(60));
        assert_eq!(asked().await, Some(Asked::ToLeave(Closed::Idle)));
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_asked_for_a_request_in_the_same_moment_stays() {
        let (clock, _) = Clock::manual(UnixSeconds(0));
        let crowd = Crowd::new(9, clock);
        let member = crowd.enter().unwrap();
        member.may_be_idle_for(Duration::ZERO);
        member.state.asked.notify_one();
        let _request = member.activity().busy();
        assert!(tokio::time::timeout(LOOK, member.asked_to_leave()).await.is_err());
    }
}
