//! The writer thread: takes batches from the cores and writes them to one output, whole lines at a time.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread;
use std::time::Duration;

use super::queue::{Batch, Message, Queue};
use super::{CoreLog, Format};

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Nowhere: no thread, no lines.
    Off,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file, appended to, made with mode 0640 if absent.
    File(PathBuf),
}

/// How the log is written.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What messages call it.
    pub name: &'static str,
    /// How a line looks.
    pub format: Format,
    /// Where lines go.
    pub output: Output,
    /// How many bytes of lines may wait before any are dropped. The default, 8 MiB, is some 15,000 requests.
    pub queue: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { name: "access log", format: Format::default(), output: Output::Stdout, queue: 8 << 20 }
    }
}

/// Why the log could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The file cannot be opened.
    #[error(
        "{log}: cannot open '{path}' for appending: {source}; check that its directory exists and that the gateway may write there"
    )]
    Open {
        /// Which log.
        log: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// No thread.
    #[error("{0}: cannot start its writer thread: {1}; check the limits on processes and memory")]
    Thread(&'static str, io::Error),
}

/// The writer did not end in time: its output blocks.
#[derive(Debug, thiserror::Error)]
#[error("{0}: its output is blocked, lines were lost; check what reads it")]
pub struct ShutdownError(&'static str);

/// The log of the process: owns the writer thread.
#[derive(Debug)]
pub struct AccessLog {
    name: &'static str,
    format: Format,
    dropped: Arc<AtomicU64>,
    thread: Option<Thread>,
}

#[derive(Debug)]
struct Thread {
    queue: Queue,
    requests: Arc<Requests>,
    ended: Receiver<()>,
}

/// What the writer is asked to do once the queue is empty.
#[derive(Debug, Default)]
struct Requests {
    stop: AtomicBool,
    reopen: AtomicBool,
}

/// A reading of the lines lost so far: to a full queue or a failing output.
#[derive(Clone, Debug)]
pub struct DroppedLines(Arc<AtomicU64>);

impl DroppedLines {
    /// The number since the start of the process.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl AccessLog {
    /// Opens the output and starts the writer thread.
    pub fn start(settings: &Settings) -> Result<Self, StartError> {
        let target = match &settings.output {
            Output::Off => None,
            Output::Stdout => Some(Target::Stream(Box::new(io::stdout()))),
            Output::Stderr => Some(Target::Stream(Box::new(io::stderr()))),
            Output::File(path) => Some(Target::open(settings.name, path)?),
        };
        Self::start_with(settings, target)
    }

    pub(super) fn start_with(settings: &Settings, target: Option<Target>) -> Result<Self, StartError> {
        let dropped = Arc::new(AtomicU64::new(0));
        let spawn = |target| Thread::spawn(settings.name, target, settings.queue, &dropped);
        let thread = target.map(spawn).transpose()?;
        Ok(Self { name: settings.name, format: settings.format, dropped, thread })
    }

    /// The log of one more core.
    pub fn per_core(&self) -> CoreLog {
        let queue = self.thread.as_ref().map(|thread| thread.queue.clone());
        CoreLog::new(self.format, queue, Arc::clone(&self.dropped))
    }

    /// A reading of the lines lost, for metrics.
    pub fn dropped_lines(&self) -> DroppedLines {
        DroppedLines(Arc::clone(&self.dropped))
    }

    /// Has the writer open its file anew, as after a rotation. If that fails, the old file stays in use.
    pub fn reopen(&self) {
        if let Some(thread) = &self.thread {
            thread.request(&thread.requests.reopen);
        }
    }

    /// Writes what the cores have handed over, and ends the thread. Cores must have flushed before.
    pub fn shutdown(mut self, patience: Duration) -> Result<(), ShutdownError> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.request(&thread.requests.stop);
        thread.ended.recv_timeout(patience).map_err(|_| ShutdownError(self.name))
    }
}

impl Thread {
    fn spawn(
        name: &'static str,
        target: Target,
        queue: usize,
        dropped: &Arc<AtomicU64>,
    ) -> Result<Self, StartError> {
        let (queue, batches) = Queue::new(queue);
        let (end, ended) = sync_channel(1);
        let requests = Arc::new(Requests::default());
        let mut writer = Writer {
            name,
            target,
            batches,
            requests: Arc::clone(&requests),
            dropped: Arc::clone(dropped),
            torn: false,
            lost: 0,
        };
        let run = move || {
            writer.run();
            // Nobody may be waiting any more.
            _ = end.send(());
        };
        thread::Builder::new()
            .name(name.replace(' ', "-"))
            .spawn(run)
            .map_err(|error| StartError::Thread(name, error))?;
        Ok(Self { queue, requests, ended })
    }

    /// Sets the flag, then wakes the writer, which looks at the flags when it has emptied the queue.
    fn request(&self, flag: &AtomicBool) {
        flag.store(true, Ordering::SeqCst);
        self.queue.wake();
    }
}

struct Writer {
    name: &'static str,
    target: Target,
    batches: Receiver<Message>,
    requests: Arc<Requests>,
    dropped: Arc<AtomicU64>,
    /// A failed write may have left half a line.
    torn: bool,
    /// Lines lost since the output began to fail.
    lost: u64,
}

impl Writer {
    fn run(&mut self) {
        while let Some(message) = self.next() {
            if let Message::Batch(batch) = &message {
                self.write(batch);
            }
            message.recycle();
        }
    }

    /// The next message; `None` when the queue is empty and the writer is to stop.
    fn next(&mut self) -> Option<Message> {
        match self.batches.try_recv() {
            Ok(message) => return Some(message),
            Err(TryRecvError::Disconnected) => return None,
            Err(TryRecvError::Empty) => {}
        }
        if self.requests.reopen.swap(false, Ordering::SeqCst) {
            self.reopen();
        }
        if self.requests.stop.load(Ordering::SeqCst) {
            return None;
        }
        self.batches.recv().ok()
    }

    fn write(&mut self, batch: &Batch) {
        let separator: &[u8] = if self.torn { b"\n" } else { b"" };
        let target = self.target.writer();
        let result = target.write_all(separator).and_then(|()| target.write_all(&batch.bytes));
        match result.and_then(|()| target.flush()) {
            Ok(()) => {
                self.torn = false;
                if self.lost > 0 {
                    tracing::warn!(
                        log = self.name,
                        lines = self.lost,
                        "the log's output works again; lines were lost"
                    );
                    self.lost = 0;
                }
            }
            Err(error) => {
                if self.lost == 0 {
                    tracing::error!(log = self.name, %error, "the log's output fails; lines are lost until it works again");
                }
                self.torn = true;
                self.lost += batch.lines;
                self.dropped.fetch_add(batch.lines, Ordering::Relaxed);
            }
        }
    }

    fn reopen(&mut self) {
        if let Target::File { path, .. } = &self.target {
            match Target::open(self.name, path) {
                Ok(target) => {
                    self.target = target;
                    self.torn = false;
                }
                Err(error) => tracing::error!(log = self.name, %error, "the log stays with its old file"),
            }
        }
    }
}

/// The output, open.
pub(super) enum Target {
    Stream(Box<dyn Write + Send>),
    File { path: PathBuf, file: File },
}

impl Target {
    fn open(log: &'static str, path: &Path) -> Result<Self, StartError> {
        let file = OpenOptions::new().append(true).create(true).mode(0o640).open(path);
        match file {
            Ok(file) => Ok(Self::File { path: path.to_owned(), file }),
            Err(source) => Err(StartError::Open { log, path: path.to_owned(), source }),
        }
    }

    fn writer(&mut self) -> &mut dyn Write {
        match self {
            Self::Stream(stream) => stream.as_mut(),
            Self::File { file, .. } => file,
        }
    }
}
