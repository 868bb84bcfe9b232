//! The only place that reads a clock.
//!
//! Wall time judges claims (`exp`, `nbf`, `iat`); monotonic time judges staleness and time-outs, so that a
//! wall clock that jumps cannot make a feed look fresh or a key set look old. Knows nothing of tokens.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Seconds since 1970-01-01T00:00:00Z, ignoring leap seconds (RFC 7519 section 2, `NumericDate`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixSeconds(pub i64);

impl UnixSeconds {
    /// This time moved by `by`, saturating at the ends of the range.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(by.as_secs()).unwrap_or(i64::MAX)))
    }

    /// This time moved back by `by`, saturating at the ends of the range.
    #[must_use]
    pub fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(by.as_secs()).unwrap_or(i64::MAX)))
    }
}

/// As a timestamp of RFC 3339, in UTC; the bare number if it is out of that range.
impl fmt::Display for UnixSeconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_second(self.0) {
            Ok(timestamp) => timestamp.fmt(f),
            Err(_) => self.0.fmt(f),
        }
    }
}

/// A time since 1970 as a timestamp of RFC 3339, in UTC and to the millisecond, so that texts sort as times do.
pub fn rfc3339(since_1970: Duration) -> String {
    let timestamp = i64::try_from(since_1970.as_millis()).ok().map(jiff::Timestamp::from_millisecond);
    let timestamp = timestamp.and_then(Result::ok).unwrap_or(jiff::Timestamp::MAX);
    format!("{timestamp:.3}")
}

/// A time in words, rounded down: `47 s`, `12 min`, `3 h 12 min`, `5 d 3 h`.
pub fn in_words(seconds: i64) -> String {
    match seconds {
        ..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86400, seconds % 86400 / 3600),
    }
}

/// Time since the clock was made; never goes backwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Monotonic(pub Duration);

impl Monotonic {
    /// How long before `later` this moment was; zero if it was not.
    pub fn until(self, later: Self) -> Duration {
        later.0.saturating_sub(self.0)
    }
}

/// The injected source of time. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System { origin: Instant },
    Manual(Arc<Manual>),
    Still { wall: UnixSeconds, monotonic: Monotonic },
}

#[derive(Debug)]
struct Manual {
    wall: AtomicI64,
    monotonic_millis: AtomicU64,
}

/// The hand that moves a manual [`Clock`]; for tests and for golden cases that fix the time.
#[derive(Clone, Debug)]
pub struct ClockHand(Arc<Manual>);

impl Clock {
    /// The operating system's clocks.
    #[allow(clippy::disallowed_methods, reason = "the one place that may")]
    pub fn system() -> Self {
        Self(Source::System { origin: Instant::now() })
    }

    /// A clock that stands still at `at` until its hand moves it.
    pub fn manual(at: UnixSeconds) -> (Self, ClockHand) {
        let manual = Arc::new(Manual { wall: AtomicI64::new(at.0), monotonic_millis: AtomicU64::new(0) });
        (Self(Source::Manual(Arc::clone(&manual))), ClockHand(manual))
    }

    /// This clock, stopped at this moment: what is decided by it is decided as of one time, and readings cost nothing.
    #[must_use]
    pub fn still(&self) -> Self {
        Self(Source::Still { wall: self.wall(), monotonic: self.monotonic() })
    }

    /// Wall time, for claims. A system clock before 1970 reads as 0, at which every token is 'not yet valid'
    /// or expired: closed, not open.
    #[allow(clippy::disallowed_methods, reason = "the one place that may")]
    pub fn wall(&self) -> UnixSeconds {
        match &self.0 {
            Source::System { .. } => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                UnixSeconds(i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
            }
            Source::Manual(manual) => UnixSeconds(manual.wall.load(Ordering::Relaxed)),
            Source::Still { wall, .. } => *wall,
        }
    }

    /// Monotonic time since this clock was made, for staleness and durations.
    pub fn monotonic(&self) -> Monotonic {
        match &self.0 {
            Source::System { origin } => Monotonic(origin.elapsed()),
            Source::Manual(manual) => {
                Monotonic(Duration::from_millis(manual.monotonic_millis.load(Ordering::Relaxed)))
            }
            Source::Still { monotonic, .. } => *monotonic,
        }
    }

    /// Wall time to the nanosecond, for log lines.
    #[allow(clippy::disallowed_methods, reason = "the one place that may")]
    pub fn timestamp(&self) -> Duration {
        match &self.0 {
            Source::System { .. } => SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
            Source::Manual(_) | Source::Still { .. } => {
                Duration::from_secs(u64::try_from(self.wall().0).unwrap_or_default())
            }
        }
    }
}

impl ClockHand {
    /// Moves both wall and monotonic time forward.
    pub fn advance(&self, by: Duration) {
        let millis = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.0.monotonic_millis.fetch_add(millis, Ordering::Relaxed);
        self.0.wall.fetch_add(i64::try_from(by.as_secs()).unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    /// Lets the wall clock jump, as an NTP step does, while monotonic time goes on.
    pub fn jump_wall_to(&self, at: UnixSeconds) {
        self.0.wall.store(at.0, Ordering::Relaxed);
    }
}
