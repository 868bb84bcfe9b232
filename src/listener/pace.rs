//! The pace at which a client takes an HTTP/2 response: a stream whose window stays shut for too long is reset.
//!
//! [`super::linger`] notices a client that does not read its connection. By HTTP/2 a client may read, answer pings, and
//! all the same never open the windows of its streams (CVE-2019-9517), and would hold their responses and the
//! upstream's connections behind them for as long as it likes. The library waits for a window without a limit, and
//! nothing but the task of the stream can end it; so that is where the time is taken.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

/// The most that is handed over at a time, which is then what a client has to take in the time that it has: the size of
/// a frame that every client takes (RFC 9113 section 4.2).
const PIECE: usize = 16 * 1024;

tokio::task_local! {
    static PACE: Rc<Pace>;
}

/// How far one stream's response is.
#[derive(Debug, Default)]
struct Pace {
    /// Pieces handed over.
    pieces: Cell<u64>,
    /// The last of them waits for the client, as far as is known.
    is_waiting: Cell<bool>,
    /// Held for as long as the stream is a WebSocket.
    websocket: RefCell<Weak<()>>,
}

/// What whoever carries the current stream's WebSocket has to hold until it is over.
pub fn hold_websocket() -> Arc<()> {
    let hold = Arc::new(());
    // Outside of any stream there is nothing to hold.
    let _ = PACE.try_with(|pace| pace.websocket.replace(Arc::downgrade(&hold)));
    hold
}

/// Runs the streams of HTTP/2 connections, each a task, and drops those whose clients take nothing for too long.
#[derive(Clone, Debug)]
pub struct StreamExecutor {
    limit: Duration,
}

impl StreamExecutor {
    /// `limit` is how long a client may take nothing of a response that is there for it.
    pub fn new(limit: Duration) -> Self {
        Self { limit }
    }
}

impl<F: Future + 'static> hyper::rt::Executor<F> for StreamExecutor {
    fn execute(&self, stream: F) {
        // What a stream's own task begins is the way to the client of the WebSocket that the stream has become.
        if let Ok(websocket) = PACE.try_with(|pace| pace.websocket.borrow().clone()) {
            tokio::task::spawn_local(unless_left_over(stream, websocket, self.limit));
            return;
        }
        let pace = Rc::new(Pace::default());
        tokio::task::spawn_local(PACE.scope(Rc::clone(&pace), unless_stalled(stream, pace, self.limit)));
    }
}

/// Serves a stream until it is done, or its client has taken nothing for too long.
async fn unless_stalled(stream: impl Future, pace: Rc<Pace>, limit: Duration) {
    let mut stream = pin!(stream);
    // Since which piece the client is waited for, and for how long yet.
    let mut stalled: Option<(u64, Pin<Box<Sleep>>)> = None;
    poll_fn(|cx| {
        if stream.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        if !pace.is_waiting.get() {
            stalled = None;
            return Poll::Pending;
        }
        let pieces = pace.pieces.get();
        let (since, sleep) = stalled.get_or_insert_with(|| (pieces, Box::pin(tokio::time::sleep(limit))));
        if *since != pieces {
            *since = pieces;
            sleep.as_mut().set(tokio::time::sleep(limit));
        }
        ready!(sleep.as_mut().poll(cx));
        tracing::debug!("a stream was reset: its client does not open the window");
        Poll::Ready(())
    })
    .await;
}

/// Sends what a WebSocket has for its client; what the client has not taken long after the WebSocket was over is dropped.
async fn unless_left_over(sending: impl Future, websocket: Weak<()>, limit: Duration) {
    let left_over = async {
        loop {
            let was_over = websocket.strong_count() == 0;
            tokio::time::sleep(limit).await;
            if was_over {
                return;
            }
        }
    };
    tokio::select! {
        biased;
        _ = sending => {}
        () = left_over => tracing::debug!("the end of a WebSocket was reset: its client does not open the window"),
    }
}

/// A response's body, handed over in pieces that are counted.
#[derive(Debug)]
pub struct Paced<B> {
    body: B,
    rest: Bytes,
    pace: Option<Rc<Pace>>,
}

impl<B> Paced<B> {
    /// The body of the response that the current task serves.
    pub fn new(body: B) -> Self {
        Self { body, rest: Bytes::new(), pace: PACE.try_with(Rc::clone).ok() }
    }

    fn note(&self, handed_over: bool) {
        if let Some(pace) = &self.pace {
            pace.pieces.set(pace.pieces.get().wrapping_add(u64::from(handed_over)));
            pace.is_waiting.set(handed_over);
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Paced<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = &mut *self;
        if this.rest.is_empty() {
            this.note(false);
            match ready!(Pin::new(&mut this.body).poll_frame(cx)).map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => this.rest = data,
                Some(Ok(Err(other))) => return Poll::Ready(Some(Ok(other))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
        this.note(true);
        let piece = this.rest.split_to(this.rest.len().min(PIECE));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = u64::try_from(self.rest.len()).unwrap_or(u64::MAX);
        let of_body = self.body.size_hint();
        let mut hint = SizeHint::new();
        if let Some(upper) = of_body.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint.set_lower(of_body.lower().saturating_add(rest));
        hint
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, Full};
    use hyper::rt::Executor as _;
    use tokio::task::LocalSet;
    use tokio::time::sleep;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    /// A stream of which a piece is taken each time that this is over; whether it is over itself after ten times the
    /// limit, and so has given up what it held.
    async fn ends(takes_every: Duration) -> bool {
        let held = Rc::new(());
        let place = Rc::clone(&held);
        StreamExecutor::new(LIMIT).execute(async move {
            let mut body = Paced::new(Full::new(Bytes::from(vec![b'x'; 1000 * PIECE])));
            // As the library does it: a piece is fetched once the one before is taken.
            while body.frame().await.is_some() {
                sleep(takes_every).await;
            }
            drop(place);
        });
        sleep(10 * LIMIT).await;
        Rc::strong_count(&held) == 1
    }

    #[tokio::test(start_paused = true)]
    async fn the_task_of_a_stream_ends_whose_client_takes_nothing_and_no_other() {
        LocalSet::new()
            .run_until(async {
                assert!(ends(100 * LIMIT).await && ends(LIMIT + LIMIT / 10).await);
                assert!(!ends(LIMIT / 2).await);
            })
            .await;
    }
}
