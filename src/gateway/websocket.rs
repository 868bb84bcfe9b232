//! WebSocket connections (RFC 6455): carried as they are, watched only for where a frame ends, so that a close frame
//! can be put between two of them when the token ends.

use std::cell::Cell;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use http::header::{SEC_WEBSOCKET_KEY, UPGRADE};
use http::{Method, Response};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::body::ResponseBody;
use super::exchange::Exchange;
use super::long_lived::{Ending, Stream};
use super::peer::{Inbound, Tunnel};
use super::sanitize::CleanRequest;
use crate::catalogue::Reason;
use crate::clock::{Clock, Monotonic};
use crate::upstream::{InUse, mark};

/// Whether the request asks for a WebSocket and nothing else (RFC 6455 section 4.1, RFC 8441). Other upgrades are not
/// carried: without the header the request is an ordinary one (RFC 9110 section 7.8).
pub fn is_asked_for(request: &CleanRequest, inbound: &Inbound) -> bool {
    if request.is_extended_connect() {
        return true;
    }
    let headers = request.headers();
    let mut upgrades = headers.get_all(UPGRADE).iter();
    let asks = upgrades.next().is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    asks && upgrades.next().is_none()
        && request.method() == Method::GET
        && headers.contains_key(SEC_WEBSOCKET_KEY)
        && inbound.offers_upgrade()
}

/// The two ends of a WebSocket connection, before either side is ready.
pub struct Ends {
    /// Towards the client.
    pub client: OnUpgrade,
    /// Towards the upstream.
    pub upstream: OnUpgrade,
    /// Keeps the upstream's count of requests in flight.
    pub in_use: Option<InUse>,
}

impl Ends {
    /// The upstream's end of an accepted handshake, together with the client's.
    pub fn join<B>(client: OnUpgrade, response: &mut Response<B>, in_use: Option<InUse>) -> Self {
        Self { client, upstream: hyper::upgrade::on(response), in_use }
    }

    /// Carries the connection to its end in a task of its own.
    pub fn carry(self, exchange: Box<Exchange>, tunnel: Tunnel) {
        tokio::task::spawn_local(async move {
            let (_in_use, _tunnel) = (self.in_use, tunnel);
            match tokio::try_join!(self.client, self.upstream) {
                Ok((client, upstream)) => {
                    carry(TokioIo::new(client), TokioIo::new(upstream), exchange).await;
                }
                Err(error) => tracing::debug!(%error, "a WebSocket handshake was not completed"),
            }
        });
    }
}

/// An accepted handshake as the client gets it.
pub fn accepted<B>(response: Response<B>) -> Response<ResponseBody> {
    let mut response = response.map(|_| ResponseBody::full(bytes::Bytes::new()));
    mark(response.headers_mut());
    response
}

/// What is read at a time.
const BUFFER: usize = 16 * 1024;

/// How long the frame at hand may take to end once the connection has to, and the client to take our last.
const LAST_FRAME: Duration = Duration::from_millis(500);

/// How long an upstream may take to close after the client has.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Why the gateway ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Its token has ended.
    Token(Ending),
    /// Nothing has passed for too long.
    Idle,
    /// The client certificate of its connection is not accepted any more.
    Certificate,
}

/// What both directions of a connection go by.
struct Watch<'a> {
    exchange: &'a Exchange,
    stream: Option<Rc<Stream>>,
    clock: Clock,
    passed_at: Cell<Monotonic>,
    /// How long nothing may pass.
    idle: Duration,
    /// How long either side may take nothing of what is there for it.
    stall: Duration,
}

async fn carry<C, U>(client: C, upstream: U, mut exchange: Box<Exchange>)
where
    C: AsyncRead + AsyncWrite,
    U: AsyncRead + AsyncWrite,
{
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_upstream, mut to_upstream) = tokio::io::split(upstream);
    let watch = &exchange.watch_websocket();
    let up = async {
        tokio::select! {
            () = pass(&mut from_client, &mut to_upstream, watch) => {}
            _ = watch.end() => {}
        }
        let _ = to_upstream.shutdown().await;
    };
    let mut passed = 0;
    let end = {
        let mut down = pin!(pump(&mut from_upstream, &mut to_client, watch, &mut passed));
        tokio::select! {
            biased;
            end = down.as_mut() => end,
            () = up => tokio::time::timeout(LAST_WORDS, down).await.unwrap_or_default(),
        }
    };
    exchange.sent(passed);
    match end {
        Some(End::Token(ending)) => exchange.cut(ending),
        Some(End::Idle) => exchange.fell_idle(),
        Some(End::Certificate) => exchange.lost_certificate(),
        None => exchange.completed(),
    }
}

impl Watch<'_> {
    /// Resolves when the gateway has to end the connection.
    async fn end(&self) -> End {
        tokio::select! {
            biased;
            ending = ended(self.stream.as_deref()) => End::Token(ending),
            () = self.exchange.disowned() => End::Certificate,
            () = self.idled() => End::Idle,
        }
    }

    async fn idled(&self) {
        loop {
            let quiet = self.passed_at.get().until(self.clock.monotonic());
            match self.idle.checked_sub(quiet) {
                Some(rest) if !rest.is_zero() => tokio::time::sleep(rest).await,
                _ => return,
            }
        }
    }

    fn note(&self) {
        self.passed_at.set(self.clock.monotonic());
    }

    /// Writes all of it; false if that fails or takes too long.
    async fn write<W: AsyncWrite + Unpin>(&self, to: &mut W, data: &[u8]) -> bool {
        let writing = async { to.write_all(data).await.is_ok() && to.flush().await.is_ok() };
        tokio::time::timeout(self.stall, writing).await.unwrap_or(false)
    }
}

impl Exchange {
    fn watch_websocket(&self) -> Watch<'_> {
        let (clock, limits) = self.clock_and_limits();
        let (idle, stall) = (limits.websocket_idle, limits.body_idle);
        let passed_at = Cell::new(clock.monotonic());
        Watch { exchange: self, stream: self.watch(), clock, passed_at, idle, stall }
    }
}

async fn ended(stream: Option<&Stream>) -> Ending {
    match stream {
        Some(stream) => stream.ended().await,
        None => std::future::pending().await,
    }
}

/// Copies from the client to the upstream until either closes or fails.
async fn pass<R, W>(from: &mut R, to: &mut W, watch: &Watch<'_>)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = from.read(&mut buffer).await.unwrap_or_default();
        let data = buffer.get(..read).unwrap_or_default();
        watch.note();
        if data.is_empty() || !watch.write(to, data).await {
            return;
        }
    }
}

/// Copies from the upstream to the client until either closes or fails, or the connection has to end: then, at the end
/// of the frame at hand, a close frame follows. Only reading is ever given up, so that no frame is cut in two.
async fn pump<R, W>(from: &mut R, to: &mut W, watch: &Watch<'_>, passed: &mut usize) -> Option<End>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut frames = Frames::default();
    let mut buffer = vec![0; BUFFER];
    let mut end = None;
    let mut last_frame = pin!(tokio::time::sleep(LAST_FRAME));
    loop {
        if let Some(end) = end.filter(|_| frames.at_boundary()) {
            let _ = tokio::time::timeout(LAST_FRAME, to.write_all(&close_frame(end))).await;
            break;
        }
        let most = if end.is_some() { frames.rest_of_frame().min(buffer.len()) } else { buffer.len() };
        let read = tokio::select! {
            biased;
            why = watch.end(), if end.is_none() => {
                end = Some(why);
                last_frame.set(tokio::time::sleep(LAST_FRAME));
                continue;
            }
            () = last_frame.as_mut(), if end.is_some() => break,
            read = from.read(buffer.get_mut(..most).unwrap_or_default()) => read.unwrap_or_default(),
        };
        let data = buffer.get(..read).unwrap_or_default();
        watch.note();
        if data.is_empty() || !watch.write(to, data).await {
            break;
        }
        frames.advance(data);
        *passed = passed.saturating_add(read);
    }
    let _ = tokio::time::timeout(LAST_FRAME, to.shutdown()).await;
    end
}

/// Why, in a number and in words (RFC 6455 sections 5.5.1 and 7.4.1): 1008, policy violation, with the code; 1001, going
/// away.
fn close_frame(end: End) -> Vec<u8> {
    let (status, text) = match end {
        End::Token(ending) => {
            let reason = ending.reason();
            (1008_u16, format!("{}: {}", reason.code(), reason.name()))
        }
        End::Certificate => {
            let reason = Reason::CertificateEnded;
            (1008, format!("{}: {}", reason.code(), reason.name()))
        }
        End::Idle => (1001, "idle".to_owned()),
    };
    let mut payload = status.to_be_bytes().to_vec();
    payload.extend(text.bytes().take(123));
    let mut frame = vec![0x88, u8::try_from(payload.len()).unwrap_or(125)];
    frame.append(&mut payload);
    frame
}

/// Where in the sequence of frames a stream of bytes is (RFC 6455 section 5.2).
#[derive(Debug, Default)]
struct Frames {
    head: Vec<u8>,
    payload_left: u64,
}

impl Frames {
    fn at_boundary(&self) -> bool {
        self.head.is_empty() && self.payload_left == 0
    }

    /// How many bytes may be read without going beyond the frame at hand; at least one.
    fn rest_of_frame(&self) -> usize {
        if self.payload_left > 0 { usize::try_from(self.payload_left).unwrap_or(usize::MAX) } else { 1 }
    }

    fn advance(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            if self.payload_left > 0 {
                let take = usize::try_from(self.payload_left).unwrap_or(usize::MAX).min(data.len());
                self.payload_left -= take as u64;
                data = data.get(take..).unwrap_or_default();
                continue;
            }
            if let Some((byte, rest)) = data.split_first() {
                self.head.push(*byte);
                data = rest;
            }
            if let Some(length) = payload_length(&self.head) {
                self.payload_left = length;
                self.head.clear();
            }
        }
    }
}

/// The length of the payload, once the head is complete.
fn payload_length(head: &[u8]) -> Option<u64> {
    let second = *head.get(1)?;
    let mask = if second & 0x80 != 0 { 4 } else { 0 };
    let (extra, length) = match second & 0x7f {
        126 => (2, u64::from(u16::from_be_bytes(head.get(2..4)?.try_into().ok()?))),
        127 => (8, u64::from_be_bytes(head.get(2..10)?.try_into().ok()?)),
        short => (0, u64::from(short)),
    };
    (head.len() == 2 + extra + mask).then_some(length)
}

#[cfg(test)]
mod tests {
    use super::{End, Ending, Frames, close_frame};

    #[test]
    fn frames_are_followed_whatever_the_split() {
        let mut bytes = vec![0x81, 0x05];
        bytes.extend(b"hello");
        bytes.extend([0x82, 126, 0x01, 0x00]);
        bytes.extend([7; 256]);
        bytes.extend([0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
        bytes.extend(vec![8; 65536]);
        bytes.extend([0x89, 0x00, 0x81, 0x81, 1, 2, 3, 4, 9]);
        let boundaries = [7, 267, 65813, 65815, 65822];
        for size in [1, 2, 3, 1000, 100_000] {
            let mut frames = Frames::default();
            let mut position = 0;
            for chunk in bytes.chunks(size) {
                frames.advance(chunk);
                position += chunk.len();
                assert_eq!(frames.at_boundary(), boundaries.contains(&position), "at {position}, by {size}");
            }
            assert!(frames.at_boundary());
        }
    }

    #[test]
    fn the_close_frame_is_one_whole_frame() {
        let frame = close_frame(End::Token(Ending::Revoked));
        let mut frames = Frames::default();
        frames.advance(&frame);
        assert!(frames.at_boundary());
        assert_eq!(&frame[2..4], &[0x03, 0xF0]);
        assert!(String::from_utf8_lossy(&frame[4..]).starts_with("VAL-020"));
    }
}
