//! The end of the log that a core holds: it fills a buffer and never waits.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use super::Format;
use super::line::LineWriter;
use super::queue::Queue;
use super::record::{Record, Sink};
use crate::catalogue::Reason;
use crate::clock::Monotonic;

/// A batch is handed over when it is this large. What it costs to wake the writer, two switches between threads and
/// what they push out of the processor's cache, came to 2 % of a request with a quarter of it.
pub(super) const BATCH: usize = 128 * 1024;

/// A buffer has room for the line that crosses the batch size, so that it does not grow in ordinary service.
const CAPACITY: usize = BATCH + 8 * 1024;

/// A line waits no longer than this in a quiet core.
const MAX_WAIT: Duration = Duration::from_millis(100);

/// Buffers on their way back; one is being filled, one written, and one is slack.
const SPARES: usize = 2;

/// One core's log. Its owner calls [`Self::flush_if_due`] at least every 100 ms.
#[derive(Debug)]
pub struct CoreLog {
    lines: LineWriter,
    buffer: Vec<u8>,
    /// Lines in the buffer that stand for requests.
    count: u64,
    /// Losses that the buffer admits to: lost anew if the buffer is.
    admitted: u64,
    /// Losses that no line admits to yet.
    unreported: u64,
    last_time: Duration,
    last_tick: Monotonic,
    link: Option<Link>,
}

/// The way to the writer thread and back.
#[derive(Debug)]
struct Link {
    queue: Queue,
    home: SyncSender<Vec<u8>>,
    spares: Receiver<Vec<u8>>,
    dropped: Arc<AtomicU64>,
}

impl CoreLog {
    pub(super) fn new(format: Format, queue: Option<Queue>, dropped: Arc<AtomicU64>) -> Self {
        let (home, spares) = sync_channel(SPARES);
        let link = queue.map(|queue| Link { queue, home, spares, dropped });
        Self {
            lines: LineWriter::new(format),
            buffer: Vec::with_capacity(if link.is_some() { CAPACITY } else { 0 }),
            count: 0,
            admitted: 0,
            unreported: 0,
            last_time: Duration::ZERO,
            last_tick: Monotonic::default(),
            link,
        }
    }

    /// Adds the record's line; with the log off, does nothing. Never blocks.
    pub fn write(&mut self, record: &Record<'_>) {
        self.write_line(record.time, |lines, buffer| lines.record(buffer, record));
    }

    /// Adds the line of an event.
    pub(in crate::telemetry) fn write_event(
        &mut self,
        time: Duration,
        event: &str,
        fill: impl FnOnce(&mut dyn Sink),
    ) {
        self.write_line(time, |lines, buffer| lines.event(buffer, time, event, fill));
    }

    /// Adds the line of an event that befell a request.
    pub(in crate::telemetry) fn write_audited(&mut self, event: &str, reason: Reason, record: &Record<'_>) {
        self.write_event(record.time, event, |sink| record.visit_audited(reason, sink));
    }

    fn write_line(&mut self, time: Duration, render: impl FnOnce(&mut LineWriter, &mut Vec<u8>)) {
        if self.link.is_none() {
            return;
        }
        self.last_time = time;
        self.admit_losses();
        render(&mut self.lines, &mut self.buffer);
        self.count += 1;
        if self.buffer.len() >= BATCH {
            self.flush();
        }
    }

    /// Hands the buffer over if its oldest line may have waited for 100 ms.
    pub fn flush_if_due(&mut self, now: Monotonic) {
        if self.buffer.is_empty() && self.unreported == 0 {
            self.last_tick = now;
        } else if self.last_tick.until(now) >= MAX_WAIT {
            self.last_tick = now;
            self.flush();
        }
    }

    /// Hands the buffer over now, as on drain. If the writer cannot keep up, its lines are lost and counted.
    pub fn flush(&mut self) {
        self.admit_losses();
        let Some(link) = &self.link else { return };
        if self.buffer.is_empty() {
            return;
        }
        let spare = link.spares.try_recv().unwrap_or_else(|_| Vec::with_capacity(CAPACITY));
        let lines = mem::replace(&mut self.buffer, spare);
        if let Err(mut lost) = link.queue.offer(lines, self.count, &link.home) {
            link.dropped.fetch_add(self.count, Ordering::Relaxed);
            self.unreported += self.admitted + self.count;
            lost.clear();
            self.buffer = lost;
        }
        self.count = 0;
        self.admitted = 0;
    }

    fn admit_losses(&mut self) {
        if self.unreported > 0 {
            self.lines.dropped(&mut self.buffer, self.last_time, self.unreported);
            self.admitted += mem::take(&mut self.unreported);
        }
    }
}

/// What was written is not lost because its core stops.
impl Drop for CoreLog {
    fn drop(&mut self) {
        self.flush();
    }
}
