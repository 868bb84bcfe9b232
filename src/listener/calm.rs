//! Calm: how many frames that carry nothing of a request an HTTP/2 client may send (RFC 9113 section 10.5).
//!
//! PING and SETTINGS each want an answer, and all small frames cost more than they weigh (CVE-2019-9512, CVE-2019-9515,
//! CVE-2019-9518 and their kin). The HTTP/2 library has no bound on them, so they are counted in front of it. What it
//! sends of responses gives its client more: a lively connection has good use for windows, pings and resets.

use std::time::Duration;

use crate::clock::{Clock, Monotonic};

/// The preface (RFC 9113 section 3.4), which no frame begins with.
const PREFACE: usize = 24;

/// The head of every frame (RFC 9113 section 4.1).
const HEAD: usize = 9;

/// `RST_STREAM` whole: its head and an error code (RFC 9113 section 6.4).
const RESET: usize = HEAD + 4;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const CONTINUATION: u8 = 9;

/// What a new connection has: clients begin with a handful.
const FIRST: u32 = 100;

/// What each frame of a response is good for: two windows, a ping, and room for whatever a client is fond of.
const EARNED: u32 = 50;

/// Follows the frames of both directions of one connection.
#[derive(Debug)]
pub struct Calm {
    incoming: Frames,
    outgoing: Frames,
    allowance: u32,
    /// In each second, and the most that can be saved up.
    rate: u32,
    refilled: Monotonic,
    clock: Clock,
}

impl Calm {
    /// For a new connection that may send `rate` such frames in a second, on top of what responses are good for.
    pub fn new(rate: u32, clock: Clock) -> Self {
        let incoming = Frames { skip: PREFACE, ..Frames::default() };
        let refilled = clock.monotonic();
        Self { incoming, outgoing: Frames::default(), allowance: rate.min(FIRST), rate, refilled, clock }
    }

    /// Takes note of what the client sent; false if that is too much.
    pub fn received(&mut self, data: &[u8]) -> bool {
        let mut cost: u32 = 0;
        self.incoming.follow(data, |frame| cost = cost.saturating_add(u32::from(!frame.carries_request())));
        if cost > self.allowance {
            self.refill();
        }
        match self.allowance.checked_sub(cost) {
            Some(rest) => {
                self.allowance = rest;
                true
            }
            None => false,
        }
    }

    /// Takes note of what the client was sent, and tells of streams in it that were reset, by their error codes.
    pub fn sent(&mut self, data: &[u8], mut reset: impl FnMut(u32)) {
        let mut earned: u32 = 0;
        self.outgoing.follow(data, |frame| {
            if frame.carries_request() {
                earned = earned.saturating_add(EARNED);
            }
            frame.error_code.into_iter().for_each(&mut reset);
        });
        self.allowance = self.allowance.saturating_add(earned).min(self.rate);
    }

    /// Whether a frame of ours may be put in here.
    pub fn is_between_frames(&self) -> bool {
        self.outgoing.is_between()
    }

    fn refill(&mut self) {
        let now = self.clock.monotonic();
        let elapsed = self.refilled.until(now).min(Duration::from_secs(1));
        let gained = elapsed.as_micros().saturating_mul(u128::from(self.rate)) / 1_000_000;
        self.refilled = now;
        self.allowance =
            self.allowance.saturating_add(u32::try_from(gained).unwrap_or(u32::MAX)).min(self.rate);
    }
}

/// Where in a sequence of frames one direction is.
#[derive(Debug, Default)]
struct Frames {
    /// Bytes until the next head.
    skip: usize,
    /// The part of a head that has come.
    head: [u8; RESET],
    came: usize,
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    kind: u8,
    length: usize,
    /// Of `RST_STREAM`.
    error_code: Option<u32>,
}

impl Frame {
    fn carries_request(self) -> bool {
        matches!(self.kind, DATA | HEADERS | CONTINUATION) && self.length > 0
    }
}

impl Frames {
    fn follow(&mut self, mut data: &[u8], mut note: impl FnMut(Frame)) {
        while !data.is_empty() {
            let skipped = self.skip.min(data.len());
            self.skip -= skipped;
            data = data.get(skipped..).unwrap_or_default();
            let wanted = self.wanted();
            let missing = self.head.get_mut(self.came..wanted).unwrap_or_default();
            let came = missing.len().min(data.len());
            for (place, byte) in missing.iter_mut().zip(data) {
                *place = *byte;
            }
            self.came += came;
            data = data.get(came..).unwrap_or_default();
            if self.came == self.wanted() {
                let [high, middle, low, kind, _, _, _, _, _, code @ ..] = self.head;
                let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
                let error_code = (self.came == RESET).then(|| u32::from_be_bytes(code));
                (self.skip, self.came) = (length.saturating_sub(self.came - HEAD), 0);
                note(Frame { kind, length, error_code });
            }
        }
    }

    /// How much of the frame at hand is looked at.
    fn wanted(&self) -> usize {
        if self.came >= HEAD && self.head.starts_with(&[0, 0, 4, RST_STREAM]) { RESET } else { HEAD }
    }

    fn is_between(&self) -> bool {
        self.skip == 0 && self.came == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixSeconds;

    fn frame(kind: u8, length: u8) -> Vec<u8> {
        let mut bytes = vec![0, 0, length, kind, 0, 0, 0, 0, 0];
        bytes.extend(vec![6; usize::from(length)]);
        bytes
    }

    #[test]
    fn frames_are_followed_whatever_the_split() {
        let frames =
            [(HEADERS, 20), (6, 8), (RST_STREAM, 4), (DATA, 0), (4, 0), (RST_STREAM, 4), (DATA, 255)];
        let all: Vec<u8> = frames.iter().flat_map(|(kind, length)| frame(*kind, *length)).collect();
        for size in [1, 2, 7, 9, 10, 1000] {
            let (mut followed, mut seen) = (Frames::default(), Vec::new());
            for part in all.chunks(size) {
                followed.follow(part, |frame| {
                    assert_eq!(frame.error_code, (frame.kind == RST_STREAM).then_some(0x0606_0606));
                    seen.push((frame.kind, u8::try_from(frame.length).unwrap()));
                });
            }
            assert_eq!(seen, frames, "by {size}");
            assert!(followed.is_between());
        }
    }

    #[test]
    fn a_flood_is_noticed_and_a_lively_connection_is_not_one() {
        let (clock, hand) = Clock::manual(UnixSeconds(0));
        let mut calm = Calm::new(1000, clock.clone());
        assert!(calm.received(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"));
        assert!(calm.received(&frame(6, 8).repeat(100)), "what a new connection has");
        assert!(!calm.received(&frame(6, 8)), "and no more");
        hand.advance(Duration::from_millis(100));
        assert!(calm.received(&frame(6, 8).repeat(100)), "a tenth of a second later");
        assert!(!calm.received(&frame(4, 0).repeat(2)));
        for _ in 0..100 {
            assert!(calm.received(&frame(HEADERS, 20)));
            calm.sent(&[frame(HEADERS, 10), frame(DATA, 10)].concat(), |_| {});
            assert!(calm.received(&frame(6, 8).repeat(100)), "earned by the response");
        }
        calm.sent(&frame(6, 8).repeat(1000), |_| {});
        assert!(!calm.received(&frame(6, 8)), "our answers to pings are no response");
        hand.advance(Duration::from_secs(60));
        assert!(calm.received(&frame(6, 8).repeat(1000)));
        assert!(!calm.received(&frame(6, 8)), "no more than a second's worth is saved up");
    }
}
