//! The copy of the last good configuration, in `state_dir`: what a restart can run on while the file is broken.
//!
//! It is the file's text as it was, with `${ENV_VAR}` and `file:` references unresolved, for the gateway alone to read.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::spawn_blocking;

use crate::config::Config;

/// The name of the copy.
pub const FILE: &str = "last-good.yaml";

/// A disk that answers does so within this; one that does not is not waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// Keeps the copy; one is written at a time.
#[derive(Debug)]
pub struct LastGood {
    directory: PathBuf,
    desk: Arc<Mutex<Desk>>,
}

/// What the one who writes finds.
#[derive(Debug, Default)]
struct Desk {
    next: Option<String>,
    is_busy: bool,
}

impl LastGood {
    /// In this directory.
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), desk: Arc::default() }
    }

    /// Keeps a copy of this configuration, which a slow disk has in the end. A failure is told and changes nothing else.
    pub async fn keep(&self, config: &Config) {
        {
            let mut desk = self.desk.lock().unwrap_or_else(PoisonError::into_inner);
            desk.next = Some(config.document.text().to_owned());
            if std::mem::replace(&mut desk.is_busy, true) {
                return;
            }
        }
        let (directory, desk) = (self.directory.clone(), Arc::clone(&self.desk));
        let writing = spawn_blocking(move || write_all(&directory, &desk));
        if tokio::time::timeout(PATIENCE, writing).await.is_err() {
            let directory = self.directory.display();
            tracing::warn!(%directory, "the last good configuration is not kept yet: the disk does not answer");
        }
    }
}

fn write_all(directory: &Path, desk: &Mutex<Desk>) {
    loop {
        let text = {
            let mut desk = desk.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(text) = desk.next.take() else {
                desk.is_busy = false;
                return;
            };
            text
        };
        if let Err(error) = write(&directory.join(FILE), &text) {
            let directory = directory.display();
            tracing::warn!(%directory, %error, "the last good configuration cannot be kept");
        }
    }
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let temporary = path.with_extension("new");
    // Made anew, so that its mode is what is asked for.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(temporary, path)
}
