//! A request's path: checked, and read the way that a backend might read it.
//!
//! Refused outright is what no API needs and what backends are known to disagree on: dot segments in any encoding,
//! backslashes, controls, invalid or overlong UTF-8, broken or double percent-encoding, fragments. Encoded slashes,
//! double slashes and `;` parameters are in real use (GitLab and npm, object stores, matrix parameters): they are
//! noted as [`Ambiguity`], and the route decides.

use std::borrow::Cow;

/// A way in which a path may be read differently by different servers, and that a route can allow by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ambiguity {
    /// `%2F` in a segment.
    EncodedSlash,
    /// `//`.
    DoubleSlash,
    /// `;name=value` after a segment (RFC 3986 section 3.3 leaves their meaning open).
    PathParameters,
}

impl Ambiguity {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::EncodedSlash, Self::DoubleSlash, Self::PathParameters];

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// Why a path is refused, in words for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathRefused(pub &'static str);

/// A path that is not refused outright.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestPath<'r> {
    raw: &'r str,
    ambiguities: u8,
    /// Nothing in it could mean anything but itself.
    is_plain: bool,
}

impl<'r> RequestPath<'r> {
    /// Checks the path of an origin-form target, without its query.
    pub fn check(raw: &'r str) -> Result<Self, PathRefused> {
        if !raw.starts_with('/') {
            return Err(PathRefused("The request target is not a path that begins with '/'."));
        }
        if is_plain(raw) {
            return Ok(Self { raw, ambiguities: 0, is_plain: true });
        }
        let mut ambiguities = 0;
        if raw.contains("//") {
            ambiguities |= Ambiguity::DoubleSlash.bit();
        }
        for segment in raw.split('/').skip(1) {
            ambiguities |= check_segment(segment)?;
        }
        Ok(Self { raw, ambiguities, is_plain: false })
    }

    /// The path as it came, which is how it is forwarded.
    pub fn raw(&self) -> &'r str {
        self.raw
    }

    /// Whether every way in which this path is ambiguous is among `allowed`.
    pub fn is_covered_by(&self, allowed: &[Ambiguity]) -> bool {
        let allowed = allowed.iter().fold(0, |bits, ambiguity| bits | ambiguity.bit());
        self.ambiguities & !allowed == 0
    }

    /// The decoded segments as the path stands.
    pub fn segments(&self) -> Vec<Cow<'r, str>> {
        if self.is_plain {
            return self.raw.split('/').skip(1).map(Cow::Borrowed).collect();
        }
        self.reading(0)
    }

    /// Whether there is more than one reading.
    pub fn is_ambiguous(&self) -> bool {
        self.ambiguities != 0
    }

    /// The segments of each other reading that some server may take: encoded slashes as separators, double slashes
    /// as one, parameters as absent, in every combination that applies.
    pub fn other_readings(&self) -> impl Iterator<Item = Vec<Cow<'r, str>>> {
        let all = self.ambiguities;
        (1..=all).filter(move |subset| subset & !all == 0).map(|subset| self.reading(subset))
    }

    fn reading(&self, as_bits: u8) -> Vec<Cow<'r, str>> {
        let applies = |ambiguity: Ambiguity| as_bits & ambiguity.bit() != 0;
        let mut segments = Vec::with_capacity(8);
        for raw in self.raw.split('/').skip(1) {
            let decoded = decode(raw);
            let decoded = if applies(Ambiguity::PathParameters) && decoded.contains(';') {
                Cow::Owned(before_parameters(&decoded).to_owned())
            } else {
                decoded
            };
            if applies(Ambiguity::EncodedSlash) && decoded.contains('/') {
                segments.extend(decoded.split('/').map(|part| Cow::Owned(part.to_owned())));
            } else {
                segments.push(decoded);
            }
        }
        if applies(Ambiguity::DoubleSlash) {
            let trailing = segments.last().is_some_and(|last| last.is_empty());
            segments.retain(|segment| !segment.is_empty());
            if trailing {
                segments.push(Cow::Borrowed(""));
            }
        }
        segments
    }
}

/// Whether a path is of letters, digits, `-`, `_`, `~` and single slashes only: most are, and need no decoding. A dot is
/// left out, since it takes a closer look.
fn is_plain(raw: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() | matches!(byte, b'-' | b'_' | b'~' | b'/');
    raw.bytes().fold(true, |all, byte| all & plain(byte)) && !raw.contains("//")
}

/// The ambiguities of one raw segment, or why it is refused.
fn check_segment(raw: &str) -> Result<u8, PathRefused> {
    const PLAIN: PathRefused =
        PathRefused("The path contains a character that must not stand in a path, or only percent-encoded.");
    if raw.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~')) {
        return Ok(0);
    }
    if raw.bytes().any(|byte| byte <= b' ' || byte >= 0x7f || byte == b'\\' || byte == b'#') {
        return Err(PLAIN);
    }
    let decoded = checked_decode(raw)?;
    if decoded.chars().any(char::is_control) {
        return Err(PathRefused("The path contains an encoded control character."));
    }
    if decoded.contains('\\') {
        return Err(PathRefused("The path contains an encoded backslash."));
    }
    let mut ambiguities = 0;
    if decoded.contains(';') {
        ambiguities |= Ambiguity::PathParameters.bit();
    }
    if decoded.contains('/') {
        ambiguities |= Ambiguity::EncodedSlash.bit();
    }
    if decoded.contains('/') && decoded.contains(';') {
        return Err(PathRefused("A segment of the path has both an encoded slash and a ';' parameter."));
    }
    // What one server splits or cuts off may leave nothing between two slashes, which another merges.
    let leaves_nothing = |part: &str| part.is_empty() && decoded.contains('/') || part.starts_with(';');
    if decoded.split('/').any(leaves_nothing) {
        ambiguities |= Ambiguity::DoubleSlash.bit();
    }
    for part in decoded.split('/') {
        if matches!(before_parameters(part), "." | "..") {
            return Err(PathRefused("The path contains a dot segment ('.' or '..', perhaps encoded)."));
        }
    }
    Ok(ambiguities)
}

/// Decodes once, refusing what does not decode cleanly and what would decode again.
fn checked_decode(raw: &str) -> Result<Cow<'_, str>, PathRefused> {
    if has_percent(raw, |digits| digits.is_none()) {
        return Err(PathRefused("The path contains a '%' that is not followed by two hex digits."));
    }
    let decoded = percent_encoding::percent_decode_str(raw)
        .decode_utf8()
        .map_err(|_| PathRefused("The path does not decode to valid UTF-8."))?;
    if has_percent(&decoded, |digits| digits.is_some()) {
        return Err(PathRefused("The path is percent-encoded twice."));
    }
    Ok(decoded)
}

/// Whether there is a '%' of which this holds, given the two hex digits behind it if there are any.
fn has_percent(text: &str, is: impl Fn(Option<&[u8]>) -> bool) -> bool {
    let behind = |at: usize| text.as_bytes().get(at + 1..at + 3);
    text.match_indices('%')
        .any(|(at, _)| is(behind(at).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))))
}

/// Decodes a segment that [`check_segment`] has passed.
fn decode(raw: &str) -> Cow<'_, str> {
    percent_encoding::percent_decode_str(raw).decode_utf8_lossy()
}

fn before_parameters(segment: &str) -> &str {
    segment.split_once(';').map_or(segment, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::{Ambiguity, RequestPath};

    #[test]
    fn the_quick_look_at_a_plain_path_sees_what_the_close_one_does() {
        for path in ["/", "/a", "/a/", "/orders/4711", "/A-b_c~d/0"] {
            let quick = RequestPath::check(path).unwrap();
            assert!(quick.is_plain, "{path}");
            let close = RequestPath { is_plain: false, ..quick.clone() };
            assert_eq!(quick.segments(), close.segments(), "{path}");
        }
        for path in ["/a.b", "/a%20b", "/a;b", "/a//b", "/a b", "/\u{e9}"] {
            assert!(!super::is_plain(path), "{path}");
        }
    }

    #[test]
    fn plain_paths_pass_unambiguously() {
        for path in [
            "/",
            "/a",
            "/a/",
            "/a/b.c",
            "/a%20b",
            "/%C3%A9",
            "/...",
            "/.well-known/x",
            "/a..b",
            "/100%25",
            "/@:!$&'()*+,=",
        ] {
            let checked = RequestPath::check(path).unwrap();
            assert!(!checked.is_ambiguous(), "{path}");
            assert_eq!(checked.raw(), path);
        }
    }

    #[test]
    fn what_backends_disagree_on_is_refused() {
        for path in [
            "",
            "a",
            "*",
            "/.",
            "/..",
            "/a/../b",
            "/a/./b",
            "/a/..",
            "/%2e",
            "/%2e%2e/b",
            "/.%2E/b",
            "/a/%2e./b",
            "/..;/b",
            "/..;x=1/b",
            "/%2e%2e;a/b",
            "/..%3b/b",
            "/a%2f..%2fb",
            "/a%2F%2e%2e",
            "/a\\b",
            "/a%5cb",
            "/a%5Cb",
            "/a%00",
            "/a%0d%0ab",
            "/a%7f",
            "/a%09",
            "/a%c2%85",
            "/%c0%af",
            "/%c0%ae",
            "/%e0%80%af",
            "/%ff",
            "/%",
            "/%2",
            "/%zz",
            "/%u002e",
            "/%252e%252e",
            "/%252f",
            "/a#b",
            "/a b",
            "/\u{e9}",
            "/a;x%2fb",
        ] {
            assert!(RequestPath::check(path).is_err(), "{path:?}");
        }
    }

    #[test]
    fn opt_in_classes_are_noted() {
        for (path, ambiguity) in [
            ("/a%2fb", Ambiguity::EncodedSlash),
            ("/a%2Fb", Ambiguity::EncodedSlash),
            ("/a//b", Ambiguity::DoubleSlash),
            ("//a", Ambiguity::DoubleSlash),
            ("/a//", Ambiguity::DoubleSlash),
            ("/a;b", Ambiguity::PathParameters),
            ("/a;v=1/b", Ambiguity::PathParameters),
            ("/a%3bv", Ambiguity::PathParameters),
        ] {
            let checked = RequestPath::check(path).unwrap();
            assert!(checked.is_ambiguous() && checked.is_covered_by(&[ambiguity]), "{path}");
            assert!(!checked.is_covered_by(&[]), "{path}");
        }
    }

    #[test]
    fn a_slash_or_parameter_that_leaves_an_empty_segment_is_a_double_slash_too() {
        for path in ["/a/%2fb", "/a%2f/b", "/a%2f%2fb", "/a/;x/b", "/;x"] {
            let checked = RequestPath::check(path).unwrap();
            assert!(!checked.is_covered_by(&[Ambiguity::EncodedSlash, Ambiguity::PathParameters]), "{path}");
            assert!(checked.is_covered_by(&Ambiguity::ALL), "{path}");
        }
    }

    #[test]
    fn readings_are_all_combinations() {
        let path = RequestPath::check("/a%2fb//c;x").unwrap();
        let readings: Vec<String> = path.other_readings().map(|segments| segments.join("|")).collect();
        assert_eq!(path.segments().join("|"), "a/b||c;x");
        assert_eq!(readings.len(), 7);
        assert!(readings.contains(&"a|b|c".to_owned()), "{readings:?}");
    }
}
