//! Why the source could not be heard this time. Messages are for the operator: what is wrong and what to do.

use std::io;
use std::path::PathBuf;

use http::StatusCode;

use super::super::fetch::FetchError;
use super::document::DocumentError;
use super::signed::SignedFault;
use crate::revocation::{EngineError, Full};

#[derive(Debug, thiserror::Error)]
pub(super) enum SyncError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(
        "the answer is {}, not JSON: probably an error or login page; check the URL and the authorization, and that \
         the server says Content-Type: application/json",
        content_type.as_deref().unwrap_or("of no stated type")
    )]
    NotJson { content_type: Option<String> },
    #[error("{0}; see docs/revocation-feed.md for what the server must send")]
    Document(#[from] DocumentError),
    #[error(
        "the answer is {}, not application/valgate-feed+jwt: the feed is configured as `signed`, and its server does \
         not sign",
        content_type.as_deref().unwrap_or("of no stated type")
    )]
    NotSigned { content_type: Option<String> },
    #[error("{0}; the last good state stays in force")]
    Signed(#[from] SignedFault),
    #[error("{0}; the last good state stays in force")]
    Misfit(#[from] Misfit),
    #[error("{} cannot be read: {error}; check that it exists and that the gateway may read it", path.display())]
    File { path: PathBuf, error: io::Error },
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("the work was interrupted: {0}")]
    Interrupted(io::Error),
}

/// A sound document that does not follow from what was heard before.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Misfit {
    #[error(
        "the snapshot is suddenly empty although revocations are in force; if that is right, the server must send it \
         under a new epoch"
    )]
    SuddenlyEmpty,
    #[error(
        "the answer is a delta although a snapshot was asked for; without a cursor the server must send one"
    )]
    UnaskedDelta,
    #[error("the delta does not begin where it was asked to ('since' is not the cursor asked for)")]
    OtherDelta,
    #[error("the delta is of another epoch; after a new beginning the server must send a snapshot")]
    OtherEpoch,
    #[error(transparent)]
    Full(#[from] Full),
}

impl SyncError {
    /// Whether asking on from the same cursor cannot help.
    pub(super) fn calls_for_snapshot(&self) -> bool {
        match self {
            Self::Document(DocumentError::Io(_))
            | Self::NotJson { .. }
            | Self::NotSigned { .. }
            | Self::Signed(_)
            | Self::File { .. }
            | Self::Engine(_)
            | Self::Interrupted(_) => false,
            Self::Document(_) | Self::Misfit(_) => true,
            Self::Fetch(FetchError::Status { status, .. }) => {
                matches!(*status, StatusCode::GONE | StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST)
            }
            Self::Fetch(_) => false,
        }
    }

    /// Whether the server said that the cursor is of no more use, which is no failure.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self, Self::Fetch(FetchError::Status { status, .. }) if *status == StatusCode::GONE)
    }
}
