//! CRLF lines in a buffer that grows at its end, each byte looked at once however slowly it comes.

/// A place in the buffer, between two lines.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lines {
    start: usize,
    scanned: usize,
}

/// Why there is no line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineError {
    /// A line would end beyond the limit.
    TooLong,
    /// RFC 9112 section 2.2 lets a recipient take a bare LF for a line end; a parser behind us may not.
    BareLf,
    /// A control character other than HTAB, or a CR that no LF follows.
    Control,
}

impl Lines {
    /// The next line without its CRLF, or `None` while it is incomplete: then ask again with more bytes behind the
    /// same ones. A line that ends more than `limit` bytes into the buffer is an error, alike whether its end has
    /// arrived or not.
    pub(super) fn next<'b>(&mut self, bytes: &'b [u8], limit: usize) -> Result<Option<&'b [u8]>, LineError> {
        let end = self.scanned + find_control(bytes.get(self.scanned..).unwrap_or_default());
        self.scanned = end;
        match bytes.get(end..).unwrap_or_default() {
            _ if end >= limit => Err(LineError::TooLong),
            [b'\r', ..] if end + 1 >= limit => Err(LineError::TooLong),
            [] | [b'\r'] => Ok(None),
            [b'\r', b'\n', ..] => {
                let line = bytes.get(self.start..end);
                self.start = end + 2;
                self.scanned = self.start;
                Ok(line)
            }
            [b'\n', ..] => Err(LineError::BareLf),
            [..] => Err(LineError::Control),
        }
    }

    /// How many bytes the lines so far took, line ends included.
    pub(super) fn consumed(&self) -> usize {
        self.start
    }
}

/// The index of the first control character but HTAB, or the length: finds a line's end and whatever must not stand
/// before it. Bytes from 0x80 are no controls here: real clients send UTF-8 in `User-Agent` and the like.
fn find_control(bytes: &[u8]) -> usize {
    let end = memchr::memchr(b'\r', bytes).unwrap_or(bytes.len());
    let line = bytes.get(..end).unwrap_or_default();
    // To the end without a way out in between, so that vector instructions take many bytes at a time.
    let is_clean = line.iter().fold(true, |clean, &byte| clean & !is_control(byte));
    if is_clean { end } else { line.iter().position(|&byte| is_control(byte)).unwrap_or(end) }
}

#[allow(clippy::needless_bitwise_bool, reason = "`&&` would take one byte at a time")]
fn is_control(byte: u8) -> bool {
    ((byte < b' ') & (byte != b'\t')) | (byte == 0x7f)
}
