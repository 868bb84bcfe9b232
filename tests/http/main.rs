//! HTTP end to end: raw bytes in at the front, and what a recording backend got of them.
//!
//! A test judges by the backend, not only by the status that the client saw.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
#![allow(missing_docs, reason = "the names of tests say what they are")]
#![allow(clippy::too_many_lines, clippy::format_collect, reason = "tables")]

#[path = "../support/h2api.rs"]
mod h2api;
#[path = "../support/recorder.rs"]
mod recorder;
mod setup;
mod upstream;
mod websocket;
mod wire;

mod advisories;
mod api_streams;
mod bodies;
mod closed;
mod cors;
mod differential;
mod dying;
mod endpoints;
mod floods;
mod framing;
mod h2server;
mod h2wire;
mod headers;
mod http2;
mod leaving;
mod limits;
mod names;
mod overload;
mod paths;
mod process;
mod provenance;
mod resting;
mod routing;
mod timeouts;
mod trailers;
