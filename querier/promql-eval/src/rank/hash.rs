//! Where a series lies between 0 and 1 for `limit_ratio`: the XXH64 of its labels, as Prometheus hashes them.

use sextant_model::Labels;

/// The series' place in `[0, 1]`.
pub fn ratio_offset(labels: &Labels) -> f64 {
    xxh64(&encoded(labels)) as f64 / u64::MAX as f64
}

/// Prometheus' one-string form of labels: each text after its length, in one byte, or, from 255 on, in three bytes
/// after a 255.
fn encoded(labels: &Labels) -> Vec<u8> {
    let mut out = Vec::with_capacity(labels.as_bytes().len());
    for text in labels.iter().flat_map(|(n, v)| [n, v]) {
        if text.len() < 255 {
            out.push(text.len() as u8);
        } else {
            out.push(255);
            out.extend_from_slice(&(text.len() as u32).to_le_bytes()[..3]);
        }
        out.extend_from_slice(text.as_bytes());
    }
    out
}

const P1: u64 = 0x9E37_79B1_85EB_CA87;
const P2: u64 = 0xC2B2_AE3D_27D4_EB4F;
const P3: u64 = 0x1656_67B1_9E37_79F9;
const P4: u64 = 0x85EB_CA77_C2B2_AE63;
const P5: u64 = 0x27D4_EB2F_1656_67C5;

/// XXH64 with seed 0 (the algorithm's public specification).
fn xxh64(input: &[u8]) -> u64 {
    let (stripes, mut rest) = input.as_chunks::<32>();
    let mut hash = if stripes.is_empty() {
        P5
    } else {
        let mut lanes = [P1.wrapping_add(P2), P2, 0, 0u64.wrapping_sub(P1)];
        for stripe in stripes {
            for (lane, word) in lanes.iter_mut().zip(stripe.as_chunks::<8>().0) {
                *lane = round(*lane, u64::from_le_bytes(*word));
            }
        }
        let rotated =
            lanes.iter().zip([1, 7, 12, 18]).fold(0u64, |h, (l, r)| h.wrapping_add(l.rotate_left(r)));
        lanes.iter().fold(rotated, |h, &l| (h ^ round(0, l)).wrapping_mul(P1).wrapping_add(P4))
    };
    hash = hash.wrapping_add(input.len() as u64);
    while let Some((word, tail)) = rest.split_first_chunk::<8>() {
        hash = (hash ^ round(0, u64::from_le_bytes(*word))).rotate_left(27).wrapping_mul(P1).wrapping_add(P4);
        rest = tail;
    }
    if let Some((word, tail)) = rest.split_first_chunk::<4>() {
        let word = u64::from(u32::from_le_bytes(*word));
        hash = (hash ^ word.wrapping_mul(P1)).rotate_left(23).wrapping_mul(P2).wrapping_add(P3);
        rest = tail;
    }
    for &byte in rest {
        hash = (hash ^ u64::from(byte).wrapping_mul(P5)).rotate_left(11).wrapping_mul(P1);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(P2);
    hash = (hash ^ (hash >> 29)).wrapping_mul(P3);
    hash ^ (hash >> 32)
}

fn round(lane: u64, word: u64) -> u64 {
    lane.wrapping_add(word.wrapping_mul(P2)).rotate_left(31).wrapping_mul(P1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_hashes() {
        assert_eq!(xxh64(b""), 0xEF46_DB37_51D8_E999);
        assert_eq!(xxh64(b"a"), 0xD24E_C4F1_A98C_6E5B);
        assert_eq!(xxh64(b"xxhash"), 0x32DD_38952C4BC720);
        assert_eq!(
            xxh64(b"Call me Ishmael. Some years ago--never mind how long precisely-"),
            0x02A2_E854_70D6_FD96
        );
    }
}
