//! Bodies in both directions: streamed frame by frame with the peer's own back-pressure, bounded and counted.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::header::HeaderName;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use super::client::InUse;
use super::client_body::ClientBody;
use super::multiplexed::OnStream;
use super::pool::Lease;
use crate::catalogue::Reason;

/// Bounds on a request's body.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    /// The most bytes; `None` for as many as come.
    pub max_bytes: Option<u64>,
    /// How long the client may pause.
    pub idle: Duration,
    /// How many bytes a second it has to send at the least, on average over the time that it was waited for and `idle`
    /// less; 0 for any number. Only until the API has begun to answer.
    pub least_rate: u64,
    /// The parts may come as rarely as they like: gRPC messages, whose API says how long it waits for them. `idle` holds
    /// only until it has begun to answer, `least_rate` not at all.
    pub is_sparse: bool,
}

/// How far a request's body has come; shared by the body, which hyper owns while it sends, and the request's handler.
#[derive(Debug)]
pub struct BodyProgress {
    bytes: Cell<u64>,
    finished: Cell<bool>,
    failed: Cell<Option<Reason>>,
    /// The client is being waited for.
    awaited: Cell<bool>,
    /// For how long it was before.
    waited: Cell<Duration>,
    /// The API has begun to answer.
    is_answered: Cell<bool>,
    /// The head of the answer has been waited for long enough to look at what else may end the wait.
    pub(super) is_slow: Cell<bool>,
    /// It is with a connection, and the head of the answer is waited for.
    pub(super) is_sent: Cell<bool>,
    limits: BodyLimits,
    /// The fields that may follow the body (RFC 9110 section 6.5); all others are dropped.
    trailers: Vec<HeaderName>,
    source: RefCell<Source>,
    /// Who has it to send, or might.
    senders: Cell<usize>,
    /// What the last of them gives back: the stream by which the answer has come to its end before the body has.
    stream: RefCell<Option<OnStream>>,
}

/// Where the body comes from: one attempt at a time takes from it, and what it took is kept for the next.
#[derive(Debug)]
struct Source {
    incoming: Option<ClientBody>,
    /// The attempt that may take from it.
    attempt: u32,
    kept: Vec<Bytes>,
    kept_bytes: usize,
    most_kept: usize,
    /// Something was taken that is not kept.
    is_torn: bool,
    /// Who waits for the next part.
    waker: Option<Waker>,
}

/// How long a body may go on behind its answer: long enough for what is on its way, and for an API that answers early and
/// reads on to keep its connection. Nobody has an eye on the token any more, nor on how fast it comes.
const GRACE: Duration = Duration::from_secs(2);

/// The attempt that nothing takes over from.
const NO_MORE: u32 = u32::MAX;

impl BodyLimits {
    /// No more than so many bytes, for a body that is read at once and as a whole.
    pub const fn within(max_bytes: u64, idle: Duration) -> Self {
        Self { max_bytes: Some(max_bytes), idle, least_rate: 0, is_sparse: false }
    }
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

    /// Whether the client is waited for.
    pub fn is_awaited(&self) -> bool {
        self.awaited.get() && !self.finished.get()
    }

    /// For how long the client was waited for, until now.
    pub(super) fn waited(&self) -> Duration {
        self.waited.get()
    }

    /// Whether the answer's head has been waited for so long that it is worth the effort to see whether it still should.
    pub fn is_slow(&self) -> bool {
        self.is_slow.get()
    }

    /// The API has begun to answer: from now on the body may go on for as long as the answer does.
    pub fn answered(&self) {
        self.is_answered.set(true);
    }

    /// Ends the body before its time, whoever has it: what the API got of it does not look whole.
    pub fn abort(&self, reason: Reason) {
        if self.finished.get() {
            return;
        }
        self.failed.set(Some(self.failed.get().unwrap_or(reason)));
        let mut source = self.source.borrow_mut();
        source.attempt = NO_MORE;
        let (incoming, waker) = (source.incoming.take(), source.waker.take());
        drop(source);
        drop(incoming);
        waker.into_iter().for_each(Waker::wake);
    }

    /// The exchange is over, with the answer that the API meant to give: the rest of the body may follow for a moment.
    pub fn ends_soon(self: &Rc<Self>) {
        if self.finished.get() {
            return;
        }
        // What nobody sends any more ends with the exchange itself.
        let progress = Rc::downgrade(self);
        tokio::task::spawn_local(async move {
            tokio::time::sleep(GRACE).await;
            if let Some(progress) = progress.upgrade() {
                progress.abort(Reason::ClientClosed);
            }
        });
    }

    /// Keeps the stream taken until nobody has the body to send any more: it is not free before, whatever has become of
    /// the answer.
    pub(super) fn outlast(&self, stream: OnStream) {
        if self.senders.get() > 0 {
            self.stream.replace(Some(stream));
        }
    }

    /// Until when a part is waited for that has been since then, and what it means if it does not come; `None`: as long
    /// as it takes.
    fn patience(&self, since: Instant) -> Option<(Instant, Reason)> {
        let BodyLimits { idle, least_rate, is_sparse, .. } = self.limits;
        let is_answered = self.is_answered.get();
        if is_sparse && is_answered {
            return None;
        }
        let by_pause = (since + idle, Reason::BodyTimeout);
        if least_rate == 0 || is_sparse || is_answered {
            return Some(by_pause);
        }
        let earned = Duration::from_millis(self.bytes.get().saturating_mul(1000) / least_rate);
        let left = idle.saturating_add(earned).saturating_sub(self.waited.get());
        Some(if left < idle { (since + left, Reason::BodyTooSlow) } else { by_pause })
    }

    /// From now on, keeps up to this many bytes, so that the body can be sent again.
    pub(super) fn keep(&self, most: usize) {
        self.source.borrow_mut().most_kept = most;
    }

    fn of(limits: BodyLimits, trailers: Vec<HeaderName>, source: Source, finished: bool) -> Self {
        Self {
            bytes: Cell::new(0),
            finished: Cell::new(finished),
            failed: Cell::new(None),
            awaited: Cell::new(false),
            waited: Cell::new(Duration::ZERO),
            is_answered: Cell::new(false),
            is_slow: Cell::new(false),
            is_sent: Cell::new(false),
            limits,
            trailers,
            source: RefCell::new(source),
            senders: Cell::new(0),
            stream: RefCell::new(None),
        }
    }

    /// Of a request without a body.
    #[cfg(test)]
    pub(super) fn of_nothing() -> Self {
        let limits = BodyLimits { max_bytes: None, idle: Duration::MAX, least_rate: 0, is_sparse: false };
        Self::of(limits, Vec::new(), Source::none(), true)
    }

    #[cfg(test)]
    pub(super) fn took(&self, bytes: u64) {
        self.bytes.set(self.bytes.get() + bytes);
    }

    /// Whether the body can be sent from its beginning.
    pub(super) fn is_repeatable(&self) -> bool {
        !self.source.borrow().is_torn && self.failed.get().is_none()
    }
}

/// The body of a request on its way to an upstream.
#[derive(Debug)]
pub struct RequestBody {
    progress: Rc<BodyProgress>,
    attempt: u32,
    /// How many of the kept pieces this attempt has sent.
    repeated: usize,
    /// Since when the client is waited for, and the timer for that.
    since: Option<Instant>,
    pause: Option<Pin<Box<Sleep>>>,
}

/// The body did not arrive whole; the reason is in its [`BodyProgress`].
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the request's body failed: {0:?}")]
pub struct RequestBodyFailed(Reason);

impl RequestBody {
    /// Wraps a body as it comes from the client. Of its trailers those of these names pass.
    pub fn new(
        incoming: ClientBody,
        limits: BodyLimits,
        trailers: Vec<HeaderName>,
    ) -> (Self, Rc<BodyProgress>) {
        let ended = incoming.is_end_stream();
        let source = Source { incoming: (!ended).then_some(incoming), ..Source::none() };
        let progress = Rc::new(BodyProgress::of(limits, trailers, source, ended));
        (Self::of(Rc::clone(&progress), 0), progress)
    }

    /// The body once more, from its beginning, for an attempt of its own. It must be repeatable still when this
    /// attempt begins, and ends all attempts before.
    pub(super) fn again(&self) -> Self {
        Self::of(Rc::clone(&self.progress), self.attempt + 1)
    }

    pub(super) fn of(progress: Rc<BodyProgress>, attempt: u32) -> Self {
        progress.senders.set(progress.senders.get() + 1);
        Self { progress, attempt, repeated: 0, since: None, pause: None }
    }

    /// Whether fields may follow the body.
    pub(super) fn has_trailers(&self) -> bool {
        !self.progress.trailers.is_empty()
    }

    fn fail(&mut self, reason: Reason) -> Poll<Option<Result<Frame<Bytes>, RequestBodyFailed>>> {
        self.progress.failed.set(Some(reason));
        self.progress.source.borrow_mut().incoming = None;
        Poll::Ready(Some(Err(RequestBodyFailed(reason))))
    }

    /// Waits for the client; ends with what it means that nothing came.
    #[allow(clippy::disallowed_methods, reason = "the runtime's own time, which its timers go by")]
    fn wait(&mut self, context: &mut Context<'_>) -> Poll<Reason> {
        self.progress.awaited.set(true);
        let since = *self.since.get_or_insert_with(Instant::now);
        loop {
            let Some((until, reason)) = self.progress.patience(since) else { return Poll::Pending };
            let sleep = self.pause.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
            if sleep.deadline() != until {
                sleep.as_mut().reset(until);
            }
            ready!(sleep.as_mut().poll(context));
            // The API may have begun to answer meanwhile, and that changes it.
            if self.progress.patience(since).is_some_and(|(now, _)| now == until) {
                return Poll::Ready(reason);
            }
        }
    }

    #[allow(clippy::disallowed_methods, reason = "as above")]
    fn came(&mut self) {
        self.progress.awaited.set(false);
        if let Some(since) = self.since.take() {
            self.pause = None;
            self.progress.waited.set(self.progress.waited.get().saturating_add(since.elapsed()));
        }
    }

    /// The next frame from the client.
    fn poll_client(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyFailed>>> {
        let frame = {
            let mut source = self.progress.source.borrow_mut();
            let Some(incoming) = &mut source.incoming else { return Poll::Ready(None) };
            let frame = Pin::new(incoming).poll_frame(context);
            if frame.is_pending()
                && !source.waker.as_ref().is_some_and(|held| held.will_wake(context.waker()))
            {
                source.waker = Some(context.waker().clone());
            }
            frame
        };
        match frame {
            Poll::Pending => {
                let reason = ready!(self.wait(context));
                self.fail(reason)
            }
            Poll::Ready(None) => {
                self.finish();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => {
                let reason = if error.is_parse() { Reason::AmbiguousFraming } else { Reason::ClientClosed };
                self.fail(reason)
            }
            Poll::Ready(Some(Ok(frame))) => {
                self.came();
                match frame.into_data() {
                    Ok(data) => self.pass_data(data),
                    Err(frame) => Poll::Ready(self.pass_trailers(&frame.into_trailers().unwrap_or_default())),
                }
            }
        }
    }

    fn pass_data(&mut self, data: Bytes) -> Poll<Option<Result<Frame<Bytes>, RequestBodyFailed>>> {
        let total = self.progress.bytes.get().saturating_add(data.len() as u64);
        self.progress.bytes.set(total);
        if self.progress.limits.max_bytes.is_some_and(|most| total > most) {
            return self.fail(Reason::BodyTooLarge);
        }
        self.repeated = self.progress.source.borrow_mut().keep(&data);
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    /// Trailers could carry what the header rules removed: only those pass whose names were allowed beforehand.
    fn pass_trailers(&mut self, trailers: &HeaderMap) -> Option<Result<Frame<Bytes>, RequestBodyFailed>> {
        self.finish();
        self.progress.source.borrow_mut().is_torn = true;
        let mut passing = HeaderMap::new();
        for name in &self.progress.trailers {
            for value in trailers.get_all(name) {
                passing.append(name, value.clone());
            }
        }
        (!passing.is_empty()).then(|| Ok(Frame::trailers(passing)))
    }

    fn finish(&self) {
        self.progress.source.borrow_mut().incoming = None;
        self.progress.finished.set(true);
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        let left = self.progress.senders.get().saturating_sub(1);
        self.progress.senders.set(left);
        if left == 0 {
            drop(self.progress.stream.take());
        }
    }
}

impl Source {
    fn none() -> Self {
        Self {
            incoming: None,
            attempt: 0,
            kept: Vec::new(),
            kept_bytes: 0,
            most_kept: 0,
            is_torn: false,
            waker: None,
        }
    }

    /// Keeps a piece if there is room; returns how many are kept.
    fn keep(&mut self, data: &Bytes) -> usize {
        self.kept_bytes = self.kept_bytes.saturating_add(data.len());
        if self.kept_bytes <= self.most_kept && !self.is_torn {
            self.kept.push(data.clone());
        } else {
            self.is_torn = true;
            self.kept = Vec::new();
        }
        self.kept.len()
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
        let kept = {
            let mut source = this.progress.source.borrow_mut();
            if source.attempt > this.attempt {
                // Another attempt has taken over, or none shall; to the connection of this one the body must not look whole.
                let reason = this.progress.failed.get().unwrap_or(Reason::UpstreamReset);
                return Poll::Ready(Some(Err(RequestBodyFailed(reason))));
            }
            source.attempt = this.attempt;
            source.kept.get(this.repeated).cloned()
        };
        if let Some(data) = kept {
            this.repeated += 1;
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        this.poll_client(context)
    }

    fn is_end_stream(&self) -> bool {
        let source = self.progress.source.borrow();
        source.attempt != NO_MORE
            && source.kept.len() <= self.repeated
            && source.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let source = self.progress.source.borrow();
        let kept: u64 = source.kept.iter().skip(self.repeated).map(|data| data.len() as u64).sum();
        let rest = source.incoming.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint);
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(kept));
        // With trailers to follow, HTTP/1.1 has to frame the body in chunks, whatever its length.
        let may_be_exact = source.incoming.is_none() || !self.has_trailers();
        if let Some(upper) = rest.upper().filter(|_| may_be_exact) {
            hint.set_upper(upper.saturating_add(kept));
        }
        hint
    }
}

/// The body of an upstream's response. Its connection goes back to the pool when it was read to its end, and is
/// closed if it was not.
#[derive(Debug)]
pub struct UpstreamBody {
    incoming: Incoming,
    lease: Option<Lease>,
    in_use: Option<InUse>,
}

impl UpstreamBody {
    pub(super) fn new(incoming: Incoming, lease: Option<Lease>, in_use: InUse) -> Self {
        let mut body = Self { incoming, lease, in_use: Some(in_use) };
        if body.incoming.is_end_stream() {
            body.give_back();
        }
        body
    }

    /// What the exchange keeps busy, if it is to go on after its response's end as another protocol.
    pub fn take_in_use(&mut self) -> Option<InUse> {
        self.in_use.take()
    }

    fn give_back(&mut self) {
        self.in_use = None;
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
