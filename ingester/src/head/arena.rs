//! Append-only bytes in chunks: nothing is moved when it grows.

/// The first chunk is small, because most tenants of many are small; each further one is twice as large, up to this.
const CHUNK_BYTES_MAX: usize = 256 << 10;
const CHUNK_BYTES_FIRST: usize = 4 << 10;

/// Where bytes lie in an [`Arena`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    chunk: u32,
    at: u32,
    len: u32,
}

impl Span {
    /// A part of the span.
    pub(crate) fn part(self, range: std::ops::Range<usize>) -> Self {
        Self { at: self.at + range.start as u32, len: range.len() as u32, ..self }
    }
}

/// See the module's documentation.
#[derive(Default)]
pub(crate) struct Arena {
    chunks: Vec<Vec<u8>>,
}

impl Arena {
    /// Copies bytes in. `memory` follows what the arena takes.
    pub(crate) fn push(&mut self, bytes: &[u8], memory: &mut usize) -> Span {
        let fits = self.chunks.last().is_some_and(|c| c.capacity() - c.len() >= bytes.len());
        if !fits {
            let doubled = CHUNK_BYTES_FIRST << self.chunks.len().min(16);
            let size = doubled.min(CHUNK_BYTES_MAX).max(bytes.len());
            *memory += size + size_of::<Vec<u8>>();
            self.chunks.push(Vec::with_capacity(size));
        }
        let chunk = self.chunks.len() - 1;
        let target = &mut self.chunks[chunk];
        let at = target.len() as u32;
        target.extend_from_slice(bytes);
        Span { chunk: chunk as u32, at, len: bytes.len() as u32 }
    }

    /// The bytes of a span of this arena.
    #[inline]
    pub(crate) fn get(&self, span: Span) -> &[u8] {
        &self.chunks[span.chunk as usize][span.at as usize..(span.at + span.len) as usize]
    }
}
