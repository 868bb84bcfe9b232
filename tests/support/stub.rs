//! A server whose answers a test sets by path: keys, metadata, revocations, good or as bad as they come.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// What a path answers.
#[derive(Clone, Debug)]
pub enum Answer {
    /// This status with these headers and this body.
    Status(u16, Vec<(String, String)>, Vec<u8>),
    /// Nothing, ever.
    Hang,
    /// The connection is closed.
    Close,
    /// This, once the watched value is true.
    Held(watch::Receiver<bool>, Box<Answer>),
}

impl Answer {
    /// 200 with a JSON document.
    pub fn json(document: &Value) -> Self {
        Self::body("application/json", document.to_string())
    }

    /// 200 with this body.
    pub fn body(kind: &str, body: impl Into<Vec<u8>>) -> Self {
        Self::Status(200, vec![("Content-Type".to_owned(), kind.to_owned())], body.into())
    }

    /// This status with a page that is not JSON.
    pub fn error(status: u16) -> Self {
        Self::Status(status, Vec::new(), b"<h1>Out of order</h1>".to_vec())
    }
}

/// A request as it came.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Path and query.
    pub target: String,
    /// Request line and headers.
    pub head: String,
    /// The body.
    pub body: String,
}

#[derive(Default)]
struct State {
    answers: HashMap<String, Answer>,
    /// By path and a text that stands in the body.
    answers_to: Vec<(String, String, Answer)>,
    requests: Vec<Asked>,
    under_way: usize,
    most_under_way: usize,
}

/// A running server; dropping it closes its socket and its connections.
pub struct Stub {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

impl Stub {
    /// A server on a free port that answers 404 to everything.
    pub async fn start() -> Self {
        Self::start_on(([127, 0, 0, 1], 0).into()).await
    }

    /// The same at this address: for a server that comes back.
    pub async fn start_on(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let state = Arc::<Mutex<State>>::default();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(serve(listener, Arc::clone(&state)));
        Self { address, state, task }
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What the path (without query) answers from now on.
    pub fn set(&self, path: &str, answer: Answer) {
        self.state.lock().unwrap().answers.insert(path.to_owned(), answer);
    }

    /// What the path answers from now on to requests with this text in their body; the first text that fits decides.
    pub fn set_to(&self, path: &str, text: &str, answer: Answer) {
        let mut state = self.state.lock().unwrap();
        state.answers_to.retain(|(known, fits, _)| (known.as_str(), fits.as_str()) != (path, text));
        state.answers_to.push((path.to_owned(), text.to_owned(), answer));
    }

    /// The requests for the path (without query), in their order.
    pub fn asked(&self, path: &str) -> Vec<Asked> {
        let is = |asked: &&Asked| asked.target.split('?').next() == Some(path);
        self.state.lock().unwrap().requests.iter().filter(is).cloned().collect()
    }

    /// The most requests that were under way at a time: read, and not yet answered.
    pub fn most_under_way(&self) -> usize {
        self.state.lock().unwrap().most_under_way
    }

    /// How often the path (without query) was asked for.
    pub fn hits(&self, path: &str) -> usize {
        self.asked(path).len()
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, state: Arc<Mutex<State>>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(answer(stream, Arc::clone(&state)));
    }
}

/// One request a connection.
async fn answer(mut stream: TcpStream, state: Arc<Mutex<State>>) {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        if !matches!(stream.read_buf(&mut bytes).await, Ok(1..)) {
            return;
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().unwrap())
    });
    while bytes.len() < end + length.unwrap_or(0) {
        if !matches!(stream.read_buf(&mut bytes).await, Ok(1..)) {
            return;
        }
    }
    let body = String::from_utf8_lossy(&bytes[end..]).into_owned();
    let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let path = target.split('?').next().unwrap_or_default().to_owned();
    let answer = {
        let mut state = state.lock().unwrap();
        let fits = |(known, text, _): &&(String, String, Answer)| *known == path && body.contains(text);
        let answer = state.answers_to.iter().find(fits).map(|(_, _, answer)| answer.clone());
        let answer = answer.or_else(|| state.answers.get(&path).cloned());
        state.requests.push(Asked { target, head, body });
        state.under_way += 1;
        state.most_under_way = state.most_under_way.max(state.under_way);
        answer.unwrap_or_else(|| Answer::error(404))
    };
    let answer = match answer {
        Answer::Held(mut until, answer) => {
            // Whoever held it is gone: nothing is answered.
            if until.wait_for(|let_go| *let_go).await.is_err() {
                return;
            }
            *answer
        }
        answer => answer,
    };
    let (status, headers, body) = match answer {
        Answer::Status(status, headers, body) => (status, headers, body),
        Answer::Hang | Answer::Held(..) => return std::future::pending().await,
        Answer::Close => return,
    };
    // Before the answer leaves: whoever has it may ask the next question at once.
    state.lock().unwrap().under_way -= 1;
    let mut response = format!("HTTP/1.1 {status} Whatever\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        response.extend([&name, ": ", &value, "\r\n"]);
    }
    response.push_str("Connection: close\r\n\r\n");
    let mut bytes = response.into_bytes();
    bytes.extend(body);
    // The client may have seen enough.
    drop(stream.write_all(&bytes).await);
    drop(stream.shutdown().await);
}
