//! The addresses of the process itself: `health` and `admin`.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::task::JoinSet;

use super::inherited::Inherited;
use crate::admin::health::{self, Health};
use crate::admin::readiness::Readiness;
use crate::config::Config;
use crate::telemetry::metrics::Metrics;

/// See the module. They stay what they were at the start.
#[derive(Debug, Default)]
pub struct Probes {
    health: Option<Probe>,
    admin: Option<Probe>,
}

#[derive(Debug)]
struct Probe {
    socket: TcpListener,
    address: SocketAddr,
    shows_metrics: bool,
}

const HEALTH: &str = "health";
const ADMIN: &str = "admin";

impl Probes {
    /// Binds them, unless they were handed over.
    pub fn bind(config: &Config, inherited: &mut Inherited) -> Result<Self> {
        let health = config.health.as_ref();
        let admin = config.admin.as_ref();
        Ok(Self {
            health: health
                .map(|health| Probe::bind(HEALTH, health.address, health.metrics, inherited))
                .transpose()?,
            admin: admin.map(|admin| Probe::bind(ADMIN, admin.address, true, inherited)).transpose()?,
        })
    }

    /// Answers from now on.
    pub fn serve(
        &self,
        readiness: &Readiness,
        metrics: &Arc<Metrics>,
        tasks: &mut JoinSet<()>,
    ) -> Result<()> {
        for probe in self.health.iter().chain(&self.admin) {
            let listener = tokio::net::TcpListener::from_std(probe.socket.try_clone()?)?;
            let metrics = probe.shows_metrics.then(|| Arc::clone(metrics));
            let health = Health { readiness: readiness.clone(), metrics };
            tasks.spawn(async move {
                health::serve(listener, health).await;
            });
        }
        Ok(())
    }

    /// Where `/livez` and `/readyz` are.
    pub fn health_address(&self) -> Option<SocketAddr> {
        self.health.as_ref().map(|probe| probe.address)
    }

    /// The sockets, with their labels for a successor.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &TcpListener)> {
        let health = self.health.iter().map(|probe| (HEALTH, &probe.socket));
        health.chain(self.admin.iter().map(|probe| (ADMIN, &probe.socket)))
    }
}

impl Probe {
    fn bind(
        label: &str,
        address: SocketAddr,
        shows_metrics: bool,
        inherited: &mut Inherited,
    ) -> Result<Self> {
        let socket = match inherited.take(label, address).pop() {
            Some(socket) => socket,
            None => TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?,
        };
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address, shows_metrics })
    }
}
