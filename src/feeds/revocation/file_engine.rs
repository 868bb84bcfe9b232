//! Writing to a feed in a file: read, changed, and put in its place whole, under a lock that all writers take.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::document::{Listed, check_revocations};
use super::replica::blocking;
use crate::clock::Clock;
use crate::revocation::{EngineError, EngineFuture, Fact, Page, Revocation, RevocationEngine};

/// See the module. The file is made if it is not there; its directory is not.
#[derive(Clone, Debug)]
pub struct FileEngine {
    path: PathBuf,
    max_bytes: u64,
    clock: Clock,
}

impl FileEngine {
    /// Writes to the file at `path`, of at most `max_bytes`.
    pub fn new(path: PathBuf, max_bytes: u64, clock: Clock) -> Self {
        Self { path, max_bytes, clock }
    }

    async fn read(&self) -> Result<Listed, EngineError> {
        let this = self.clone();
        blocking(move || this.load())
            .await
            .and_then(|listed| listed)
            .map_err(|error| self.unavailable(&error))
    }

    async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Listed) -> T + Send + 'static,
    ) -> Result<T, EngineError> {
        let this = self.clone();
        let changed = blocking(move || {
            let _lock = this.lock()?;
            let mut listed = this.load()?;
            let was_empty = listed.is_empty();
            let outcome = change(&mut listed);
            listed.forget(this.clock.wall().minus(FORGET_AFTER));
            if listed.is_empty() && !was_empty {
                // A list that is suddenly empty is only believed under a new epoch.
                listed.epoch = this.new_epoch();
            }
            this.store(&listed).map(|()| outcome)
        });
        changed.await.and_then(|changed| changed).map_err(|error| self.unavailable(&error))
    }

    fn load(&self) -> io::Result<Listed> {
        let file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Listed::new(self.new_epoch()));
            }
            file => file?,
        };
        let mut bytes = Vec::new();
        file.take(self.max_bytes + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > self.max_bytes {
            return Err(io::Error::other(format!("it is larger than {} bytes", self.max_bytes)));
        }
        Listed::read(&bytes).map_err(io::Error::other)
    }

    fn store(&self, listed: &Listed) -> io::Result<()> {
        let new = beside(&self.path, ".new");
        let mut file = File::create(&new)?;
        if let Ok(metadata) = std::fs::metadata(&self.path) {
            file.set_permissions(metadata.permissions())?;
        }
        file.write_all(&listed.to_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, &self.path)?;
        // The rename itself is on disk only with the directory.
        self.path.parent().map_or(Ok(()), |directory| {
            let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
            File::open(directory)?.sync_all()
        })
    }

    /// Held until it is dropped. Two writers at once would each undo what the other wrote.
    fn lock(&self) -> io::Result<File> {
        let file =
            OpenOptions::new().create(true).truncate(false).write(true).open(beside(&self.path, ".lock"))?;
        file.lock()?;
        Ok(file)
    }

    fn new_epoch(&self) -> String {
        let mut random = [0; 8];
        let _ = aws_lc_rs::rand::fill(&mut random);
        format!("{}-{:016x}", self.clock.wall().0, u64::from_le_bytes(random))
    }

    fn unavailable(&self, error: &io::Error) -> EngineError {
        EngineError::Unavailable(format!("the feed file {} cannot be used: {error}", self.path.display()))
    }
}

impl RevocationEngine for FileEngine {
    fn revoke<'a>(&'a self, revocations: &'a [Revocation]) -> EngineFuture<'a, ()> {
        Box::pin(async move {
            check_revocations(revocations).map_err(|why| EngineError::Unusable(why.to_owned()))?;
            let revocations = revocations.to_vec();
            self.change(move |listed| listed.revoke(&revocations)).await
        })
    }

    fn lift<'a>(&'a self, facts: &'a [Fact]) -> EngineFuture<'a, usize> {
        let facts = facts.to_vec();
        Box::pin(self.change(move |listed| listed.lift(&facts)))
    }

    fn look_up<'a>(&'a self, fact: &'a Fact) -> EngineFuture<'a, Vec<Revocation>> {
        Box::pin(async move { Ok(self.read().await?.look_up(fact)) })
    }

    fn list<'a>(&'a self, after: Option<&'a str>) -> EngineFuture<'a, Page> {
        Box::pin(async move { self.read().await?.page(after).map_err(EngineError::Unusable) })
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Gateways keep entries for a leeway after their end, and clocks differ.
const FORGET_AFTER: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixSeconds;
    use crate::revocation::{Entry, Target};

    fn revocation(sub: &str, expires: i64) -> Revocation {
        let entry = Entry {
            target: Target::Sub(sub.to_owned()),
            issuer: None,
            before: None,
            expires: Some(UnixSeconds(expires)),
        };
        Revocation { entry, reason: Some("left".to_owned()), revoked_at: Some(UnixSeconds(1)) }
    }

    #[tokio::test]
    async fn what_is_written_is_there_once_and_can_be_lifted() {
        let directory = tempfile::tempdir().unwrap();
        let (clock, _) = Clock::manual(UnixSeconds(10_000));
        let engine = FileEngine::new(directory.path().join("revoked.json"), 1 << 20, clock);
        let (alice, bob, past) =
            (revocation("alice", 20_000), revocation("bob", 20_000), revocation("past", 1));
        engine.revoke(&[alice.clone(), past]).await.unwrap();
        engine.revoke(&[alice.clone(), bob.clone()]).await.unwrap();
        let page = engine.list(None).await.unwrap();
        assert_eq!(page.revocations, [alice.clone(), bob.clone()], "each once, what is over not at all");
        assert_eq!(engine.look_up(&alice.entry.fact()).await.unwrap(), std::slice::from_ref(&alice));
        assert_eq!(engine.lift(&[alice.entry.fact()]).await.unwrap(), 1);
        assert_eq!(engine.lift(&[alice.entry.fact()]).await.unwrap(), 0);
        assert_eq!(engine.list(None).await.unwrap().revocations, [bob]);
    }

    #[tokio::test]
    async fn emptying_the_list_begins_a_new_epoch() {
        let directory = tempfile::tempdir().unwrap();
        let (clock, _) = Clock::manual(UnixSeconds(10_000));
        let engine = FileEngine::new(directory.path().join("revoked.json"), 1 << 20, clock);
        let alice = revocation("alice", 20_000);
        engine.revoke(std::slice::from_ref(&alice)).await.unwrap();
        let before = engine.read().await.unwrap().epoch;
        engine.lift(&[alice.entry.fact()]).await.unwrap();
        assert_ne!(engine.read().await.unwrap().epoch, before);
    }

    #[tokio::test]
    async fn a_file_that_is_something_else_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("revoked.json");
        std::fs::write(&path, "{\"users\": []}").unwrap();
        let engine = FileEngine::new(path.clone(), 1 << 20, Clock::system());
        let refused = engine.revoke(&[revocation("alice", 20_000)]).await;
        assert!(matches!(refused, Err(EngineError::Unavailable(_))), "{refused:?}");
        assert_eq!(std::fs::read_to_string(path).unwrap(), "{\"users\": []}");
    }
}
