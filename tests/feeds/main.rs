//! Revocation by way of real engines: what is written to them stops tokens at gateways, through whatever fault.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
#![allow(missing_docs, reason = "the names of tests say what they are")]

#[path = "../support/mod.rs"]
mod support;

mod events;
mod faults;
mod feed_server;
mod feed_serving;
mod fleet;
mod nats;
mod nats_accounts;
mod registry;
mod revoking_page;
mod told_slow_disk;
mod transport;
mod valkey;
mod valkey_topology;
mod written_through;
