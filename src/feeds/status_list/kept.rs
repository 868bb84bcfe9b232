//! One status list as it was published last, in the state directory: so that a gateway that comes up alone still refuses
//! what it revoked.
//!
//! What is kept is the signed text, so a copy proves itself as an answer does. Knows nothing of what it says.

use std::path::Path;
use std::time::Duration;

use crate::clock::{Clock, Monotonic};
use crate::feeds::kept::KeptCopy;
use crate::feeds::stored::{Restored, Store, fingerprint, sweep};

/// The copy of one list.
pub(super) struct KeptList {
    pub(super) copy: KeptCopy,
    pub(super) restored: Option<RestoredList>,
}

/// A copy that was read and is not in force yet.
pub(super) struct RestoredList {
    pub(super) text: Vec<u8>,
    /// How old it was then.
    pub(super) age: Duration,
    pub(super) read_at: Monotonic,
}

const KIND: &str = "status-list";
/// Tokens live shorter than this; a list that was not followed for so long is of no use to any.
const UNWRITTEN: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// Removes the copies of lists that no token has named for long, and those beyond the `most` that were written last.
/// Waits for the disk.
pub fn tidy_status_lists(directory: &Path, most: usize, clock: &Clock) {
    sweep(directory, KIND, most, UNWRITTEN, clock.wall());
}

impl KeptList {
    /// Where the copy of this list is that the tokens of this issuer refer to.
    pub(super) fn new(directory: &Path, issuer: &str, uri: &str, max_size: u64, clock: &Clock) -> Self {
        let name = format!("{issuer} {uri}");
        let store = Store::new(directory, KIND, &name, fingerprint(name.as_bytes()), max_size);
        Self { copy: KeptCopy::new(store, "a status list", uri, clock.clone()), restored: None }
    }

    /// The copy from before a restart, until it is taken.
    pub(super) async fn restored(&mut self, clock: &Clock) -> Option<&RestoredList> {
        if let Some(Restored { document, age }) = self.copy.restore().await {
            self.restored = Some(RestoredList { text: document, age, read_at: clock.monotonic() });
        }
        self.restored.as_ref()
    }
}
