//! Snappy blocks into reused buffers. The size a block declares is checked before memory is taken for it.

use crate::RequestError;

/// Positions in a body are 31-bit numbers: no limit may allow more.
pub(crate) const BODY_BYTES_MAX: u64 = 1 << 30;

/// Decompresses a block into the front of `out` and returns its length. `out` only grows, so that a reused buffer is
/// not cleared again.
pub(crate) fn decompress(block: &[u8], limit: u64, out: &mut Vec<u8>) -> Result<usize, RequestError> {
    let limit = if limit == 0 { BODY_BYTES_MAX } else { limit.min(BODY_BYTES_MAX) };
    let too_large = |size: u64| RequestError::TooLarge { size, limit };
    if block.len() as u64 > limit {
        return Err(too_large(block.len() as u64));
    }
    let size = match snap::raw::decompress_len(block) {
        Err(snap::Error::TooBig { given, .. }) => return Err(too_large(given)),
        other => other.map_err(|e| RequestError::Snappy(e.to_string()))?,
    };
    if size as u64 > limit {
        return Err(too_large(size as u64));
    }
    // No element of a block gives more than 64 bytes, and each takes more than one: a small body that declares a large
    // size lies, and the lie must not cost its memory.
    if size > block.len().saturating_mul(64) {
        return Err(RequestError::Snappy(format!("{} bytes cannot hold the {size} declared", block.len())));
    }
    if out.len() < size {
        out.resize(size, 0);
    }
    let n = snap::raw::Decoder::new()
        .decompress(block, &mut out[..size])
        .map_err(|e| RequestError::Snappy(e.to_string()))?;
    Ok(n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_come_back_and_the_buffer_is_reused() {
        let mut out = Vec::new();
        for text in [&b"hello hello hello hello"[..], b"", b"x"] {
            let block = snap::raw::Encoder::new().compress_vec(text).unwrap();
            let n = decompress(&block, 100, &mut out).unwrap();
            assert_eq!(&out[..n], text);
        }
    }

    #[test]
    fn bad_blocks() {
        let good = snap::raw::Encoder::new().compress_vec(&[7; 1000]).unwrap();
        let cut = &good[..good.len() - 1];
        let mut out = Vec::new();
        let table: &[(&[u8], u64, bool)] = &[
            (&[], 0, false),
            (&[0xff, 0xff, 0xff, 0xff, 0x0f], 1 << 20, true),
            (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff], 1 << 20, false),
            (&[0x80, 0x80, 0x40, 0x00], 0, false),
            (&good, 999, true),
            (&[0; 10], 9, true),
            (cut, 0, false),
            (b"0not snappy", 0, false),
        ];
        for (block, limit, too_large) in table {
            let e = decompress(block, *limit, &mut out).unwrap_err();
            assert_eq!(matches!(e, RequestError::TooLarge { .. }), *too_large, "{block:?}: {e}");
        }
        assert!(out.capacity() < 1 << 20, "a declared size took memory");
        assert!(decompress(&good, 1000, &mut out).is_ok());
    }
}
