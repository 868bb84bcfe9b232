//! The accept loop of one core on one listener.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use ipnet::IpNet;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::connection::{Connection, HttpSettings};
use super::crowd::Crowd;
use crate::gateway::Gateway;
use crate::http1::GuardLimits;
use crate::telemetry::metrics::ListenerId;

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
    /// `Strict-Transport-Security`.
    pub hsts: Option<HeaderValue>,
    /// Bounds on what HTTP/1.1 clients send.
    pub guard: GuardLimits,
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
    Tls(Arc<ServerConfig>),
    /// HTTP without TLS, by the operator's explicit word.
    Plaintext,
    /// Sends everybody to HTTPS on this port.
    RedirectToHttps(u16),
}

/// Tells everything on a core to finish.
#[derive(Debug)]
pub struct Drain(watch::Sender<bool>);

/// The receiving end of a [`Drain`].
#[derive(Clone, Debug)]
pub struct DrainSignal(watch::Receiver<bool>);

impl Drain {
    /// A drain that has not begun.
    pub fn new() -> (Self, DrainSignal) {
        let (sender, receiver) = watch::channel(false);
        (Self(sender), DrainSignal(receiver))
    }

    /// Begins.
    pub fn begin(&self) {
        self.0.send_replace(true);
    }
}

impl DrainSignal {
    /// Resolves once the drain has begun, or nobody can begin it any more.
    pub async fn begun(&mut self) {
        let _ = self.0.wait_for(|begun| *begun).await;
    }
}

/// How long to wait after a failed accept: when descriptors run out, trying at once would only burn the core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts connections into the core's crowd and serves them until the drain begins, then waits until the last is done. The caller bounds
/// that wait.
pub async fn serve(
    socket: TcpListener,
    settings: Rc<ListenerSettings>,
    gateway: Gateway,
    crowd: Rc<Crowd>,
    mut drain: DrainSignal,
) {
    let http = Rc::new(HttpSettings::new(&settings));
    loop {
        let accepted = tokio::select! {
            biased;
            () = drain.begun() => break,
            accepted = socket.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => take_in(stream, address, &settings, &http, &gateway, &crowd, &drain),
            Err(error) => {
                tracing::warn!(listener = %settings.name, %error, "accepting a connection failed");
                // Descriptors have run out, most likely: whoever does nothing with one gives it back.
                crowd.make_room();
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(socket);
    crowd.empty().await;
}

fn take_in(
    stream: TcpStream,
    address: SocketAddr,
    settings: &Rc<ListenerSettings>,
    http: &Rc<HttpSettings>,
    gateway: &Gateway,
    crowd: &Rc<Crowd>,
    drain: &DrainSignal,
) {
    // Dropping the stream closes it: with every connection busy there is nothing better to say it with.
    let Some(member) = crowd.enter() else { return };
    member.activity().count(gateway.core().metrics.connection(settings.metric));
    let connection = Connection {
        address,
        settings: Rc::clone(settings),
        http: Rc::clone(http),
        gateway: gateway.clone(),
        member,
    };
    let drain = drain.clone();
    tokio::task::spawn_local(connection.run(stream, drain));
}
