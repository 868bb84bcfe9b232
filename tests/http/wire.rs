//! A client that sends exactly the bytes it is given, over TCP or TLS, and reads raw responses.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::recorder::PATIENCE;

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A connection to the gateway.
pub struct Wire {
    stream: Box<dyn Stream>,
    buffer: Vec<u8>,
}

/// A response as it arrived, body without its coding.
#[derive(Clone, Default)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    /// Whether the body came to its end as its framing says.
    pub complete: bool,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let body = String::from_utf8_lossy(&self.body[..self.body.len().min(600)]);
        write!(
            f,
            "{} {:?} {body:?} {:?} complete={}",
            self.status, self.headers, self.trailers, self.complete
        )
    }
}

impl Answer {
    pub fn values(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| &**v).collect()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.values(name).first().copied()
    }

    pub fn problem(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// `VAL-042 ambiguous_framing`, or the status if this is no problem document.
    pub fn verdict(&self) -> String {
        let problem = self.problem();
        match (problem["code"].as_str(), problem["reason"].as_str()) {
            (Some(code), Some(reason)) => format!("{code} {reason}"),
            _ => self.status.to_string(),
        }
    }
}

/// Asserts that this is a refusal with this code and reason, in the form that the contract promises.
#[track_caller]
pub fn refused(answer: &Answer, status: u16, code: &str, reason: &str) {
    let problem = answer.problem();
    assert_eq!(
        (answer.status, problem["code"].as_str(), problem["reason"].as_str()),
        (status, Some(code), Some(reason)),
        "{answer:?}"
    );
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(problem["request_id"].as_str(), answer.header("x-request-id"));
}

/// TLS that trusts `ca` and offers `alpn`.
pub fn client_config(ca: &CertificateDer<'static>, alpn: &[u8]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    Arc::new(config)
}

impl Wire {
    pub async fn plain(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream: Box::new(stream), buffer: Vec::new() }
    }

    /// TLS that trusts `ca`, asks for `name` and offers `alpn`.
    pub async fn tls(address: SocketAddr, ca: &CertificateDer<'static>, name: &str, alpn: &[u8]) -> Self {
        let config = client_config(ca, alpn);
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let stream = TlsConnector::from(config).connect(name, stream).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(alpn));
        Self { stream: Box::new(stream), buffer: Vec::new() }
    }

    /// Sends bytes. That the gateway has already closed is seen when reading.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref()).await;
        let _ = self.stream.flush().await;
    }

    /// Sends bytes; whether the gateway still took them.
    pub async fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).await.is_ok() && self.stream.flush().await.is_ok()
    }

    /// Reads one response to the end; `None` if the connection ends before its head is complete.
    pub async fn answer(&mut self) -> Option<Answer> {
        self.answer_to("GET").await
    }

    /// Reads the response to a request of this method.
    pub async fn answer_to(&mut self, method: &str) -> Option<Answer> {
        let mut answer = self.head().await?;
        if method == "HEAD" || answer.status == 204 || answer.status == 304 || answer.status < 200 {
            answer.complete = true;
            return Some(answer);
        }
        if answer.header("transfer-encoding").is_some() {
            self.chunked(&mut answer).await;
        } else if let Some(length) = answer.header("content-length") {
            let length = length.parse().unwrap();
            while self.buffer.len() < length && self.more().await {}
            answer.complete = self.buffer.len() >= length;
            answer.body = self.buffer.drain(..length.min(self.buffer.len())).collect();
        } else {
            while self.more().await {}
            answer.body = std::mem::take(&mut self.buffer);
            answer.complete = true;
        }
        Some(answer)
    }

    /// Reads the head of a response, informational ones included.
    pub async fn head(&mut self) -> Option<Answer> {
        let end = self.find(b"\r\n\r\n").await?;
        let head: Vec<u8> = self.buffer.drain(..end + 4).collect();
        let text: String = head[..end].iter().map(|&byte| char::from(byte)).collect();
        let mut lines = text.split("\r\n");
        let status = lines.next().unwrap();
        assert!(status.starts_with("HTTP/1."), "{status:?}");
        Some(Answer {
            status: status[9..12].parse().unwrap(),
            headers: lines.map(split).collect(),
            ..Answer::default()
        })
    }

    /// The data of the next chunk of a chunked body; `None` at its end or that of the connection.
    pub async fn chunk(&mut self) -> Option<Vec<u8>> {
        let end = self.find(b"\r\n").await?;
        let line: Vec<u8> = self.buffer.drain(..end + 2).collect();
        let size = usize::from_str_radix(std::str::from_utf8(&line[..end]).unwrap(), 16).unwrap();
        while self.buffer.len() < size + 2 && size > 0 {
            if !self.more().await {
                return None;
            }
        }
        if size == 0 {
            return None;
        }
        let data = self.buffer.drain(..size).collect();
        assert_eq!(self.buffer.drain(..2).collect::<Vec<u8>>(), b"\r\n");
        Some(data)
    }

    async fn chunked(&mut self, answer: &mut Answer) {
        while let Some(data) = self.chunk().await {
            answer.body.extend(data);
        }
        while let Some(end) = self.find(b"\r\n").await {
            let line: Vec<u8> = self.buffer.drain(..end + 2).collect();
            if end == 0 {
                answer.complete = true;
                return;
            }
            answer.trailers.push(split(std::str::from_utf8(&line[..end]).unwrap()));
        }
    }

    async fn find(&mut self, needle: &[u8]) -> Option<usize> {
        loop {
            if let Some(at) = self.buffer.windows(needle.len()).position(|window| window == needle) {
                return Some(at);
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// Waits until `count` bytes are there, and takes them; `None` if the connection ends before.
    pub async fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < count {
            if !self.more().await {
                return None;
            }
        }
        Some(self.buffer.drain(..count).collect())
    }

    /// Waits until there is something to read, or the end. To be given up at any time.
    pub async fn readable(&mut self) {
        if self.buffer.is_empty() {
            self.more().await;
        }
    }

    async fn more(&mut self) -> bool {
        let read = timeout(PATIENCE, self.stream.read_buf(&mut self.buffer)).await;
        matches!(read.expect("the gateway neither answered nor closed"), Ok(1..))
    }

    /// Everything until this has come.
    pub async fn until(&mut self, text: &[u8]) -> Vec<u8> {
        let at = self.find(text).await.expect("the connection ended before");
        self.buffer.drain(..at + text.len()).collect()
    }

    /// Everything until the end.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.buffer)
    }

    /// Asserts that nothing more comes but the end.
    pub async fn assert_ends(&mut self) {
        while self.more().await {}
        assert!(self.buffer.is_empty(), "more came: {:?}", String::from_utf8_lossy(&self.buffer));
    }

    /// The stream itself, for a client library.
    pub fn into_stream(self) -> impl AsyncRead + AsyncWrite + Send + Unpin + 'static {
        assert!(self.buffer.is_empty());
        self.stream
    }
}

fn split(line: &str) -> (String, String) {
    let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("header {line:?}"));
    (name.to_owned(), value.trim().to_owned())
}
