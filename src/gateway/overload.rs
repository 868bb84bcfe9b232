//! Overload: a core that has more to do than it can takes on fewer requests at a time, so that those are answered in
//! time, rather than let all of them wait for longer and longer.
//!
//! How many it takes on has a fixed bound, of the memory that they cost when upstreams are slow. The bound goes down
//! while ready work waits too long for its turn, which tells that the core itself is too slow. That is judged as by
//! `CoDel` (RFC 8289): a delay that is short again is a burst that is being worked off; one that is long for a whole
//! window is a standing queue.
//!
//! Requests beyond the bound stand in line, and are refused if they stood there for too long. A refusal costs a good
//! part of what an answer costs, and clients come back at once: a core that refused all that it cannot do would do
//! nothing else. So where it is late, it refuses only as many as leave time for the answers. Where the line has grown too
//! long for all in it to be served in time, it takes on who came last first: nearly all of those are answered as fast as
//! ever, and what is known of them is still in the processor's cache. In order, all would wait, and be answered when their
//! clients have given up (Maurer, Fail at Scale, ACM Queue 2015). A shorter line is served in order, and nobody refused.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::catalogue::Reason;
use crate::clock::{Clock, Monotonic};
use crate::rejection::Rejection;
use crate::telemetry::metrics::{CoreMetrics, Shed};

/// How often the delay is measured.
const TICK: Duration = Duration::from_millis(20);

/// How many measurements make a window.
const WINDOW: u32 = 5;

/// For which ready work may wait for its turn, about what it does at the highest throughput. A request needs a handful of
/// turns. Were it longer, so many would be served at a time that what is known of each is out of the processor's cache when
/// its turn comes, and all would cost half as much again.
const TURN: Duration = Duration::from_micros(1500);

/// As many requests are taken on however late the core is: at a time, since they are a few milliseconds' work, and in a
/// window, since the others may wait for slow upstreams and have nothing to do with it.
const LEAST: u32 = 64;

/// Refusals of a core that is late, in each [`TICK`]: a thousand in a second, some hundredths of its time.
const REFUSALS_IF_LATE: u32 = 20;

/// How much longer the line may be than there are requests that wait for their answers at the most.
const LINE: usize = 4;

/// How long a refused client is told to wait.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How much one core takes on.
#[derive(Clone, Copy, Debug)]
pub struct OverloadLimits {
    /// Requests that wait for the head of their response.
    pub requests: u32,
    /// For which a request may stand in line.
    pub delay: Duration,
}

/// The load of one core.
#[derive(Debug)]
pub struct Overload {
    limits: Cell<OverloadLimits>,
    /// Requests that may wait for the head of their response just now: `limits.requests`, or fewer if the core is late.
    places: Cell<u32>,
    taken: Cell<u32>,
    /// How many of them since the window began.
    taken_of_late: Cell<u32>,
    line: RefCell<VecDeque<Waiting>>,
    /// Whoever is first has stood there for half of the time after which he is refused, or longer.
    is_long: Cell<bool>,
    /// Since the last measurement.
    is_swept: Cell<bool>,
    least_delay: Cell<Duration>,
    measured: Cell<u32>,
}

/// A request that stands in line.
#[derive(Debug)]
struct Waiting {
    since: Monotonic,
    turn: oneshot::Sender<Turn>,
}

/// What becomes of a request that stood in line.
#[derive(Debug)]
enum Turn {
    Admitted(Admitted),
    Refused,
}

/// A request that waits for the head of its response, until this is dropped.
#[derive(Debug)]
pub struct Admitted(Rc<Overload>);

impl Overload {
    /// A core with nothing to do.
    pub fn new(limits: OverloadLimits) -> Rc<Self> {
        Rc::new(Self {
            limits: Cell::new(limits),
            places: Cell::new(limits.requests),
            taken: Cell::new(0),
            taken_of_late: Cell::new(0),
            line: RefCell::default(),
            is_long: Cell::new(false),
            is_swept: Cell::new(false),
            least_delay: Cell::new(Duration::MAX),
            measured: Cell::new(0),
        })
    }

    /// Goes by other limits from now on.
    pub fn limit(&self, limits: OverloadLimits) {
        self.limits.set(limits);
        self.places.set(limits.requests);
    }

    /// Takes a request on, at once if there is a place, or refuses it.
    pub async fn admit(self: &Rc<Self>, clock: &Clock, metrics: &CoreMetrics) -> Result<Admitted, Rejection> {
        // Nobody overtakes those who stand in line.
        if self.line.borrow().is_empty()
            && let Some(admitted) = self.place()
        {
            return Ok(admitted);
        }
        if self.line_is_full() {
            metrics.shed(Shed::Requests);
            return Err(overloaded("more requests stand in line than overload.requests allows"));
        }
        let (turn, told) = oneshot::channel();
        self.line.borrow_mut().push_back(Waiting { since: clock.monotonic(), turn });
        match told.await {
            Ok(Turn::Admitted(admitted)) => Ok(admitted),
            Ok(Turn::Refused) | Err(_) => {
                metrics.shed(Shed::Delay);
                Err(overloaded("the request stood in line for longer than overload.delay"))
            }
        }
    }

    fn place(self: &Rc<Self>) -> Option<Admitted> {
        let (taken, of_late) = (self.taken.get(), self.taken_of_late.get());
        let is_free = taken < self.places.get() || (of_late < LEAST && taken < self.limits.get().requests);
        is_free.then(|| {
            self.taken.set(taken + 1);
            self.taken_of_late.set(of_late.saturating_add(1));
            Admitted(Rc::clone(self))
        })
    }

    /// Those whose clients have left do not count; they are looked for no more than once in a while.
    fn line_is_full(&self) -> bool {
        let most = LINE * self.limits.get().requests as usize;
        let mut line = self.line.borrow_mut();
        if line.len() >= most && !self.is_swept.replace(true) {
            line.retain(|waiting| !waiting.turn.is_closed());
        }
        line.len() >= most
    }

    /// Gives free places to those in line.
    fn seat(self: &Rc<Self>) {
        while !self.line.borrow().is_empty()
            && let Some(admitted) = self.place()
        {
            let is_last_first = self.is_late() && self.is_long.get();
            let next =
                if is_last_first { self.leave(VecDeque::pop_back) } else { self.leave(VecDeque::pop_front) };
            if let Some(next) = next {
                next.turn.send(Turn::Admitted(admitted)).ok();
            }
        }
    }

    /// The next in line from this end whose client is still there.
    fn leave(&self, end: impl Fn(&mut VecDeque<Waiting>) -> Option<Waiting>) -> Option<Waiting> {
        let mut line = self.line.borrow_mut();
        std::iter::from_fn(|| end(&mut line)).find(|waiting| !waiting.turn.is_closed())
    }

    /// Refuses those who stood in line for too long, or as many of them as there was time for since `delay + TICK` ago.
    fn refuse_late(&self, now: Monotonic, delay: Duration) {
        let ticks = u32::try_from((TICK + delay).as_millis() / TICK.as_millis()).unwrap_or(u32::MAX);
        let mut left = if self.is_late() { REFUSALS_IF_LATE.saturating_mul(ticks) } else { u32::MAX };
        let patience = self.limits.get().delay;
        let is_over = |first: &Waiting| first.turn.is_closed() || first.since.until(now) > patience;
        while left > 0 && self.line.borrow().front().is_some_and(is_over) {
            let first = self.line.borrow_mut().pop_front();
            if first.is_some_and(|first| first.turn.send(Turn::Refused).is_ok()) {
                left -= 1;
            }
        }
    }

    /// Whether less is taken on than is allowed.
    fn is_late(&self) -> bool {
        self.places.get() < self.limits.get().requests
    }

    /// Measures the delay of this core. Never ends.
    pub async fn watch(self: &Rc<Self>, clock: &Clock, metrics: &CoreMetrics) {
        loop {
            let before = clock.monotonic();
            tokio::time::sleep(TICK).await;
            let now = clock.monotonic();
            let delay = before.until(now).saturating_sub(TICK);
            metrics.worker_delay(delay);
            self.measured(delay, now);
            metrics.requests_in_line(self.line.borrow().len() as u64);
        }
    }

    fn measured(self: &Rc<Self>, delay: Duration, now: Monotonic) {
        self.least_delay.set(self.least_delay.get().min(delay));
        self.measured.set(self.measured.get() + 1);
        if self.measured.get() >= WINDOW {
            self.measured.set(0);
            self.taken_of_late.set(0);
            self.judge(self.least_delay.replace(Duration::MAX));
        }
        self.is_swept.set(false);
        let half = self.limits.get().delay / 2;
        let first = self.line.borrow().front().map(|first| first.since);
        self.is_long.set(first.is_some_and(|since| since.until(now) >= half));
        self.seat();
        self.refuse_late(now, delay);
    }

    /// The least delay of a window has it that there are fewer places from now on, or more.
    fn judge(&self, delay: Duration) {
        let (most, taken) = (self.limits.get().requests, self.taken.get());
        let was_late = self.is_late();
        let places = if delay > TURN {
            // As the delay is to the one that is wanted, but no more than by half at a time.
            let wanted = u128::from(taken) * TURN.as_micros() / delay.as_micros();
            u32::try_from(wanted).unwrap_or(taken).clamp(taken / 2, taken - taken / 8).max(LEAST)
        } else {
            // Those that wait for slow upstreams keep their places, and must not keep all of them.
            let places = self.places.get().max(taken);
            places.saturating_add(places / 8)
        };
        self.places.set(places.min(most));
        match (was_late, self.is_late()) {
            (false, true) => tracing::warn!(?delay, "overloaded: fewer requests are taken on"),
            (true, false) => tracing::info!("no longer overloaded"),
            _ => {}
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.0.taken.set(self.0.taken.get().saturating_sub(1));
        self.0.seat();
    }
}

fn overloaded(why: &'static str) -> Rejection {
    Rejection::new(Reason::Overloaded).log(why).retry_after(RETRY_AFTER)
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::rc::Rc;
    use std::time::Duration;

    use futures_util::FutureExt;

    use super::{Admitted, LEAST, LINE, Overload, OverloadLimits, REFUSALS_IF_LATE, TICK, TURN, WINDOW};
    use crate::catalogue::Reason;
    use crate::clock::{Clock, ClockHand, UnixSeconds};
    use crate::rejection::Rejection;
    use crate::telemetry::metrics::{CoreMetrics, Metrics};

    const DELAY: Duration = Duration::from_millis(100);

    struct Worker {
        overload: Rc<Overload>,
        clock: Clock,
        hand: ClockHand,
        metrics: CoreMetrics,
    }

    type Asked<'a> = Pin<Box<dyn Future<Output = Result<Admitted, Rejection>> + 'a>>;

    impl Worker {
        fn new(requests: u32) -> Self {
            let (clock, hand) = Clock::manual(UnixSeconds(0));
            let overload = Overload::new(OverloadLimits { requests, delay: DELAY });
            Self { overload, clock, hand, metrics: Metrics::new().core() }
        }

        fn window(&self, delays: impl IntoIterator<Item = Duration>) {
            delays.into_iter().for_each(|delay| self.overload.measured(delay, self.clock.monotonic()));
        }

        fn late(&self) {
            self.window((0..WINDOW).map(|_| TURN * 8));
        }

        fn in_time(&self) {
            self.window((0..WINDOW).map(|_| TURN));
        }

        fn is_very_late(&self) {
            (0..100).for_each(|_| self.late());
        }

        fn ask(&self) -> Asked<'_> {
            Box::pin(self.overload.admit(&self.clock, &self.metrics))
        }

        /// What becomes of a request at once; `None`: it stands in line.
        fn now(&self) -> Option<Result<Admitted, Rejection>> {
            self.ask().now_or_never()
        }

        fn takes_on(&self) -> Vec<Admitted> {
            std::iter::from_fn(|| self.has_places().then(|| self.now()?.ok())?).collect()
        }

        fn has_places(&self) -> bool {
            self.overload.taken.get() < self.overload.places.get()
        }

        fn in_line(&self) -> usize {
            self.overload.line.borrow().len()
        }
    }

    /// Those that are decided on, and no longer in line.
    fn decided(line: &mut Vec<Asked<'_>>) -> Vec<Result<Admitted, Rejection>> {
        let mut decided = Vec::new();
        line.retain_mut(|asked| asked.now_or_never().map(|told| decided.push(told)).is_none());
        decided
    }

    fn refused(told: &[Result<Admitted, Rejection>]) -> usize {
        told.iter().filter(|told| told.is_err()).count()
    }

    #[test]
    fn as_many_requests_wait_as_may_and_the_others_for_a_place_or_their_refusal() {
        let worker = Worker::new(300);
        let mut admitted = worker.takes_on();
        assert_eq!(admitted.len(), 300);
        let mut line: Vec<_> = (0..1_000).map(|_| worker.ask()).collect();
        assert!(decided(&mut line).is_empty());
        admitted.pop();
        let seated = decided(&mut line);
        assert!(matches!(seated[..], [Ok(_)]));
        worker.hand.advance(DELAY * 2);
        worker.window([Duration::ZERO]);
        let refused = decided(&mut line);
        assert_eq!(refused.len(), 999);
        let refused = refused[0].as_ref().unwrap_err();
        assert_eq!((refused.reason(), refused.wait()), (Reason::Overloaded, Some(Duration::from_secs(1))));
    }

    #[test]
    fn bursts_and_pauses_of_the_whole_process_change_nothing() {
        let worker = Worker::new(1_000);
        for _ in 0..100 {
            worker.window((1..WINDOW).map(|_| TURN * 100).chain([TURN]));
        }
        assert_eq!(worker.takes_on().len(), 1_000);
    }

    #[test]
    fn a_late_worker_takes_on_less_and_less_but_always_some_and_all_again_when_it_has_caught_up() {
        let worker = Worker::new(10_000);
        let mut before = 10_000;
        for _ in 0..5 {
            let admitted = worker.takes_on();
            worker.late();
            drop(admitted);
            let taken = worker.takes_on().len();
            assert!(taken < before && taken >= before / 2, "{taken} after {before}");
            before = taken;
        }
        worker.is_very_late();
        assert_eq!(worker.takes_on().len(), LEAST as usize);
        (0..100).for_each(|_| worker.in_time());
        assert_eq!(worker.takes_on().len(), 10_000);
    }

    #[test]
    fn requests_of_slow_upstreams_do_not_keep_the_only_places() {
        let worker = Worker::new(10_000);
        let mut slow = worker.takes_on();
        slow.truncate(1_000);
        worker.is_very_late();
        for _ in 0..3 {
            worker.late();
            let admitted: Vec<_> = std::iter::from_fn(|| worker.now()?.ok()).collect();
            assert_eq!(admitted.len(), LEAST as usize, "in each window, however late it is");
        }
        worker.in_time();
        assert!(worker.takes_on().len() > 100);
    }

    #[test]
    fn any_number_of_requests_may_be_under_way_when_it_is_late() {
        for taken in 0..200 {
            let worker = Worker::new(10_000);
            let mut admitted = worker.takes_on();
            admitted.truncate(taken);
            worker.late();
            let places = worker.overload.places.get() as usize;
            assert!(places == LEAST as usize || places < taken, "{places} after {taken}");
        }
    }

    #[test]
    fn a_late_worker_seats_in_order_those_who_can_all_be_served_in_time() {
        let worker = Worker::new(1_000);
        worker.is_very_late();
        let mut admitted = worker.takes_on();
        let mut line: Vec<_> = (0..10).map(|_| worker.ask()).collect();
        assert!(decided(&mut line).is_empty());
        worker.hand.advance(DELAY / 4);
        worker.window([TURN * 8]);
        admitted.truncate(LEAST as usize - 4);
        let first: Vec<_> = line.drain(..4).map(FutureExt::now_or_never).collect();
        assert!(first.iter().all(|told| matches!(told, Some(Ok(_)))), "{first:?}");
    }

    #[test]
    fn a_late_worker_seats_the_last_first_and_refuses_who_stood_there_for_too_long_a_few_at_a_time() {
        let worker = Worker::new(1_000);
        worker.is_very_late();
        let mut admitted = worker.takes_on();
        let many = REFUSALS_IF_LATE as usize + 50;
        let mut line: Vec<_> = (0..many).map(|_| worker.ask()).collect();
        assert!(decided(&mut line).is_empty());
        assert_eq!(worker.in_line(), many);

        worker.hand.advance(DELAY / 2);
        worker.window([TURN * 8]);
        admitted.truncate(LEAST as usize - 4);
        let last: Vec<_> = line.drain(many - 4..).map(FutureExt::now_or_never).collect();
        assert!(last.iter().all(|told| matches!(told, Some(Ok(_)))), "{last:?}");
        worker.window([TURN * 8]);
        assert!(decided(&mut line).is_empty(), "before its time");

        worker.hand.advance(DELAY * 2);
        worker.window([Duration::ZERO]);
        assert_eq!(refused(&decided(&mut line)), REFUSALS_IF_LATE as usize);
        // As much time went by as ten measurements take, and there is only so much to do.
        worker.window([TICK * 9]);
        assert_eq!(refused(&decided(&mut line)), 46);
        drop((last, admitted));
        assert_eq!((worker.in_line(), worker.overload.taken.get()), (0, 0));
    }

    #[test]
    fn the_line_has_an_end() {
        let worker = Worker::new(20);
        worker.is_very_late();
        let _admitted = worker.takes_on();
        let mut line: Vec<_> = (0..20 * LINE).map(|_| worker.ask()).collect();
        assert!(decided(&mut line).is_empty());
        assert!(matches!(worker.now(), Some(Err(_))));
    }

    #[test]
    fn who_leaves_the_line_takes_nobody_s_turn_along() {
        let worker = Worker::new(1_000);
        worker.is_very_late();
        let mut admitted = worker.takes_on();
        let mut line: Vec<_> = (0..4).map(|_| worker.ask()).collect();
        assert!(decided(&mut line).is_empty());
        // One leaves before it is told, one after.
        drop(line.remove(0));
        admitted.pop();
        drop(line.remove(0));
        assert!(matches!(decided(&mut line)[..], [Ok(_)]));
        drop(line);
        drop(admitted);
        assert_eq!((worker.in_line(), worker.overload.taken.get()), (0, 0));
    }
}
