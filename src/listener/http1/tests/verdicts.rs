//! Raw inputs, each with its verdict.

use super::{judge, judge_whole};
use crate::catalogue::Reason::{
    self, AmbiguousFraming, AmbiguousPath, HeadersTooLarge, IllegalHeader, IllegalTarget, MalformedRequest,
    MethodNotSupported, UriTooLong, VersionNotSupported,
};
use crate::listener::http1::GuardLimits;

/// Name, bytes, and the reason to refuse them; `None` lets them pass.
pub(super) type Case = (&'static str, &'static [u8], Option<Reason>);

/// Each as the request line of a request with a `Host`.
pub(super) const REQUEST_LINES: &[Case] = &[
    ("plain", b"GET / HTTP/1.1", None),
    ("path and query", b"GET /a/b.c?d=e&f=%20 HTTP/1.1", None),
    ("HTTP/1.0", b"GET / HTTP/1.0", None),
    ("unknown method", b"M-SEARCH / HTTP/1.1", None),
    ("lower-case method", b"get / HTTP/1.1", None),
    ("OPTIONS *", b"OPTIONS * HTTP/1.1", None),
    ("absolute http", b"GET http://a/ HTTP/1.1", None),
    ("absolute https, upper case, port", b"GET HTTPS://A:8443/x?y HTTP/1.1", None),
    ("absolute IPv6", b"GET http://[::1]:80/ HTTP/1.1", None),
    ("backslash is the gateway's to judge", b"GET /a\\b HTTP/1.1", None),
    ("double slash is the gateway's to judge", b"GET //a HTTP/1.1", None),
    ("JSON in path", b"GET /{\"a\"} HTTP/1.1", None),
    ("brackets in query", b"GET /?a[b]={c}|d^`e HTTP/1.1", None),
    ("stray percent", b"GET /%zz%2?% HTTP/1.1", None),
    ("question marks in query", b"GET /??a?b HTTP/1.1", None),
    ("* with GET", b"GET * HTTP/1.1", Some(IllegalTarget)),
    ("** with OPTIONS", b"OPTIONS ** HTTP/1.1", Some(IllegalTarget)),
    ("fragment", b"GET /a#b HTTP/1.1", Some(AmbiguousPath)),
    ("fragment in query", b"GET /a?b#c HTTP/1.1", Some(AmbiguousPath)),
    ("fragment only", b"GET # HTTP/1.1", Some(IllegalTarget)),
    ("fragment in absolute", b"GET http://a/b#c HTTP/1.1", Some(AmbiguousPath)),
    ("UTF-8 in path", b"GET /\xc3\xa9 HTTP/1.1", Some(IllegalTarget)),
    ("overlong UTF-8 in path", b"GET /\xc0\xaf HTTP/1.1", Some(IllegalTarget)),
    ("0xFF in query", b"GET /?\xff HTTP/1.1", Some(IllegalTarget)),
    ("less-than in path", b"GET /<script> HTTP/1.1", Some(IllegalTarget)),
    ("backtick in path", b"GET /`a` HTTP/1.1", Some(IllegalTarget)),
    ("quote in query", b"GET /?a=\"b\" HTTP/1.1", Some(IllegalTarget)),
    ("greater-than in query", b"GET /?a>b HTTP/1.1", Some(IllegalTarget)),
    ("NUL in path", b"GET /a\0b HTTP/1.1", Some(IllegalTarget)),
    ("DEL in path", b"GET /a\x7fb HTTP/1.1", Some(IllegalTarget)),
    ("tab in path", b"GET /a\tb HTTP/1.1", Some(IllegalTarget)),
    ("bare CR in path", b"GET /a\rb HTTP/1.1", Some(IllegalTarget)),
    ("space in path", b"GET /a b HTTP/1.1", Some(MalformedRequest)),
    ("no target", b"GET HTTP/1.1", Some(VersionNotSupported)),
    ("empty target", b"GET  HTTP/1.1", Some(IllegalTarget)),
    ("two spaces before target", b"GET  / HTTP/1.1", Some(MalformedRequest)),
    ("two spaces before version", b"GET /  HTTP/1.1", Some(MalformedRequest)),
    ("space after version", b"GET / HTTP/1.1 ", Some(MalformedRequest)),
    ("tab for space", b"GET\t/\tHTTP/1.1", Some(MalformedRequest)),
    ("leading space", b" GET / HTTP/1.1", Some(MalformedRequest)),
    ("method only", b"GET", Some(MalformedRequest)),
    ("method with colon", b"GET: / HTTP/1.1", Some(MalformedRequest)),
    ("method with NUL", b"GE\0T / HTTP/1.1", Some(MalformedRequest)),
    ("method in quotes", b"\"GET\" / HTTP/1.1", Some(MalformedRequest)),
    ("method of 33", b"ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG / HTTP/1.1", Some(MalformedRequest)),
    ("CONNECT", b"CONNECT a:443 HTTP/1.1", Some(MethodNotSupported)),
    ("authority-form with GET", b"GET a:443 HTTP/1.1", Some(IllegalTarget)),
    ("relative path", b"GET a/b HTTP/1.1", Some(IllegalTarget)),
    ("query only", b"GET ?a HTTP/1.1", Some(IllegalTarget)),
    ("absolute ftp", b"GET ftp://a/ HTTP/1.1", Some(IllegalTarget)),
    ("absolute file", b"GET file:///etc/passwd HTTP/1.1", Some(IllegalTarget)),
    ("absolute without path", b"GET http://a HTTP/1.1", Some(IllegalTarget)),
    ("absolute with query for path", b"GET http://a?b HTTP/1.1", Some(IllegalTarget)),
    ("absolute without host", b"GET http:///a HTTP/1.1", Some(IllegalTarget)),
    ("absolute with one slash", b"GET http:/a/ HTTP/1.1", Some(IllegalTarget)),
    ("absolute with user", b"GET http://u@a/ HTTP/1.1", Some(IllegalTarget)),
    ("absolute with user and password", b"GET http://u:p@a/ HTTP/1.1", Some(IllegalTarget)),
    ("absolute with bad port", b"GET http://a:99999/ HTTP/1.1", Some(IllegalTarget)),
    ("absolute with backslash host", b"GET http://a\\b/ HTTP/1.1", Some(IllegalTarget)),
    ("HTTP/0.9", b"GET /", Some(VersionNotSupported)),
    ("HTTP/0.9, spelled", b"GET / HTTP/0.9", Some(VersionNotSupported)),
    ("HTTP/1.2", b"GET / HTTP/1.2", Some(VersionNotSupported)),
    ("HTTP/1.10", b"GET / HTTP/1.10", Some(VersionNotSupported)),
    ("HTTP/2.0", b"GET / HTTP/2.0", Some(VersionNotSupported)),
    ("HTTP/3", b"GET / HTTP/3", Some(VersionNotSupported)),
    ("HTTP/2 preface", b"PRI * HTTP/2.0", Some(MalformedRequest)),
    ("lower-case version", b"GET / http/1.1", Some(MalformedRequest)),
    ("version without number", b"GET / HTTP/", Some(MalformedRequest)),
    ("another protocol", b"GET / RTSP/1.0", Some(MalformedRequest)),
    ("RTSP method", b"OPTIONS rtsp://a/ RTSP/1.0", Some(MalformedRequest)),
    ("TLS ClientHello", b"\x16\x03\x01\x02\x00\x01\x00", Some(MalformedRequest)),
    ("SSH", b"SSH-2.0-OpenSSH_9.6", Some(MalformedRequest)),
    ("PROXY protocol v1", b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2", Some(MalformedRequest)),
    ("PROXY protocol v2", b"\r\n\r\n\0\r\nQUIT\n", Some(MalformedRequest)),
];

/// Each as a further header line of a GET with a `Host`.
pub(super) const HEADER_LINES: &[Case] = &[
    ("plain", b"Accept: */*", None),
    ("no space after colon", b"Accept:*/*", None),
    ("white space around value", b"Accept: \t */*\t ", None),
    ("empty value", b"X-Empty:", None),
    ("blank value", b"X-Empty: \t", None),
    ("colon in value", b"X-Url: http://a:1/", None),
    ("UTF-8 in value", b"User-Agent: caf\xc3\xa9", None),
    ("Latin-1 in value", b"User-Agent: caf\xe9", None),
    ("tab in value", b"X: a\tb", None),
    ("every token character", b"!#$%&'*+-.^_`|~09azAZ: x", None),
    ("underscore", b"X_Under_Score: x", None),
    ("Content-Length 0", b"Content-Length: 0", None),
    ("lower-case content-length 0", b"content-length:0", None),
    ("two spaces before length", b"Content-Length:  0", None),
    ("other name of length 14", b"X-Content-Leng: 5", None),
    ("Upgrade", b"Upgrade: websocket", None),
    ("Authorization", b"Authorization: Bearer a.b.c", None),
    ("fold by space", b"X: a\r\n b", Some(IllegalHeader)),
    ("fold by tab", b"X: a\r\n\tb", Some(IllegalHeader)),
    ("first line begins with space", b" X: a", Some(IllegalHeader)),
    ("space before colon", b"X : a", Some(IllegalHeader)),
    ("tab before colon", b"X\t: a", Some(IllegalHeader)),
    ("space in name", b"X Y: a", Some(IllegalHeader)),
    ("no name", b": a", Some(IllegalHeader)),
    ("no colon", b"X", Some(IllegalHeader)),
    ("parenthesis in name", b"X(Y): a", Some(IllegalHeader)),
    ("slash in name", b"X/Y: a", Some(IllegalHeader)),
    ("UTF-8 in name", b"X-\xc3\xa9: a", Some(IllegalHeader)),
    ("NUL in name", b"X\0Y: a", Some(IllegalHeader)),
    ("NUL in value", b"X: a\0b", Some(IllegalHeader)),
    ("bare CR in value", b"X: a\rb", Some(IllegalHeader)),
    ("CR before CRLF", b"X: a\r", Some(IllegalHeader)),
    ("DEL in value", b"X: a\x7f", Some(IllegalHeader)),
    ("vertical tab in value", b"X: \x0ba", Some(IllegalHeader)),
    ("escape in value", b"X: \x1b[31m", Some(IllegalHeader)),
    ("bare LF ends a line", b"X: a\nY: b", Some(MalformedRequest)),
    ("blank line by bare LF", b"X: a\n", Some(MalformedRequest)),
    ("LF CR", b"X: a\n\rY: b", Some(MalformedRequest)),
    ("bytes outside ASCII in Authorization", b"Authorization: Bearer \xe9", Some(IllegalHeader)),
    ("second Host", b"Host: a", Some(IllegalTarget)),
    ("second Host, other case", b"hOsT: b", Some(IllegalTarget)),
    ("Host with space before colon", b"Host : b", Some(IllegalHeader)),
    ("two equal lengths", b"Content-Length: 0\r\nContent-Length: 0", Some(AmbiguousFraming)),
    ("two lengths", b"Content-Length: 0\r\nContent-Length: 5", Some(AmbiguousFraming)),
    ("length list", b"Content-Length: 0, 0", Some(AmbiguousFraming)),
    ("length with plus", b"Content-Length: +0", Some(AmbiguousFraming)),
    ("negative length", b"Content-Length: -1", Some(AmbiguousFraming)),
    ("hexadecimal length", b"Content-Length: 0x0", Some(AmbiguousFraming)),
    ("length with exponent", b"Content-Length: 0e0", Some(AmbiguousFraming)),
    ("length with fraction", b"Content-Length: 0.0", Some(AmbiguousFraming)),
    ("length with underscore", b"Content-Length: 0_0", Some(AmbiguousFraming)),
    ("length in quotes", b"Content-Length: \"0\"", Some(AmbiguousFraming)),
    ("length with leading zero", b"Content-Length: 00", Some(AmbiguousFraming)),
    ("empty length", b"Content-Length:", Some(AmbiguousFraming)),
    ("length with trailing space", b"Content-Length: 0 ", Some(AmbiguousFraming)),
    ("length with tab", b"Content-Length:\t0", Some(AmbiguousFraming)),
    ("length in full-width digits", b"Content-Length: \xef\xbc\x90", Some(AmbiguousFraming)),
    ("length of 2^53", b"Content-Length: 9007199254740992", Some(AmbiguousFraming)),
    ("length of 2^64", b"Content-Length: 18446744073709551616", Some(AmbiguousFraming)),
    (
        "length of 40 digits",
        b"Content-Length: 1111111111111111111111111111111111111111",
        Some(AmbiguousFraming),
    ),
    ("Content_Length", b"Content_Length: 5", Some(AmbiguousFraming)),
    ("Content.Length", b"Content.Length: 5", Some(AmbiguousFraming)),
    ("Transfer_Encoding", b"Transfer_Encoding: chunked", Some(AmbiguousFraming)),
    ("gzip, chunked", b"Transfer-Encoding: gzip, chunked", Some(AmbiguousFraming)),
    ("chunked, identity", b"Transfer-Encoding: chunked, identity", Some(AmbiguousFraming)),
    ("chunked, chunked", b"Transfer-Encoding: chunked, chunked", Some(AmbiguousFraming)),
    ("identity", b"Transfer-Encoding: identity", Some(AmbiguousFraming)),
    ("xchunked", b"Transfer-Encoding: xchunked", Some(AmbiguousFraming)),
    ("chunked with parameter", b"Transfer-Encoding: chunked;q=1", Some(AmbiguousFraming)),
    ("chunked in quotes", b"Transfer-Encoding: \"chunked\"", Some(AmbiguousFraming)),
    ("chunked with comma", b"Transfer-Encoding: chunked,", Some(AmbiguousFraming)),
    ("empty coding", b"Transfer-Encoding:", Some(AmbiguousFraming)),
    ("chunked after tab", b"Transfer-Encoding:\tchunked", Some(AmbiguousFraming)),
    ("chunked before space", b"Transfer-Encoding: chunked ", Some(AmbiguousFraming)),
    ("chunked after vertical tab", b"Transfer-Encoding: \x0bchunked", Some(IllegalHeader)),
    ("chunked folded", b"Transfer-Encoding:\r\n chunked", Some(AmbiguousFraming)),
    ("coding with space before colon", b"Transfer-Encoding : chunked", Some(IllegalHeader)),
    ("two codings", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", Some(AmbiguousFraming)),
    ("coding and length", b"Transfer-Encoding: chunked\r\nContent-Length: 0", Some(AmbiguousFraming)),
    ("length and coding", b"Content-Length: 0\r\nTransfer-Encoding: chunked", Some(AmbiguousFraming)),
];

/// Each as the value of the only `Host`.
pub(super) const HOSTS: &[Case] = &[
    ("name", b"api.example.com", None),
    ("name and port", b"api.example.com:8443", None),
    ("upper case", b"API.Example.COM", None),
    ("trailing dot", b"example.com.", None),
    ("underscore", b"my_service", None),
    ("IPv4", b"127.0.0.1:80", None),
    ("IPv6", b"[2001:db8::1]", None),
    ("IPv6 and port", b"[::1]:65535", None),
    ("empty", b"", Some(IllegalTarget)),
    ("user", b"u@a", Some(IllegalTarget)),
    ("path", b"a/b", Some(IllegalTarget)),
    ("query", b"a?b", Some(IllegalTarget)),
    ("fragment", b"a#b", Some(IllegalTarget)),
    ("list", b"a, b", Some(IllegalTarget)),
    ("space inside", b"a b", Some(IllegalTarget)),
    ("space behind", b"a ", Some(IllegalTarget)),
    ("tab before", b"\ta", Some(IllegalTarget)),
    ("backslash", b"a\\b", Some(IllegalTarget)),
    ("percent", b"a%2fb", Some(IllegalTarget)),
    ("IDN", b"\xc3\xa9.example", Some(IllegalTarget)),
    ("leading dot", b".a", Some(IllegalTarget)),
    ("empty label", b"a..b", Some(IllegalTarget)),
    ("empty port", b"a:", Some(IllegalTarget)),
    ("port 0", b"a:0", Some(IllegalTarget)),
    ("port too large", b"a:65536", Some(IllegalTarget)),
    ("port with sign", b"a:+80", Some(IllegalTarget)),
    ("port not a number", b"a:http", Some(IllegalTarget)),
    ("port of six digits", b"a:000080", Some(IllegalTarget)),
    ("two ports", b"a:80:80", Some(IllegalTarget)),
    ("port only", b":80", Some(IllegalTarget)),
    ("IPv6 without brackets", b"::1", Some(IllegalTarget)),
    ("IPv6 not closed", b"[::1", Some(IllegalTarget)),
    ("IPv6 with zone", b"[fe80::1%25eth0]", Some(IllegalTarget)),
    ("text behind IPv6", b"[::1]a", Some(IllegalTarget)),
    ("IPv4 in brackets", b"[127.0.0.1]", Some(IllegalTarget)),
    ("scheme", b"http://a", Some(IllegalTarget)),
];

/// Each as the body of a chunked POST.
pub(super) const CHUNKED: &[Case] = &[
    ("empty", b"0\r\n\r\n", None),
    ("one chunk", b"5\r\nhello\r\n0\r\n\r\n", None),
    ("two chunks", b"5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n", None),
    ("CRLF as data", b"2\r\n\r\n\r\n0\r\n\r\n", None),
    ("upper-case size", b"A\r\n0123456789\r\n0\r\n\r\n", None),
    ("lower-case size", b"a\r\n0123456789\r\n0\r\n\r\n", None),
    ("leading zeros", b"0000000000000005\r\nhello\r\n000\r\n\r\n", None),
    ("extension", b"5;a=b;c=\"d e\"\r\nhello\r\n0;z\r\n\r\n", None),
    ("trailer", b"0\r\nX-Checksum: 1\r\nX-Other: 2\r\n\r\n", None),
    ("no size", b"\r\nhello\r\n0\r\n\r\n", Some(AmbiguousFraming)),
    ("size not hexadecimal", b"g\r\nhello\r\n0\r\n\r\n", Some(AmbiguousFraming)),
    ("size with 0x", b"0x5\r\nhello\r\n0\r\n\r\n", Some(AmbiguousFraming)),
    ("size with plus", b"+5\r\nhello\r\n0\r\n\r\n", Some(AmbiguousFraming)),
    ("negative size", b"-5\r\nhello\r\n0\r\n\r\n", Some(AmbiguousFraming)),
    ("space before size", b" 5\r\nhello\r\n0\r\n\r\n", Some(AmbiguousFraming)),
    ("space behind size", b"5 \r\nhello\r\n0\r\n\r\n", Some(AmbiguousFraming)),
    ("tab behind size", b"5\t\r\nhello\r\n0\r\n\r\n", Some(AmbiguousFraming)),
    ("underscore in size", b"0_5\r\nhello\r\n0\r\n\r\n", Some(AmbiguousFraming)),
    ("comma behind size", b"5,5\r\nhello\r\n0\r\n\r\n", Some(AmbiguousFraming)),
    ("size of 17 digits", b"00000000000000005\r\nhello\r\n0\r\n\r\n", Some(AmbiguousFraming)),
    ("size of 2^63", b"8000000000000000\r\nhello\r\n0\r\n\r\n", Some(AmbiguousFraming)),
    ("size of 2^64 - 1", b"ffffffffffffffff\r\nhello\r\n0\r\n\r\n", Some(AmbiguousFraming)),
    ("LF behind size", b"5\nhello\r\n0\r\n\r\n", Some(AmbiguousFraming)),
    ("CR CR LF behind size", b"5\r\r\nhello\r\n0\r\n\r\n", Some(AmbiguousFraming)),
    ("CR in extension", b"5;a\rb\r\nhello\r\n0\r\n\r\n", Some(AmbiguousFraming)),
    ("LF in extension", b"5;a\nhello\r\n0\r\n\r\n", Some(AmbiguousFraming)),
    ("NUL in extension", b"5;a\0\r\nhello\r\n0\r\n\r\n", Some(AmbiguousFraming)),
    ("bytes outside ASCII in extension", b"5;\xe9\r\nhello\r\n0\r\n\r\n", Some(AmbiguousFraming)),
    ("chunk too long", b"5\r\nhello!\r\n0\r\n\r\n", Some(AmbiguousFraming)),
    ("chunk ends in LF", b"5\r\nhello\n0\r\n\r\n", Some(AmbiguousFraming)),
    ("chunk ends in CR", b"5\r\nhello\r0\r\n\r\n", Some(AmbiguousFraming)),
    ("chunk without end", b"5\r\nhello0\r\n\r\n", Some(AmbiguousFraming)),
    ("LF behind last chunk", b"0\n\n", Some(AmbiguousFraming)),
    ("LF for the blank line", b"0\r\n\n", Some(AmbiguousFraming)),
    ("LF behind trailer", b"0\r\nX: 1\n\r\n", Some(AmbiguousFraming)),
    ("CR in trailer", b"0\r\nX: 1\r2\r\n\r\n", Some(IllegalHeader)),
    ("trailer without colon", b"0\r\nGET / HTTP/1.1\r\n\r\n", Some(IllegalHeader)),
    ("trailer with space before colon", b"0\r\nX : 1\r\n\r\n", Some(IllegalHeader)),
    ("folded trailer", b"0\r\nX: 1\r\n 2\r\n\r\n", Some(IllegalHeader)),
    ("Content-Length as trailer", b"0\r\ncontent-length: 5\r\n\r\n", Some(IllegalHeader)),
    ("Transfer_Encoding as trailer", b"0\r\nTransfer_Encoding: chunked\r\n\r\n", Some(IllegalHeader)),
    ("Authorization as trailer", b"0\r\nAuthorization: Bearer x\r\n\r\n", Some(IllegalHeader)),
    ("Host as trailer", b"0\r\nHost: b\r\n\r\n", Some(IllegalHeader)),
];

/// Whole connections.
pub(super) const CONNECTIONS: &[Case] = &[
    ("nothing", b"", None),
    ("HTTP/1.0 without Host", b"GET / HTTP/1.0\r\n\r\n", None),
    ("length and body", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", None),
    ("HTTP/1.0 with length", b"POST / HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello", None),
    (
        "CHUNKED in upper case",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: CHUNKED\r\n\r\n0\r\n\r\n",
        None,
    ),
    ("HTTP/1.1 without Host", b"GET / HTTP/1.1\r\n\r\n", Some(IllegalTarget)),
    ("absolute target does not replace Host", b"GET http://a/ HTTP/1.1\r\n\r\n", Some(IllegalTarget)),
    ("coding in HTTP/1.0", b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", Some(AmbiguousFraming)),
    ("two Hosts in HTTP/1.0", b"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", Some(IllegalTarget)),
    ("leading CRLF", b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Some(MalformedRequest)),
    ("leading LF", b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Some(MalformedRequest)),
    ("LF throughout", b"GET / HTTP/1.1\nHost: a\n\n", Some(MalformedRequest)),
    ("LF for the blank line", b"GET / HTTP/1.1\r\nHost: a\r\n\n", Some(MalformedRequest)),
    ("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Some(MalformedRequest)),
    ("TLS that waits for an answer", b"\x16\x03\x01", Some(MalformedRequest)),
];

/// A table's cases as the bytes of a connection, with what may be released of those that are refused.
pub(super) fn all_cases() -> Vec<(String, Vec<u8>, Option<Reason>)> {
    let tables: [(&str, &[Case], &[u8], &[u8]); 5] = [
        ("request line", REQUEST_LINES, b"", b"\r\nHost: a\r\n\r\n"),
        ("header line", HEADER_LINES, b"GET / HTTP/1.1\r\nHost: a\r\n", b"\r\n\r\n"),
        ("host", HOSTS, b"GET / HTTP/1.1\r\nHost: ", b"\r\n\r\n"),
        ("chunked", CHUNKED, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", b""),
        ("connection", CONNECTIONS, b"", b""),
    ];
    let mut cases = Vec::new();
    for (table, rows, before, after) in tables {
        for &(name, bytes, reason) in rows {
            cases.push((format!("{table}: {name}"), [before, bytes, after].concat(), reason));
        }
    }
    cases
}

#[test]
fn each_input_gets_its_verdict() {
    let cases = all_cases();
    assert!(cases.len() >= 200);
    for (name, bytes, reason) in cases {
        let verdict = judge_whole(&bytes);
        assert_eq!(verdict.refused.map(|violation| violation.reason()), reason, "{name}: {verdict:?}");
        match reason {
            None => assert_eq!(verdict.released, bytes, "{name}"),
            Some(_) if !verdict.refused_in_body => {
                assert!(verdict.released.is_empty(), "{name}: {verdict:?}")
            }
            Some(_) => {
                assert!(verdict.heads == 1 && verdict.released.len() < bytes.len(), "{name}: {verdict:?}")
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
    assert_eq!(verdict.refused.map(|violation| violation.reason()), Some(AmbiguousPath));
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
        assert_eq!(verdict.refused.map(|violation| violation.reason()), reason, "{name}: {verdict:?}");
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
        assert_eq!(verdict.refused.map(|violation| violation.reason()), reason, "{name}: {verdict:?}");
    }
}
