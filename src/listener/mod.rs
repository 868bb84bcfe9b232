//! Listeners: from a bound address to HTTP requests handed to the gateway, and everything that can go wrong before
//! there is a request.
//!
//! Each core accepts on a socket of its own (`SO_REUSEPORT`), so that no connection crosses threads.

mod bind;
mod calm;
mod conduct;
mod connection;
mod crls;
mod crowd;
mod divided;
mod drain;
mod failure;
mod http1;
mod http2;
mod last_words;
mod linger;
mod pace;
mod protocol;
mod proxy_protocol;
mod rest;
mod serve;
mod tls;
mod turns;
mod vouching;

pub use bind::{BindError, BoundListener, Port, bind, take_over};
pub use crls::CrlError;
pub use crowd::Crowd;
pub use drain::{Drain, DrainSignal};
pub use proxy_protocol::{
    Header as ProxyHeader, HeaderError as ProxyHeaderError, parse as parse_proxy_header,
};
pub use serve::{ListenerSettings, Manner, Role, serve};
pub use tls::{ServerTls, TlsError, server_config, server_tls};
