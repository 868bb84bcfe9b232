//! The blueprint of a gateway: a configuration with everything made of it that can be wrong. Nothing of it runs, and
//! drawing one touches nothing that does.
//!
//! What says the same as in the blueprint before is taken from there, so that connections to upstreams and TLS
//! sessions outlive a reload.

use std::sync::Arc;

use anyhow::{Context, Result};
use http::HeaderValue;
use ipnet::IpNet;

use super::{routes, upstreams};
use crate::config::settings::{Forwarded, Listener, ListenerKind};
use crate::config::{Config, Identity};
use crate::gateway::{Decisions, ReservedNames, Routes, TrustedProxies};
use crate::listener::{self, ServerTls};
use crate::upstream::Upstream;

/// See the module.
#[derive(Debug)]
pub struct Blueprint {
    /// What it was drawn from.
    pub config: Config,
    /// The routes.
    pub routes: Arc<Routes>,
    /// The header names that no client may send.
    pub reserved: Arc<ReservedNames>,
    /// Whose word on where requests come from counts.
    pub trusted_proxies: Arc<TrustedProxies>,
    /// The upstreams, in the order of the configuration.
    pub upstreams: Vec<Arc<Upstream>>,
    /// What the listeners present, in the order of the configuration.
    pub faces: Vec<Face>,
}

/// What a listener presents to its clients.
#[derive(Clone, Debug)]
pub struct Face {
    /// What is spoken.
    pub speech: Speech,
    /// `Strict-Transport-Security`.
    pub hsts: Option<HeaderValue>,
    /// Networks of load balancers whose connections begin with the PROXY protocol.
    pub proxy_protocol: Option<Vec<IpNet>>,
    /// How it answers another proxy that asks about requests.
    pub decisions: Option<Arc<Decisions>>,
}

/// What is spoken on a listener.
#[derive(Clone, Debug)]
pub enum Speech {
    /// HTTP over TLS.
    Tls(ServerTls),
    /// HTTP.
    Plaintext,
    /// HTTP, and only to send everybody to HTTPS.
    RedirectToHttps,
}

impl Blueprint {
    /// Draws the blueprint.
    ///
    /// # Errors
    /// A certificate, key or authority that cannot be used.
    pub fn draw(config: Config, before: Option<&Self>) -> Result<Self> {
        let upstreams = Kept::new("upstreams", &config, before, |before| &before.upstreams);
        let upstreams =
            config.upstreams.iter().enumerate().map(|(place, upstream)| {
                upstreams.find(place).map_or_else(|| upstreams::build(upstream), Ok)
            });
        let faces = Kept::new("listeners", &config, before, |before| &before.faces);
        let faces = config
            .listeners
            .iter()
            .enumerate()
            .map(|(place, listener)| faces.find(place).map_or_else(|| Face::of(listener), Ok));
        Ok(Self {
            routes: Arc::new(routes::build(&config)?),
            reserved: Arc::new(routes::reserved_names(&config)),
            trusted_proxies: Arc::new(trusted_proxies(&config.forwarded)),
            upstreams: upstreams.collect::<Result<_>>()?,
            faces: faces.collect::<Result<_>>()?,
            config,
        })
    }
}

fn trusted_proxies(forwarded: &Forwarded) -> TrustedProxies {
    TrustedProxies::new(forwarded.trusted_proxies.clone(), forwarded.header)
}

impl Face {
    fn of(listener: &Listener) -> Result<Self> {
        let (speech, hsts) = match &listener.kind {
            ListenerKind::Tls(tls) => {
                let config = listener::server_tls(tls);
                let config = config.with_context(|| format!("listener {}", listener.address))?;
                (Speech::Tls(config), tls.hsts.as_ref())
            }
            ListenerKind::Plaintext => (Speech::Plaintext, None),
            ListenerKind::RedirectToHttps => (Speech::RedirectToHttps, None),
        };
        let hsts = hsts.map(routes::hsts_value).transpose()?;
        let decisions = listener
            .decision
            .as_ref()
            .map(|decision| Decisions::new(decision.protocol.clone(), decision.from.clone()));
        Ok(Self {
            speech,
            hsts,
            proxy_protocol: listener.proxy_protocol.clone(),
            decisions: decisions.map(Arc::new),
        })
    }
}

/// What was made for the blueprint before of one list of the configuration.
struct Kept<'a, T> {
    old: Vec<Identity>,
    new: Vec<Identity>,
    made: &'a [T],
}

impl<'a, T: Clone> Kept<'a, T> {
    fn new(
        list: &str,
        config: &Config,
        before: Option<&'a Blueprint>,
        made: impl FnOnce(&'a Blueprint) -> &'a Vec<T>,
    ) -> Self {
        Self {
            old: before.map(|before| before.config.document.identities(list)).unwrap_or_default(),
            new: config.document.identities(list),
            made: before.map(|before| made(before).as_slice()).unwrap_or_default(),
        }
    }

    /// What was made of an element that said the same as the one at this place says now.
    fn find(&self, place: usize) -> Option<T> {
        let identity = self.new.get(place)?;
        self.made.get(self.old.iter().position(|old| old == identity)?).cloned()
    }
}
