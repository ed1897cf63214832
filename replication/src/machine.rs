//! What a group replicates: the state machine that an ingester or the metadata role brings.

use bytes::Bytes;

use crate::RestoreError;

/// The state that a group keeps equal on all members.
///
/// Calls come from one task at a time and in the order of the log, so an implementor needs interior mutability only
/// against its own readers.
pub trait StateMachine: Send + Sync + 'static {
    /// What a proposer gets back.
    type Output: Send + Sync + 'static;

    /// Applies one payload. `index` is the Raft index of the entry that holds it; the payloads of one entry share it and
    /// come in their order, and indexes never go back.
    ///
    /// It must be deterministic: every member, and every replay, calls it with the same payloads. It is called at
    /// most once for a payload between two calls of [`StateMachine::restore`], and exactly once when no checkpoint covers it. It must not block on I/O. A panic
    /// stops the group.
    fn apply(&self, index: u64, payload: &Bytes) -> Self::Output;

    /// Replaces the whole state by the app part of the checkpoint at `index`: whatever was applied or restored before is gone,
    /// and so is whatever the state keeps outside of checkpoints. The next payload applied has an index above `index`.
    ///
    /// Called before any `apply` when the group is opened with a checkpoint, and again between two calls of `apply` when this
    /// member lagged so far behind that its leader sent its own checkpoint; `index` is then above every index seen before.
    /// Everything up to `index` that is not in `app` is safe elsewhere: a shard's rows are in blocks. It may block. After an
    /// error the group stops, and the checkpoint is taken up again when it is opened.
    fn restore(&self, index: u64, app: &[u8]) -> Result<(), RestoreError>;
}
