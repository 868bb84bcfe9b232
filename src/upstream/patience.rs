//! How long a response is waited for.

use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::body::BodyProgress;

/// The timer of one connection, which is kept from request to request: to arm and disarm one for each would cost more
/// than to have it fire in vain now and then.
#[derive(Debug, Default)]
pub(super) struct Patience(Option<Pin<Box<Sleep>>>);

/// After how long the wait is worth a closer look: see [`BodyProgress::is_slow`].
const SLOW: Duration = Duration::from_secs(1);

impl Patience {
    /// Resolves when `limit` has passed without progress of the body or, once it is finished, since then; from now on.
    /// Notes on the way that the wait has become a long one.
    #[allow(
        clippy::disallowed_methods,
        reason = "the runtime's own time, which its timers go by and tests hold still"
    )]
    pub async fn ends(&mut self, progress: &BodyProgress, limit: Duration) {
        let mut now = Instant::now();
        let (begun, mut since) = (now, now);
        let tick = limit.min(SLOW);
        let sleep = self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(now + tick)));
        if sleep.deadline() > now + tick {
            sleep.as_mut().reset(now + tick);
        }
        let mut seen = (progress.bytes(), progress.is_finished());
        loop {
            sleep.as_mut().await;
            // What is left of an earlier request may fire at once.
            now = now.max(sleep.deadline());
            if now >= begun + SLOW {
                progress.is_slow.set(true);
            }
            let is_at = (progress.bytes(), progress.is_finished());
            if is_at != seen {
                // What came since may have come at any time until now, but not later.
                since = now;
                seen = is_at;
            } else if now >= since + limit {
                return;
            }
            sleep.as_mut().reset((now + tick).min(since + limit));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{Instant, advance};

    use super::Patience;
    use crate::upstream::body::BodyProgress;

    const LIMIT: Duration = Duration::from_secs(10);

    #[allow(clippy::disallowed_methods, reason = "as above")]
    async fn waited(patience: &mut Patience, progress: &BodyProgress) -> Duration {
        let begun = Instant::now();
        patience.ends(progress, LIMIT).await;
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn each_response_has_the_whole_time_whatever_the_timer_was_at() {
        let (mut patience, finished) = (Patience::default(), BodyProgress::of_nothing());
        for pause in [0, 4, 9, 10, 25] {
            // A request that is answered in time leaves the timer where it is.
            let answered =
                tokio::time::timeout(Duration::from_secs(1), patience.ends(&finished, LIMIT)).await;
            assert!(answered.is_err());
            advance(Duration::from_secs(pause)).await;
            let waited = waited(&mut patience, &finished).await;
            assert!((LIMIT..LIMIT + Duration::from_millis(2)).contains(&waited), "{pause}: {waited:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_comes_is_waited_for() {
        let (mut patience, progress) = (Patience::default(), BodyProgress::of_nothing());
        let coming = async {
            for _ in 0..5 {
                tokio::time::sleep(LIMIT.mul_f32(0.9)).await;
                progress.took(1);
            }
            std::future::pending::<()>().await;
        };
        let waited = tokio::select! {
            waited = waited(&mut patience, &progress) => waited,
            () = coming => unreachable!(),
        };
        assert!(waited >= LIMIT.mul_f32(5.5), "{waited:?}");
    }
}
