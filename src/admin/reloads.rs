//! Requests to reload, from parts of the process that do not own the gateway.

use tokio::sync::{mpsc, oneshot};

/// Asks for reloads. Clones ask the same gateway.
#[derive(Clone, Debug)]
pub struct ReloadHandle(mpsc::Sender<ReloadRequest>);

/// What a reload came to: the paths of the fields that changed, or why the old configuration stays in force.
pub type ReloadOutcome = Result<Vec<String>, String>;

/// Where the requests arrive.
#[derive(Debug)]
pub struct ReloadRequests(mpsc::Receiver<ReloadRequest>);

type ReloadRequest = oneshot::Sender<ReloadOutcome>;

/// A handle, and where its requests arrive.
pub fn channel() -> (ReloadHandle, ReloadRequests) {
    let (sender, receiver) = mpsc::channel(MAX_WAITING);
    (ReloadHandle(sender), ReloadRequests(receiver))
}

impl ReloadHandle {
    /// Has the configuration read from its file and put in force, and waits for what comes of it.
    pub async fn reload(&self) -> ReloadOutcome {
        let (sender, outcome) = oneshot::channel();
        self.0.try_send(sender).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => "too many reloads are waiting".to_owned(),
            mpsc::error::TrySendError::Closed(_) => "this gateway has no file to reload".to_owned(),
        })?;
        outcome.await.unwrap_or_else(|_| Err("the gateway stops".to_owned()))
    }
}

impl ReloadRequests {
    /// The next request; never, if nobody can ask any more.
    pub async fn next(&mut self) -> oneshot::Sender<ReloadOutcome> {
        match self.0.recv().await {
            Some(request) => request,
            None => std::future::pending().await,
        }
    }
}

/// One runs at a time; whoever asks beyond this has lost patience.
const MAX_WAITING: usize = 16;
