//! Files that the configuration names.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// Largest file that `file:` reads. Secrets are short.
const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// How paths in the configuration lead to files.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Files<'a> {
    /// What relative paths are relative to.
    pub(in super::super) base_dir: &'a Path,
    /// Whether files that are named must be readable now.
    pub(in super::super) probe: bool,
}

impl Files<'_> {
    /// The path as seen from this process.
    pub(super) fn resolve(&self, path: &str) -> PathBuf {
        self.base_dir.join(path)
    }

    /// Whether the file can be read; always so without probing.
    pub(super) fn readable(&self, path: &Path) -> io::Result<()> {
        if !self.probe {
            return Ok(());
        }
        if File::open(path)?.metadata()?.is_file() {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"))
    }

    /// The text of a short file, without the line end that editors add.
    pub(super) fn read_secret(&self, path: &str) -> io::Result<String> {
        let mut bytes = Vec::new();
        File::open(self.resolve(path))?.take(MAX_SECRET_BYTES + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_SECRET_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is too large for a secret"));
        }
        let text = String::from_utf8(bytes)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not text"))?;
        let text = text.strip_suffix('\n').unwrap_or(&text);
        Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
    }
}
