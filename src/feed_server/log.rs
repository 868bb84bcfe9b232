//! The server's log on disk: a header, then one change a line, each with a checksum that chains it to all before.
//!
//! A line that was torn by a crash stands at the end, was never acknowledged, and is cut off. Anything else that is
//! wrong is damage, and the server does not start on it: with a part of the log it would lift revocations. The file is
//! rewritten without what is over when that is most of it.
//!
//! ```text
//! 9f86d081884c7d65 {"valgate_feed":1,"epoch":"...","floor":1879048192000}
//! 2c26b46b68ffc68f 1879048192001 {"sub":"alice","exp":1790003600,"revoked_at":1790000000}
//! ```

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, BufWriter, Seek as _, Write};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::book::Book;
use super::line::Line;
use crate::clock::UnixSeconds;

/// See the module. Holds a lock on its directory while it lives.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: File,
    chain: Chain,
    /// A write failed half-way: what is at the end of the file is unknown.
    is_torn: bool,
    _lock: File,
}

#[derive(Debug, Deserialize, Serialize)]
struct Header {
    valgate_feed: u64,
    epoch: String,
    floor: u64,
}

/// The checksum of everything so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Chain([u8; 8]);

impl Log {
    /// Opens the log in `directory`, or begins one, and reads it.
    ///
    /// # Errors
    /// It cannot be read or is damaged, or another server has it open.
    pub(super) fn open(directory: &Path, now: UnixSeconds) -> io::Result<(Self, Book)> {
        std::fs::create_dir_all(directory)?;
        let lock = private().write(true).create(true).truncate(false).open(directory.join("lock"))?;
        lock.try_lock().map_err(|_| io::Error::other("another server is using it"))?;
        let path = directory.join("feed.log");
        if !path.exists() {
            let book = Book::new(new_epoch(now)?, first_number(now));
            let (file, chain) = write_whole(&path, &book, now)?;
            return Ok((Self { path, file, chain, is_torn: false, _lock: lock }, book));
        }
        let mut file = private().read(true).write(true).open(&path)?;
        let (book, chain, good) = read(&file)?;
        let length = file.metadata()?.len();
        if good < length {
            tracing::warn!(
                path = %path.display(), bytes = length - good,
                "the log ended in the middle of a line, which was never acknowledged and is cut off"
            );
            file.set_len(good)?;
            file.sync_all()?;
        }
        file.seek(io::SeekFrom::End(0))?;
        Ok((Self { path, file, chain, is_torn: false, _lock: lock }, book))
    }

    /// Writes changes with the numbers from `first` on, and returns once they are on the disk.
    ///
    /// # Errors
    /// They may be there or not; the next attempt begins with a new file.
    pub(super) fn append(
        &mut self,
        first: u64,
        lines: &[Line],
        book: &Book,
        now: UnixSeconds,
    ) -> io::Result<()> {
        if self.is_torn {
            self.rewrite(book, now)?;
        }
        let mut chain = self.chain;
        let mut text = Vec::new();
        for (number, line) in (first..).zip(lines) {
            chain = chain.write(&mut text, &format!("{number} {}", line.text))?;
        }
        self.is_torn = true;
        self.file.write_all(&text)?;
        self.file.sync_data()?;
        self.is_torn = false;
        self.chain = chain;
        Ok(())
    }

    /// Writes the book anew, without what it has forgotten.
    ///
    /// # Errors
    /// The old file stays in use.
    pub(super) fn rewrite(&mut self, book: &Book, now: UnixSeconds) -> io::Result<()> {
        (self.file, self.chain) = write_whole(&self.path, book, now)?;
        self.is_torn = false;
        Ok(())
    }
}

impl Chain {
    /// Writes a line, and gives the checksum that it ends with.
    fn write(self, to: &mut impl Write, text: &str) -> io::Result<Self> {
        let next = self.next(text);
        writeln!(to, "{next} {text}")?;
        Ok(next)
    }

    fn next(self, text: &str) -> Self {
        let sum = digest(&SHA256, &[&self.0, text.as_bytes()].concat());
        let mut next = [0; 8];
        next.iter_mut().zip(sum.as_ref()).for_each(|(to, from)| *to = *from);
        Self(next)
    }
}

impl std::fmt::Display for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

/// Reads the lines of a log as if somebody had given each the checksum that it must have: how many revocations are in
/// force by them.
///
/// # Errors
/// Why that is no log.
pub fn read_forged_log(lines: &[u8]) -> Result<usize, String> {
    let (mut chain, mut log) = (Chain::default(), Vec::new());
    for line in lines.split(|byte| *byte == b'\n') {
        // What is no text has no checksum either; it stands there as it is.
        match std::str::from_utf8(line) {
            Ok(text) => match chain.write(&mut log, text) {
                Ok(next) => chain = next,
                Err(error) => return Err(error.to_string()),
            },
            Err(_) => log.extend_from_slice(line),
        }
    }
    read(log.as_slice()).map(|(book, ..)| book.live()).map_err(|error| error.to_string())
}

fn read(file: impl io::Read) -> io::Result<(Book, Chain, u64)> {
    let mut reader = BufReader::new(file);
    let (mut chain, mut good, mut number) = (Chain::default(), 0, 0_u64);
    let mut book: Option<Book> = None;
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        let read = reader.read_until(b'\n', &mut bytes)?;
        number += 1;
        let damaged = |why: &str| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "line {number} is damaged ({why}); restore the file from a copy. Without it every revocation \
                     would be lifted: only if that is meant, move it away, and a new log is begun"
                ),
            )
        };
        let Some(line) = bytes.strip_suffix(b"\n") else {
            // Nothing more, or a line that was not written to its end.
            return book.map(|book| (book, chain, good)).ok_or_else(|| damaged("there is no header"));
        };
        let line = std::str::from_utf8(line).map_err(|_| damaged("not text"))?;
        let (sum, text) = line.split_once(' ').ok_or_else(|| damaged("no checksum"))?;
        chain = chain.next(text);
        if sum != chain.to_string() {
            return Err(damaged("the checksum does not match"));
        }
        good += read as u64;
        match &mut book {
            None => {
                let header: Header = serde_json::from_str(text).map_err(|_| damaged("not a header"))?;
                if header.valgate_feed != VERSION {
                    return Err(io::Error::other(format!(
                        "it was written by another version of valgate (format {}, this one reads {VERSION}); start \
                         that version. Nothing was changed",
                        header.valgate_feed
                    )));
                }
                book = Some(Book::new(header.epoch, header.floor));
            }
            Some(book) => {
                let (number, text) = text.split_once(' ').ok_or_else(|| damaged("no number"))?;
                let number = number.parse().map_err(|_| damaged("no number"))?;
                book.add(number, Line::read(text.as_bytes(), None).map_err(damaged)?);
            }
        }
    }
}

/// A new file in the place of the old, or the old.
fn write_whole(path: &Path, book: &Book, now: UnixSeconds) -> io::Result<(File, Chain)> {
    let temporary = path.with_extension("new");
    let mut writer = BufWriter::new(private().write(true).create(true).truncate(true).open(&temporary)?);
    let header = Header { valgate_feed: VERSION, epoch: book.epoch().to_owned(), floor: book.last() };
    let mut chain = Chain::default().write(&mut writer, &serde_json::to_string(&header)?)?;
    for (number, line) in book.in_force(now) {
        chain = chain.write(&mut writer, &format!("{number} {}", line.text))?;
    }
    let file = writer.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    if let Some(directory) = path.parent() {
        File::open(directory)?.sync_all()?;
    }
    Ok((file, chain))
}

/// Of the format.
const VERSION: u64 = 1;

/// Numbers go on where no earlier log of this feed can have come to, so that none is given twice, and a signed answer
/// from before never looks newer.
fn first_number(now: UnixSeconds) -> u64 {
    u64::try_from(now.0).unwrap_or_default() << 20
}

fn new_epoch(now: UnixSeconds) -> io::Result<String> {
    let mut random = [0; 8];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| io::Error::other("no randomness to be had"))?;
    Ok(format!("{}-{:016x}", now.0, u64::from_le_bytes(random)))
}

/// Readable by the server only.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}
