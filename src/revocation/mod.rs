//! Revocation: whether a verified token was taken back before its time.
//!
//! A source (any of them: the HTTP feed, a file, later others) turns what it hears into [`Entry`] values and applies
//! them to the [`Index`] of its [`FeedState`]. A request asks the [`RevocationPolicy`] of its issuer with the
//! [`FactKeys`] that were computed when its token was verified, so that the warm path hashes nothing, allocates
//! nothing and writes nothing. A token that refers to a status list is looked up there too ([`StatusLists`]). Knows no
//! source, no file and no network.
//!
//! ```text
//! source -> Index::stage -> Staged::push(Change)... -> Index::replace (snapshot) | Index::merge (delta)
//! request -> FactHasher::keys -> RevocationPolicy::check -> Live | Revoked | Unavailable
//! ```

mod engine;
mod entry;
mod facts;
mod freshness;
mod guard;
mod index;
mod live;
mod staged;
mod status;
mod table;
mod term;

pub use engine::{EngineError, EngineFuture, Fact, Page, Revocation, RevocationEngine};
pub use entry::{Change, Entry, Target};
pub use facts::{FactHasher, FactKeys, FactKind, TokenFacts};
pub use freshness::{FeedState, Freshness};
pub use guard::{RevocationPolicy, RevocationVerdict, Unavailable, WhenStale};
pub use index::{Hit, Index};
pub use live::{Candidate, LiveToken, RevocationPolicies, Survey, Surveyed};
pub use staged::{Full, Pushed, Record, Staged};
pub use status::{
    Copy as StatusListCopy, Status, StatusList, StatusListSettings, StatusLists, StatusRef, TrackedList,
    WantedLists,
};
