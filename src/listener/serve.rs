//! The accept loop of one core on one listener.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use ipnet::IpNet;
use rustls::server::danger::ClientCertVerifier;
use tokio::net::{TcpListener, TcpStream};

use super::connection::{Connection, HttpSettings};
use super::crowd::Crowd;
use super::drain::DrainSignal;
use super::tls::ServerTls;
use super::vouching::Vouching;
use crate::gateway::{Decisions, Gateway};
use crate::http1::GuardLimits;
use crate::telemetry::metrics::{Closed, ListenerId};

/// What one listener does with connections, the same on all cores.
#[derive(Clone, Debug)]
pub struct ListenerSettings {
    /// The address as logs name it.
    pub name: Arc<str>,
    /// Where its connections are counted.
    pub metric: ListenerId,
    /// The load balancers whose connections begin with the PROXY protocol; none: no connection does.
    pub proxy_protocol: Option<Vec<IpNet>>,
    /// What it is for.
    pub role: Role,
    /// How it answers another proxy that asks about requests; none: it serves them itself.
    pub decisions: Option<Arc<Decisions>>,
    /// `Strict-Transport-Security`.
    pub hsts: Option<HeaderValue>,
    /// Bounds on what HTTP/1.1 clients send.
    pub guard: GuardLimits,
    /// Frames that carry nothing of a request in a second on one HTTP/2 connection.
    pub control_frames: u32,
    /// Whether a WebSocket can be opened by HTTP/2 (RFC 8441).
    pub takes_websockets: bool,
    /// The most requests at a time on one HTTP/2 connection.
    pub concurrent_streams: u32,
    /// How long a connection may go without a request.
    pub idle: Duration,
    /// How long a client may take nothing of what is sent to it.
    pub stall: Duration,
    /// How long a TLS handshake may take.
    pub handshake: Duration,
}

/// What a listener is for.
#[derive(Clone, Debug)]
pub enum Role {
    /// HTTP over TLS.
    Tls(ServerTls),
    /// HTTP without TLS, by the operator's explicit word.
    Plaintext,
    /// Sends everybody to HTTPS on this port.
    RedirectToHttps(u16),
}

/// How long to wait after a failed accept: when descriptors run out, trying at once would only burn the core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What one core's listener does with the connections that it accepts from now on.
#[derive(Clone, Debug)]
pub struct Manner {
    settled: Rc<RefCell<Settled>>,
    vouching: Rc<Vouching>,
}

#[derive(Clone, Debug)]
struct Settled {
    settings: Rc<ListenerSettings>,
    http: Rc<HttpSettings>,
}

impl Manner {
    /// By these settings.
    pub fn new(settings: &ListenerSettings) -> Self {
        Self {
            settled: Rc::new(RefCell::new(Settled::new(settings))),
            vouching: Rc::new(Vouching::by(settings.client_verifier().into_iter().collect())),
        }
    }

    /// By these settings from now on. Connections that are open stay as they are, but that their certificates have to be
    /// looked at again where this says so.
    #[must_use]
    pub fn replace(&self, settings: &ListenerSettings) -> bool {
        self.settled.replace(Settled::new(settings));
        self.vouching.replace(settings.client_verifier().into_iter().collect())
    }

    /// The listener is closed, and what goes on by it is vouched for by whoever is for the listeners that there are: their
    /// certificates have to be looked at again where this says so.
    #[must_use]
    pub fn is_succeeded_by<'s>(&self, listeners: impl Iterator<Item = &'s ListenerSettings>) -> bool {
        self.vouching.replace(listeners.filter_map(ListenerSettings::client_verifier).collect())
    }

    /// Whether nothing goes on by it whose certificate might have to be looked at.
    pub fn is_forgotten(&self) -> bool {
        Rc::strong_count(&self.vouching) == 1
    }
}

impl ListenerSettings {
    fn client_verifier(&self) -> Option<Arc<dyn ClientCertVerifier>> {
        match &self.role {
            Role::Tls(tls) => tls.client_verifier.clone(),
            Role::Plaintext | Role::RedirectToHttps(_) => None,
        }
    }
}

impl Settled {
    // A copy for this core alone, so that no count of references is shared between cores.
    fn new(settings: &ListenerSettings) -> Self {
        Self { settings: Rc::new(settings.clone()), http: Rc::new(HttpSettings::new(settings)) }
    }
}

/// Accepts connections into the core's crowd and has them served until the drain begins.
pub async fn serve(
    socket: TcpListener,
    manner: Manner,
    gateway: Gateway,
    crowd: Rc<Crowd>,
    drain: DrainSignal,
) {
    loop {
        let accepted = tokio::select! {
            biased;
            _ = drain.begun() => break,
            accepted = socket.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => take_in(stream, address, &manner, &gateway, &crowd, &drain),
            Err(error) => {
                let name = Arc::clone(&manner.settled.borrow().settings.name);
                tracing::warn!(listener = %name, %error, "accepting a connection failed");
                // Descriptors have run out, most likely: whoever does nothing with one gives it back.
                crowd.make_room();
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // Those that were connected already and have not been accepted would be reset with the socket.
    for (stream, address) in queued(socket) {
        take_in(stream, address, &manner, &gateway, &crowd, &drain);
    }
}

fn queued(socket: TcpListener) -> impl Iterator<Item = (TcpStream, SocketAddr)> {
    let socket = socket.into_std().ok();
    std::iter::from_fn(move || socket.as_ref()?.accept().ok()).filter_map(|(stream, address)| {
        stream.set_nonblocking(true).ok()?;
        Some((TcpStream::from_std(stream).ok()?, address))
    })
}

fn take_in(
    stream: TcpStream,
    address: SocketAddr,
    manner: &Manner,
    gateway: &Gateway,
    crowd: &Rc<Crowd>,
    drain: &DrainSignal,
) {
    // Dropping the stream closes it: with every connection busy there is nothing better to say it with.
    let Some(member) = crowd.enter() else {
        gateway.core().metrics.connection_closed(Closed::Full);
        return;
    };
    let Settled { settings, http } = manner.settled.borrow().clone();
    let vouched = manner.vouching.of_now();
    member.activity().count(gateway.core().metrics.connection(settings.metric));
    let connection = Connection { address, settings, http, vouched, gateway: gateway.clone(), member };
    let drain = drain.clone();
    tokio::task::spawn_local(connection.run(stream, drain));
}
