//! A credential as it came: what is shown for a token, and what has at least the characters of one.

use std::fmt;

use aws_lc_rs::digest;

/// What a request shows for a token: bytes whose characters nobody has looked at. Those of a token that was verified
/// before are known again without a look at each of them.
#[derive(Clone, Copy)]
pub struct Presented<'r>(&'r [u8]);

impl<'r> Presented<'r> {
    /// Anything may be shown.
    pub fn new(bytes: &'r [u8]) -> Self {
        Self(bytes)
    }

    /// The bytes. Never to be logged.
    pub fn expose(self) -> &'r [u8] {
        self.0
    }

    /// The token, if they have the form of one.
    pub fn token(self) -> Option<BearerToken<'r>> {
        str::from_utf8(self.0).ok().and_then(BearerToken::new)
    }
}

impl fmt::Debug for Presented<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Presented({})", Fingerprint::of(self.0))
    }
}

/// A bearer token (RFC 6750 section 2.1) that nobody has verified. `Debug` shows its fingerprint only.
#[derive(Clone, Copy)]
pub struct BearerToken<'r>(&'r str);

impl<'r> BearerToken<'r> {
    /// The token if it consists of the characters of `b64token` (RFC 6750 section 2.1) and is not empty.
    pub fn new(text: &'r str) -> Option<Self> {
        let trimmed = text.trim_end_matches('=');
        // `-`, `.`, `/` and the digits stand in a row. Without `||`, and to the end without a way out in between, so that
        // vector instructions take many bytes at a time.
        #[allow(clippy::needless_bitwise_bool, reason = "`||` would take one byte at a time")]
        let allowed = |byte: u8| {
            (byte | 0x20).is_ascii_lowercase()
                | matches!(byte, b'-'..=b'9')
                | (byte == b'_')
                | (byte == b'~')
                | (byte == b'+')
        };
        let all_allowed = trimmed.bytes().fold(true, |good, byte| good & allowed(byte));
        (!trimmed.is_empty() && all_allowed).then_some(Self(text))
    }

    /// The token itself. Never to be logged.
    pub fn expose(self) -> &'r str {
        self.0
    }

    /// What stands for the token in logs.
    pub fn fingerprint(self) -> Fingerprint {
        Fingerprint::of(self.0.as_bytes())
    }
}

impl fmt::Debug for BearerToken<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BearerToken({})", self.fingerprint())
    }
}

/// The first 8 bytes of a token's SHA-256 in hex: enough to find it again, useless to replay it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 16]);

impl Fingerprint {
    /// The fingerprint of these bytes.
    pub fn of(token: &[u8]) -> Self {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let full = digest::digest(&digest::SHA256, token);
        let nibbles = full.as_ref().iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
        let mut text = [b'0'; 16];
        for (digit, nibble) in text.iter_mut().zip(nibbles) {
            *digit = HEX.get(usize::from(nibble)).copied().unwrap_or_default();
        }
        Self(text)
    }

    /// The fingerprint as text.
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::{BearerToken, Presented};

    #[test]
    fn only_b64token_characters_make_a_token() {
        for good in ["a", "a.b.c", "mF_9.B5f-4.1JqM", "abc==", "a+/~_-."] {
            assert!(BearerToken::new(good).is_some(), "{good}");
        }
        for bad in ["", "=", "==", "a b", "a=b", "a,b", "\"a\"", "a\u{e9}", "a\tb", "a;b"] {
            assert!(BearerToken::new(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn debug_does_not_show_the_token() {
        let shown = Presented::new(b"secret.secret.secret");
        let token = shown.token().unwrap();
        assert!(!format!("{shown:?} {token:?}").contains("secret"));
    }
}
