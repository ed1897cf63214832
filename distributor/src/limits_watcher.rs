//! Reads the limits file again when it changes. A bad file keeps the limits of before.

use std::{path::PathBuf, sync::Arc, time::Duration};

use sextant_proto::{Limits, LimitsError, LimitsHandle, TenantLimits};
use tokio::sync::watch;

/// Watches one file.
#[derive(Debug)]
pub struct LimitsWatcher {
    path: PathBuf,
    every: Duration,
    handle: LimitsHandle,
    /// What holds where the file says nothing.
    configured: Arc<TenantLimits>,
    last: String,
    /// Said once, not at every look.
    is_unreadable: bool,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LimitsFileError {
    /// It cannot be read.
    #[error("limits file {0}: {1}")]
    Read(PathBuf, std::io::Error),
    /// It says something wrong.
    #[error("limits file {0}: {1}")]
    Content(PathBuf, LimitsError),
}

impl LimitsWatcher {
    /// Reads the file into the handle; at the start a bad file is an error. The defaults that the handle has before hold
    /// for every limit that the file does not set.
    pub fn open(path: PathBuf, every: Duration, handle: LimitsHandle) -> Result<Self, LimitsFileError> {
        let text = std::fs::read_to_string(&path).map_err(|e| LimitsFileError::Read(path.clone(), e))?;
        let configured = handle.defaults();
        let limits =
            Limits::from_yaml(&text, &configured).map_err(|e| LimitsFileError::Content(path.clone(), e))?;
        handle.replace(limits);
        Ok(Self { path, every, handle, configured, last: text, is_unreadable: false })
    }

    /// Looks at the file until `stop` becomes true.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                _ = stop.wait_for(|s| *s) => return,
                () = tokio::time::sleep(self.every) => self.look(),
            }
        }
    }

    fn look(&mut self) {
        let path = self.path.display();
        let text = match std::fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) => {
                if !std::mem::replace(&mut self.is_unreadable, true) {
                    tracing::error!(%path, %error, "the limits file cannot be read; limits stay as they were");
                }
                return;
            }
        };
        self.is_unreadable = false;
        if text == self.last {
            return;
        }
        match Limits::from_yaml(&text, &self.configured) {
            Ok(limits) => {
                self.handle.replace(limits);
                tracing::info!(%path, "new limits are in force");
            }
            Err(error) => {
                tracing::error!(%path, %error, "the limits file is wrong; limits stay as they were");
            }
        }
        self.last = text;
    }
}
