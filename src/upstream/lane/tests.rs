//! Choices, counted.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use super::{Chooser, Lane, Lanes};
use crate::clock::{Clock, ClockHand, Monotonic, UnixSeconds};
use crate::upstream::member::{Addresses, Member};
use crate::upstream::pool::EndpointPool;
use crate::upstream::settings::{Balancing, BalancingMethod, Ejection, Endpoint};

const EJECTION: Ejection = Ejection {
    consecutive_failures: 1,
    time: Duration::from_secs(10),
    max_time: Duration::from_secs(10),
    max_percent: 100,
};

struct Setup {
    lanes: Lanes,
    chooser: Chooser,
    hand: ClockHand,
}

fn setup(method: BalancingMethod, panic_percent: u32, weights: &[u32]) -> Setup {
    let (clock, hand) = Clock::manual(UnixSeconds(0));
    let members: Vec<_> = weights.iter().zip(1..).map(|(weight, port)| member(*weight, port)).collect();
    let lanes = Lanes::new(0, &members, &[], |member| lane(member, &clock));
    Setup { lanes, chooser: Chooser::new(Balancing { method, panic_percent }, clock), hand }
}

fn member(weight: u32, port: u16) -> Arc<Member> {
    let authority = HeaderValue::from_static("api");
    let endpoint = Endpoint { socket: None, host: "127.0.0.1".into(), port, authority, tls: None, weight };
    let address = Addresses::One(([127, 0, 0, 1], port).into());
    Arc::new(Member::new(Arc::new(endpoint), Arc::default(), address))
}

fn lane(member: &Arc<Member>, clock: &Clock) -> Lane {
    Lane::new(Arc::clone(member), EndpointPool::new(1, Duration::from_secs(1), false, clock.clone()))
}

impl Setup {
    fn choose(&self, tried: &[Rc<Lane>]) -> Option<Rc<Lane>> {
        self.chooser.choose(&self.lanes, tried)
    }

    fn place(&self, lane: &Rc<Lane>) -> usize {
        self.lanes.all().iter().position(|other| Rc::ptr_eq(other, lane)).unwrap()
    }

    /// How often each is chosen, of so many.
    fn counts(&self, times: usize) -> Vec<usize> {
        let mut counts = vec![0; self.lanes.all().len()];
        (0..times).for_each(|_| counts[self.place(&self.choose(&[]).unwrap())] += 1);
        counts
    }

    fn eject(&self, place: usize) {
        self.lanes.all()[place].member.health.eject(&EJECTION, Monotonic::default()).unwrap();
    }
}

#[test]
fn turns_follow_the_weights_smoothly() {
    let setup = setup(BalancingMethod::RoundRobin, 0, &[3, 1, 1]);
    let order: Vec<_> = (0..10).map(|_| setup.place(&setup.choose(&[]).unwrap())).collect();
    assert_eq!(order, [0, 1, 0, 2, 0, 0, 1, 0, 2, 0]);
}

#[test]
fn idle_endpoints_get_requests_by_weight() {
    let setup = setup(BalancingMethod::LeastRequest, 0, &[3, 1]);
    let counts = setup.counts(40_000);
    assert!((29_000..31_000).contains(&counts[0]), "{counts:?}");
}

#[test]
fn a_busy_endpoint_gets_no_more_than_its_weight_bears() {
    let setup = setup(BalancingMethod::LeastRequest, 0, &[3, 1]);
    let mut in_flight = Vec::new();
    let mut counts = [0; 2];
    for _ in 0..400 {
        let lane = setup.choose(&[]).unwrap();
        counts[setup.place(&lane)] += 1;
        in_flight.push(lane.enter());
    }
    assert!((298..=302).contains(&counts[0]), "{counts:?}");
    drop(in_flight);
    assert_eq!(setup.lanes.all()[0].count.in_flight(), 0);
}

#[test]
fn of_many_endpoints_none_is_much_busier_than_another() {
    let setup = setup(BalancingMethod::LeastRequest, 0, &[1; 20]);
    let mut in_flight = Vec::new();
    for _ in 0..2_000 {
        in_flight.push(setup.choose(&[]).unwrap().enter());
    }
    let busiest = setup.lanes.all().iter().map(|lane| lane.count.in_flight()).max().unwrap();
    assert!(busiest <= 106, "{busiest}");
}

#[test]
fn what_was_tried_or_is_not_healthy_is_not_chosen() {
    let setup = setup(BalancingMethod::LeastRequest, 0, &[1, 1, 1]);
    let first = Rc::clone(&setup.lanes.all()[0]);
    setup.lanes.all()[1].member.health.checked(false);
    assert!((0..100).all(|_| setup.place(&setup.choose(std::slice::from_ref(&first)).unwrap()) == 2));
    setup.eject(2);
    assert!(setup.choose(std::slice::from_ref(&first)).is_none());
    setup.hand.advance(EJECTION.time);
    assert_eq!(setup.place(&setup.choose(&[first]).unwrap()), 2);
}

#[test]
fn health_is_ignored_when_too_few_are_healthy() {
    let setup = setup(BalancingMethod::RoundRobin, 50, &[1, 1, 1]);
    setup.eject(0);
    assert_eq!(setup.counts(100)[0], 0, "two of three are enough");
    setup.eject(1);
    assert!(setup.counts(99).iter().all(|count| *count >= 32), "one of three is not");
}

#[test]
fn an_only_endpoint_is_used_unless_it_is_known_to_be_unhealthy() {
    for (panic_percent, is_used) in [(0, false), (50, true)] {
        let setup = setup(BalancingMethod::LeastRequest, panic_percent, &[1]);
        assert!(setup.choose(&[]).is_some());
        setup.lanes.all()[0].member.health.checked(false);
        assert_eq!(setup.choose(&[]).is_some(), is_used);
    }
}

#[test]
fn lanes_of_members_that_stay_are_kept_and_counts_of_those_that_go_are_not_lost() {
    let setup = setup(BalancingMethod::LeastRequest, 0, &[1, 1]);
    let stats = Arc::clone(&setup.lanes.all()[1].member.stats);
    let busy = setup.lanes.all()[1].enter();
    let members = [Arc::clone(&setup.lanes.all()[0].member), member(1, 9)];
    let lanes = Lanes::new(1, &members, setup.lanes.all(), |member| lane(member, &setup.chooser.clock));
    assert!(Rc::ptr_eq(&lanes.all()[0], &setup.lanes.all()[0]));
    drop(setup);
    assert_eq!((stats.sent(), stats.in_flight()), (1, 1), "a request is still on its way");
    drop(busy);
    assert_eq!((stats.sent(), stats.in_flight()), (1, 0));
}
