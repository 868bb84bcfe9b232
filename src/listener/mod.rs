//! Listeners: from a bound address to HTTP requests handed to the gateway, and everything that can go wrong before
//! there is a request.
//!
//! Each core accepts on a socket of its own (`SO_REUSEPORT`), so that no connection crosses threads.

mod bind;
mod connection;
mod crowd;
mod linger;
mod protocol;
mod proxy_protocol;
mod serve;
mod tls;

pub use bind::{BindError, BoundListener, bind};
pub use crowd::Crowd;
pub use proxy_protocol::{
    Header as ProxyHeader, HeaderError as ProxyHeaderError, parse as parse_proxy_header,
};
pub use serve::{Drain, DrainSignal, ListenerSettings, Role, serve};
pub use tls::{TlsError, server_config};
