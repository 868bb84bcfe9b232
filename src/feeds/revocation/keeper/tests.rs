//! A disk that is as slow as the test wants: the journal is a pipe, and who writes to it waits for who reads it. Time
//! stands still while somebody waits for the disk.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::process::Command;
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use super::super::replica::Replica;
use super::super::store::file_stem;
use super::*;
use crate::clock::Clock;
use crate::revocation::{Change, Entry, FactHasher, Index, Target, TokenFacts};

const ISSUER: &str = "https://id.example.com/";
const NOW: UnixSeconds = UnixSeconds(1_790_000_000);
/// More than a pipe holds.
const MANY: usize = 10_000;
const STEP: Duration = Duration::from_millis(10);

struct Case {
    dir: tempfile::TempDir,
    hasher: FactHasher,
}

impl Case {
    /// With `a` in force and kept, and a pipe in the place of the journal.
    async fn new() -> (Self, Replica) {
        let case = Self { dir: tempfile::tempdir().unwrap(), hasher: FactHasher::random() };
        let mut replica = case.replica();
        assert!(replica.put(revoking(&replica, ["a"])).await.unwrap());
        assert!(Command::new("mkfifo").arg(case.journal()).status().unwrap().success());
        (case, replica)
    }

    fn replica(&self) -> Replica {
        let index = Index::new(self.hasher.clone(), [ISSUER.to_owned()], Duration::ZERO, 10 * MANY);
        let store = Store::durable(self.dir.path(), "logout", "told", &index);
        Replica::new(Arc::new(FeedState::new("logout", index)), Clock::manual(NOW).0, Some(store))
    }

    fn journal(&self) -> PathBuf {
        self.dir.path().join(format!("{}.journal", file_stem("logout")))
    }

    /// Says when somebody begins to write, and then reads on when it is told to.
    fn reader(&self) -> (oneshot::Receiver<()>, std::sync::mpsc::Sender<()>, JoinHandle<Vec<u8>>) {
        let (began, begun) = oneshot::channel();
        let (go, gone) = std::sync::mpsc::channel();
        let pipe = self.journal();
        let reader = std::thread::spawn(move || {
            let mut file = File::open(pipe).unwrap();
            began.send(()).unwrap();
            gone.recv().unwrap();
            let mut written = Vec::new();
            file.read_to_end(&mut written).unwrap();
            written
        });
        (begun, go, reader)
    }

    /// What a gateway refuses that is started now, while nobody tells it anything.
    async fn after_a_restart(&self) -> String {
        let mut replica = self.replica();
        replica.restore().await;
        revoked(&replica.state)
    }
}

fn revoking<T: Into<String>>(replica: &Replica, ids: impl IntoIterator<Item = T>) -> Staged {
    let mut staged = replica.stage();
    for id in ids {
        let target = Target::Jti(id.into());
        staged.push(&Change::Revoke(Entry { target, issuer: None, before: None, expires: None })).unwrap();
    }
    staged
}

fn many_and_b(replica: &Replica) -> Staged {
    revoking(replica, (0..MANY).map(|n| n.to_string()).chain(["b".to_owned()]))
}

fn revoked(state: &FeedState) -> String {
    let hasher = state.index().hasher();
    let holds = |jti: &&str| {
        let facts = TokenFacts { issuer: ISSUER, jti: Some(jti), ..TokenFacts::default() };
        state.index().check(&hasher.keys(&facts), None, NOW).is_some()
    };
    ["a", "b", "c", "d"].into_iter().filter(holds).collect()
}

/// A gateway that is killed before it is on record has not refused it yet.
#[tokio::test(start_paused = true)]
async fn what_is_not_on_record_is_not_yet_in_force() {
    let (case, mut replica) = Case::new().await;
    let (begun, go, reader) = case.reader();
    let state = Arc::clone(&replica.state);
    let staged = many_and_b(&replica);
    let putting = tokio::spawn(async move { replica.put(staged).await });
    begun.await.unwrap();
    assert_eq!(revoked(&state), "a", "half of it is written");
    go.send(()).unwrap();
    let written = reader.join().unwrap();
    // A pipe cannot be synced, so it counts as not kept, and all is written anew.
    assert!(putting.await.unwrap().unwrap());
    assert_eq!(revoked(&state), "ab");
    assert!(written.len() > MANY * 24);
    assert_eq!(case.after_a_restart().await, "ab");
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_hangs_holds_a_revocation_up_once_and_not_for_long() {
    let (case, mut replica) = Case::new().await;
    let state = Arc::clone(&replica.state);
    let staged = many_and_b(&replica);
    let putting = tokio::spawn(async move { (replica.put(staged).await, replica) });
    let mut waited = Duration::ZERO;
    while revoked(&state) != "ab" {
        tokio::time::advance(STEP).await;
        waited += STEP;
    }
    assert!(waited < Duration::from_secs(1), "{waited:?}");
    let (kept, mut replica) = putting.await.unwrap();
    assert!(!kept.unwrap(), "whoever told it learns that nobody keeps it");
    assert_eq!(replica.stats.store_failures.load(Ordering::Relaxed), 1);

    // Time stands still, so this would never end if it waited for the disk.
    assert!(!replica.put(revoking(&replica, ["c"])).await.unwrap());
    assert_eq!(revoked(&state), "abc");

    // Once the disk goes on, all that was missed is made up for.
    let (_begun, go, reader) = case.reader();
    go.send(()).unwrap();
    reader.join().unwrap();
    while !replica.put(revoking(&replica, ["d"])).await.unwrap() {
        tokio::task::yield_now().await;
    }
    assert_eq!(case.after_a_restart().await, "abcd");
}

/// A reader's index can be written to by others, who leave their mark in the same copy.
#[tokio::test]
async fn whoever_changes_the_index_keeps_it_in_the_same_copy() {
    let case = Case { dir: tempfile::tempdir().unwrap(), hasher: FactHasher::random() };
    let mut replica = case.replica();
    replica.put(revoking(&replica, ["a"])).await.unwrap();
    let other = replica.keeper.clone();
    let staged = Arc::new(revoking(&replica, ["b"]));
    assert!(other.before(What::Changes(Arc::clone(&staged)), None).await);
    assert_eq!(revoked(&replica.state), "a");
    assert_eq!(case.after_a_restart().await, "ab");
}

#[tokio::test]
async fn a_torn_journal_is_whole_again_before_anything_is_added() {
    let case = Case { dir: tempfile::tempdir().unwrap(), hasher: FactHasher::random() };
    let mut replica = case.replica();
    for id in ["a", "b", "c"] {
        replica.put(revoking(&replica, [id])).await.unwrap();
    }
    let journal = std::fs::read(case.journal()).unwrap();
    std::fs::write(case.journal(), &journal[..journal.len() - 1]).unwrap();
    let mut replica = case.replica();
    replica.restore().await;
    assert_eq!(revoked(&replica.state), "ab");
    assert!(!case.journal().exists());
    let staged = Arc::new(revoking(&replica, ["d"]));
    assert!(replica.keeper.before(What::Changes(staged), None).await);
    assert_eq!(case.after_a_restart().await, "abd");
}
