//! Who belongs to an upstream at the moment, and how each is: published by the control runtime, read by all cores.
//!
//! Global, unlike almost everything else of the data plane, so that what one core learns of an endpoint all know.
//! While all is well, cores only read here; they write when something fails or recovers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;

use super::health::Health;
use super::settings::Endpoint;
use super::stats::EndpointStats;

/// The members of one upstream.
#[derive(Debug)]
pub struct Members {
    current: ArcSwap<Vec<Arc<Member>>>,
    generation: AtomicU64,
}

/// One address of an endpoint, or the endpoint itself while its name is not resolved.
#[derive(Debug)]
pub struct Member {
    /// What it is an address of.
    pub endpoint: Arc<Endpoint>,
    /// What was counted of the endpoint.
    pub stats: Arc<EndpointStats>,
    /// Where to connect to.
    pub addresses: Addresses,
    /// Whether it may be used.
    pub health: Health,
    /// That of the two addresses which was reached last.
    prefers_second: AtomicBool,
}

/// Where to connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addresses {
    /// None: a Unix socket, or a name that could not be resolved yet and is so for each connection.
    Unresolved,
    /// One address.
    One(SocketAddr),
    /// The same server by two families, or so a name that has both promises; whichever can be reached is used.
    Either(SocketAddr, SocketAddr),
}

impl Members {
    /// These, to begin with.
    pub fn new(members: Vec<Arc<Member>>) -> Self {
        Self { current: ArcSwap::from_pointee(members), generation: AtomicU64::new(0) }
    }

    /// All members.
    pub fn all(&self) -> Arc<Vec<Arc<Member>>> {
        self.current.load_full()
    }

    /// Changes with every publication; cheap to compare with one seen before.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Replaces the members; those that stay must be the same objects, since they hold what is known of them.
    pub fn publish(&self, members: Vec<Arc<Member>>) {
        self.current.store(Arc::new(members));
        self.generation.fetch_add(1, Ordering::Release);
    }
}

impl Member {
    /// A member of which nothing bad is known.
    pub fn new(endpoint: Arc<Endpoint>, stats: Arc<EndpointStats>, addresses: Addresses) -> Self {
        Self { endpoint, stats, addresses, health: Health::default(), prefers_second: AtomicBool::new(false) }
    }

    /// Both addresses, the one that was reached last in front.
    pub fn in_order(&self, first: SocketAddr, second: SocketAddr) -> (SocketAddr, SocketAddr) {
        if self.prefers_second.load(Ordering::Relaxed) { (second, first) } else { (first, second) }
    }

    /// Remembers which of two addresses could be reached.
    pub fn reached(&self, address: SocketAddr) {
        if let Addresses::Either(_, second) = self.addresses {
            let is_second = address == second;
            if self.prefers_second.load(Ordering::Relaxed) != is_second {
                self.prefers_second.store(is_second, Ordering::Relaxed);
            }
        }
    }

    /// What log lines call it: the endpoint, and the address where that says more.
    pub fn label(&self) -> String {
        if let Some(socket) = &self.endpoint.socket {
            return format!("unix:{}", socket.display());
        }
        let endpoint = format!("{}:{}", self.endpoint.host, self.endpoint.port);
        match self.addresses {
            Addresses::One(address) | Addresses::Either(address, _) if address.to_string() != endpoint => {
                format!("{endpoint} ({address})")
            }
            _ => endpoint,
        }
    }
}
