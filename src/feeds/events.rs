//! The background task of a feed that is told: it judges what arrives in its inbox, puts it in force, and answers.
//!
//! ```text
//! Inbox -> statement (credential, signature, claims, replay) -> FeedWriter (index, disk, engine) -> Receipt
//! ```
//!
//! What arrives together is put in force, written to disk and to the engine together, so that a logout of thousands
//! costs a handful of writes. Knows nothing of HTTP, but for the poll client.

mod poll;
mod statement;
mod stats;

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use crate::events::{Body, Mail, Receipt, Refusal};
use crate::feeds::revocation::FeedWriter;
use crate::revocation::Revocation;

pub use poll::{PollClient, PollSettings};
pub use statement::{StatementKind, Statements};
pub use stats::EventStats;

/// The task of one feed: made by [`Self::new`], then driven by [`Self::run`].
#[derive(Debug)]
pub struct EventReceiver {
    mail: mpsc::Receiver<Mail>,
    writer: FeedWriter,
    statements: Option<Statements>,
}

/// What waits to be put in force with others.
#[derive(Default)]
struct Batch {
    revocations: Vec<Revocation>,
    answers: Vec<(oneshot::Sender<Receipt>, Option<String>)>,
}

impl EventReceiver {
    /// A task that writes to `writer`; it believes what `statements` believes, or nothing that is signed.
    pub fn new(mail: mpsc::Receiver<Mail>, writer: FeedWriter, statements: Option<Statements>) -> Self {
        Self { mail, writer, statements }
    }

    /// Takes mail until nobody can send any more.
    pub async fn run(mut self) {
        let mut mails = Vec::with_capacity(TOGETHER);
        loop {
            tokio::select! {
                count = self.mail.recv_many(&mut mails, TOGETHER) => {
                    if count == 0 {
                        return;
                    }
                    self.deal_with(&mut mails).await;
                }
                () = tokio::time::sleep(HOUSEKEEPING) => {}
            }
            self.writer.keep_house().await;
        }
    }

    async fn deal_with(&mut self, mails: &mut Vec<Mail>) {
        let mut batch = Batch::default();
        for Mail { body, answer } in mails.drain(..) {
            match body {
                Body::Revoke(revocations) => {
                    batch.revocations.extend(revocations);
                    batch.answers.push((answer, None));
                }
                Body::Lift(facts) => {
                    // In their order: what was revoked before is lifted, what comes after is not.
                    self.finish(std::mem::take(&mut batch)).await;
                    let lifted = self.writer.lift(&facts).await;
                    let _ = answer.send(lifted.map_err(Refusal::Unavailable));
                }
                Body::Statement(delivery) => match &mut self.statements {
                    None => drop(
                        answer.send(Err(Refusal::Unavailable("this feed takes no statements".to_owned()))),
                    ),
                    Some(statements) => match statements.read(&delivery).await {
                        Ok(read) => {
                            self.writer.heard();
                            batch.revocations.extend(read.revocations);
                            batch.answers.push((answer, read.jti));
                        }
                        Err(refusal) => drop(answer.send(Err(refusal))),
                    },
                },
            }
        }
        self.finish(batch).await;
    }

    async fn finish(&mut self, batch: Batch) {
        let outcome =
            if batch.revocations.is_empty() { Ok(()) } else { self.writer.revoke(&batch.revocations).await };
        if let Err(error) = &outcome {
            let feed = self.writer.state().name();
            warn!(
                feed,
                error, "what the feed {feed} was told is in force here, but not kept; the senders try again"
            );
        }
        for (answer, jti) in batch.answers {
            if let (Ok(()), Some(jti), Some(statements)) = (&outcome, jti, &mut self.statements) {
                statements.remember(&jti);
            }
            // Who sent it may have gone; what it said is in force all the same.
            let _ = answer.send(outcome.clone().map_err(Refusal::Unavailable));
        }
    }
}

/// As many as are dealt with in one go.
const TOGETHER: usize = 256;
/// So often a feed that is current by itself says so.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
