//! Files that the configuration names.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::config::document::Reference;
use crate::config::place::Place;

/// Largest file that `file:` reads. Secrets are short.
const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// How paths in the configuration lead to files.
pub(in super::super) struct Files<'a> {
    /// What relative paths are relative to.
    base_dir: &'a Path,
    /// Whether files that are named must be readable now.
    probe: bool,
    references: RefCell<Vec<Reference>>,
}

impl<'a> Files<'a> {
    pub(in super::super) fn new(base_dir: &'a Path, probe: bool) -> Self {
        Self { base_dir, probe, references: RefCell::default() }
    }

    /// The files that the configuration depends on.
    pub(in super::super) fn into_references(self) -> Vec<Reference> {
        self.references.into_inner()
    }

    /// The path as seen from this process.
    pub(super) fn resolve(&self, path: &str) -> PathBuf {
        self.base_dir.join(path)
    }

    /// Notes that the configuration depends on this file, named at `place`: when its content changes, the
    /// configuration counts as changed. To be called before the content is read.
    pub(super) fn depend(&self, place: &Place, path: &Path) {
        self.references.borrow_mut().push(Reference::take(place, path));
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
    pub(super) fn read_secret(&self, path: &str, place: &Place) -> io::Result<String> {
        let path = self.resolve(path);
        self.depend(place, &path);
        let mut bytes = Vec::new();
        File::open(path)?.take(MAX_SECRET_BYTES + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_SECRET_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is too large for a secret"));
        }
        let text = String::from_utf8(bytes)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not text"))?;
        let text = text.strip_suffix('\n').unwrap_or(&text);
        Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
    }
}
