//! Authentication from outside: tokens, credentials, refusals, identity, keys, revocation.
//!
//! Every test starts a whole gateway and judges it by what its API received, not only by what the client was told.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "these are tests"
)]

#[path = "../support/mod.rs"]
mod support;

mod admin;
mod advisories;
mod audit_log;
mod bench;
mod callers;
mod certificates;
mod credentials;
mod crls;
mod dashboards;
mod disowned;
mod explain;
mod failed_attempts;
mod identity;
mod introspection;
mod introspection_reach;
mod issuers;
mod keys;
mod operation;
mod patterns;
mod policy;
mod refusals;
mod revocation;
mod shadow;
mod slow_disk;
mod spans;
mod status_list;
mod tokens;
