//! The stream that hyper reads from.

use std::future::Future;
use std::io::{self, IoSlice};
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::framing::{Cleared, Framing, Stop};
use super::handle::{Direction, GuardHandle, Shared};
use super::limits::GuardLimits;
use super::stash::Stash;
use super::violation::Violation;
use crate::catalogue::Reason;

/// What hyper gets in the place of a refused head. It carries nothing of the client's; that it stands for a refusal
/// is known by its ordinal alone, so a client that sends the same bytes gains nothing. `close` makes hyper shut the
/// connection behind the answer.
const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n";

/// A stream that yields only what is beyond doubt. Give it to hyper in a `TokioIo`; writes pass through.
///
/// Bytes are read straight into the parser's buffer and checked there. Only what must wait, such as a head that came
/// in part, is copied aside. Needs a runtime with its timer enabled.
#[derive(Debug)]
pub struct Guard<S> {
    stream: S,
    mode: Mode,
    framing: Framing,
    pub(super) stash: Stash,
    shared: Arc<Shared>,
    /// Runs while a head is incomplete.
    head_timeout: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug)]
enum Mode {
    Http,
    /// Upgraded: no longer ours to judge.
    Tunnel,
    /// Nothing that the client sends is read any more.
    RefusedHead {
        stand_in: &'static [u8],
    },
    RefusedBody(Violation),
}

impl<S> Guard<S> {
    /// Guards a stream at the start of an HTTP/1.1 connection.
    pub fn new(stream: S, limits: GuardLimits) -> (Self, GuardHandle) {
        let (handle, shared) = GuardHandle::new();
        let guard = Self {
            stream,
            mode: Mode::Http,
            framing: Framing::new(limits),
            stash: Stash::default(),
            shared,
            head_timeout: None,
        };
        (guard, handle)
    }

    /// The stream, and bytes read from it that were not handed on. After an upgrade they are the tunnel's first,
    /// behind those that hyper gives back itself.
    pub fn into_inner(mut self) -> (S, Vec<u8>) {
        (self.stream, self.stash.take())
    }
}

impl<S: AsyncRead + Unpin> Guard<S> {
    /// One step as long as this is HTTP: `Break` with bytes in `buf`, or none at the end of the stream; `Continue`
    /// to look again.
    fn poll_http(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<ControlFlow<()>>> {
        if self.stash.has_cleared() {
            self.stash.deliver(buf);
            return Poll::Ready(Ok(ControlFlow::Break(())));
        }
        let Cleared { len, stop } = clear(&mut self.framing, &self.shared, self.stash.doubtful());
        if len > 0 {
            self.stash.clear(len);
            return Poll::Ready(Ok(ControlFlow::Continue(())));
        }
        match stop {
            Stop::More | Stop::Boundary => self.poll_more(cx, buf),
            Stop::Crossroads => self.poll_crossroads(cx, buf),
            Stop::Refused { violation, in_body } => {
                self.refuse(violation, in_body);
                Poll::Ready(Ok(ControlFlow::Continue(())))
            }
        }
    }

    /// Reads into the parser's buffer, and leaves there what is clear.
    fn poll_more(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<ControlFlow<()>>> {
        let start = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_pending() {
            return self.poll_head_timeout(cx).map(|()| Ok(ControlFlow::Continue(())));
        }
        self.shared.awaits_head(false);
        ready!(read)?;
        let arrived = buf.filled().get(start..).unwrap_or_default();
        if arrived.is_empty() {
            return Poll::Ready(Ok(self.end_of_stream()));
        }
        // What is stashed goes first; what is behind a message's end waits.
        let len = if self.stash.is_empty() { clear(&mut self.framing, &self.shared, arrived).len } else { 0 };
        self.stash.push(arrived.get(len..).unwrap_or_default());
        buf.set_filled(start + len);
        Poll::Ready(Ok(if len > 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }))
    }

    /// Behind a request that offers an upgrade: holds back what follows until the service has decided.
    fn poll_crossroads(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<ControlFlow<()>>> {
        match self.shared.poll_direction(cx, self.framing.heads()) {
            Poll::Ready(Direction::Http) => self.framing.stay_http(),
            Poll::Ready(Direction::Tunnel) => self.mode = Mode::Tunnel,
            Poll::Pending if self.stash.is_empty() => {
                // Reading on is how a client that leaves is noticed; one read is all that is held.
                let start = buf.filled().len();
                ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
                let arrived = buf.filled().get(start..).unwrap_or_default();
                if arrived.is_empty() {
                    return Poll::Ready(Ok(ControlFlow::Break(())));
                }
                self.stash.push(arrived);
                buf.set_filled(start);
            }
            Poll::Pending => return Poll::Pending,
        }
        Poll::Ready(Ok(ControlFlow::Continue(())))
    }

    fn poll_head_timeout(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.framing.in_head() || self.stash.is_empty() {
            self.head_timeout = None;
            self.shared.awaits_head(self.framing.in_head());
            return Poll::Pending;
        }
        let timeout = self.framing.limits().head_timeout;
        let sleep = self.head_timeout.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        ready!(sleep.as_mut().poll(cx));
        self.refuse(Violation::new(Reason::HeaderTimeout, "the head was not complete in time"), false);
        Poll::Ready(())
    }

    fn end_of_stream(&mut self) -> ControlFlow<()> {
        if self.framing.in_head() && !self.stash.is_empty() {
            self.refuse(Violation::malformed("the connection ended within a request's head"), false);
            return ControlFlow::Continue(());
        }
        // Between messages this is a plain close; within a body hyper makes it the body's error.
        ControlFlow::Break(())
    }

    fn refuse(&mut self, violation: Violation, in_body: bool) {
        let heads = self.framing.heads();
        self.shared.refuse(if in_body { heads } else { heads + 1 }, in_body, violation);
        self.mode =
            if in_body { Mode::RefusedBody(violation) } else { Mode::RefusedHead { stand_in: STAND_IN } };
        self.stash = Stash::default();
        self.head_timeout = None;
    }
}

/// Clears bytes, and tells the handle of each head among them before the parser can see it.
fn clear(framing: &mut Framing, shared: &Shared, bytes: &[u8]) -> Cleared {
    let heads = framing.heads();
    let cleared = framing.clear(bytes);
    if framing.heads() > heads {
        shared.release(framing.heads(), framing.offers_upgrade());
    }
    cleared
}

/// The stand-in, and then silence: an end of stream would make hyper drop the response that it is about to write.
fn poll_stand_in(stand_in: &mut &'static [u8], buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
    let (now, later) = stand_in.split_at_checked(buf.remaining()).unwrap_or((stand_in, &[]));
    if now.is_empty() {
        return Poll::Pending;
    }
    buf.put_slice(now);
    *stand_in = later;
    Poll::Ready(Ok(()))
}

impl<S: AsyncRead + Unpin> AsyncRead for Guard<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let guard = self.get_mut();
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            match &mut guard.mode {
                Mode::Http => {
                    if ready!(guard.poll_http(cx, buf))?.is_break() {
                        return Poll::Ready(Ok(()));
                    }
                }
                Mode::Tunnel if guard.stash.is_empty() => {
                    return Pin::new(&mut guard.stream).poll_read(cx, buf);
                }
                Mode::Tunnel => {
                    guard.stash.clear(guard.stash.doubtful().len());
                    guard.stash.deliver(buf);
                    return Poll::Ready(Ok(()));
                }
                Mode::RefusedHead { stand_in } => return poll_stand_in(stand_in, buf),
                Mode::RefusedBody(violation) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, *violation)));
                }
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guard<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let guard = self.get_mut();
        guard.shared.owes_flush(true);
        Pin::new(&mut guard.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let guard = self.get_mut();
        guard.shared.owes_flush(true);
        Pin::new(&mut guard.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let guard = self.get_mut();
        let outcome = Pin::new(&mut guard.stream).poll_flush(cx);
        guard.shared.owes_flush(!matches!(outcome, Poll::Ready(Ok(()))));
        outcome
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let guard = self.get_mut();
        guard.shared.ends();
        Pin::new(&mut guard.stream).poll_shutdown(cx)
    }
}
