//! `valgate schema`: the JSON Schema of the configuration file, for editors and pipelines.

use std::io::{self, Write};

use crate::config;

/// Prints the schema on `out`.
pub fn schema(out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{:#}", config::schema())
}
