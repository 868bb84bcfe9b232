//! The copy of the last good configuration, in `state_dir`: what a restart can run on while the file is broken.
//!
//! It is the file's text as it was, with `${ENV_VAR}` and `file:` references unresolved, for the gateway alone to read.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::config::Config;

/// The name of the copy.
pub const FILE: &str = "last-good.yaml";

/// Keeps the copy. A failure is told and changes nothing else.
pub fn keep(config: &Config, state_dir: Option<&Path>) {
    let Some(state_dir) = state_dir else { return };
    if let Err(error) = write(&state_dir.join(FILE), config.document.text()) {
        tracing::warn!(directory = %state_dir.display(), %error, "the last good configuration cannot be kept");
    }
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let temporary = path.with_extension("new");
    // Made anew, so that its mode is what is asked for.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(temporary, path)
}
