//! Making a connection: name, TCP, TLS, HTTP handshake.

use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::CoreExecutor;
use super::body::RequestBody;
use super::error::UpstreamError;
use super::member::{Addresses, Member};
use super::multiplexed::{Shared, State, UNSAID};
use super::settings::{Protocol, UpstreamSettings};

/// A connection that speaks one version of HTTP.
pub(super) enum Connected {
    Http1(http1::SendRequest<RequestBody>),
    Http2(Shared),
}

/// How long a connection by one family may take before the other is tried as well (RFC 8305 section 5).
const HEAD_START: Duration = Duration::from_millis(250);

/// The largest head of a response by HTTP/2, in bytes (RFC 9113 section 6.5.2). By HTTP/1.1 hyper bounds it itself.
const MAX_RESPONSE_HEAD: u32 = 64 * 1024;

/// How much of one response by HTTP/2 is taken in before its client takes it (RFC 9113 section 5.2): 10 MB/s for each
/// stream at a distance of 25 ms.
const STREAM_WINDOW: u32 = 256 * 1024;

/// The same of all responses on one connection: room for the windows of 256 streams, so that clients who do not read hold
/// up nobody else. The HTTP/2 library also goes by it in how many small messages it holds before it takes them for a flood.
const CONNECTION_WINDOW: u32 = 256 * STREAM_WINDOW;

/// Connects to the member within the upstream's connect time-out, for requests of this core.
pub(super) async fn connect(
    upstream: &UpstreamSettings,
    member: &Member,
    protocol: Protocol,
) -> Result<Connected, UpstreamError> {
    let attempt = async {
        let Opened { stream, is_http2 } = open(member, protocol).await?;
        handshake(stream, is_http2).await
    };
    tokio::time::timeout(upstream.timeouts.connect, attempt)
        .await
        .unwrap_or_else(|_| Err(UpstreamError::ConnectTimeout { endpoint: member.label() }))
}

/// A connection before anything was said on it.
pub(super) struct Opened {
    pub stream: Stream,
    pub is_http2: bool,
}

/// Opens a connection, with TLS where the endpoint has it. The caller bounds the time.
pub(super) async fn open(member: &Member, protocol: Protocol) -> Result<Opened, UpstreamError> {
    let failed = |cause| UpstreamError::Connect { endpoint: member.label(), cause };
    if let Some(socket) = &member.endpoint.socket {
        let stream = Stream::Unix(UnixStream::connect(socket).await.map_err(failed)?);
        return Ok(Opened { stream, is_http2: protocol == Protocol::Http2 });
    }
    let tcp = open_tcp(member).await?;
    tcp.set_nodelay(true).map_err(failed)?;
    let Some((config, server_name)) = &member.endpoint.tls else {
        return Ok(Opened { stream: Stream::Plain(tcp), is_http2: protocol == Protocol::Http2 });
    };
    let alpn = (protocol == Protocol::Http1).then(|| vec![b"http/1.1".to_vec()]);
    let tls = TlsConnector::from(config.clone())
        .with_alpn(alpn.unwrap_or_else(|| config.alpn_protocols.clone()))
        .connect(server_name.clone(), tcp)
        .await
        .map_err(|cause| UpstreamError::Tls { endpoint: member.label(), cause })?;
    let is_http2 = protocol == Protocol::Http2 || tls.get_ref().1.alpn_protocol() == Some(b"h2");
    Ok(Opened { stream: Stream::Tls(Box::new(tls)), is_http2 })
}

async fn open_tcp(member: &Member) -> Result<TcpStream, UpstreamError> {
    let failed = |cause| UpstreamError::Connect { endpoint: member.label(), cause };
    match member.addresses {
        Addresses::One(address) => TcpStream::connect(address).await.map_err(failed),
        Addresses::Either(first, second) => {
            let (first, second) = member.in_order(first, second);
            let tcp = open_either(first, second).await.map_err(failed)?;
            tcp.peer_addr().into_iter().for_each(|address| member.reached(address));
            Ok(tcp)
        }
        Addresses::Unresolved => {
            let name = (&*member.endpoint.host, member.endpoint.port);
            let addresses: Vec<SocketAddr> = tokio::net::lookup_host(name)
                .await
                .map_err(|cause| UpstreamError::Resolve { endpoint: member.label(), cause })?
                .collect();
            TcpStream::connect(&*addresses).await.map_err(failed)
        }
    }
}

/// Happy Eyeballs for two addresses of one server: the second is tried when the first fails or is slow.
async fn open_either(first: SocketAddr, second: SocketAddr) -> io::Result<TcpStream> {
    let mut one = pin!(TcpStream::connect(first));
    tokio::select! {
        biased;
        outcome = one.as_mut() => match outcome {
            Ok(tcp) => return Ok(tcp),
            Err(_) => return TcpStream::connect(second).await,
        },
        () = tokio::time::sleep(HEAD_START) => {}
    }
    let mut other = pin!(TcpStream::connect(second));
    tokio::select! {
        outcome = one.as_mut() => match outcome {
            Ok(tcp) => Ok(tcp),
            Err(_) => other.await,
        },
        outcome = other.as_mut() => match outcome {
            Ok(tcp) => Ok(tcp),
            Err(_) => one.await,
        },
    }
}

async fn handshake(stream: Stream, is_http2: bool) -> Result<Connected, UpstreamError> {
    if is_http2 {
        let shared = share(stream).await?;
        shared.settle().await;
        Ok(Connected::Http2(shared))
    } else {
        let (sender, connection) = http1::Builder::new().handshake(TokioIo::new(stream)).await?;
        tokio::task::spawn_local(connection.with_upgrades());
        Ok(Connected::Http1(sender))
    }
}

async fn share<S>(stream: S) -> Result<Shared, UpstreamError>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (sender, connection) = http2::Builder::new(CoreExecutor)
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(MAX_RESPONSE_HEAD)
        .initial_max_send_streams(UNSAID)
        .handshake(TokioIo::new(stream))
        .await?;
    let state = Rc::<State>::default();
    tokio::task::spawn_local(keep(connection, Rc::clone(&state)));
    Ok(Shared::new(sender, state))
}

/// Runs a connection, and notes what the other side has set, which it may change at any time.
async fn keep<S>(connection: http2::Connection<TokioIo<S>, RequestBody, CoreExecutor>, state: Rc<State>)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let mut connection = pin!(connection);
    loop {
        let mut look = pin!(state.look.notified());
        let is_over = std::future::poll_fn(|context| {
            let is_over = connection.as_mut().poll(context).is_ready();
            let most = connection.current_max_send_streams();
            state.takes(most);
            if is_over { Poll::Ready(true) } else { look.as_mut().poll(context).map(|()| false) }
        });
        if is_over.await {
            return;
        }
        if state.most_streams.get() != UNSAID {
            state.takes_extended_connect.set(Some(connection.is_extended_connect_protocol_enabled()));
        }
    }
}

/// Plain or TLS, TCP or a Unix socket, without the cost of a boxed trait object on each read.
pub(super) enum Stream {
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

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;
    use tokio::task::LocalSet;

    use super::{Duration, pin, share};

    const PATIENCE: Duration = Duration::from_secs(5);

    /// Whether a connection on which this is all that comes is found to take a WebSocket, and whether all patience was
    /// needed for that. It is closed a while later, or not at all.
    async fn takes_websockets(comes: &[u8], is_closed: bool) -> (Option<bool>, bool) {
        let (ours, mut theirs) = tokio::io::duplex(1 << 16);
        let shared = share(ours).await.unwrap();
        theirs.write_all(comes).await.unwrap();
        tokio::task::spawn_local(async move {
            tokio::time::sleep(if is_closed { PATIENCE / 10 } else { 10 * PATIENCE }).await;
            drop(theirs);
        });
        let mut finding = pin!(shared.takes_websockets(PATIENCE));
        match tokio::time::timeout(PATIENCE / 2, finding.as_mut()).await {
            Ok(takes) => (takes, false),
            Err(_) => (finding.await, true),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whether_it_takes_websockets_is_waited_for_unless_the_connection_leaves() {
        let (nothing_set, takes_them) = (
            [0, 0, 0, 4, 0, 0, 0, 0, 0].as_slice(),
            [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 1].as_slice(),
        );
        let goaway = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0].as_slice();
        LocalSet::new()
            .run_until(async {
                for (comes, is_closed, expected) in [
                    (vec![takes_them], false, (Some(true), false)),
                    (vec![nothing_set], false, (Some(false), false)),
                    (vec![], false, (Some(false), true)),
                    (vec![], true, (None, false)),
                    (vec![goaway], false, (None, false)),
                    (vec![nothing_set, goaway], false, (None, false)),
                    (vec![takes_them, goaway], false, (None, false)),
                ] {
                    let found = takes_websockets(&comes.concat(), is_closed).await;
                    assert_eq!(found, expected, "{comes:?}");
                }
            })
            .await;
    }
}
