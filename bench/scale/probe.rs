//! A thread that checks tokens as a serving core does, and knows how long each check took and when it stood still.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use valgate::clock::{Clock, UnixSeconds};
use valgate::revocation::{FactHasher, FactKeys, FeedState, Index};

use super::{ISSUER, LEEWAY, change, say, tokens};

pub struct Probe {
    done: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
}

/// What a probe has seen.
pub struct Seen {
    /// How many checks took so many nanoseconds; the last is for all that took longer.
    counts: Vec<u64>,
    /// The longest time between two checks.
    pub gap: Duration,
    /// The longest between which the kernel did not give the core to somebody else.
    pub pause: Duration,
}

const LONGEST: usize = 100_000;

impl Probe {
    pub fn start(state: Arc<FeedState>, keys: Arc<Vec<FactKeys>>) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&done);
        let thread = std::thread::spawn(move || check(state.index(), &keys, &end));
        Self { done, thread }
    }

    pub fn end(self) -> Result<Seen> {
        self.done.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the probe panicked"))
    }
}

fn check(index: &Index, keys: &[FactKeys], end: &AtomicBool) -> Seen {
    let now = Clock::system().wall();
    let mut seen = Seen { counts: vec![0; LONGEST + 1], gap: Duration::ZERO, pause: Duration::ZERO };
    let (mut last, mut looked_at, mut switches) = (Instant::now(), Instant::now(), preempted());
    for key in keys.iter().cycle() {
        let begin = Instant::now();
        let hit = index.check(std::hint::black_box(key), None, now);
        let took = begin.elapsed();
        if std::hint::black_box(hit).is_none() {
            let place = usize::try_from(took.as_nanos()).unwrap_or(LONGEST).min(LONGEST);
            if let Some(count) = seen.counts.get_mut(place) {
                *count += 1;
            }
        }
        let gap = last.elapsed();
        seen.gap = seen.gap.max(gap);
        if gap > seen.pause.max(LEAST_PAUSE) || looked_at.elapsed() > LOOK_EVERY {
            let before = std::mem::replace(&mut switches, preempted());
            if before == switches {
                seen.pause = seen.pause.max(gap);
            }
            looked_at = Instant::now();
            if end.load(Ordering::Relaxed) {
                break;
            }
        }
        last = Instant::now();
    }
    seen
}

/// How often the kernel took the core from this thread.
fn preempted() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/thread-self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("nonvoluntary_ctxt_switches:"))?;
    line.trim().parse().ok()
}

const LEAST_PAUSE: Duration = Duration::from_micros(100);
const LOOK_EVERY: Duration = Duration::from_millis(1);

impl Seen {
    pub fn percentile(&self, per_mille: u64) -> f64 {
        percentile(&self.counts, per_mille)
    }
}

#[allow(clippy::cast_precision_loss, reason = "nanoseconds below a millisecond")]
fn percentile(counts: &[u64], per_mille: u64) -> f64 {
    let total: u64 = counts.iter().sum();
    let mut before = 0;
    let place = counts.iter().position(|count| {
        before += count;
        before * 1000 >= total * per_mille
    });
    place.unwrap_or(counts.len()) as f64
}

/// Checks against an index of so many entries, while 1,000 changes a second are put in force.
pub fn while_changing(entries: usize) -> Result<()> {
    let hasher = FactHasher::random();
    let keys = Arc::new(tokens(&hasher));
    let index = Index::new(hasher, [ISSUER.to_owned()], LEEWAY, entries + 10_000_000);
    let end = UnixSeconds(Clock::system().wall().0 + 3600);
    let mut staged = index.stage();
    for number in 0..entries {
        staged.push(&change(number, end))?;
    }
    index.replace(&staged);
    drop(staged);
    let state = Arc::new(FeedState::new("scale", index));
    let probe = Probe::start(Arc::clone(&state), keys);
    let mut applied = vec![0; LONGEST + 1];
    let began = Instant::now();
    let mut changes: u32 = 0;
    while began.elapsed() < Duration::from_secs(20) {
        let begin = Instant::now();
        state.index().apply(&change(entries + changes as usize, end))?;
        let took = usize::try_from(begin.elapsed().as_nanos()).unwrap_or(LONGEST).min(LONGEST);
        if let Some(count) = applied.get_mut(took) {
            *count += 1;
        }
        changes += 1;
        std::thread::sleep((Duration::from_millis(1) * changes).saturating_sub(began.elapsed()));
    }
    say("changes", f64::from(changes) / began.elapsed().as_secs_f64());
    let seen = probe.end()?;
    say("check_p50", seen.percentile(500));
    say("check_p99", seen.percentile(990));
    say("check_p999", seen.percentile(999));
    say("apply_p99", percentile(&applied, 990) / 1000.0);
    say("clock", clock());
    Ok(())
}

/// What a measurement of nothing says.
fn clock() -> f64 {
    let mut counts = vec![0; LONGEST + 1];
    for _ in 0..1_000_000 {
        let begin = Instant::now();
        let took = usize::try_from(begin.elapsed().as_nanos()).unwrap_or(LONGEST).min(LONGEST);
        if let Some(count) = counts.get_mut(took) {
            *count += 1;
        }
    }
    percentile(&counts, 500)
}
