//! What the guard says to raw bytes, without I/O.

use super::{cases, judge, judge_whole};
use crate::catalogue::Reason::{AmbiguousFraming, AmbiguousPath, HeadersTooLarge, UriTooLong};
use crate::http1::GuardLimits;

#[test]
fn each_input_gets_its_verdict() {
    for (name, bytes, reason) in cases::all() {
        let verdict = judge_whole(&bytes);
        assert_eq!(verdict.reason(), reason, "{name}: {verdict:?}");
        match reason {
            None => assert_eq!(verdict.released, bytes, "{name}"),
            Some(_) if !verdict.refused_in_body => {
                assert!(verdict.released.is_empty(), "{name}: {verdict:?}");
            }
            Some(_) => {
                assert!(verdict.heads == 1 && verdict.released.len() < bytes.len(), "{name}: {verdict:?}");
            }
        }
    }
}

#[test]
fn a_refusal_ends_the_connection_for_good() {
    let verdict = judge_whole(b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((verdict.heads, verdict.released.len()), (0, 0), "{verdict:?}");
}

#[test]
fn pipelined_requests_are_judged_one_by_one() {
    let good = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let verdict = judge_whole(&[&good[..], b"GET /#x HTTP/1.1\r\nHost: a\r\n\r\n"].concat());
    assert_eq!(verdict.heads, 2);
    assert_eq!(verdict.released, good);
    assert_eq!(verdict.reason(), Some(AmbiguousPath));
}

#[test]
fn limits_are_exact() {
    let limits = GuardLimits { uri: 100, head: 400, fields: 3, ..GuardLimits::default() };
    let target = |len: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(len - 1));
    let head = |len: usize| {
        let rest = "GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n".len();
        format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(len - rest))
    };
    let fields = |count: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(count - 1));
    let cases = [
        ("target at the limit", target(100), None),
        ("target beyond", target(101), Some(UriTooLong)),
        ("target far beyond", target(1000), Some(UriTooLong)),
        ("target without end", "GET /".to_owned() + &"a".repeat(1000), Some(UriTooLong)),
        ("head at the limit", head(400), None),
        ("head beyond", head(401), Some(HeadersTooLarge)),
        ("head without end", head(399).trim_end().to_owned() + &"x".repeat(500), Some(HeadersTooLarge)),
        ("fields at the limit", fields(3), None),
        ("fields beyond", fields(4), Some(HeadersTooLarge)),
    ];
    for (name, bytes, reason) in cases {
        let verdict = judge(limits, [bytes.as_bytes()]);
        assert_eq!(verdict.reason(), reason, "{name}: {verdict:?}");
    }
}

#[test]
fn name_extensions_and_trailers_are_bounded() {
    let chunked =
        |body: &str| format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
    let extension = |len: usize| format!("1;{}\r\na\r\n", "e".repeat(len - 1));
    let trailer = |len: usize| format!("0\r\nX: {}\r\n\r\n", "t".repeat(len - "X: \r\n\r\n".len()));
    let named = |len: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}: x\r\n\r\n", "n".repeat(len));
    let cases = [
        ("name of 256", named(256), None),
        ("name of 257", named(257), Some(HeadersTooLarge)),
        ("extension of 256", chunked(&extension(256)), None),
        ("extension of 257", chunked(&extension(257)), Some(AmbiguousFraming)),
        ("size line without end", chunked(&"0".repeat(300)), Some(AmbiguousFraming)),
        ("32 extensions of 256", chunked(&extension(256).repeat(32)), None),
        ("33 extensions of 256", chunked(&extension(256).repeat(33)), Some(AmbiguousFraming)),
        ("trailers of 8 KiB", chunked(&trailer(8192)), None),
        ("trailers beyond", chunked(&trailer(8193)), Some(HeadersTooLarge)),
        ("100 trailers", chunked(&format!("0\r\n{}\r\n", "X: y\r\n".repeat(100))), None),
        ("101 trailers", chunked(&format!("0\r\n{}\r\n", "X: y\r\n".repeat(101))), Some(HeadersTooLarge)),
    ];
    for (name, bytes, reason) in cases {
        let verdict = judge_whole(bytes.as_bytes());
        assert_eq!(verdict.reason(), reason, "{name}: {verdict:?}");
    }
}
