//! The spans of one request: the request itself, the judging of its token where that took a signature, and the call of
//! the upstream. Attributes are those of OpenTelemetry's semantic conventions for HTTP; what is valgate's own begins
//! with `valgate.`.

use std::time::Duration;

use http::Version;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::span::{Event, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode as SpanStatus;
use opentelemetry_proto::tonic::trace::v1::{Span, Status};

use super::SpanPolicy;
use crate::telemetry::access_log::{Auth, Outcome, Record};
use crate::telemetry::trace::{SpanId, TraceContext};

/// A request that is over.
#[derive(Clone, Copy, Debug)]
pub struct Finished<'a> {
    /// What the access log is told.
    pub record: &'a Record<'a>,
    /// Its place in the trace.
    pub trace: &'a TraceContext,
    /// By which scheme the client asked.
    pub scheme: Scheme,
    /// The path that its route matches.
    pub template: Option<&'a str>,
    /// When its token was judged; `None` if it was not.
    pub judged: Option<Phase>,
    /// The token's claims, if it was accepted.
    pub claims: Option<&'a serde_json::Map<String, serde_json::Value>>,
    /// The id of the span of the judging.
    pub judging: SpanId,
    /// The call of the upstream, if there was one.
    pub call: Option<UpstreamCall<'a>>,
}

/// A part of a request.
#[derive(Clone, Copy, Debug)]
pub struct Phase {
    /// How long after the request it began.
    pub begun: Duration,
    /// How long it took.
    pub took: Duration,
}

/// `http` or `https`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Without TLS.
    Http,
    /// With TLS.
    Https,
}

/// A call of an upstream. It ends with the request.
#[derive(Clone, Copy, Debug)]
pub struct UpstreamCall<'a> {
    /// The upstream's name.
    pub name: &'a str,
    /// The endpoint's host, or the path of its socket.
    pub host: &'a str,
    /// The endpoint's port, if it has one.
    pub port: Option<u16>,
    /// By which scheme it was asked.
    pub scheme: Scheme,
    /// How long after the request it began.
    pub begun: Duration,
    /// From there to the first byte of the answer, if there was one.
    pub first_byte: Option<Duration>,
}

/// A path or host beyond this is cut: spans are held in memory.
const MAX_TEXT: usize = 1024;

/// The sampled flag, and that it is known whether the parent is remote (`SpanFlags` of OTLP).
const SAMPLED: u32 = 0x101;
/// The parent is remote.
const REMOTE_PARENT: u32 = 0x200;

/// Adds the spans of a request.
pub(super) fn spans(
    policy: &SpanPolicy,
    finished: &Finished<'_>,
    call: SpanId,
    trace_state: &str,
    spans: &mut Vec<Span>,
) {
    let times = Times { start: finished.record.time.saturating_sub(finished.record.duration) };
    let child = |id: SpanId, kind: SpanKind| Span {
        trace_id: finished.trace.trace_id_bytes().to_vec(),
        span_id: id.bytes().to_vec(),
        parent_span_id: finished.trace.span().bytes().to_vec(),
        trace_state: trace_state.to_owned(),
        flags: SAMPLED,
        kind: kind as i32,
        ..Span::default()
    };
    let mut server = child(finished.trace.span(), SpanKind::Server);
    server.parent_span_id = finished.trace.parent().map(|id| id.bytes().to_vec()).unwrap_or_default();
    server.flags |= if finished.trace.continued() { REMOTE_PARENT } else { 0 };
    server.start_time_unix_nano = times.at(Duration::ZERO);
    server.end_time_unix_nano = nanos(finished.record.time);
    describe_request(policy, finished, &mut server);
    spans.push(server);
    if finished.record.auth == Auth::Cold
        && let Some(Phase { begun, took }) = finished.judged
    {
        let mut judging = child(finished.judging, SpanKind::Internal);
        judging.start_time_unix_nano = times.at(begun);
        judging.end_time_unix_nano = times.at(begun + took);
        describe_judging(finished, &mut judging);
        spans.push(judging);
    }
    if let Some(upstream) = &finished.call {
        let mut client = child(call, SpanKind::Client);
        client.start_time_unix_nano = times.at(upstream.begun);
        client.end_time_unix_nano = nanos(finished.record.time);
        if let Some(first_byte) = upstream.first_byte {
            client.events.push(Event {
                time_unix_nano: times.at(upstream.begun + first_byte),
                name: "first_byte".to_owned(),
                ..Event::default()
            });
        }
        describe_call(policy, finished.record, upstream, &mut client);
        spans.push(client);
    }
}

fn describe_request(policy: &SpanPolicy, finished: &Finished<'_>, span: &mut Span) {
    let record = finished.record;
    let method = method(record.method.unwrap_or_default());
    span.name = match (method, finished.template) {
        (method, Some(template)) => format!("{} {template}", method.unwrap_or("HTTP")),
        (method, None) => method.unwrap_or("HTTP").to_owned(),
    };
    span.text("http.request.method", method.unwrap_or("_OTHER"));
    if let (None, Some(original)) = (method, record.method) {
        span.bytes("http.request.method_original", original);
    }
    span.text("url.scheme", finished.scheme.name());
    if let Some(path) = record.path.filter(|_| policy.url_path) {
        span.bytes("url.path", path);
    }
    if let Some(template) = finished.template {
        span.text("http.route", template);
    }
    if let Some(status) = record.status {
        span.number("http.response.status_code", u64::from(status.as_u16()));
    }
    if let Some(version) = record.protocol {
        span.text("network.protocol.version", version_text(version));
    }
    if let Some((host, port)) = record.host.map(host_and_port) {
        span.bytes("server.address", host);
        if let Some(port) = port {
            span.number("server.port", u64::from(port));
        }
    }
    if policy.client_address {
        span.text("client.address", &record.client.ip().to_canonical().to_string());
    }
    span.number("http.request.body.size", record.bytes_in);
    span.number("http.response.body.size", record.bytes_out);
    span.text("valgate.request_id", record.request_id);
    span.text("valgate.auth", auth_text(record.auth));
    for (name, value) in [
        ("valgate.route", record.route),
        ("valgate.issuer", record.issuer),
        ("valgate.reason", record.reason.map(crate::catalogue::Reason::name)),
        ("valgate.shadow_reason", record.shadow.map(crate::catalogue::Reason::name)),
    ] {
        if let Some(value) = value {
            span.text(name, value);
        }
    }
    for claim in &policy.claims {
        let value = finished.claims.and_then(|claims| claims.get(claim));
        if let Some(value) = value.and_then(crate::token::scalar_text) {
            span.text(&format!("valgate.claim.{claim}"), &value);
        }
    }
    let failed = record.status.is_some_and(|status| status.is_server_error());
    if let Some(reason) = record.reason {
        span.text("error.type", reason.code().number());
    } else if let Some(status) = record.status.filter(|_| failed) {
        span.text("error.type", status.as_str());
    }
    // What the client did wrong is no error of the server (semantic conventions for HTTP spans, "Status").
    if failed || matches!(record.outcome, Outcome::UpstreamAborted | Outcome::TimedOut) {
        span.fail();
    }
}

/// A token that was accepted may still not do this, which is no failure of the judging.
fn describe_judging(finished: &Finished<'_>, span: &mut Span) {
    let record = finished.record;
    "authenticate".clone_into(&mut span.name);
    if let Some(issuer) = record.issuer {
        span.text("valgate.issuer", issuer);
    }
    if let (None, Some(reason)) = (finished.claims, record.reason.or(record.shadow)) {
        span.text("error.type", reason.code().number());
        span.text("valgate.reason", reason.name());
    }
}

fn describe_call(policy: &SpanPolicy, record: &Record<'_>, call: &UpstreamCall<'_>, span: &mut Span) {
    let method = method(record.method.unwrap_or_default());
    method.unwrap_or("HTTP").clone_into(&mut span.name);
    span.text("http.request.method", method.unwrap_or("_OTHER"));
    span.text("server.address", call.host);
    if let Some(port) = call.port {
        span.number("server.port", u64::from(port));
    }
    if let (true, Some(path), Some(port)) = (policy.url_path, record.path, call.port) {
        let path = String::from_utf8_lossy(path);
        let host = if call.host.contains(':') { format!("[{}]", call.host) } else { call.host.to_owned() };
        span.text("url.full", &format!("{}://{host}:{port}{path}", call.scheme.name()));
    }
    span.text("valgate.upstream", call.name);
    let answered = call.first_byte.is_some();
    match (record.status, record.reason) {
        (Some(status), reason)
            if answered && !matches!(record.outcome, Outcome::UpstreamAborted | Outcome::TimedOut) =>
        {
            if let Some(reason) = reason.filter(|reason| reason.code().status() == status) {
                span.text("error.type", reason.name());
                span.fail();
            } else {
                span.number("http.response.status_code", u64::from(status.as_u16()));
                // To who asks, unlike to who answers, both kinds of status are errors.
                if status.is_client_error() || status.is_server_error() {
                    span.text("error.type", status.as_str());
                    span.fail();
                }
            }
        }
        (_, Some(reason)) => {
            span.text("error.type", reason.name());
            span.fail();
        }
        (_, None) => {}
    }
}

/// When things happened, by the wall clock at the request's end.
struct Times {
    start: Duration,
}

impl Times {
    fn at(&self, since_start: Duration) -> u64 {
        nanos(self.start + since_start)
    }
}

fn nanos(since_1970: Duration) -> u64 {
    u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX)
}

impl Scheme {
    fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// The methods that the conventions know; the others must not become names of spans.
fn method(name: &[u8]) -> Option<&'static str> {
    const KNOWN: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
    KNOWN.into_iter().find(|known| known.as_bytes() == name)
}

fn version_text(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "0.9",
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        Version::HTTP_3 => "3",
        _ => "1.1",
    }
}

fn auth_text(auth: Auth) -> &'static str {
    match auth {
        Auth::None => "none",
        Auth::Warm => "warm",
        Auth::Cold => "cold",
    }
}

/// Host and port of a `Host` header; an IPv6 address without its brackets.
fn host_and_port(host: &[u8]) -> (&[u8], Option<u16>) {
    let colon = host.iter().rposition(|byte| *byte == b':');
    let split = colon.and_then(|colon| host.split_at_checked(colon));
    let (name, port) = match split {
        Some((name, port)) if !name.contains(&b':') || name.ends_with(b"]") => {
            (name, std::str::from_utf8(port).ok().and_then(|port| port.get(1..)?.parse().ok()))
        }
        _ => (host, None),
    };
    let bare = name.strip_prefix(b"[").and_then(|name| name.strip_suffix(b"]"));
    (bare.unwrap_or(name), port)
}

/// What spans are filled by.
trait Describe {
    fn attribute(&mut self, name: &str, value: Value);
    fn fail(&mut self);

    fn text(&mut self, name: &str, value: &str) {
        let mut end = value.len().min(MAX_TEXT);
        while !value.is_char_boundary(end) {
            end -= 1;
        }
        self.attribute(name, Value::StringValue(value.get(..end).unwrap_or_default().to_owned()));
    }

    fn bytes(&mut self, name: &str, value: &[u8]) {
        self.text(name, &String::from_utf8_lossy(value));
    }

    fn number(&mut self, name: &str, value: u64) {
        self.attribute(name, Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX)));
    }
}

impl Describe for Span {
    fn attribute(&mut self, name: &str, value: Value) {
        let value = Some(AnyValue { value: Some(value) });
        self.attributes.push(KeyValue { key: name.to_owned(), value, ..KeyValue::default() });
    }

    fn fail(&mut self) {
        self.status = Some(Status { code: SpanStatus::Error as i32, ..Status::default() });
    }
}

#[cfg(test)]
mod tests {
    use super::{host_and_port, method};

    #[test]
    fn a_host_is_told_from_its_port() {
        for (text, host, port) in [
            ("api.example.com", "api.example.com", None),
            ("api.example.com:8443", "api.example.com", Some(8443)),
            ("192.0.2.1:80", "192.0.2.1", Some(80)),
            ("[2001:db8::1]:443", "2001:db8::1", Some(443)),
            ("[2001:db8::1]", "2001:db8::1", None),
            ("api.example.com:", "api.example.com", None),
            ("", "", None),
        ] {
            assert_eq!(host_and_port(text.as_bytes()), (host.as_bytes(), port), "{text}");
        }
    }

    #[test]
    fn no_client_makes_names_of_spans() {
        assert_eq!(method(b"PATCH"), Some("PATCH"));
        assert_eq!(method(b"patch"), None);
        assert_eq!(method(b"BREW"), None);
    }
}
