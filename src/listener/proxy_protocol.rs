//! The header of the PROXY protocol, versions 1 and 2 (haproxy.org/download/3.2/doc/proxy-protocol.txt): the address
//! of the client, said by a load balancer before the client's first byte. Bytes in, an address out; knows no socket.
//!
//! Everything is read strictly: whoever speaks it was configured to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// How far a header has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// It has at least this many bytes more.
    Incomplete(usize),
    /// It ends after this many bytes.
    Complete {
        /// Its length.
        length: usize,
        /// The client's address; `None` if the load balancer speaks for itself, as in health checks.
        client: Option<SocketAddr>,
    },
}

/// Not a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Neither version.
    #[error("the connection does not begin with the PROXY protocol")]
    Missing,
    /// It begins like one and goes on otherwise.
    #[error("a malformed PROXY protocol header: {0}")]
    Malformed(&'static str),
    /// Longer than any load balancer's.
    #[error("a PROXY protocol header of more than {MAX_LENGTH} bytes")]
    TooLong,
}

/// The shortest header: `PROXY UNKNOWN` and its line end.
const MIN_LENGTH: usize = 15;
/// Section 2.1: the longest line with its end.
const MAX_LINE: usize = 107;
/// Room for what load balancers add to addresses: names, certificates, ids of networks.
const MAX_LENGTH: usize = 4096;
const LINE_START: &[u8; 6] = b"PROXY ";
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family and protocol, length (section 2.2).
const FIXED_LENGTH: usize = 16;

/// Reads the header at the start of a connection. What [`Header::Incomplete`] asks for never reaches beyond its end.
pub fn parse(bytes: &[u8]) -> Result<Header, HeaderError> {
    if starts_alike(bytes, LINE_START) {
        line(bytes)
    } else if starts_alike(bytes, SIGNATURE) {
        binary(bytes)
    } else {
        Err(HeaderError::Missing)
    }
}

fn starts_alike(bytes: &[u8], start: &[u8]) -> bool {
    bytes.iter().zip(start).all(|(byte, expected)| byte == expected)
}

/// Version 1, section 2.1.
fn line(bytes: &[u8]) -> Result<Header, HeaderError> {
    let Some(end) = bytes.windows(2).position(|pair| pair == b"\r\n") else {
        if bytes.len() >= MAX_LINE {
            return Err(HeaderError::Malformed("a line without end"));
        }
        let end = if bytes.last() == Some(&b'\r') { 1 } else { 2 };
        return Ok(Header::Incomplete(MIN_LENGTH.saturating_sub(bytes.len()).max(end)));
    };
    let length = end + 2;
    let text = bytes.get(LINE_START.len()..end).and_then(|text| std::str::from_utf8(text).ok());
    let words: Vec<&str> = text.unwrap_or_default().split(' ').collect();
    let client = match *words.as_slice() {
        _ if length > MAX_LINE => return Err(HeaderError::Malformed("a line of more than 107 bytes")),
        ["UNKNOWN", ..] => None,
        ["TCP4", source, destination, from, to] => {
            Some(endpoints::<Ipv4Addr>(source, destination, from, to)?)
        }
        ["TCP6", source, destination, from, to] => {
            Some(endpoints::<Ipv6Addr>(source, destination, from, to)?)
        }
        _ => return Err(HeaderError::Malformed("a line that is not of the protocol")),
    };
    Ok(Header::Complete { length, client })
}

/// The source, if all four are what they should be.
fn endpoints<A: std::str::FromStr + Into<IpAddr>>(
    source: &str,
    destination: &str,
    from: &str,
    to: &str,
) -> Result<SocketAddr, HeaderError> {
    let address = |text: &str| text.parse::<A>().map_err(|_| HeaderError::Malformed("not an address"));
    let port = |text: &str| {
        let is_plain =
            text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
        text.parse::<u16>().ok().filter(|_| is_plain).ok_or(HeaderError::Malformed("not a port"))
    };
    address(destination)?;
    port(to)?;
    Ok(SocketAddr::new(address(source)?.into(), port(from)?))
}

/// Version 2, section 2.2. What follows the addresses (TLVs) is skipped.
fn binary(bytes: &[u8]) -> Result<Header, HeaderError> {
    let Some((fixed, rest)) = bytes.split_first_chunk::<FIXED_LENGTH>() else {
        return Ok(Header::Incomplete(FIXED_LENGTH - bytes.len()));
    };
    let [.., version_and_command, family, high, low] = *fixed;
    let announced = usize::from(u16::from_be_bytes([high, low]));
    let length = FIXED_LENGTH + announced;
    let is_local = match version_and_command {
        0x20 => true,
        0x21 => false,
        _ => return Err(HeaderError::Malformed("a version or command that does not exist")),
    };
    if length > MAX_LENGTH {
        return Err(HeaderError::TooLong);
    }
    let Some(addresses) = rest.get(..announced) else {
        return Ok(Header::Incomplete(length - bytes.len()));
    };
    let too_short = HeaderError::Malformed("less than its addresses");
    let client = match family {
        _ if is_local => None,
        // Unspecified, and Unix sockets: nothing that could be told apart.
        0x00 | 0x31 => None,
        0x11 => {
            let [a, b, c, d, _, _, _, _, high, low, _, _] = *addresses.first_chunk().ok_or(too_short)?;
            Some((Ipv4Addr::new(a, b, c, d).into(), [high, low]))
        }
        0x21 => {
            let source: [u8; 16] = *addresses.first_chunk().ok_or(too_short)?;
            let [high, low, _, _] = *addresses.get(32..).and_then(<[u8]>::first_chunk).ok_or(too_short)?;
            Some((Ipv6Addr::from(source).into(), [high, low]))
        }
        _ => return Err(HeaderError::Malformed("not a protocol that connects")),
    };
    let client =
        client.map(|(address, port): (IpAddr, _)| SocketAddr::new(address, u16::from_be_bytes(port)));
    Ok(Header::Complete { length, client })
}

#[cfg(test)]
mod tests {
    use super::{Header, HeaderError, SIGNATURE, parse};

    fn binary(version_and_command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([version_and_command, family]);
        bytes.extend(u16::try_from(rest.len()).unwrap().to_be_bytes());
        bytes.extend(rest);
        bytes
    }

    fn v4() -> Vec<u8> {
        vec![192, 0, 2, 1, 198, 51, 100, 1, 0x12, 0x34, 0x01, 0xbb]
    }

    fn v6() -> Vec<u8> {
        let mut bytes = [0; 36];
        bytes[..2].copy_from_slice(&[0x20, 0x01]);
        bytes[15] = 1;
        bytes[32..34].copy_from_slice(&[0, 80]);
        bytes.to_vec()
    }

    #[test]
    fn both_versions_tell_the_client() {
        let mut with_more = v4();
        with_more.extend([0x20, 0, 3, 1, 2, 3]);
        for (bytes, client) in [
            (b"PROXY TCP4 192.0.2.1 198.51.100.1 4660 443\r\n".to_vec(), Some("192.0.2.1:4660")),
            (b"PROXY TCP6 2001::1 2001::2 80 443\r\n".to_vec(), Some("[2001::1]:80")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(), None),
            (binary(0x21, 0x11, &v4()), Some("192.0.2.1:4660")),
            (binary(0x21, 0x11, &with_more), Some("192.0.2.1:4660")),
            (binary(0x21, 0x21, &v6()), Some("[2001::1]:80")),
            (binary(0x20, 0x11, &v4()), None),
            (binary(0x20, 0, b""), None),
            (binary(0x21, 0, b""), None),
            (binary(0x21, 0x31, &[0; 216]), None),
        ] {
            let client = client.map(|text| text.parse().unwrap());
            let length = bytes.len();
            assert_eq!(parse(&bytes), Ok(Header::Complete { length, client }), "{bytes:?}");
            let longer = [&bytes[..], b"GET / HTTP/1.1\r\n"].concat();
            assert_eq!(parse(&longer), Ok(Header::Complete { length, client }), "with what follows");
            for part in 0..length {
                let more = parse(&bytes[..part]);
                assert!(
                    matches!(more, Ok(Header::Incomplete(more)) if more > 0 && part + more <= length),
                    "{part} bytes of {bytes:?}: {more:?}"
                );
            }
        }
    }

    #[test]
    fn what_is_not_exactly_a_header_is_refused() {
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(100));
        for bytes in [
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
            b"\x16\x03\x01\x02\x00".to_vec(),
            b"proxy TCP4 192.0.2.1 198.51.100.1 1 2\r\n".to_vec(),
            b"PROXY  TCP4 192.0.2.1 198.51.100.1 1 2\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 198.51.100.1 1 2 \r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 198.51.100.1 1\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 198.51.100.1 1 65536\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 198.51.100.1 01 2\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 198.51.100.1 +1 2\r\n".to_vec(),
            b"PROXY TCP4 2001::1 2001::2 1 2\r\n".to_vec(),
            b"PROXY TCP4 192.0.2 198.51.100.1 1 2\r\n".to_vec(),
            b"PROXY TCP6 192.0.2.1 198.51.100.1 1 2\r\n".to_vec(),
            b"PROXY UDP4 192.0.2.1 198.51.100.1 1 2\r\n".to_vec(),
            b"PROXY \xff\r\n".to_vec(),
            long.clone().into_bytes(),
            long.replace("\r\n", "").into_bytes(),
            binary(0x11, 0x11, &v4()),
            binary(0x22, 0x11, &v4()),
            binary(0x21, 0x12, &v4()),
            binary(0x21, 0x41, &v4()),
            binary(0x21, 0x11, &v4()[..11]),
            binary(0x21, 0x21, &v6()[..35]),
            binary(0x21, 0x11, &[0; 5000]),
        ] {
            assert!(parse(&bytes).is_err(), "{bytes:?}");
        }
        assert_eq!(parse(b"HEAD"), Err(HeaderError::Missing));
    }
}
