//! The access log: one line for every request, whatever became of it.
//!
//! A core renders its lines into its own buffer and hands full buffers to one writer thread over a bounded
//! queue. A slow disk or a blocked pipe costs lines, which are counted and reported, and never a request.
//! A line is made of what the caller borrows to it; it knows nothing of requests, tokens or routes, and
//! nothing that a client sends can end a line or start a field.

mod core;
mod escape;
mod line;
mod queue;
mod record;
mod writer;

pub use core::CoreLog;
pub use escape::acts_on_a_terminal;
pub use record::{Auth, Outcome, Record};
pub(super) use record::{Name, Sink, name};
pub use writer::{AccessLog, DroppedLines, Output, Settings, ShutdownError, StartError};

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// One JSON object (RFC 8259) a line.
    #[default]
    Json,
    /// `key=value` pairs, values quoted where they need it, with JSON's escapes.
    Text,
}

#[cfg(test)]
mod tests;
