//! The request head, line by line: request line and header fields (RFC 9112 sections 2, 3, 5 and 6).

use super::limits::GuardLimits;
use super::lines::{LineError, Lines};
use super::syntax;
use super::violation::Violation;
use crate::catalogue::Reason;

/// Longer than any registered method.
const METHOD_MAX: usize = 32;
/// What the request line holds besides method and target: `" "`, `" HTTP/1.1"`, CRLF.
const REQUEST_LINE_REST: usize = 12;
/// Longer than any field name in use, and far below where hyper's header map gives up.
const FIELD_NAME_MAX: usize = 256;
/// 2^53 - 1: every language behind us holds it exactly.
const LENGTH_MAX: u64 = (1 << 53) - 1;

/// What a head says about the bytes after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// The head's own length, blank line included.
    pub(super) len: usize,
    pub(super) body: BodyFraming,
    /// The client offers to switch protocols: what follows the message is either.
    pub(super) upgrade: bool,
}

/// How the body's end is found (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyFraming {
    /// So many bytes; none if there was no framing field.
    Length(u64),
    Chunked,
}

/// Reads one head from a buffer that grows.
#[derive(Debug, Default)]
pub(super) struct HeadReader {
    lines: Lines,
    version: Option<Version>,
    fields: usize,
    host: bool,
    content_length: Option<u64>,
    chunked: bool,
    upgrade: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    /// Still sent by load balancers' health checks and by nginx to its upstreams; safe as long as it comes without
    /// `Transfer-Encoding`.
    Http10,
    Http11,
}

impl HeadReader {
    /// Reads on; `bytes` begins where the head begins and repeats what was given before. `None`: not complete yet.
    ///
    /// Lines are judged as they complete, so the first violation on the wire decides, however the bytes are split
    /// into reads.
    pub(super) fn read(&mut self, bytes: &[u8], limits: &GuardLimits) -> Result<Option<Head>, Violation> {
        let version = match self.version {
            Some(version) => version,
            None => match self.read_request_line(bytes, limits)? {
                Some(version) => *self.version.insert(version),
                None => return Ok(None),
            },
        };
        while let Some(line) = self.lines.next(bytes, limits.head).map_err(head_line_error)? {
            if line.is_empty() {
                return self.finish(version).map(Some);
            }
            self.fields += 1;
            if self.fields > limits.fields {
                return Err(Violation::headers_too_large("too many header fields"));
            }
            let (name, value) = split_field(line)?;
            self.note_framing_field(version, name, value)?;
        }
        Ok(None)
    }

    fn read_request_line(
        &mut self,
        bytes: &[u8],
        limits: &GuardLimits,
    ) -> Result<Option<Version>, Violation> {
        check_first_byte(bytes)?;
        let limit = limits.uri.saturating_add(METHOD_MAX + REQUEST_LINE_REST);
        let line = self.lines.next(bytes, limit).map_err(|error| match error {
            LineError::TooLong => Violation::new(Reason::UriTooLong, "the request line is too long"),
            LineError::BareLf => Violation::malformed("the request line ends in LF without CR"),
            LineError::Control => Violation::malformed("the request line has control characters"),
        })?;
        line.map(|line| parse_request_line(line, limits)).transpose()
    }

    /// Remembers what framing hangs on, and refuses the rest of what was smuggled with in the past.
    fn note_framing_field(&mut self, version: Version, name: &[u8], value: &[u8]) -> Result<(), Violation> {
        // The length alone rules out nearly every field.
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => self.note_host(value),
            7 if name.eq_ignore_ascii_case(b"upgrade") => {
                self.upgrade |= version == Version::Http11;
                Ok(())
            }
            13 if name.eq_ignore_ascii_case(b"authorization") && !value.is_ascii() => {
                Err(Violation::header("Authorization has bytes outside ASCII"))
            }
            14 if syntax::is_alike(name, b"content-length") => {
                if !name.eq_ignore_ascii_case(b"content-length") {
                    return Err(Violation::framing("a header is named almost like Content-Length"));
                }
                self.note_content_length(value)
            }
            17 if syntax::is_alike(name, b"transfer-encoding") => {
                if !name.eq_ignore_ascii_case(b"transfer-encoding") {
                    return Err(Violation::framing("a header is named almost like Transfer-Encoding"));
                }
                self.note_transfer_encoding(version, value)
            }
            _ => Ok(()),
        }
    }

    fn note_host(&mut self, value: &[u8]) -> Result<(), Violation> {
        if self.host {
            return Err(Violation::target("more than one Host header"));
        }
        if !syntax::is_host(trim_leading_spaces(value)) {
            return Err(Violation::target("the Host header is not a host with an optional port"));
        }
        self.host = true;
        Ok(())
    }

    fn note_content_length(&mut self, value: &[u8]) -> Result<(), Violation> {
        if self.content_length.is_some() {
            return Err(Violation::framing("more than one Content-Length header"));
        }
        if self.chunked {
            return Err(Violation::framing("both Transfer-Encoding and Content-Length"));
        }
        self.content_length = Some(parse_length(trim_leading_spaces(value))?);
        Ok(())
    }

    fn note_transfer_encoding(&mut self, version: Version, value: &[u8]) -> Result<(), Violation> {
        if version == Version::Http10 {
            return Err(Violation::framing("Transfer-Encoding in HTTP/1.0"));
        }
        if self.chunked {
            return Err(Violation::framing("more than one Transfer-Encoding header"));
        }
        if self.content_length.is_some() {
            return Err(Violation::framing("both Content-Length and Transfer-Encoding"));
        }
        if !trim_leading_spaces(value).eq_ignore_ascii_case(b"chunked") {
            return Err(Violation::framing("a Transfer-Encoding other than chunked"));
        }
        self.chunked = true;
        Ok(())
    }

    fn finish(&self, version: Version) -> Result<Head, Violation> {
        if version == Version::Http11 && !self.host {
            return Err(Violation::target("no Host header"));
        }
        let body = if self.chunked {
            BodyFraming::Chunked
        } else {
            BodyFraming::Length(self.content_length.unwrap_or_default())
        };
        Ok(Head { len: self.lines.consumed(), body, upgrade: self.upgrade })
    }
}

/// Tells what cannot be HTTP/1 from its first byte: such a peer may wait for our answer before it sends a line end.
fn check_first_byte(bytes: &[u8]) -> Result<(), Violation> {
    match bytes.first() {
        None => Ok(()),
        Some(&byte) if syntax::is_token_byte(byte) => Ok(()),
        Some(0x16) => Err(Violation::malformed("TLS on a plain-text port")),
        Some(b'\r' | b'\n') => Err(Violation::malformed("an empty line before the request line")),
        Some(_) => Err(Violation::malformed("the request does not begin with a method")),
    }
}

/// `method SP request-target SP HTTP-version`, with one space each (RFC 9112 section 3).
fn parse_request_line(line: &[u8], limits: &GuardLimits) -> Result<Version, Violation> {
    let (method, rest) = split_at_space(line)
        .ok_or(Violation::malformed("the request line is not 'METHOD target HTTP/1.1'"))?;
    if method.len() > METHOD_MAX || !method.iter().all(|&byte| syntax::is_token_byte(byte)) {
        return Err(Violation::malformed("the method is not a token"));
    }
    let (target, version) = split_at_space(rest)
        .ok_or(Violation::new(Reason::VersionNotSupported, "the request line names no version of HTTP"))?;
    if line == b"PRI * HTTP/2.0" {
        return Err(Violation::malformed("HTTP/2 on an HTTP/1.1 connection"));
    }
    let version = parse_version(version)?;
    if method == b"CONNECT" {
        return Err(Violation::new(Reason::MethodNotSupported, "CONNECT"));
    }
    if target.len() > limits.uri {
        return Err(Violation::new(Reason::UriTooLong, "the request target is too long"));
    }
    check_target(method, target)?;
    Ok(version)
}

fn parse_version(version: &[u8]) -> Result<Version, Violation> {
    match version {
        b"HTTP/1.1" => Ok(Version::Http11),
        b"HTTP/1.0" => Ok(Version::Http10),
        [b'H', b'T', b'T', b'P', b'/', number @ ..]
            if !number.is_empty() && number.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.') =>
        {
            Err(Violation::new(Reason::VersionNotSupported, "neither HTTP/1.1 nor HTTP/1.0"))
        }
        _ => Err(Violation::malformed("the request line is not 'METHOD target HTTP/1.1'")),
    }
}

/// RFC 9112 section 3.2: origin-form, absolute-form, or `*` for OPTIONS.
fn check_target(method: &[u8], target: &[u8]) -> Result<(), Violation> {
    match target {
        [b'/', ..] => syntax::check_path_and_query(target),
        b"*" if method == b"OPTIONS" => Ok(()),
        b"*" => Err(Violation::target("the target '*' is for OPTIONS only")),
        _ => check_absolute(target),
    }
}

fn check_absolute(target: &[u8]) -> Result<(), Violation> {
    let rest = strip_scheme(target, b"https://").or_else(|| strip_scheme(target, b"http://"));
    let rest = rest.ok_or(Violation::target("the request target is neither a path nor an http(s) URL"))?;
    // Without a slash hyper's view of the path would differ from what was sent.
    let slash =
        memchr::memchr(b'/', rest).ok_or(Violation::target("the request target's URL has no path"))?;
    let (host, path) = rest.split_at_checked(slash).unwrap_or_default();
    if !syntax::is_host(host) {
        return Err(Violation::target("the request target's host is not a host with an optional port"));
    }
    syntax::check_path_and_query(path)
}

fn strip_scheme<'b>(target: &'b [u8], scheme: &[u8]) -> Option<&'b [u8]> {
    let (start, rest) = target.split_at_checked(scheme.len())?;
    start.eq_ignore_ascii_case(scheme).then_some(rest)
}

/// `field-name ":" OWS field-value`, the value with its white space; also used for trailers.
pub(super) fn split_field(line: &[u8]) -> Result<(&[u8], &[u8]), Violation> {
    let end = line.iter().position(|&byte| !syntax::is_token_byte(byte)).unwrap_or(line.len());
    let (name, rest) = line.split_at_checked(end).unwrap_or_default();
    match (name, rest) {
        ([], [b' ' | b'\t', ..]) => Err(Violation::header("a header is folded over lines")),
        ([], _) => Err(Violation::header("a header has no name")),
        (_, [b':', value @ ..]) if name.len() <= FIELD_NAME_MAX => Ok((name, value)),
        (_, [b':', ..]) => Err(Violation::headers_too_large("a header name is too long")),
        (_, [b' ' | b'\t', ..]) => Err(Violation::header("white space between header name and colon")),
        (_, []) => Err(Violation::header("a header line has no colon")),
        (_, _) => Err(Violation::header("a header name has illegal characters")),
    }
}

/// `1*DIGIT` without leading zeros, which some read as octal.
fn parse_length(digits: &[u8]) -> Result<u64, Violation> {
    let plain = match digits {
        [] | [b'0', _, ..] => false,
        _ => digits.iter().all(u8::is_ascii_digit),
    };
    if !plain {
        return Err(Violation::framing("Content-Length is not one plain decimal number"));
    }
    digits
        .iter()
        .try_fold(0_u64, |sum, digit| sum.checked_mul(10)?.checked_add(u64::from(digit - b'0')))
        .filter(|&length| length <= LENGTH_MAX)
        .ok_or(Violation::framing("Content-Length is out of range"))
}

/// All the white space that the fields that decide framing or host may carry: some parser somewhere takes a
/// trailing one, or a tab, for part of the value.
fn trim_leading_spaces(value: &[u8]) -> &[u8] {
    let start = value.iter().position(|&byte| byte != b' ').unwrap_or(value.len());
    value.get(start..).unwrap_or_default()
}

fn split_at_space(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (before, rest) = bytes.split_at_checked(memchr::memchr(b' ', bytes)?)?;
    Some((before, rest.get(1..)?))
}

fn head_line_error(error: LineError) -> Violation {
    match error {
        LineError::TooLong => Violation::headers_too_large("the header fields are too large"),
        LineError::BareLf => Violation::malformed("a header line ends in LF without CR"),
        LineError::Control => Violation::header("a header has control characters"),
    }
}
