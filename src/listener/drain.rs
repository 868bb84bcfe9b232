//! How a listener of one core, and the connections that it accepted, are told to finish.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;

/// Tells a listener and its connections to finish.
#[derive(Debug)]
pub struct Drain(DrainSignal);

/// The receiving end of a [`Drain`].
#[derive(Clone, Debug)]
pub struct DrainSignal(Rc<State>);

#[derive(Debug)]
struct State {
    patience: Cell<Option<Duration>>,
    begun: Notify,
}

impl Drain {
    /// A drain that has not begun.
    pub fn new() -> (Self, DrainSignal) {
        let signal = DrainSignal(Rc::new(State { patience: Cell::new(None), begun: Notify::new() }));
        (Self(signal.clone()), signal)
    }

    /// Begins: nothing new is accepted. A connection without a request is kept for `patience`, since a request may be
    /// on its way; what is asked on it then is answered, and is the last.
    pub fn begin(&self, patience: Duration) {
        let DrainSignal(state) = &self.0;
        state.patience.set(Some(patience));
        state.begun.notify_waiters();
    }
}

impl DrainSignal {
    /// Whether the drain has begun.
    pub fn has_begun(&self) -> bool {
        self.0.patience.get().is_some()
    }

    /// Resolves once the drain has begun, with the patience for connections without a request.
    pub async fn begun(&self) -> Duration {
        loop {
            let begun = self.0.begun.notified();
            if let Some(patience) = self.0.patience.get() {
                return patience;
            }
            begun.await;
        }
    }

    /// Resolves once the drain has begun and its patience is over.
    pub async fn out_of_patience(&self) {
        let patience = self.begun().await;
        tokio::time::sleep(patience).await;
    }
}
