//! The way of lines from the cores to the writer: batches, bounded by the memory that they hold. Knows nothing of what
//! is in them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel};

/// What goes over the queue.
#[derive(Debug)]
pub(super) enum Message {
    Batch(Batch),
    Wake,
}

/// Whole lines of one core, and where the empty buffer goes.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) bytes: Vec<u8>,
    pub(super) lines: u64,
    home: SyncSender<Vec<u8>>,
    _place: Place,
}

/// The cores' end.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    sender: Sender<Message>,
    waiting: Arc<AtomicUsize>,
    most: usize,
}

/// What a batch holds of the memory that all may; until it is written.
#[derive(Debug)]
struct Place {
    waiting: Arc<AtomicUsize>,
    bytes: usize,
}

/// The least that a batch takes, however short its lines are.
pub(super) const LEAST: usize = 4096;

impl Queue {
    /// A queue of at most so many bytes, and the writer's end of it.
    pub(super) fn new(most: usize) -> (Self, Receiver<Message>) {
        let (sender, receiver) = channel();
        (Self { sender, waiting: Arc::default(), most }, receiver)
    }

    /// Hands lines over, unless too much waits already or nobody writes any more: then the buffer comes back.
    pub(super) fn offer(
        &self,
        bytes: Vec<u8>,
        lines: u64,
        home: &SyncSender<Vec<u8>>,
    ) -> Result<(), Vec<u8>> {
        let held = bytes.len().max(LEAST);
        let before = self.waiting.fetch_add(held, Ordering::Relaxed);
        let place = Place { waiting: Arc::clone(&self.waiting), bytes: held };
        if before.saturating_add(held) > self.most {
            return Err(bytes);
        }
        let batch = Batch { bytes, lines, home: home.clone(), _place: place };
        self.sender.send(Message::Batch(batch)).map_err(|unsent| match unsent.0 {
            Message::Batch(batch) => batch.bytes,
            Message::Wake => Vec::new(),
        })
    }

    /// Has the writer look up.
    pub(super) fn wake(&self) {
        // Without a writer there is nobody to wake.
        _ = self.sender.send(Message::Wake);
    }
}

impl Message {
    /// Sends the buffer home, empty. If home is full or gone, the buffer is freed.
    pub(super) fn recycle(self) {
        if let Self::Batch(Batch { mut bytes, home, .. }) = self {
            bytes.clear();
            _ = home.try_send(bytes);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.waiting.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
