//! What the operator sees of each request and of the process: access log, metrics, logging, request ids, spans,
//! suspicious conduct.
//!
//! Everything here observes and nothing decides: no function of this module may change what happens to a
//! request. It knows codes and reasons, but neither tokens nor configuration files; who calls it hands over
//! names and numbers that are fit to be seen.

pub mod access_log;
pub mod audit_log;
pub mod logging;
pub mod metrics;
pub mod patterns;
pub mod spans;
pub mod trace;
