//! Messages as tonic sees them: bytes. An outgoing one is copied once, into the send buffer; an incoming one is cut out of the
//! receive buffer without a copy.

use bytes::{Buf as _, BufMut as _, Bytes};
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

/// An outgoing message: a head and what follows it.
#[derive(Clone, Debug, Default)]
pub struct Frame {
    /// Sent first.
    pub head: Bytes,
    /// Sent behind it.
    pub body: Bytes,
}

impl Frame {
    /// A message in one piece.
    pub fn whole(message: Bytes) -> Self {
        Self { head: message, body: Bytes::new() }
    }

    /// Bytes of both.
    pub fn bytes(&self) -> usize {
        self.head.len() + self.body.len()
    }
}

/// The codec of messages whose bytes are ours alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct FrameCodec;

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
        buffer.reserve(frame.bytes());
        buffer.put_slice(&frame.head);
        buffer.put_slice(&frame.body);
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
