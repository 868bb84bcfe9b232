//! The paths of the private door, one file each.

mod configuration;
mod feeds;
mod keys;
mod log_level;
mod metrics;
mod probes;
mod refusals;
mod reload;
mod revocations;
mod shadow;
mod status;
mod verify;

pub use configuration::Configuration;
pub use feeds::Feeds;
pub use keys::Keys;
pub use log_level::LogLevel;
pub use metrics::MetricsPage;
pub use probes::{Livez, Readyz};
pub use refusals::RefusalsList;
pub use reload::Reload;
pub use revocations::{Revocations, WritableFeed};
pub use shadow::{Shadow, ShadowReport, ShadowRoute};
pub use status::Status;
pub use verify::{Question, VerifyToken};

use std::future::ready;

use super::Reply;
use super::answer::Answer;

/// An answer that is there at once.
fn now<'c>(answer: Answer) -> Reply<'c> {
    Box::pin(ready(answer))
}
