//! What one line says: its fields, their names and their order, the same in both formats.
//!
//! Field names are public contract: `docs/observability.md` lists them. Tokens have no field, on purpose.

use std::net::SocketAddr;
use std::time::Duration;

use http::{StatusCode, Version};

use crate::catalogue::{Code, Reason};

/// The facts of one finished request, borrowed from wherever they live. A field that is `None` is left out.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    /// When the request ended: time since 1970, from [`crate::clock::Clock::timestamp`].
    pub time: Duration,
    /// The id that the response carries too.
    pub request_id: &'a str,
    /// The W3C trace id.
    pub trace_id: Option<&'a str>,
    /// The listener that took the connection, by its address in the configuration.
    pub listener: &'a str,
    /// The other end: the peer, or the address that a trusted proxy vouched for, with port 0 if it told none.
    pub client: SocketAddr,
    /// The protocol; `None` if the bytes were not HTTP.
    pub protocol: Option<Version>,
    /// The method, as received.
    pub method: Option<&'a [u8]>,
    /// The host, as received.
    pub host: Option<&'a [u8]>,
    /// The path, as received. A query would be cut off: queries carry secrets.
    pub path: Option<&'a [u8]>,
    /// The route's name; `None` if none matched.
    pub route: Option<&'a str>,
    /// The upstream's name; `None` if the request got none.
    pub upstream: Option<&'a str>,
    /// The endpoint that was tried last, as `host:port`.
    pub endpoint: Option<&'a str>,
    /// The status that was sent; `None` if nothing could be.
    pub status: Option<StatusCode>,
    /// Why it was refused or failed; gives the fields `code` and `reason`.
    pub reason: Option<Reason>,
    /// What it would have been refused for, had its route been enforced; gives `shadow_code` and `shadow_reason`.
    pub shadow: Option<Reason>,
    /// The operator's part of the rejection ([`crate::rejection::Rejection::log_text`]).
    pub detail: Option<&'a str>,
    /// The issuer's name in the configuration.
    pub issuer: Option<&'a str>,
    /// The subject (claim `sub`).
    pub sub: Option<&'a str>,
    /// The client (claim `client_id` or `azp`).
    pub client_id: Option<&'a str>,
    /// The token's id (claim `jti`): what an operator needs in order to revoke it.
    pub jti: Option<&'a str>,
    /// The token's fingerprint; never the token.
    pub token: Option<&'a str>,
    /// The id of the key that signed the token.
    pub kid: Option<&'a str>,
    /// Whom the client certificate speaks for: its first alternative name (URI, DNS, email), or its subject.
    pub certificate: Option<&'a str>,
    /// How the token was judged.
    pub auth: Auth,
    /// Bytes of body from the client.
    pub bytes_in: u64,
    /// Bytes of body to the client.
    pub bytes_out: u64,
    /// From the first byte of the request to the last of the response.
    pub duration: Duration,
    /// From the forwarded request to the first byte of the upstream's answer.
    pub upstream_ttfb: Option<Duration>,
    /// How the exchange ended.
    pub outcome: Outcome,
}

/// How the token of a request was judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Auth {
    /// Not at all: a public route, or refused before.
    #[default]
    None,
    /// From the verdict cache.
    Warm,
    /// By its signature.
    Cold,
}

/// How an exchange ended, seen from the client's side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outcome {
    /// The whole response was sent, refusals included.
    #[default]
    Completed,
    /// The client went away first.
    ClientClosed,
    /// The upstream broke off in the middle of its response.
    UpstreamAborted,
    /// The gateway ended a stream because its token was revoked.
    TokenRevoked,
    /// The gateway ended a stream because its token expired.
    TokenExpired,
    /// The gateway ended a WebSocket on which nothing passed for too long.
    Idle,
}

impl<'a> Record<'a> {
    /// A record with what every request has; the rest is to be filled in.
    pub fn new(time: Duration, request_id: &'a str, listener: &'a str, client: SocketAddr) -> Self {
        Self {
            time,
            request_id,
            trace_id: None,
            listener,
            client,
            protocol: None,
            method: None,
            host: None,
            path: None,
            route: None,
            upstream: None,
            endpoint: None,
            status: None,
            reason: None,
            shadow: None,
            detail: None,
            issuer: None,
            sub: None,
            client_id: None,
            jti: None,
            token: None,
            kid: None,
            certificate: None,
            auth: Auth::None,
            bytes_in: 0,
            bytes_out: 0,
            duration: Duration::ZERO,
            upstream_ttfb: None,
            outcome: Outcome::Completed,
        }
    }

    /// Gives the sink every field but the time, in the order of a line.
    pub(super) fn visit(&self, sink: &mut impl Sink) {
        sink.text("request_id", self.request_id);
        sink.maybe("trace_id", self.trace_id);
        sink.text("listener", self.listener);
        sink.ip("client_ip", self.client);
        let port = Some(self.client.port()).filter(|port| *port != 0);
        sink.maybe_number("client_port", port.map(u64::from));
        sink.maybe("protocol", self.protocol.map(protocol_name));
        sink.maybe_bytes("method", self.method);
        sink.maybe_bytes("host", self.host);
        sink.maybe_bytes("path", self.path.map(without_query));
        sink.maybe("route", self.route);
        sink.maybe("upstream", self.upstream);
        sink.maybe("endpoint", self.endpoint);
        sink.maybe_number("status", self.status.map(|status| u64::from(status.as_u16())));
        sink.maybe("code", self.reason.map(Reason::code).map(Code::number));
        sink.maybe("reason", self.reason.map(Reason::name));
        sink.maybe("shadow_code", self.shadow.map(Reason::code).map(Code::number));
        sink.maybe("shadow_reason", self.shadow.map(Reason::name));
        sink.maybe("detail", self.detail);
        sink.maybe("issuer", self.issuer);
        sink.maybe("sub", self.sub);
        sink.maybe("client_id", self.client_id);
        sink.maybe("jti", self.jti);
        sink.maybe("token", self.token);
        sink.maybe("kid", self.kid);
        sink.maybe("certificate", self.certificate);
        sink.text("auth", self.auth.name());
        sink.number("bytes_in", self.bytes_in);
        sink.number("bytes_out", self.bytes_out);
        sink.number("duration_us", micros(self.duration));
        sink.maybe_number("upstream_ttfb_us", self.upstream_ttfb.map(micros));
        sink.text("outcome", self.outcome.name());
    }
}

impl Record<'_> {
    /// Gives the sink who asked for what and why not: a line of the audit log.
    pub(super) fn visit_audited(&self, reason: Reason, sink: &mut dyn Sink) {
        sink.text("code", reason.code().number());
        sink.text("reason", reason.name());
        sink.maybe("detail", self.detail);
        sink.text("request_id", self.request_id);
        sink.text("listener", self.listener);
        sink.ip("client_ip", self.client);
        sink.maybe_bytes("method", self.method);
        sink.maybe_bytes("host", self.host);
        sink.maybe_bytes("path", self.path.map(without_query));
        sink.maybe("route", self.route);
        sink.maybe_number("status", self.status.map(|status| u64::from(status.as_u16())));
        sink.maybe("issuer", self.issuer);
        sink.maybe("sub", self.sub);
        sink.maybe("client_id", self.client_id);
        sink.maybe("jti", self.jti);
        sink.maybe("token", self.token);
        sink.maybe("kid", self.kid);
        sink.maybe("certificate", self.certificate);
    }
}

impl Auth {
    /// As in log lines and metric labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Warm => "warm",
            Self::Cold => "cold",
        }
    }
}

impl Outcome {
    /// As in log lines.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::ClientClosed => "client_closed",
            Self::UpstreamAborted => "upstream_aborted",
            Self::TokenRevoked => "token_revoked",
            Self::TokenExpired => "token_expired",
            Self::Idle => "idle",
        }
    }
}

/// What a format makes of a record's fields. Names are constants of this module and need no escaping.
pub(in crate::telemetry) trait Sink {
    fn bytes(&mut self, name: &str, value: &[u8]);
    fn number(&mut self, name: &str, value: u64);
    fn ip(&mut self, name: &str, client: SocketAddr);

    fn text(&mut self, name: &str, value: &str) {
        self.bytes(name, value.as_bytes());
    }

    fn maybe(&mut self, name: &str, value: Option<&str>) {
        self.maybe_bytes(name, value.map(str::as_bytes));
    }

    fn maybe_bytes(&mut self, name: &str, value: Option<&[u8]>) {
        if let Some(value) = value {
            self.bytes(name, value);
        }
    }

    fn maybe_number(&mut self, name: &str, value: Option<u64>) {
        if let Some(value) = value {
            self.number(name, value);
        }
    }
}

/// As the protocol names itself.
fn protocol_name(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_11 => "HTTP/1.1",
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_3 => "HTTP/3",
        _ => "other",
    }
}

/// The callers cut queries off already; a secret in a log would be too bad a price for trusting them.
fn without_query(path: &[u8]) -> &[u8] {
    path.split(|byte| matches!(byte, b'?' | b'#')).next().unwrap_or_default()
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
