//! The state as the state machine of its group.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::{
    RestoreError, StateMachine,
    metadata::{Command, CommandError, State},
};

/// Version of the checkpoint.
const FORMAT: u32 = 1;

/// The metadata's state machine: every payload is a [`Command`].
pub struct MetadataMachine {
    inner: Mutex<Inner>,
    newest: watch::Sender<Arc<State>>,
}

#[derive(Default)]
struct Inner {
    state: State,
    /// Of the last payload applied.
    index: u64,
    /// Since the last checkpoint.
    payloads: u64,
    bytes: u64,
    /// The version of the command that ended the application of commands.
    stopped_at: Option<u32>,
}

#[derive(Serialize)]
struct Written<'a> {
    format: u32,
    state: &'a State,
}

#[derive(Deserialize)]
struct Read {
    format: u32,
    state: State,
}

impl Default for MetadataMachine {
    fn default() -> Self {
        Self { inner: Mutex::default(), newest: watch::Sender::new(Arc::default()) }
    }
}

impl MetadataMachine {
    /// The newest state.
    pub fn state(&self) -> Arc<State> {
        self.newest.borrow().clone()
    }

    /// The newest state, and every later one. States may be skipped.
    pub fn watch(&self) -> watch::Receiver<Arc<State>> {
        self.newest.subscribe()
    }

    /// Why this member applies nothing any more: the version of a command that it does not know.
    pub fn stopped_at(&self) -> Option<u32> {
        self.inner.lock().stopped_at
    }

    /// Payloads and their bytes since the last checkpoint.
    pub fn since_checkpoint(&self) -> (u64, u64) {
        let inner = self.inner.lock();
        (inner.payloads, inner.bytes)
    }

    /// The whole state and the index at which it is; nothing when there is nothing new, or nothing may be kept.
    pub(crate) fn checkpoint(&self) -> Option<(u64, Bytes)> {
        let (state, index) = {
            let mut inner = self.inner.lock();
            if inner.payloads == 0 || inner.stopped_at.is_some() {
                return None;
            }
            (inner.payloads, inner.bytes) = (0, 0);
            (inner.state.clone(), inner.index)
        };
        match serde_json::to_vec(&Written { format: FORMAT, state: &state }) {
            Ok(bytes) => Some((index, bytes.into())),
            Err(error) => {
                tracing::error!(%error, "the metadata can not be written as a checkpoint");
                None
            }
        }
    }
}

impl StateMachine for MetadataMachine {
    type Output = Result<u64, CommandError>;

    fn apply(&self, index: u64, payload: &Bytes) -> Self::Output {
        let mut inner = self.inner.lock();
        if let Some(version) = inner.stopped_at {
            return Err(CommandError::Unsupported(version));
        }
        let command = match Command::decode(payload) {
            Err(CommandError::Unsupported(version)) => {
                tracing::error!(
                    version,
                    index,
                    "the metadata has a command of a newer program: upgrade this node"
                );
                inner.stopped_at = Some(version);
                return Err(CommandError::Unsupported(version));
            }
            decoded => decoded,
        };
        inner.index = index;
        inner.payloads += 1;
        inner.bytes += payload.len() as u64;
        let before = inner.state.revision;
        let result = inner.state.apply(&command?);
        if inner.state.revision != before {
            self.newest.send_replace(Arc::new(inner.state.clone()));
        }
        result
    }

    fn restore(&self, index: u64, app: &[u8]) -> Result<(), RestoreError> {
        let read: Read = serde_json::from_slice(app).map_err(|e| RestoreError(e.to_string()))?;
        if read.format > FORMAT {
            return Err(RestoreError(format!(
                "metadata format {}, this program reads {FORMAT}",
                read.format
            )));
        }
        let mut inner = self.inner.lock();
        *inner = Inner { state: read.state, index, ..Inner::default() };
        self.newest.send_replace(Arc::new(inner.state.clone()));
        Ok(())
    }
}
