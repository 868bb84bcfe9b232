//! A provider for tests: a real HTTP server on loopback that does what its script says, also what no server should.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use url::Url;

/// What the server does with a request.
#[derive(Clone)]
pub(super) enum Reply {
    /// Status, fields, body.
    Say(u16, Vec<(&'static str, String)>, Bytes),
    /// Never answers.
    Hang,
    /// Answers 200, sends some bytes, and never goes on.
    Stall,
    /// Answers 200, sends some bytes, and breaks the connection.
    BreakOff,
    /// Answers 200 and sends without end.
    Flood,
}

impl Reply {
    pub(super) fn ok(body: impl Into<Bytes>) -> Self {
        Self::Say(200, vec![("content-type", "application/json".to_owned())], body.into())
    }

    pub(super) fn status(status: u16) -> Self {
        Self::Say(status, vec![], Bytes::from_static(b"<html>sorry</html>"))
    }

    pub(super) fn with(self, name: &'static str, value: impl Into<String>) -> Self {
        match self {
            Self::Say(status, mut fields, body) => {
                fields.push((name, value.into()));
                Self::Say(status, fields, body)
            }
            other => other,
        }
    }
}

pub(super) struct TestServer {
    address: SocketAddr,
    scheme: &'static str,
    hits: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl TestServer {
    pub(super) async fn start(script: impl Fn(&Request<Incoming>) -> Reply + Send + Sync + 'static) -> Self {
        Self::serve(None, script).await
    }

    pub(super) async fn start_tls(
        tls: rustls::ServerConfig,
        script: impl Fn(&Request<Incoming>) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::serve(Some(TlsAcceptor::from(Arc::new(tls))), script).await
    }

    async fn serve(
        tls: Option<TlsAcceptor>,
        script: impl Fn(&Request<Incoming>) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let hits = Arc::new(AtomicUsize::new(0));
        let scheme = if tls.is_some() { "https" } else { "http" };
        let (script, counter) = (Arc::new(script), Arc::clone(&hits));
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (script, counter, tls) = (Arc::clone(&script), Arc::clone(&counter), tls.clone());
                connections.spawn(async move {
                    let service = service_fn(move |request| {
                        counter.fetch_add(1, Ordering::SeqCst);
                        answer(script(&request))
                    });
                    // A client that goes away is part of the tests.
                    let Some(tls) = tls else {
                        let _ = hyper::server::conn::http1::Builder::new()
                            .serve_connection(TokioIo::new(stream), service)
                            .await;
                        return;
                    };
                    let Ok(stream) = tls.accept(stream).await else { return };
                    let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                    let io = TokioIo::new(stream);
                    if h2 {
                        let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                            .serve_connection(io, service)
                            .await;
                    } else {
                        let _ =
                            hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
                    }
                });
            }
        });
        Self { address, scheme, hits, task }
    }

    pub(super) fn url(&self, path: &str) -> Url {
        Url::parse(&format!("{}://{}{path}", self.scheme, self.address)).unwrap()
    }

    /// Requests so far.
    pub(super) fn hits(&self) -> usize {
        self.hits.load(Ordering::SeqCst)
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(reply: Reply) -> Result<Response<TestBody>, Infallible> {
    let body = match reply {
        Reply::Say(status, fields, body) => {
            let mut response = Response::builder().status(status);
            for (name, value) in fields {
                response = response.header(name, value);
            }
            return Ok(response.body(TestBody::Once(Some(body))).unwrap());
        }
        Reply::Hang => std::future::pending().await,
        Reply::Stall => TestBody::Stall(false),
        // The pause lets the server send what it has.
        Reply::BreakOff => TestBody::BreakOff(false, Box::pin(tokio::time::sleep(Duration::from_millis(20)))),
        Reply::Flood => TestBody::Flood,
    };
    Ok(Response::new(body))
}

enum TestBody {
    Once(Option<Bytes>),
    Stall(bool),
    BreakOff(bool, Pin<Box<tokio::time::Sleep>>),
    Flood,
}

impl Body for TestBody {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        let chunk = Bytes::from_static(&[b' '; 1024]);
        match self.get_mut() {
            Self::Once(body) => Poll::Ready(body.take().map(|body| Ok(Frame::data(body)))),
            Self::Flood => Poll::Ready(Some(Ok(Frame::data(chunk)))),
            Self::Stall(sent @ false) | Self::BreakOff(sent @ false, _) => {
                *sent = true;
                Poll::Ready(Some(Ok(Frame::data(chunk))))
            }
            // Nobody wakes it: that is the point.
            Self::Stall(true) => Poll::Pending,
            Self::BreakOff(true, pause) => {
                pause.as_mut().poll(cx).map(|()| Some(Err(std::io::Error::other("broken"))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Once(None))
    }
}

/// Waits until something holds that is bound to come.
pub(super) async fn eventually(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..5000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(4)).await;
    }
    panic!("never came: {what}");
}
