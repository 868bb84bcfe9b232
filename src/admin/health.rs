//! The open health listener: `/livez`, `/readyz` and, where wanted, `/metrics`, over plain HTTP/1.1.
//!
//! For the kubelet and Prometheus, who bring no credentials: it reads and never changes, and tells nothing
//! that needs guarding. Anyone may connect, so connections are few, short, and the newest goes first: slow
//! clients cannot keep a probe out (see [`super::server`]). Must stay up during drain, since it is what says so.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ALLOW, HeaderValue};
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use tokio::net::TcpListener;

use super::answer::{self, Answer, TEXT};
use super::carried::carry;
use super::readiness::Readiness;
use super::server::{self, Service, Socket};
use crate::config::settings::CarriedProbe;
use crate::telemetry::metrics::{self, Metrics};

/// What the listener tells.
#[derive(Clone, Debug)]
pub struct Health {
    /// For `/readyz`.
    pub readiness: Readiness,
    /// For `/metrics`; `None` where it is not wanted, and then the path does not exist.
    pub metrics: Option<Arc<Metrics>>,
    /// Probes of an application that only the gateway can reach.
    pub carried: Arc<[CarriedProbe]>,
}

/// Serves until dropped, which ends all connections. Needs a runtime with time and I/O.
pub async fn serve(listener: TcpListener, health: Health) -> Infallible {
    server::serve(Socket::Tcp(listener), CONNECTION_TIMEOUT, health).await
}

impl Service for Health {
    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let path = request.uri().path();
        match self.carried.iter().find(|probe| probe.path == path) {
            Some(probe) if request.method() == Method::GET => carry(probe, request.headers()).await,
            _ => self.respond(&request),
        }
    }
}

impl Health {
    fn respond<B>(&self, request: &Request<B>) -> Answer {
        let answer = match request.uri().path() {
            "/livez" => answer::of(StatusCode::OK, TEXT, "ok\n"),
            "/readyz" => self.readyz(),
            "/metrics" if self.metrics.is_some() => self.metrics(),
            _ => answer::of(
                StatusCode::NOT_FOUND,
                TEXT,
                "Not found; this listener serves /livez and /readyz.\n",
            ),
        };
        if matches!(*request.method(), Method::GET | Method::HEAD) {
            return answer;
        }
        let mut refusal = answer::of(StatusCode::METHOD_NOT_ALLOWED, TEXT, "Use GET.\n");
        refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        refusal
    }

    fn readyz(&self) -> Answer {
        let report = self.readiness.report();
        let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        match serde_json::to_vec(&report) {
            Ok(body) => answer::of(status, "application/json", body),
            Err(_) => answer::of(status, TEXT, ""),
        }
    }

    fn metrics(&self) -> Answer {
        match self.metrics.as_deref().map(Metrics::render) {
            Some(Ok(page)) => answer::of(StatusCode::OK, metrics::CONTENT_TYPE, page),
            _ => answer::of(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "The metrics cannot be written.\n"),
        }
    }
}

/// Long enough for a slow scrape of many routes; Prometheus itself gives up after 10 s.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::task::JoinSet;

    use super::server::{MAX_CONNECTIONS, MAX_HEAD};
    use super::*;

    fn asked(health: &Health, method: Method, path: &str) -> Answer {
        health.respond(&Request::builder().method(method).uri(path).body(()).unwrap())
    }

    fn health() -> Health {
        Health {
            readiness: Readiness::new(["keys of main"]),
            metrics: Some(Arc::new(Metrics::new())),
            carried: Arc::new([]),
        }
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
