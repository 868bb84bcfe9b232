//! An HTTP/2 client made of single frames (RFC 9113), for what no client library would send.

use std::collections::HashMap;
use std::net::SocketAddr;

use crate::setup::CERTIFICATES;
use crate::wire::{Answer, Wire};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// A connection after its preface.
pub struct H2 {
    pub wire: Wire,
    answers: HashMap<u32, Answer>,
    /// The error codes of streams that were reset.
    resets: HashMap<u32, u32>,
    /// The error code and last stream of a GOAWAY.
    pub goaway: Option<(u32, u32)>,
    /// What the server has set (RFC 9113 section 6.5.1).
    pub settings: HashMap<u16, u32>,
}

/// What became of a request.
#[derive(Debug)]
pub enum Outcome {
    Answer(Answer),
    /// `RST_STREAM` with this error code.
    Reset(u32),
    /// The connection ended, with a GOAWAY of this error code if there was one.
    Closed {
        _goaway: Option<u32>,
    },
}

impl Outcome {
    #[track_caller]
    pub fn answer(self) -> Answer {
        match self {
            Self::Answer(answer) => answer,
            other => panic!("{other:?}"),
        }
    }

    /// Whether the request was turned down: by a status from 400 on, or by a protocol error.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Answer(answer) => answer.status >= 400,
            Self::Reset(_) | Self::Closed { .. } => true,
        }
    }
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A header block of literals without indexing (RFC 7541 section 6.2.2).
pub fn block<N: AsRef<[u8]>, V: AsRef<[u8]>>(fields: &[(N, V)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name.as_ref(), value.as_ref()] {
            integer(&mut bytes, text.len());
            bytes.extend(text);
        }
    }
    bytes
}

fn integer(bytes: &mut Vec<u8>, value: usize) {
    if value < 127 {
        bytes.push(u8::try_from(value).unwrap());
        return;
    }
    bytes.push(127);
    let mut rest = value - 127;
    while rest >= 128 {
        bytes.push(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    bytes.push(u8::try_from(rest).unwrap());
}

/// The pseudo-header fields of a plain GET.
pub fn get(path: &str) -> Vec<(&str, &str)> {
    vec![(":method", "GET"), (":scheme", "http"), (":authority", "localhost"), (":path", path)]
}

impl H2 {
    /// By prior knowledge.
    pub async fn plain(address: SocketAddr) -> Self {
        Self::begin(Wire::plain(address).await).await
    }

    pub async fn tls(address: SocketAddr) -> Self {
        Self::tls_to(address, "localhost").await
    }

    pub async fn tls_to(address: SocketAddr, name: &str) -> Self {
        Self::begin(Wire::tls(address, &CERTIFICATES.ca, name, b"h2").await).await
    }

    async fn begin(mut wire: Wire) -> Self {
        wire.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        // SETTINGS_HEADER_TABLE_SIZE 0: no response refers to an earlier one's fields.
        wire.send(frame(SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0])).await;
        let (answers, resets, settings) = Default::default();
        Self { wire, answers, resets, goaway: None, settings }
    }

    pub async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.wire.send(frame(kind, flags, stream, payload)).await;
    }

    /// Sends a request without body and waits for what becomes of it.
    pub async fn request<N: AsRef<[u8]>, V: AsRef<[u8]>>(
        &mut self,
        stream: u32,
        fields: &[(N, V)],
    ) -> Outcome {
        self.send(HEADERS, END_HEADERS | END_STREAM, stream, &block(fields)).await;
        self.outcome(stream).await
    }

    /// Sends a request with a body in one frame.
    pub async fn request_with_body(&mut self, stream: u32, fields: &[(&str, &str)], body: &[u8]) -> Outcome {
        self.send(HEADERS, END_HEADERS, stream, &block(fields)).await;
        self.send(DATA, END_STREAM, stream, body).await;
        self.outcome(stream).await
    }

    /// Waits for the end of a stream.
    pub async fn outcome(&mut self, stream: u32) -> Outcome {
        loop {
            if self.answers.get(&stream).is_some_and(|answer| answer.complete) {
                return Outcome::Answer(self.answers.remove(&stream).unwrap());
            }
            if let Some(code) = self.resets.remove(&stream) {
                return Outcome::Reset(code);
            }
            if self.step().await.is_none() {
                return Outcome::Closed { _goaway: self.goaway.map(|(code, _)| code) };
            }
        }
    }

    /// Whether it is known what became of a stream.
    pub fn is_over(&self, stream: u32) -> bool {
        self.was_reset(stream) || self.answers.get(&stream).is_some_and(|answer| answer.complete)
    }

    /// Whether a stream is known to have been reset.
    pub fn was_reset(&self, stream: u32) -> bool {
        self.resets.contains_key(&stream)
    }

    /// Waits for the head of an answer whose stream goes on, and gives its status.
    pub async fn opened(&mut self, stream: u32) -> u16 {
        loop {
            if let Some(answer) = self.answers.get(&stream) {
                return answer.status;
            }
            assert!(self.step().await.is_some(), "the connection ended");
        }
    }

    /// Waits until this has come on a stream.
    pub async fn received(&mut self, stream: u32, text: &[u8]) {
        while !self.answers[&stream].body.windows(text.len()).any(|window| window == text) {
            assert!(self.step().await.is_some(), "the connection ended");
        }
    }

    /// Waits for a frame of this kind; false if the connection ends before.
    pub async fn wait_for(&mut self, kind: u8, flags: u8) -> bool {
        loop {
            match self.step().await {
                Some((k, f)) if k == kind && f & flags == flags => return true,
                Some(_) => {}
                None => return false,
            }
        }
    }

    /// Takes in one frame; its type and flags.
    pub async fn step(&mut self) -> Option<(u8, u8)> {
        let head = self.wire.take(9).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let (kind, flags) = (head[3], head[4]);
        let stream = u32::from_be_bytes(head[5..9].try_into().unwrap()) & 0x7fff_ffff;
        let payload = self.wire.take(length).await?;
        let number = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
        match kind {
            DATA => {
                let answer = self.answers.get_mut(&stream).unwrap();
                answer.body.extend(&payload);
                answer.complete = flags & END_STREAM != 0;
                if !payload.is_empty() {
                    let credit = u32::try_from(payload.len()).unwrap().to_be_bytes();
                    self.send(WINDOW_UPDATE, 0, 0, &credit).await;
                    self.send(WINDOW_UPDATE, 0, stream, &credit).await;
                }
            }
            HEADERS => {
                let answer = self.answers.entry(stream).or_default();
                if answer.status < 200 {
                    answer.status = status(&payload);
                }
                answer.complete = flags & END_STREAM != 0;
            }
            RST_STREAM => {
                self.resets.insert(stream, number(0));
            }
            SETTINGS if flags & ACK == 0 => {
                self.settings.extend(payload.chunks(6).map(|setting| {
                    let value = u32::from_be_bytes(setting[2..].try_into().unwrap());
                    (u16::from_be_bytes([setting[0], setting[1]]), value)
                }));
                self.send(SETTINGS, ACK, 0, &[]).await;
            }
            PING if flags & ACK == 0 => self.send(PING, ACK, 0, &payload).await,
            GOAWAY => self.goaway = Some((number(4), number(0) & 0x7fff_ffff)),
            _ => {}
        }
        Some((kind, flags))
    }
}

/// The `:status` at the front of a header block. The other fields are left to tests with a client library.
fn status(block: &[u8]) -> u16 {
    match *block {
        // Dynamic table size update.
        [0x20..=0x3f, ref rest @ ..] => status(rest),
        [indexed @ 0x88..=0x8e, ..] => [200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)],
        [0x08 | 0x18 | 0x48, length, ref rest @ ..] if length & 0x80 == 0 => {
            std::str::from_utf8(&rest[..usize::from(length)]).unwrap().parse().unwrap()
        }
        [0x08 | 0x18 | 0x48, length, ref rest @ ..] => huffman_digits(&rest[..usize::from(length & 0x7f)]),
        _ => panic!("no status in {block:?}"),
    }
}

/// RFC 7541 appendix B: '0' to '2' have five bits from 00000 on, '3' to '9' six from 011001 on.
fn huffman_digits(bytes: &[u8]) -> u16 {
    let bits: String = bytes.iter().map(|byte| format!("{byte:08b}")).collect();
    let (mut rest, mut value) = (&*bits, 0);
    for _ in 0..3 {
        let length = if rest.starts_with("000") { 5 } else { 6 };
        let code = u16::from_str_radix(&rest[..length], 2).unwrap();
        value = value * 10 + if length == 5 { code } else { code - 0b01_1001 + 3 };
        rest = &rest[length..];
    }
    value
}
