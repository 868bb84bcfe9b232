//! Binding addresses: every socket is open before anything runs, so that a port in use is an error at the start.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// One address, bound once for each core.
#[derive(Debug)]
pub struct BoundListener {
    /// The address, with the port that the operating system chose if port 0 was asked for.
    pub address: SocketAddr,
    /// One socket for each core, or as many as were handed over.
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

/// Whether a port may have been taken by somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// It must be free: with `SO_REUSEPORT` two gateways would silently share it.
    Free,
    /// This process listens on it already, at another address.
    Ours,
}

/// The connections that wait to be accepted; the kernel bounds it further.
const BACKLOG: i32 = 4096;

/// Binds the address for this many cores.
pub fn bind(address: SocketAddr, cores: usize, port: Port) -> Result<BoundListener, BindError> {
    let failed = |cause| BindError { address, cause };
    let address = match port {
        // A socket without SO_REUSEPORT sees whether anybody, another valgate included, has the port already.
        Port::Free => open(address, false).and_then(|probe| probe.local_addr()).map_err(failed)?,
        Port::Ours => address,
    };
    let sockets = (0..cores).map(|_| open(address, true)).collect::<io::Result<_>>().map_err(failed)?;
    Ok(BoundListener { address, sockets })
}

/// Takes sockets over that somebody else bound to one address. All are kept, since connections may wait in each; what
/// is missing for this many cores is added if the sockets allow it.
pub fn take_over(mut sockets: Vec<TcpListener>, cores: usize) -> io::Result<BoundListener> {
    let first = sockets.first().ok_or(io::ErrorKind::NotFound)?;
    let address = first.local_addr()?;
    if SockRef::from(first).reuse_port()? {
        for _ in sockets.len()..cores {
            sockets.push(open(address, true)?);
        }
    }
    for socket in &sockets {
        socket.set_nonblocking(true)?;
    }
    Ok(BoundListener { address, sockets })
}

impl BoundListener {
    /// The sockets for each of this many cores. None is left out, so that no connection waits in vain; where there are
    /// fewer than cores, cores accept from the same one.
    pub fn share(&self, cores: usize) -> io::Result<Vec<Vec<TcpListener>>> {
        let shares = self.sockets.len().max(cores);
        let mut per_core: Vec<Vec<TcpListener>> = (0..cores).map(|_| Vec::new()).collect();
        for (share, socket) in (0..shares).zip(self.sockets.iter().cycle()) {
            if let Some(core) = per_core.get_mut(share % cores.max(1)) {
                core.push(socket.try_clone()?);
            }
        }
        Ok(per_core)
    }
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
    use super::*;

    fn bound(cores: usize) -> BoundListener {
        bind("127.0.0.1:0".parse().unwrap(), cores, Port::Free).unwrap()
    }

    #[test]
    fn a_port_in_use_is_an_error_even_if_its_owner_would_share_it() {
        let first = bound(2);
        assert_eq!(first.sockets.len(), 2);
        let error = bind(first.address, 2, Port::Free).unwrap_err();
        assert!(error.to_string().contains(&first.address.to_string()), "{error}");
        assert_eq!(bind(first.address, 2, Port::Ours).unwrap().address, first.address);
    }

    #[test]
    fn every_socket_that_is_taken_over_has_a_core_and_every_core_a_socket() {
        for (sockets, cores, taken) in [(3, 2, 3), (2, 2, 2), (1, 3, 3)] {
            let listener = take_over(bound(sockets).sockets, cores).unwrap();
            assert_eq!(listener.sockets.len(), taken);
            let per_core = listener.share(cores).unwrap();
            assert_eq!(per_core.iter().map(Vec::len).sum::<usize>(), taken);
            assert!(per_core.iter().all(|core| !core.is_empty()));
        }
        // What systemd binds by default cannot be bound again, so the cores accept from the one.
        let plain = TcpListener::bind("127.0.0.1:0").unwrap();
        let listener = take_over(vec![plain], 3).unwrap();
        assert_eq!(listener.sockets.len(), 1);
        assert_eq!(listener.share(3).unwrap().iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 1]);
    }
}
