//! One connection from its beginning to its end: TLS, the choice of HTTP version, and what is noted of it. What is spoken
//! meanwhile is in [`super::http1`] and [`super::http2`].

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper_util::rt::TokioTimer;
use ipnet::IpNet;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::crowd::Member;
use super::drain::DrainSignal;
use super::failure;
use super::linger::Linger;
use super::pace::StreamExecutor;
use super::protocol::begins_with_http2_preface;
use super::proxy_protocol;
use super::rest::OnSocket;
use super::serve::{ListenerSettings, Role};
use super::vouching::Vouched;
use crate::certificate::{self, ClientCertificate};
use crate::gateway::{Gateway, Inbound, Peer, PeerTls, ResponseBody};
use crate::http1::GuardLimits;
use crate::telemetry::metrics::{Closed, Protocol, ProtocolError, TlsResult};

/// hyper's builders, set up once for each listener and core.
#[derive(Debug)]
pub struct HttpSettings {
    pub(super) http1: http1::Builder,
    pub(super) http2: http2::Builder<StreamExecutor>,
    pub(super) guard: GuardLimits,
}

impl HttpSettings {
    /// What the listener's settings come to in hyper's terms.
    pub fn new(settings: &ListenerSettings) -> Self {
        let mut http1 = http1::Builder::new();
        // The guard bounds the time of a head, and the crowd the time without one: hyper would arm a timer for each request.
        http1.header_read_timeout(None);
        settings.guard.configure(&mut http1);
        let mut http2 = http2::Builder::new(StreamExecutor::new(settings.stall));
        http2
            .timer(TokioTimer::new())
            .max_concurrent_streams(settings.concurrent_streams)
            .max_header_list_size(u32::try_from(settings.guard.head).unwrap_or(u32::MAX))
            .keep_alive_interval(settings.idle)
            .keep_alive_timeout(settings.handshake)
            .max_pending_accept_reset_streams(20)
            .max_local_error_reset_streams(100);
        if settings.takes_websockets {
            http2.enable_connect_protocol();
        }
        Self { http1, http2, guard: settings.guard }
    }
}

/// A connection that was accepted.
pub struct Connection {
    pub address: SocketAddr,
    pub settings: Rc<ListenerSettings>,
    pub http: Rc<HttpSettings>,
    pub vouched: Vouched,
    pub gateway: Gateway,
    pub member: Member,
}

impl Connection {
    /// Serves the connection to its end.
    pub async fn run(mut self, stream: TcpStream, drain: DrainSignal) {
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let Some(stream) = self.client_behind_load_balancer(stream, &drain).await else { return };
        match self.settings.role.clone() {
            Role::Tls(tls) => {
                // Boxed, so that the connection has no room for it once it is over.
                let handshake = Box::pin(self.handshake(TlsAcceptor::from(tls.config), stream, &drain));
                let Some(tls) = handshake.await else { return };
                let (_, session) = tls.get_ref();
                let is_http2 = session.alpn_protocol() == Some(b"h2");
                let server_name = session.server_name().map(|name| name.to_ascii_lowercase().into());
                let Ok(certificate) = client_certificate(session) else {
                    tracing::info!(client = %self.address, "connection refused: its certificate cannot be read");
                    return;
                };
                if let Some(chain) = session.peer_certificates() {
                    let by = self.vouched.accepted(chain.to_vec());
                    self.member.stands_on(by, self.address, Arc::clone(&self.settings.name));
                }
                self.speak(tls, is_http2, Some(PeerTls { server_name, certificate }), drain).await;
            }
            Role::Plaintext | Role::RedirectToHttps(_) => {
                let Some(is_http2) = self.choose(&stream, &drain).await else { return };
                self.speak(stream, is_http2, None, drain).await;
            }
        }
    }

    /// Takes the client's address from the PROXY protocol where it is expected; `None` if it does not come as it
    /// should, or is not waited for.
    async fn client_behind_load_balancer(
        &mut self,
        mut stream: TcpStream,
        drain: &DrainSignal,
    ) -> Option<TcpStream> {
        let Some(networks) = &self.settings.proxy_protocol else { return Some(stream) };
        let reading = read_proxy_header(&mut stream, self.address, networks);
        let in_time = tokio::time::timeout(self.settings.handshake, reading);
        let outcome = tokio::select! {
            biased;
            why = self.member.asked_to_leave() => {
                self.closed(why);
                return None;
            }
            outcome = in_time => outcome.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
            _ = drain.begun() => return None,
        };
        match outcome {
            Ok(client) => {
                self.address = client.unwrap_or(self.address);
                Some(stream)
            }
            Err(error) => {
                self.gateway.core().metrics.protocol_error(ProtocolError::ProxyHeader);
                if error.kind() == io::ErrorKind::TimedOut {
                    self.closed(Closed::Handshake);
                }
                let (peer, listener) = (self.address, &self.settings.name);
                tracing::info!(%peer, %listener, %error, "connection refused: no valid PROXY protocol header");
                None
            }
        }
    }

    /// Whether a connection without TLS speaks HTTP/2; `None` if it says nothing for too long, or is not waited for.
    async fn choose(&self, stream: &TcpStream, drain: &DrainSignal) -> Option<bool> {
        let choice = async {
            let Ok(begun) = tokio::time::timeout(self.settings.idle, stream.readable()).await else {
                self.closed(Closed::Idle);
                return None;
            };
            begun.ok()?;
            // What has begun like a preface and goes no further is left to the time-out of heads.
            let asked = begins_with_http2_preface(stream);
            let asked = tokio::time::timeout(self.settings.guard.head_timeout, asked).await;
            Some(matches!(asked, Ok(Ok(true))))
        };
        tokio::select! {
            biased;
            why = self.member.asked_to_leave() => {
                self.closed(why);
                None
            }
            choice = choice => choice,
            () = drain.out_of_patience() => None,
        }
    }

    async fn handshake(
        &self,
        acceptor: TlsAcceptor,
        stream: TcpStream,
        drain: &DrainSignal,
    ) -> Option<Box<TlsStream<TcpStream>>> {
        let clock = self.gateway.core().clock.clone();
        let begun = clock.monotonic();
        let in_time = tokio::time::timeout(self.settings.handshake, acceptor.accept(stream));
        let outcome = tokio::select! {
            biased;
            why = self.member.asked_to_leave() => {
                self.closed(why);
                return None;
            }
            outcome = in_time => outcome,
            () = drain.out_of_patience() => return None,
        };
        let (result, stream) = match outcome {
            // Boxed: the state of a connection holds a stream once for each layer that it is handed through.
            Ok(Ok(stream)) => (TlsResult::Ok, Some(Box::new(stream))),
            Ok(Err(error)) => {
                tracing::debug!(client = %self.address, %error, "TLS handshake failed");
                (failure::of_handshake(&error), None)
            }
            Err(_) => {
                self.closed(Closed::Handshake);
                (TlsResult::Timeout, None)
            }
        };
        self.gateway.core().metrics.tls_handshake(result, begun.until(clock.monotonic()));
        stream
    }

    async fn speak<S>(&mut self, stream: S, is_http2: bool, tls: Option<PeerTls>, drain: DrainSignal)
    where
        S: AsyncRead + AsyncWrite + OnSocket + Unpin + Send + 'static,
    {
        let listener: Rc<str> = Rc::from(&*self.settings.name);
        let peer = Rc::new(Peer::new(
            self.address,
            listener,
            tls,
            self.settings.hsts.clone(),
            Rc::clone(self.member.activity()),
        ));
        let protocol = if is_http2 { Protocol::Http2 } else { Protocol::Http1 };
        self.member.activity().speaks(protocol);
        let stream = Linger::new(stream, self.settings.stall);
        if is_http2 {
            // Boxed, so that connections of HTTP/1.1 have no room for it.
            Box::pin(self.speak_http2(stream, peer, drain)).await;
        } else if let Err(error) = self.speak_http1(stream, peer, drain).await {
            self.note(false, false, &error);
        }
        // A connection that was upgraded goes on in a task of its own, and keeps its place.
        tokio::select! {
            biased;
            () = self.member.activity().quiet() => {}
            why = self.member.asked_to_leave() => {
                self.closed(why);
                self.member.activity().quiet().await;
            }
        }
    }

    /// Resolves when the connection has served no request for so long, from now on.
    pub(super) async fn idle_for(&self, limit: Duration) {
        let clock = self.gateway.core().clock.clone();
        loop {
            tokio::time::sleep(limit).await;
            self.member.activity().quiet().await;
            let quiet = self.member.activity().quiet_since();
            if quiet.is_some_and(|since| since.until(clock.monotonic()) >= limit) {
                return;
            }
        }
    }

    pub(super) fn closed(&self, why: Closed) {
        self.gateway.core().metrics.connection_closed(why);
    }

    /// What ended a connection below HTTP, where no response could be given.
    pub(super) fn note(&self, is_http2: bool, is_flood: bool, error: &hyper::Error) {
        let kind = if is_flood { ProtocolError::Http2Flood } else { failure::kind(error, is_http2) };
        self.gateway.core().metrics.protocol_error(kind);
        match kind {
            ProtocolError::Http2Flood => self.closed(Closed::Flood),
            _ if failure::is_rapid_reset(error) => self.closed(Closed::Flood),
            _ if failure::has_stalled(error) => self.closed(Closed::Stalled),
            _ => {}
        }
        // Clients that vanish are everyday; those that break the protocol are worth a line.
        let (client, listener) = (self.address, &self.settings.name);
        match kind {
            ProtocolError::Io | ProtocolError::UnexpectedEnd | ProtocolError::HeaderTimeout => {
                tracing::debug!(%client, %listener, ?kind, ?error, "connection failed");
            }
            _ => tracing::info!(%client, %listener, ?kind, ?error, "connection failed"),
        }
    }
}

/// What the client's certificate says, if there is one.
fn client_certificate(
    session: &rustls::ServerConnection,
) -> Result<Option<Rc<ClientCertificate>>, certificate::Unreadable> {
    let leaf = session.peer_certificates().and_then(<[_]>::first);
    leaf.map(|der| ClientCertificate::from_der(der).map(Rc::new)).transpose()
}

/// The client that the load balancer at `peer` speaks for; `None` if it speaks for itself.
async fn read_proxy_header(
    stream: &mut TcpStream,
    peer: SocketAddr,
    networks: &[IpNet],
) -> io::Result<Option<SocketAddr>> {
    if !networks.iter().any(|network| network.contains(&peer.ip().to_canonical())) {
        return Err(io::Error::other("the address is none of proxy_protocol.from"));
    }
    let mut bytes = Vec::new();
    loop {
        match proxy_protocol::parse(&bytes).map_err(io::Error::other)? {
            proxy_protocol::Header::Complete { client, .. } => return Ok(client),
            proxy_protocol::Header::Incomplete(more) => {
                let more = u64::try_from(more).unwrap_or(u64::MAX);
                if (&mut *stream).take(more).read_to_end(&mut bytes).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
        }
    }
}

pub(super) async fn respond(
    gateway: &Gateway,
    settings: &ListenerSettings,
    peer: &Peer,
    request: Box<http::Request<hyper::body::Incoming>>,
    inbound: Inbound,
) -> http::Response<ResponseBody> {
    if let Some(decisions) = &settings.decisions {
        // Boxed, since requests that are served would otherwise keep room for it.
        return Box::pin(gateway.decide(peer, *request, inbound, decisions)).await;
    }
    match &settings.role {
        Role::RedirectToHttps(port) => gateway.redirect(peer, request, inbound, *port).await,
        Role::Tls(_) | Role::Plaintext => gateway.handle(peer, request, inbound).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<F: Future>(_: impl Fn(Connection, TcpStream, DrainSignal) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_state_of_a_connection_stays_small() {
        // Held for as long as a connection lives, and most of them do nothing most of the time.
        assert!(size(Connection::run) <= 1152, "{} bytes", size(Connection::run));
    }
}
