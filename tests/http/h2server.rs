//! An HTTP/2 backend made of single frames (RFC 9113), for what no server library would send.

use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::h2wire::{ACK, DATA, END_HEADERS, END_STREAM, HEADERS, SETTINGS, frame};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A running backend; dropping it closes its socket.
pub struct H2Server {
    address: SocketAddr,
    log: Arc<Mutex<Vec<Seen>>>,
    accepting: JoinHandle<()>,
}

/// A request as it arrived: header blocks undecoded.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub stream: u32,
    /// Its connection's place among all.
    pub connection: usize,
    pub body: Vec<u8>,
    /// Whether a second header block followed.
    pub has_trailers: bool,
    pub complete: bool,
}

/// One connection, in the hands of a script.
pub struct Conn {
    stream: TcpStream,
    pub place: usize,
    log: Arc<Mutex<Vec<Seen>>>,
}

impl H2Server {
    /// Runs a script on each connection after its preface; the connection is closed when the script ends.
    pub async fn scripted<S, F>(script: S) -> Self
    where
        S: Fn(Conn) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let log = Arc::<Mutex<Vec<Seen>>>::default();
        let shared = Arc::clone(&log);
        let script = Arc::new(script);
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            let mut place = 0;
            while let Ok((mut stream, _)) = listener.accept().await {
                let (log, script) = (Arc::clone(&shared), Arc::clone(&script));
                let run: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(async move {
                    let mut preface = [0; PREFACE.len()];
                    if stream.read_exact(&mut preface).await.is_ok() && preface == PREFACE {
                        script(Conn { stream, place, log }).await;
                    }
                });
                connections.spawn(run);
                place += 1;
            }
        });
        Self { address, log, accepting }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.log.lock().unwrap().clone()
    }
}

impl Drop for H2Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Conn {
    /// Sends bytes; that the other side has gone is no error of the test.
    pub async fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    /// Our SETTINGS, empty.
    pub async fn settings(&mut self) {
        self.send(&frame(SETTINGS, 0, 0, &[])).await;
    }

    /// Our SETTINGS, with the most streams that are taken from now on.
    pub async fn takes(&mut self, streams: u32) {
        let payload = [&[0, 3][..], &streams.to_be_bytes()].concat();
        self.send(&frame(SETTINGS, 0, 0, &payload)).await;
    }

    /// Reads frames until a request is whole; its stream. `None` at the end of the connection.
    pub async fn request(&mut self) -> Option<u32> {
        loop {
            let (kind, flags, stream, payload) = self.frame().await?;
            match kind {
                HEADERS | DATA if self.take_in(kind, flags, stream, &payload) => return Some(stream),
                SETTINGS if flags & ACK == 0 => self.send(&frame(SETTINGS, ACK, 0, &[])).await,
                _ => {}
            }
        }
    }

    /// Writes down a part of a request; whether that was the last.
    fn take_in(&self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        let mut log = self.log.lock().unwrap();
        let place = self.place;
        let known = log.iter_mut().rev().find(|seen| seen.stream == stream && seen.connection == place);
        let is_last = flags & END_STREAM != 0;
        match known {
            None => log.push(Seen { stream, connection: place, complete: is_last, ..Seen::default() }),
            Some(seen) => {
                seen.complete = is_last;
                seen.has_trailers |= kind == HEADERS;
                if kind == DATA {
                    seen.body.extend(payload);
                }
            }
        }
        is_last
    }

    /// Answers 200 with this body.
    pub async fn answer(&mut self, stream: u32, body: &[u8]) {
        self.send(&answer(stream, body)).await;
    }

    async fn frame(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload).await.ok()?;
        Some((head[3], head[4], u32::from_be_bytes(head[5..9].try_into().unwrap()), payload))
    }

    /// Whether the other side has neither closed nor reset.
    pub async fn is_open(&mut self) -> bool {
        tokio::task::yield_now().await;
        let mut bytes = [0; 1024];
        match self.stream.try_read(&mut bytes) {
            Ok(count) => count > 0 && bytes[3] != crate::h2wire::RST_STREAM,
            Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
        }
    }

    /// Closes with a reset instead of an end.
    pub fn reset(self) {
        let _ = self.stream.set_zero_linger();
    }
}

/// 200 with this body.
pub fn answer(stream: u32, body: &[u8]) -> Vec<u8> {
    // 0x88: `:status: 200` of the static table.
    let head = frame(HEADERS, END_HEADERS, stream, &[0x88]);
    [head, frame(DATA, END_STREAM, stream, body)].concat()
}
