//! Sockets of the gateway's own, and the serving of HTTP/1.1 on them: one short request a connection.
//!
//! Connections are few and bounded in time, and the newest goes first: slow clients cannot keep a probe or an
//! operator out. Knows nothing of what is asked.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::answer::Answer;
use crate::certificate::ClientCertificate;
use crate::telemetry::audit_log::Caller;

/// Where connections come from.
pub enum Socket {
    /// TCP.
    Tcp(TcpListener),
    /// TLS over TCP.
    Tls(TcpListener, TlsAcceptor),
    /// A Unix socket.
    Unix(UnixListener),
}

/// What answers the requests.
pub trait Service: Clone + Send + Sync + 'static {
    /// The answer to one of them, among whose extensions is the [`Caller`].
    fn answer(&self, request: Request<Incoming>) -> impl Future<Output = Answer> + Send;
}

/// Serves until dropped, which ends all connections; none lasts longer than `longest`. Needs a runtime with time
/// and I/O.
pub async fn serve(socket: Socket, longest: Duration, service: impl Service) -> Infallible {
    let mut connections = JoinSet::new();
    let mut places = Places::new();
    loop {
        tokio::select! {
            accepted = socket.accept() => match accepted {
                Ok(stream) => {
                    let service = service.clone();
                    places.take(connections.spawn(async move {
                        // How it ended interests nobody.
                        _ = timeout(longest, stream.serve(service)).await;
                    }));
                }
                Err(error) => {
                    // Mostly a lack of file descriptors; trying at once would only burn the core.
                    tracing::warn!(%error, "cannot accept a connection to the gateway itself");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Binds a Unix socket that only this user may connect to. What an earlier process left behind is replaced; the
/// socket of one that still listens is not.
///
/// # Errors
/// Another process listens there, or the directory does not let this one make the socket.
pub async fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    if UnixStream::connect(path).await.is_ok() {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens on it"));
    }
    // Made where nobody else can reach it, and moved once its mode is right.
    let hidden = hidden_directory_beside(path)?;
    let outcome = bind_in(&hidden, path);
    _ = std::fs::remove_dir_all(&hidden);
    outcome
}

fn bind_in(hidden: &Path, path: &Path) -> io::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt as _;

    let made = hidden.join("s");
    let listener = UnixListener::bind(&made)?;
    std::fs::set_permissions(&made, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&made, path)?;
    Ok(listener)
}

fn hidden_directory_beside(path: &Path) -> io::Result<PathBuf> {
    use std::os::unix::fs::DirBuilderExt as _;

    let mut random = [0; 8];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| io::Error::other("no randomness"))?;
    let hidden = path.with_extension(format!("{:x}", u64::from_ne_bytes(random)));
    std::fs::DirBuilder::new().mode(0o700).create(&hidden)?;
    Ok(hidden)
}

impl Socket {
    async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                Ok(Stream::Tcp(stream, address))
            }
            Self::Tls(listener, acceptor) => {
                let (stream, address) = listener.accept().await?;
                Ok(Stream::Tls(stream, address, acceptor.clone()))
            }
            Self::Unix(listener) => Ok(Stream::Unix(listener.accept().await?.0)),
        }
    }
}

/// A connection before a byte was read.
enum Stream {
    Tcp(TcpStream, SocketAddr),
    Tls(TcpStream, SocketAddr, TlsAcceptor),
    Unix(UnixStream),
}

impl Stream {
    async fn serve(self, service: impl Service) {
        match self {
            Self::Tcp(stream, address) => {
                let caller = Caller { client: Some(address), ..Caller::default() };
                connection(stream, caller, service).await;
            }
            Self::Unix(stream) => {
                let caller = user_behind(&stream);
                connection(stream, caller, service).await;
            }
            Self::Tls(stream, address, acceptor) => match acceptor.accept(stream).await {
                Ok(stream) => {
                    let certificate = certificate_shown(&stream);
                    let caller = Caller { client: Some(address), certificate, ..Caller::default() };
                    connection(stream, caller, service).await;
                }
                Err(error) => tracing::info!(%error, "a TLS handshake with the gateway itself failed"),
            },
        }
    }
}

/// As the kernel vouches for it (`SO_PEERCRED`).
fn user_behind(stream: &UnixStream) -> Caller {
    let credentials = stream.peer_cred().ok();
    let pid = credentials.and_then(|credentials| credentials.pid());
    Caller {
        uid: credentials.map(|credentials| credentials.uid()),
        pid: pid.and_then(|pid| u64::try_from(pid).ok()),
        ..Caller::default()
    }
}

fn certificate_shown(stream: &TlsStream<TcpStream>) -> Option<String> {
    let leaf = stream.get_ref().1.peer_certificates()?.first()?;
    Some(ClientCertificate::from_der(leaf).ok()?.principal().to_owned())
}

async fn connection<S>(stream: S, caller: Caller, service: impl Service)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = Arc::new(service);
    let answering = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(caller.clone());
        let service = Arc::clone(&service);
        async move { Ok::<_, Infallible>(service.answer(request).await) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .keep_alive(false)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), answering);
    _ = serving.await;
}

/// The places of connections, taken in turn: who comes to a place that is taken ends whoever sits there,
/// the one that has had the longest time.
struct Places {
    taken: Vec<Option<AbortHandle>>,
    next: usize,
}

impl Places {
    fn new() -> Self {
        Self { taken: vec![None; MAX_CONNECTIONS], next: 0 }
    }

    fn take(&mut self, connection: AbortHandle) {
        if let Some(place) = self.taken.get_mut(self.next)
            && let Some(oldest) = place.replace(connection)
        {
            oldest.abort();
        }
        self.next = (self.next + 1) % MAX_CONNECTIONS;
    }
}

/// Probes, scrapes and operators are a handful.
pub const MAX_CONNECTIONS: usize = 64;

/// A head comes in one packet.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// A head is a few hundred bytes; 8 KiB is the least that hyper takes.
pub const MAX_HEAD: usize = 8 * 1024;

const MAX_HEADERS: usize = 64;

const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[tokio::test]
    async fn who_comes_late_takes_the_place_of_the_oldest() {
        let mut places = Places::new();
        let waiting: Vec<_> = (0..=MAX_CONNECTIONS)
            .map(|_| {
                let task = tokio::spawn(std::future::pending::<()>());
                places.take(task.abort_handle());
                task
            })
            .collect();
        tokio::task::yield_now().await;
        let ended: Vec<_> = waiting.iter().map(tokio::task::JoinHandle::is_finished).collect();
        assert!(ended[0]);
        assert!(!ended[1..].contains(&true));
    }

    #[tokio::test]
    async fn a_unix_socket_is_for_its_owner_and_replaces_only_a_dead_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        let first = bind_unix(&path).await.unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let taken = bind_unix(&path).await.unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        drop(first);
        let _second = bind_unix(&path).await.unwrap();
        assert!(UnixStream::connect(&path).await.is_ok());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "nothing else is left behind");
    }
}
