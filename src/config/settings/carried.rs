//! Probes of an application that only the gateway reaches.

use std::net::SocketAddr;
use std::str::FromStr;

/// A path of the health listener and what is asked for it: `/probes/a/ready=http://127.0.0.1:8080/ready`, or
/// `/probes/a/up=tcp://127.0.0.1:8080` where a connection is all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CarriedProbe {
    /// Where the health listener answers it.
    pub path: String,
    /// Where the application is, on loopback.
    pub address: SocketAddr,
    /// Path and query; none: a connection is all.
    pub target: Option<String>,
}

/// What is wrong with a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// It is not of the form.
    #[error(
        "not PATH=URL, such as /probes/a/ready=http://127.0.0.1:8080/ready or /probes/a/up=tcp://127.0.0.1:8080"
    )]
    Form,
    /// It would hide the listener's own answers, or a path that has them.
    #[error("the path must begin with /probes/")]
    Path,
    /// It leads elsewhere.
    #[error("the address must be on loopback, with a port: everyone may ask the health listener")]
    Address,
}

impl FromStr for CarriedProbe {
    type Err = ProbeError;

    fn from_str(text: &str) -> Result<Self, ProbeError> {
        let (path, url) = text.split_once('=').ok_or(ProbeError::Form)?;
        if !path.starts_with("/probes/") {
            return Err(ProbeError::Path);
        }
        let (scheme, rest) = url.split_once("://").ok_or(ProbeError::Form)?;
        let (address, target) = rest.find(['/', '?']).map_or((rest, ""), |end| rest.split_at(end));
        let address: SocketAddr = address.parse().map_err(|_| ProbeError::Address)?;
        if !address.ip().is_loopback() || address.port() == 0 {
            return Err(ProbeError::Address);
        }
        let target = match scheme {
            "http" if target.starts_with('/') => Some(target.to_owned()),
            "http" => Some(format!("/{target}")),
            "tcp" if target.is_empty() => None,
            _ => return Err(ProbeError::Form),
        };
        if target.as_ref().is_some_and(|target| target.parse::<http::Uri>().is_err()) {
            return Err(ProbeError::Form);
        }
        Ok(Self { path: path.to_owned(), address, target })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_and_only_below_probes() {
        let parsed = |text: &str| text.parse::<CarriedProbe>();
        assert!(parsed("/probes/a/ready=http://127.0.0.1:8080/ready?deep=1").is_ok());
        assert!(parsed("/probes/a/up=tcp://[::1]:8080").is_ok());
        for (text, expected) in [
            ("/probes/a", ProbeError::Form),
            ("/probes/a=ftp://127.0.0.1:8080", ProbeError::Form),
            ("/probes/a=tcp://127.0.0.1:8080/x", ProbeError::Form),
            ("/probes/a=http://127.0.0.1:8080/\u{7f} x", ProbeError::Form),
            ("/readyz=http://127.0.0.1:8080/ready", ProbeError::Path),
            ("/probes/a=http://10.0.0.1:8080/ready", ProbeError::Address),
            ("/probes/a=http://localhost:8080/ready", ProbeError::Address),
            ("/probes/a=http://127.0.0.1/ready", ProbeError::Address),
            ("/probes/a=http://127.0.0.1:8080@10.0.0.1:80/", ProbeError::Address),
        ] {
            assert_eq!(parsed(text), Err(expected), "{text}");
        }
    }
}
