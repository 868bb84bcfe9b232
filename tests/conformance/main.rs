//! What others have published about JSON Web Signatures and tokens, held against this gateway: every vector and
//! every example is a test of its own name.
//!
//! `cargo test --test conformance -- --list` shows them all.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

mod jws;
mod mutation;
mod rfc;
mod wycheproof;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let mut trials: Vec<Trial> = rfc::trials();
    trials.extend(mutation::trials());
    trials.extend(wycheproof::trials());
    libtest_mimic::run(&arguments, trials).exit_code()
}
