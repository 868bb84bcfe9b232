//! What is left of an HTTP/1.1 connection while nothing is asked on it: its stream, which is waited at until something
//! arrives. The HTTP library's buffers, 16 KiB of them, are given back meanwhile.
//!
//! Knows nothing of when a connection may rest, nor of what is done with what arrives.

use std::future::poll_fn;

use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

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

/// Resolves when something has arrived at a stream whose last read found nothing, be it the stream's end. It stays where
/// it is: there is nothing here that it could be lost from.
pub async fn arrival(stream: &impl OnSocket) {
    // An error is for the next read to find.
    _ = poll_fn(|cx| stream.socket().poll_read_ready(cx)).await;
}
