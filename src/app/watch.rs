//! Watches the file of the configuration and those that it names, by their contents.
//!
//! Not by the operating system's notices: what Kubernetes does to a mounted volume, swapping a directory behind two
//! links, is missed by watching the file, and so is anything on a network's file system.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::{Config, Identity, contents};

/// See the module.
#[derive(Debug)]
pub struct Watch {
    files: Vec<PathBuf>,
    interval: Option<Duration>,
    seen: Identity,
    /// Another content, seen once.
    news: Option<Identity>,
}

impl Watch {
    /// Watches the file at `path`, from which this configuration was read, and those that it names.
    pub fn new(path: &Path, config: &Config) -> Self {
        let files = files(path, config.document.files());
        Self { files, interval: config.reload.interval, seen: config.document.seen(), news: None }
    }

    /// What the files hold now. To be asked before a reload, and told to [`Self::failed`] after one that failed.
    pub fn look(&self) -> Identity {
        contents(self.files.iter().map(PathBuf::as_path))
    }

    /// These contents were tried, in vain: they are news no more.
    pub fn failed(&mut self, tried: Identity) {
        self.seen = tried;
        self.news = None;
    }

    /// Resolves when the files hold something else than when they were last taken up. Two looks must find the same, so
    /// that a file is not read while it is being written.
    pub async fn changed(&mut self) {
        let Some(interval) = self.interval else { return std::future::pending().await };
        loop {
            tokio::time::sleep(interval).await;
            let files = self.files.clone();
            let look = move || contents(files.iter().map(PathBuf::as_path));
            let Ok(now) = tokio::task::spawn_blocking(look).await else { continue };
            let before = self.news.replace(now);
            if now == self.seen {
                self.news = None;
            } else if before == Some(now) {
                return;
            }
        }
    }
}

fn files(path: &Path, named: BTreeSet<PathBuf>) -> Vec<PathBuf> {
    [path.to_owned()].into_iter().chain(named).collect()
}
