//! Changes while the gateway runs.

use std::time::Duration;

/// When the configuration is put in force anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reload {
    /// How often its files are looked at; none: never.
    pub interval: Option<Duration>,
}
