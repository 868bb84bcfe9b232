//! The sample API behind the gateway: orders, a status page, and a memory of every request that reached it.
//!
//! It trusts whoever calls and checks nothing: what gets here got past the gateway. Speaks HTTP/1.1 and h2c.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;

use super::serve::{FREE_PORT, Server, json};

/// Older requests are forgotten.
const REMEMBERED: usize = 4096;

/// A request that reached the API.
#[derive(Clone, Debug)]
pub struct Received {
    /// Its method.
    pub method: Method,
    /// Path and query, as they came.
    pub path: String,
    /// Its headers, as they came.
    pub headers: HeaderMap,
    /// How many bytes its body had.
    pub body_len: u64,
    /// Whether the body came to its end.
    pub body_complete: bool,
    /// The version of HTTP that it came by.
    pub version: Version,
}

impl Received {
    /// The values of a header, as text; bytes beyond ASCII are replaced.
    pub fn values(&self, name: &HeaderName) -> Vec<String> {
        self.headers.get_all(name).iter().map(|value| lossy(value.as_bytes())).collect()
    }
}

/// A running sample API; dropping it closes its socket.
pub struct SampleApi {
    memory: Arc<Memory>,
    server: Server,
}

#[derive(Default)]
struct Memory(Mutex<VecDeque<Received>>);

impl SampleApi {
    /// Starts on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// No port is free.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_on(FREE_PORT).await
    }

    /// Starts on this address: the same as before, for an API that comes back.
    ///
    /// # Errors
    /// The address is taken.
    pub async fn start_on(address: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("the sample API cannot listen on {address}"))?;
        let memory = Arc::<Memory>::default();
        let shared = Arc::clone(&memory);
        let server = Server::start(listener, move |request| answer(Arc::clone(&shared), request))?;
        Ok(Self { memory, server })
    }

    /// Stops it; the address is free when this returns.
    pub async fn stop(self) {
        self.server.stop().await;
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// The last requests that reached it, oldest first.
    pub fn received(&self) -> Vec<Received> {
        self.memory.lock().iter().cloned().collect()
    }

    /// Forgets what it received.
    pub fn forget(&self) {
        self.memory.lock().clear();
    }
}

impl Memory {
    fn add(&self, received: Received) {
        let mut requests = self.lock();
        if requests.len() == REMEMBERED {
            requests.pop_front();
        }
        requests.push_back(received);
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Received>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn answer(memory: Arc<Memory>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let (body_len, body_complete) = drain(body).await;
    let received = Received {
        method: head.method,
        path: head.uri.path_and_query().map_or_else(String::new, ToString::to_string),
        headers: head.headers,
        body_len,
        body_complete,
        version: head.version,
    };
    let (status, mut document) = respond(&received.method, head.uri.path());
    if let Value::Object(members) = &mut document {
        members.insert("received".to_owned(), echo(&received));
    }
    memory.add(received);
    json(status, &document)
}

fn respond(method: &Method, path: &str) -> (StatusCode, Value) {
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    match (method, segments.as_slice()) {
        (&Method::GET | &Method::HEAD, ["status"]) => (StatusCode::OK, json!({ "status": "open" })),
        (&Method::GET | &Method::HEAD, ["orders"]) => (StatusCode::OK, json!({ "orders": [7, 8, 9] })),
        (&Method::POST, ["orders"]) => (StatusCode::CREATED, json!({ "order": 10 })),
        (&Method::GET | &Method::HEAD, ["orders", number]) => (StatusCode::OK, json!({ "order": number })),
        _ => (StatusCode::NOT_FOUND, json!({ "error": "the sample API has nothing here" })),
    }
}

/// What the request looked like when it arrived, for a person to compare with what was sent.
fn echo(received: &Received) -> Value {
    let mut headers = Map::new();
    for name in received.headers.keys() {
        headers.insert(name.to_string(), received.values(name).into());
    }
    json!({
        "method": received.method.as_str(),
        "path": received.path,
        "version": format!("{:?}", received.version),
        "headers": headers,
        "body_len": received.body_len,
    })
}

/// Counts the body without keeping it.
async fn drain(mut body: Incoming) -> (u64, bool) {
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return (length, false) };
        length += frame.data_ref().map_or(0, |data| data.len() as u64);
    }
    (length, true)
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use hyper::client::conn::http2;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use tokio::net::TcpStream;

    use super::*;
    use crate::demo::client::send_plain;

    async fn send(api: &SampleApi, method: &str, path: &str, body: &'static str) -> (StatusCode, Value) {
        let request = Request::builder().method(method).uri(path).header("X-Note", "a").header("X-Note", "b");
        let response = send_plain(api.address(), request.body(Full::from(body)).unwrap()).await.unwrap();
        (response.status(), serde_json::from_slice(response.body()).unwrap_or_default())
    }

    #[tokio::test]
    async fn answers_and_echoes() {
        let api = SampleApi::start().await.unwrap();
        for (method, path, status) in [
            ("GET", "/orders", 200),
            ("GET", "/orders/7?x=1", 200),
            ("HEAD", "/orders/7", 200),
            ("POST", "/orders", 201),
            ("GET", "/status", 200),
            ("DELETE", "/orders/7", 404),
            ("GET", "/", 404),
            ("GET", "/orders/7/lines", 404),
        ] {
            assert_eq!(send(&api, method, path, "").await.0.as_u16(), status, "{method} {path}");
        }
        let (_, document) = send(&api, "POST", "/orders", "12345").await;
        assert_eq!(document["received"]["headers"]["x-note"], json!(["a", "b"]));
        assert_eq!(document["received"]["body_len"], 5);
    }

    #[tokio::test]
    async fn remembers_what_it_received_and_over_which_version() {
        let api = SampleApi::start().await.unwrap();
        send(&api, "POST", "/orders?y=2", "123").await;
        let stream = TcpStream::connect(api.address()).await.unwrap();
        let (mut sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::get(format!("http://{}/status", api.address()));
        sender.send_request(request.body(Full::<Bytes>::default()).unwrap()).await.unwrap();

        let received = api.received();
        let [first, second] = received.as_slice() else { panic!("{received:?}") };
        assert_eq!((&first.method, first.path.as_str(), first.body_len), (&Method::POST, "/orders?y=2", 3));
        assert_eq!((first.version, first.body_complete), (Version::HTTP_11, true));
        assert_eq!(first.values(&HeaderName::from_static("x-note")), ["a", "b"]);
        assert_eq!((second.path.as_str(), second.version), ("/status", Version::HTTP_2));
        api.forget();
        assert!(api.received().is_empty());
    }

    #[tokio::test]
    async fn memory_is_bounded() {
        let memory = Memory::default();
        for body_len in 0..=REMEMBERED as u64 {
            memory.add(Received {
                method: Method::GET,
                path: String::new(),
                headers: HeaderMap::new(),
                body_len,
                body_complete: true,
                version: Version::HTTP_11,
            });
        }
        let requests = memory.lock();
        assert_eq!((requests.len(), requests.front().unwrap().body_len), (REMEMBERED, 1));
    }
}
