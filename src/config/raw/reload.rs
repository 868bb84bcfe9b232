//! `reload`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::DurationText;

/// When the configuration is put in force anew while the gateway runs. SIGHUP does it at any time.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Reload {
    /// Look at this file and at those that it names (certificates, private keys, authorities, secrets), and reload
    /// when one has other content. Symbolic links are followed, so that mounted Kubernetes volumes are noticed.
    pub watch: bool,
    /// How often to look. A change is taken up when two looks in a row find it the same.
    pub interval: DurationText,
}

impl Default for Reload {
    fn default() -> Self {
        Self { watch: true, interval: "2s".into() }
    }
}
