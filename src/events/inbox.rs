//! How a request hands something to the task that owns a feed, and waits for the word that it is in force.
//!
//! Bounded in number and in time. The two ends run on different threads; neither knows the other's work.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::Fault;
use crate::revocation::{Fact, Revocation};

/// The senders' end. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Inbox(mpsc::Sender<Mail>);

/// What is handed over.
#[derive(Debug)]
pub enum Body {
    /// The body of a request from a provider, with its credential.
    Statement(Delivery),
    /// Revocations by somebody whose right to them was checked.
    Revoke(Vec<Revocation>),
    /// Facts that are to be revoked no longer, likewise.
    Lift(Vec<Fact>),
}

/// What a provider sent, not yet believed.
#[derive(Debug)]
pub struct Delivery {
    /// The value of `Authorization`.
    pub authorization: Option<Bytes>,
    /// The media type, in lower case and without parameters.
    pub media_type: String,
    /// The body.
    pub body: Bytes,
}

/// Something handed over, and where the answer goes.
#[derive(Debug)]
pub struct Mail {
    /// What it is.
    pub body: Body,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Receipt>,
}

/// What became of it.
pub type Receipt = Result<(), Refusal>;

/// Why it was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The sender has not shown who it is.
    Unauthenticated,
    /// It is not what the feed accepts.
    Fault(Fault),
    /// It may well be good, but cannot be put in force now: to be sent again. The words are for the log.
    Unavailable(String),
}

impl Inbox {
    /// The two ends.
    pub fn new() -> (Self, mpsc::Receiver<Mail>) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Self(sender), receiver)
    }

    /// Hands something over and waits for the answer.
    ///
    /// # Errors
    /// [`Refusal`]; with too much waiting already, or no answer in time, it is [`Refusal::Unavailable`].
    pub async fn send(&self, body: Body) -> Receipt {
        let unavailable = |why: &str| Err(Refusal::Unavailable(why.to_owned()));
        let (answer, answered) = oneshot::channel();
        if let Err(error) = self.0.try_send(Mail { body, answer }) {
            return unavailable(match error {
                mpsc::error::TrySendError::Full(_) => "too many deliveries are waiting",
                mpsc::error::TrySendError::Closed(_) => "the feed has ended",
            });
        }
        match tokio::time::timeout(PATIENCE, answered).await {
            Ok(Ok(receipt)) => receipt,
            Ok(Err(_)) => unavailable("the feed has ended"),
            Err(_) => unavailable("the feed did not take it in time"),
        }
    }
}

/// Deliveries that may wait: each is small, and a sender tries again.
const WAITING: usize = 256;
/// Keys may have to be fetched, an engine may have to be written to.
const PATIENCE: Duration = Duration::from_secs(10);
