//! Where one message ends and the next begins, on one connection.

use super::chunked::{Chunked, Progress};
use super::head::{BodyFraming, Head, HeadReader};
use super::limits::GuardLimits;
use super::violation::Violation;

/// Follows the messages of a connection. Sans-I/O: bytes in, and out how many of them are beyond doubt.
#[derive(Debug)]
pub(super) struct Framing {
    limits: GuardLimits,
    place: Place,
    /// How many heads were cleared.
    heads: u64,
    /// The current message offers an upgrade.
    upgrade: bool,
}

#[derive(Debug)]
enum Place {
    Head(HeadReader),
    Length {
        left: u64,
    },
    Chunked(Chunked),
    /// Behind a message that offered an upgrade: the next byte is HTTP or another protocol's, as the answer has it.
    Crossroads,
    Refused {
        violation: Violation,
        in_body: bool,
    },
}

/// How far the bytes given are beyond doubt, and why no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cleared {
    pub(super) len: usize,
    pub(super) stop: Stop,
}

/// Why [`Framing::clear`] went no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The rest, if any, is incomplete: it is to be given again with more behind it.
    More,
    /// Here a message ends. Reported only with `len > 0`.
    Boundary,
    /// Nothing can be said before it is known whether the upgrade was accepted: see [`Framing::stay_http`].
    Crossroads,
    /// What begins or goes on here is refused, for good.
    Refused { violation: Violation, in_body: bool },
}

impl Framing {
    pub(super) fn new(limits: GuardLimits) -> Self {
        Self { limits, place: Place::Head(HeadReader::default()), heads: 0, upgrade: false }
    }

    /// How many of `bytes` may go to the parser: at most to the end of the current message. What was not cleared
    /// must stand at the front of the next call's bytes.
    pub(super) fn clear(&mut self, bytes: &[u8]) -> Cleared {
        let mut head_len = 0;
        if let Place::Head(reader) = &mut self.place {
            match reader.read(bytes, &self.limits) {
                Ok(Some(head)) => {
                    head_len = head.len;
                    self.enter_body(head);
                }
                Ok(None) => return Cleared { len: 0, stop: Stop::More },
                Err(violation) => self.place = Place::Refused { violation, in_body: false },
            }
        }
        let rest = bytes.get(head_len..).unwrap_or_default();
        let (body_len, progress) = match &mut self.place {
            Place::Length { left } => count_down(left, rest.len()),
            Place::Chunked(chunked) => chunked.clear(rest, &self.limits),
            Place::Head(_) | Place::Crossroads => return Cleared { len: 0, stop: Stop::Crossroads },
            Place::Refused { violation, in_body } => {
                return Cleared { len: 0, stop: Stop::Refused { violation: *violation, in_body: *in_body } };
            }
        };
        let stop = match progress {
            Progress::More => Stop::More,
            Progress::End => {
                self.leave_body();
                Stop::Boundary
            }
            Progress::Refused(violation) => {
                let in_body = head_len == 0;
                self.place = Place::Refused { violation, in_body };
                if !in_body {
                    // The head came together with its bad body and has not been released: nobody behind need ever
                    // hear of this request.
                    self.heads -= 1;
                    return Cleared { len: 0, stop: Stop::Refused { violation, in_body } };
                }
                Stop::Refused { violation, in_body }
            }
        };
        Cleared { len: head_len + body_len, stop }
    }

    fn enter_body(&mut self, head: Head) {
        self.heads += 1;
        self.upgrade = head.upgrade;
        self.place = match head.body {
            BodyFraming::Length(left) => Place::Length { left },
            BodyFraming::Chunked => Place::Chunked(Chunked::new()),
        };
    }

    fn leave_body(&mut self) {
        self.place = if self.upgrade { Place::Crossroads } else { Place::Head(HeadReader::default()) };
    }

    /// The upgrade was not accepted: what follows is the next request.
    pub(super) fn stay_http(&mut self) {
        if let Place::Crossroads = self.place {
            self.place = Place::Head(HeadReader::default());
        }
    }

    /// How many heads were cleared so far.
    pub(super) fn heads(&self) -> u64 {
        self.heads
    }

    /// Whether the current or last message offers an upgrade.
    pub(super) fn offers_upgrade(&self) -> bool {
        self.upgrade
    }

    /// Whether the next bytes belong to a head.
    pub(super) fn in_head(&self) -> bool {
        matches!(self.place, Place::Head(_))
    }

    pub(super) fn limits(&self) -> &GuardLimits {
        &self.limits
    }
}

fn count_down(left: &mut u64, available: usize) -> (usize, Progress) {
    let taken = usize::try_from(*left).map_or(available, |left| left.min(available));
    *left -= taken as u64;
    (taken, if *left == 0 { Progress::End } else { Progress::More })
}
