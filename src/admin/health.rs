//! The open health listener: `/livez`, `/readyz` and, where wanted, `/metrics`, over plain HTTP/1.1.
//!
//! For the kubelet and Prometheus, who bring no credentials: it reads and never changes, and tells nothing
//! that needs guarding. Anyone may connect, so connections are few, short, and the newest goes first: slow
//! clients cannot keep a probe out. Must stay up during drain, since it is what says so.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::readiness::Readiness;
use crate::telemetry::metrics::{self, Metrics};

/// What the listener tells.
#[derive(Clone, Debug)]
pub struct Health {
    /// For `/readyz`.
    pub readiness: Readiness,
    /// For `/metrics`; `None` where it is not wanted, and then the path does not exist.
    pub metrics: Option<Arc<Metrics>>,
}

/// Serves until dropped, which ends all connections. Needs a runtime with time and I/O.
pub async fn serve(listener: TcpListener, health: Health) -> Infallible {
    let mut connections = JoinSet::new();
    let mut places = Places::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => places.take(connections.spawn(connection(stream, health.clone()))),
                Err(error) => {
                    // Mostly a lack of file descriptors; trying at once would only burn the core.
                    tracing::warn!(%error, "the health listener cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(stream: TcpStream, health: Health) {
    let service = service_fn(move |request| {
        let response = health.respond(&request);
        async { Ok::<_, Infallible>(response) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .keep_alive(false)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    // How it ended interests nobody.
    _ = timeout(CONNECTION_TIMEOUT, serving).await;
}

impl Health {
    fn respond<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        let response = match request.uri().path() {
            "/livez" => response(StatusCode::OK, TEXT, "ok\n"),
            "/readyz" => self.readyz(),
            "/metrics" if self.metrics.is_some() => self.metrics(),
            _ => {
                response(StatusCode::NOT_FOUND, TEXT, "Not found; this listener serves /livez and /readyz.\n")
            }
        };
        if matches!(*request.method(), Method::GET | Method::HEAD) {
            return response;
        }
        let mut refusal = self::response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "Use GET.\n");
        refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        refusal
    }

    fn readyz(&self) -> Response<Full<Bytes>> {
        let report = self.readiness.report();
        let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        match serde_json::to_vec(&report) {
            Ok(body) => response(status, "application/json", body),
            Err(_) => response(status, TEXT, ""),
        }
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        match self.metrics.as_deref().map(Metrics::render) {
            Some(Ok(page)) => response(StatusCode::OK, metrics::CONTENT_TYPE, page),
            _ => response(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "The metrics cannot be written.\n"),
        }
    }
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

fn response(status: StatusCode, media_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

const TEXT: &str = "text/plain; charset=utf-8";

/// Probes and scrapes are a handful.
const MAX_CONNECTIONS: usize = 64;

/// A probe sends its head in one packet.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// Long enough for a slow scrape of many routes; Prometheus itself gives up after 10 s.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(15);

/// A probe's head is a few hundred bytes; 8 KiB is the least that hyper takes.
const MAX_HEAD: usize = 8 * 1024;

const MAX_HEADERS: usize = 64;

const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn asked(health: &Health, method: Method, path: &str) -> Response<Full<Bytes>> {
        health.respond(&Request::builder().method(method).uri(path).body(()).unwrap())
    }

    fn health() -> Health {
        Health { readiness: Readiness::new(["keys of main"]), metrics: Some(Arc::new(Metrics::new())) }
    }

    async fn started(health: Health) -> (SocketAddr, JoinSet<Infallible>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut task = JoinSet::new();
        task.spawn(serve(listener, health));
        (address, task)
    }

    async fn exchanged(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        response
    }

    #[test]
    fn each_path_has_its_answer() {
        for (method, path, expected) in [
            (Method::GET, "/livez", StatusCode::OK),
            (Method::HEAD, "/livez", StatusCode::OK),
            (Method::GET, "/livez?verbose", StatusCode::OK),
            (Method::POST, "/livez", StatusCode::METHOD_NOT_ALLOWED),
            (Method::DELETE, "/unknown", StatusCode::METHOD_NOT_ALLOWED),
            (Method::GET, "/readyz", StatusCode::SERVICE_UNAVAILABLE),
            (Method::GET, "/metrics", StatusCode::OK),
            (Method::GET, "/", StatusCode::NOT_FOUND),
            (Method::GET, "/livez/", StatusCode::NOT_FOUND),
        ] {
            assert_eq!(asked(&health(), method.clone(), path).status(), expected, "{method} {path}");
        }
        let without = Health { metrics: None, ..health() };
        assert_eq!(asked(&without, Method::GET, "/metrics").status(), StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn readiness_is_told_over_the_wire_with_its_sources() {
        let health = health();
        let readiness = health.readiness.clone();
        let (address, _task) = started(health).await;
        let request = "GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n";

        let before = exchanged(address, request).await;
        assert!(before.starts_with("HTTP/1.1 503 "), "{before}");

        readiness.listening();
        readiness.loaded("keys of main");
        readiness.degraded("keys of main", "no answer");
        let after = exchanged(address, request).await;
        assert!(after.starts_with("HTTP/1.1 200 "), "{after}");
        let (_, body) = after.split_once("\r\n\r\n").unwrap();
        let expected = serde_json::json!({
            "ready": true,
            "draining": false,
            "listening": true,
            "sources": [{ "name": "keys of main", "state": "degraded", "why": "no answer" }],
        });
        assert_eq!(serde_json::from_str::<serde_json::Value>(body).unwrap(), expected);

        readiness.drain();
        let drained = exchanged(address, request).await;
        assert!(drained.starts_with("HTTP/1.1 503 "), "{drained}");
    }

    #[tokio::test]
    async fn a_probe_gets_in_however_many_others_dawdle() {
        let (address, _task) = started(health()).await;
        let mut dawdlers = Vec::new();
        for _ in 0..2 * MAX_CONNECTIONS {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET /livez HTTP/1.1\r\n").await.unwrap();
            dawdlers.push(stream);
        }
        let answer = exchanged(address, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }

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
    async fn a_huge_head_is_refused() {
        let (address, _task) = started(health()).await;
        let head = format!("GET /livez HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(2 * MAX_HEAD));
        let mut stream = TcpStream::connect(address).await.unwrap();
        _ = stream.write_all(head.as_bytes()).await;
        let mut answer = Vec::new();
        _ = stream.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(b"HTTP/1.1 200"));
    }
}
