//! The way out through a proxy: a tunnel by HTTP CONNECT (RFC 9110 section 9.3.6), so that TLS ends at the source and
//! the proxy sees neither credentials nor answers. Knows nothing of what is sent through it.

use std::fmt;
use std::io;

use http::{HeaderValue, Uri};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use url::Url;

/// A proxy that opens tunnels.
#[derive(Clone)]
pub struct EgressProxy {
    /// Its address: `http://` with host and port.
    pub url: Url,
    /// The value of `Proxy-Authorization`.
    pub authorization: Option<HeaderValue>,
}

impl fmt::Debug for EgressProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EgressProxy").field("url", &self.url.as_str()).finish_non_exhaustive()
    }
}

impl EgressProxy {
    /// The address to connect to.
    pub(super) fn uri(&self) -> Option<Uri> {
        self.url.as_str().parse().ok()
    }

    /// Has the proxy connect `stream` with the host of `target`.
    pub(super) async fn open(&self, stream: &mut TcpStream, target: &Uri) -> io::Result<()> {
        let host = target.host().unwrap_or_default();
        let port = target.port_u16().unwrap_or(if target.scheme_str() == Some("http") { 80 } else { 443 });
        let mut request = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n").into_bytes();
        if let Some(authorization) = &self.authorization {
            request.extend_from_slice(b"Proxy-Authorization: ");
            request.extend_from_slice(authorization.as_bytes());
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"\r\n");
        stream.write_all(&request).await?;
        let status = status_of(stream).await?;
        if status.starts_with('2') {
            return Ok(());
        }
        Err(io::Error::other(format!("the proxy refuses the tunnel with status {status}")))
    }
}

/// Reads the answer's head, and no byte beyond it: those belong to the source.
async fn status_of(stream: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= MAX_HEAD_BYTES {
            return Err(io::Error::other("the proxy's answer has no end"));
        }
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head);
    let status = head.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1));
    match status {
        Some(status) if status.len() == 3 && status.bytes().all(|byte| byte.is_ascii_digit()) => {
            Ok(status.to_owned())
        }
        _ => Err(io::Error::other("the proxy does not answer in HTTP")),
    }
}

const MAX_HEAD_BYTES: usize = 8 * 1024;
