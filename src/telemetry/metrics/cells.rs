//! The cells that cores count in. Each block belongs to one core, which alone writes it; others only read.

use std::array;
use std::cell::RefCell;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::StatusCode;

use super::labels::{Closed, ConnectionState, Label, Protocol, ProtocolError, Shed, TlsResult};
use crate::catalogue::Reason;
use crate::telemetry::access_log::Auth;

/// A number that one thread writes and others read. Load and store rather than a locked addition: with one
/// writer no count is lost, and the cache line stays with its core.
#[derive(Debug, Default)]
pub(super) struct Cell(AtomicU64);

impl Cell {
    pub(super) fn add(&self, count: u64) {
        self.set(self.get().wrapping_add(count));
    }

    pub(super) fn subtract(&self, count: u64) {
        self.set(self.get().wrapping_sub(count));
    }

    pub(super) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One cell for each value of a closed set.
#[derive(Debug)]
pub(super) struct Row<const N: usize>([Cell; N]);

impl<const N: usize> Row<N> {
    pub(super) fn add(&self, index: usize, count: u64) {
        if let Some(cell) = self.0.get(index) {
            cell.add(count);
        }
    }

    pub(super) fn subtract(&self, index: usize, count: u64) {
        if let Some(cell) = self.0.get(index) {
            cell.subtract(count);
        }
    }

    pub(super) fn get(&self, index: usize) -> u64 {
        self.0.get(index).map(Cell::get).unwrap_or_default()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = u64> {
        self.0.iter().map(Cell::get)
    }

    fn absorb(&self, other: &Self) {
        for (mine, theirs) in self.0.iter().zip(&other.0) {
            mine.add(theirs.get());
        }
    }
}

impl<const N: usize> Default for Row<N> {
    fn default() -> Self {
        Self(array::from_fn(|_| Cell::default()))
    }
}

/// Durations in the fixed buckets of a scale.
#[derive(Debug)]
pub(super) struct Histogram<S = Latency> {
    buckets: Row<BUCKETS>,
    sum_nanos: Cell,
    scale: PhantomData<S>,
}

/// Upper bounds of buckets in nanoseconds; the last bucket has none.
pub(super) trait Scale {
    const BOUNDS: [u64; BUCKETS - 1];
}

/// 0.5 ms to 10 s in steps of 1, 2.5, 5: resolution where a gateway's latencies lie.
#[derive(Debug)]
pub(super) struct Latency;

/// 1 us to 1 s: resolution where the gateway's own work lies, with room for a wait for keys.
#[derive(Debug)]
pub(super) struct Work;

const BUCKETS: usize = 15;

const MICRO: u64 = 1_000;
const MILLI: u64 = 1_000_000;

impl Scale for Latency {
    const BOUNDS: [u64; BUCKETS - 1] = [
        500 * MICRO,
        MILLI,
        2_500 * MICRO,
        5 * MILLI,
        10 * MILLI,
        25 * MILLI,
        50 * MILLI,
        100 * MILLI,
        250 * MILLI,
        500 * MILLI,
        1_000 * MILLI,
        2_500 * MILLI,
        5_000 * MILLI,
        10_000 * MILLI,
    ];
}

impl Scale for Work {
    const BOUNDS: [u64; BUCKETS - 1] = [
        MICRO,
        2_500,
        5 * MICRO,
        10 * MICRO,
        25 * MICRO,
        50 * MICRO,
        100 * MICRO,
        250 * MICRO,
        500 * MICRO,
        MILLI,
        5 * MILLI,
        25 * MILLI,
        100 * MILLI,
        1_000 * MILLI,
    ];
}

impl<S: Scale> Histogram<S> {
    pub(super) fn record(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.buckets.add(S::BOUNDS.partition_point(|bound| *bound < nanos), 1);
        self.sum_nanos.add(nanos);
    }

    /// In seconds.
    pub(super) fn sum(&self) -> f64 {
        Duration::from_nanos(self.sum_nanos.get()).as_secs_f64()
    }

    /// Upper bounds in seconds, the last infinite, each with its own count.
    pub(super) fn buckets(&self) -> Vec<(f64, u64)> {
        let bounds = S::BOUNDS.iter().map(|nanos| Duration::from_nanos(*nanos).as_secs_f64());
        bounds.chain([f64::INFINITY]).zip(self.buckets.iter()).collect()
    }

    fn absorb(&self, other: &Self) {
        self.buckets.absorb(&other.buckets);
        self.sum_nanos.add(other.sum_nanos.get());
    }
}

impl<S> Default for Histogram<S> {
    fn default() -> Self {
        Self { buckets: Row::default(), sum_nanos: Cell::default(), scale: PhantomData }
    }
}

/// A block of cells that can be summed over cores.
pub(super) trait Block: Default {
    /// Adds the other block's counts. For sums only: the receiver must not be a core's.
    fn absorb(&self, other: &Self);
}

/// What is counted for each route. Aligned so that no two cores' blocks share a cache line, as the others.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct RouteCells {
    /// Requests that were not refused, by [`Self::class`].
    pub(super) answered: Row<6>,
    /// Refusals and failures; the reason stands for code and status class too.
    pub(super) failed: Row<{ Reason::ALL.len() }>,
    pub(super) duration: Histogram,
    /// Requests in shadow mode that would have been let through.
    pub(super) admitted: Cell,
    /// Requests in shadow mode that would have been refused.
    pub(super) overlooked: Row<{ Reason::ALL.len() }>,
}

impl RouteCells {
    /// 1 to 5; 0 for no status, or one outside the classes of RFC 9110 section 15.
    pub(super) fn class(status: Option<StatusCode>) -> usize {
        let class = status.map_or(0, |status| usize::from(status.as_u16() / 100));
        if class <= 5 { class } else { 0 }
    }
}

impl Block for RouteCells {
    fn absorb(&self, other: &Self) {
        self.answered.absorb(&other.answered);
        self.failed.absorb(&other.failed);
        self.duration.absorb(&other.duration);
        self.admitted.add(other.admitted.get());
        self.overlooked.absorb(&other.overlooked);
    }
}

/// What is counted for each upstream.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct UpstreamCells {
    pub(super) first_byte: Histogram,
}

impl Block for UpstreamCells {
    fn absorb(&self, other: &Self) {
        self.first_byte.absorb(&other.first_byte);
    }
}

/// What is counted for each issuer.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct IssuerCells {
    /// Requests by [`Auth`].
    pub(super) judged: Row<{ Auth::COUNT }>,
}

impl Block for IssuerCells {
    fn absorb(&self, other: &Self) {
        self.judged.absorb(&other.judged);
    }
}

/// What is counted for each listener.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct ListenerCells {
    pub(super) accepted: Cell,
    /// Open connections, by protocol and state; see [`Self::open_index`].
    pub(super) open: Row<{ Protocol::COUNT * ConnectionState::COUNT }>,
}

impl ListenerCells {
    pub(super) fn open_index(protocol: Protocol, state: ConnectionState) -> usize {
        protocol.index() * ConnectionState::COUNT + state.index()
    }
}

impl Block for ListenerCells {
    fn absorb(&self, other: &Self) {
        self.accepted.add(other.accepted.get());
        self.open.absorb(&other.open);
    }
}

/// What is counted once for each core.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct CoreCells {
    pub(super) bytes_in: Cell,
    pub(super) bytes_out: Cell,
    pub(super) verdicts: Cell,
    pub(super) in_line: Cell,
    pub(super) tls: Row<{ TlsResult::COUNT }>,
    /// Of handshakes that succeeded.
    pub(super) tls_duration: Histogram,
    /// Of authentication, by [`Auth`]; none for [`Auth::None`].
    pub(super) auth_duration: [Histogram<Work>; Auth::COUNT],
    pub(super) protocol_errors: Row<{ ProtocolError::COUNT }>,
    pub(super) closed: Row<{ Closed::COUNT }>,
    pub(super) shed: Row<{ Shed::COUNT }>,
    pub(super) delay: Histogram,
    pub(super) failed_attempts: Cell,
}

impl Block for CoreCells {
    fn absorb(&self, other: &Self) {
        self.bytes_in.add(other.bytes_in.get());
        self.bytes_out.add(other.bytes_out.get());
        self.verdicts.add(other.verdicts.get());
        self.in_line.add(other.in_line.get());
        self.tls.absorb(&other.tls);
        self.tls_duration.absorb(&other.tls_duration);
        for (mine, theirs) in self.auth_duration.iter().zip(&other.auth_duration) {
            mine.absorb(theirs);
        }
        self.protocol_errors.absorb(&other.protocol_errors);
        self.closed.absorb(&other.closed);
        self.shed.absorb(&other.shed);
        self.delay.absorb(&other.delay);
        self.failed_attempts.add(other.failed_attempts.get());
    }
}

impl Label for Auth {
    const ALL: &'static [Self] = &[Self::None, Self::Warm, Self::Cold];

    fn index(self) -> usize {
        self as usize
    }

    fn name(self) -> &'static str {
        Self::name(self)
    }
}

impl Auth {
    pub(super) const COUNT: usize = <Self as Label>::ALL.len();
}

/// All cores' blocks of one kind, with the id that each counts for. Blocks stay when their core ends, so that
/// no counter goes backwards.
#[derive(Debug)]
pub(super) struct Published<C>(Mutex<Vec<(u16, Arc<C>)>>);

impl<C: Block> Published<C> {
    pub(super) fn add(&self, id: u16) -> Arc<C> {
        let block = Arc::new(C::default());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((id, Arc::clone(&block)));
        block
    }

    /// The sum over all cores for each of `ids` ids; `None` where no core has counted.
    pub(super) fn sums(&self, ids: usize) -> Vec<Option<C>> {
        let mut sums: Vec<Option<C>> = (0..ids).map(|_| None).collect();
        for (id, block) in &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            if let Some(sum) = sums.get_mut(usize::from(*id)) {
                sum.get_or_insert_default().absorb(block);
            }
        }
        sums
    }
}

impl<C> Default for Published<C> {
    fn default() -> Self {
        Self(Mutex::new(Vec::new()))
    }
}

/// One core's blocks of one kind, made on first use. Not for sharing between threads.
#[derive(Debug)]
pub(super) struct Local<C>(RefCell<Vec<Option<Arc<C>>>>);

impl<C: Block> Local<C> {
    /// Runs `count` on the core's block for this id.
    pub(super) fn with(&self, id: u16, published: &Published<C>, count: impl FnOnce(&C)) {
        if let Some(Some(block)) = self.0.borrow().get(usize::from(id)) {
            return count(block);
        }
        count(&self.make(id, published));
    }

    pub(super) fn make(&self, id: u16, published: &Published<C>) -> Arc<C> {
        let mut blocks = self.0.borrow_mut();
        if blocks.len() <= usize::from(id) {
            blocks.resize_with(usize::from(id) + 1, || None);
        }
        match blocks.get_mut(usize::from(id)) {
            Some(slot) => Arc::clone(slot.get_or_insert_with(|| published.add(id))),
            None => published.add(id),
        }
    }
}

impl<C> Default for Local<C> {
    fn default() -> Self {
        Self(RefCell::new(Vec::new()))
    }
}
