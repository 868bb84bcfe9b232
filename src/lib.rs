//! valgate, a reverse-proxy authentication gateway.

pub mod catalogue;
pub mod clock;
pub mod rejection;
