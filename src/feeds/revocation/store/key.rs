//! The secret under which facts are hashed, kept so that hashes from before a restart are found after it.

use std::io::{self, Write};
use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};

use crate::revocation::FactHasher;

use super::{aside, corrupt, replace_file};

/// The process's one hasher: with the key in `state_dir`, or a new one, which is kept there if possible. Without a
/// directory, or when that fails (which is logged), the copies of feeds on disk end with the process.
///
/// Reads and writes a small file: to be called once, at start.
pub fn load_fact_hasher(state_dir: Option<&Path>) -> FactHasher {
    let Some(state_dir) = state_dir else { return FactHasher::random() };
    let path = state_dir.join(FILE);
    match read(&path) {
        Ok(hasher) => return hasher,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            let aside = aside::rename(&path).ok().flatten().unwrap_or_else(|| path.clone());
            tracing::error!(
                path = %aside.display(), %error,
                "the key of the revocation state cannot be read, so neither can the copies of feeds: those that have \
                 a source are loaded anew, and what others were told is put aside"
            );
        }
    }
    let hasher = FactHasher::random();
    let key = hasher.key();
    let written = replace_file(&path, |file| {
        file.write_all(&key)?;
        file.write_all(digest(&SHA256, &key).as_ref())
    });
    if let Err(error) = written {
        tracing::warn!(
            path = %path.display(), %error,
            "the key of the revocation state cannot be kept; after a restart the feeds are loaded anew"
        );
    }
    hasher
}

fn read(path: &Path) -> io::Result<FactHasher> {
    let bytes = std::fs::read(path)?;
    let (key, sum) = bytes.split_first_chunk::<16>().ok_or_else(|| corrupt("it is too short"))?;
    if digest(&SHA256, key).as_ref() != sum {
        return Err(corrupt("its checksum is wrong"));
    }
    Ok(FactHasher::with_key(*key))
}

const FILE: &str = "revocation.key";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_survives_and_damage_makes_a_new_one() {
        let dir = tempfile::tempdir().unwrap();
        let first = load_fact_hasher(Some(dir.path())).key();
        assert_eq!(load_fact_hasher(Some(dir.path())).key(), first);
        std::fs::write(dir.path().join(FILE), [0; 48]).unwrap();
        let second = load_fact_hasher(Some(dir.path())).key();
        assert_ne!(second, first);
        assert_eq!(load_fact_hasher(Some(dir.path())).key(), second);
        assert_ne!(load_fact_hasher(None).key(), second);
        assert_ne!(load_fact_hasher(Some(&dir.path().join("missing"))).key(), second);
    }
}
