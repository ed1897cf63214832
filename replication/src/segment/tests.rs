//! Where a scan says that the log ends.

use super::*;
use crate::record::{Head, encode_head, record_bytes};

const BYTES: u32 = 16384;

/// A segment under construction.
struct Segment {
    head: SegmentHead,
    bytes: Vec<u8>,
    at: usize,
}

impl Segment {
    fn new() -> Self {
        let head = SegmentHead { sequence: 5, nonce: 0xfeed_beef_1234_5671, bytes: BYTES };
        let mut bytes = vec![0; BYTES as usize];
        bytes[..36].copy_from_slice(&head.encode());
        Self { head, bytes, at: SEGMENT_HEAD_BYTES }
    }

    fn put(&mut self, kind: Kind, body: &[u8], synced: usize) -> usize {
        let at = self.at;
        let head = Head::of_store(kind);
        let encoded =
            encode_head(head, self.head.seal(), synced as u32, body.len() as u32, [body].into_iter());
        self.bytes[at..at + HEAD_BYTES].copy_from_slice(&encoded);
        self.bytes[at + HEAD_BYTES..at + HEAD_BYTES + body.len()].copy_from_slice(body);
        self.at += record_bytes(body.len());
        at
    }

    fn scan(&self) -> (usize, usize, Tail) {
        let mut records = 0;
        let found = scan(&self.bytes, self.head.seal(), |_, _| {
            records += 1;
            Ok::<_, ()>(())
        });
        let found = found.expect("the visitor does not fail");
        (records, found.end, found.tail)
    }
}

#[test]
fn an_intact_segment_ends_behind_its_last_record() {
    let mut s = Segment::new();
    assert_eq!(s.scan(), (0, SEGMENT_HEAD_BYTES, Tail::Open));
    s.put(Kind::Blank, b"one", 4096);
    s.put(Kind::Blank, b"two", 4096);
    assert_eq!(s.scan(), (2, s.at, Tail::Open));
    let end = s.at + HEAD_BYTES;
    s.put(Kind::End, b"", s.at);
    // What lies behind the end does not count, even when it is intact.
    s.put(Kind::Blank, b"ghost", s.at);
    assert_eq!(s.scan(), (3, end, Tail::Ended));
}

#[test]
fn a_bad_record_of_the_last_write_is_a_torn_end_even_when_later_ones_are_intact() {
    let mut s = Segment::new();
    let one = s.put(Kind::Blank, b"one", 4096);
    let synced = s.at;
    let two = s.put(Kind::Blank, b"two", synced);
    s.put(Kind::Blank, b"three", synced);
    s.bytes[two + HEAD_BYTES] ^= 1;
    assert_eq!(s.scan(), (1, two, Tail::Torn(Bad::Checksum)));
    // The head's sector did not reach the disk.
    s.bytes[two..two + HEAD_BYTES].fill(0);
    assert_eq!(s.scan(), (1, two, Tail::Torn(Bad::Absent)));
    // The record before was synced, and that is known from the records behind.
    s.bytes[one + HEAD_BYTES] ^= 1;
    assert_eq!(s.scan(), (0, one, Tail::Damaged(Bad::Checksum)));
}

#[test]
fn a_close_record_vouches_for_the_last_write() {
    let mut s = Segment::new();
    let one = s.put(Kind::Blank, b"one", 4096);
    s.bytes[one + HEAD_BYTES] ^= 1;
    assert_eq!(s.scan(), (0, one, Tail::Torn(Bad::Checksum)));
    s.put(Kind::Close, b"", s.at);
    assert_eq!(s.scan(), (0, one, Tail::Damaged(Bad::Checksum)));
}

#[test]
fn records_of_an_earlier_use_are_not_seen() {
    let mut old = Segment::new();
    for _ in 0..20 {
        old.put(Kind::Blank, b"old", old.at);
    }
    let mut s =
        Segment { head: SegmentHead { sequence: 6, ..old.head }, bytes: old.bytes, at: SEGMENT_HEAD_BYTES };
    assert_eq!(s.scan(), (0, SEGMENT_HEAD_BYTES, Tail::Open));
    s.put(Kind::Blank, b"new", 4096);
    assert_eq!(s.scan(), (1, s.at, Tail::Open));
}

#[test]
fn bad_heads_are_refused() {
    let head = SegmentHead { sequence: 5, nonce: 9, bytes: BYTES };
    let good = head.encode();
    assert_eq!(SegmentHead::decode(&good), Ok(head));
    for at in 0..good.len() {
        let mut bytes = good;
        bytes[at] ^= 0x10;
        let bad = if at < 8 { BadHead::Magic } else { BadHead::Checksum };
        assert_eq!(SegmentHead::decode(&bytes), Err(bad), "byte {at}");
    }
    for n in 0..good.len() {
        assert_eq!(SegmentHead::decode(&good[..n]), Err(BadHead::Magic), "{n} bytes");
    }
    let mut newer = good;
    newer[8] = 2;
    let crc = crc32c::crc32c(&newer[..32]);
    newer[32..].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(SegmentHead::decode(&newer), Err(BadHead::Version(2)));
}
