//! The HTTP/2 connections of one core to one endpoint, which its requests share: how many streams each has room for, and
//! when another one is made.
//!
//! Requests go to the first with room, so that the later ones fall idle and can go. Knows nothing of how a connection is
//! made.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use hyper::client::conn::http2;
use tokio::sync::Notify;

use super::body::RequestBody;

/// What stands for the most streams until the other side has said how many it takes: a number that nobody would say.
/// Far above what a connection gets before it has, since its first request waits for that.
pub(super) const UNSAID: usize = 4093;

/// The most connections of one core to one endpoint. With the 100 streams that servers usually take, more requests than
/// a core can serve.
const MOST: usize = 64;

/// How often a new connection's settings are looked for, and for how long. The server sends them first of all (RFC 9113
/// section 3.4); what has not by then is used without.
const LOOK: Duration = Duration::from_millis(1);
const SETTLE: Duration = Duration::from_millis(100);

/// How often it is looked whether a connection takes more streams by now, while there are requests that wait for one.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// One HTTP/2 connection.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub sender: http2::SendRequest<RequestBody>,
    state: Rc<State>,
}

/// What is known of it.
#[derive(Debug)]
pub(super) struct State {
    /// Asks for another look at what the other side has set: hyper tells nobody when that comes.
    pub look: Notify,
    /// Whether it takes extended CONNECT (RFC 8441 section 3), once that is known.
    pub takes_extended_connect: Cell<Option<bool>>,
    /// How many streams it takes at a time (RFC 9113 section 5.1.2).
    pub most_streams: Cell<usize>,
    streams: Cell<usize>,
    /// Whom to tell of a stream that has ended, from when it has any.
    freed: OnceCell<Rc<Freed>>,
    /// It had no stream when it was last looked at.
    was_idle: Cell<bool>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            look: Notify::new(),
            takes_extended_connect: Cell::new(None),
            most_streams: Cell::new(UNSAID),
            streams: Cell::new(0),
            freed: OnceCell::new(),
            was_idle: Cell::new(false),
        }
    }
}

impl State {
    /// Notes how many streams it takes. The other side may raise that at any time (RFC 9113 section 6.5.3), and with it
    /// there is room for all who wait, up to the next look.
    pub fn takes(&self, most: usize) {
        let before = self.most_streams.replace(most);
        if let Some(freed) = self.freed.get().filter(|freed| most > before && freed.waiting.get() > 0) {
            freed.notify.notify_waiters();
        }
    }
}

impl Shared {
    /// A connection whose task keeps this state.
    pub fn new(sender: http2::SendRequest<RequestBody>, state: Rc<State>) -> Self {
        Self { sender, state }
    }

    /// Waits for the other side's settings, so that it is not given more streams than it takes.
    pub async fn settle(&self) {
        let said = async {
            while self.state.most_streams.get() == UNSAID && !self.sender.is_closed() {
                self.state.look.notify_one();
                tokio::time::sleep(LOOK).await;
            }
        };
        // One that says nothing is no worse than one without a limit.
        let _ = tokio::time::timeout(SETTLE, said).await;
    }

    /// Whether a WebSocket can be opened on it. The settings of a new connection are waited for that long; `None` if it
    /// takes nothing any more before it has said so.
    pub async fn takes_websockets(&self, patience: Duration) -> Option<bool> {
        let takes = &self.state.takes_extended_connect;
        let known = async {
            while takes.get().is_none() && !self.sender.is_closed() {
                self.state.look.notify_one();
                tokio::time::sleep(LOOK).await;
            }
        };
        if tokio::time::timeout(patience, known).await.is_err() {
            // What has not said so by now will not.
            takes.set(Some(false));
        }
        takes.get()
    }

    fn has_room(&self) -> bool {
        !self.sender.is_closed() && self.state.streams.get() < self.state.most_streams.get()
    }

    fn enter(&self) -> OnStream {
        self.state.streams.set(self.state.streams.get() + 1);
        self.state.was_idle.set(false);
        OnStream(Rc::clone(&self.state))
    }
}

/// A stream in use until this is dropped.
#[derive(Debug)]
pub(super) struct OnStream(Rc<State>);

impl Drop for OnStream {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get().saturating_sub(1));
        if let Some(freed) = self.0.freed.get().filter(|freed| freed.waiting.get() > 0) {
            freed.notify.notify_one();
        }
    }
}

/// Tells those who wait for a stream.
#[derive(Debug, Default)]
struct Freed {
    notify: Notify,
    waiting: Cell<usize>,
}

/// All HTTP/2 connections of one core to one endpoint.
#[derive(Debug, Default)]
pub(super) struct SharedPool {
    all: RefCell<Vec<Shared>>,
    freed: Rc<Freed>,
}

impl SharedPool {
    /// Takes in a new one, and a stream on it for the request that it was made for.
    pub fn add(&self, shared: &Shared) -> OnStream {
        let mut all = self.all.borrow_mut();
        all.retain(|shared| !shared.sender.is_closed());
        all.push(shared.clone());
        shared.state.freed.get_or_init(|| Rc::clone(&self.freed));
        shared.enter()
    }

    /// A connection with room for one more, and a stream on it.
    pub fn take(&self) -> Option<(Shared, OnStream)> {
        let all = self.all.borrow();
        let shared = all.iter().find(|shared| shared.has_room())?;
        Some((shared.clone(), shared.enter()))
    }

    /// Whether there is one at all, with room or not.
    pub fn is_open(&self) -> bool {
        self.all.borrow().iter().any(|shared| !shared.sender.is_closed())
    }

    /// Whether one more would help. Another connection to a server that takes no streams would have none either.
    pub fn may_grow(&self) -> bool {
        let all = self.all.borrow();
        let mut open = all.iter().filter(|shared| !shared.sender.is_closed()).peekable();
        let is_shut =
            open.peek().is_some() && open.clone().all(|shared| shared.state.most_streams.get() == 0);
        open.count() < MOST && !is_shut
    }

    /// Waits until a stream has come to its end. Another request may be faster to take its place.
    pub async fn freed(&self) {
        let _waiting = Waiting::new(&self.freed.waiting);
        self.freed.notify.notified().await;
    }

    /// After a while, has it looked whether the connections take more streams than they did; that is told to those who
    /// wait, as hyper tells nobody.
    pub async fn look_now_and_then(&self) {
        tokio::time::sleep(LOOK_AGAIN).await;
        self.all.borrow().iter().for_each(|shared| shared.state.look.notify_one());
    }

    /// Closes what is closed, and all but the first that have had nothing to do since the last time.
    pub fn prune(&self) {
        let mut is_first = true;
        self.all.borrow_mut().retain(|shared| {
            let is_idle = shared.state.streams.get() == 0;
            let has_been_idle = shared.state.was_idle.replace(is_idle) && is_idle;
            !shared.sender.is_closed() && (std::mem::take(&mut is_first) || !has_been_idle)
        });
    }
}

/// Counts as waiting until it is dropped, also by a client that goes away.
pub(super) struct Waiting<'a>(&'a Cell<usize>);

impl<'a> Waiting<'a> {
    pub fn new(count: &'a Cell<usize>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::{OnStream, State};
    use crate::upstream::body::{BodyProgress, RequestBody};

    #[test]
    fn a_stream_is_not_free_while_its_request_is_being_sent() {
        let state = Rc::<State>::default();
        let enter = || {
            state.streams.set(state.streams.get() + 1);
            OnStream(Rc::clone(&state))
        };
        let progress = Rc::new(BodyProgress::of_nothing());
        let body = RequestBody::of(Rc::clone(&progress), 0);
        let copy = body.again();
        progress.outlast(enter());
        drop(copy);
        assert_eq!(state.streams.get(), 1);
        drop(body);
        assert_eq!(state.streams.get(), 0);
        progress.outlast(enter());
        assert_eq!(state.streams.get(), 0, "the body was over first");
    }
}
