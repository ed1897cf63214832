//! Builds the sidecar from a block's terms.

use std::collections::HashMap;

use bytes::Bytes;
use roaring::RoaringBitmap;

use super::{GROUP_VALUES, ListRef, MAGIC, VERSION, put_varint};
use crate::block::write::Terms;

/// Writes the sidecar.
pub fn write_index(terms: &Terms) -> Bytes {
    let mut postings = Postings::default();
    let mut sections = Vec::new();
    for (name, id) in terms.sorted_names() {
        let values = terms.sorted_values(id);
        let section = write_section(&values, &mut postings);
        let all = union(&values);
        let all = postings.put(&all);
        sections.push((name, values.len(), section, all));
    }
    let mut out = postings.bytes;
    let mut footer = Vec::new();
    put_varint(&mut footer, terms.series() as u64);
    put_varint(&mut footer, sections.len() as u64);
    for (name, values, section, all) in sections {
        put_varint(&mut footer, name.len() as u64);
        footer.extend(name.as_bytes());
        put_varint(&mut footer, values as u64);
        footer.extend((out.len() as u64).to_le_bytes());
        put_varint(&mut footer, section.len() as u64);
        put_varint(&mut footer, values.div_ceil(GROUP_VALUES) as u64);
        put_ref(&mut footer, all);
        out.extend(section);
    }
    let at = out.len() as u64;
    let crc = crc32c::crc32c(&footer);
    let len = footer.len() as u32;
    out.extend(footer);
    out.extend(at.to_le_bytes());
    out.extend(len.to_le_bytes());
    out.extend(crc.to_le_bytes());
    out.extend(VERSION.to_le_bytes());
    out.extend(MAGIC);
    Bytes::from(out)
}

fn write_section(values: &[(&str, &[u32])], postings: &mut Postings) -> Vec<u8> {
    let mut offsets = Vec::new();
    let mut groups = Vec::new();
    for group in values.chunks(GROUP_VALUES) {
        offsets.extend((groups.len() as u32).to_le_bytes());
        let mut before: &[u8] = &[];
        for (value, series) in group {
            let value = value.as_bytes();
            let shared = before.iter().zip(value).take_while(|(a, b)| a == b).count();
            put_varint(&mut groups, shared as u64);
            put_varint(&mut groups, (value.len() - shared) as u64);
            groups.extend(&value[shared..]);
            put_ref(&mut groups, postings.put(series));
            before = value;
        }
    }
    offsets.extend(groups);
    offsets
}

fn union(values: &[(&str, &[u32])]) -> Vec<u32> {
    // A series has a label once, so the lists are disjoint.
    let mut all: Vec<u32> = values.iter().flat_map(|(_, series)| series.iter().copied()).collect();
    all.sort_unstable();
    all
}

fn put_ref(out: &mut Vec<u8>, list: ListRef) {
    match list {
        ListRef::One(series) => {
            put_varint(out, 1);
            put_varint(out, u64::from(series));
        }
        ListRef::At(offset, len) => {
            put_varint(out, 2);
            put_varint(out, offset);
            put_varint(out, u64::from(len));
        }
    }
}

#[derive(Default)]
struct Postings {
    bytes: Vec<u8>,
    /// Labels of a target (instance, node, pod) have the same series: their list is stored once.
    known: HashMap<u128, ListRef>,
}

impl Postings {
    fn put(&mut self, series: &[u32]) -> ListRef {
        if let [one] = series {
            return ListRef::One(*one);
        }
        let mut encoded = vec![0u8];
        let mut before = None;
        for &s in series {
            put_varint(&mut encoded, u64::from(before.map_or(s, |b: u32| s - b - 1)));
            before = Some(s);
        }
        // Dense and long lists are smaller, and faster to read, as runs and bitmaps.
        if let Ok(mut bitmap) = RoaringBitmap::from_sorted_iter(series.iter().copied()) {
            bitmap.optimize();
            if bitmap.serialized_size() < encoded.len() {
                encoded = vec![1u8];
                // Writing to memory does not fail.
                let _ = bitmap.serialize_into(&mut encoded);
            }
        }
        let hash = xxhash_rust::xxh3::xxh3_128(&encoded);
        *self.known.entry(hash).or_insert_with(|| {
            let at = self.bytes.len() as u64;
            self.bytes.extend(&encoded);
            ListRef::At(at, encoded.len() as u32)
        })
    }
}
