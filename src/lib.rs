//! valgate, a reverse-proxy authentication gateway: it verifies the bearer token of each request against cached
//! keys and a revocation feed, forwards what is authorized, and refuses the rest with a documented code.
//!
//! # Where things are
//!
//! A module imports only from lower layers, from siblings in its own folder, and in its own layer from those that
//! stand left of it; sources and data plane do not know each other. `tests/architecture.rs` holds the code to this
//! table.
//!
//! | layer | modules | what they are |
//! |---|---|---|
//! | 0 vocabulary | [`clock`] [`catalogue`] [`rejection`] | time, codes and reasons, a refusal |
//! | 1 decisions | [`keys`] [`token`] [`revocation`] [`events`] [`certificate`] [`cors`] [`policy`] [`route`] | pure and synchronous: no I/O, no runtime |
//! | 2 configuration | [`config`] | YAML to settings that cannot be wrong |
//! | 3 sources | [`feeds`] | background tasks that fetch keys and revocations and publish them |
//! | 4 data plane | [`telemetry`] [`upstream`] [`http1`] [`gateway`] [`listener`] | what a request passes through, one set per core |
//! | 5 process | [`admin`] [`otlp`] [`app`] [`feed_server`] [`inject`] [`demo`] [`cli`] | start, drain, delivery of spans, Kubernetes manifests, commands |
//!
//! # The life of a request
//!
//! `gateway::handle` is the page to read: each line is one step, each step a module, and each hands the next a
//! type that only it can make.
//!
//! ```text
//! listener    accept -> TLS -> HTTP/1.1 (behind a strict framing guard) or HTTP/2
//! sanitize    Request            -> CleanRequest     ambiguous requests refused, reserved headers removed
//! route       CleanRequest       -> &Route           exactly one, or VAL-040 / VAL-041
//! credential  CleanRequest       -> Presented        exactly one credential
//! verify      Presented          -> VerifiedToken    verdict cache, or the named checks
//! revocation  VerifiedToken      -> LiveToken        always after the cache
//! policy      LiveToken          -> Permit           client certificate, scopes and claim rules
//! forward     Permit, CleanRequest -> Response       takes the permit: no forwarding without authorization
//! respond     Rejection          -> Response         a code as problem+json, with a challenge
//! observe     one log line, one set of metrics, one trace span where traces are recorded, whatever happened
//! ```
//!
//! # What is per core and what is global
//!
//! Each worker thread runs a single-threaded runtime with its own listening sockets, connections, upstream pool,
//! first-level verdict cache, counters and log buffer. One control thread runs feeds, key refresh, admin. Global
//! and read by all: key sets, revocation indexes, configuration. They are published by pointer swap; the warm path
//! writes to nothing that another core writes to.

pub mod admin;
pub mod app;
pub mod catalogue;
pub mod certificate;
pub mod cli;
pub mod clock;
pub mod config;
pub mod cors;
pub mod demo;
pub mod events;
pub mod feed_server;
pub mod feeds;
pub mod gateway;
pub mod http1;
pub mod inject;
pub mod keys;
pub mod listener;
pub mod otlp;
pub mod policy;
pub mod rejection;
pub mod revocation;
pub mod route;
pub mod telemetry;
pub mod token;
pub mod upstream;
