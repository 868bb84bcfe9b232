//! What tests share that start a whole gateway and judge it from outside, by bytes on sockets.
//!
//! Each test binary takes it in with `#[path = "../support/mod.rs"] mod support;`. Everything listens on 127.0.0.1
//! and a free port; every wait is bounded by [`PATIENCE`].

#![allow(dead_code, unused_imports, reason = "no binary uses all of it")]

pub mod engines;
pub mod faulty;
mod gateway;
mod reply;
mod signer;
mod stub;
mod token;
pub mod tunnel;
mod wire;

use std::time::Duration;

pub use gateway::{TestGateway, write_certificate, write_certificates};
pub use reply::{Reply, refused, verdict};
pub use signer::Signer;
pub use stub::{Answer, Asked, Stub};
pub use token::{ISSUER, Token, base64url, jws, now};
pub use wire::{Connection, Duplex, get, http2, send};

/// Longer than anything takes on a busy machine; what takes longer has failed.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Asks again and again until the answer is yes.
///
/// # Panics
/// The answer stays no; `what` says of what.
pub async fn eventually<F: Future<Output = bool>>(what: &str, ask: impl FnMut() -> F) {
    within(PATIENCE, what, ask).await;
}

/// The same for what others take their time for.
///
/// # Panics
/// The answer stays no for so long.
pub async fn within<F: Future<Output = bool>>(patience: Duration, what: &str, mut ask: impl FnMut() -> F) {
    let asking = async {
        while !ask().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(patience, asking).await.is_ok(), "never: {what}");
}
