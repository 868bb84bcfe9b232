//! What is left of an HTTP/1.1 connection while nothing is asked on it: its stream, which is waited at until something
//! arrives. The HTTP library's buffers, 16 KiB of them, are given back meanwhile.
//!
//! Knows nothing of when a connection may rest, nor of what is done with what arrives.

use std::future::poll_fn;

use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::http1::Guard;

/// A stream that brings what arrives on a socket.
pub trait OnSocket {
    /// The socket.
    fn socket(&self) -> &TcpStream;
}

impl OnSocket for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }
}

impl OnSocket for Box<TlsStream<TcpStream>> {
    fn socket(&self) -> &TcpStream {
        self.get_ref().0
    }
}

/// The stream of a connection that is at rest. None if something was read from it that would be lost, so that it has to
/// end: cannot be.
pub fn stream_of<S, T>(parts: http1::Parts<TokioIo<Guard<S>>, T>) -> Option<S> {
    let (stream, held) = parts.io.into_inner().into_inner();
    (held.is_empty() && parts.read_buf.is_empty()).then_some(stream)
}

/// Resolves when something has arrived at a stream whose last read found nothing, be it the stream's end. It stays where
/// it is: there is nothing here that it could be lost from.
pub async fn arrival(stream: &impl OnSocket) {
    // An error is for the next read to find.
    _ = poll_fn(|cx| stream.socket().poll_read_ready(cx)).await;
}
