//! The way of spans from the cores to whoever delivers them: bounded in spans, and never waited for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::sync::mpsc;

/// The end of the cores. Clones put into the same queue.
#[derive(Clone, Debug)]
pub struct SpanQueue {
    // Without a bound of its own: batches differ in size, and what is bounded is the number of spans.
    sender: mpsc::UnboundedSender<Vec<Span>>,
    waiting: Arc<AtomicUsize>,
    capacity: usize,
    stats: Arc<SpanStats>,
}

/// The end of whoever delivers them.
#[derive(Debug)]
pub struct SpanStream {
    receiver: mpsc::UnboundedReceiver<Vec<Span>>,
    waiting: Arc<AtomicUsize>,
}

/// What became of spans.
#[derive(Debug, Default)]
pub struct SpanStats {
    delivered: AtomicU64,
    undelivered: [AtomicU64; Undelivered::ALL.len()],
}

/// Why spans did not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undelivered {
    /// Too many were waiting.
    QueueFull,
    /// The collector could not be reached, or had no time, again and again.
    Unreachable,
    /// The collector refused the delivery.
    Refused,
    /// The collector took the delivery but not these spans.
    Rejected,
}

impl Undelivered {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::QueueFull, Self::Unreachable, Self::Refused, Self::Rejected];

    /// As metrics have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Unreachable => "unreachable",
            Self::Refused => "refused",
            Self::Rejected => "rejected",
        }
    }
}

impl SpanQueue {
    /// A queue for so many spans, which counts what becomes of them here, and its other end.
    pub fn new(capacity: usize, stats: Arc<SpanStats>) -> (Self, SpanStream) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let waiting = Arc::<AtomicUsize>::default();
        let stream = SpanStream { receiver, waiting: Arc::clone(&waiting) };
        (Self { sender, waiting, capacity, stats }, stream)
    }

    /// Whether both put into the same queue.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.waiting, &other.waiting)
    }

    /// Puts spans in, or drops and counts them if there is no room.
    pub fn put(&self, spans: Vec<Span>) {
        let count = spans.len();
        let before = self.waiting.fetch_add(count, Ordering::Relaxed);
        if before + count > self.capacity {
            self.waiting.fetch_sub(count, Ordering::Relaxed);
            self.stats.undelivered(Undelivered::QueueFull, count as u64);
        } else if self.sender.send(spans).is_err() {
            self.stats.undelivered(Undelivered::Unreachable, count as u64);
        }
    }
}

impl SpanStream {
    /// The next spans, once there are some; `None` when nobody can put any more in.
    pub async fn next(&mut self) -> Option<Vec<Span>> {
        let spans = self.receiver.recv().await?;
        self.waiting.fetch_sub(spans.len(), Ordering::Relaxed);
        Some(spans)
    }
}

impl SpanStats {
    /// Counts spans that arrived.
    pub fn delivered(&self, spans: u64) {
        self.delivered.fetch_add(spans, Ordering::Relaxed);
    }

    /// Counts spans that did not.
    pub fn undelivered(&self, why: Undelivered, spans: u64) {
        if let Some(count) = self.undelivered.get(why as usize) {
            count.fetch_add(spans, Ordering::Relaxed);
        }
    }

    /// How many arrived.
    pub fn delivered_count(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    /// How many did not.
    pub fn undelivered_count(&self, why: Undelivered) -> u64 {
        self.undelivered.get(why as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_finds_no_room_is_counted_and_gone() {
        let stats = Arc::<SpanStats>::default();
        let (queue, mut stream) = SpanQueue::new(10, Arc::clone(&stats));
        let spans = |count| vec![Span::default(); count];
        queue.put(spans(6));
        queue.put(spans(6));
        queue.put(spans(4));
        assert_eq!(stats.undelivered_count(Undelivered::QueueFull), 6);
        assert_eq!(stream.next().await.map(|spans| spans.len()), Some(6));
        queue.put(spans(6));
        assert_eq!(stats.undelivered_count(Undelivered::QueueFull), 6, "there is room again");
        drop(queue);
        assert_eq!(stream.next().await.map(|spans| spans.len()), Some(4));
        assert_eq!(stream.next().await.map(|spans| spans.len()), Some(6));
        assert!(stream.next().await.is_none());
    }
}
