//! The listening sockets: one entry for each listener of the configuration, in its order.
//!
//! A socket outlives every configuration that names its address; it is bound once, and closed when none names it any
//! more. The cores accept on duplicates; these originals are what a successor is handed.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use anyhow::{Context, Result};

use super::inherited::Inherited;
use crate::config::settings::Listener;
use crate::listener::{self, BoundListener, Port};

/// See the module.
#[derive(Debug, Default)]
pub struct Sockets(Vec<Entry>);

#[derive(Clone, Debug)]
struct Entry {
    key: ListenerKey,
    bound: Arc<BoundListener>,
}

/// What a bound listener is known by, over all generations: the address as configured, since port 0 means another port
/// each time, and its number among those of the same text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerKey {
    pub address: SocketAddr,
    pub occurrence: usize,
}

/// The sockets of one listener, for each core.
pub type Shares = (ListenerKey, Vec<Vec<TcpListener>>);

impl Sockets {
    /// The sockets of these listeners: those that are there already, those that were handed over, and new ones.
    ///
    /// # Errors
    /// An address that cannot be bound. What was newly bound is closed again.
    pub fn next(&self, listeners: &[Listener], cores: usize, inherited: &mut Inherited) -> Result<Self> {
        let mut entries: Vec<Entry> = Vec::new();
        for Listener { address, .. } in listeners {
            let occurrence = entries.iter().filter(|entry| entry.key.address == *address).count();
            let key = ListenerKey { address: *address, occurrence };
            let bound = match self.find(key) {
                Some(bound) => Arc::clone(bound),
                None => Arc::new(self.bind(key, cores, inherited)?),
            };
            entries.push(Entry { key, bound });
        }
        Ok(Self(entries))
    }

    /// What the cores accept on, for those listeners that `before` did not have.
    pub fn shares(&self, before: &Self, cores: usize) -> Result<Vec<Shares>> {
        let new = self.0.iter().filter(|entry| before.find(entry.key).is_none());
        let share = |entry: &Entry| {
            let sockets = entry.bound.share(cores);
            Ok((entry.key, sockets.with_context(|| format!("listener {}", entry.key.address))?))
        };
        new.map(share).collect()
    }

    /// All of them, in the order of the configuration.
    pub fn iter(&self) -> impl Iterator<Item = (ListenerKey, &BoundListener)> {
        self.0.iter().map(|entry| (entry.key, &*entry.bound))
    }

    fn find(&self, key: ListenerKey) -> Option<&Arc<BoundListener>> {
        self.0.iter().find(|entry| entry.key == key).map(|entry| &entry.bound)
    }

    fn bind(&self, key: ListenerKey, cores: usize, inherited: &mut Inherited) -> Result<BoundListener> {
        let handed_over = inherited.take(&key.to_string(), key.address);
        if !handed_over.is_empty() {
            let context = || format!("cannot take over the listening sockets of {}", key.address);
            return listener::take_over(handed_over, cores).with_context(context);
        }
        let overlaps = |entry: &Entry| {
            entry.bound.address.port() == key.address.port()
                && entry.bound.address.is_ipv4() == key.address.is_ipv4()
        };
        let port = if self.0.iter().any(overlaps) { Port::Ours } else { Port::Free };
        Ok(listener::bind(key.address, cores, port)?)
    }
}

impl std::fmt::Display for ListenerKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "listener {} {}", self.address, self.occurrence)
    }
}
