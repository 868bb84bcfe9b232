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
    /// The gateway ended the connection because its client certificate was not accepted any more.
    CertificateEnded,
    /// The gateway ended a stream because its token expired.
    TokenExpired,
    /// The gateway ended a response that was not complete within the upstream's total time-out.
    TimedOut,
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
        sink.word(name!("request_id"), self.request_id);
        sink.maybe_word(name!("trace_id"), self.trace_id);
        sink.text(name!("listener"), self.listener);
        sink.ip(name!("client_ip"), self.client);
        let port = Some(self.client.port()).filter(|port| *port != 0);
        sink.maybe_number(name!("client_port"), port.map(u64::from));
        sink.maybe_word(name!("protocol"), self.protocol.map(protocol_name));
        sink.maybe_bytes(name!("method"), self.method);
        sink.maybe_bytes(name!("host"), self.host);
        sink.maybe_bytes(name!("path"), self.path.map(without_query));
        sink.maybe(name!("route"), self.route);
        sink.maybe(name!("upstream"), self.upstream);
        sink.maybe(name!("endpoint"), self.endpoint);
        sink.maybe_number(name!("status"), self.status.map(|status| u64::from(status.as_u16())));
        sink.maybe_word(name!("code"), self.reason.map(Reason::code).map(Code::number));
        sink.maybe_word(name!("reason"), self.reason.map(Reason::name));
        sink.maybe_word(name!("shadow_code"), self.shadow.map(Reason::code).map(Code::number));
        sink.maybe_word(name!("shadow_reason"), self.shadow.map(Reason::name));
        sink.maybe(name!("detail"), self.detail);
        sink.maybe(name!("issuer"), self.issuer);
        sink.maybe(name!("sub"), self.sub);
        sink.maybe(name!("client_id"), self.client_id);
        sink.maybe(name!("jti"), self.jti);
        sink.maybe_word(name!("token"), self.token);
        sink.maybe(name!("kid"), self.kid);
        sink.maybe(name!("certificate"), self.certificate);
        sink.word(name!("auth"), self.auth.name());
        sink.number(name!("bytes_in"), self.bytes_in);
        sink.number(name!("bytes_out"), self.bytes_out);
        sink.number(name!("duration_us"), micros(self.duration));
        sink.maybe_number(name!("upstream_ttfb_us"), self.upstream_ttfb.map(micros));
        sink.word(name!("outcome"), self.outcome.name());
    }
}

impl Record<'_> {
    /// Gives the sink who asked for what and why not: a line of the audit log.
    pub(super) fn visit_audited(&self, reason: Reason, sink: &mut dyn Sink) {
        sink.word(name!("code"), reason.code().number());
        sink.word(name!("reason"), reason.name());
        sink.maybe(name!("detail"), self.detail);
        sink.word(name!("request_id"), self.request_id);
        sink.text(name!("listener"), self.listener);
        sink.ip(name!("client_ip"), self.client);
        sink.maybe_bytes(name!("method"), self.method);
        sink.maybe_bytes(name!("host"), self.host);
        sink.maybe_bytes(name!("path"), self.path.map(without_query));
        sink.maybe(name!("route"), self.route);
        sink.maybe_number(name!("status"), self.status.map(|status| u64::from(status.as_u16())));
        sink.maybe(name!("issuer"), self.issuer);
        sink.maybe(name!("sub"), self.sub);
        sink.maybe(name!("client_id"), self.client_id);
        sink.maybe(name!("jti"), self.jti);
        sink.maybe_word(name!("token"), self.token);
        sink.maybe(name!("kid"), self.kid);
        sink.maybe(name!("certificate"), self.certificate);
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
            Self::TimedOut => "timed_out",
            Self::TokenRevoked => "token_revoked",
            Self::CertificateEnded => "certificate_ended",
            Self::TokenExpired => "token_expired",
            Self::Idle => "idle",
        }
    }
}

/// A field's name as each format writes it in front of the value. Made by [`name!`]: names are constants and need no
/// escaping.
#[derive(Clone, Copy, Debug)]
pub(in crate::telemetry) struct Name {
    pub json: &'static str,
    pub text: &'static str,
}

/// A field's name.
macro_rules! name {
    ($name:literal) => {
        &$crate::telemetry::access_log::Name {
            json: concat!(",\"", $name, "\":"),
            text: concat!(" ", $name, "="),
        }
    };
}

pub(in crate::telemetry) use name;

/// What a format makes of a record's fields.
pub(in crate::telemetry) trait Sink {
    fn bytes(&mut self, name: &'static Name, value: &[u8]);
    fn number(&mut self, name: &'static Name, value: u64);
    fn ip(&mut self, name: &'static Name, client: SocketAddr);

    /// A value that cannot need quotes or escapes: letters, digits and what stands in names of protocols.
    fn word(&mut self, name: &'static Name, value: &str);

    fn text(&mut self, name: &'static Name, value: &str) {
        self.bytes(name, value.as_bytes());
    }

    fn maybe(&mut self, name: &'static Name, value: Option<&str>) {
        self.maybe_bytes(name, value.map(str::as_bytes));
    }

    fn maybe_word(&mut self, name: &'static Name, value: Option<&str>) {
        if let Some(value) = value {
            self.word(name, value);
        }
    }

    fn maybe_bytes(&mut self, name: &'static Name, value: Option<&[u8]>) {
        if let Some(value) = value {
            self.bytes(name, value);
        }
    }

    fn maybe_number(&mut self, name: &'static Name, value: Option<u64>) {
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
