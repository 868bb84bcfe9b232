//! The gateway while it is being changed: reloads and restarts, with requests in flight and without, and what it does
//! when the change is wrong.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "these are tests"
)]
#![allow(missing_docs, reason = "the names of tests say what they are")]

mod load;
mod process;
#[path = "../support/recorder.rs"]
mod recorder;
mod reload;
mod restart;
mod restoring;
mod rolling;
mod signals;
#[path = "../support/mod.rs"]
mod support;
mod systemd;
mod traffic;
