//! `valgate feed serve`: a small durable server for the documented revocation feed (docs/revocation-feed.md), for
//! teams that have no engine.
//!
//! ```text
//! POST -> Book (memory) -> Log (disk, synced) -> answer      GET -> Book, or wait for the next write
//! ```
//!
//! One process writes, any number of gateways read. An entry that was acknowledged survives a crash; one that was not
//! may have. Knows nothing of gateways, tokens and issuers.

mod answer;
mod book;
mod line;
mod log;
mod serve;
mod sign;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result};
use http::HeaderValue;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::clock::{Clock, UnixSeconds};
use crate::config::settings::Tls;
use book::Book;
use log::Log;
pub use log::read_forged_log;
pub use sign::FeedSigner;

/// How the server is run.
#[derive(Debug)]
pub struct Settings {
    /// Where it listens.
    pub address: SocketAddr,
    /// Where it keeps its log.
    pub data: PathBuf,
    /// The `Authorization` of those who may write.
    pub write_authorization: HeaderValue,
    /// The `Authorization` of those who may read; without it, everybody who reaches it.
    pub read_authorization: Option<HeaderValue>,
    /// What it presents; without it, it speaks plain HTTP.
    pub tls: Option<Tls>,
    /// Signs answers for those who ask for it.
    pub signer: Option<FeedSigner>,
    /// The most entries in force.
    pub max_entries: usize,
}

/// A server that is running; dropping it stops it.
#[derive(Debug)]
pub struct FeedServer {
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

/// What all connections share.
#[derive(Debug)]
struct State {
    kept: Mutex<Kept>,
    /// The number of the last change; long polls wait for another.
    last: watch::Sender<u64>,
    write_authorization: HeaderValue,
    read_authorization: Option<HeaderValue>,
    signer: Option<FeedSigner>,
    max_entries: usize,
    clock: Clock,
}

/// The same in memory and on disk.
#[derive(Debug)]
struct Kept {
    book: Book,
    log: Log,
    /// When it was last looked for what is over.
    swept_at: UnixSeconds,
}

impl FeedServer {
    /// Reads the log and begins to serve.
    ///
    /// # Errors
    /// The address cannot be bound, a certificate cannot be read, or the log is damaged or in use by another server.
    pub async fn start(settings: Settings, clock: Clock) -> Result<Self> {
        let tls = settings.tls.as_ref().map(crate::listener::server_config).transpose()?;
        let (log, mut book) = Log::open(&settings.data, clock.wall())
            .with_context(|| format!("the feed's log in {}", settings.data.display()))?;
        book.forget(clock.wall());
        let listener = TcpListener::bind(settings.address)
            .await
            .with_context(|| format!("cannot listen on {}", settings.address))?;
        let address = listener.local_addr()?;
        let state = State {
            last: watch::Sender::new(book.last()),
            kept: Mutex::new(Kept { book, log, swept_at: clock.wall() }),
            write_authorization: settings.write_authorization,
            read_authorization: settings.read_authorization,
            signer: settings.signer,
            max_entries: settings.max_entries,
            clock,
        };
        let accepting = tokio::spawn(serve::accept(listener, tls, Arc::new(state)));
        Ok(Self { address, accepting })
    }

    /// Where it listens, with the port that a bind to port 0 chose.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops: connections are closed. What was acknowledged is on disk.
    pub async fn stop(mut self) {
        self.accepting.abort();
        let _ = (&mut self.accepting).await;
    }
}

impl Drop for FeedServer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl State {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        // A write that panicked half-way left the log behind the book at worst, and the writer without an answer.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
