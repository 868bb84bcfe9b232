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
}

impl Lines {
    /// The next line without its CRLF, or `None` while it is incomplete: then ask again with more bytes behind the
    /// same ones. A line that ends more than `limit` bytes into the buffer is an error, alike whether its end has
    /// arrived or not.
    pub(super) fn next<'b>(&mut self, bytes: &'b [u8], limit: usize) -> Result<Option<&'b [u8]>, LineError> {
        let unscanned = bytes.get(self.scanned..).unwrap_or_default();
        let Some(offset) = memchr::memchr(b'\n', unscanned) else {
            self.scanned = bytes.len();
            return if bytes.len() >= limit { Err(LineError::TooLong) } else { Ok(None) };
        };
        let lf = self.scanned + offset;
        if lf >= limit {
            return Err(LineError::TooLong);
        }
        let Some((b'\r', line)) = bytes.get(self.start..lf).unwrap_or_default().split_last() else {
            return Err(LineError::BareLf);
        };
        self.start = lf + 1;
        self.scanned = self.start;
        Ok(Some(line))
    }

    /// How many bytes the lines so far took, line ends included.
    pub(super) fn consumed(&self) -> usize {
        self.start
    }
}
