//! The copy of a feed on disk: a snapshot of the index, and a journal of what came after it.
//!
//! Both hold the index's hashes, so no subject or token id is on disk in the clear. Everything is checksummed, the
//! journal batch by batch, each chained to the one before: a torn tail costs its batches, which the source is asked
//! for again, and anything else that is wrong costs the copy. Knows nothing of sources.

mod codec;
mod key;

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

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
    /// What the copy is only good for: this source, these issuers, this leeway, this hash key.
    identity: Digest,
    tail: Option<Tail>,
    is_durable: bool,
}

/// The end of the journal, where the next batch goes.
#[derive(Debug)]
struct Tail {
    chain: Digest,
    bytes: u64,
    snapshot_bytes: u64,
}

/// What was restored besides the index.
#[derive(Debug)]
pub(super) struct Restored {
    pub(super) stand: Stand,
    /// The journal ended in the middle of a batch.
    pub(super) torn: bool,
}

impl Store {
    /// The copy in `state_dir` of the feed called `name`, which is read from `source`.
    pub(super) fn new(state_dir: &Path, name: &str, source: &str, index: &Index) -> Self {
        let mut identity = Summed::new(io::sink());
        let parts = [source.as_bytes(), &index.hasher().key(), &index.leeway().as_secs().to_le_bytes()];
        for part in parts.into_iter().chain(index.issuers().iter().map(String::as_bytes)) {
            // Writing to a sink cannot fail.
            let _ = identity.write_bytes(part);
        }
        let stem = file_stem(name);
        Self {
            snapshot: state_dir.join(format!("{stem}.snapshot")),
            journal: state_dir.join(format!("{stem}.journal")),
            identity: identity.sum(),
            tail: None,
            is_durable: false,
        }
    }

    /// For what nobody could be asked for again: it is on the disk before it counts as kept.
    pub(super) fn durable(self) -> Self {
        Self { is_durable: true, ..self }
    }

    /// Brings the index back; `None` if there is no copy, or one of something else.
    pub(super) fn load(&mut self, index: &Index) -> io::Result<Option<Restored>> {
        let file = match File::open(&self.snapshot) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let snapshot_bytes = file.metadata()?.len();
        let mut reader = Checked::new(BufReader::new(file));
        if reader.read_array()? != *MAGIC {
            return Err(corrupt("it is not a copy of a revocation feed, or one of another version"));
        }
        if reader.read_array()? != self.identity {
            return Ok(None);
        }
        let epoch = reader.read_text()?.ok_or_else(|| corrupt("it names no epoch"))?;
        let mut staged = index.stage();
        let (mut cursor, mut heard_at) = reader.read_batch(&mut staged)?;
        let mut chain = reader.finish()?;
        let mut torn = false;
        let mut bytes = 0;
        let mut journal = match File::open(&self.journal) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            file => Some(BufReader::new(file?)),
        };
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
        // After a torn batch nothing can follow, so the next write begins anew.
        self.tail = (!torn).then_some(Tail { chain, bytes, snapshot_bytes });
        let stand = Stand { position: Position { epoch, cursor }, heard_at };
        Ok(Some(Restored { stand, torn }))
    }

    /// Keeps the changes, which are not in the index yet, on top of the copy if that has
    /// all before them, else together with the index; without changes, the index.
    pub(super) fn keep(&mut self, index: &Index, changes: Option<&Staged>, stand: &Stand) -> io::Result<()> {
        // Taken, so that a failure half-way leads to a new beginning.
        if let (Some(tail), Some(changes)) = (self.tail.take(), changes) {
            return self.append(&tail, changes, stand);
        }
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
        self.tail.as_ref().is_some_and(|tail| tail.bytes > tail.snapshot_bytes.max(MIN_JOURNAL))
    }

    fn append(&mut self, tail: &Tail, changes: &Staged, stand: &Stand) -> io::Result<()> {
        let Stand { position, heard_at } = stand;
        let mut batch = Summed::chained(Vec::new(), tail.chain);
        batch.write_batch(position.cursor.as_deref(), *heard_at, changes.kinds(), changes.records())?;
        let (batch, chain) = batch.finish()?;
        let mut file = private().append(true).create(true).open(&self.journal)?;
        file.write_all(&batch)?;
        if self.is_durable {
            file.sync_data()?;
            if tail.bytes == 0 {
                sync_directory(&self.journal)?;
            }
        }
        self.tail =
            Some(Tail { chain, bytes: tail.bytes + batch.len() as u64, snapshot_bytes: tail.snapshot_bytes });
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
        self.tail = Some(Tail { chain, bytes: 0, snapshot_bytes });
        Ok(())
    }
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
    let temporary = path.with_extension("new");
    let mut file = private().write(true).create(true).truncate(true).open(&temporary)?;
    write(&mut file)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    sync_directory(path)
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

const MAGIC: &[u8; 8] = b"VALREV01";
/// Below this, a journal is not worth folding into a new snapshot.
const MIN_JOURNAL: u64 = 1 << 20;
const MAX_PLAIN_NAME: usize = 40;

#[cfg(test)]
mod tests;
