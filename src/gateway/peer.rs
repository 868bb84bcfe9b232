//! The other end of a connection, and how a request came over it.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderValue, Request};
use hyper::body::{Body as _, Incoming};

use super::activity::Activity;
use crate::catalogue::Reason;
use crate::certificate::ClientCertificate;
use crate::http1::{Turn, Violation};
use crate::rejection::Rejection;
use crate::upstream::is_read_on;

/// The other end of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// The listener that accepted it.
    pub listener: Rc<str>,
    /// TLS, if the connection has it.
    pub tls: Option<PeerTls>,
    /// `Strict-Transport-Security` for responses on this connection (RFC 6797).
    pub hsts: Option<HeaderValue>,
    /// What the connection is doing.
    pub activity: Rc<Activity>,
    forwarded_for: HeaderValue,
    forwarded_node: Box<str>,
}

/// What TLS told of a connection.
#[derive(Clone, Debug)]
pub struct PeerTls {
    /// The name that the client asked for (RFC 6066 section 3), in lower case.
    pub server_name: Option<Box<str>>,
    /// The client's certificate, verified.
    pub certificate: Option<Rc<ClientCertificate>>,
}

impl Peer {
    /// A peer at this address.
    pub fn new(
        address: SocketAddr,
        listener: Rc<str>,
        tls: Option<PeerTls>,
        hsts: Option<HeaderValue>,
        activity: Rc<Activity>,
    ) -> Self {
        let ip = address.ip().to_canonical().to_string();
        let forwarded_for =
            HeaderValue::from_str(&ip).unwrap_or_else(|_| HeaderValue::from_static("unknown"));
        let forwarded_node = match address.ip().to_canonical() {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("\"[{address}]\""),
        };
        let forwarded_node = forwarded_node.into();
        Self { address, listener, tls, hsts, activity, forwarded_for, forwarded_node }
    }

    /// Whether the connection is secure.
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// The client's certificate, if it has shown one.
    pub fn certificate(&self) -> Option<&ClientCertificate> {
        self.tls.as_ref()?.certificate.as_deref()
    }

    /// The address as `X-Forwarded-For` names it.
    pub(super) fn forwarded_for(&self) -> HeaderValue {
        self.forwarded_for.clone()
    }

    /// The address as a node of `Forwarded` (RFC 7239 section 6).
    pub(super) fn forwarded_node(&self) -> &str {
        &self.forwarded_node
    }
}

/// A connection or stream that is no longer HTTP.
#[derive(Debug)]
pub struct Tunnel {
    _hold: Option<Arc<()>>,
}

/// How a request came over its connection.
#[derive(Debug)]
pub enum Inbound {
    /// As its turn on an HTTP/1.1 connection whose framing is guarded.
    Http1(Turn),
    /// As a stream of an HTTP/2 connection.
    Http2 {
        /// To be held for as long as the stream is a WebSocket.
        hold: Option<Arc<()>>,
    },
    /// The guard refused it; the request at hand is only a stand-in.
    Refused(Violation),
}

impl Inbound {
    /// What was wrong with the request's framing before anything was done with it.
    pub(super) fn violation(&self) -> Option<Rejection> {
        match self {
            Self::Refused(violation) => Some((*violation).into()),
            Self::Http1(_) | Self::Http2 { .. } => None,
        }
    }

    /// Whether the connection cannot go on behind this request's body unless somebody wants the whole of it.
    pub(super) fn ends_with_body_of(&self, request: &Request<Incoming>) -> bool {
        self.is_http1() && !request.body().is_end_stream() && !is_read_on(request)
    }

    /// Whether it has its connection for itself.
    pub(super) fn is_http1(&self) -> bool {
        matches!(self, Self::Http1(_))
    }

    /// Whether the connection could become something else after this request.
    pub(super) fn offers_upgrade(&self) -> bool {
        matches!(self, Self::Http1(turn) if turn.offers_upgrade())
    }

    /// From the end of this request on, the connection, or by HTTP/2 the stream, is no longer HTTP. Gives what is to be
    /// held until its end; `None` if it cannot be.
    pub(super) fn tunnel(self) -> Option<Tunnel> {
        match self {
            Self::Http1(turn) => turn.tunnel().then_some(Tunnel { _hold: None }),
            Self::Http2 { hold } => hold.map(|hold| Tunnel { _hold: Some(hold) }),
            Self::Refused(_) => None,
        }
    }

    /// The truth about a request that failed because its body did: the client's framing, if that was to blame.
    pub(super) fn blame(&self, rejection: Rejection) -> Rejection {
        match self {
            Self::Http1(turn)
                if matches!(rejection.reason(), Reason::ClientClosed | Reason::AmbiguousFraming) =>
            {
                turn.body_violation().map_or(rejection, Rejection::from)
            }
            _ => rejection,
        }
    }
}
