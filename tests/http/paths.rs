//! Paths that two readers could read in two ways: refused (VAL-042), or forwarded to the byte.
//!
//! The first class of bypasses of 2026: GHSA-p224-6x5r-fjpm (Oathkeeper), CVE-2026-42274 (heimdall), CVE-2025-66490
//! and CVE-2026-48020 (Traefik), GHSA-7rh7-c77v-6434 (oauth2-proxy), CVE-2021-29492, CVE-2021-32779 and CVE-2019-9901
//! (Envoy), CVE-2021-31920, CVE-2021-39156 and CVE-2020-8595 (Istio), CVE-2026-33186 (gRPC-Go).

use crate::h2wire::{H2, get};
use crate::recorder::Recorder;
use crate::setup::{Gateway, api};

/// Public below `/public`, something else below `/admin`; whatever gets past the one must not be the other.
fn routes(allow: &str) -> String {
    format!(
        "routes:
  - {{ match: {{ path: '/public/**' }}, public: true, upstream: api, allow: [{allow}] }}
  - {{ match: {{ path: '/exact' }}, public: true, upstream: api }}
"
    )
}

/// Sends each path over both protocols; gives the verdict, which must be the same.
async fn verdict(gateway: &Gateway, path: &str) -> String {
    let h1 = gateway.get(path, "").await.verdict();
    let answer = H2::plain(gateway.plain).await.request(1, &get(path)).await.answer();
    assert_eq!(h1, answer.verdict(), "{path} over HTTP/1.1 and HTTP/2");
    h1
}

/// No opt-in lets these through.
const ALWAYS_REFUSED: &[&str] = &[
    // GHSA-p224-6x5r-fjpm, CVE-2019-9901, CVE-2021-31920, CVE-2026-48020
    "/public/../admin",
    "/public/..",
    "/public/./x",
    "/public/.",
    "/..",
    "/public/x/../../admin",
    // CVE-2026-42274, GHSA-gm3x-23wp-hc2c
    "/public/%2e%2e/admin",
    "/public/%2E%2e/admin",
    "/public/.%2e/admin",
    "/public/%2e./admin",
    "/public/%2e/x",
    "/%2e%2e/public",
    // dot segments behind an encoded slash, with parameters, with backslash
    "/public/..%2fadmin",
    "/public/%2e%2e%2fadmin",
    "/public/x%2f..%2f..%2fadmin",
    "/public/..;/admin",
    "/public/..;a=b/admin",
    "/public/%2e%2e;/admin",
    "/public/..%3b/admin",
    "/public/.;/x",
    "/public\\..\\admin",
    "/public/..\\admin",
    "/public\\x",
    "/public/%5cadmin",
    "/public/..%5cadmin",
    "/public%5C..%5Cadmin",
    // encoded twice
    "/public/%252e%252e/admin",
    "/public/%252fadmin",
    "/public/%25%32%65",
    "/public/%255c",
    // controls, NUL, overlong and broken UTF-8, halves of encodings
    "/public/%00",
    "/public/x%00.html",
    "/public/%0a",
    "/public/%0d%0aX:%20y",
    "/public/%09",
    "/public/%1b",
    "/public/%7f",
    "/public/%c2%85",
    "/public/%c0%ae%c0%ae/admin",
    "/public/%c0%af",
    "/public/%e0%80%af",
    "/public/%f0%80%80%af",
    "/public/%ed%a0%80",
    "/public/%ff",
    "/public/%c3",
    "/public/%",
    "/public/%2",
    "/public/%zz",
    "/public/%u002e%u002e/admin",
    "/public/%2e%2",
];

/// Refused without the opt-in of this name; with it, forwarded to the byte if the route is the same in all readings.
const BY_OPT_IN: &[(&str, &str)] = &[
    // CVE-2021-29492, CVE-2025-66490; GitLab and npm need it
    ("/public/a%2fb", "encoded_slash"),
    ("/public/a%2Fb", "encoded_slash"),
    ("/public/@scope%2fname", "encoded_slash"),
    // object stores need it
    ("/public//x", "double_slash"),
    ("/public/x//", "double_slash"),
    ("/public///x", "double_slash"),
    // matrix parameters
    ("/public/x;v=1", "path_parameters"),
    ("/public/x;v=1/y", "path_parameters"),
    ("/public/x%3bv=1", "path_parameters"),
];

/// Ambiguous in a way that changes the route: refused or without route whatever is allowed.
const NEVER_THE_PUBLIC_ROUTE: &[&str] = &[
    "//public/x",
    "/public;x/y",
    "/public%2fx",
    "/%2fpublic/x",
    "/PUBLIC/x",
    "/Public/x",
    "/public.",
    "/publicx",
    "/exact/",
    "/exact;x",
    "/exact//",
    "/exact%2f",
    "/Exact",
];

const FORWARDED: &[&str] = &[
    "/public",
    "/public/",
    "/public/x",
    "/public/x/",
    "/public/...",
    "/public/..x",
    "/public/x..",
    "/public/.x",
    "/public/x.y",
    "/public/a%20b",
    "/public/%41",
    "/public/%61%62",
    "/public/%E4%BD%A0",
    "/public/caf%c3%a9",
    "/public/100%25",
    "/public/a+b",
    "/public/~x",
    "/public/a:b@c!$&'()*,=",
    "/public/x?a=/../admin",
    "/public/x?a=%2e%2e%2f",
    "/public/x?a;b//c\\d",
    "/public/x?",
    "/public/x??",
    "/public/x?a=http://b/",
    // The encoding of the route's own name
    "/%70ublic/x",
    "/public/%7Bid%7D",
];

#[tokio::test]
async fn dangerous_spellings_are_refused_whatever_a_route_allows() {
    let recorder = Recorder::start().await;
    for allow in ["", "encoded_slash, double_slash, path_parameters"] {
        let gateway = Gateway::start(&format!("{}{}", api(&recorder), routes(allow))).await;
        for path in ALWAYS_REFUSED {
            assert_eq!(verdict(&gateway, path).await, "VAL-042 ambiguous_path", "{path}");
        }
    }
    recorder.assert_untouched("paths");
}

#[tokio::test]
async fn each_opt_in_lets_its_own_class_pass_to_the_byte_and_no_other() {
    for allow in ["", "encoded_slash", "double_slash", "path_parameters"] {
        let recorder = Recorder::start().await;
        let gateway = Gateway::start(&format!("{}{}", api(&recorder), routes(allow))).await;
        for (path, class) in BY_OPT_IN {
            recorder.forget();
            let verdict = verdict(&gateway, path).await;
            if *class == allow {
                assert_eq!(verdict, "200", "{path}");
                assert!(recorder.requests().iter().all(|request| request.target() == *path), "{path}");
                assert_eq!(recorder.requests().len(), 2);
            } else {
                assert_eq!(verdict, "VAL-042 ambiguous_path", "{path} with '{allow}'");
                recorder.assert_untouched(path);
            }
        }
    }
}

#[tokio::test]
async fn spellings_that_change_the_route_never_find_it() {
    let recorder = Recorder::start().await;
    for allow in ["", "encoded_slash, double_slash, path_parameters"] {
        let gateway = Gateway::start(&format!("{}{}", api(&recorder), routes(allow))).await;
        for path in NEVER_THE_PUBLIC_ROUTE {
            let verdict = verdict(&gateway, path).await;
            assert!(matches!(&*verdict, "VAL-042 ambiguous_path" | "VAL-040 no_route"), "{path}: {verdict}");
        }
    }
    recorder.assert_untouched("paths");
}

#[tokio::test]
async fn unambiguous_paths_are_forwarded_to_the_byte() {
    let recorder = Recorder::start().await;
    let gateway = Gateway::start(&format!("{}{}", api(&recorder), routes(""))).await;
    for path in FORWARDED {
        recorder.forget();
        assert_eq!(verdict(&gateway, path).await, "200", "{path}");
        for request in recorder.requests() {
            assert_eq!(request.target(), *path);
        }
    }
}

/// CVE-2021-32779, CVE-2021-39156, GHSA-pxq7-h93f-9jrg. Over HTTP/2 the fragment is cut off by the `http` crate before
/// anybody sees it; what is judged and what is forwarded are then the same.
#[tokio::test]
async fn a_fragment_is_refused_or_at_least_never_forwarded() {
    let recorder = Recorder::start().await;
    let gateway = Gateway::start(&format!("{}{}", api(&recorder), routes(""))).await;
    for path in ["/public/x#y", "/public#/../admin", "/public/x?a#b", "/admin#/public"] {
        assert_eq!(gateway.get(path, "").await.verdict(), "VAL-042 ambiguous_path", "{path}");
        recorder.assert_untouched(path);
        let _ = H2::plain(gateway.plain).await.request(1, &get(path)).await;
        assert!(recorder.requests().iter().all(|request| !request.target().contains('#')), "{path}");
        recorder.forget();
    }
}

/// Bytes outside ASCII do not belong into a target.
#[tokio::test]
async fn raw_bytes_beyond_ascii_are_refused() {
    let recorder = Recorder::start().await;
    let gateway = Gateway::start(&format!("{}{}", api(&recorder), routes(""))).await;
    for path in [&b"/public/\xc3\xa9"[..], b"/public/\xff", b"/public/\xc0\xae", b"/public/x?\xe9"] {
        let bytes = [b"GET ", path, b" HTTP/1.1\r\nHost: localhost\r\n\r\n"].concat();
        assert_eq!(gateway.exchange(bytes).await.verdict(), "VAL-042 illegal_target");
        let fields = [
            (&b":method"[..], &b"GET"[..]),
            (b":scheme", b"http"),
            (b":authority", b"localhost"),
            (b":path", path),
        ];
        assert!(H2::plain(gateway.plain).await.request(1, &fields).await.is_refusal());
    }
    recorder.assert_untouched("raw bytes");
}
