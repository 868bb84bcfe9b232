//! Binding addresses: every socket is open before anything runs, so that a port in use is an error at the start.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// One address, bound once for each core.
#[derive(Debug)]
pub struct BoundListener {
    /// The address, with the port that the operating system chose if port 0 was asked for.
    pub address: SocketAddr,
    /// One socket for each core.
    pub sockets: Vec<TcpListener>,
}

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {cause}")]
pub struct BindError {
    /// The address as configured.
    pub address: SocketAddr,
    /// What the operating system said.
    #[source]
    pub cause: io::Error,
}

/// The connections that wait to be accepted; the kernel bounds it further.
const BACKLOG: i32 = 4096;

/// Binds the address for this many cores.
pub fn bind(address: SocketAddr, cores: usize) -> Result<BoundListener, BindError> {
    let failed = |cause| BindError { address, cause };
    // A socket without SO_REUSEPORT sees whether anybody, another valgate included, has the port already: with
    // the option two gateways would silently share it.
    let probe = open(address, false).map_err(failed)?;
    let address = probe.local_addr().map_err(failed)?;
    drop(probe);
    let sockets = (0..cores).map(|_| open(address, true)).collect::<io::Result<_>>().map_err(failed)?;
    Ok(BoundListener { address, sockets })
}

fn open(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::bind;

    #[test]
    fn a_port_in_use_is_an_error_even_if_its_owner_would_share_it() {
        let first = bind("127.0.0.1:0".parse().unwrap(), 2).unwrap();
        assert_eq!(first.sockets.len(), 2);
        let error = bind(first.address, 2).unwrap_err();
        assert!(error.to_string().contains(&first.address.to_string()), "{error}");
    }
}
