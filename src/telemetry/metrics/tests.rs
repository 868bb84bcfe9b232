//! The page is read back as a scraper reads it; nothing is compared that a refactoring may change.

#![allow(clippy::float_cmp, clippy::cast_precision_loss, reason = "counts this small are exact")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::StatusCode;
use proptest::prelude::*;

use super::labels::Names;
use super::*;
use crate::catalogue::Reason;
use crate::telemetry::access_log::Auth;

const MS: Duration = Duration::from_millis(1);

#[test]
fn requests_are_counted_by_outcome() {
    let metrics = Metrics::new();
    let core = metrics.core();
    let orders = metrics.route("orders");
    core.request(Some(orders), None, Some(StatusCode::OK), MS);
    core.request(Some(orders), None, Some(StatusCode::CREATED), MS);
    core.request(Some(orders), None, Some(StatusCode::from_u16(999).unwrap()), MS);
    core.request(Some(orders), None, None, MS);
    core.request(Some(orders), Some(Reason::Expired), Some(StatusCode::UNAUTHORIZED), MS);
    core.request(Some(orders), Some(Reason::UpstreamReset), Some(StatusCode::OK), MS);
    core.request(None, Some(Reason::AmbiguousFraming), None, MS);

    let page = Page::of(&metrics);
    let requests = |route, code, reason, status| {
        page.value(
            "valgate_requests_total",
            &[("route", route), ("code", code), ("reason", reason), ("status", status)],
        )
    };
    assert_eq!(requests("orders", "none", "none", "2xx"), Some(2.0));
    assert_eq!(requests("orders", "none", "none", "none"), Some(2.0));
    assert_eq!(requests("orders", "VAL-020", "expired", "4xx"), Some(1.0));
    assert_eq!(requests("orders", "VAL-060", "reset", "5xx"), Some(1.0), "whatever had been sent before");
    assert_eq!(requests("none", "VAL-042", "ambiguous_framing", "4xx"), Some(1.0));
    assert_eq!(requests("orders", "VAL-020", "revoked", "4xx"), None, "no series before it happens");
}

#[test]
fn every_reason_has_its_own_series() {
    let metrics = Metrics::new();
    let core = metrics.core();
    for reason in Reason::ALL {
        core.request(None, Some(*reason), None, MS);
    }
    let page = Page::of(&metrics);
    for reason in Reason::ALL {
        let found = page.family("valgate_requests_total").filter(|(labels, value)| {
            labels["reason"] == reason.name() && labels["code"] == reason.code().number() && **value == 1.0
        });
        assert_eq!(found.count(), 1, "{}", reason.name());
    }
}

#[test]
fn durations_fall_into_their_buckets() {
    let metrics = Metrics::new();
    let core = metrics.core();
    let upstream = metrics.upstream("orders");
    for duration in [
        Duration::ZERO,
        Duration::from_micros(500),
        Duration::from_micros(501),
        Duration::from_secs(10),
        Duration::from_secs(11),
    ] {
        core.upstream_answered(upstream, duration);
    }
    let page = Page::of(&metrics);
    let bucket =
        |le| page.value("valgate_upstream_duration_seconds_bucket", &[("upstream", "orders"), ("le", le)]);
    assert_eq!(bucket("0.0005"), Some(2.0));
    assert_eq!(bucket("0.001"), Some(3.0));
    assert_eq!(bucket("5.0"), Some(3.0));
    assert_eq!(bucket("10.0"), Some(4.0));
    assert_eq!(bucket("+Inf"), Some(5.0));
    let of_orders = [("upstream", "orders")];
    assert_eq!(page.value("valgate_upstream_duration_seconds_count", &of_orders), Some(5.0));
    assert_eq!(page.value("valgate_upstream_duration_seconds_sum", &of_orders), Some(21.001_001));
}

#[test]
fn connections_are_counted_where_they_are() {
    let metrics = Metrics::new();
    let core = metrics.core();
    let listener = metrics.listener("0.0.0.0:8443");
    let mut first = core.connection(listener);
    let second = core.connection(listener);
    first.becomes(Protocol::Http2, ConnectionState::Active);
    let open = |protocol, state| {
        let labels = [("listener", "0.0.0.0:8443"), ("protocol", protocol), ("state", state)];
        Page::of(&metrics).value("valgate_connections", &labels)
    };
    assert_eq!(open("http/2", "active"), Some(1.0));
    assert_eq!(open("unknown", "handshake"), Some(1.0));
    drop((first, second));
    assert_eq!(open("http/2", "active"), Some(0.0));
    assert_eq!(open("unknown", "handshake"), Some(0.0));
    let accepted =
        Page::of(&metrics).value("valgate_connections_accepted_total", &[("listener", "0.0.0.0:8443")]);
    assert_eq!(accepted, Some(2.0));
}

#[test]
fn the_rest_of_a_core_is_counted() {
    let metrics = Metrics::new();
    let cores = [metrics.core(), metrics.core()];
    let issuer = metrics.issuer("main");
    for core in &cores {
        core.bytes(3, 5);
        core.verdict_cache_entries(7);
        core.tls_handshake(TlsResult::ClientCertificate, Duration::ZERO);
        core.protocol_error(ProtocolError::Http2);
        core.authenticated(Some(issuer), Auth::Warm, Duration::from_micros(3));
        core.authenticated(Some(issuer), Auth::Cold, Duration::from_micros(3));
        core.authenticated(None, Auth::None, Duration::from_micros(3));
    }
    let page = Page::of(&metrics);
    for (name, labels, expected) in [
        ("valgate_bytes_total", &[("direction", "in")][..], 6.0),
        ("valgate_bytes_total", &[("direction", "out")], 10.0),
        ("valgate_verdict_cache_entries", &[], 14.0),
        ("valgate_verdict_cache_hits_total", &[], 2.0),
        ("valgate_verdict_cache_misses_total", &[], 2.0),
        ("valgate_tls_handshakes_total", &[("result", "client_certificate")], 2.0),
        ("valgate_tls_handshakes_total", &[("result", "ok")], 0.0),
        ("valgate_protocol_errors_total", &[("kind", "http2")], 2.0),
        ("valgate_auth_total", &[("issuer", "main"), ("cache", "warm")], 2.0),
        ("valgate_auth_total", &[("issuer", "none"), ("cache", "none")], 2.0),
        ("valgate_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1.0),
    ] {
        assert_eq!(page.value(name, labels), Some(expected), "{name} {labels:?}");
    }
}

#[test]
fn no_increment_is_lost_across_cores() {
    const CORES: u64 = 4;
    const EACH: u64 = 5_000;
    let metrics = Metrics::new();
    let start = Barrier::new(5);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..CORES)
            .map(|_| {
                let core = metrics.core();
                let route = metrics.route("orders");
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    for _ in 0..EACH {
                        core.request(Some(route), None, Some(StatusCode::OK), MS);
                        core.request(Some(route), Some(Reason::Revoked), None, MS);
                        core.bytes(1, 2);
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            start.wait();
            let mut last = 0.0;
            while !done.load(Ordering::Relaxed) {
                let page = Page::of(&metrics);
                let count = page.value("valgate_request_duration_seconds_count", &[("route", "orders")]);
                assert!(count.unwrap() >= last, "a counter went backwards");
                last = count.unwrap();
            }
        });
        for worker in workers {
            worker.join().unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    let page = Page::of(&metrics);
    let total = |name| page.family(name).map(|(_, value)| *value).sum::<f64>();
    assert_eq!(total("valgate_requests_total"), (2 * CORES * EACH) as f64);
    assert_eq!(total("valgate_request_duration_seconds_count"), (2 * CORES * EACH) as f64);
    assert_eq!(total("valgate_bytes_total"), (3 * CORES * EACH) as f64, "of cores that have ended, too");
}

#[test]
fn a_route_of_the_same_name_goes_on_counting_after_a_reload() {
    let metrics = Metrics::new();
    let core = metrics.core();
    let before = [metrics.route("a"), metrics.route("b")];
    core.request(Some(before[0]), None, Some(StatusCode::OK), MS);
    core.request(Some(before[1]), None, Some(StatusCode::OK), MS);

    let after = [metrics.route("b"), metrics.route("c")];
    core.request(Some(after[0]), None, Some(StatusCode::OK), MS);
    core.request(Some(after[1]), None, Some(StatusCode::OK), MS);
    core.request(Some(before[0]), None, Some(StatusCode::OK), MS);

    let page = Page::of(&metrics);
    for (route, expected) in [("a", 2.0), ("b", 2.0), ("c", 1.0)] {
        let count = page.value("valgate_request_duration_seconds_count", &[("route", route)]);
        assert_eq!(count, Some(expected), "{route}");
    }
}

#[test]
fn a_configured_name_may_be_a_reserved_one() {
    let metrics = Metrics::new();
    let core = metrics.core();
    let none = metrics.route("none");
    core.request(Some(none), None, Some(StatusCode::OK), MS);
    core.request(None, None, Some(StatusCode::OK), MS);
    // The parser refuses a series that stands twice.
    let count = Page::of(&metrics).value("valgate_request_duration_seconds_count", &[("route", "none")]);
    assert_eq!(count, Some(2.0));
}

#[test]
fn names_beyond_the_bound_share_a_series() {
    let metrics = Metrics::new();
    let core = metrics.core();
    for number in 0..Names::MAX + 10 {
        core.authenticated(
            Some(metrics.issuer(&format!("issuer-{number}"))),
            Auth::Warm,
            Duration::from_micros(3),
        );
    }
    let page = Page::of(&metrics);
    // All names but 'none', for which nothing was counted.
    assert_eq!(page.family("valgate_auth_total").count(), Names::MAX - 1);
    let other = page.value("valgate_auth_total", &[("issuer", "other"), ("cache", "warm")]);
    assert_eq!(other, Some(12.0));
}

#[test]
fn readings_are_read_at_each_scrape_until_taken_out() {
    let metrics = Metrics::new();
    let count = Arc::new(std::sync::atomic::AtomicU64::new(1));
    let seen = Arc::clone(&count);
    let counter = metrics.register_counter("keys_fetches", "Fetches.", &[("issuer", "main")], move || {
        seen.load(Ordering::Relaxed)
    });
    let main = metrics.register_gauge("keys_age_seconds", "Age.", &[("issuer", "main")], || 1.5);
    let second = metrics.register_gauge("keys_age_seconds", "Age.", &[("issuer", "second")], || f64::NAN);

    let page = Page::of(&metrics);
    assert_eq!(page.value("valgate_keys_fetches_total", &[("issuer", "main")]), Some(1.0));
    assert_eq!(page.value("valgate_keys_age_seconds", &[("issuer", "main")]), Some(1.5));
    assert_eq!(page.value("valgate_keys_age_seconds", &[("issuer", "second")]), None, "unknown");

    count.store(9, Ordering::Relaxed);
    let replaced = metrics.register_gauge("keys_age_seconds", "Age.", &[("issuer", "main")], || 2.5);
    drop(main);
    let page = Page::of(&metrics);
    assert_eq!(page.value("valgate_keys_fetches_total", &[("issuer", "main")]), Some(9.0));
    assert_eq!(page.value("valgate_keys_age_seconds", &[("issuer", "main")]), Some(2.5));

    drop((counter, replaced, second));
    assert!(!metrics.render().unwrap().contains("keys_"));
}

proptest! {
    #[test]
    fn no_name_breaks_the_page(name in "\\PC{0,20}|[\\s\"\\\\{},=]{0,20}") {
        let metrics = Metrics::new();
        metrics.core().request(Some(metrics.route(&name)), None, Some(StatusCode::OK), MS);
        let count = Page::of(&metrics).value("valgate_request_duration_seconds_count", &[("route", &name)]);
        prop_assert_eq!(count, Some(1.0));
    }
}

#[test]
fn every_family_and_label_value_is_documented() {
    let documentation = include_str!("../../../docs/observability.md");
    let metrics = Metrics::new();
    let core = metrics.core();
    let mut connection = core.connection(metrics.listener("l"));
    connection.becomes(Protocol::Http1, ConnectionState::Idle);
    core.upstream_answered(metrics.upstream("u"), MS);
    core.request(Some(metrics.route("r")), None, Some(StatusCode::OK), MS);
    core.authenticated(Some(metrics.issuer("i")), Auth::Warm, Duration::from_micros(3));
    for (name, labels) in Page::of(&metrics).0.keys() {
        let family =
            ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        assert!(documentation.contains(&format!("`{family}`")), "{family} is not documented");
        for (key, value) in labels.iter().filter(|(key, _)| *key != "le") {
            assert!(documentation.contains(&format!("`{key}`")), "label {key} is not documented");
            let configured = matches!(key.as_str(), "route" | "upstream" | "issuer" | "listener" | "version");
            assert!(
                configured || documentation.contains(&format!("`{value}`")),
                "{key}={value} is not documented"
            );
        }
    }
}

type Labels = BTreeMap<String, String>;

/// A page of the text format, read strictly.
struct Page(BTreeMap<(String, Labels), f64>);

impl Page {
    fn of(metrics: &Metrics) -> Self {
        let text = metrics.render().unwrap();
        let body = text.strip_suffix("# EOF\n").expect("the end is marked");
        let mut samples = BTreeMap::new();
        let mut families = BTreeSet::new();
        for line in body.split_terminator('\n') {
            if let Some(meta) = line.strip_prefix("# TYPE ") {
                assert!(families.insert(meta.to_owned()), "a family stands twice: {line}");
            } else if !line.starts_with("# HELP ") {
                let (series, value) = Self::sample(line);
                assert!(samples.insert(series, value).is_none(), "a series stands twice: {line}");
            }
        }
        Self(samples)
    }

    fn sample(line: &str) -> ((String, Labels), f64) {
        let name_end = line.find(['{', ' ']).unwrap();
        let (name, mut rest) = line.split_at(name_end);
        let mut labels = Labels::new();
        if let Some(inside) = rest.strip_prefix('{') {
            rest = inside;
            while !rest.starts_with('}') {
                let (key, value) = rest.split_once("=\"").unwrap();
                let (value, after) = Self::quoted(value);
                assert!(labels.insert(key.to_owned(), value).is_none(), "{line}");
                rest = after.strip_prefix(',').unwrap_or(after);
            }
            rest = &rest[1..];
        }
        let value = rest.strip_prefix(' ').unwrap().parse().unwrap();
        ((name.to_owned(), labels), value)
    }

    /// The value up to its closing quote, and what follows that.
    fn quoted(text: &str) -> (String, &str) {
        let mut value = String::new();
        let mut chars = text.char_indices();
        loop {
            match chars.next().unwrap() {
                (at, '"') => return (value, &text[at + 1..]),
                (_, '\\') => match chars.next().unwrap().1 {
                    'n' => value.push('\n'),
                    escaped => value.push(escaped),
                },
                (_, plain) => value.push(plain),
            }
        }
    }

    fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        self.0.get(&(name.to_owned(), labels)).copied()
    }

    fn family(&self, name: &str) -> impl Iterator<Item = (&Labels, &f64)> {
        self.0.iter().filter(move |((n, _), _)| n == name).map(|((_, labels), value)| (labels, value))
    }
}
