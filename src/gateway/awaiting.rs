//! Waiting for the head of a response: for as long as the token lives, and the upstream's total time-out lasts.
//!
//! Neither costs a request anything that is answered soon. Knows nothing of upstreams; what it waits for is a future.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

use tokio::time::Sleep;

use super::long_lived::Stream;
use crate::catalogue::Reason;
use crate::rejection::Rejection;
use crate::upstream::BodyProgress;

/// The output of `sending`, unless the token ends first, which `watch` has an eye on from when the wait has become a long
/// one, or the `deadline` comes. What was sent of the request until then does not look whole to the API.
pub(super) async fn in_time<F: Future>(
    mut sending: Pin<&mut F>,
    progress: &BodyProgress,
    deadline: &mut Option<Pin<Box<Sleep>>>,
    watch: impl Fn() -> Option<Rc<Stream>>,
) -> Result<F::Output, Rejection> {
    let mut watched: Option<Option<Rc<Stream>>> = None;
    let outcome = poll_fn(|context| {
        if let Poll::Ready(output) = sending.as_mut().poll(context) {
            return Poll::Ready(Ok(output));
        }
        if deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(context).is_ready()) {
            let is_clients = progress.is_awaited();
            return Poll::Ready(Err(if is_clients {
                Reason::BodyTooSlow
            } else {
                Reason::UpstreamTotalTimeout
            }));
        }
        // Whoever noted it was polled by `sending` just now.
        if progress.is_slow() {
            let stream = watched.get_or_insert_with(&watch);
            if let Some(ending) = stream.as_ref().and_then(|stream| stream.poll_ended(context.waker())) {
                return Poll::Ready(Err(ending.reason()));
            }
        }
        Poll::Pending
    })
    .await;
    outcome.map_err(|reason| {
        progress.abort(reason);
        Rejection::new(reason)
    })
}
