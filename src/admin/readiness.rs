//! Whether the gateway should get traffic: a latch.
//!
//! Ready once it listens and each source has been loaded, or the start-up wait is over; from then on only
//! drain ends it. A provider or feed that all gateways share must not take all of them out of service at
//! once, so a source that degrades shows in the report and changes nothing else. Knows sources by name only.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use schemars::JsonSchema;
use serde::Serialize;

/// The latch. Clones share it.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    phase: Phase,
    listening: bool,
    waited: bool,
    configuration: Option<String>,
    sources: Vec<Source>,
}

/// Each phase is entered once, in this order; draining may come first.
#[derive(Debug, PartialEq, Eq)]
enum Phase {
    Starting,
    Ready,
    Draining,
}

#[derive(Debug)]
struct Source {
    name: String,
    loaded: bool,
    trouble: Option<String>,
}

/// What `/readyz` tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Report {
    /// Whether the gateway should get traffic.
    pub ready: bool,
    /// Whether it is on its way out.
    pub draining: bool,
    /// Whether its sockets are bound.
    pub listening: bool,
    /// Why the configuration in force is not the one that was last tried, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub configuration: Option<String>,
    /// Keys, feeds and whatever else it depends on.
    pub sources: Vec<SourceReport>,
}

/// One source of a [`Report`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct SourceReport {
    /// Its name.
    pub name: String,
    /// How it is.
    pub state: SourceState,
    /// What is wrong, if anything is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// How a source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SourceState {
    /// Not loaded yet.
    Pending,
    /// Not loaded yet, and trying has failed.
    Failing,
    /// Loaded, or restored from disk.
    Loaded,
    /// Loaded once, and in trouble since.
    Degraded,
}

impl Readiness {
    /// Not ready: nothing listens and no source is loaded.
    pub fn new<N: Into<String>>(sources: impl IntoIterator<Item = N>) -> Self {
        let sources = sources.into_iter().map(|name| Source::new(name.into())).collect();
        let inner =
            Inner { phase: Phase::Starting, listening: false, waited: false, configuration: None, sources };
        Self(Arc::new(Mutex::new(inner)))
    }

    /// The sockets are bound.
    pub fn listening(&self) {
        self.change(|inner| inner.listening = true);
    }

    /// The source is loaded or restored from disk, and well. Unknown names are ignored: a task may outlive
    /// the configuration that named its source.
    pub fn loaded(&self, source: &str) {
        self.change_source(source, |source| {
            source.loaded = true;
            source.trouble = None;
        });
    }

    /// The source is in trouble. The words are shown to anyone who asks: no secrets, no addresses with
    /// credentials.
    pub fn degraded(&self, source: &str, why: &str) {
        self.change_source(source, |source| source.trouble = Some(shortened(why)));
    }

    /// Why the configuration in force is not the one that was last tried; `None` if it is. Shown to anyone who asks,
    /// and no reason not to be ready.
    pub fn configuration(&self, trouble: Option<&str>) {
        self.change(|inner| inner.configuration = trouble.map(shortened));
    }

    /// The start-up wait is over: sources that are not loaded no longer hold readiness back.
    pub fn startup_wait_elapsed(&self) {
        self.change(|inner| inner.waited = true);
    }

    /// The sources of a new configuration; those of the same name stay as they are.
    pub fn replace_sources<N: Into<String>>(&self, sources: impl IntoIterator<Item = N>) {
        self.change(|inner| {
            let mut old = std::mem::take(&mut inner.sources);
            for name in sources.into_iter().map(Into::into) {
                let at = old.iter().position(|source| source.name == name);
                inner.sources.push(at.map_or_else(|| Source::new(name), |at| old.swap_remove(at)));
            }
        });
    }

    /// The gateway stops: not ready from now on.
    pub fn drain(&self) {
        self.change(|inner| inner.phase = Phase::Draining);
    }

    /// Whether the gateway should get traffic.
    pub fn is_ready(&self) -> bool {
        self.lock().phase == Phase::Ready
    }

    /// The state with its reasons.
    pub fn report(&self) -> Report {
        let inner = self.lock();
        Report {
            ready: inner.phase == Phase::Ready,
            draining: inner.phase == Phase::Draining,
            listening: inner.listening,
            configuration: inner.configuration.clone(),
            sources: inner.sources.iter().map(Source::report).collect(),
        }
    }

    fn change(&self, change: impl FnOnce(&mut Inner)) {
        let mut inner = self.lock();
        change(&mut inner);
        inner.latch();
    }

    fn change_source(&self, name: &str, change: impl FnOnce(&mut Source)) {
        self.change(|inner| {
            if let Some(source) = inner.sources.iter_mut().find(|source| source.name == name) {
                change(source);
            }
        });
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn latch(&mut self) {
        let sources_ready = self.waited || self.sources.iter().all(|source| source.loaded);
        if self.phase == Phase::Starting && self.listening && sources_ready {
            self.phase = Phase::Ready;
        }
    }
}

impl Source {
    fn new(name: String) -> Self {
        Self { name, loaded: false, trouble: None }
    }

    fn report(&self) -> SourceReport {
        let state = match (self.loaded, &self.trouble) {
            (false, None) => SourceState::Pending,
            (false, Some(_)) => SourceState::Failing,
            (true, None) => SourceState::Loaded,
            (true, Some(_)) => SourceState::Degraded,
        };
        SourceReport { name: self.name.clone(), state, why: self.trouble.clone() }
    }
}

/// Enough to understand, and no page-long error of someone else's server.
fn shortened(why: &str) -> String {
    why.chars().take(MAX_WHY).collect()
}

const MAX_WHY: usize = 300;

#[cfg(test)]
mod tests {
    use super::*;

    fn state(readiness: &Readiness, name: &str) -> SourceState {
        let report = readiness.report();
        report.sources.into_iter().find(|source| source.name == name).unwrap().state
    }

    #[test]
    fn ready_when_listening_and_every_source_is_loaded() {
        let readiness = Readiness::new(["keys", "feed"]);
        readiness.loaded("keys");
        readiness.listening();
        assert!(!readiness.is_ready());
        readiness.loaded("unknown");
        assert!(!readiness.is_ready());
        readiness.loaded("feed");
        assert!(readiness.is_ready());

        let readiness = Readiness::new(["keys"]);
        readiness.loaded("keys");
        assert!(!readiness.is_ready(), "nothing listens");
        readiness.listening();
        assert!(readiness.is_ready());
    }

    #[test]
    fn ready_without_sources_once_the_wait_is_over() {
        let readiness = Readiness::new(["keys"]);
        readiness.degraded("keys", "connection refused");
        readiness.startup_wait_elapsed();
        assert!(!readiness.is_ready(), "nothing listens");
        readiness.listening();
        assert!(readiness.is_ready());
        assert_eq!(state(&readiness, "keys"), SourceState::Failing);
    }

    #[test]
    fn degraded_sources_never_end_it() {
        let readiness = Readiness::new(["keys", "feed"]);
        readiness.listening();
        readiness.loaded("keys");
        readiness.loaded("feed");
        for name in ["keys", "feed"] {
            readiness.degraded(name, "no answer");
            assert_eq!(state(&readiness, name), SourceState::Degraded);
            assert!(readiness.is_ready());
        }
        readiness.loaded("keys");
        assert_eq!(state(&readiness, "keys"), SourceState::Loaded);
    }

    #[test]
    fn new_sources_never_end_it_and_old_ones_keep_their_state() {
        let readiness = Readiness::new(["keys", "feed"]);
        readiness.listening();
        readiness.loaded("keys");
        readiness.loaded("feed");
        readiness.replace_sources(["another", "keys"]);
        assert!(readiness.is_ready());
        assert_eq!(state(&readiness, "keys"), SourceState::Loaded);
        assert_eq!(state(&readiness, "another"), SourceState::Pending);
        assert_eq!(readiness.report().sources.len(), 2);
    }

    #[test]
    fn a_reload_that_drops_the_missing_source_makes_it_ready() {
        let readiness = Readiness::new(["keys", "dead"]);
        readiness.listening();
        readiness.loaded("keys");
        assert!(!readiness.is_ready());
        readiness.replace_sources(["keys"]);
        assert!(readiness.is_ready());
    }

    #[test]
    fn only_drain_ends_it_and_for_good() {
        let readiness = Readiness::new(["keys"]);
        readiness.listening();
        readiness.loaded("keys");
        readiness.drain();
        assert!(!readiness.is_ready());
        readiness.loaded("keys");
        readiness.startup_wait_elapsed();
        assert!(!readiness.is_ready());

        let readiness = Readiness::new(["keys"]);
        readiness.drain();
        readiness.listening();
        readiness.loaded("keys");
        assert!(!readiness.is_ready(), "a start that ends in drain");
    }

    #[test]
    fn reasons_are_bounded() {
        let readiness = Readiness::new(["keys"]);
        readiness.degraded("keys", &"é".repeat(10_000));
        let why = readiness.report().sources.remove(0).why.unwrap();
        assert_eq!(why.chars().count(), MAX_WHY);
    }
}
