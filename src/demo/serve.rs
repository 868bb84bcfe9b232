//! A plain HTTP server on loopback (HTTP/1.1 and h2c), for the development issuer and the sample API.
//!
//! Knows nothing of what it serves. Not the gateway's listener: no TLS, no limits fit for the open network.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};

/// Any free port of 127.0.0.1.
pub(super) const FREE_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// More than a gateway and a person with curl ever open; a runaway client waits instead of using up descriptors.
const MAX_CONNECTIONS: usize = 512;

/// No request to the issuer is longer: forms and small JSON documents.
const MAX_BODY: usize = 64 * 1024;

/// A running server; dropping it closes the socket and all connections.
pub(super) struct Server {
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Server {
    /// Answers each request that arrives at `listener` with `answer`.
    pub(super) fn start<A, F>(listener: TcpListener, answer: A) -> io::Result<Self>
    where
        A: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
    {
        let address = listener.local_addr()?;
        Ok(Self { address, accepting: tokio::spawn(accept(listener, answer)) })
    }

    /// Closes the socket and all connections, and returns when they are closed.
    pub(super) async fn stop(mut self) {
        self.accepting.abort();
        let _ = (&mut self.accepting).await;
    }

    /// Where it listens, with the port that a bind to port 0 chose.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept<A, F>(listener: TcpListener, answer: A)
where
    A: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    // Owned by this task, so that aborting it ends the connections too.
    let mut connections = JoinSet::new();
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else { continue };
        let answer = answer.clone();
        connections.spawn(async move {
            serve(stream, answer).await;
            drop(slot);
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn serve<A, F>(stream: TcpStream, answer: A)
where
    A: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let service = service_fn(|request| {
        let response = answer(request);
        async move { Ok::<_, Infallible>(response.await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    builder.http2().timer(TokioTimer::new());
    // A connection that breaks is the client's business; there is nobody to tell.
    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
}

/// A JSON answer that nothing may cache.
pub(super) fn json(status: StatusCode, document: &Value) -> Response<Full<Bytes>> {
    typed(status, "application/json", document.to_string())
}

/// An answer of any type that nothing may cache; a `content_type` that no header can carry is left out.
pub(super) fn typed(status: StatusCode, content_type: &str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(content_type) = HeaderValue::from_str(content_type) {
        headers.insert(header::CONTENT_TYPE, content_type);
    }
    response
}

/// The whole body; `None` if it is too long or breaks off.
pub(super) async fn body(request: Request<Incoming>) -> Option<Bytes> {
    Some(Limited::new(request.into_body(), MAX_BODY).collect().await.ok()?.to_bytes())
}
