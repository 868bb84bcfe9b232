//! The resident memory of this process: now, and at its highest.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Resident bytes.
pub fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}

/// What the allocator means to give back is given back soon.
pub fn at_rest() -> u64 {
    let reading = |_| {
        std::thread::sleep(Duration::from_millis(500));
        resident()
    };
    (0..6).map(reading).min().unwrap_or(0)
}

/// Looks every few milliseconds.
pub struct Peak {
    highest: Arc<AtomicU64>,
    done: Arc<AtomicBool>,
    watcher: JoinHandle<()>,
}

impl Peak {
    pub fn watch() -> Self {
        let (highest, done) = (Arc::new(AtomicU64::new(resident())), Arc::new(AtomicBool::new(false)));
        let (to, end) = (Arc::clone(&highest), Arc::clone(&done));
        let watcher = std::thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                to.fetch_max(resident(), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        Self { highest, done, watcher }
    }

    pub fn end(self) -> u64 {
        self.done.store(true, Ordering::Relaxed);
        // It has nothing to panic about.
        let _ = self.watcher.join();
        self.highest.load(Ordering::Relaxed)
    }
}
