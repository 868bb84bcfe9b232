//! Turns: what one HTTP/2 connection may read before the others of its core have their turn.
//!
//! The HTTP/2 library works through all frames that it can read. Small ones, such as PING and SETTINGS, come by the
//! ten thousand in what a socket holds, so that a few connections that send nothing else (CVE-2019-9512,
//! CVE-2019-9515) would keep a core from everybody else.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Some thousand of the smallest frames, or one of the largest that clients send: far below a millisecond of work.
const TURN: usize = 16 * 1024;

/// A stream that is read for no more than a turn at a time.
#[derive(Debug)]
pub struct Turns<S> {
    stream: S,
    /// Bytes read since it was last waited for.
    taken: usize,
}

impl<S> Turns<S> {
    /// Wraps a stream.
    pub fn new(stream: S) -> Self {
        Self { stream, taken: 0 }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Turns<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.taken >= TURN {
            this.taken = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let outcome = Pin::new(&mut this.stream).poll_read(cx, buf);
        this.taken = if outcome.is_pending() { 0 } else { this.taken + buf.filled().len() - before };
        outcome
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Turns<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, data)
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
    use super::{TURN, Turns};
    use std::cell::Cell;
    use std::rc::Rc;
    use tokio::io::AsyncReadExt as _;

    #[tokio::test]
    async fn a_stream_that_never_ends_lets_others_have_their_turn() {
        let read = Rc::new(Cell::new(0));
        let flood = async {
            let mut stream = Turns::new(tokio::io::repeat(0));
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
}
