//! Proxies in front of the gateway.

use ipnet::IpNet;

/// Whose word on the client's address counts.
#[derive(Clone, Debug)]
pub struct Forwarded {
    /// Networks of trusted proxies; none: the client is whoever connects.
    pub trusted_proxies: Vec<IpNet>,
    /// Where they tell it.
    pub header: ForwardedHeader,
}

/// The header in which proxies name the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`, `X-Forwarded-Proto`, `X-Forwarded-Host`.
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}
