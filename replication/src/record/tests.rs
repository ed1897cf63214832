//! The record decoder against hand-made bad input and against its own encoder.

use proptest::prelude::*;

use super::*;

fn encode(head: Head, seal: Seal, synced: u32, parts: &[&[u8]]) -> Vec<u8> {
    let body: usize = parts.iter().map(|p| p.len()).sum();
    let mut out = encode_head(head, seal, synced, body as u32, parts.iter().copied()).to_vec();
    parts.iter().for_each(|p| out.extend_from_slice(p));
    out.resize(record_bytes(body), 0);
    out
}

fn batch(payloads: u32) -> Head {
    Head { kind: Kind::Batch, flag: false, group: 3, index: 11, term: 2, node: 1, payloads }
}

/// A change to a good record that keeps its checksum right unless it says otherwise.
fn resealed(mut record: Vec<u8>, seal: Seal, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    change(&mut record);
    let end = HEAD_BYTES + u32_at(&record, 4) as usize;
    let end = end.min(record.len());
    let crc = crc32c::crc32c_append(seal.seed, &record[4..end]);
    record[0..4].copy_from_slice(&crc.to_le_bytes());
    record
}

#[test]
fn bad_records_are_refused_for_the_right_reason() {
    let seal = Seal::new(0x1234_5678_9abc_def0, 7);
    let lengths = [3u32.to_le_bytes(), 2u32.to_le_bytes()].concat();
    let good = encode(batch(2), seal, 4096, &[&lengths, b"abc", b"de"]);
    assert_eq!(decode(&good, seal).map(|r| r.body.len()), Ok(13));
    let flip = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };
    let cases: Vec<(&str, Vec<u8>, Bad)> = vec![
        ("nothing", Vec::new(), Bad::Absent),
        ("zeros", vec![0; 256], Bad::Absent),
        ("a head cut short", good[..HEAD_BYTES - 1].to_vec(), Bad::Absent),
        (
            "an earlier use of the file",
            encode(batch(0), Seal::new(0x1234_5678_9abc_def0, 6), 0, &[]),
            Bad::Absent,
        ),
        ("another store", encode(batch(0), Seal::new(1, 7), 0, &[]), Bad::Absent),
        ("a body cut short", good[..good.len() - 1].to_vec(), Bad::Long),
        ("a length beyond the file", resealed(good.clone(), seal, |r| r[4..8].fill(0xff)), Bad::Long),
        ("a flipped checksum", flip(0), Bad::Checksum),
        ("a flipped index", flip(24), Bad::Checksum),
        ("a flipped payload", flip(HEAD_BYTES + 9), Bad::Checksum),
        ("a flipped padding byte", flip(good.len() - 1), Bad::Checksum),
        ("kind 0", resealed(good.clone(), seal, |r| r[52] = 0), Bad::Kind),
        ("kind 200", resealed(good.clone(), seal, |r| r[52] = 200), Bad::Kind),
        ("another magic", resealed(good.clone(), seal, |r| r[60] ^= 1), Bad::Kind),
        ("more payloads than lengths", resealed(good.clone(), seal, |r| r[56] = 4), Bad::Payloads),
        ("a huge number of payloads", resealed(good.clone(), seal, |r| r[56..60].fill(0xff)), Bad::Payloads),
        ("bytes behind the payloads", resealed(good.clone(), seal, |r| r[HEAD_BYTES] = 2), Bad::Payloads),
        (
            "a payload beyond the body",
            resealed(good.clone(), seal, |r| r[HEAD_BYTES + 3] = 0xff),
            Bad::Payloads,
        ),
    ];
    for (what, bytes, bad) in cases {
        assert_eq!(decode(&bytes, seal), Err(bad), "{what}");
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..8),
        group: u64, index: u64, term: u64, node: u64, synced: u32, nonce: u64, sequence: u64,
    ) {
        let seal = Seal::new(nonce | 1, sequence >> 1);
        let head = Head { group, index, term, node, ..batch(payloads.len() as u32) };
        let lengths: Vec<u8> = payloads.iter().flat_map(|p| (p.len() as u32).to_le_bytes()).collect();
        let parts: Vec<&[u8]> = std::iter::once(&lengths[..]).chain(payloads.iter().map(|p| &p[..])).collect();
        let bytes = encode(head, seal, synced, &parts);
        let found = decode(&bytes, seal).unwrap();
        prop_assert_eq!((found.head, found.synced, found.bytes()), (head, synced, bytes.len()));
        let ranges = payload_ranges(&found).unwrap();
        let read: Vec<_> = ranges.into_iter().map(|r| found.body[r].to_vec()).collect();
        prop_assert_eq!(read, payloads);
    }

    #[test]
    fn any_flipped_bit_is_noticed(at in 0usize..80, bit in 0u8..8) {
        let seal = Seal::new(99, 1);
        let mut bytes = encode(batch(1), seal, 0, &[&5u32.to_le_bytes(), b"hello"]);
        bytes[at] ^= 1 << bit;
        prop_assert!(decode(&bytes, seal).is_err());
    }

    #[test]
    fn any_bytes_are_decoded_without_a_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..5000)) {
        crate::fuzz_decode_segment(&bytes);
        // The same with a stamp and magic that let it get past the first test.
        if bytes.len() > 4200 {
            bytes[4104..4112].copy_from_slice(&1u64.to_le_bytes());
            bytes[4156..4160].copy_from_slice(&MAGIC.to_le_bytes());
            crate::fuzz_decode_segment(&bytes);
        }
    }
}
