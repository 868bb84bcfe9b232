//! The chunked coding (RFC 9112 section 7.1), followed strictly.

use super::head::split_field;
use super::limits::GuardLimits;
use super::lines::{LineError, Lines};
use super::syntax;
use super::violation::Violation;

/// Enough for any `u64`.
const SIZE_DIGITS_MAX: usize = 16;
/// The largest size that every signed 64-bit parser holds too.
const SIZE_MAX: u64 = i64::MAX as u64;
/// Extensions mean nothing to anyone, but RFC 9112 section 7.1.1 wants them ignored: a little, not a hiding place.
const EXTENSION_MAX: usize = 256;
/// For all chunks of a body together; hyper gives up at 16 KiB.
const EXTENSIONS_MAX: usize = 8 * 1024;
/// The trailer section with its line ends; hyper gives up at 16 KiB.
const TRAILERS_MAX: usize = 8 * 1024;

/// Fields that act on framing, routing, authentication or the body's meaning, which therefore come too late in a
/// trailer (RFC 9110 section 6.5.1).
const NO_TRAILERS: &[&[u8]] = &[
    b"authorization",
    b"cache-control",
    b"connection",
    b"content-encoding",
    b"content-length",
    b"content-range",
    b"content-type",
    b"cookie",
    b"expect",
    b"forwarded",
    b"host",
    b"keep-alive",
    b"max-forwards",
    b"proxy-authorization",
    b"proxy-connection",
    b"range",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
];

/// Follows one chunked body.
#[derive(Debug)]
pub(super) struct Chunked {
    part: Part,
    lines: Lines,
    extensions: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Size,
    Data { left: u64 },
    DataEnd,
    Trailers { fields: usize },
    Done,
}

impl Chunked {
    pub(super) fn new() -> Self {
        Self { part: Part::Size, lines: Lines::default(), extensions: 0 }
    }

    /// How many of `bytes` are chunked coding beyond doubt; the rest is to be given again with more behind it.
    /// Size lines and the trailer section count only as a whole, once they are complete.
    pub(super) fn clear(&mut self, bytes: &[u8], limits: &GuardLimits) -> (usize, Progress) {
        let mut cleared = 0;
        loop {
            let rest = bytes.get(cleared..).unwrap_or_default();
            let step = match self.part {
                Part::Size => self.clear_size(rest),
                Part::Data { left } => Ok(self.clear_data(rest, left)),
                Part::DataEnd => self.clear_data_end(rest),
                Part::Trailers { fields } => self.clear_trailers(rest, fields, limits),
                Part::Done => return (cleared, Progress::End),
            };
            match step {
                Ok(Some(taken)) => cleared += taken,
                Ok(None) => return (cleared, Progress::More),
                Err(violation) => return (cleared, Progress::Refused(violation)),
            }
        }
    }

    fn clear_size(&mut self, rest: &[u8]) -> Result<Option<usize>, Violation> {
        let limit = SIZE_DIGITS_MAX + EXTENSION_MAX + 2;
        let line = self.lines.next(rest, limit).map_err(|error| match error {
            LineError::TooLong => Violation::framing("a chunk-size line is too long"),
            LineError::BareLf => Violation::framing("a chunk-size line ends in LF without CR"),
            LineError::Control => Violation::framing("a chunk-size line has control characters"),
        })?;
        let Some(line) = line else { return Ok(None) };
        let (size, extension) = parse_size_line(line)?;
        self.extensions += extension;
        if self.extensions > EXTENSIONS_MAX {
            return Err(Violation::framing("too many chunk extensions"));
        }
        self.part = if size == 0 { Part::Trailers { fields: 0 } } else { Part::Data { left: size } };
        Ok(Some(self.next_part()))
    }

    fn clear_data(&mut self, rest: &[u8], left: u64) -> Option<usize> {
        let taken = usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()));
        self.part = match left - taken as u64 {
            0 => Part::DataEnd,
            left => Part::Data { left },
        };
        (taken > 0).then_some(taken)
    }

    fn clear_data_end(&mut self, rest: &[u8]) -> Result<Option<usize>, Violation> {
        match rest {
            [] | [b'\r'] => Ok(None),
            [b'\r', b'\n', ..] => {
                self.part = Part::Size;
                Ok(Some(2))
            }
            _ => Err(Violation::framing("a chunk is longer than its size says")),
        }
    }

    fn clear_trailers(
        &mut self,
        rest: &[u8],
        mut fields: usize,
        limits: &GuardLimits,
    ) -> Result<Option<usize>, Violation> {
        while let Some(line) = self.lines.next(rest, TRAILERS_MAX).map_err(trailer_line_error)? {
            if line.is_empty() {
                self.part = Part::Done;
                return Ok(Some(self.next_part()));
            }
            let (name, _) = split_field(line)?;
            if NO_TRAILERS.iter().any(|forbidden| syntax::is_alike(name, forbidden)) {
                return Err(Violation::header("a trailer field that may stand in the head only"));
            }
            fields += 1;
            if fields > limits.fields {
                return Err(Violation::headers_too_large("too many trailer fields"));
            }
            self.part = Part::Trailers { fields };
        }
        Ok(None)
    }

    /// The length of the lines just read; the next part begins behind them.
    fn next_part(&mut self) -> usize {
        std::mem::take(&mut self.lines).consumed()
    }
}

/// Why [`Chunked::clear`] stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    More,
    /// The body is complete.
    End,
    Refused(Violation),
}

/// `chunk-size [ chunk-ext ]`: the size, and the length of the extension.
fn parse_size_line(line: &[u8]) -> Result<(u64, usize), Violation> {
    let split = line.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(line.len());
    let (digits, extension) = line.split_at_checked(split).unwrap_or_default();
    if digits.is_empty() || digits.len() > SIZE_DIGITS_MAX {
        return Err(Violation::framing("a chunk size is not a plain hexadecimal number"));
    }
    match extension {
        [] => {}
        [b';', ..]
            if extension.len() <= EXTENSION_MAX && extension.iter().all(|&byte| is_extension_byte(byte)) => {}
        _ => return Err(Violation::framing("a chunk size is followed by illegal bytes")),
    }
    let size = std::str::from_utf8(digits).ok().and_then(|digits| u64::from_str_radix(digits, 16).ok());
    match size {
        Some(size @ ..=SIZE_MAX) => Ok((size, extension.len())),
        _ => Err(Violation::framing("a chunk size is out of range")),
    }
}

fn is_extension_byte(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~')
}

fn trailer_line_error(error: LineError) -> Violation {
    match error {
        LineError::TooLong => Violation::headers_too_large("the trailer fields are too large"),
        LineError::BareLf => Violation::framing("a trailer line ends in LF without CR"),
        LineError::Control => Violation::header("a trailer field has control characters"),
    }
}
