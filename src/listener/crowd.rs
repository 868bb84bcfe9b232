//! The connections of one core, bounded in number: when it is full, the one that has been doing nothing for the
//! longest makes room. No cap for each client address: behind a NAT or a load balancer all share one.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use tokio::sync::Notify;

use crate::clock::Clock;
use crate::gateway::Activity;

/// All connections of one core.
#[derive(Debug)]
pub struct Crowd {
    members: RefCell<HashMap<u64, Rc<State>>>,
    next: Cell<u64>,
    most: Cell<usize>,
    clock: Clock,
    left: Notify,
}

#[derive(Debug)]
struct State {
    activity: Rc<Activity>,
    leave: Notify,
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
        let (members, next, left) = Default::default();
        Rc::new(Self { members, next, most: Cell::new(most.max(1)), clock, left })
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
        let state = Rc::new(State { activity: Activity::new(self.clock.monotonic()), leave: Notify::new() });
        self.members.borrow_mut().insert(id, Rc::clone(&state));
        Some(Member { crowd: Rc::clone(self), id, state })
    }

    /// Asks the connection that has been idle or unfinished the longest to leave. False if all are busy.
    pub fn make_room(&self) -> bool {
        let mut members = self.members.borrow_mut();
        let idle = members.iter().filter_map(|(id, state)| Some((state.activity.quiet_since()?, *id)));
        let Some((_, longest)) = idle.min() else { return false };
        // It has its place no longer, whenever it gets round to leaving.
        members.remove(&longest).is_some_and(|state| {
            state.leave.notify_one();
            true
        })
    }

    /// Resolves when nobody is left.
    pub async fn empty(&self) {
        while !self.members.borrow().is_empty() {
            self.left.notified().await;
        }
    }
}

impl Member {
    /// What this connection is doing.
    pub fn activity(&self) -> &Rc<Activity> {
        &self.state.activity
    }

    /// Resolves when this connection has to make room.
    pub async fn asked_to_leave(&self) {
        self.state.leave.notified().await;
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
    use std::time::Duration;

    use super::Crowd;
    use crate::clock::{Clock, UnixSeconds};

    #[test]
    fn the_longest_idle_makes_room_and_the_busy_stay() {
        let (clock, hand) = Clock::manual(UnixSeconds(0));
        let crowd = Crowd::new(2, clock);
        let first = crowd.enter().unwrap();
        hand.advance(Duration::from_secs(1));
        let second = crowd.enter().unwrap();
        let busy = first.activity().busy(&crowd.clock);
        let third = crowd.enter().unwrap();
        assert!(!crowd.members.borrow().contains_key(&second.id));
        let _also_busy = third.activity().busy(&crowd.clock);
        assert!(crowd.enter().is_none(), "all are busy");
        drop(busy);
        assert!(crowd.enter().is_some());
        assert!(!crowd.members.borrow().contains_key(&first.id));
    }
}
