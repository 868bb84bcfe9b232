//! The copy of a feed on disk: a snapshot of the index, and a journal of what came after it.
//!
//! Both hold the index's hashes, so no subject or token id is on disk in the clear. Everything is checksummed, the
//! journal batch by batch, each chained to the one before: a torn tail costs its batches, which the source is asked
//! for again, and anything else that is wrong costs the copy; one of what nobody could be asked for again is put aside
//! then, never overwritten. Knows nothing of sources.
//!
//! Two may write for a while: two processes when one replaces the other, two tasks when a reload changes the feed. So
//! each looks whether the files end where it left them, and begins anew if not. What only the files know is taken over
//! first, and by whoever asks now and then also while it has nothing to write.

mod aside;
mod codec;
mod key;

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read as _, Seek as _, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::digest::{SHA256, digest};

use crate::clock::UnixSeconds;
use crate::revocation::{Index, Record, Staged};

use super::keeper::Stand;
use super::replica::Position;
use codec::{Checked, Digest, Summed};
pub use key::load_fact_hasher;

/// Where one feed's copy lives.
#[derive(Debug)]
pub(super) struct Store {
    snapshot: PathBuf,
    journal: PathBuf,
    /// What the copy is only good for: see [`Self::new`] and [`Self::durable`].
    identity: Digest,
    tail: Option<Tail>,
    /// The end of what somebody else has written, as far as it was taken over without writing.
    seen: Option<End>,
    is_durable: bool,
    /// Another feed keeps its copy under the same name by now.
    is_replaced: bool,
}

/// The end of the journal, where the next batch goes.
#[derive(Debug)]
struct Tail {
    end: End,
    snapshot_bytes: u64,
}

/// How long the journal is, and the sum that it ends with, or else the snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct End {
    chain: Digest,
    bytes: u64,
}

/// What the files are found to be.
#[derive(Debug)]
enum Found {
    Nothing,
    /// A copy of something else, or hashed with another key.
    Foreign,
    /// A copy that another version of this program made.
    OtherVersion,
    Copy(Restored),
}

/// What was restored besides the index.
#[derive(Debug)]
pub(super) struct Restored {
    pub(super) stand: Stand,
    /// The journal ended in the middle of a batch.
    pub(super) torn: bool,
}

impl Store {
    /// The copy in `state_dir` of the feed called `name`, which is read from `source`. Good for these issuers and this
    /// leeway only: a source that is asked for what is new says nothing of what was left out before.
    pub(super) fn new(state_dir: &Path, name: &str, source: &str, index: &Index) -> Self {
        let (key, leeway) = (index.hasher().key(), index.leeway().as_secs().to_le_bytes());
        let issuers = index.issuers();
        let parts = [source.as_bytes(), &key, &leeway].into_iter();
        let identity = identity(parts.chain(issuers.iter().map(String::as_bytes)));
        Self::at(state_dir, name, identity, false)
    }

    /// For what nobody could be asked for again: it is on the disk before it counts as kept, and good for as long as
    /// it can be read, which takes the hash key.
    pub(super) fn durable(state_dir: &Path, name: &str, source: &str, index: &Index) -> Self {
        let key = index.hasher().key();
        Self::at(state_dir, name, identity([source.as_bytes(), &key].into_iter()), true)
    }

    fn at(state_dir: &Path, name: &str, identity: Digest, is_durable: bool) -> Self {
        let stem = file_stem(name);
        let [snapshot, journal] = ["snapshot", "journal"].map(|end| state_dir.join(format!("{stem}.{end}")));
        Self { snapshot, journal, identity, tail: None, seen: None, is_durable, is_replaced: false }
    }

    /// Whether nobody else has what is kept.
    pub(super) fn is_durable(&self) -> bool {
        self.is_durable
    }

    /// Brings the index back; `None` if there is no copy, or one of something else that its source has.
    pub(super) fn load(&mut self, index: &Index) -> io::Result<Option<Restored>> {
        aside::sweep(&self.snapshot);
        match self.read(index) {
            Ok(Found::Copy(restored)) => {
                if restored.torn
                    && self.is_durable
                    && let Err(error) = aside::copy(&self.journal)
                {
                    tracing::warn!(%error, "a torn journal cannot be put aside before it is made whole");
                }
                Ok(Some(restored))
            }
            Ok(Found::Nothing) => Ok(None),
            Ok(Found::Foreign) if !self.is_durable => Ok(None),
            Ok(Found::Foreign) => Err(self.put_aside(&corrupt(FOREIGN))),
            Ok(Found::OtherVersion) => Err(self.put_aside(&corrupt(OTHER_VERSION))),
            Err(error) if self.is_durable => Err(self.put_aside(&error)),
            Err(error) => Err(error),
        }
    }

    /// Adds what the files have to the index.
    fn read(&mut self, index: &Index) -> io::Result<Found> {
        if index.is_empty() {
            return self.read_into(index);
        }
        // A journal also lifts, which is not to reach what this index knows of its own.
        let apart = index.empty_like();
        let found = self.read_into(&apart)?;
        add_missing(index, &apart)?;
        Ok(found)
    }

    fn read_into(&mut self, index: &Index) -> io::Result<Found> {
        let (found, tail) = self.read_files(index)?;
        // After a torn batch nothing can follow, so the next write begins anew.
        self.tail = tail;
        Ok(found)
    }

    fn read_files(&self, index: &Index) -> io::Result<(Found, Option<Tail>)> {
        let file = match File::open(&self.snapshot) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Found::Nothing, None)),
            file => file?,
        };
        let snapshot_bytes = file.metadata()?.len();
        let journal = match std::fs::metadata(&self.journal) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Ok(metadata) if !metadata.is_file() => None,
            _ => Some(BufReader::new(File::open(&self.journal)?)),
        };
        let (found, end) = read_copy(BufReader::new(file), journal, self.identity, index)?;
        Ok((found, end.map(|end| Tail { end, snapshot_bytes })))
    }

    /// Keeps the changes, which are not in the index yet, on top of the copy if that has
    /// all before them, else together with the index; without changes, the index.
    pub(super) fn keep(&mut self, index: &Index, changes: Option<&Staged>, stand: &Stand) -> io::Result<()> {
        // Taken, so that a failure half-way leads to a new beginning.
        let tail = self.tail.take();
        let wrote_before = tail.is_some();
        match (tail.filter(|tail| self.ends_at(tail)), changes) {
            (Some(tail), Some(changes)) => return self.append(&tail, changes, stand),
            (None, _) if self.is_durable => self.catch_up(index, wrote_before)?,
            _ => {}
        }
        self.tail = None;
        let mut records = Vec::with_capacity(index.len());
        index.for_each_record(|record: Record| {
            records.push(record);
            io::Result::Ok(())
        })?;
        records.extend(changes.into_iter().flat_map(Staged::records));
        let kinds = index.kinds() | changes.map_or(0, Staged::kinds);
        self.begin(kinds, &records, stand)
    }

    /// Keeps these as all there is.
    pub(super) fn keep_snapshot(&mut self, snapshot: &Staged, stand: &Stand) -> io::Result<()> {
        self.tail = None;
        self.begin(snapshot.kinds(), snapshot.records(), stand)
    }

    /// Whether the journal is so long that the whole is better written anew.
    pub(super) fn is_long(&self) -> bool {
        self.tail.as_ref().is_some_and(|tail| tail.end.bytes > tail.snapshot_bytes.max(MIN_JOURNAL))
    }

    /// Whether nobody has written since this store has.
    fn ends_at(&self, tail: &Tail) -> bool {
        self.end().is_ok_and(|end| end == tail.end)
    }

    fn end(&self) -> io::Result<End> {
        let bytes = match std::fs::metadata(&self.journal) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            metadata => metadata?.len(),
        };
        let chain = last_sum(if bytes == 0 { &self.snapshot } else { &self.journal })?;
        Ok(End { chain, bytes })
    }

    /// Takes over what somebody else has revoked since, and says whether there was anything. Neither touches the files,
    /// which may be half written, nor the tail: whether this index has anything that they lost, only a write finds out.
    pub(super) fn follow(&mut self, index: &Index) -> io::Result<bool> {
        let end = match self.end() {
            // Nobody has written yet, or somebody begins anew.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            end => end?,
        };
        if self.seen == Some(end) || self.tail.as_ref().is_some_and(|tail| tail.end == end) {
            return Ok(false);
        }
        let apart = index.empty_like();
        let (found, _) = self.read_files(&apart)?;
        // As of before they were read: what is written meanwhile is read once more.
        let changed = matches!(found, Found::Copy(_)) && add_missing(index, &apart)?;
        self.seen = Some(end);
        Ok(changed)
    }

    /// Takes over what somebody else has written, who may be the only one that knows it.
    fn catch_up(&mut self, index: &Index, wrote_before: bool) -> io::Result<()> {
        let unusable = match self.read(index) {
            Ok(Found::Nothing | Found::Copy(_)) => return Ok(()),
            // Whoever came later and put this store's copy aside is the one that will still be there.
            Ok(_) if wrote_before || self.is_replaced => {
                self.is_replaced = true;
                return Err(corrupt("another feed of this name keeps its copy there now"));
            }
            Ok(Found::Foreign) => corrupt(FOREIGN),
            Ok(Found::OtherVersion) => corrupt(OTHER_VERSION),
            Err(error) => error,
        };
        tracing::warn!(error = %self.put_aside(&unusable), "the copy of a revocation feed is begun anew");
        Ok(())
    }

    /// Moves files out of the way that cannot be used, and says where they are.
    fn put_aside(&self, why: &io::Error) -> io::Error {
        let moved = aside::rename(&self.snapshot).and_then(|snapshot| {
            aside::rename(&self.journal)?;
            Ok(snapshot)
        });
        let what = match moved {
            Ok(Some(place)) => format!("{why}; it is put aside as {}", place.display()),
            Ok(None) => format!("{why}; it is gone"),
            Err(error) => format!("{why}; and it cannot be put aside: {error}"),
        };
        io::Error::new(why.kind(), what)
    }

    fn append(&mut self, tail: &Tail, changes: &Staged, stand: &Stand) -> io::Result<()> {
        let Stand { position, heard_at } = stand;
        let mut batch = Summed::chained(Vec::new(), tail.end.chain);
        batch.write_batch(position.cursor.as_deref(), *heard_at, changes.kinds(), changes.records())?;
        let (batch, chain) = batch.finish()?;
        let mut file = private().append(true).create(true).open(&self.journal)?;
        file.write_all(&batch)?;
        if self.is_durable {
            file.sync_data()?;
            if tail.end.bytes == 0 {
                sync_directory(&self.journal)?;
            }
        }
        let end = End { chain, bytes: tail.end.bytes + batch.len() as u64 };
        self.tail = Some(Tail { end, snapshot_bytes: tail.snapshot_bytes });
        Ok(())
    }

    fn begin(&mut self, kinds: u8, records: &[Record], stand: &Stand) -> io::Result<()> {
        let Stand { position, heard_at } = stand;
        // A journal that does not follow from the snapshot fails its chain, so either may be on disk alone.
        let mut chain = [0; 32];
        replace_file(&self.snapshot, |file| {
            let mut writer = Summed::new(BufWriter::new(file));
            writer.write(MAGIC)?;
            writer.write(&self.identity)?;
            writer.write_text(Some(&position.epoch))?;
            writer.write_batch(position.cursor.as_deref(), *heard_at, kinds, records)?;
            let (mut file, sum) = writer.finish()?;
            chain = sum;
            file.flush()
        })?;
        match std::fs::remove_file(&self.journal) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let snapshot_bytes = std::fs::metadata(&self.snapshot)?.len();
        self.tail = Some(Tail { end: End { chain, bytes: 0 }, snapshot_bytes });
        Ok(())
    }
}

/// Adds what was read apart, as far as the index does not say as much: only that needs room. Whether there was any.
fn add_missing(index: &Index, apart: &Index) -> io::Result<bool> {
    let (mut staged, kinds) = (index.stage(), apart.kinds());
    let add = |record| if index.covers(record) { Ok(()) } else { staged.push_record(record, kinds) };
    apart.for_each_record(add).map_err(io::Error::other)?;
    index.merge(&staged).map_err(io::Error::other)
}

/// What the two files have, which the index has from then on, and where the journal ends, unless it is torn.
fn read_copy(
    snapshot: impl io::Read,
    mut journal: Option<impl io::BufRead>,
    identity: Digest,
    index: &Index,
) -> io::Result<(Found, Option<End>)> {
    let mut reader = Checked::new(snapshot);
    let magic = reader.read_array()?;
    if magic != *MAGIC && magic.starts_with(MAGIC_OF_ALL) {
        return Ok((Found::OtherVersion, None));
    }
    if magic != *MAGIC {
        return Err(corrupt("it is not a copy of a revocation feed"));
    }
    if reader.read_array()? != identity {
        return Ok((Found::Foreign, None));
    }
    let epoch = reader.read_text()?.ok_or_else(|| corrupt("it names no epoch"))?;
    let mut staged = index.stage();
    let (mut cursor, mut heard_at) = reader.read_batch(&mut staged)?;
    let mut chain = reader.finish()?;
    let (mut torn, mut bytes) = (false, 0);
    index.replace(&staged);
    while let Some(journal) = &mut journal {
        let mut batch = index.stage();
        match read_journal_batch(journal, chain, &mut batch) {
            Ok(None) => break,
            Ok(Some(read)) => {
                index.merge(&batch).map_err(io::Error::other)?;
                (cursor, heard_at, chain) = (read.cursor, read.heard_at, read.sum);
                bytes += read.bytes;
            }
            Err(_) => {
                torn = true;
                break;
            }
        }
    }
    let stand = Stand { position: Position { epoch, cursor }, heard_at };
    Ok((Found::Copy(Restored { stand, torn }), (!torn).then_some(End { chain, bytes })))
}

/// Reads the content of a snapshot, from its epoch on, and of one batch of a journal, as if somebody had put them into the
/// files with checksums that are right: bytes that no checksum has kept away. Whether there was a copy in it, and whether
/// its journal was torn.
///
/// # Errors
/// Why it is no copy.
pub fn read_forged_copy(snapshot: &[u8], batch: &[u8], index: &Index) -> Result<bool, String> {
    let identity = Digest::default();
    let forged = || -> io::Result<bool> {
        let mut file = Summed::new(Vec::new());
        file.write(MAGIC)?;
        file.write(&identity)?;
        file.write(snapshot)?;
        let (file, sum) = file.finish()?;
        let mut journal = Summed::chained(Vec::new(), sum);
        journal.write(batch)?;
        let (journal, _) = journal.finish()?;
        match read_copy(file.as_slice(), Some(journal.as_slice()), identity, index)? {
            (Found::Copy(restored), _) => Ok(restored.torn),
            _ => Err(corrupt("it is of another kind")),
        }
    };
    forged().map_err(|error| error.to_string())
}

struct JournalBatch {
    cursor: Option<String>,
    heard_at: UnixSeconds,
    sum: Digest,
    bytes: u64,
}

fn read_journal_batch(
    journal: &mut impl io::BufRead,
    chain: Digest,
    staged: &mut Staged,
) -> io::Result<Option<JournalBatch>> {
    if journal.fill_buf()?.is_empty() {
        return Ok(None);
    }
    let mut reader = Checked::chained(journal.by_ref(), chain);
    let (cursor, heard_at) = reader.read_batch(staged)?;
    let bytes = reader.bytes() + 32;
    Ok(Some(JournalBatch { cursor, heard_at, sum: reader.finish_batch()?, bytes }))
}

/// Puts a whole new file in the place of another, or leaves the other.
pub(super) fn replace_file(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    // A name of its own: two writers must not write into one file.
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let (process, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let temporary = path.with_extension(format!("{process}-{count}.{}", aside::UNFINISHED));
    let mut file = private().write(true).create(true).truncate(true).open(&temporary)?;
    let written = write(&mut file).and_then(|()| file.sync_all());
    let replaced = written.and_then(|()| std::fs::rename(&temporary, path));
    if replaced.is_err() {
        // Best effort: the error that matters is the one below.
        let _ = std::fs::remove_file(&temporary);
    }
    replaced?;
    sync_directory(path)
}

fn identity<'p>(parts: impl Iterator<Item = &'p [u8]>) -> Digest {
    let mut identity = Summed::new(io::sink());
    for part in parts {
        // Writing to a sink cannot fail.
        let _ = identity.write_bytes(part);
    }
    identity.sum()
}

/// The sum that ends a file.
fn last_sum(path: &Path) -> io::Result<Digest> {
    let (mut file, mut sum) = (File::open(path)?, Digest::default());
    let length = i64::try_from(sum.len()).map_err(io::Error::other)?;
    file.seek(io::SeekFrom::End(-length))?;
    file.read_exact(&mut sum)?;
    Ok(sum)
}

/// A name counts after a loss of power only once its directory is on the disk.
fn sync_directory(file: &Path) -> io::Result<()> {
    file.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

/// Readable by the gateway only.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// A name that is safe in every file system, and different for different feeds.
pub(super) fn file_stem(name: &str) -> String {
    let plain: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' })
        .take(MAX_PLAIN_NAME)
        .collect();
    let sum = digest(&SHA256, name.as_bytes());
    sum.as_ref().iter().take(4).fold(format!("revocation-{plain}-"), |stem, byte| format!("{stem}{byte:02x}"))
}

fn corrupt(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// The last two digits are the version of the format.
const MAGIC: &[u8; 8] = b"VALREV01";
const MAGIC_OF_ALL: &[u8] = b"VALREV";
const OTHER_VERSION: &str =
    "it was written by another version of valgate, in a format that this one does not read";
const FOREIGN: &str = "it is of another source, or was kept with another hash key (revocation.key)";
/// Below this, a journal is not worth folding into a new snapshot.
const MIN_JOURNAL: u64 = 1 << 20;
const MAX_PLAIN_NAME: usize = 40;

#[cfg(test)]
mod tests;
