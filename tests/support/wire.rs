//! Connections that send the bytes they are given and read what comes, without a client library's opinions.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::{PATIENCE, Reply};

/// Bytes both ways.
pub trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

/// A connection.
pub struct Connection {
    stream: Box<dyn Duplex>,
    read: Vec<u8>,
}

impl Connection {
    /// Without TLS.
    pub async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream: Box::new(stream), read: Vec::new() }
    }

    /// Over a stream that there is already.
    pub fn over(stream: impl Duplex + 'static) -> Self {
        Self { stream: Box::new(stream), read: Vec::new() }
    }

    /// With TLS, for a name (SNI) and a protocol (ALPN), trusting this authority in PEM.
    pub async fn open_tls(address: SocketAddr, name: &str, ca: &str, alpn: &[u8]) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![alpn.to_vec()];
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
        Self { stream: Box::new(stream), read: Vec::new() }
    }

    /// Sends these bytes. That the other side has closed already is no error: what it said is to be read.
    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        if self.stream.write_all(bytes.as_ref()).await.is_ok() {
            drop(self.stream.flush().await);
        }
    }

    /// Reads one response. `None` if the connection ends first. Interim (1xx) responses are skipped.
    pub async fn reply(&mut self) -> Option<Reply> {
        self.reply_to(false).await
    }

    /// Reads one response to a `HEAD`, which has no body whatever its headers say.
    pub async fn reply_to_head(&mut self) -> Option<Reply> {
        self.reply_to(true).await
    }

    /// Whatever comes until the connection ends.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.read)
    }

    /// The connection as a plain stream of bytes.
    pub fn into_stream(self) -> Box<dyn Duplex> {
        self.stream
    }

    async fn reply_to(&mut self, is_head: bool) -> Option<Reply> {
        loop {
            let end = loop {
                match find(&self.read, b"\r\n\r\n") {
                    Some(end) => break end + 4,
                    None if !self.more().await => return None,
                    None => {}
                }
            };
            let head: Vec<u8> = self.read.drain(..end).collect();
            let mut reply = parse_head(&head);
            if (100..200).contains(&reply.status) && reply.status != 101 {
                continue;
            }
            if !is_head && !matches!(reply.status, 101 | 204 | 304) {
                self.body(&mut reply).await;
            }
            return Some(reply);
        }
    }

    async fn body(&mut self, reply: &mut Reply) {
        if reply.header("transfer-encoding").is_some() {
            loop {
                let line = self.line().await;
                let size = line.split(';').next().unwrap_or_default();
                let size = usize::from_str_radix(size, 16).unwrap_or_else(|_| panic!("chunk size {line:?}"));
                if size == 0 {
                    break;
                }
                let chunk = self.exactly(size).await;
                reply.body.extend(chunk);
                assert_eq!(self.line().await, "", "a chunk ends with CRLF");
            }
            loop {
                let line = self.line().await;
                let Some((name, value)) = line.split_once(':') else { break };
                reply.trailers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
            }
        } else if let Some(length) = reply.header("content-length") {
            let length = length.parse().unwrap();
            reply.body = self.exactly(length).await;
        } else {
            reply.body = self.rest().await;
        }
    }

    async fn line(&mut self) -> String {
        loop {
            if let Some(end) = find(&self.read, b"\r\n") {
                let line: Vec<u8> = self.read.drain(..end + 2).take(end).collect();
                return String::from_utf8_lossy(&line).into_owned();
            }
            assert!(self.more().await, "the response broke off");
        }
    }

    /// So many bytes, or as many as there are.
    async fn exactly(&mut self, count: usize) -> Vec<u8> {
        while self.read.len() < count && self.more().await {}
        let count = count.min(self.read.len());
        self.read.drain(..count).collect()
    }

    async fn more(&mut self) -> bool {
        let read = timeout(PATIENCE, self.stream.read_buf(&mut self.read)).await;
        matches!(read.expect("the gateway neither answers nor closes"), Ok(1..))
    }
}

/// Sends these bytes on a connection of their own and reads the response; status 0 if there is none.
pub async fn send(address: SocketAddr, bytes: impl AsRef<[u8]>) -> Reply {
    let is_head = bytes.as_ref().starts_with(b"HEAD ");
    let mut connection = Connection::open(address).await;
    connection.write(bytes).await;
    connection.reply_to(is_head).await.unwrap_or_default()
}

/// `GET` by HTTP/1.1 on a connection of its own.
pub async fn get(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Reply {
    let mut request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for (name, value) in headers {
        request.extend([name, ": ", value, "\r\n"]);
    }
    send(address, request + "\r\n").await
}

/// Sends a request by HTTP/2 on a connection of its own. Its URI is a path, or has an authority to be kept.
pub async fn http2(connection: Connection, mut request: Request<Bytes>) -> Reply {
    if request.uri().authority().is_none() {
        let path = request.uri().path_and_query().unwrap().clone();
        *request.uri_mut() =
            Uri::builder().scheme("http").authority("localhost").path_and_query(path).build().unwrap();
    }
    let exchange = async {
        let io = TokioIo::new(connection.into_stream());
        let (mut sender, driver) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
        let driver = tokio::spawn(driver);
        let response = sender.send_request(request.map(Full::new)).await;
        let Ok(response) = response else { return Reply::default() };
        let (head, body) = response.into_parts();
        let fields = |map: &http::HeaderMap| {
            let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
            map.iter().map(|(name, value)| (name.to_string(), text(value))).collect::<Vec<_>>()
        };
        let mut reply =
            Reply { status: head.status.as_u16(), headers: fields(&head.headers), ..Reply::default() };
        if let Ok(body) = body.collect().await {
            reply.trailers = body.trailers().map(fields).unwrap_or_default();
            reply.body = body.to_bytes().to_vec();
        }
        driver.abort();
        reply
    };
    timeout(PATIENCE, exchange).await.expect("the gateway neither answers nor closes")
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

fn parse_head(head: &[u8]) -> Reply {
    let text = String::from_utf8_lossy(head);
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let fields = lines.filter_map(|line| line.split_once(':'));
    Reply {
        status: status.unwrap_or_else(|| panic!("not a response: {text:?}")),
        headers: fields.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect(),
        ..Reply::default()
    }
}
