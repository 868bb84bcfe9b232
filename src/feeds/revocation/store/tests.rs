use std::time::Duration;

use crate::revocation::{Change, Entry, FactHasher, Target, TokenFacts};

use super::*;

const ISSUER: &str = "https://id.example.com/";

struct Case {
    dir: tempfile::TempDir,
    hasher: FactHasher,
}

impl Case {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), hasher: FactHasher::random() }
    }

    fn index(&self) -> Index {
        Index::new(self.hasher.clone(), [ISSUER.to_owned()], Duration::ZERO, 1000)
    }

    fn store(&self, index: &Index) -> Store {
        Store::new(self.dir.path(), "logout", "https://id.example.com/revocations", index)
    }

    fn file(&self, extension: &str) -> PathBuf {
        std::fs::read_dir(self.dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(|path| path.extension().is_some_and(|found| found == extension))
            .unwrap()
    }

    /// A snapshot with `a`, then the batches `b` and `c`, which lifts `a`.
    fn written(&self) {
        let index = self.index();
        let mut store = self.store(&index);
        store.keep_snapshot(&staged(&index, "a"), &stand("1", 10)).unwrap();
        for (cursor, jti, heard_at) in [("2", "b", 20), ("3", "c", 30)] {
            let mut changes = staged(&index, jti);
            if jti == "c" {
                changes.push(&Change::Lift { target: Target::Jti("a".into()), issuer: None }).unwrap();
            }
            store.keep(&index, Some(&changes), &stand(cursor, heard_at)).unwrap();
        }
    }

    fn loaded(&self) -> (io::Result<Option<Restored>>, String) {
        let index = self.index();
        let restored = self.store(&index).load(&index);
        let known = ["a", "b", "c"].into_iter().filter(|jti| revoked(&index, jti)).collect();
        (restored, known)
    }
}

fn staged(index: &Index, jti: &str) -> Staged {
    let mut staged = index.stage();
    let target = Target::Jti(jti.to_owned());
    staged.push(&Change::Revoke(Entry { target, issuer: None, before: None, expires: None })).unwrap();
    staged
}

fn revoked(index: &Index, jti: &str) -> bool {
    let keys = index.hasher().keys(&TokenFacts { issuer: ISSUER, jti: Some(jti), ..TokenFacts::default() });
    index.check(&keys, None, UnixSeconds(0)).is_some()
}

fn position(cursor: &str) -> Position {
    Position { epoch: "e".to_owned(), cursor: Some(cursor.to_owned()) }
}

fn stand(cursor: &str, heard_at: i64) -> Stand {
    Stand { position: position(cursor), heard_at: UnixSeconds(heard_at) }
}

#[test]
fn brings_back_snapshot_and_journal_and_goes_on_from_there() {
    let case = Case::new();
    case.written();
    let (restored, known) = case.loaded();
    let restored = restored.unwrap().unwrap();
    assert_eq!(known, "bc");
    assert_eq!(restored.stand.position, position("3"));
    assert_eq!((restored.stand.heard_at, restored.torn), (UnixSeconds(30), false));

    let index = case.index();
    let mut store = case.store(&index);
    store.load(&index).unwrap();
    store.keep(&index, Some(&staged(&index, "a")), &stand("4", 40)).unwrap();
    let (restored, known) = case.loaded();
    assert_eq!((restored.unwrap().unwrap().stand.position, known.as_str()), (position("4"), "abc"));
}

#[test]
fn nothing_there_is_no_error() {
    let (restored, known) = Case::new().loaded();
    assert!(restored.unwrap().is_none());
    assert_eq!(known, "");
}

#[test]
fn a_journal_torn_anywhere_costs_only_its_torn_batches() {
    let case = Case::new();
    case.written();
    let journal = std::fs::read(case.file("journal")).unwrap();
    let path = case.file("journal");
    for length in 0..journal.len() {
        std::fs::write(&path, &journal[..length]).unwrap();
        let (restored, known) = case.loaded();
        let cursor = restored.unwrap().unwrap().stand.position.cursor.unwrap();
        assert!(
            matches!((cursor.as_str(), known.as_str()), ("1", "a") | ("2", "ab")),
            "{length}: {cursor} {known}"
        );
    }
}

#[test]
fn damage_is_noticed_wherever_it_is() {
    let case = Case::new();
    case.written();
    let (snapshot, journal) = (case.file("snapshot"), case.file("journal"));
    let (good_snapshot, good_journal) = (std::fs::read(&snapshot).unwrap(), std::fs::read(&journal).unwrap());
    for at in 0..good_snapshot.len() {
        let mut bad = good_snapshot.clone();
        bad[at] ^= 1;
        std::fs::write(&snapshot, bad).unwrap();
        let (restored, known) = case.loaded();
        assert!(!matches!(restored, Ok(Some(_))), "{at}");
        assert_eq!(known, "", "{at}");
    }
    std::fs::write(&snapshot, &good_snapshot).unwrap();
    for at in 0..good_journal.len() {
        let mut bad = good_journal.clone();
        bad[at] ^= 1;
        std::fs::write(&journal, bad).unwrap();
        let (restored, known) = case.loaded();
        assert!(restored.unwrap().unwrap().torn && known.starts_with('a'), "{at}: {known}");
    }
}

#[test]
fn a_copy_for_another_source_or_key_or_issuer_is_not_used() {
    let case = Case::new();
    case.written();
    let index = case.index();
    let others = [
        Store::new(case.dir.path(), "logout", "https://elsewhere", &index),
        case.store(&Index::new(FactHasher::random(), [ISSUER.to_owned()], Duration::ZERO, 9)),
        case.store(&Index::new(case.hasher.clone(), ["https://b".to_owned()], Duration::ZERO, 9)),
        case.store(&Index::new(case.hasher.clone(), [ISSUER.to_owned()], Duration::from_secs(1), 9)),
    ];
    for mut other in others {
        assert!(other.load(&index).unwrap().is_none());
    }
}

#[test]
fn the_journal_is_folded_into_a_snapshot_before_it_grows_large() {
    let case = Case::new();
    let index = case.index();
    let mut store = case.store(&index);
    let mut changes = index.stage();
    for n in 0..1000 {
        let target = Target::Jti(n.to_string());
        changes.push(&Change::Revoke(Entry { target, issuer: None, before: None, expires: None })).unwrap();
    }
    for cursor in 0..100 {
        store.keep(&index, Some(&changes), &stand(&cursor.to_string(), 1)).unwrap();
        if store.is_long() {
            store.keep(&index, None, &stand(&cursor.to_string(), 1)).unwrap();
        }
    }
    let journal = std::fs::metadata(case.file("journal")).unwrap().len();
    assert!(journal < 2 * MIN_JOURNAL, "{journal}");
}

#[cfg(unix)]
#[test]
fn only_the_gateway_can_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let case = Case::new();
    case.written();
    for extension in ["snapshot", "journal"] {
        let mode = std::fs::metadata(case.file(extension)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{extension}");
    }
}
