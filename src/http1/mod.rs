//! The strict HTTP/1.1 framing guard: what reaches the HTTP parser can be read in one way only.
//!
//! A lenient parser is right for a web server and wrong for a gateway: wherever two parsers in a row disagree about
//! where a request ends or what it asks for, a request can be smuggled past authentication. hyper accepts bare LF
//! as a line end, leading empty lines, `Content-Length` beside `Transfer-Encoding` (and drops one), and cuts
//! `#fragment` off targets; what it cannot parse it answers itself, with an empty 400 that no log line records.
//!
//! [`Guard`] stands between the stream and hyper. It follows the framing of RFC 9112 byte by byte, releases each
//! request head only when it is complete and beyond doubt, and hands body bytes on in the buffer they arrived in.
//! A request that fails is never released; hyper gets a harmless one in its place, and [`GuardHandle::begin`], which
//! the service must ask first at each call, tells by the request's ordinal on the connection that this one is
//! refused and why. So a refusal is answered like any other, in its turn among pipelined requests.
//!
//! ```text
//! guard     the stream: reads, holds back, releases, stands aside for a tunnel
//! framing   where one message ends and the next begins      (sans-I/O, as all below)
//! head      request line and header fields, RFC 9112 sections 2 to 6
//! chunked   the chunked coding, RFC 9112 section 7.1
//! syntax    characters, hosts
//! handle    what the service on the other side of hyper learns and decides
//! ```
//!
//! Knows nothing of routes, tokens or responses, and nothing of what a legal header means beyond framing: an
//! absolute target that disagrees with `Host`, ambiguous paths and hop-by-hop headers are the gateway's business.

mod chunked;
mod framing;
mod guard;
mod handle;
mod head;
mod limits;
mod lines;
mod stash;
mod syntax;
mod violation;

pub use guard::Guard;
pub use handle::{GuardHandle, Turn};
pub use limits::GuardLimits;
pub use violation::Violation;

#[cfg(test)]
mod tests;
