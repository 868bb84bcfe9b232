//! `valgate check`: says everything that is wrong with a configuration file, without starting anything.

use std::io::{self, Write};
use std::path::Path;

use crate::config;

/// Checks the file at `path` and tells the outcome on `out`. True if it is fit to run on.
pub fn check(path: &Path, out: &mut dyn Write) -> io::Result<bool> {
    match config::load(path) {
        Ok(config) => {
            let found = [
                count(config.listeners.len(), "listener"),
                count(config.issuers.len(), "issuer"),
                count(config.feeds.len(), "feed"),
                count(config.upstreams.len(), "upstream"),
                count(config.routes.len(), "route"),
            ];
            writeln!(out, "{}: good: {}", path.display(), found.join(", "))?;
            Ok(true)
        }
        Err(diagnostics) => {
            writeln!(out, "{diagnostics}")?;
            Ok(false)
        }
    }
}

fn count(number: usize, of: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {of}{plural}")
}
