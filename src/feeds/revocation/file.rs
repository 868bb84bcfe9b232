//! The feed in a file: the same document, always a snapshot, looked at often and read when it changed.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::path::PathBuf;
use std::time::SystemTime;

use super::document::{Document, DocumentError, parse};
use super::error::SyncError;
use super::replica::{Replica, Taken, blocking};
use crate::revocation::Staged;

pub(super) struct FileSource {
    path: PathBuf,
    max_bytes: u64,
    /// What the file looked like when it was last taken over.
    seen: Option<Look>,
}

/// By which a changed file is told without reading it. A rename over it, or a switched link, always shows.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Look {
    length: u64,
    modified: Option<SystemTime>,
    inode: (u64, u64),
}

impl FileSource {
    pub(super) fn new(path: PathBuf, max_bytes: u64) -> Self {
        Self { path, max_bytes, seen: None }
    }

    /// Looks at the file, and has the replica take it over if it changed.
    pub(super) async fn sync(&mut self, replica: &mut Replica) -> Result<Taken, SyncError> {
        let as_of = replica.clock.monotonic();
        let (path, seen, max_bytes, staged) = (self.path.clone(), self.seen, self.max_bytes, replica.stage());
        let looked = blocking(move || -> io::Result<Option<(Look, Result<Document, DocumentError>)>> {
            let file = File::open(&path)?;
            let look = Look::at(&file.metadata()?);
            if seen == Some(look) {
                return Ok(None);
            }
            if look.length > max_bytes {
                return Err(io::Error::other(format!("it is larger than {max_bytes} bytes")));
            }
            Ok(Some((look, read(file, max_bytes, staged))))
        });
        let looked = looked
            .await
            .and_then(|looked| looked)
            .map_err(|error| SyncError::File { path: self.path.clone(), error })?;
        let Some((look, document)) = looked else {
            replica.unchanged(as_of).await;
            return Ok(Taken::Unchanged);
        };
        // A bad file is read again each time: it may be one that is still being written.
        self.seen = None;
        let taken = replica.take(document?, None, as_of).await?;
        self.seen = Some(look);
        Ok(taken)
    }
}

fn read(file: File, max_bytes: u64, staged: Staged) -> Result<Document, DocumentError> {
    parse(file.take(max_bytes), staged)
}

impl Look {
    fn at(metadata: &Metadata) -> Self {
        Self { length: metadata.len(), modified: metadata.modified().ok(), inode: inode(metadata) }
    }
}

#[cfg(unix)]
fn inode(metadata: &Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    (metadata.dev(), metadata.ino())
}

#[cfg(not(unix))]
fn inode(_: &Metadata) -> (u64, u64) {
    (0, 0)
}
