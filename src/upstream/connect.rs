//! Making a connection: name, TCP, TLS, HTTP handshake.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::CoreExecutor;
use super::body::RequestBody;
use super::error::UpstreamError;
use super::settings::{Endpoint, Protocol, Upstream};

/// A connection that speaks one version of HTTP.
pub(super) enum Connected {
    Http1(http1::SendRequest<RequestBody>),
    Http2(http2::SendRequest<RequestBody>),
}

/// Connects to the endpoint within the upstream's connect time-out.
pub(super) async fn connect(
    upstream: &Upstream,
    endpoint: &Endpoint,
    protocol: Protocol,
) -> Result<Connected, UpstreamError> {
    tokio::time::timeout(upstream.timeouts.connect, attempt(endpoint, protocol))
        .await
        .unwrap_or_else(|_| Err(UpstreamError::ConnectTimeout { endpoint: name(endpoint) }))
}

async fn attempt(endpoint: &Endpoint, protocol: Protocol) -> Result<Connected, UpstreamError> {
    let failed = |cause| UpstreamError::Connect { endpoint: name(endpoint), cause };
    if let Some(socket) = &endpoint.socket {
        let stream = UnixStream::connect(socket).await.map_err(failed)?;
        return handshake(Stream::Unix(stream), protocol == Protocol::Http2).await;
    }
    let tcp = TcpStream::connect((&*endpoint.host, endpoint.port)).await.map_err(failed)?;
    tcp.set_nodelay(true).map_err(failed)?;
    let (stream, negotiated_http2) = match &endpoint.tls {
        None => (Stream::Plain(tcp), false),
        Some((config, server_name)) => {
            let alpn = (protocol == Protocol::Http1).then(|| vec![b"http/1.1".to_vec()]);
            let tls = TlsConnector::from(config.clone())
                .with_alpn(alpn.unwrap_or_else(|| config.alpn_protocols.clone()))
                .connect(server_name.clone(), tcp)
                .await
                .map_err(|cause| UpstreamError::Tls { endpoint: name(endpoint), cause })?;
            let http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
            (Stream::Tls(Box::new(tls)), http2)
        }
    };
    handshake(stream, protocol == Protocol::Http2 || negotiated_http2).await
}

async fn handshake(stream: Stream, is_http2: bool) -> Result<Connected, UpstreamError> {
    let io = TokioIo::new(stream);
    if is_http2 {
        let (sender, connection) = http2::Builder::new(CoreExecutor)
            .timer(TokioTimer::new())
            .adaptive_window(true)
            .handshake(io)
            .await?;
        tokio::task::spawn_local(connection);
        Ok(Connected::Http2(sender))
    } else {
        let (sender, connection) = http1::Builder::new().handshake(io).await?;
        tokio::task::spawn_local(connection.with_upgrades());
        Ok(Connected::Http1(sender))
    }
}

fn name(endpoint: &Endpoint) -> String {
    match &endpoint.socket {
        Some(socket) => format!("unix:{}", socket.display()),
        None => format!("{}:{}", endpoint.host, endpoint.port),
    }
}

/// TCP, a Unix socket or TLS, without the cost of a boxed trait object on each read.
enum Stream {
    Plain(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, data),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, data),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, data),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, data),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, data),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, data),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Unix(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
