//! Which configuration is in force, since when, and what became of the last attempt to change it: for metrics and for
//! the detail of readiness.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use crate::admin::readiness::Readiness;
use crate::clock::{Clock, UnixSeconds};
use crate::telemetry::metrics::{Metrics, Registration};

/// See the module. Clones share it.
#[derive(Clone, Debug)]
pub struct Status(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Clock,
    readiness: Readiness,
    generation: AtomicU64,
    loaded_at: AtomicI64,
    failures: AtomicU64,
    last_failed: AtomicBool,
    last_good: AtomicBool,
}

impl Status {
    /// The first generation is in force.
    pub fn new(clock: Clock, readiness: Readiness) -> Self {
        let loaded_at = AtomicI64::new(clock.wall().0);
        Self(Arc::new(Inner {
            clock,
            readiness,
            generation: AtomicU64::new(1),
            loaded_at,
            failures: AtomicU64::new(0),
            last_failed: AtomicBool::new(false),
            last_good: AtomicBool::new(false),
        }))
    }

    /// The number of the generation in force, from 1.
    pub fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::Relaxed)
    }

    /// When it was put in force.
    pub fn loaded_at(&self) -> UnixSeconds {
        UnixSeconds(self.0.loaded_at.load(Ordering::Relaxed))
    }

    /// Another configuration is in force.
    pub fn changed(&self, generation: u64) {
        self.0.generation.store(generation, Ordering::Relaxed);
        self.0.loaded_at.store(self.0.clock.wall().0, Ordering::Relaxed);
        self.0.last_failed.store(false, Ordering::Relaxed);
        self.0.last_good.store(false, Ordering::Relaxed);
        self.0.readiness.configuration(None);
    }

    /// A configuration could not be put in force. `why` is shown to anyone who asks for readiness.
    pub fn failed(&self, why: &str) {
        self.0.failures.fetch_add(1, Ordering::Relaxed);
        self.0.last_failed.store(true, Ordering::Relaxed);
        self.0.readiness.configuration(Some(why));
    }

    /// The gateway was started on the copy of the last good configuration.
    pub fn started_on_last_good(&self) {
        self.0.last_good.store(true, Ordering::Relaxed);
        self.failed("the configuration file has mistakes; the copy of the last good one is in force");
    }

    /// Puts it on the metrics page.
    pub fn register(&self, metrics: &Metrics) -> Vec<Registration> {
        let gauge = |name, help, read: fn(&Inner) -> f64| {
            let status = self.clone();
            metrics.register_gauge(name, help, &[], move || read(&status.0))
        };
        let status = self.clone();
        vec![
            gauge("config_generation", "Number of the configuration in force, from 1.", |status| {
                count(status.generation.load(Ordering::Relaxed))
            }),
            gauge(
                "config_last_success_timestamp_seconds",
                "When the configuration in force was put in force.",
                #[allow(clippy::cast_precision_loss, reason = "seconds since 1970")]
                |status| status.loaded_at.load(Ordering::Relaxed) as f64,
            ),
            gauge(
                "config_last_reload_successful",
                "1 if the configuration in force is the last that was tried, else 0.",
                |status| f64::from(!status.last_failed.load(Ordering::Relaxed)),
            ),
            gauge(
                "config_last_good",
                "1 if the copy of the last good configuration is in force, since the file has mistakes.",
                |status| f64::from(status.last_good.load(Ordering::Relaxed)),
            ),
            metrics.register_counter(
                "config_failures",
                "Configurations that could not be put in force.",
                &[],
                move || status.0.failures.load(Ordering::Relaxed),
            ),
        ]
    }
}

#[allow(clippy::cast_precision_loss, reason = "a count of reloads")]
fn count(number: u64) -> f64 {
    number as f64
}
