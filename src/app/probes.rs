//! The open address: where probes and scrapes are answered.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::task::JoinSet;

use super::inherited::Inherited;
use crate::admin::health::{self, Health};
use crate::admin::readiness::Readiness;
use crate::config::settings;
use crate::telemetry::metrics::Metrics;

/// The bound address. It stays what it was at the start.
#[derive(Debug)]
pub struct Probes {
    /// Where it is.
    pub address: SocketAddr,
    /// What a successor is handed, under [`LABEL`].
    pub socket: TcpListener,
    shows_metrics: bool,
    carried: Arc<[settings::CarriedProbe]>,
}

/// What the socket is known by to a successor.
pub const LABEL: &str = "health";

impl Probes {
    /// Binds it, unless it was handed over.
    pub fn bind(health: &settings::Health, inherited: &mut Inherited) -> Result<Self> {
        let settings::Health { address, metrics: shows_metrics, carried } = health;
        let address = *address;
        let socket = match inherited.take(LABEL, address).pop() {
            Some(socket) => socket,
            None => TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?,
        };
        socket.set_nonblocking(true)?;
        Ok(Self {
            address: socket.local_addr()?,
            socket,
            shows_metrics: *shows_metrics,
            carried: carried.as_slice().into(),
        })
    }

    /// Answers from now on.
    pub fn serve(
        &self,
        readiness: &Readiness,
        metrics: &Arc<Metrics>,
        tasks: &mut JoinSet<()>,
    ) -> Result<()> {
        let listener = tokio::net::TcpListener::from_std(self.socket.try_clone()?)?;
        let metrics = self.shows_metrics.then(|| Arc::clone(metrics));
        let health = Health { readiness: readiness.clone(), metrics, carried: Arc::clone(&self.carried) };
        tasks.spawn(async move {
            health::serve(listener, health).await;
        });
        Ok(())
    }
}
