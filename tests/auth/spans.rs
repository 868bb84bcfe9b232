//! Spans, as a collector that others wrote reads them; and what comes of collectors that fail.

use std::collections::BTreeMap;

use crate::support::engines::Engine;
use crate::support::{Answer, ISSUER, Signer, Stub, TestGateway, Token, eventually, now, refused};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

fn yaml(signer: &Signer, tracing: &str) -> String {
    format!(
        "
{tracing}
issuers:
  - {{ name: main, issuer: {ISSUER}, keys: {{ inline: {} }}, audiences: [orders-api] }}
routes:
  - {{ name: orders, match: {{ path: /orders/** }}, require: {{ issuers: [main] }}, upstream: api }}
",
        signer.jwks()
    )
}

fn tracing(endpoint: &str, more: &str) -> String {
    format!("tracing: {{ endpoint: \"{endpoint}\", {more} }}")
}

/// A span as the collector has it: its head and its attributes.
type Span = BTreeMap<String, String>;

fn spans(collector: &Engine) -> Vec<Span> {
    let log = collector.log();
    let span = |block: &str| {
        let lines = block.lines().map(|line| line.trim().trim_start_matches("-> "));
        let pairs = lines.filter_map(|line| line.split_once(':'));
        let bare = |text: &str| {
            let text = text.trim();
            let inner = text.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
            inner.unwrap_or(text).to_owned()
        };
        let mut span = Span::new();
        for (name, value) in pairs {
            // What follows the attributes may have attributes of its own.
            span.entry(name.trim().to_owned()).or_insert_with(|| bare(value));
        }
        span
    };
    log.split("Span #").skip(1).map(span).collect()
}

async fn delivered(collector: &Engine, count: usize) -> Vec<Span> {
    eventually("the spans are delivered", || async { spans(collector).len() >= count }).await;
    spans(collector)
}

fn only<'s>(spans: &'s [Span], kind: &str, trace: &str) -> &'s Span {
    let fits = |span: &&Span| span["Kind"] == kind && span["Trace ID"] == trace;
    let found: Vec<&Span> = spans.iter().filter(fits).collect();
    assert_eq!(found.len(), 1, "{kind}: {spans:#?}");
    found[0]
}

/// The `traceparent` that the API got with the one request to this path.
fn told(gateway: &TestGateway, path: &str) -> String {
    let received = gateway.received(path);
    assert_eq!(received.len(), 1, "{path}");
    received[0].headers["traceparent"].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_collector_gets_the_spans_of_a_request() {
    let (collector, signer) = (Engine::collector().await, Signer::es256("k1"));
    let endpoint = format!("http://{}/v1/traces", collector.address());
    let settings = "sample: 100%, service_name: edge, claims: [tenant, absent]";
    let gateway = TestGateway::start(&yaml(&signer, &tracing(&endpoint, settings))).await;
    let token = Token::new().claim("sub", "alice").claim("tenant", "acme").sign(&signer);

    assert_eq!(gateway.get("/orders/7?secret=1", &token, &[]).await.status, 200);
    let told = told(&gateway, "/orders/7");
    let trace = told.split('-').nth(1).unwrap();
    let all = delivered(&collector, 3).await;
    let server = only(&all, "SPAN_KIND_SERVER", trace);
    for (name, value) in [
        ("Name", "GET /orders/**"),
        ("Parent ID", ""),
        ("http.request.method", "GET"),
        ("http.route", "/orders/**"),
        ("http.response.status_code", "200"),
        ("url.path", "/orders/7"),
        ("url.scheme", "http"),
        ("network.protocol.version", "1.1"),
        ("client.address", "127.0.0.1"),
        ("valgate.auth", "cold"),
        ("valgate.issuer", "main"),
        ("valgate.claim.tenant", "acme"),
    ] {
        assert_eq!(server.get(name).map(String::as_str), Some(value), "{name} of {server:#?}");
    }
    let judging = only(&all, "SPAN_KIND_INTERNAL", trace);
    assert_eq!((&judging["Name"], &judging["Parent ID"]), (&"authenticate".to_owned(), &server["ID"]));
    let call = only(&all, "SPAN_KIND_CLIENT", trace);
    assert_eq!(call["Parent ID"], server["ID"]);
    assert_eq!(
        (&call["valgate.upstream"], &call["http.response.status_code"]),
        (&"api".to_owned(), &"200".to_owned())
    );
    assert_eq!(told, format!("00-{trace}-{}-01", call["ID"]), "the API's parent is the span of the call");

    assert_eq!(gateway.get("/orders/8", &token, &[]).await.status, 200);
    let expired = Token::new().claim("sub", "alice").claim("exp", now() - 600).sign(&signer);
    let parent = format!("00-{TRACE}-{CALLER}-01");
    let answer = gateway.get("/orders/9", &expired, &[("traceparent", &parent)]).await;
    refused(&answer, "VAL-020", "expired");
    let all = delivered(&collector, 7).await;
    let warm = all.iter().find(|span| span.get("url.path").is_some_and(|path| path == "/orders/8")).unwrap();
    assert_eq!(warm["valgate.auth"], "warm");
    let server = only(&all, "SPAN_KIND_SERVER", TRACE);
    assert_eq!(
        (&server["error.type"], &server["valgate.reason"]),
        (&"VAL-020".to_owned(), &"expired".to_owned())
    );
    assert_eq!(server["Parent ID"], CALLER);
    assert_eq!(only(&all, "SPAN_KIND_INTERNAL", TRACE)["error.type"], "VAL-020");
    assert_eq!(all.len(), 7, "a verdict from the cache has no span, nor a call that was not made: {all:#?}");
    let log = collector.log();
    assert!(log.contains("service.name: Str(edge)") && log.contains("service.instance.id"), "{log}");
    for secret in [token.as_str(), &expired, "secret=1", "alice"] {
        assert!(!log.contains(secret), "{secret}");
    }
    assert_eq!(gateway.metric("valgate_spans_delivered_total").await, 7);
}

#[tokio::test]
async fn what_is_not_recorded_is_told_truly() {
    let (collector, signer) = (Stub::start().await, Signer::es256("k1"));
    collector.set("/v1/traces", Answer::body("application/x-protobuf", ""));
    let endpoint = collector.url("/v1/traces");
    let token = Token::new().sign(&signer);
    let mut gateway = TestGateway::start(&yaml(&signer, &tracing(&endpoint, "sample: 0%"))).await;
    let (sampled, unsampled) = (format!("00-{TRACE}-{CALLER}-01"), format!("00-{TRACE}-{CALLER}-00"));
    gateway.get("/orders/begun", &token, &[]).await;
    gateway.get("/orders/unsampled", &token, &[("traceparent", &unsampled), ("tracestate", "a=1")]).await;
    assert!(told(&gateway, "/orders/begun").ends_with("-00"));
    assert_eq!(told(&gateway, "/orders/unsampled"), unsampled, "there is no span of ours");
    assert_eq!(gateway.received("/orders/unsampled")[0].headers["tracestate"], "a=1");

    let own_way = yaml(&signer, &tracing(&endpoint, "sample: 0%, follow_callers: false"));
    assert_eq!(gateway.reload(&own_way).await.unwrap(), ["tracing.follow_callers (added)"]);
    gateway.get("/orders/sampled", &token, &[("traceparent", &sampled)]).await;
    let told = told(&gateway, "/orders/sampled");
    assert!(told.starts_with(&format!("00-{TRACE}-")) && told.ends_with("-00"), "{told}");
    assert!(!told.contains(CALLER), "{told}");

    gateway.reload(&yaml(&signer, "")).await.unwrap();
    gateway.get("/orders/off", &token, &[("traceparent", &sampled)]).await;
    assert_eq!(self::told(&gateway, "/orders/off"), sampled);
    gateway.stop().await;
    assert_eq!(collector.hits("/v1/traces"), 0);
}

#[tokio::test]
async fn a_collector_is_asked_again_if_that_may_help() {
    let (collector, signer) = (Stub::start().await, Signer::es256("k1"));
    let busy = vec![("Retry-After".to_owned(), "0".to_owned())];
    collector.set("/v1/traces", Answer::Status(429, busy, Vec::new()));
    let settings = "sample: 100%, headers: { X-Key: s3cret-key }";
    let gateway = TestGateway::start(&yaml(&signer, &tracing(&collector.url("/v1/traces"), settings))).await;
    let token = Token::new().sign(&signer);
    assert_eq!(gateway.get("/orders/1", &token, &[]).await.status, 200);
    eventually("it gives up", || async {
        gateway.metric("valgate_spans_dropped_total{reason=\"unreachable\"}").await == 3
    })
    .await;
    let asked = collector.asked("/v1/traces");
    assert_eq!(asked.len(), 6);
    for line in ["content-type: application/x-protobuf", "x-key: s3cret-key"] {
        assert!(asked[0].head.to_ascii_lowercase().contains(line), "{}", asked[0].head);
    }

    // ExportTraceServiceResponse { partial_success: { rejected_spans: 1, error_message: "no" } }
    let partly = [0x0a, 6, 0x08, 1, 0x12, 2, b'n', b'o'];
    collector.set("/v1/traces", Answer::body("application/x-protobuf", partly));
    assert_eq!(gateway.get("/orders/2", &token, &[]).await.status, 200);
    eventually("it is taken in part", || async {
        gateway.metric("valgate_spans_dropped_total{reason=\"rejected\"}").await == 1
    })
    .await;
    assert_eq!(gateway.metric("valgate_spans_delivered_total").await, 1);

    collector.set("/v1/traces", Answer::error(400));
    assert_eq!(gateway.get("/orders/3", &token, &[]).await.status, 200);
    eventually("it is refused", || async {
        gateway.metric("valgate_spans_dropped_total{reason=\"refused\"}").await == 2
    })
    .await;
    assert_eq!(collector.hits("/v1/traces"), 8, "who refuses is not asked again");
}

#[tokio::test]
async fn a_collector_that_hangs_holds_nobody_up() {
    let (collector, signer) = (Stub::start().await, Signer::es256("k1"));
    collector.set("/v1/traces", Answer::Hang);
    let settings = "sample: 100%, queue: 512, timeout: 5m";
    let gateway = TestGateway::start(&yaml(&signer, &tracing(&collector.url("/v1/traces"), settings))).await;
    let token = Token::new().sign(&signer);
    let mut connection = gateway.connect().await;
    let request = format!("GET /orders/1 HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n");
    let dropped = async || gateway.metric("valgate_spans_dropped_total{reason=\"queue_full\"}").await;
    let mut requests = 0;
    while dropped().await == 0 {
        for _ in 0..50 {
            requests += 1;
            connection.write(&request).await;
            assert_eq!(connection.reply().await.unwrap().status, 200);
        }
        assert!(requests < 100_000, "the queue never fills");
    }
    gateway.stop().await;
}
