//! Files that are not written over: moved or copied next to where they were, for somebody to look at. And those that a
//! crash has left unfinished, which nobody wants.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What the name of a file ends with that is not whole yet.
pub(super) const UNFINISHED: &str = "new";

/// Moves a file; `None` if there is none.
pub(super) fn rename(path: &Path) -> io::Result<Option<PathBuf>> {
    let place = free_place(path);
    match fs::rename(path, &place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        moved => moved.map(|()| Some(place)),
    }
}

/// Copies a file that is about to be replaced.
pub(super) fn copy(path: &Path) -> io::Result<()> {
    fs::copy(path, free_place(path)).map(drop)
}

/// Removes what earlier processes left unfinished next to this file; one that still writes there is younger.
pub(super) fn sweep(path: &Path) {
    let (Some(directory), Some(stem)) = (path.parent(), path.file_stem()) else { return };
    let stem = format!("{}.", stem.to_string_lossy());
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_unfinished = name
            .to_string_lossy()
            .strip_prefix(&stem)
            .is_some_and(|rest| rest.ends_with(&format!(".{UNFINISHED}")));
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        let is_old = modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| age >= SURELY_DEAD));
        if is_unfinished && is_old {
            // Best effort: it costs room and nothing else.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Beside what was put aside before.
fn free_place(path: &Path) -> PathBuf {
    let numbered = |number: u32| {
        let mut name = OsString::from(path);
        name.push(if number == 1 { ".unreadable".to_owned() } else { format!(".unreadable-{number}") });
        PathBuf::from(name)
    };
    (1..MOST_ASIDE).map(numbered).find(|place| !place.exists()).unwrap_or_else(|| numbered(MOST_ASIDE))
}

const SURELY_DEAD: Duration = Duration::from_secs(60 * 60);
/// More were looked at by nobody.
const MOST_ASIDE: u32 = 100;
