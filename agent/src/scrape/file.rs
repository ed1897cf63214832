//! The file of scrape configurations, looked at again and again: what it says is taken when it changes.
//!
//! Contents are compared, not times of modification: a volume of Kubernetes swaps links, and a file that is written twice
//! within one tick of the kernel's clock keeps its time. The files that `tls_config` names count as part of it, so that a
//! certificate that is renewed is used.

use std::{
    io,
    path::{Path, PathBuf},
};

use xxhash_rust::xxh3::Xxh3;

use super::config::ScrapeConfigs;
use crate::error::AgentError;

/// The file, and what was found in it last.
#[derive(Debug)]
pub(crate) struct ScrapeFile {
    path: PathBuf,
    /// Files that the last good configuration names.
    tls_files: Vec<PathBuf>,
    /// A hash of all contents; the reason where the file could not be read.
    last: Option<Result<u128, String>>,
}

impl ScrapeFile {
    /// A file that has not been looked at.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, tls_files: Vec::new(), last: None }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What it says, or what is wrong with it; `None` where neither has changed since it was read last.
    pub(crate) async fn look(&mut self) -> Option<Result<ScrapeConfigs, AgentError>> {
        let text = tokio::fs::read(&self.path).await;
        let state = self.state(&text).await;
        if self.last.as_ref() == Some(&state) { None } else { Some(self.take(text, state).await) }
    }

    /// What it says, or what is wrong with it, whether or not that has changed.
    pub(crate) async fn read(&mut self) -> Result<ScrapeConfigs, AgentError> {
        let text = tokio::fs::read(&self.path).await;
        let state = self.state(&text).await;
        self.take(text, state).await
    }

    async fn state(&self, text: &io::Result<Vec<u8>>) -> Result<u128, String> {
        match text {
            Ok(text) => Ok(self.hash(text).await),
            Err(e) => Err(e.to_string()),
        }
    }

    async fn take(
        &mut self,
        text: io::Result<Vec<u8>>,
        state: Result<u128, String>,
    ) -> Result<ScrapeConfigs, AgentError> {
        self.last = Some(state);
        let text = text.map_err(|source| AgentError::ReadConfig { path: self.path.clone(), source })?;
        let configs = ScrapeConfigs::from_yaml(&String::from_utf8_lossy(&text))?;
        self.tls_files = configs.tls_files();
        self.last = Some(Ok(self.hash(&text).await));
        Ok(configs)
    }

    async fn hash(&self, text: &[u8]) -> u128 {
        let mut hash = Xxh3::new();
        hash.update(text);
        for path in &self.tls_files {
            // A file that is not there, or not yet, is reported by whoever needs it.
            let bytes = tokio::fs::read(path).await.unwrap_or_default();
            hash.update(&bytes.len().to_le_bytes());
            hash.update(&bytes);
        }
        hash.digest128()
    }
}
