//! Bytes as peers send them: well-formed, hostile, and cut into reads anywhere.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// What requests and attacks on their framing are made of.
const FRAGMENTS: &[&[u8]] = &[
    b"GET / HTTP/1.1\r\n",
    b"POST /a?b=c HTTP/1.1\r\n",
    b"GET http://a/ HTTP/1.1\r\n",
    b"OPTIONS * HTTP/1.1\r\n",
    b"HEAD ",
    b"/path ",
    b"HTTP/1.1\r\n",
    b"Host: a\r\n",
    b"host: [::1]:8080\r\n",
    b"Content-Length: 5\r\n",
    b"content-length: 0\r\n",
    b"Content-Length: ",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: ",
    b"Upgrade: websocket\r\n",
    b"Connection: keep-alive\r\n",
    b"Expect: 100-continue\r\n",
    b"User-Agent: caf\xc3\xa9\r\n",
    b"X: y\r\n",
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b"\r",
    b" ",
    b"\t",
    b":",
    b"#",
    b"\0",
    b"hello",
    b"5\r\nhello\r\n",
    b"0\r\n\r\n",
    b"0\r\nX-Trailer: 1\r\n\r\n",
    b"a;ext=1\r\n0123456789\r\n",
    b"ffffffffffffffff\r\n",
    b"chunked",
    b"12",
];

/// A well-formed request, and the body that it carries.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) bytes: Vec<u8>,
    pub(super) target: String,
    pub(super) body: Vec<u8>,
}

pub(super) fn request() -> impl Strategy<Value = Sent> {
    let header = "[!#$%&'*+.^_`|~0-9a-zA-Z-]{1,20}: ?[ -~\t\u{80}-\u{ff}]{0,40}";
    (
        select(&["GET", "POST", "PUT", "X-METHOD"][..]),
        "/[-a-zA-Z0-9._~!$&'()*+,;=:@/%{}|^\\[\\]\\\\]{0,30}(\\?[-a-zA-Z0-9._~!$&'()*+,;=:@/?%]{0,30})?",
        vec(header, 0..8),
        vec(any::<u8>(), 0..600),
        prop_oneof![Just(None), vec(1..200_usize, 1..5).prop_map(Some)],
    )
        .prop_map(|(method, target, headers, body, chunks)| {
            let mut bytes = format!("{method} {target} HTTP/1.1\r\nHost: a.example:80\r\n").into_bytes();
            for header in headers {
                bytes.extend_from_slice(b"X-");
                bytes.extend_from_slice(header.as_bytes());
                bytes.extend_from_slice(b"\r\n");
            }
            match chunks {
                None => {
                    bytes.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
                    bytes.extend_from_slice(&body);
                }
                Some(sizes) => {
                    bytes.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
                    encode_chunks(&mut bytes, &body, &sizes);
                }
            }
            Sent { bytes, target, body }
        })
}

fn encode_chunks(bytes: &mut Vec<u8>, mut body: &[u8], sizes: &[usize]) {
    let mut sizes = sizes.iter().cycle();
    while !body.is_empty() {
        let (chunk, rest) = body.split_at(body.len().min(*sizes.next().unwrap()));
        bytes.extend_from_slice(format!("{:x};x=y\r\n", chunk.len()).as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
        body = rest;
    }
    bytes.extend_from_slice(b"0\r\nX-Trailer: t\r\n\r\n");
}

/// Anything: fragments in any order, well-formed requests with bytes changed, noise.
pub(super) fn hostile() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => vec(select(FRAGMENTS), 0..16).prop_map(|fragments| fragments.concat()),
        2 => after(b"POST / HTTP/1.1\r\nHost: a\r\n", &FRAGMENTS[9..]),
        2 => after(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", &FRAGMENTS[19..]),
        3 => (vec(request(), 1..4), vec((any::<Index>(), any::<u8>()), 0..3)).prop_map(|(requests, changes)| {
            let mut bytes = requests.into_iter().flat_map(|sent| sent.bytes).collect::<Vec<_>>();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes
        }),
        1 => vec(any::<u8>(), 0..64),
    ]
}

fn after(start: &'static [u8], fragments: &'static [&'static [u8]]) -> impl Strategy<Value = Vec<u8>> {
    vec(select(fragments), 0..12).prop_map(move |fragments| [start, &fragments.concat()].concat())
}

/// The same bytes in several reads.
pub(super) fn split<'a>(bytes: &'a [u8], cuts: &[Index]) -> Vec<&'a [u8]> {
    let mut ends: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    ends.push(bytes.len());
    ends.sort_unstable();
    let mut start = 0;
    ends.into_iter().map(|end| &bytes[std::mem::replace(&mut start, end)..end]).collect()
}
