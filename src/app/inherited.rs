//! Listening sockets that this process was started with: by systemd (socket activation), or by the gateway that it
//! is to replace.
//!
//! The gateway that is replaced passes its sockets over a Unix socket that is the new process's standard input, and
//! waits there for the word that the new one is ready.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

use anyhow::{Context, Result, bail};
use listenfd::ListenFd;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, recvmsg, send, sockopt};
use socket2::SockRef;

/// Set for a process that is to replace another.
pub const HANDOVER: &str = "VALGATE_HANDOVER";

/// Ends the list of sockets.
pub const END: &[u8] = b"end";

/// What a new process answers once it serves.
pub const READY: &[u8] = b"ready";

/// The most descriptors in one message; the kernel allows 253.
pub const MAX_DESCRIPTORS: usize = 64;

/// No label is longer.
const MAX_LABEL: usize = 256;

/// See the module.
#[derive(Debug, Default)]
pub struct Inherited {
    sockets: Vec<Labelled>,
    predecessor: Option<OwnedFd>,
}

#[derive(Debug)]
struct Labelled {
    /// What the predecessor had it for; systemd's are known by their address.
    label: Option<String>,
    socket: OwnedFd,
}

impl Inherited {
    /// Nothing: every socket is bound anew.
    pub fn none() -> Self {
        Self::default()
    }

    /// What the environment says was handed over. To be called once, before there are other threads.
    ///
    /// # Errors
    /// A predecessor that does not speak as expected; a descriptor of systemd's that is no listening socket.
    pub fn from_environment() -> Result<Self> {
        if std::env::var_os(HANDOVER).is_some() {
            return Self::from_predecessor().context("the gateway to be replaced hands nothing over");
        }
        let mut passed = ListenFd::from_env();
        let mut sockets = Vec::new();
        for place in 0..passed.len() {
            let socket = match passed.take_tcp_listener(place) {
                Ok(socket) => socket.map(OwnedFd::from),
                Err(_) => passed
                    .take_unix_listener(place)
                    .with_context(|| format!("socket {place} of LISTEN_FDS"))?
                    .map(OwnedFd::from),
            };
            sockets.extend(socket.map(|socket| Labelled { label: None, socket }));
        }
        Ok(Self { sockets, predecessor: None })
    }

    /// Whether there is a gateway that goes on serving until this one is ready.
    pub fn has_predecessor(&self) -> bool {
        self.predecessor.is_some()
    }

    /// Takes the sockets that were handed over under this label or, by systemd, for this address.
    pub fn take(&mut self, label: &str, address: SocketAddr) -> Vec<TcpListener> {
        let is_at = |socket: &OwnedFd| {
            SockRef::from(socket).local_addr().is_ok_and(|had| had.as_socket() == Some(address))
        };
        self.take_if(label, is_at).into_iter().map(TcpListener::from).collect()
    }

    /// Takes the Unix socket that was handed over under this label or, by systemd, for this path.
    pub fn take_unix(&mut self, label: &str, path: &Path) -> Option<UnixListener> {
        let is_at = |socket: &OwnedFd| {
            SockRef::from(socket).local_addr().is_ok_and(|had| had.as_pathname() == Some(path))
        };
        self.take_if(label, is_at).pop().map(UnixListener::from)
    }

    fn take_if(&mut self, label: &str, is_at: impl Fn(&OwnedFd) -> bool) -> Vec<OwnedFd> {
        let fits = |passed: &mut Labelled| match &passed.label {
            Some(had) => had == label,
            None => is_at(&passed.socket),
        };
        self.sockets.extract_if(.., fits).map(|passed| passed.socket).collect()
    }

    /// Tells the predecessor that its time has come, and closes what nobody took.
    pub fn serving(self) {
        for Labelled { socket, .. } in self.sockets {
            if let Ok(address) = SockRef::from(&socket).local_addr() {
                tracing::warn!(
                    ?address,
                    "a listening socket was handed over that no listener is configured for"
                );
            }
        }
        if let Some(predecessor) = self.predecessor
            && let Err(error) = send(predecessor, READY, SendFlags::NOSIGNAL)
        {
            tracing::warn!(%error, "the gateway that is to be replaced cannot be told so");
        }
    }

    fn from_predecessor() -> Result<Self> {
        let channel = io::stdin().as_fd().try_clone_to_owned()?;
        sockopt::socket_type(&channel).context("standard input is not a socket")?;
        let mut sockets = Vec::new();
        loop {
            let mut label = [0; MAX_LABEL];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let received = recvmsg(
                &channel,
                &mut [IoSliceMut::new(&mut label)],
                &mut ancillary,
                RecvFlags::CMSG_CLOEXEC,
            )?;
            let label = label.get(..received.bytes).unwrap_or_default();
            match label {
                b"" => bail!("it has gone away"),
                END => break,
                _ => {}
            }
            let label = std::str::from_utf8(label)?;
            for message in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                    sockets.extend(
                        descriptors
                            .map(|descriptor| Labelled { label: Some(label.to_owned()), socket: descriptor }),
                    );
                }
            }
        }
        Ok(Self { sockets, predecessor: Some(channel) })
    }
}
