//! Which route a request gets: host first, then the most specific path, then the method; deny by default.

use crate::h2wire::{H2, Outcome};
use crate::recorder::Recorder;
use crate::setup::Gateway;
use crate::wire::{Answer, refused};

/// One backend for each route, told apart by what they answer.
struct Backends {
    named: Vec<(&'static str, Recorder)>,
}

impl Backends {
    async fn start(names: &[&'static str]) -> Self {
        let mut all = Vec::new();
        for name in names {
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len());
            all.push((
                *name,
                Recorder::scripted(move |mut conn| {
                    let answer = answer.clone();
                    async move {
                        while let Some(request) = conn.request().await {
                            let end = if request.line.starts_with("HEAD") {
                                answer.find("\r\n\r\n").unwrap() + 4
                            } else {
                                answer.len()
                            };
                            conn.send(&answer.as_bytes()[..end]).await;
                        }
                    }
                })
                .await,
            ));
        }
        Self { named: all }
    }

    fn upstreams(&self) -> String {
        let list: Vec<String> = self
            .named
            .iter()
            .map(|(name, recorder)| format!("{{ name: {name}, endpoints: ['{}'] }}", recorder.url()))
            .collect();
        format!("upstreams: [{}]\n", list.join(", "))
    }

    fn received(&self) -> usize {
        self.named.iter().map(|(_, recorder)| recorder.requests().len()).sum()
    }
}

fn text(answer: &Answer) -> String {
    String::from_utf8_lossy(&answer.body).into_owned()
}

#[tokio::test]
async fn the_most_specific_route_wins_and_a_method_never_falls_through() {
    let backends = Backends::start(&["any", "orders", "write", "item", "exact"]).await;
    let routes = "routes:
  - { match: { path: '/**' }, public: true, upstream: any }
  - { match: { path: '/orders/**', methods: [GET] }, public: true, upstream: orders }
  - { match: { path: '/orders/**', methods: [POST, PUT] }, public: true, upstream: write }
  - { match: { path: '/orders/*/items' }, public: true, upstream: item }
  - { match: { path: '/orders/exact', methods: [GET] }, public: true, upstream: exact }
";
    let gateway = Gateway::start(&format!("{}{routes}", backends.upstreams())).await;
    for (method, path, name) in [
        ("GET", "/", "any"),
        ("DELETE", "/other", "any"),
        ("GET", "/ordersx", "any"),
        ("GET", "/Orders/7", "any"),
        ("GET", "/orders", "orders"),
        ("GET", "/orders/", "orders"),
        ("GET", "/orders/7", "orders"),
        ("GET", "/orders/7/8/9", "orders"),
        ("POST", "/orders", "write"),
        ("PUT", "/orders/7", "write"),
        ("DELETE", "/orders/7/items", "item"),
        ("GET", "/orders/exact", "exact"),
        ("GET", "/orders/exact/x", "orders"),
        ("GET", "/orders/%65xact", "exact"),
    ] {
        let answer = gateway.exchange(format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
        assert_eq!((answer.status, &*text(&answer)), (200, name), "{method} {path}");
    }
    let before = backends.received();
    for (method, path, allow) in [
        ("DELETE", "/orders/7", "GET, HEAD, POST, PUT"),
        ("OPTIONS", "/orders/7", "GET, HEAD, POST, PUT"),
        ("get", "/orders/7", "GET, HEAD, POST, PUT"),
        // Neither the wider /orders/** nor /** takes over.
        ("POST", "/orders/exact", "GET, HEAD"),
    ] {
        let answer = gateway.exchange(format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
        refused(&answer, 405, "VAL-041", "method_not_allowed");
        assert_eq!(answer.header("allow"), Some(allow), "{method} {path}");
    }
    assert_eq!(backends.received(), before);
}

#[tokio::test]
async fn head_follows_get_and_has_no_body() {
    let backends = Backends::start(&["read"]).await;
    let routes = "routes: [{ match: { path: /a, methods: [GET] }, public: true, upstream: read }]\n";
    let gateway = Gateway::start(&format!("{}{routes}", backends.upstreams())).await;
    let mut wire = gateway.wire().await;
    wire.send("HEAD /a HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let answer = wire.answer_to("HEAD").await.unwrap();
    assert_eq!((answer.status, answer.header("content-length")), (200, Some("4")));
    // The connection goes on: there was no body.
    wire.send("GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(text(&wire.answer().await.unwrap()), "read");
    // A refusal of HEAD has none either.
    wire.send("HEAD /b HTTP/1.1\r\nHost: localhost\r\n\r\nGET /a HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(wire.answer_to("HEAD").await.unwrap().status, 404);
    assert_eq!(text(&wire.answer().await.unwrap()), "read");
}

#[tokio::test]
async fn what_no_route_matches_is_refused() {
    let recorder = Recorder::start().await;
    let routes = "routes: [{ match: { path: /a }, public: true, upstream: api }]\n";
    let gateway = Gateway::start(&format!("{}{routes}", crate::setup::api(&recorder))).await;
    for path in ["/", "/b", "/a/", "/a/b", "/A", "/aa"] {
        refused(&gateway.get(path, "").await, 404, "VAL-040", "no_route");
    }
    refused(
        &gateway.exchange("OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n").await,
        404,
        "VAL-040",
        "no_route",
    );
    recorder.assert_untouched("no route");
}

/// CVE-2021-39155: the case of a host must not matter, nor must a port.
#[tokio::test]
async fn hosts_match_whatever_their_case_and_port() {
    let backends = Backends::start(&["a", "below", "any"]).await;
    let routes = "routes:
  - { match: { host: a.test, path: '/**' }, public: true, upstream: a }
  - { match: { host: '*.b.test', path: '/**' }, public: true, upstream: below }
  - { match: { path: /open }, public: true, upstream: any }
";
    let gateway = Gateway::start(&format!("{}{routes}", backends.upstreams())).await;
    for (host, path, name) in [
        ("a.test", "/", "a"),
        ("A.TEST", "/", "a"),
        ("a.test:8443", "/", "a"),
        ("A.Test:1", "/open", "a"),
        ("x.b.test", "/", "below"),
        ("X.y.B.test:1", "/", "below"),
        ("other.test", "/open", "any"),
        ("b.test", "/open", "any"),
    ] {
        let answer = gateway.exchange(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!((answer.status, &*text(&answer)), (200, name), "{host}{path}");
    }
    for host in ["b.test", "xb.test", "a.test.evil", "evil-a.test", "127.0.0.1"] {
        let answer = gateway.exchange(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        refused(&answer, 404, "VAL-040", "no_route");
    }
}

/// `a.test.` with a dot at the end is the same host in DNS: it must not be another in the rules.
#[tokio::test]
async fn a_dot_at_the_end_of_a_host_does_not_walk_around_its_routes() {
    let backends = Backends::start(&["guarded", "open"]).await;
    let routes = "routes:
  - { match: { host: a.test, path: '/**', methods: [GET] }, public: true, upstream: guarded }
  - { match: { path: '/**' }, public: true, upstream: open }
";
    let gateway = Gateway::start(&format!("{}{routes}", backends.upstreams())).await;
    for host in ["a.test.", "A.test.:80"] {
        let answer = gateway.exchange(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert!(answer.status >= 400 || text(&answer) == "guarded", "{host}: {answer:?}");
    }
}

/// A connection made for one host must not reach the rules of another (RFC 9110 section 15.5.20).
#[tokio::test]
async fn a_request_for_another_host_than_the_connection_was_made_for_is_misdirected() {
    let backends = Backends::start(&["a", "b"]).await;
    let routes = "routes:
  - { match: { host: a.test, path: '/**' }, public: true, upstream: a }
  - { match: { host: b.test, path: '/**' }, public: true, upstream: b }
";
    let gateway = Gateway::start(&format!("{}{routes}", backends.upstreams())).await;
    let ca = &crate::setup::CERTIFICATES.ca;
    let mut wire = crate::wire::Wire::tls(gateway.tls, ca, "a.test", b"http/1.1").await;
    wire.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    assert_eq!(text(&wire.answer().await.unwrap()), "a");
    wire.send("GET / HTTP/1.1\r\nHost: b.test\r\n\r\n").await;
    refused(&wire.answer().await.unwrap(), 421, "VAL-046", "sni_mismatch");
    let mut h2 = H2::tls_to(gateway.tls, "a.test").await;
    let fields = |host| [(":method", "GET"), (":scheme", "https"), (":authority", host), (":path", "/")];
    assert!(
        matches!(h2.request(1, &fields("b.test")).await, Outcome::Answer(answer) if answer.status == 421)
    );
    assert_eq!(text(&h2.request(3, &fields("a.test")).await.answer()), "a");
    assert_eq!(backends.named[1].1.requests().len(), 0);
}
