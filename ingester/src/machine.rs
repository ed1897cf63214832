//! The head as the state machine of a Raft group.

use bytes::Bytes;
use sextant_replication::{RestoreError, StateMachine};

use crate::head::{Applied, Head};

/// A shard's state: its head.
#[derive(Default)]
pub struct ShardStateMachine {
    head: Head,
}

impl ShardStateMachine {
    /// The head.
    pub fn head(&self) -> &Head {
        &self.head
    }
}

impl StateMachine for ShardStateMachine {
    type Output = Applied;

    fn apply(&self, index: u64, payload: &Bytes) -> Applied {
        self.head.apply(index, payload)
    }

    fn restore(&self, index: u64, app: &[u8]) -> Result<(), RestoreError> {
        self.head.restore(index, app).map_err(|e| RestoreError(e.to_string()))
    }
}
