//! What is asked of the gateway itself rather than of the API behind it.
//!
//! Two doors: [`health`], open, for probes and scrapes; and the private one, which [`gate`] guards and whose
//! [`Router`] leads to one file in [`endpoints`] for each path. Runs on the control runtime, at addresses of its own;
//! nothing here is on a request's path.

pub mod answer;
pub mod carried;
pub mod endpoints;
pub mod gate;
pub mod health;
pub mod in_force;
pub mod readiness;
pub mod reloads;
pub mod router;
pub mod server;

pub use router::{Call, Endpoint, Operation, Parameter, Reply, Router};
