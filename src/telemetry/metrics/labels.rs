//! The values that labels can have: names from configuration, as dense ids, and closed sets.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// A route, see [`super::Metrics::route`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RouteId(pub(super) u16);

/// An upstream, see [`super::Metrics::upstream`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UpstreamId(pub(super) u16);

/// An issuer, see [`super::Metrics::issuer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IssuerId(pub(super) u16);

/// A listener, see [`super::Metrics::listener`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerId(pub(super) u16);

/// A closed set of label values.
pub(super) trait Label: Copy + 'static {
    const ALL: &'static [Self];
    fn index(self) -> usize;
    fn name(self) -> &'static str;
}

macro_rules! label {
    ($(#[$doc:meta])* $name:ident { $( $(#[$variant_doc:meta])* $variant:ident = $text:literal, )* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $name { $( $(#[$variant_doc])* $variant, )* }

        impl $name {
            pub(super) const COUNT: usize = <Self as Label>::ALL.len();
        }

        impl Label for $name {
            const ALL: &'static [Self] = &[ $( Self::$variant, )* ];

            fn index(self) -> usize {
                self as usize
            }

            fn name(self) -> &'static str {
                match self { $( Self::$variant => $text, )* }
            }
        }
    };
}

label! {
    /// How a TLS handshake ended.
    TlsResult {
        /// The connection is secure.
        Ok = "ok",
        /// The client took too long.
        Timeout = "timeout",
        /// The client went away.
        ClientClosed = "client_closed",
        /// The client does not trust our certificate, or said so by an alert.
        ClientAlert = "client_alert",
        /// The client showed no certificate where one is required, or one that is not accepted.
        ClientCertificate = "client_certificate",
        /// Nothing in common, or not TLS.
        Protocol = "protocol",
    }
}

label! {
    /// What a connection failed of below HTTP, where no response could be given.
    ProtocolError {
        /// The bytes do not parse as HTTP/1.
        Http1 = "http1",
        /// HTTP/2 rules were broken.
        Http2 = "http2",
        /// A malformed HTTP/2 stream was reset.
        Http2Stream = "http2_stream",
        /// Too many HTTP/2 frames that carry nothing of a request.
        Http2Flood = "http2_flood",
        /// The head of a request did not come in time.
        HeaderTimeout = "header_timeout",
        /// The connection ended in the middle of a request.
        UnexpectedEnd = "unexpected_end",
        /// The PROXY protocol header is missing or broken.
        ProxyHeader = "proxy_header",
        /// The operating system reported an error.
        Io = "io",
    }
}

label! {
    /// Why the gateway closed a connection that its client would have kept.
    Closed {
        /// All others were busy when it came.
        Full = "full",
        /// It had been idle or unfinished for longest when another one came.
        Evicted = "evicted",
        /// It had been without a request for too long.
        Idle = "idle",
        /// Its client certificate was accepted no longer.
        Certificate = "certificate",
        /// The TLS handshake or the PROXY protocol header took too long.
        Handshake = "handshake_timeout",
        /// The client did not read.
        Stalled = "stalled",
        /// Too many HTTP/2 frames that carry nothing of a request, or too many streams reset.
        Flood = "flood",
    }
}

label! {
    /// Why a request was shed.
    Shed {
        /// No more may stand in line.
        Requests = "requests",
        /// It stood in line for too long.
        Delay = "delay",
    }
}

label! {
    /// What a connection speaks.
    Protocol {
        /// Nothing yet.
        Unknown = "unknown",
        /// HTTP/1.0 or HTTP/1.1.
        Http1 = "http/1.1",
        /// HTTP/2.
        Http2 = "http/2",
        /// Whatever it was upgraded to: WebSocket and the like.
        Upgraded = "upgraded",
    }
}

label! {
    /// What a connection is doing.
    ConnectionState {
        /// Accepted, but not yet secure.
        Handshake = "handshake",
        /// Waiting for a request.
        Idle = "idle",
        /// Serving at least one request.
        Active = "active",
    }
}

/// Gives names dense ids that stay theirs.
#[derive(Debug)]
pub(super) struct Names(Mutex<Interned>);

#[derive(Debug)]
struct Interned {
    names: Vec<Arc<str>>,
    ids: HashMap<Arc<str>, u16>,
}

impl Names {
    /// For what has no name: no route matched, no issuer was involved.
    pub(super) const NONE: u16 = 0;

    /// For all names beyond the bound.
    pub(super) const OTHER: u16 = 1;

    /// Far above what one gateway is configured with, even over many reloads.
    pub(super) const MAX: usize = 4096;

    pub(super) fn new() -> Self {
        let mut interned = Interned { names: Vec::new(), ids: HashMap::new() };
        interned.id("none");
        interned.id("other");
        Self(Mutex::new(interned))
    }

    pub(super) fn id(&self, name: &str) -> u16 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).id(name)
    }

    /// All names, in the order of their ids.
    pub(super) fn all(&self) -> Vec<Arc<str>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).names.clone()
    }
}

impl Interned {
    fn id(&mut self, name: &str) -> u16 {
        if let Some(id) = self.ids.get(name) {
            return *id;
        }
        match u16::try_from(self.names.len()) {
            Ok(id) if self.names.len() < Names::MAX => {
                let name: Arc<str> = Arc::from(name);
                self.names.push(Arc::clone(&name));
                self.ids.insert(name, id);
                id
            }
            _ => Names::OTHER,
        }
    }
}
