//! The way to a stored copy for those who cannot wait for a disk: one that hangs costs the copy, never the source.
//!
//! A copy is read once. One text is written at a time; of those that come meanwhile the newest is written in the end.
//! Knows nothing of what the text means.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;
use tracing::warn;

use super::stored::{Restored, Store, StoreError};
use crate::clock::{Clock, Monotonic, UnixSeconds};

/// The copy of one thing.
#[derive(Debug)]
pub(super) struct KeptCopy {
    clock: Clock,
    reading: Reading,
    text: Bytes,
    saved: Option<Monotonic>,
    writer: Arc<Writer>,
}

/// A moment by both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) monotonic: Monotonic,
    pub(super) wall: UnixSeconds,
}

impl Moment {
    pub(super) fn now(clock: &Clock) -> Self {
        Self { monotonic: clock.monotonic(), wall: clock.wall() }
    }
}

#[derive(Debug)]
enum Reading {
    NotBegun,
    UnderWay { begun: Monotonic, reading: JoinHandle<Option<Outcome>> },
    Done,
}

type Outcome = Result<Option<Restored>, StoreError>;

#[derive(Debug)]
struct Writer {
    store: Store,
    /// What it is a copy of, and which, for the log.
    kind: &'static str,
    name: String,
    desk: Mutex<Desk>,
}

/// What the one who writes finds.
#[derive(Debug, Default)]
struct Desk {
    next: Option<Order>,
    /// Since when somebody writes.
    busy: Option<Monotonic>,
    noted: Option<String>,
}

#[derive(Debug)]
enum Order {
    Write(Bytes, UnixSeconds),
    Remove,
}

impl KeptCopy {
    /// The copy in `store`. `kind` and `name` say in the log what it is a copy of, such as "a status list".
    pub(super) fn new(store: Store, kind: &'static str, name: &str, clock: Clock) -> Self {
        let writer = Writer { store, kind, name: name.to_owned(), desk: Mutex::default() };
        let writer = Arc::new(writer);
        Self { clock, reading: Reading::NotBegun, text: Bytes::new(), saved: None, writer }
    }

    /// The copy from before a restart, once: by the call that finds it read. Only the first call waits, and not for
    /// long; a disk that is slower than that is asked by those that follow whether it is done.
    pub(super) async fn restore(&mut self) -> Option<Restored> {
        let mut patience = Duration::ZERO;
        if matches!(self.reading, Reading::NotBegun) {
            patience = PATIENCE;
            let (store, now) = (self.writer.store.clone(), self.clock.wall());
            let reading = tokio::spawn(at_the_disk(move || store.restore(now)));
            self.reading = Reading::UnderWay { begun: self.clock.monotonic(), reading };
        }
        let Reading::UnderWay { begun, reading } = &mut self.reading else { return None };
        let begun = *begun;
        let (kind, name) = (self.writer.kind, &self.writer.name);
        let Ok(read) = timeout(patience, reading).await else {
            if !patience.is_zero() {
                warn!(
                    name,
                    "state_dir does not answer: {kind} begins without its copy, which counts once it is read if \
                     there is nothing newer then; check the disk"
                );
            }
            return None;
        };
        self.reading = Reading::Done;
        // Neither is there when the runtime is shutting down.
        match read.ok().flatten()? {
            Ok(restored) => {
                let Restored { document, age } = restored?;
                let waited = begun.until(self.clock.monotonic());
                Some(Restored { document, age: age.saturating_add(waited) })
            }
            Err(error) => {
                warn!(name, %error, "the stored copy of {kind} is not used");
                None
            }
        }
    }

    /// Has what was kept before counted for nothing.
    pub(super) fn forgo(&mut self) {
        self.reading = Reading::Done;
    }

    /// Whether what was kept may still come to light.
    pub(super) fn is_being_read(&self) -> bool {
        !matches!(self.reading, Reading::Done)
    }

    /// Has the text written down that was just accepted, as of when it was asked for; none: the one before was confirmed,
    /// and is written anew now and then, since a copy counts with its age. Waits for nothing.
    pub(super) fn keep(&mut self, accepted: Option<Bytes>, asked_at: Moment) {
        let changed = accepted.as_ref().is_some_and(|text| *text != self.text);
        if let Some(text) = accepted {
            self.text = text;
            // Whatever is still being read is older.
            self.reading = Reading::Done;
        }
        let recent = self.saved.is_some_and(|saved| saved.until(asked_at.monotonic) < LOOKS_OLDER);
        if self.text.is_empty() || (recent && !changed) {
            return;
        }
        self.saved = Some(asked_at.monotonic);
        self.writer.take(Order::Write(self.text.clone(), asked_at.wall), &self.clock);
    }

    /// Nobody needs it any more.
    pub(super) fn remove(self) {
        self.writer.take(Order::Remove, &self.clock);
    }
}

impl Writer {
    fn take(self: &Arc<Self>, order: Order, clock: &Clock) {
        let mut desk = self.desk();
        // The newest stands for all before it: nobody asks for those.
        desk.next = Some(order);
        let now = clock.monotonic();
        match desk.busy {
            None => {
                desk.busy = Some(now);
                drop(desk);
                let writer = Arc::clone(self);
                tokio::spawn(at_the_disk(move || writer.write()));
            }
            Some(since) if since.until(now) >= PATIENCE => {
                self.note(&mut desk, Some("the disk does not answer".to_owned()));
            }
            Some(_) => {}
        }
    }

    /// Until there is nothing more to write.
    fn write(&self) {
        loop {
            let mut desk = self.desk();
            let Some(order) = desk.next.take() else {
                desk.busy = None;
                return;
            };
            drop(desk);
            let written = match order {
                Order::Write(text, asked_at) => self.store.save(&text, asked_at),
                Order::Remove => {
                    self.store.forget();
                    Ok(())
                }
            };
            self.note(&mut self.desk(), written.err().map(|error| error.to_string()));
        }
    }

    /// Each failure is said once.
    fn note(&self, desk: &mut Desk, failure: Option<String>) {
        if desk.noted == failure {
            return;
        }
        if let Some(error) = &failure {
            warn!(name = self.name, error, "{} cannot be kept for a restart", self.kind);
        }
        desk.noted = failure;
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Works where the runtime may be blocked; nothing comes of it when that shuts down.
pub(super) async fn at_the_disk<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    // Never closed.
    let place = AT_A_TIME.acquire().await.ok()?;
    let working = spawn_blocking(move || {
        let _place = place;
        work()
    });
    working.await.ok()
}

/// However many copies a disk that hangs holds up, it leaves the runtime threads for all else.
static AT_A_TIME: Semaphore = Semaphore::const_new(16);
/// A disk that answers does so within this.
const PATIENCE: Duration = Duration::from_millis(500);
/// How much older than it is a copy may look.
const LOOKS_OLDER: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};
    use std::process::Command;

    use super::*;
    use crate::clock::ClockHand;
    use crate::feeds::testing::eventually;

    struct Case {
        directory: tempfile::TempDir,
        clock: Clock,
        hand: ClockHand,
    }

    impl Case {
        fn new() -> Self {
            let (clock, hand) = Clock::manual(UnixSeconds(1_800_000_000));
            Self { directory: tempfile::tempdir().unwrap(), clock, hand }
        }

        fn store(&self) -> Store {
            Store::new(self.directory.path(), "keys", "main", "origin".to_owned(), 1000)
        }

        fn copy(&self) -> KeptCopy {
            KeptCopy::new(self.store(), "a test", "main", self.clock.clone())
        }

        fn stored(&self) -> Option<Vec<u8>> {
            Some(self.store().restore(self.clock.wall()).ok()??.document)
        }

        fn path(&self) -> PathBuf {
            let mut files =
                std::fs::read_dir(self.directory.path()).unwrap().map(|file| file.unwrap().path());
            files.find(|path| path.extension().is_some_and(|end| end == "json")).unwrap()
        }
    }

    /// Whoever opens it waits for somebody at its other end.
    fn pipe(place: &Path) {
        assert!(Command::new("mkfifo").arg(place).status().unwrap().success());
    }

    #[tokio::test]
    async fn a_copy_that_hangs_is_not_waited_for_and_counts_once_it_is_read() {
        let case = Case::new();
        case.store().save(b"kept", case.clock.wall()).unwrap();
        let path = case.path();
        let kept = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        pipe(&path);
        let mut copy = case.copy();
        assert!(copy.restore().await.is_none());
        case.hand.advance(Duration::from_secs(7));
        for _ in 0..1000 {
            assert!(copy.restore().await.is_none(), "at once");
        }
        std::fs::write(path, kept).unwrap();
        let restored = loop {
            match copy.restore().await {
                Some(restored) => break restored,
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        };
        assert_eq!((restored.document.as_slice(), restored.age), (&b"kept"[..], Duration::from_secs(7)));
        assert!(copy.restore().await.is_none(), "once");
    }

    #[tokio::test]
    async fn while_a_write_hangs_the_newest_text_waits_and_is_written_in_the_end() {
        let case = Case::new();
        let store = case.store();
        let fresh = store.temporary();
        pipe(&fresh);
        let mut copy = KeptCopy::new(store, "a test", "main", case.clock.clone());
        for number in 0..100 {
            copy.keep(Some(format!("text {number}").into()), Moment::now(&case.clock));
            case.hand.advance(Duration::from_secs(1));
            eventually("begun", || number > 0 || copy.writer.desk().next.is_none()).await;
        }
        assert_eq!(case.stored(), None);
        assert_eq!(copy.writer.desk().noted.as_deref(), Some("the disk does not answer"));
        // The pipe is no disk: what goes into it is lost, which is why what came after it has to follow.
        let drain = std::thread::spawn(move || drop(std::fs::read(fresh)));
        eventually("the newest", || case.stored().as_deref() == Some(b"text 99")).await;
        drain.join().unwrap();
        eventually("idle", || copy.writer.desk().busy.is_none()).await;
        assert_eq!(copy.writer.desk().noted, None);
        copy.remove();
        eventually("removed", || case.stored().is_none()).await;
    }

    #[tokio::test]
    async fn a_copy_is_as_old_as_the_question_that_brought_it() {
        let case = Case::new();
        let mut copy = case.copy();
        let asked_at = Moment::now(&case.clock);
        case.hand.advance(Duration::from_secs(30));
        copy.keep(Some("text".into()), asked_at);
        eventually("stored", || case.stored().is_some()).await;
        assert_eq!(case.copy().restore().await.unwrap().age, Duration::from_secs(30));
        // One that is confirmed is written anew once it looks too old.
        copy.keep(None, Moment::now(&case.clock));
        case.hand.advance(Duration::from_secs(30));
        copy.keep(None, Moment::now(&case.clock));
        eventually("anew", || {
            let restored = case.store().restore(case.clock.wall()).ok().flatten();
            restored.is_some_and(|restored| restored.age.is_zero())
        })
        .await;
    }

    #[tokio::test]
    async fn what_could_not_be_read_again_is_not_written() {
        let case = Case::new();
        let mut copy = case.copy();
        copy.keep(Some("x".repeat(10_000).into()), Moment::now(&case.clock));
        eventually("said", || copy.writer.desk().noted.is_some()).await;
        let why = copy.writer.desk().noted.clone().unwrap();
        assert!(why.contains("max_size"), "{why}");
        assert_eq!(std::fs::read_dir(case.directory.path()).unwrap().count(), 0);
    }
}
