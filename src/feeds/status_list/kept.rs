//! One status list as it was published last, in the state directory: so that a gateway that comes up alone still refuses
//! what it revoked.
//!
//! What is kept is the signed text, so a copy proves itself as an answer does. Knows nothing of what it says.

use std::path::Path;

use bytes::Bytes;
use tokio::task::spawn_blocking;
use tracing::warn;

use crate::clock::{Clock, Monotonic};
use crate::feeds::stored::{Restored, Store, fingerprint, sweep};

/// The copy of one list.
pub(super) struct KeptList {
    store: Store,
    text: Bytes,
    saved: Option<Monotonic>,
    noted: Option<String>,
}

const KIND: &str = "status-list";
/// How much older than it is a copy may look: so often one that is only confirmed is written anew.
const LOOKS_OLDER: std::time::Duration = std::time::Duration::from_secs(60);
/// Tokens live shorter than this; a list that was not followed for so long is of no use to any.
const UNWRITTEN: std::time::Duration = std::time::Duration::from_secs(90 * 24 * 60 * 60);

/// Removes the copies of lists that no token has named for long.
pub(super) fn tidy(directory: &Path, clock: &Clock) {
    sweep(directory, KIND, UNWRITTEN, clock.wall());
}

impl KeptList {
    /// Where the copy of this list is that the tokens of this issuer refer to.
    pub(super) fn new(directory: &Path, issuer: &str, uri: &str) -> Self {
        let name = format!("{issuer} {uri}");
        let store = Store::new(directory, KIND, &name, fingerprint(name.as_bytes()));
        Self { store, text: Bytes::new(), saved: None, noted: None }
    }

    /// The copy, if there is one that can be read.
    pub(super) async fn restore(&self, uri: &str, clock: &Clock) -> Option<Restored> {
        let (store, now) = (self.store.clone(), clock.wall());
        match spawn_blocking(move || store.restore(now)).await.ok()? {
            Ok(restored) => restored,
            Err(error) => {
                warn!(uri, %error, "the copy of a status list is not used");
                None
            }
        }
    }

    /// Keeps the text that was just accepted; none: the one before was confirmed.
    pub(super) async fn keep(&mut self, accepted: Option<Bytes>, uri: &str, clock: &Clock) {
        let now = clock.monotonic();
        let changed = accepted.as_ref().is_some_and(|text| *text != self.text);
        if let Some(text) = accepted {
            self.text = text;
        }
        let recent = self.saved.is_some_and(|saved| saved.until(now) < LOOKS_OLDER);
        if self.text.is_empty() || (recent && !changed) {
            return;
        }
        self.saved = Some(now);
        let (store, text, wall) = (self.store.clone(), self.text.clone(), clock.wall());
        // Not run at all: the runtime is shutting down.
        let Ok(saved) = spawn_blocking(move || store.save(&text, wall)).await else { return };
        let failure = saved.err().map(|error| error.to_string());
        if self.noted != failure {
            if let Some(error) = &failure {
                warn!(uri, error, "a status list cannot be kept for a restart");
            }
            self.noted = failure;
        }
    }

    /// No token refers to the list any more.
    pub(super) async fn forget(self) {
        // Not run at all: the runtime is shutting down, and the copy is swept away later.
        drop(spawn_blocking(move || self.store.forget()).await);
    }
}
