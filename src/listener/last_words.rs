//! Each WebSocket of an HTTP/2 connection that has to end is told why, as by HTTP/1.1, for which the connection has to go
//! on for a moment.
//!
//! Knows nothing of what they are told, nor of why the connection ends.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::pace::hold_websocket;

/// How long that may take: the frame at hand comes to its end first.
const MOMENT: Duration = Duration::from_secs(1);

/// All of one connection.
#[derive(Clone, Debug, Default)]
pub struct WebSockets(Rc<RefCell<Vec<Weak<()>>>>);

impl WebSockets {
    /// What whoever carries the current stream's has to hold until it is over.
    pub fn hold(&self) -> Arc<()> {
        let hold = hold_websocket();
        let mut all = self.0.borrow_mut();
        all.retain(|other| other.strong_count() > 0);
        all.push(Arc::downgrade(&hold));
        hold
    }

    /// Lets a connection that takes nothing new go on until they are over, if there are any, and no longer than that takes.
    pub async fn last_words(&self, connection: impl Future) {
        let is_any_open = self.0.borrow().iter().any(|held| held.strong_count() > 0);
        if is_any_open {
            let _ = tokio::time::timeout(MOMENT, connection).await;
        }
    }
}
