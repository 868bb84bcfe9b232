//! Upstreams: the services behind the gateway, and which of their endpoints a request goes to.
//!
//! Per core: connections, counts of requests in flight, the retry budget, the queue for `limits.connections`; used by
//! one thread only, so that no lock and no shared counter stands between a request and its connection. Global: which
//! addresses there are, whether each is healthy, and, only where it is configured, the count for `limits.requests`.
//! The control runtime resolves names and checks health; cores read what it publishes.
//!
//! Knows nothing of tokens and routes; it carries what it is given and says truthfully what went wrong.

mod attempt;
mod body;
mod budget;
mod check;
mod client;
mod client_body;
mod connect;
mod error;
mod head;
mod health;
mod lane;
mod member;
mod multiplexed;
mod patience;
mod pool;
mod resolve;
mod service;
mod settings;
mod stats;
mod websocket;

pub use body::{BodyLimits, BodyProgress, RequestBody, UpstreamBody};
pub use check::check_health;
pub use client::{AnswerTimeouts, Client, InUse, Outgoing};
pub use client_body::{ClientBody, is_read_on};
pub use error::UpstreamError;
pub use health::State;
pub use lane::Lane;
pub use resolve::resolve_names;
pub use service::Upstream;
pub use settings::{
    Balancing, BalancingMethod, Ejection, Endpoint, HealthCheck, OwnCertificate, Protocol, Retries,
    UpstreamLimits, UpstreamSettings, UpstreamTimeouts, tls_config,
};
pub use stats::{EndpointStats, Failure, UpstreamStats};
pub use websocket::{HandshakeKey, is_websocket, mark, unmark};

/// Runs hyper's background futures on the current core.
#[derive(Clone, Copy, Debug)]
pub struct CoreExecutor;

impl<F> hyper::rt::Executor<F> for CoreExecutor
where
    F: Future + 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}
