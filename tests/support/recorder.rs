//! A backend that writes down every byte it gets, and answers as a test says, wrongly if it says so.
//!
//! It reads requests as strictly as it can: what it cannot read as exactly one request is `garbage`, which no test
//! ever expects. So a request that two servers could read differently shows up here, whatever the gateway thought.

#![allow(dead_code, reason = "no binary uses all of it")]

use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Far longer than anything on loopback takes; a test that waits this long has failed.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What most tests answer with.
pub const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A running backend; dropping it closes its socket.
pub struct Recorder {
    address: SocketAddr,
    log: Arc<Mutex<Log>>,
    accepting: JoinHandle<()>,
}

#[derive(Default)]
struct Log {
    connections: Vec<Vec<u8>>,
    requests: Vec<Recorded>,
    garbage: Vec<String>,
}

/// A request as it arrived.
#[derive(Clone, Debug, Default)]
pub struct Recorded {
    /// The request line, without its line end.
    pub line: String,
    /// Names as they were spelled, and values.
    pub headers: Vec<(String, String)>,
    /// The body without its coding, as far as it came.
    pub body: Vec<u8>,
    /// The fields behind a chunked body.
    pub trailers: Vec<(String, String)>,
    /// Whether the body came to its end.
    pub complete: bool,
    /// The place of its connection among all connections.
    pub connection: usize,
}

impl Recorded {
    /// The target of the request line.
    pub fn target(&self) -> &str {
        self.line.split(' ').nth(1).unwrap()
    }

    /// The values of a header, whatever the case of its name.
    pub fn values(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| &**v).collect()
    }

    /// The only value of a header.
    #[track_caller]
    pub fn value(&self, name: &str) -> &str {
        let values = self.values(name);
        assert_eq!(values.len(), 1, "{name} in {self:?}");
        values[0]
    }

    /// Whether a header of this name is there.
    pub fn has(&self, name: &str) -> bool {
        !self.values(name).is_empty()
    }
}

impl Recorder {
    /// Answers every request with [`OK`].
    pub async fn start() -> Self {
        Self::answering(OK).await
    }

    /// Answers every request with these bytes.
    pub async fn answering(answer: impl Into<Vec<u8>>) -> Self {
        let answer: Arc<Vec<u8>> = Arc::new(answer.into());
        Self::scripted(move |mut conn| {
            let answer = Arc::clone(&answer);
            async move {
                while conn.request().await.is_some() {
                    conn.send(&answer).await;
                }
            }
        })
        .await
    }

    /// Runs a script on each connection; the connection is closed when the script ends.
    pub async fn scripted<S, F>(script: S) -> Self
    where
        S: Fn(Conn) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        Self::scripted_at((Ipv4Addr::LOCALHOST, 0).into(), script).await
    }

    /// The same at this address.
    pub async fn scripted_at<S, F>(address: SocketAddr, script: S) -> Self
    where
        S: Fn(Conn) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let log = Arc::<Mutex<Log>>::default();
        let shared = Arc::clone(&log);
        let accepting = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let place = {
                    let mut log = shared.lock().unwrap();
                    log.connections.push(Vec::new());
                    log.connections.len() - 1
                };
                let conn = Conn { stream, buffer: Vec::new(), place, log: Arc::clone(&shared) };
                let running: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(script(conn));
                connections.spawn(running);
            }
        });
        Self { address, log, accepting }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The requests so far, bodies that are still coming included.
    #[track_caller]
    pub fn requests(&self) -> Vec<Recorded> {
        let log = self.log.lock().unwrap();
        assert!(log.garbage.is_empty(), "the backend got what is not exactly one request: {:?}", log.garbage);
        log.requests.clone()
    }

    /// The one request that came.
    #[track_caller]
    pub fn only(&self) -> Recorded {
        let requests = self.requests();
        assert_eq!(requests.len(), 1, "{requests:?}");
        requests.into_iter().next().unwrap()
    }

    /// Asserts that not one byte came.
    #[track_caller]
    pub fn assert_untouched(&self, what: &str) {
        let log = self.log.lock().unwrap();
        let bytes: Vec<u8> = log.connections.concat();
        assert!(bytes.is_empty(), "{what}: the backend got {:?}", String::from_utf8_lossy(&bytes));
    }

    /// All bytes that came, connection by connection.
    pub fn raw(&self) -> Vec<Vec<u8>> {
        self.log.lock().unwrap().connections.clone()
    }

    /// How many connections were made to it.
    pub fn connections(&self) -> usize {
        self.log.lock().unwrap().connections.len()
    }

    /// Forgets what came.
    pub fn forget(&self) {
        let mut log = self.log.lock().unwrap();
        log.requests.clear();
        log.connections.iter_mut().for_each(Vec::clear);
    }

    /// Waits until a request is as asked for.
    pub async fn wait_for(&self, what: &str, is: impl Fn(&Recorded) -> bool) -> Recorded {
        let found = async {
            loop {
                if let Some(request) = self.requests().into_iter().find(&is) {
                    return request;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(PATIENCE, found)
            .await
            .unwrap_or_else(|_| panic!("the backend never saw {what}; it saw {:?}", self.requests()))
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// One connection to the backend, in the hands of a script.
pub struct Conn {
    stream: TcpStream,
    buffer: Vec<u8>,
    place: usize,
    log: Arc<Mutex<Log>>,
}

impl Conn {
    /// The place of this connection among all, from 0.
    pub fn place(&self) -> usize {
        self.place
    }

    /// Reads a whole request; `None` at the end of the connection.
    pub async fn request(&mut self) -> Option<Recorded> {
        let head = self.head().await?;
        self.body(&head).await;
        let log = self.log.lock().unwrap();
        log.requests.iter().rev().find(|request| request.connection == self.place).cloned()
    }

    /// Reads a request's head and writes it down; `None` at the end of the connection.
    pub async fn head(&mut self) -> Option<Recorded> {
        let end = loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                break end;
            }
            if !self.more().await {
                if !self.buffer.is_empty() {
                    let rest = String::from_utf8_lossy(&self.buffer).into_owned();
                    self.log.lock().unwrap().garbage.push(rest);
                }
                return None;
            }
        };
        let head: Vec<u8> = self.buffer.drain(..end + 4).collect();
        let request = parse_head(&head[..end], self.place);
        let mut log = self.log.lock().unwrap();
        match &request {
            Some(request) => log.requests.push(request.clone()),
            None => log.garbage.push(String::from_utf8_lossy(&head).into_owned()),
        }
        drop(log);
        request
    }

    /// Reads the body that this head announces, writing it down as it comes. Whether it came to its end.
    pub async fn body(&mut self, head: &Recorded) -> bool {
        let complete = if head.has("transfer-encoding") {
            self.chunked_body().await
        } else {
            let length = head.values("content-length").first().map_or(0, |text| text.parse().unwrap());
            self.counted(length).await
        };
        if complete {
            self.update(|request| request.complete = true);
        }
        complete
    }

    async fn chunked_body(&mut self) -> bool {
        loop {
            let Some(line) = self.line().await else { return false };
            let Ok(size) = usize::from_str_radix(&line, 16) else {
                self.log.lock().unwrap().garbage.push(format!("chunk size {line:?}"));
                return false;
            };
            if size == 0 {
                return self.trailers().await;
            }
            if !self.counted(size).await || self.line().await.is_none_or(|line| !line.is_empty()) {
                return false;
            }
        }
    }

    async fn trailers(&mut self) -> bool {
        loop {
            let Some(line) = self.line().await else { return false };
            match line.split_once(':') {
                Some((name, value)) => {
                    let field = (name.to_owned(), value.trim().to_owned());
                    self.update(|request| request.trailers.push(field));
                }
                None => return line.is_empty(),
            }
        }
    }

    async fn counted(&mut self, mut length: usize) -> bool {
        while length > 0 {
            if self.buffer.is_empty() && !self.more().await {
                return false;
            }
            let taken = length.min(self.buffer.len());
            let data: Vec<u8> = self.buffer.drain(..taken).collect();
            self.update(|request| request.body.extend_from_slice(&data));
            length -= taken;
        }
        true
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..end + 2).collect();
                return Some(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    fn update(&self, change: impl FnOnce(&mut Recorded)) {
        let mut log = self.log.lock().unwrap();
        // It may have been forgotten in the meantime.
        if let Some(request) = log.requests.iter_mut().rev().find(|request| request.connection == self.place)
        {
            change(request);
        }
    }

    /// Reads more; whether there was any.
    pub async fn more(&mut self) -> bool {
        let start = self.buffer.len();
        match self.stream.read_buf(&mut self.buffer).await {
            Ok(0) | Err(_) => false,
            Ok(_) => {
                self.log.lock().unwrap().connections[self.place].extend_from_slice(&self.buffer[start..]);
                true
            }
        }
    }

    /// Reads until the other side closes.
    pub async fn until_closed(&mut self) {
        while self.more().await {}
    }

    /// Sends back whatever comes, until the other side closes.
    pub async fn echo(&mut self) {
        loop {
            let bytes = std::mem::take(&mut self.buffer);
            self.send(&bytes).await;
            if !self.more().await {
                return;
            }
        }
    }

    /// Sends bytes; that the other side has gone is no error of the test.
    pub async fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    /// Whether the other side has closed already.
    pub async fn is_closed(&mut self) -> bool {
        tokio::task::yield_now().await;
        let mut byte = [0];
        !matches!(self.stream.try_read(&mut byte), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    }

    /// Closes with a reset instead of an end.
    pub fn reset(self) {
        let _ = self.stream.set_zero_linger();
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// Anything that some server might read in another way is refused.
fn parse_head(head: &[u8], connection: usize) -> Option<Recorded> {
    let text: String = head.iter().map(|&byte| char::from(byte)).collect();
    if text.chars().any(|c| c == '\0') || text.replace("\r\n", "").contains(['\r', '\n']) {
        return None;
    }
    let mut lines = text.split("\r\n");
    let line = lines.next()?.to_owned();
    let parts: Vec<&str> = line.split(' ').collect();
    if parts.len() != 3 || parts[2] != "HTTP/1.1" || !parts[1].starts_with('/') && parts[1] != "*" {
        return None;
    }
    let mut request = Recorded { line, connection, ..Recorded::default() };
    for line in lines {
        let (name, value) = line.split_once(':')?;
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if name.is_empty() || !name.bytes().all(is_token) {
            return None;
        }
        request.headers.push((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()));
    }
    let lengths = request.values("content-length");
    let codings = request.values("transfer-encoding");
    let one_framing = lengths.len() + codings.len() <= 1
        && lengths.iter().all(|length| length.bytes().all(|byte| byte.is_ascii_digit()))
        && codings.iter().all(|coding| *coding == "chunked");
    let aliases = request.headers.iter().any(|(name, _)| {
        let folded = name.to_ascii_lowercase().replace(['_', '.'], "-");
        matches!(&*folded, "content-length" | "transfer-encoding" | "host")
            && folded != name.to_ascii_lowercase()
    });
    (one_framing && !aliases && request.values("host").len() == 1).then_some(request)
}
