//! Overload: a core that has more to do than it can refuses some requests at once, so that the others are answered in
//! time, rather than let all of them wait for longer and longer.
//!
//! Two signals, both of this core alone. The number of requests that wait for the head of their response bounds memory
//! when upstreams are slow. The delay with which ready work gets its turn tells that the core itself is too slow. It is
//! judged as by `CoDel` (RFC 8289): a delay that goes down to the target again is a burst that is being worked off;
//! one that does not for a whole window is a standing queue. Then a share of the requests is shed, and the share moves
//! until the delay is at the target.

use std::cell::Cell;
use std::time::Duration;

use crate::catalogue::Reason;
use crate::clock::Clock;
use crate::rejection::Rejection;
use crate::telemetry::metrics::{CoreMetrics, Shed};

/// How often the delay is measured.
const TICK: Duration = Duration::from_millis(20);

/// How many measurements make a window.
const WINDOW: u32 = 5;

/// Shares are in thousandths.
const WHOLE: u32 = 1_000;

/// Some requests always pass, or it would never be known that the overload is over.
const MOST_SHED: u32 = 950;

/// How long a refused client is told to wait.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How much one core takes on.
#[derive(Clone, Copy, Debug)]
pub struct OverloadLimits {
    /// Requests that wait for the head of their response.
    pub requests: u32,
    /// For which ready work may wait for its turn.
    pub delay: Duration,
}

/// The load of one core.
#[derive(Debug)]
pub struct Overload {
    limits: Cell<OverloadLimits>,
    waiting: Cell<u32>,
    /// The share of requests that is shed.
    share: Cell<u32>,
    /// Sums shares up; whenever a whole is reached, a request is shed.
    sum: Cell<u32>,
    least_delay: Cell<Duration>,
    measured: Cell<u32>,
}

/// A request that waits for the head of its response, until this is dropped.
#[derive(Debug)]
pub struct Admitted<'a>(&'a Overload);

impl Overload {
    /// A core with nothing to do.
    pub fn new(limits: OverloadLimits) -> Self {
        let (waiting, share, sum, measured) = Default::default();
        let limits = Cell::new(limits);
        Self { limits, waiting, share, sum, measured, least_delay: Cell::new(Duration::MAX) }
    }

    /// Goes by other limits from now on.
    pub fn limit(&self, limits: OverloadLimits) {
        self.limits.set(limits);
    }

    /// Takes a request on, or refuses it.
    pub fn admit(&self, metrics: &CoreMetrics) -> Result<Admitted<'_>, Rejection> {
        let waiting = self.waiting.get();
        if waiting >= self.limits.get().requests {
            metrics.shed(Shed::Requests);
            return Err(overloaded("as many requests as overload.requests allows wait for their answers"));
        }
        if self.is_next_shed() {
            metrics.shed(Shed::Delay);
            return Err(overloaded("work waits for the worker for longer than overload.delay allows"));
        }
        self.waiting.set(waiting + 1);
        Ok(Admitted(self))
    }

    /// Measures the delay of this core. Never ends.
    pub async fn watch(&self, clock: &Clock, metrics: &CoreMetrics) {
        loop {
            let before = clock.monotonic();
            tokio::time::sleep(TICK).await;
            let delay = before.until(clock.monotonic()).saturating_sub(TICK);
            metrics.worker_delay(delay);
            self.measured(delay);
        }
    }

    fn measured(&self, delay: Duration) {
        self.least_delay.set(self.least_delay.get().min(delay));
        self.measured.set(self.measured.get() + 1);
        if self.measured.get() < WINDOW {
            return;
        }
        self.measured.set(0);
        let least = self.least_delay.replace(Duration::MAX);
        let share = self.share.get();
        let share = if least > self.limits.get().delay {
            (share + (WHOLE - share) / 8).min(MOST_SHED)
        } else {
            share.saturating_sub(share / 8 + 10)
        };
        let was = self.share.replace(share);
        if (was == 0) != (share == 0) {
            let delay = least;
            if share == 0 {
                tracing::info!(?delay, "no longer overloaded: no requests are shed");
            } else {
                tracing::warn!(?delay, "overloaded: requests are shed");
            }
        }
    }

    /// Spreads the shed requests evenly over all.
    fn is_next_shed(&self) -> bool {
        let sum = self.sum.get() + self.share.get();
        self.sum.set(sum % WHOLE);
        sum >= WHOLE
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get().saturating_sub(1));
    }
}

fn overloaded(why: &'static str) -> Rejection {
    Rejection::new(Reason::Overloaded).log(why).retry_after(RETRY_AFTER)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Overload, OverloadLimits, WINDOW};
    use crate::catalogue::Reason;
    use crate::telemetry::metrics::{CoreMetrics, Metrics};

    const TARGET: Duration = Duration::from_millis(100);

    fn overload() -> (Overload, CoreMetrics) {
        (Overload::new(OverloadLimits { requests: 3, delay: TARGET }), Metrics::new().core())
    }

    fn window(overload: &Overload, delays: impl IntoIterator<Item = Duration>) {
        delays.into_iter().for_each(|delay| overload.measured(delay));
    }

    fn shed_of(overload: &Overload, metrics: &CoreMetrics, requests: usize) -> usize {
        (0..requests).filter(|_| overload.admit(metrics).is_err()).count()
    }

    #[test]
    fn as_many_requests_wait_as_may_and_no_more() {
        let (overload, metrics) = overload();
        let admitted: Vec<_> = (0..3).map(|_| overload.admit(&metrics).unwrap()).collect();
        let refused = overload.admit(&metrics).unwrap_err();
        assert_eq!((refused.reason(), refused.wait()), (Reason::Overloaded, Some(Duration::from_secs(1))));
        drop(admitted);
        assert!(overload.admit(&metrics).is_ok());
    }

    #[test]
    fn bursts_and_pauses_of_the_whole_process_shed_nothing() {
        let (overload, metrics) = overload();
        for _ in 0..100 {
            let delays = (1..WINDOW).map(|_| TARGET * 10).chain([TARGET]);
            window(&overload, delays);
        }
        assert_eq!(shed_of(&overload, &metrics, 1_000), 0);
    }

    #[test]
    fn a_standing_queue_sheds_more_and_more_but_never_all_and_its_end_sheds_none() {
        let (overload, metrics) = overload();
        let mut before = 0;
        for _ in 0..5 {
            window(&overload, (0..WINDOW).map(|_| TARGET * 2));
            let shed = shed_of(&overload, &metrics, 1_000);
            assert!(shed > before, "{shed} after {before}");
            before = shed;
        }
        for _ in 0..100 {
            window(&overload, (0..WINDOW).map(|_| TARGET * 2));
        }
        assert_eq!(shed_of(&overload, &metrics, 1_000), 950);
        for _ in 0..30 {
            window(&overload, (0..WINDOW).map(|_| TARGET));
        }
        assert_eq!(shed_of(&overload, &metrics, 1_000), 0);
    }
}
