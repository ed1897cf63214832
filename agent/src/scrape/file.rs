//! The file of scrape configurations, looked at again and again: what it says is taken when it changes.
//!
//! Contents are compared, not times of modification: a volume of Kubernetes swaps links, and a file that is written twice
//! within one tick of the kernel's clock keeps its time. The files that `tls_config` names count as part of it, so that a
//! certificate that is renewed is used.

use std::path::{Path, PathBuf};

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

    /// What it says, or what is wrong with it; `None` where neither has changed since the last look.
    pub(crate) async fn look(&mut self) -> Option<Result<ScrapeConfigs, AgentError>> {
        let text = match tokio::fs::read(&self.path).await {
            Ok(text) => text,
            Err(source) => {
                let reason = Some(Err(source.to_string()));
                if self.last == reason {
                    return None;
                }
                self.last = reason;
                return Some(Err(AgentError::ReadConfig { path: self.path.clone(), source }));
            }
        };
        let found = Some(Ok(self.hash(&text).await));
        if self.last == found {
            return None;
        }
        self.last = found;
        let configs = ScrapeConfigs::from_yaml(&String::from_utf8_lossy(&text));
        if let Ok(configs) = &configs {
            self.tls_files = configs.tls_files();
            self.last = Some(Ok(self.hash(&text).await));
        }
        Some(configs.map_err(AgentError::from))
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
