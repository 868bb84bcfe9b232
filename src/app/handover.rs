//! Replacing this process by a new one without closing a listening socket: the new one is started from the same
//! program file, which may be a newer version, gets duplicates of the sockets, and says when it serves.
//!
//! Until then this process serves on. Both accept from the same queues, so no connection waits in one that nobody
//! looks at.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, sendmsg,
    socketpair,
};
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;

use super::inherited::{END, HANDOVER, MAX_DESCRIPTORS, READY};

/// What is run anew: the program's file and arguments, as this process was started with them.
#[derive(Debug)]
pub struct Program {
    /// The kernel tells it by `/proc`, which may not be mounted. Who is never replaced does not need it.
    path: std::io::Result<std::path::PathBuf>,
    arguments: Vec<std::ffi::OsString>,
}

/// A new process that is not ready yet; ended when dropped.
#[derive(Debug)]
pub struct Successor {
    child: Option<Child>,
    channel: UnixStream,
}

/// Longer than a start takes with sources that are slow, which waits for them no longer than `app::STARTUP_WAIT`.
const PATIENCE: Duration = Duration::from_secs(60);

impl Program {
    /// This one. To be called at the start: later its file may have been replaced.
    pub fn this() -> Self {
        Self { path: std::env::current_exe(), arguments: std::env::args_os().skip(1).collect() }
    }

    fn path(&self) -> Result<&std::path::Path> {
        match &self.path {
            Ok(path) => Ok(path),
            Err(error) => {
                bail!("the program's own file is not known ({error}); was /proc mounted at the start?")
            }
        }
    }
}

impl Successor {
    /// Starts the program and hands it these sockets, each under a label.
    ///
    /// # Errors
    /// The program is not known or cannot be started, or does not take them.
    pub fn start(program: &Program, sockets: &[(String, Vec<BorrowedFd<'_>>)]) -> Result<Self> {
        let path = program.path()?;
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let child = Command::new(path)
            .args(&program.arguments)
            .env(HANDOVER, "1")
            // These name the process that systemd started.
            .env_remove("WATCHDOG_PID")
            .env_remove("LISTEN_PID")
            .env_remove("LISTEN_FDS")
            .env_remove("LISTEN_FDNAMES")
            .stdin(Stdio::from(theirs))
            .spawn()
            .with_context(|| format!("cannot start {}", path.display()))?;
        // In packets, each with its descriptors; for reading and waiting it is like any connected socket.
        let ours = net::UnixStream::from(ours);
        ours.set_nonblocking(true)?;
        let successor = Self { child: Some(child), channel: UnixStream::from_std(ours)? };
        successor.send(sockets).context("the new process takes no sockets")?;
        Ok(successor)
    }

    /// Waits until the new process serves; gives its process id.
    ///
    /// # Errors
    /// It ended, or is not ready after a minute. It is gone then.
    pub async fn ready(mut self) -> Result<u32> {
        match tokio::time::timeout(PATIENCE, self.answer()).await {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => bail!("the new process ended before it was ready; its log says why"),
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => bail!("the new process is not ready after {} s", PATIENCE.as_secs()),
        }
        Ok(self.child.take().map(|child| child.id()).unwrap_or_default())
    }

    fn send(&self, sockets: &[(String, Vec<BorrowedFd<'_>>)]) -> rustix::io::Result<()> {
        // Its buffer takes far more than a few labels, so that nothing here blocks.
        for (label, descriptors) in sockets {
            for some in descriptors.chunks(MAX_DESCRIPTORS) {
                self.send_one(label.as_bytes(), some)?;
            }
        }
        self.send_one(END, &[])
    }

    fn send_one(&self, label: &[u8], descriptors: &[BorrowedFd<'_>]) -> rustix::io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        sendmsg(self.channel.as_fd(), &[IoSlice::new(label)], &mut ancillary, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    async fn answer(&mut self) -> std::io::Result<bool> {
        let mut answer = [0; READY.len()];
        let received = self.channel.read(&mut answer).await?;
        Ok(answer.get(..received) == Some(READY))
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It has ended already, or it must.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
