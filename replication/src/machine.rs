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
    /// It must be deterministic: every member, and every replay, calls it with the same payloads. It is called exactly
    /// once for a payload between [`StateMachine::restore`] and the end of the process. It must not block on I/O. A panic
    /// stops the group.
    fn apply(&self, index: u64, payload: &Bytes) -> Self::Output;

    /// Takes up the app part of the checkpoint at `index`, once and before any `apply`. Not called when there is none.
    /// The next payload applied has an index above `index`.
    fn restore(&self, index: u64, app: &[u8]) -> Result<(), RestoreError>;
}
