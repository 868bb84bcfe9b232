//! `valgate check`: says everything that is wrong with a configuration file, without starting anything.

use std::io::{self, Write};
use std::path::Path;

use crate::config;

/// Checks the file at `path` and tells the outcome on `out`. True if it is fit to run on.
pub fn check(path: &Path, out: &mut dyn Write) -> io::Result<bool> {
    match config::load(path) {
        Ok(config) => {
            writeln!(
                out,
                "{}: good: {} listeners, {} issuers, {} feeds, {} upstreams, {} routes",
                path.display(),
                config.listeners.len(),
                config.issuers.len(),
                config.feeds.len(),
                config.upstreams.len(),
                config.routes.len()
            )?;
            Ok(true)
        }
        Err(diagnostics) => {
            writeln!(out, "{diagnostics}")?;
            Ok(false)
        }
    }
}
