//! Bodies in both directions: streamed frame by frame with the peer's own back-pressure, bounded and counted.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use super::pool::Lease;
use crate::catalogue::Reason;

/// Bounds on a request's body.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    /// The most bytes; `None` for as many as come.
    pub max_bytes: Option<u64>,
    /// How long the client may pause.
    pub idle: Duration,
}

/// How far a request's body has come; shared by the body, which hyper owns while it sends, and the request's handler.
#[derive(Debug, Default)]
pub struct BodyProgress {
    bytes: Cell<u64>,
    finished: Cell<bool>,
    failed: Cell<Option<Reason>>,
}

impl BodyProgress {
    /// Bytes taken from the client so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// Whether the whole body was taken.
    pub fn is_finished(&self) -> bool {
        self.finished.get()
    }

    /// Why the body failed, if it did.
    pub fn failure(&self) -> Option<Reason> {
        self.failed.get()
    }
}

/// The body of a request on its way to an upstream.
#[derive(Debug)]
pub struct RequestBody {
    incoming: Option<Incoming>,
    limits: BodyLimits,
    progress: Rc<BodyProgress>,
    pause: Option<Pin<Box<Sleep>>>,
}

/// The body did not arrive whole; the reason is in its [`BodyProgress`].
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the request's body failed: {0:?}")]
pub struct RequestBodyFailed(Reason);

impl RequestBody {
    /// Wraps a body as it comes from the client.
    pub fn new(incoming: Incoming, limits: BodyLimits) -> (Self, Rc<BodyProgress>) {
        let progress = Rc::new(BodyProgress::default());
        let ended = incoming.is_end_stream();
        progress.finished.set(ended);
        let incoming = (!ended).then_some(incoming);
        (Self { incoming, limits, progress: Rc::clone(&progress), pause: None }, progress)
    }

    /// The same again, for a request without a body; `None` if it has one.
    pub(super) fn repeated(&self) -> Option<Self> {
        let Self { incoming: None, limits, progress, .. } = self else { return None };
        Some(Self { incoming: None, limits: *limits, progress: Rc::clone(progress), pause: None })
    }

    fn fail(&mut self, reason: Reason) -> Poll<Option<Result<Frame<Bytes>, RequestBodyFailed>>> {
        self.progress.failed.set(Some(reason));
        self.incoming = None;
        Poll::Ready(Some(Err(RequestBodyFailed(reason))))
    }

    fn wait(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let idle = self.limits.idle;
        self.pause.get_or_insert_with(|| Box::pin(tokio::time::sleep(idle))).as_mut().poll(context)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = RequestBodyFailed;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyFailed>>> {
        let this = &mut *self;
        let Some(incoming) = &mut this.incoming else { return Poll::Ready(None) };
        match Pin::new(incoming).poll_frame(context) {
            Poll::Pending => {
                ready!(this.wait(context));
                this.fail(Reason::BodyTimeout)
            }
            Poll::Ready(None) => {
                this.incoming = None;
                this.progress.finished.set(true);
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => {
                let reason = if error.is_parse() { Reason::AmbiguousFraming } else { Reason::ClientClosed };
                this.fail(reason)
            }
            Poll::Ready(Some(Ok(frame))) => {
                this.pause = None;
                let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                let total = this.progress.bytes.get().saturating_add(length);
                this.progress.bytes.set(total);
                if this.limits.max_bytes.is_some_and(|most| total > most) {
                    return this.fail(Reason::BodyTooLarge);
                }
                // Trailers could carry what the header rules removed, and no rule here needs them to pass.
                if frame.is_trailers() {
                    this.incoming = None;
                    this.progress.finished.set(true);
                    return Poll::Ready(None);
                }
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

/// The body of an upstream's response. Its connection goes back to the pool when it was read to its end, and is
/// closed if it was not.
#[derive(Debug)]
pub struct UpstreamBody {
    incoming: Incoming,
    lease: Option<Lease>,
}

impl UpstreamBody {
    pub(super) fn new(incoming: Incoming, lease: Option<Lease>) -> Self {
        let mut body = Self { incoming, lease };
        if body.incoming.is_end_stream() {
            body.give_back();
        }
        body
    }

    fn give_back(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.give_back();
        }
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(context));
        if frame.is_none() || (frame.as_ref().is_some_and(Result::is_ok) && self.incoming.is_end_stream()) {
            self.give_back();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// Resolves when `limit` has passed without progress of the body or, once it is finished, since then.
pub(super) async fn stalled(progress: &BodyProgress, limit: Duration) {
    let sleep = tokio::time::sleep(limit);
    tokio::pin!(sleep);
    let mut seen = (progress.bytes(), progress.is_finished());
    loop {
        sleep.as_mut().await;
        let now = (progress.bytes(), progress.is_finished());
        if now == seen {
            return;
        }
        seen = now;
        let deadline: Instant = sleep.deadline() + limit;
        sleep.as_mut().reset(deadline);
    }
}
