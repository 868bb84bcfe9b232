//! Bytes that arrived but may not go to the parser yet.

use tokio::io::ReadBuf;

/// A queue of bytes whose front is cleared. Holds memory only while it holds bytes: thousands of idle connections
/// must cost nothing here.
#[derive(Debug, Default)]
pub(super) struct Stash {
    bytes: Vec<u8>,
    start: usize,
    cleared: usize,
}

impl Stash {
    /// Whether nothing is held.
    pub(super) fn is_empty(&self) -> bool {
        self.start == self.bytes.len()
    }

    /// Whether bytes are ready to [`Self::deliver`].
    pub(super) fn has_cleared(&self) -> bool {
        self.cleared > 0
    }

    /// Appends bytes that are not cleared.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.start);
        self.start = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The bytes that are not cleared.
    pub(super) fn doubtful(&self) -> &[u8] {
        self.bytes.get(self.start + self.cleared..).unwrap_or_default()
    }

    /// Clears `len` more bytes.
    pub(super) fn clear(&mut self, len: usize) {
        self.cleared += len;
    }

    /// Moves cleared bytes to `buf`, as many as fit.
    pub(super) fn deliver(&mut self, buf: &mut ReadBuf<'_>) {
        let len = self.cleared.min(buf.remaining());
        buf.put_slice(self.bytes.get(self.start..self.start + len).unwrap_or_default());
        self.start += len;
        self.cleared -= len;
        if self.is_empty() {
            *self = Self::default();
        }
    }

    /// Everything that is held; leaves nothing.
    pub(super) fn take(&mut self) -> Vec<u8> {
        let mut stash = std::mem::take(self);
        stash.bytes.drain(..stash.start);
        stash.bytes
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::ReadBuf;

    use super::Stash;

    #[test]
    fn bytes_come_out_in_order_and_leave_no_memory_behind() {
        let mut stash = Stash::default();
        let mut bytes = [0; 4];
        stash.push(b"abcdef");
        stash.clear(5);
        for expected in [&b"abcd"[..], b"e"] {
            let mut buf = ReadBuf::new(&mut bytes);
            stash.deliver(&mut buf);
            assert_eq!(buf.filled(), expected);
        }
        assert!(!stash.has_cleared());
        assert_eq!(stash.doubtful(), b"f");
        stash.clear(1);
        stash.deliver(&mut ReadBuf::new(&mut bytes));
        assert_eq!(stash.take().capacity(), 0);
    }

    /// A peer that never lets the stash run empty must not make it grow.
    #[test]
    fn what_was_delivered_is_not_kept() {
        let mut stash = Stash::default();
        stash.push(b"x");
        for _ in 0..1000 {
            stash.push(b"yz");
            stash.clear(2);
            stash.deliver(&mut ReadBuf::new(&mut [0; 2]));
        }
        assert!(stash.bytes.len() <= 3);
    }
}
