//! Host patterns: an exact name, or `*.` and a suffix.

use std::fmt;

/// What a route says of the host. Names are in lower case, without port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostPattern {
    /// Exactly this name.
    Exact(Box<str>),
    /// One or more labels and then this suffix, which begins with a dot: `*.example.com` is `.example.com`.
    Below(Box<str>),
    /// Any host.
    Any,
}

impl HostPattern {
    /// Reads `api.example.com` or `*.example.com`; the error says what would be right.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let lower = text.to_ascii_lowercase();
        let (name, wildcard) = match lower.strip_prefix("*.") {
            Some(suffix) => (suffix, true),
            None => (lower.as_str(), false),
        };
        let label = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        };
        let is_ip6 = name.starts_with('[') && name.ends_with(']') && !wildcard;
        if name.len() > 253 || !(is_ip6 || name.split('.').all(label)) {
            return Err(
                "a host name without scheme, port and path, such as api.example.com or *.example.com",
            );
        }
        Ok(if wildcard { Self::Below(format!(".{name}").into()) } else { Self::Exact(name.into()) })
    }

    /// Whether this host (in lower case, without port) is meant.
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(name) => **name == *host,
            Self::Below(suffix) => host.len() > suffix.len() && host.ends_with(&**suffix),
            Self::Any => true,
        }
    }

    /// Orders the more specific first: exact names, then longer suffixes, then any.
    pub(super) fn rank(&self) -> (u8, std::cmp::Reverse<usize>) {
        match self {
            Self::Exact(name) => (0, std::cmp::Reverse(name.len())),
            Self::Below(suffix) => (1, std::cmp::Reverse(suffix.len())),
            Self::Any => (2, std::cmp::Reverse(0)),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Below(suffix) => write!(f, "*{suffix}"),
            Self::Any => f.write_str("*"),
        }
    }
}
