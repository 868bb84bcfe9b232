//! Sources: background tasks on the control runtime that fetch keys and revocations and publish them.
//!
//! A feed writes into a port that the data plane reads ([`crate::keys::KeySource`]); neither waits for the other on
//! the warm path. Knows nothing of requests and routes.

pub mod back_off;
pub mod discovery;
pub mod events;
pub mod fetch;
pub mod introspection;
pub mod jwks;
mod kept;
mod nats;
pub mod registry;
pub mod revocation;
mod signed;
pub mod status_list;
mod stored;
#[cfg(test)]
mod testing;
mod valkey;
