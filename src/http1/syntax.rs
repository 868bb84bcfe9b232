//! Which bytes may stand where: tokens, field values, targets, hosts (RFC 9110 section 5, RFC 3986).

use std::net::Ipv6Addr;
use std::str;

use super::violation::Violation;
use crate::catalogue::Reason;

const TOKEN: [bool; 256] = alphanumeric_and(b"!#$%&'*+-.^_`|~");
/// RFC 3986 and what clients send unencoded all the same, as far as the `http` crate follows: the guard must refuse
/// here what it refuses, or hyper would answer in our place. The gateway is stricter where it matters.
const PATH: [bool; 256] = alphanumeric_and(b"%-._~!$&'()*+,;=:@/[]\\^|\"{}");
const QUERY: [bool; 256] = alphanumeric_and(b"%-._~!$&'()*+,;=:@/?[]\\^|`{}");
const HOST: [bool; 256] = alphanumeric_and(b"-._");

/// A DNS name has no more (RFC 1035 section 2.3.4).
const HOST_MAX: usize = 255;

/// RFC 9110 section 5.6.2.
pub(super) fn is_token_byte(byte: u8) -> bool {
    holds(&TOKEN, byte)
}

/// Whether two field names are the same, or become so once all punctuation is alike, as in the environment
/// variables of CGI and WSGI. `name` is given in lower case.
pub(super) fn is_alike(sent: &[u8], name: &[u8]) -> bool {
    let alike = |(&sent, &want): (&u8, &u8)| {
        sent.eq_ignore_ascii_case(&want) || (want == b'-' && !sent.is_ascii_alphanumeric())
    };
    sent.len() == name.len() && sent.iter().zip(name).all(alike)
}

/// Path and query of a target: visible ASCII that may stand there, and no fragment.
pub(super) fn check_path_and_query(bytes: &[u8]) -> Result<(), Violation> {
    let (path, query) = split_at(bytes, b'?').unwrap_or((bytes, &[]));
    check_target_bytes(path, &PATH)?;
    check_target_bytes(query, &QUERY)
}

fn check_target_bytes(bytes: &[u8], allowed: &[bool; 256]) -> Result<(), Violation> {
    match bytes.iter().find(|&&byte| !holds(allowed, byte)) {
        None => Ok(()),
        Some(b'#') => Err(Violation::new(Reason::AmbiguousPath, "the request target has a fragment ('#')")),
        Some(0x80..) => {
            Err(Violation::target("the request target has bytes outside ASCII; percent-encode them"))
        }
        Some(0..=b' ' | 0x7f) => Err(Violation::target("the request target has white space")),
        Some(_) => Err(Violation::target("the request target has a character that must be percent-encoded")),
    }
}

/// `uri-host [":" port]` of RFC 9110 section 7.2, as a DNS name, IPv4 address or `[IPv6 address]`: no user, no
/// percent-encoding, no list, which routes could not match and another parser may read differently.
pub(super) fn is_host(bytes: &[u8]) -> bool {
    let (is_host, port) = if let [b'[', rest @ ..] = bytes {
        let Some((address, port)) = split_at(rest, b']') else { return false };
        (is_ipv6(address), port.get(1..).unwrap_or_default())
    } else {
        let (name, port) = split_at(bytes, b':').unwrap_or((bytes, &[]));
        (is_name(name), port)
    };
    is_host
        && match port {
            [] => true,
            [b':', digits @ ..] => is_port(digits),
            [..] => false,
        }
}

fn is_ipv6(address: &[u8]) -> bool {
    str::from_utf8(address).is_ok_and(|address| address.parse::<Ipv6Addr>().is_ok())
}

fn is_name(name: &[u8]) -> bool {
    let no_empty_label = !name.starts_with(b".") && !name.windows(2).any(|pair| pair == b"..");
    (1..=HOST_MAX).contains(&name.len()) && name.iter().all(|&byte| holds(&HOST, byte)) && no_empty_label
}

fn is_port(digits: &[u8]) -> bool {
    // `u16::from_str` takes a sign.
    digits.len() <= 5
        && digits.iter().all(u8::is_ascii_digit)
        && str::from_utf8(digits).is_ok_and(|digits| digits.parse::<u16>().is_ok_and(|port| port > 0))
}

/// The bytes before the first `mark`, and those from it on.
fn split_at(bytes: &[u8], mark: u8) -> Option<(&[u8], &[u8])> {
    bytes.split_at_checked(memchr::memchr(mark, bytes)?)
}

/// Compiles to one load: the index of a byte is always within.
fn holds(table: &[bool; 256], byte: u8) -> bool {
    table.get(usize::from(byte)).is_some_and(|&holds| holds)
}

#[allow(clippy::indexing_slicing, reason = "evaluated by the compiler, which checks")]
const fn alphanumeric_and(others: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        table[byte as usize] = byte.is_ascii_alphanumeric();
        byte += 1;
    }
    let mut next = 0;
    while next < others.len() {
        table[others[next] as usize] = true;
        next += 1;
    }
    table
}
