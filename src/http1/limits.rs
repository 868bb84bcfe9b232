//! How much of a head the guard takes in.

use std::time::Duration;

use hyper::server::conn::http1;

/// Bounds on what a peer may send before its request is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuardLimits {
    /// The longest request target, in bytes.
    pub uri: usize,
    /// The longest head (request line and header fields with their line ends), in bytes.
    pub head: usize,
    /// The most header fields in a head, and the most trailer fields after a body.
    pub fields: usize,
    /// How long a head may take from its first byte to its last. A connection on which nothing arrives is idle,
    /// not slow, and is not bounded here.
    pub head_timeout: Duration,
}

impl Default for GuardLimits {
    /// 8 KiB of target (what RFC 9112 section 3 asks for at the least), 64 KiB of head (room for a 16 KiB token
    /// and a large cookie jar), 100 fields, 10 s.
    fn default() -> Self {
        Self { uri: 8 * 1024, head: 64 * 1024, fields: 100, head_timeout: Duration::from_secs(10) }
    }
}

impl GuardLimits {
    /// hyper's smallest.
    const PARSER_BUFFER_MIN: usize = 8 * 1024;
    /// Above this many fields hyper moves its parse table from the stack to the heap, for each request.
    const PARSER_FIELDS: usize = 100;

    /// Sets the parser's own limits so that it takes every head that the guard lets pass.
    pub fn configure(&self, builder: &mut http1::Builder) {
        // Room beyond the head, so that a head of the full length still parses; also bounds one read.
        builder
            .max_buf_size(self.head.saturating_add(Self::PARSER_BUFFER_MIN).max(2 * Self::PARSER_BUFFER_MIN));
        if self.fields > Self::PARSER_FIELDS {
            builder.max_headers(self.fields);
        }
    }
}
