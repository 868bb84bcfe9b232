//! The sources of a configuration without listeners and without a lasting trace: for commands that ask what the gateway
//! would say.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};

use super::sources::{Ground, Purpose, Sources};
use super::{request_limits, routes};
use crate::clock::Clock;
use crate::config::Config;
use crate::feeds::revocation::load_fact_hasher;
use crate::gateway::Explainer;

/// How long the feeds may take to be heard; what has not come by then shows as not loaded.
const FEED_PATIENCE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(20);

/// Keys and feeds as the gateway would have them, fetched by this process. Dropping it ends the fetching.
#[derive(Debug)]
pub struct Offline {
    /// Judges tokens by them.
    pub explainer: Explainer,
    _sources: Sources,
    _copies: Option<PrivateDirectory>,
}

impl Offline {
    /// Fetches what the configuration names. Copies in its `state_dir` serve where nothing answers; the directory
    /// itself, which is the running gateway's, is only read.
    ///
    /// # Errors
    /// A source that cannot be set up, such as inline keys that do not parse.
    pub async fn start(config: Config, clock: Clock) -> Result<Self> {
        let copies =
            config.state_dir.as_deref().and_then(|directory| PrivateDirectory::copy_of(directory).ok());
        let state_dir = copies.as_ref().map(|copies| copies.0.clone());
        let hasher = load_fact_hasher(state_dir.as_deref());
        let ground = Ground { clock: clock.clone(), hasher, state_dir, purpose: Purpose::Look };
        let sources = Sources::none(ground).next(&config)?;
        sources.restored().await;
        let feeds = sources.feeds();
        let heard = async {
            while !feeds.iter().all(|feed| feed.is_loaded()) {
                tokio::time::sleep(LOOK).await;
            }
        };
        _ = tokio::time::timeout(FEED_PATIENCE, heard).await;
        let explainer = Explainer {
            routes: Arc::new(routes::build(&config).context("routes")?),
            verifier: sources.verifier(),
            revocation: Arc::new(sources.revocation(1)),
            limits: request_limits(&config),
            clock,
        };
        Ok(Self { explainer, _sources: sources, _copies: copies })
    }
}

/// A directory that only this user may enter, gone when dropped.
#[derive(Debug)]
pub struct PrivateDirectory(PathBuf);

impl PrivateDirectory {
    /// A new, empty one among the system's temporary files.
    pub fn new() -> std::io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;

        let mut random = [0; 16];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| std::io::Error::other("no randomness"))?;
        let name = format!("valgate-{:032x}", u128::from_ne_bytes(random));
        let path = std::env::temp_dir().join(name);
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// With copies of the files of another.
    fn copy_of(directory: &Path) -> std::io::Result<Self> {
        let copies = Self::new()?;
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                std::fs::copy(entry.path(), copies.0.join(entry.file_name()))?;
            }
        }
        Ok(copies)
    }
}

impl Drop for PrivateDirectory {
    fn drop(&mut self) {
        _ = std::fs::remove_dir_all(&self.0);
    }
}
