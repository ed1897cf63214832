//! Frames as tonic messages: the bytes themselves. An outgoing frame is copied once, into the send buffer; an incoming one is
//! cut out of the receive buffer without a copy.

use bytes::{Buf as _, BufMut as _, Bytes};
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

/// An outgoing message in parts, so that payloads need not be put together before they are sent.
#[derive(Debug, Default)]
pub(crate) struct Frame {
    parts: Vec<Bytes>,
    bytes: usize,
}

impl Frame {
    pub(crate) fn push(&mut self, part: Bytes) {
        self.bytes += part.len();
        self.parts.push(part);
    }

    /// Bytes of all parts.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The parts in one piece.
    #[cfg(test)]
    pub(crate) fn joined(&self) -> Bytes {
        self.parts.concat().into()
    }
}

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct FrameCodec;

impl Codec for FrameCodec {
    type Encode = Frame;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for FrameCodec {
    type Item = Frame;
    type Error = Status;

    fn encode(&mut self, frame: Frame, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(frame.bytes);
        frame.parts.iter().for_each(|part| buffer.put_slice(part));
        Ok(())
    }
}

impl Decoder for FrameCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let n = buffer.remaining();
        Ok(Some(buffer.copy_to_bytes(n)))
    }
}
