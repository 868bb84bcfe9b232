//! The copy of what was fetched in the state directory, a key set or a status list, which lets a gateway restart while
//! nobody answers.
//!
//! It is only as good as the fetch it came from: it counts with its age, and one that is torn, foreign or dated in the
//! future is not used. Knows nothing of what the text means.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::clock::UnixSeconds;

/// Where the copy of one thing lies. One at a time writes through it and its clones.
#[derive(Clone, Debug)]
pub(super) struct Store {
    path: PathBuf,
    origin: String,
    max_bytes: u64,
    number: u64,
}

/// What was read back.
#[derive(Debug)]
pub(super) struct Restored {
    pub(super) document: Vec<u8>,
    pub(super) age: Duration,
}

/// Why a copy is not used.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    #[error("{} cannot be {what}: {cause}; check that state_dir exists and is writable", path.display())]
    Io { path: PathBuf, what: &'static str, cause: io::Error },
    #[error("{} is damaged; it is ignored and will be replaced", path.display())]
    Damaged { path: PathBuf },
    #[error("{} is dated in the future; it is ignored and will be replaced, but check the clock", path.display())]
    FromTheFuture { path: PathBuf },
    #[error(
        "{} would have {size} bytes, of which {max_bytes} could be read again; raise max_size where it comes from",
        path.display()
    )]
    TooLarge { path: PathBuf, size: u64, max_bytes: u64 },
    #[error(
        "{} was written by another version of valgate (format {version}, this one reads {VERSION}); it is put aside as \
         {}", path.display(), aside.display()
    )]
    OtherVersion { path: PathBuf, aside: PathBuf, version: u32 },
}

/// What every version of the format has.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    version: u32,
    origin: String,
    fetched: i64,
    sha256: String,
    /// The name dates from when there were only key sets.
    #[serde(rename = "jwks")]
    document: String,
}

impl Store {
    /// `name` tells it from others of this `kind`; `origin` where it comes from. A copy from another origin is not used.
    /// `max_size` is that of the document.
    pub(super) fn new(directory: &Path, kind: &str, name: &str, origin: String, max_size: u64) -> Self {
        let readable: String = name.chars().filter(char::is_ascii_alphanumeric).take(32).collect();
        let unique: String = fingerprint(name.as_bytes()).chars().take(12).collect();
        let max_bytes = max_size.saturating_mul(ESCAPED).saturating_add(MOST_AROUND);
        let path = directory.join(format!("{kind}-{readable}-{unique}.json"));
        Self { path, origin, max_bytes, number: STORES.fetch_add(1, Ordering::Relaxed) }
    }

    /// The copy, if there is one for this origin.
    pub(super) fn restore(&self, now: UnixSeconds) -> Result<Option<Restored>, StoreError> {
        let bytes = match self.read() {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(StoreError::Io { path: self.path.clone(), what: "read", cause }),
        };
        let damaged = || StoreError::Damaged { path: self.path.clone() };
        let Versioned { version } = serde_json::from_slice(&bytes).map_err(|_| damaged())?;
        if version != VERSION {
            let (path, aside) = (self.path.clone(), self.path.with_extension("json.unreadable"));
            fs::rename(&path, &aside).map_err(|cause| StoreError::Io {
                path: path.clone(),
                what: "put aside",
                cause,
            })?;
            return Err(StoreError::OtherVersion { path, aside, version });
        }
        let record: Record = serde_json::from_slice(&bytes).map_err(|_| damaged())?;
        if record.sha256 != fingerprint(record.document.as_bytes()) {
            return Err(damaged());
        }
        if record.origin != self.origin {
            return Ok(None);
        }
        let age = now.0.saturating_sub(record.fetched);
        if age < -FUTURE_TOLERANCE_SECONDS {
            return Err(StoreError::FromTheFuture { path: self.path.clone() });
        }
        let age = Duration::from_secs(u64::try_from(age).unwrap_or(0));
        Ok(Some(Restored { document: record.document.into_bytes(), age }))
    }

    /// Replaces the copy: readers see the old one or the new one, also after a crash.
    pub(super) fn save(&self, document: &[u8], now: UnixSeconds) -> Result<(), StoreError> {
        let failed = |cause| StoreError::Io { path: self.path.clone(), what: "written", cause };
        let document = String::from_utf8_lossy(document).into_owned();
        let record = Record {
            version: VERSION,
            origin: self.origin.clone(),
            fetched: now.0,
            sha256: fingerprint(document.as_bytes()),
            document,
        };
        let bytes = serde_json::to_vec(&record).map_err(|error| failed(error.into()))?;
        let (size, max_bytes) = (bytes.len() as u64, self.max_bytes);
        if size > max_bytes {
            return Err(StoreError::TooLarge { path: self.path.clone(), size, max_bytes });
        }
        self.replace(&bytes).map_err(failed)
    }

    /// Removes the copy, if there is one.
    pub(super) fn forget(&self) {
        // Best effort: one that stays is overwritten, or swept away in the end.
        let _ = fs::remove_file(&self.path);
    }

    fn read(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(&self.path)?.take(self.max_bytes).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn replace(&self, bytes: &[u8]) -> io::Result<()> {
        let fresh = self.temporary();
        let written = write_private(&fresh, bytes).and_then(|()| fs::rename(&fresh, &self.path));
        if written.is_err() {
            // Best effort: the error that matters is the one above.
            let _ = fs::remove_file(&fresh);
        }
        written
    }

    /// Stores that write at a time, in one process or in two, never write to the same file.
    pub(super) fn temporary(&self) -> PathBuf {
        self.path.with_extension(format!("{}-{}.new", std::process::id(), self.number))
    }
}

/// Removes copies of this kind that nobody has written for so long, and all but the `most` that were written last.
pub(super) fn sweep(directory: &Path, kind: &str, most: usize, unwritten: Duration, now: UnixSeconds) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    let prefix = format!("{kind}-");
    let of_kind = entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix));
    let written = |entry: &fs::DirEntry| entry.metadata().and_then(|metadata| metadata.modified()).ok();
    let mut copies: Vec<(SystemTime, PathBuf)> =
        of_kind.filter_map(|entry| Some((written(&entry)?, entry.path()))).collect();
    copies.sort_unstable_by(|one, other| other.cmp(one));
    for (place, (written, path)) in copies.into_iter().enumerate() {
        let written = written.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let age = u64::try_from(now.0).unwrap_or_default().saturating_sub(written);
        if place >= most || age > unwritten.as_secs() {
            // Best effort, as above.
            let _ = fs::remove_file(path);
        }
    }
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

pub(super) fn fingerprint(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, bytes))
}

/// How many there are and were in this process.
static STORES: AtomicU64 = AtomicU64::new(0);
const VERSION: u32 = 1;
/// How much longer a document gets as a JSON string: each quote and line break counts double.
const ESCAPED: u64 = 2;
/// What is around the document.
const MOST_AROUND: u64 = 4096;
/// Clocks of a host before and after a restart differ by this at most.
const FUTURE_TOLERANCE_SECONDS: i64 = 300;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixSeconds = UnixSeconds(1_800_000_000);

    fn store(directory: &Path) -> Store {
        Store::new(directory, "keys", "main", "https://id.example.com/jwks".to_owned(), 1 << 20)
    }

    #[test]
    fn a_copy_comes_back_with_its_age() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(directory.path());
        assert!(store.restore(NOW).unwrap().is_none());
        store.save(b"{\"keys\":[\"first\"]}", NOW).unwrap();
        store.save(b"{\"keys\":[]}", NOW).unwrap();
        let restored = store.restore(UnixSeconds(NOW.0 + 90)).unwrap().unwrap();
        assert_eq!(
            (restored.document.as_slice(), restored.age),
            (&b"{\"keys\":[]}"[..], Duration::from_secs(90))
        );
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no litter");
    }

    #[test]
    fn issuers_do_not_share_a_file_whatever_their_names() {
        let directory = Path::new("/state");
        let path = |name| Store::new(directory, "keys", name, String::new(), 1).path;
        assert_ne!(path("a/b"), path("ab"));
        assert_ne!(path("ü"), path("ö"));
        assert_eq!(path("../../etc/passwd").parent(), Some(directory));
    }

    #[test]
    fn a_damaged_or_foreign_copy_is_not_used() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(directory.path());
        store.save(b"{\"keys\":[1]}", NOW).unwrap();
        let good = fs::read(&store.path).unwrap();
        for cut in 0..good.len() {
            fs::write(&store.path, &good[..cut]).unwrap();
            assert!(matches!(store.restore(NOW), Err(StoreError::Damaged { .. })), "cut at {cut}");
        }
        let changed = String::from_utf8(good.clone()).unwrap().replace("[1]", "[2]");
        fs::write(&store.path, changed).unwrap();
        assert!(matches!(store.restore(NOW), Err(StoreError::Damaged { .. })));

        fs::write(&store.path, &good).unwrap();
        let moved = Store { origin: "https://other.example.com/jwks".to_owned(), ..store.clone() };
        assert!(moved.restore(NOW).unwrap().is_none());
        let earlier = UnixSeconds(NOW.0 - 301);
        assert!(matches!(store.restore(earlier), Err(StoreError::FromTheFuture { .. })));
        assert_eq!(store.restore(UnixSeconds(NOW.0 - 300)).unwrap().unwrap().age, Duration::ZERO);
    }

    /// What a gateway has written, its successors read.
    #[test]
    fn the_golden_file_is_read_and_one_of_a_later_version_is_refused_and_kept() {
        const GOLDEN: &str = include_str!("../../tests/formats/keys-1.json");
        let directory = tempfile::tempdir().unwrap();
        let store = store(directory.path());
        fs::write(&store.path, GOLDEN).unwrap();
        let restored = store.restore(NOW).unwrap().unwrap();
        assert_eq!((restored.document.as_slice(), restored.age), (&br#"{"keys":[]}"#[..], Duration::ZERO));
        store.save(&restored.document, NOW).unwrap();
        assert_eq!(fs::read_to_string(&store.path).unwrap(), GOLDEN);

        let later = GOLDEN.replace("\"version\":1", "\"version\":2,\"more\":true");
        fs::write(&store.path, &later).unwrap();
        let why = store.restore(NOW).unwrap_err().to_string();
        assert!(why.contains("format 2, this one reads 1") && why.contains("put aside"), "{why}");
        store.save(&restored.document, NOW).unwrap();
        assert_eq!(fs::read_to_string(store.path.with_extension("json.unreadable")).unwrap(), later);
    }

    #[test]
    fn what_nobody_has_written_for_long_is_swept_away() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(directory.path());
        let other = Store::new(directory.path(), "status-list", "main", String::new(), 1);
        store.save(b"{}", NOW).unwrap();
        other.save(b"{}", NOW).unwrap();
        let left = || fs::read_dir(directory.path()).unwrap().count();
        // Later than whatever time it is, by the clock of the file system.
        let later = UnixSeconds(10_000_000_000);
        sweep(directory.path(), "keys", 10, Duration::from_secs(u64::MAX), later);
        assert_eq!(left(), 2);
        sweep(directory.path(), "keys", 10, Duration::from_secs(1), later);
        assert!(store.restore(NOW).unwrap().is_none() && other.restore(NOW).unwrap().is_some());
        other.forget();
        assert_eq!(left(), 0);
    }

    #[test]
    fn of_too_many_those_stay_that_were_written_last() {
        let directory = tempfile::tempdir().unwrap();
        let store =
            |number: u64| Store::new(directory.path(), "status-list", &number.to_string(), String::new(), 1);
        for number in 0..10 {
            store(number).save(b"{}", NOW).unwrap();
            // The other way round, since file systems may count in seconds.
            let file = File::options().write(true).open(store(number).path).unwrap();
            file.set_modified(UNIX_EPOCH + Duration::from_secs(1_000_000 - number)).unwrap();
        }
        sweep(directory.path(), "status-list", 3, Duration::from_secs(u64::MAX), NOW);
        let left: Vec<u64> = (0..10).filter(|number| store(*number).path.exists()).collect();
        assert_eq!(left, [0, 1, 2]);
    }

    #[test]
    fn a_missing_directory_is_an_error_with_a_remedy() {
        let error = store(Path::new("/nonexistent")).save(b"{}", NOW).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/keys-main-") && error.contains("state_dir"), "{error}");
    }
}
