//! Append-only label bytes in chunks: nothing is moved when they grow, and readers share the chunks instead of copying.

use bytes::BytesMut;
use sextant_model::Labels;

/// The first chunk is small, because most tenants of many are small; each further one is twice as large, up to this. A
/// reader that holds one label set holds its chunk, which bounds what it can keep.
const CHUNK_BYTES_MAX: usize = 256 << 10;
const CHUNK_BYTES_FIRST: usize = 4 << 10;

/// See the module's documentation.
#[derive(Default)]
pub(crate) struct Arena {
    /// What is left of the last chunk.
    open: BytesMut,
    chunks: usize,
}

impl Arena {
    /// Copies canonical label bytes in. `memory` follows what the arena takes.
    pub(crate) fn push(&mut self, labels: &[u8], memory: &mut usize) -> Labels {
        if self.open.capacity() - self.open.len() < labels.len() {
            let doubled = CHUNK_BYTES_FIRST << self.chunks.min(16);
            let size = doubled.min(CHUNK_BYTES_MAX).max(labels.len());
            *memory += size + 64;
            self.open = BytesMut::with_capacity(size);
            self.chunks += 1;
        }
        self.open.extend_from_slice(labels);
        Labels::from_trusted(self.open.split().freeze())
    }
}
