//! Accepting connections: from a socket to requests that the gateway can judge.

pub mod http1;
