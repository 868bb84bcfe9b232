//! Repeated failed authentication (VAL-044), where the operator wants it counted.
//!
//! Whoever sends more tokens that no issuer ever made than the operator bears is no longer told what was wrong with
//! them, but to wait. Tokens are judged first and counted after, so a good one always passes, whoever else sends from
//! that address; and only refused requests ever come here. One table for all cores, since a client's connections
//! spread over them. Knows nothing of tokens: it goes by the reason of a refusal.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::catalogue::Reason;
use crate::clock::Monotonic;
use crate::rejection::Rejection;
use crate::telemetry::patterns::one_client;

/// How many failures are borne.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailedAttemptsLimits {
    /// From one client in one window.
    pub limit: u32,
    /// How long a window lasts. It begins with the client's first failure.
    pub window: Duration,
    /// Clients that are remembered.
    pub clients: usize,
}

/// Those who failed of late. Cheap to clone; all clones count together.
#[derive(Clone, Debug, Default)]
pub struct FailedAttempts(Arc<Mutex<Table>>);

/// The windows that are open, and the order in which they were opened, which with windows of one length is that in
/// which they end.
#[derive(Debug, Default)]
struct Table {
    windows: HashMap<IpAddr, Window>,
    order: VecDeque<IpAddr>,
}

#[derive(Debug)]
struct Window {
    opened: Monotonic,
    failures: u32,
}

impl FailedAttempts {
    /// Whether a refusal counts: the token was forged, malformed or unknown. Not a missing one, nor one that was good
    /// once or would be elsewhere, nor what is nobody's fault.
    pub(super) fn counts(reason: Reason) -> bool {
        matches!(
            reason,
            Reason::IllegalCharacters
                | Reason::Malformed
                | Reason::SignatureMismatch
                | Reason::UnknownKey
                | Reason::AlgorithmNotAllowed
                | Reason::NotRecognized
        )
    }

    /// Counts a failure of this client: refused for `rejection` as long as it has failed no more than it may,
    /// otherwise for having failed too often.
    pub(super) fn count(
        &self,
        limits: FailedAttemptsLimits,
        client: IpAddr,
        now: Monotonic,
        rejection: Rejection,
    ) -> Rejection {
        match self.fail(limits, one_client(client), now) {
            None => rejection,
            Some(wait) => Rejection::new(Reason::TooManyFailures)
                .retry_after(wait)
                .log(format!("the last failure: {}", rejection.reason().name())),
        }
    }

    /// How long the client has to wait, if it has failed too often.
    fn fail(&self, limits: FailedAttemptsLimits, client: IpAddr, now: Monotonic) -> Option<Duration> {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.forget(limits, now);
        if !table.windows.contains_key(&client) {
            table.make_room(limits.clients);
            table.order.push_back(client);
        }
        let window = table.windows.entry(client).or_insert(Window { opened: now, failures: 0 });
        window.failures = window.failures.saturating_add(1);
        let over = window.failures > limits.limit;
        // Whole seconds are what `Retry-After` can say: rounded up, so that who waits that long has waited enough.
        let left = limits.window.saturating_sub(window.opened.until(now)) + Duration::from_millis(999);
        over.then_some(left)
    }
}

impl Table {
    /// Closes the windows that are over.
    fn forget(&mut self, limits: FailedAttemptsLimits, now: Monotonic) {
        while let Some(first) = self.order.front() {
            let open = self.windows.get(first).is_some_and(|window| window.opened.until(now) < limits.window);
            if open {
                break;
            }
            self.drop_first();
        }
    }

    /// Makes room for one client more: those whose windows would end first are forgotten.
    fn make_room(&mut self, clients: usize) {
        while self.order.len() >= clients && !self.order.is_empty() {
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
        if let Some(first) = self.order.pop_front() {
            self.windows.remove(&first);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{FailedAttempts, FailedAttemptsLimits};
    use crate::catalogue::Reason;
    use crate::clock::Monotonic;
    use std::time::Duration;

    const LIMITS: FailedAttemptsLimits =
        FailedAttemptsLimits { limit: 2, window: Duration::from_secs(60), clients: 3 };

    /// What comes of one more failure of this client at this second.
    fn fail(attempts: &FailedAttempts, client: &str, second: u64) -> (Reason, Option<u64>) {
        let now = Monotonic(Duration::from_secs(second));
        let refused = attempts.count(LIMITS, client.parse().unwrap(), now, Reason::SignatureMismatch.into());
        (refused.reason(), refused.wait().map(|wait| wait.as_secs()))
    }

    const TOLD: (Reason, Option<u64>) = (Reason::SignatureMismatch, None);

    fn waits(seconds: u64) -> (Reason, Option<u64>) {
        (Reason::TooManyFailures, Some(seconds))
    }

    #[test]
    fn a_client_is_told_to_wait_until_its_window_is_over() {
        let attempts = FailedAttempts::default();
        assert_eq!(fail(&attempts, "192.0.2.1", 100), TOLD);
        assert_eq!(fail(&attempts, "192.0.2.1", 110), TOLD);
        assert_eq!(fail(&attempts, "192.0.2.1", 110), waits(50));
        assert_eq!(fail(&attempts, "192.0.2.2", 110), TOLD, "another client");
        assert_eq!(fail(&attempts, "192.0.2.1", 159), waits(1));
        assert_eq!(fail(&attempts, "192.0.2.1", 160), TOLD, "a new window");
    }

    #[test]
    fn an_ipv6_client_cannot_step_aside_within_its_network() {
        let attempts = FailedAttempts::default();
        for client in ["2001:db8::1", "2001:db8::2"] {
            assert_eq!(fail(&attempts, client, 0), TOLD);
        }
        assert_eq!(fail(&attempts, "2001:db8::ffff:3", 0), waits(60));
        assert_eq!(fail(&attempts, "2001:db8:0:1::1", 0), TOLD);
        for client in ["192.0.2.1", "::ffff:192.0.2.1"] {
            assert_eq!(fail(&attempts, client, 0), TOLD);
        }
        assert_eq!(fail(&attempts, "192.0.2.1", 0), waits(60), "an IPv4 address in either form");
    }

    #[test]
    fn the_table_stays_as_small_as_it_may_be() {
        let attempts = FailedAttempts::default();
        for client in 0..1000 {
            fail(&attempts, &format!("198.51.{}.{}", client / 250, client % 250), client);
        }
        let table = attempts.0.lock().unwrap();
        assert_eq!((table.windows.len(), table.order.len()), (3, 3));
    }
}
