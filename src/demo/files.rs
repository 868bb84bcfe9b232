//! The directory that the demo puts its files into: made for this run and removed after it, or the user's.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::config::MARKER;

/// The authority's certificate.
pub const CA: &str = "ca.pem";
/// The gateway's certificate.
pub const CERTIFICATE: &str = "tls.crt";
/// The gateway's private key.
pub const PRIVATE_KEY: &str = "tls.key";
/// The configuration.
pub const CONFIG: &str = "valgate.yaml";
/// One line for each request.
pub const ACCESS_LOG: &str = "access.log";
/// Where the tokens are.
pub const TOKENS: &str = "tokens";

/// The directory. Only its owner can read what is in it.
pub struct DemoFiles {
    dir: PathBuf,
    fresh: bool,
}

impl DemoFiles {
    /// Uses `dir`, or makes a fresh directory under the system's temporary one.
    ///
    /// # Errors
    /// It cannot be made or written, or holds a configuration that is not the demo's.
    pub fn prepare(dir: Option<&Path>) -> anyhow::Result<Self> {
        let (dir, fresh) = match dir {
            Some(dir) => {
                fs::create_dir_all(dir)
                    .with_context(|| format!("cannot make the directory {}", dir.display()))?;
                (std::path::absolute(dir)?, false)
            }
            None => (fresh_directory()?, true),
        };
        // From here on, so that whatever fails below removes a fresh directory.
        let files = Self { dir, fresh };
        files.refuse_foreign_config()?;
        DirBuilder::new().recursive(true).mode(0o700).create(files.path(TOKENS))?;
        Ok(files)
    }

    /// The directory's absolute path.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether it goes away with the demo.
    pub fn fresh(&self) -> bool {
        self.fresh
    }

    /// The path of a file in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Writes a file that only the owner can read.
    pub fn write(&self, name: &str, content: &str) -> anyhow::Result<()> {
        let path = self.path(name);
        write_private(&path, content).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Writes a token; no line break follows it, so that `$(cat ...)` and tools that read the file agree.
    pub fn write_token(&self, name: &str, token: &str) -> anyhow::Result<()> {
        self.write(&format!("{TOKENS}/{name}.jwt"), token)
    }

    fn refuse_foreign_config(&self) -> anyhow::Result<()> {
        let path = self.path(CONFIG);
        let Ok(file) = File::open(&path) else { return Ok(()) };
        let mut first_line = String::new();
        let _ = BufReader::new(io::Read::take(file, 1024)).read_line(&mut first_line);
        if first_line.trim_end() != MARKER {
            bail!("{} is not the demo's and would be overwritten; choose another --dir", path.display());
        }
        Ok(())
    }
}

impl Drop for DemoFiles {
    fn drop(&mut self) {
        if self.fresh {
            // The tokens and keys in it are of no use without the process; what cannot be removed does no harm.
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

fn fresh_directory() -> anyhow::Result<PathBuf> {
    let dir = std::env::temp_dir().join(format!("valgate-demo-{}", super::issuer::random_name()?));
    // Not recursive: it must not be there yet, or somebody else could have put it there.
    DirBuilder::new()
        .mode(0o700)
        .create(&dir)
        .with_context(|| format!("cannot make the directory {}; choose another with --dir", dir.display()))?;
    Ok(dir)
}

fn write_private(path: &Path, content: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(content.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_fresh_directory_is_private_and_goes_away() {
        let files = DemoFiles::prepare(None).unwrap();
        files.write_token("valid", "a.b.c").unwrap();
        let dir = files.dir().to_owned();
        assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
        let token = dir.join("tokens/valid.jwt");
        assert_eq!(fs::metadata(&token).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_to_string(&token).unwrap(), "a.b.c");
        drop(files);
        assert!(!dir.exists());
    }

    #[test]
    fn a_directory_of_the_users_stays_and_can_be_used_again() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("demo");
        for _ in 0..2 {
            let files = DemoFiles::prepare(Some(&dir)).unwrap();
            files.write(CONFIG, &format!("{MARKER}\nversion: 1\n")).unwrap();
        }
        assert!(dir.join(CONFIG).exists());
    }

    #[test]
    fn a_foreign_configuration_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(CONFIG), "version: 1\n").unwrap();
        let error = DemoFiles::prepare(Some(dir.path())).err().unwrap().to_string();
        assert!(error.contains("choose another --dir"), "{error}");
    }
}
