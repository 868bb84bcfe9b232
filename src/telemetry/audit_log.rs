//! The security audit log: who was refused where and why, and what changed of that which decides it.
//!
//! One JSON object for each event, in an output of its own. So many lines of a kind are written in a second and no
//! more, so that an attack fills no disk; how many were left out is a line too. Written as the access log is: batches
//! over a bounded queue, never a wait. Knows nothing of requests beyond their [`Record`]s.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::access_log::{AccessLog, CoreLog, Outcome, Record, name};
use super::patterns::Pattern;
use crate::catalogue::{Code, Reason};
use crate::clock::{Clock, Monotonic};

/// The log of the process.
#[derive(Debug)]
pub struct AuditLog {
    lines: AccessLog,
    lines_per_second: u32,
    left_out: Arc<AtomicU64>,
}

/// A reading of the lines that were left out so far because there were too many of a kind.
#[derive(Clone, Debug)]
pub struct LeftOutLines(Arc<AtomicU64>);

/// One core's part: what becomes of requests.
#[derive(Debug)]
pub struct CoreAudit {
    log: CoreLog,
    bounds: Bounds<{ Reason::ALL.len() }>,
}

/// The control runtime's part: what changes. Clones share it; off if there is no audit log.
#[derive(Clone, Debug)]
pub struct Journal(Option<Arc<Control>>);

#[derive(Debug)]
struct Control {
    clock: Clock,
    /// Never held across a wait: a line is formatted into a buffer.
    part: Mutex<(CoreLog, Bounds<{ Event::KINDS.len() }>)>,
}

/// What changed, or was tried.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// The gateway began to serve.
    Started {
        /// Its version.
        version: &'a str,
    },
    /// The gateway stopped.
    Stopped,
    /// Another configuration is in force.
    ConfigurationChanged {
        /// Its number, from 1.
        generation: u64,
        /// The paths of the fields that changed.
        changes: &'a [String],
    },
    /// A configuration could not be put in force.
    ConfigurationRefused {
        /// Why.
        why: &'a str,
    },
    /// Keys of an issuer came or went.
    KeysChanged {
        /// The issuer's name.
        issuer: &'a str,
        /// Ids of keys that came.
        added: &'a [String],
        /// Ids of keys that went.
        removed: &'a [String],
    },
    /// Revocations came into force, or went out of it.
    RevocationsChanged {
        /// The feed's name.
        feed: &'a str,
        /// How many hold or held until a moment ago.
        entries: u64,
        /// How many there were before.
        before: u64,
    },
    /// Somebody had the admin listener revoke, or take back.
    RevocationsOrdered {
        /// The feed's name.
        feed: &'a str,
        /// How many entries revoke.
        revoked: u64,
        /// How many take back.
        lifted: u64,
        /// Of which kinds they are.
        kinds: &'a str,
        /// What they are about.
        values: &'a str,
        /// Who asked.
        caller: &'a Caller,
    },
    /// The admin listener was asked for something.
    AdminCalled {
        /// The method.
        method: &'a str,
        /// The path.
        path: &'a str,
        /// What it answered.
        status: u16,
        /// Who asked.
        caller: &'a Caller,
    },
    /// Somebody's conduct is suspicious.
    SuspiciousConduct {
        /// In what way.
        pattern: Pattern,
        /// A client's address, the subject that tokens claim, or a token's fingerprint.
        whose: &'a str,
        /// How often, or how many.
        count: u64,
    },
}

/// Who asked the admin listener, as far as that shows.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    /// The other end of the connection; none on a Unix socket.
    pub client: Option<SocketAddr>,
    /// The user at the other end of a Unix socket.
    pub uid: Option<u32>,
    /// The process there.
    pub pid: Option<u64>,
    /// Whom the client certificate speaks for.
    pub certificate: Option<String>,
    /// It showed the token of the configuration.
    pub has_token: bool,
}

/// How many lines of each kind there were in this second.
#[derive(Debug)]
struct Bounds<const N: usize> {
    most: u32,
    second: u64,
    written: [u32; N],
    left_out: [u64; N],
    any_left_out: bool,
    total: Arc<AtomicU64>,
}

impl AuditLog {
    /// A log on these lines; so many of a kind in a second, all cores together.
    pub fn new(lines: AccessLog, lines_per_second: u32) -> Self {
        Self { lines, lines_per_second, left_out: Arc::default() }
    }

    /// The part of one of so many cores.
    pub fn per_core(&self, cores: usize) -> CoreAudit {
        let cores = u32::try_from(cores).unwrap_or(u32::MAX).max(1);
        let most = self.lines_per_second.div_ceil(cores);
        CoreAudit { log: self.lines.per_core(), bounds: Bounds::new(most, &self.left_out) }
    }

    /// The part of the control runtime.
    pub fn journal(&self, clock: Clock) -> Journal {
        let bounds = Bounds::new(self.lines_per_second, &self.left_out);
        Journal(Some(Arc::new(Control { clock, part: Mutex::new((self.lines.per_core(), bounds)) })))
    }

    /// The lines themselves.
    pub fn lines(&self) -> &AccessLog {
        &self.lines
    }

    /// What was left out, for metrics.
    pub fn left_out(&self) -> LeftOutLines {
        LeftOutLines(Arc::clone(&self.left_out))
    }

    /// Writes what was handed over, and ends. The journals and the cores' parts must have flushed before.
    pub fn into_lines(self) -> AccessLog {
        self.lines
    }
}

impl LeftOutLines {
    /// The number since the start of the process.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl CoreAudit {
    /// Writes down a request that was refused for what it is or whose it is, that should have been, or whose response
    /// ended with its token or certificate. Other failures are none of the audit's business.
    pub fn request(&mut self, record: &Record<'_>, now: Monotonic) {
        let ended = matches!(
            record.outcome,
            Outcome::TokenRevoked | Outcome::TokenExpired | Outcome::CertificateEnded
        );
        let (event, reason) = match (record.reason, record.shadow) {
            (Some(reason), _) if ended => ("stream_ended", reason),
            (Some(reason), _) if concerns_security(reason.code()) => ("request_refused", reason),
            (None, Some(reason)) => ("request_overlooked", reason),
            _ => return,
        };
        if self.bounds.admit(reason as usize, now) {
            self.log.write_audited(event, reason, record);
        }
    }

    /// Says how many lines were left out in seconds that are over, and hands over what has waited long enough. Its owner
    /// calls it at least every 100 ms.
    pub fn keep_house(&mut self, clock: &Clock) {
        self.settle(clock, false);
        self.log.flush_if_due(clock.monotonic());
    }

    /// Says how many lines were left out, in the open second too, and hands over everything: the end.
    pub fn finish(&mut self, clock: &Clock) {
        self.settle(clock, true);
        self.log.flush();
    }

    fn settle(&mut self, clock: &Clock, is_end: bool) {
        let log = &mut self.log;
        let tell = |kind: usize, lines| {
            let reason = Reason::ALL.get(kind).map_or("none", |reason| reason.name());
            log.write_event(clock.timestamp(), "lines_left_out", |sink| {
                sink.text(name!("reason"), reason);
                sink.number(name!("lines"), lines);
            });
        };
        self.bounds.settle(clock.monotonic(), is_end, tell);
    }
}

impl Journal {
    /// A journal that writes nothing.
    pub fn off() -> Self {
        Self(None)
    }

    /// Writes an event down.
    pub fn note(&self, event: Event<'_>) {
        let Some(control) = &self.0 else { return };
        let mut part = control.part.lock().unwrap_or_else(PoisonError::into_inner);
        let (log, bounds) = &mut *part;
        if bounds.admit(event.kind(), control.clock.monotonic()) {
            log.write_event(control.clock.timestamp(), event.name(), |sink| event.visit(sink));
        }
    }

    /// Says how many lines were left out in seconds that are over, and hands over what there is.
    pub fn keep_house(&self) {
        self.settle(false);
    }

    /// Says how many lines were left out, in the open second too, and hands over what there is: the end.
    pub fn finish(&self) {
        self.settle(true);
    }

    fn settle(&self, is_end: bool) {
        let Some(control) = &self.0 else { return };
        let mut part = control.part.lock().unwrap_or_else(PoisonError::into_inner);
        let (log, bounds) = &mut *part;
        let (now, time) = (control.clock.monotonic(), control.clock.timestamp());
        bounds.settle(now, is_end, |kind, lines| {
            let of = Event::KINDS.get(kind).copied().unwrap_or("none");
            log.write_event(time, "lines_left_out", |sink| {
                sink.text(name!("of"), of);
                sink.number(name!("lines"), lines);
            });
        });
        log.flush();
    }
}

impl Event<'_> {
    /// As the field `event` has them.
    const KINDS: [&'static str; 9] = [
        "started",
        "stopped",
        "configuration_changed",
        "configuration_refused",
        "keys_changed",
        "revocations_changed",
        "revocations_ordered",
        "admin_called",
        "suspicious_conduct",
    ];

    fn kind(&self) -> usize {
        match self {
            Self::Started { .. } => 0,
            Self::Stopped => 1,
            Self::ConfigurationChanged { .. } => 2,
            Self::ConfigurationRefused { .. } => 3,
            Self::KeysChanged { .. } => 4,
            Self::RevocationsChanged { .. } => 5,
            Self::RevocationsOrdered { .. } => 6,
            Self::AdminCalled { .. } => 7,
            Self::SuspiciousConduct { .. } => 8,
        }
    }

    fn name(&self) -> &'static str {
        Self::KINDS.get(self.kind()).copied().unwrap_or_default()
    }

    fn visit(&self, sink: &mut dyn super::access_log::Sink) {
        match self {
            Self::Started { version } => sink.text(name!("version"), version),
            Self::Stopped => {}
            Self::ConfigurationChanged { generation, changes } => {
                sink.number(name!("generation"), *generation);
                sink.text(name!("changes"), &changes.join(", "));
            }
            Self::ConfigurationRefused { why } => sink.text(name!("why"), why),
            Self::KeysChanged { issuer, added, removed } => {
                sink.text(name!("issuer"), issuer);
                sink.text(name!("added"), &added.join(", "));
                sink.text(name!("removed"), &removed.join(", "));
            }
            Self::RevocationsChanged { feed, entries, before } => {
                sink.text(name!("feed"), feed);
                sink.number(name!("entries"), *entries);
                sink.number(name!("before"), *before);
            }
            Self::RevocationsOrdered { feed, revoked, lifted, kinds, values, caller } => {
                sink.text(name!("feed"), feed);
                sink.number(name!("revoked"), *revoked);
                sink.number(name!("lifted"), *lifted);
                sink.text(name!("kinds"), kinds);
                sink.text(name!("values"), values);
                caller.visit(sink);
            }
            Self::AdminCalled { method, path, status, caller } => {
                sink.text(name!("method"), method);
                sink.text(name!("path"), path);
                sink.number(name!("status"), u64::from(*status));
                caller.visit(sink);
            }
            Self::SuspiciousConduct { pattern, whose, count } => {
                sink.text(name!("pattern"), pattern.name());
                let field = match pattern {
                    Pattern::FailuresByClient => name!("client_ip"),
                    Pattern::FailuresBySubject => name!("claimed_sub"),
                    Pattern::TokenFromManyClients | Pattern::UseAfterRevocation => name!("token"),
                };
                sink.text(field, whose);
                sink.number(name!("count"), *count);
            }
        }
    }
}

impl Caller {
    fn visit(&self, sink: &mut dyn super::access_log::Sink) {
        if let Some(client) = self.client {
            sink.text(name!("client_ip"), &client.ip().to_canonical().to_string());
        }
        if let Some(uid) = self.uid {
            sink.number(name!("uid"), u64::from(uid));
        }
        if let Some(pid) = self.pid {
            sink.number(name!("pid"), pid);
        }
        if let Some(certificate) = &self.certificate {
            sink.text(name!("certificate"), certificate);
        }
        if self.has_token {
            sink.text(name!("credential"), "admin.token");
        }
    }
}

impl<const N: usize> Bounds<N> {
    fn new(most: u32, total: &Arc<AtomicU64>) -> Self {
        let total = Arc::clone(total);
        Self { most, second: 0, written: [0; N], left_out: [0; N], any_left_out: false, total }
    }

    /// Whether one more line of this kind may be written now.
    fn admit(&mut self, kind: usize, now: Monotonic) -> bool {
        if self.second != now.0.as_secs() {
            self.second = now.0.as_secs();
            self.written = [0; N];
        }
        let (Some(written), Some(left_out)) = (self.written.get_mut(kind), self.left_out.get_mut(kind))
        else {
            return false;
        };
        if *written < self.most {
            *written += 1;
            return true;
        }
        *left_out += 1;
        self.any_left_out = true;
        false
    }

    /// Tells of each kind of which lines were left out, if the second is over in which they were, or nothing comes after
    /// it.
    fn settle(&mut self, now: Monotonic, is_end: bool, mut tell: impl FnMut(usize, u64)) {
        if !self.any_left_out || (self.second == now.0.as_secs() && !is_end) {
            return;
        }
        self.any_left_out = false;
        for (kind, left_out) in self.left_out.iter_mut().enumerate().filter(|(_, left_out)| **left_out > 0) {
            let lines = std::mem::take(left_out);
            self.total.fetch_add(lines, Ordering::Relaxed);
            tell(kind, lines);
        }
    }
}

/// Whether a refusal says something of who asks, what for, or whether that could be found out; the others tell of
/// upstreams, load and slow clients.
fn concerns_security(code: Code) -> bool {
    match code {
        Code::MissingToken
        | Code::MalformedCredentials
        | Code::InvalidToken
        | Code::InsufficientScope
        | Code::AccessDenied
        | Code::StepUpRequired
        | Code::NoSuchRoute
        | Code::MethodNotAllowed
        | Code::BadRequest
        | Code::RequestTooLarge
        | Code::TooManyFailedAttempts
        | Code::MisdirectedRequest
        | Code::KeysUnavailable
        | Code::RevocationStatusUnavailable
        | Code::IntrospectionUnavailable => true,
        Code::RequestTimeout
        | Code::NotSupported
        | Code::ClientClosed
        | Code::UpstreamUnreachable
        | Code::UpstreamTimeout
        | Code::BadUpstreamResponse
        | Code::NoHealthyUpstream
        | Code::Overloaded
        | Code::ShuttingDown
        | Code::InternalError => false,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn so_many_of_a_kind_in_a_second_and_the_rest_is_counted() {
        let total = Arc::default();
        let mut bounds = Bounds::<2>::new(3, &total);
        let at = |millis| Monotonic(Duration::from_millis(millis));
        let admitted = (0..10).filter(|_| bounds.admit(0, at(1_500))).count();
        assert_eq!(admitted, 3);
        assert!(bounds.admit(1, at(1_600)), "another kind has a bound of its own");
        let mut told = Vec::new();
        bounds.settle(at(1_900), false, |kind, lines| told.push((kind, lines)));
        assert!(told.is_empty(), "the second is not over");
        bounds.settle(at(2_000), false, |kind, lines| told.push((kind, lines)));
        bounds.settle(at(2_100), false, |kind, lines| told.push((kind, lines)));
        assert_eq!(told, [(0, 7)]);
        assert_eq!(total.load(Ordering::Relaxed), 7);
        let admitted = (0..5).filter(|_| bounds.admit(0, at(2_200))).count();
        assert_eq!(admitted, 3);
        bounds.settle(at(2_300), true, |kind, lines| told.push((kind, lines)));
        assert_eq!(told, [(0, 7), (0, 2)], "at the end no second is left open");
    }
}
