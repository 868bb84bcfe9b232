//! The header values that the gateway itself writes for one request, all in one piece of memory: each in its own would
//! cost two allocations, one more when the request is copied for another attempt.

use bytes::{Bytes, BytesMut};
use http::HeaderValue;
use http::header::InvalidHeaderValue;

/// Writes header values.
#[derive(Debug)]
pub(super) struct Scribe(BytesMut);

/// What the values of a usual request take together; more is no harm.
const USUAL: usize = 512;

impl Scribe {
    /// A scribe for one request.
    pub fn new() -> Self {
        Self(BytesMut::with_capacity(USUAL))
    }

    /// A value of these parts, one behind the other.
    pub fn write<const N: usize>(&mut self, parts: [&[u8]; N]) -> Result<HeaderValue, InvalidHeaderValue> {
        for part in parts {
            self.0.extend_from_slice(part);
        }
        let written: Bytes = self.0.split().freeze();
        HeaderValue::from_maybe_shared(written)
    }
}

#[cfg(test)]
mod tests {
    use super::{Scribe, USUAL};

    #[test]
    fn values_stand_by_themselves_however_long_they_are() {
        let mut scribe = Scribe::new();
        let long = "x".repeat(USUAL);
        let values = [&b"a"[..], long.as_bytes(), b"", b"b"].map(|text| scribe.write([text, b"."]).unwrap());
        let long = format!("{long}.");
        assert_eq!(values.each_ref().map(|value| value.to_str().unwrap()), ["a.", &*long, ".", "b."]);
        assert!(scribe.write([b"a", b"\n"]).is_err());
        assert_eq!(scribe.write([b"c"]).unwrap(), "c");
    }
}
