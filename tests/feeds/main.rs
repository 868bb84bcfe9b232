//! Revocation by way of real engines: what is written to them stops tokens at gateways, through whatever fault.

#[path = "../support/mod.rs"]
mod support;

mod events;
mod feed_server;
mod fleet;
mod nats;
mod valkey;
mod valkey_topology;
