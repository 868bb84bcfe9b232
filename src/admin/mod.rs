//! What is asked of the gateway itself rather than of the API behind it: its health, and who may know.
//!
//! Runs on the control runtime, at addresses of its own; nothing here is on a request's path.

pub mod health;
pub mod readiness;
