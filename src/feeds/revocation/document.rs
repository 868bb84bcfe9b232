//! The revocation document (docs/revocation-feed.md): read as a stream, its entries staged one by one.
//!
//! What is wrong with one entry costs that entry, which is counted; what is wrong with the document costs the
//! document. Errors name members and places, never values. Knows nothing of where the bytes come from, nor whether
//! the document fits the one before it.

mod entry;
mod line;
mod listed;

use std::fmt;
use std::io::{self, BufReader, Read};

use aws_lc_rs::digest::{Context, SHA256};
use serde::Deserializer as _;
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::revocation::{Change, Full, Pushed, Staged};

use super::lag::Moments;
use entry::{Dated, EntrySeed, Loose};
pub(super) use line::check_revocations;
pub(super) use line::{check_usable, on_top, parse_dated};
pub use line::{lift_line, parse_change, parse_revocation, revocation_line};
pub use listed::Listed;

/// A document read to its end.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) kind: Kind,
    /// Which history the cursors belong to.
    pub(super) epoch: String,
    /// Where the next delta begins.
    pub(super) cursor: Option<String>,
    /// Where this delta begins.
    pub(super) since: Option<String>,
    pub(super) entries: Entries,
    /// SHA-256 of the bytes, if they came as one text.
    pub(super) digest: Option<[u8; 32]>,
    /// The source says that there is nothing, which is more than saying nothing.
    pub(super) surely_empty: bool,
}

/// What a document says about the changes in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// They are all there is.
    Snapshot,
    /// They come on top.
    Delta,
}

/// The entries of a document.
#[derive(Debug)]
pub(super) struct Entries {
    pub(super) staged: Staged,
    /// How many there were, of whatever quality.
    pub(super) total: u64,
    /// How many were skipped as broken.
    pub(super) broken: u64,
    /// The number (from 1) of the first broken one, and what is wrong with it.
    pub(super) first_broken: Option<(u64, &'static str)>,
    /// How many were skipped since the feed does not speak for their issuer.
    pub(super) foreign: u64,
    /// When those of use were revoked.
    pub(super) moments: Moments,
}

impl Entries {
    pub(super) fn new(staged: Staged) -> Self {
        let moments = Moments::default();
        Self { staged, total: 0, broken: 0, first_broken: None, foreign: 0, moments }
    }

    /// Takes in one more.
    pub(super) fn push(&mut self, entry: Result<Dated, &'static str>) -> Result<(), Full> {
        self.total += 1;
        match entry {
            Ok(Dated { change, revoked_at }) => match self.staged.push(&change)? {
                Pushed::Staged if matches!(change, Change::Revoke(_)) => self.moments.add(revoked_at),
                Pushed::Staged => {}
                Pushed::ForeignIssuer => self.foreign += 1,
            },
            Err(reason) => {
                self.broken += 1;
                self.first_broken.get_or_insert((self.total, reason));
            }
        }
        Ok(())
    }
}

/// Why a document cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum DocumentError {
    #[error("the document is empty")]
    Empty,
    #[error("the document cannot be read: {0}")]
    Io(io::Error),
    #[error("the document is not well formed: {0}")]
    Malformed(serde_json::Error),
    #[error("the document has no '{0}'")]
    Missing(&'static str),
    #[error("the document's '{member}' must be {expected}")]
    Member { member: &'static str, expected: &'static str },
    #[error("the document's version is not supported; this gateway understands version 1")]
    Version,
    #[error("all {total} entries are broken; the first: {reason}")]
    NothingUsable { total: u64, reason: &'static str },
}

/// Reads one document. The reader must fail rather than end early, and should be bounded.
pub(super) fn parse(reader: impl Read, staged: Staged) -> Result<Document, DocumentError> {
    let mut hashed = Hashed { reader, context: Context::new(&SHA256), any: false };
    let mut json = serde_json::Deserializer::from_reader(BufReader::with_capacity(BUFFER, &mut hashed));
    let head = json.deserialize_any(DocumentVisitor { staged }).and_then(|head| json.end().map(|()| head));
    drop(json);
    let head = match head {
        Ok(head) => head,
        Err(error) if error.is_io() => return Err(DocumentError::Io(error.into())),
        Err(_) if !hashed.any => return Err(DocumentError::Empty),
        Err(error) => return Err(DocumentError::Malformed(error)),
    };
    let mut digest = [0; 32];
    digest.iter_mut().zip(hashed.context.finish().as_ref()).for_each(|(to, from)| *to = *from);
    head.into_document(digest)
}

/// The members as they came, in whatever order.
struct Head {
    version: Option<Loose>,
    kind: Option<Loose>,
    epoch: Option<Loose>,
    cursor: Option<Loose>,
    since: Option<Loose>,
    entries: Option<Entries>,
}

impl Head {
    fn into_document(self, digest: [u8; 32]) -> Result<Document, DocumentError> {
        match self.version {
            None => return Err(DocumentError::Missing("version")),
            Some(version) if version.is_one() => {}
            Some(_) => return Err(DocumentError::Version),
        }
        let kind = match text("kind", self.kind)?.as_deref() {
            Some("snapshot") => Kind::Snapshot,
            Some("delta") => Kind::Delta,
            Some(_) => {
                return Err(DocumentError::Member { member: "kind", expected: "\"snapshot\" or \"delta\"" });
            }
            None => return Err(DocumentError::Missing("kind")),
        };
        let epoch = text("epoch", self.epoch)?.ok_or(DocumentError::Missing("epoch"))?;
        let cursor = text("cursor", self.cursor)?;
        let since = text("since", self.since)?;
        let entries = self.entries.ok_or(DocumentError::Missing("entries"))?;
        match (kind, &cursor, &since) {
            (Kind::Delta, None, _) => return Err(DocumentError::Missing("cursor")),
            (Kind::Delta, _, None) => return Err(DocumentError::Missing("since")),
            _ => {}
        }
        match entries.first_broken {
            Some((_, reason)) if entries.broken == entries.total => {
                Err(DocumentError::NothingUsable { total: entries.total, reason })
            }
            _ => Ok(Document {
                kind,
                epoch,
                cursor,
                since,
                entries,
                digest: Some(digest),
                surely_empty: false,
            }),
        }
    }
}

fn text(member: &'static str, value: Option<Loose>) -> Result<Option<String>, DocumentError> {
    match value {
        None | Some(Loose::Null) => Ok(None),
        Some(Loose::Text(text)) if (1..=MAX_POSITION_BYTES).contains(&text.len()) => Ok(Some(text)),
        Some(_) => Err(DocumentError::Member { member, expected: "a string of 1 to 1024 bytes" }),
    }
}

struct DocumentVisitor {
    staged: Staged,
}

impl<'de> Visitor<'de> for DocumentVisitor {
    type Value = Head;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with version, kind, epoch and entries")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Head, A::Error> {
        let mut staged = Some(self.staged);
        let mut head =
            Head { version: None, kind: None, epoch: None, cursor: None, since: None, entries: None };
        while let Some(name) = members.next_key::<String>()? {
            let member = match name.as_str() {
                "version" => &mut head.version,
                "kind" => &mut head.kind,
                "epoch" => &mut head.epoch,
                "cursor" => &mut head.cursor,
                "since" => &mut head.since,
                "entries" => {
                    let staged = staged.take().ok_or_else(|| A::Error::custom("'entries' occurs twice"))?;
                    head.entries = Some(members.next_value_seed(EntriesSeed { staged })?);
                    continue;
                }
                _ => {
                    members.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            if member.replace(members.next_value()?).is_some() {
                return Err(A::Error::custom("a member occurs twice"));
            }
        }
        Ok(head)
    }
}

struct EntriesSeed {
    staged: Staged,
}

impl<'de> DeserializeSeed<'de> for EntriesSeed {
    type Value = Entries;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Entries, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for EntriesSeed {
    type Value = Entries;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of entries")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Entries, A::Error> {
        let mut entries = Entries::new(self.staged);
        while let Some(entry) = elements.next_element_seed(EntrySeed)? {
            entries.push(entry).map_err(A::Error::custom)?;
        }
        Ok(entries)
    }
}

/// Hashes what passes through.
struct Hashed<R> {
    reader: R,
    context: Context,
    any: bool,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.reader.read(buffer)?;
        let read = buffer.get(..length).unwrap_or_default();
        self.any |= !read.is_empty();
        self.context.update(read);
        Ok(length)
    }
}

const BUFFER: usize = 64 * 1024;
/// For epochs and cursors: they travel in URLs.
const MAX_POSITION_BYTES: usize = 1024;

#[cfg(test)]
mod tests;
