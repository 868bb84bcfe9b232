//! How the copy on disk is written: little-endian, length-prefixed, summed as it passes. Knows nothing of files.

use std::io::{self, Read, Write};

use aws_lc_rs::digest::{Context, SHA256};

use crate::clock::UnixSeconds;
use crate::revocation::{Record, Staged};

use super::corrupt;

/// SHA-256.
pub(super) type Digest = [u8; 32];

/// Writes and sums.
pub(super) struct Summed<W> {
    writer: W,
    context: Context,
}

impl<W: Write> Summed<W> {
    pub(super) fn new(writer: W) -> Self {
        Self { writer, context: Context::new(&SHA256) }
    }

    /// The sum covers that of the part before.
    pub(super) fn chained(writer: W, before: Digest) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(&before);
        Self { writer, context }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.context.update(bytes);
        self.writer.write_all(bytes)
    }

    pub(super) fn write_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write(&(bytes.len() as u64).to_le_bytes())?;
        self.write(bytes)
    }

    /// Nothing at all and the empty text are the same here; neither an epoch nor a cursor is ever empty.
    pub(super) fn write_text(&mut self, text: Option<&str>) -> io::Result<()> {
        self.write_bytes(text.unwrap_or_default().as_bytes())
    }

    pub(super) fn write_batch(
        &mut self,
        cursor: Option<&str>,
        heard_at: UnixSeconds,
        kinds: u8,
        records: &[Record],
    ) -> io::Result<()> {
        self.write_text(cursor)?;
        self.write(&heard_at.0.to_le_bytes())?;
        self.write(&[kinds])?;
        self.write(&(records.len() as u64).to_le_bytes())?;
        records.iter().try_for_each(|record| self.write(&record.to_bytes()))
    }

    pub(super) fn sum(self) -> Digest {
        array(self.context)
    }

    /// Ends with the sum.
    pub(super) fn finish(mut self) -> io::Result<(W, Digest)> {
        let sum = array(self.context);
        self.writer.write_all(&sum)?;
        Ok((self.writer, sum))
    }
}

/// Reads and sums.
pub(super) struct Checked<R> {
    reader: R,
    context: Context,
    bytes: u64,
}

impl<R: Read> Checked<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, context: Context::new(&SHA256), bytes: 0 }
    }

    pub(super) fn chained(reader: R, before: Digest) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(&before);
        Self { reader, context, bytes: 0 }
    }

    pub(super) fn read_array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.read(&mut bytes)?;
        Ok(bytes)
    }

    pub(super) fn read_text(&mut self) -> io::Result<Option<String>> {
        let length = u64::from_le_bytes(self.read_array()?);
        if length > MAX_TEXT {
            return Err(corrupt("a text in it is too long"));
        }
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        self.read(&mut bytes)?;
        let text = String::from_utf8(bytes).map_err(|_| corrupt("a text in it is not UTF-8"))?;
        Ok((!text.is_empty()).then_some(text))
    }

    /// Stages the records; they are not to be used before the sum proved right.
    pub(super) fn read_batch(&mut self, staged: &mut Staged) -> io::Result<(Option<String>, UnixSeconds)> {
        let cursor = self.read_text()?;
        let heard_at = UnixSeconds(i64::from_le_bytes(self.read_array()?));
        let [kinds] = self.read_array()?;
        for _ in 0..u64::from_le_bytes(self.read_array()?) {
            let record =
                Record::from_bytes(&self.read_array()?).ok_or_else(|| corrupt("a record is void"))?;
            staged.push_record(record, kinds).map_err(io::Error::other)?;
        }
        Ok((cursor, heard_at))
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Checks the sum that ends a part.
    pub(super) fn finish_batch(mut self) -> io::Result<Digest> {
        let mut expected = [0; 32];
        self.reader.read_exact(&mut expected)?;
        let sum = array(self.context);
        if sum == expected { Ok(sum) } else { Err(corrupt("its checksum is wrong")) }
    }

    /// Checks the sum that ends a file.
    pub(super) fn finish(mut self) -> io::Result<Digest> {
        let mut rest = Vec::new();
        (&mut self.reader).take(33).read_to_end(&mut rest)?;
        let sum = array(self.context);
        if rest == sum { Ok(sum) } else { Err(corrupt("its checksum is wrong")) }
    }

    fn read(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.reader.read_exact(bytes)?;
        self.context.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }
}

fn array(context: Context) -> Digest {
    let mut sum = [0; 32];
    sum.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
    sum
}

/// Epochs and cursors are shorter.
const MAX_TEXT: u64 = 4096;
