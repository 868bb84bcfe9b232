//! Turns: what one HTTP/2 connection may read before the others of its core have their turn, and its end when most of
//! that is noise.
//!
//! The HTTP/2 library works through all frames that it can read. Small ones come by the thousand in what a socket holds,
//! so that a few connections would keep a core from everybody else.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::calm::Calm;
use super::conduct::Conduct;

/// Some thousand of the smallest frames, or one of the largest that clients send: far below a millisecond of work.
const TURN: usize = 16 * 1024;

/// GOAWAY with `ENHANCE_YOUR_CALM` for a connection on which streams may have been processed (RFC 9113 section 6.8).
const GOAWAY: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 11];

/// A stream that is read for no more than a turn at a time, and ended when its client floods it.
#[derive(Debug)]
pub struct Turns<S> {
    stream: S,
    /// Bytes read since it was last waited for.
    taken: usize,
    calm: Calm,
    conduct: Rc<Conduct>,
    is_closing: bool,
}

impl<S> Turns<S> {
    /// Wraps a stream.
    pub fn new(stream: S, calm: Calm, conduct: Rc<Conduct>) -> Self {
        Self { stream, taken: 0, calm, conduct, is_closing: false }
    }
}

impl<S> Turns<S> {
    fn sent(&mut self, data: &[u8]) {
        let conduct = &self.conduct;
        self.calm.sent(data, |code| conduct.stream_reset(code.into()));
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Turns<S> {
    /// Says why, if there is room to, and closes.
    fn poll_goodbye(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_closing && self.calm.is_between_frames() {
            // What does not fit at once is not waited for: the client does not read.
            let _ = Pin::new(&mut self.stream).poll_write(cx, &GOAWAY)?;
        }
        self.is_closing = true;
        ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        Poll::Ready(Err(io::Error::other("too many frames that carry nothing of a request")))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Turns<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.conduct.is_flood() {
            return this.poll_goodbye(cx);
        }
        if this.taken >= TURN {
            this.taken = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let outcome = Pin::new(&mut this.stream).poll_read(cx, buf);
        this.taken = if outcome.is_pending() { 0 } else { this.taken + buf.filled().len() - before };
        if !this.calm.received(buf.filled().get(before..).unwrap_or_default()) {
            buf.set_filled(before);
            this.conduct.floods();
            return this.poll_goodbye(cx);
        }
        outcome
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Turns<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_closing {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let outcome = Pin::new(&mut self.stream).poll_write(cx, data);
        if let Poll::Ready(Ok(written)) = outcome {
            self.sent(data.get(..written).unwrap_or_default());
        }
        outcome
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.is_closing {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, data);
        if let Poll::Ready(Ok(mut written)) = outcome {
            for part in data {
                let taken = written.min(part.len());
                self.sent(part.get(..taken).unwrap_or_default());
                written -= taken;
            }
        }
        outcome
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::{Calm, Conduct, TURN, Turns};
    use crate::clock::Clock;
    use crate::telemetry::metrics::Metrics;
    use std::cell::Cell;
    use std::rc::Rc;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    fn conduct() -> Rc<Conduct> {
        let metrics = Rc::new(Metrics::new().core());
        Rc::new(Conduct::new("127.0.0.1:1".parse().unwrap(), "l".into(), metrics))
    }

    #[tokio::test]
    async fn a_stream_that_never_ends_lets_others_have_their_turn() {
        let read = Rc::new(Cell::new(0));
        let flood = async {
            // One frame of DATA that never ends is what all these bytes are.
            let stream = tokio::io::join(tokio::io::repeat(0xff), tokio::io::sink());
            let mut stream = Turns::new(stream, Calm::new(1, Clock::system()), conduct());
            let mut buffer = [0; 1024];
            loop {
                read.set(read.get() + stream.read(&mut buffer).await.unwrap());
            }
        };
        let others = async {
            for turn in 1..=3 {
                assert_eq!(read.get(), turn * TURN);
                tokio::task::yield_now().await;
            }
        };
        // The flood is first in line, and never waits for anything.
        tokio::select! { biased; () = flood => {}, () = others => {} }
    }

    #[tokio::test]
    async fn a_flood_is_told_to_calm_down_and_none_of_it_is_passed_on() {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        let conduct = conduct();
        let mut stream = Turns::new(server, Calm::new(1000, Clock::system()), Rc::clone(&conduct));
        client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        assert_eq!(stream.read(&mut [0; 100]).await.unwrap(), 24);
        client.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0].repeat(10_000)).await.unwrap();
        let read = stream.read(&mut vec![0; 100_000]).await;
        assert!(read.is_err() && conduct.is_flood(), "{read:?}");
        let mut told = Vec::new();
        client.read_to_end(&mut told).await.unwrap();
        assert_eq!(told, super::GOAWAY);
    }
}
