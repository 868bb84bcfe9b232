//! Upstreams: the services behind the gateway. Per core: a pool of connections to each endpoint, used by one
//! thread only, so that no lock and no shared counter stands between a request and its connection.
//!
//! Knows nothing of tokens and routes; it carries what it is given and says truthfully what went wrong.

mod body;
mod client;
mod connect;
mod error;
mod pool;
mod settings;

pub use body::{BodyLimits, BodyProgress, RequestBody, UpstreamBody};
pub use client::Client;
pub use error::UpstreamError;
pub use settings::{Endpoint, OwnCertificate, Protocol, Upstream, UpstreamTimeouts, tls_config};

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
