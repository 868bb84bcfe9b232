//! Which HTTP a connection without TLS speaks: HTTP/2 begins with a fixed preface (RFC 9113 section 3.4), which no
//! HTTP/1.1 request begins with.

use std::io;
use std::time::Duration;

use tokio::net::TcpStream;

const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How often to look again while the bytes so far could still become the preface.
const PAUSE: Duration = Duration::from_millis(5);

/// Whether the peer begins with the HTTP/2 preface. Reads nothing; waits for bytes, so the caller bounds the time.
pub async fn begins_with_http2_preface(stream: &TcpStream) -> io::Result<bool> {
    let mut seen = [0; PREFACE.len()];
    let mut before = 0;
    loop {
        let count = stream.peek(&mut seen).await?;
        let start = seen.get(..count).unwrap_or_default();
        if !PREFACE.starts_with(start) || count == 0 {
            return Ok(false);
        }
        if count == PREFACE.len() {
            return Ok(true);
        }
        if count == before {
            tokio::time::sleep(PAUSE).await;
        }
        before = count;
    }
}
