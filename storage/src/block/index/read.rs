//! Reads parts of the sidecar. Everything here is safe on any input: bytes that make no sense are `None`.

use bytes::Bytes;
use roaring::RoaringBitmap;

use super::{GROUP_VALUES, ListRef, MAGIC, TRAILER_BYTES, VERSION, take_varint};

/// The parsed footer.
#[derive(Clone, Debug, Default)]
pub struct IndexFooter {
    /// Series of the block.
    pub series: u32,
    /// Labels in order of name.
    pub labels: Vec<LabelEntry>,
}

/// A label of the footer.
#[derive(Clone, Debug)]
pub struct LabelEntry {
    /// The label's name.
    pub name: String,
    /// Distinct values.
    pub values: u64,
    /// Where its section begins.
    pub offset: u64,
    /// Bytes of its section.
    pub len: u64,
    /// Groups of values.
    pub groups: u64,
    /// The series that have the label.
    pub all: ListRef,
}

impl IndexFooter {
    /// Where the footer is, from the object's last [`TRAILER_BYTES`]: offset, length, checksum.
    pub fn locate(trailer: &[u8]) -> Option<(u64, u32, u32)> {
        let t: &[u8; TRAILER_BYTES] = trailer.try_into().ok()?;
        let (at, rest) = t.split_first_chunk::<8>()?;
        let (len, rest) = rest.split_first_chunk::<4>()?;
        let (crc, rest) = rest.split_first_chunk::<4>()?;
        let (version, magic) = rest.split_first_chunk::<4>()?;
        (magic == MAGIC && u32::from_le_bytes(*version) == VERSION)
            .then(|| (u64::from_le_bytes(*at), u32::from_le_bytes(*len), u32::from_le_bytes(*crc)))
    }

    /// Parses the footer. `limit` is the footer's offset: nothing it names lies behind it.
    pub fn parse(bytes: &[u8], limit: u64) -> Option<Self> {
        let rest = &mut &*bytes;
        let series = u32::try_from(take_varint(rest)?).ok()?;
        let count = take_varint(rest)?;
        let mut labels: Vec<LabelEntry> = Vec::new();
        for _ in 0..count {
            let name = take_text(rest)?;
            if labels.last().is_some_and(|l| l.name.as_str() >= name) {
                return None;
            }
            let name = name.to_owned();
            let values = take_varint(rest)?;
            let (offset, tail) = rest.split_first_chunk::<8>()?;
            *rest = tail;
            let offset = u64::from_le_bytes(*offset);
            let len = take_varint(rest)?;
            let groups = take_varint(rest)?;
            let all = take_ref(rest)?;
            let fits = offset.checked_add(len).is_some_and(|end| end <= limit)
                && groups == values.div_ceil(GROUP_VALUES as u64)
                && groups.checked_mul(4).is_some_and(|n| n <= len);
            if !fits {
                return None;
            }
            labels.push(LabelEntry { name, values, offset, len, groups, all });
        }
        rest.is_empty().then_some(Self { series, labels })
    }

    /// A label by name.
    pub fn label(&self, name: &str) -> Option<&LabelEntry> {
        let at = self.labels.binary_search_by(|l| l.name.as_str().cmp(name)).ok()?;
        self.labels.get(at)
    }
}

/// The value section of one label.
#[derive(Clone, Debug)]
pub struct Section {
    bytes: Bytes,
    groups: usize,
    values: u64,
}

impl Section {
    /// A section read from where its entry says.
    pub fn new(entry: &LabelEntry, bytes: Bytes) -> Option<Self> {
        let groups = usize::try_from(entry.groups).ok()?;
        (bytes.len() as u64 == entry.len).then_some(Self { bytes, groups, values: entry.values })
    }

    /// Where the series of a value are: `Some(None)` where no series has it, `None` where the section is damaged.
    pub fn find(&self, value: &str) -> Option<Option<ListRef>> {
        // The last group whose first value is not after the one looked for.
        let (mut low, mut high) = (0, self.groups);
        while low < high {
            let middle = (low + high) / 2;
            let (first, _) = self.group(middle)?.next()??;
            if first.as_slice() <= value.as_bytes() {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        if low == 0 {
            return Some(None);
        }
        for entry in self.group(low - 1)? {
            let (found, list) = entry?;
            if found == value.as_bytes() {
                return Some(Some(list));
            }
        }
        Some(None)
    }

    /// Calls `f` with every value, in order, and where its series are; `None` where the section is damaged.
    pub fn for_each(&self, mut f: impl FnMut(&str, ListRef)) -> Option<()> {
        let mut seen = 0;
        for group in 0..self.groups {
            for entry in self.group(group)? {
                let (value, list) = entry?;
                f(std::str::from_utf8(&value).ok()?, list);
                seen += 1;
            }
        }
        (seen == self.values).then_some(())
    }

    fn group(&self, i: usize) -> Option<Group<'_>> {
        let (table, groups) = self.bytes.split_at_checked(self.groups.checked_mul(4)?)?;
        let offset =
            |i: usize| table.get(i * 4..i * 4 + 4)?.try_into().ok().map(|b| u32::from_le_bytes(b) as usize);
        let start = offset(i)?;
        let end = if i + 1 == self.groups { groups.len() } else { offset(i + 1)? };
        let count = (self.values - (i * GROUP_VALUES) as u64).min(GROUP_VALUES as u64);
        Some(Group { rest: groups.get(start..end)?, value: Vec::new(), left: count })
    }
}

struct Group<'a> {
    rest: &'a [u8],
    value: Vec<u8>,
    left: u64,
}

impl Iterator for Group<'_> {
    type Item = Option<(Vec<u8>, ListRef)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        let entry = self.entry();
        if entry.is_none() {
            self.left = 0;
        }
        Some(entry)
    }
}

impl Group<'_> {
    fn entry(&mut self) -> Option<(Vec<u8>, ListRef)> {
        let shared = usize::try_from(take_varint(&mut self.rest)?).ok()?;
        let len = usize::try_from(take_varint(&mut self.rest)?).ok()?;
        let (suffix, tail) = self.rest.split_at_checked(len)?;
        self.rest = tail;
        if shared > self.value.len() {
            return None;
        }
        self.value.truncate(shared);
        self.value.extend(suffix);
        Some((self.value.clone(), take_ref(&mut self.rest)?))
    }
}

/// Decodes a posting; no series at or beyond `series`.
pub fn decode_posting(bytes: &[u8], series: u32) -> Option<RoaringBitmap> {
    let (kind, mut rest) = bytes.split_first()?;
    let bitmap = match kind {
        0 => {
            let mut bitmap = RoaringBitmap::new();
            let mut next = 0u64;
            while !rest.is_empty() {
                let s = next.checked_add(take_varint(&mut rest)?)?;
                bitmap.try_push(u32::try_from(s).ok()?).ok()?;
                next = s + 1;
            }
            bitmap
        }
        1 => RoaringBitmap::deserialize_from(rest).ok()?,
        _ => return None,
    };
    bitmap.max().is_none_or(|m| m < series).then_some(bitmap)
}

fn take_text<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let len = usize::try_from(take_varint(rest)?).ok()?;
    let (text, tail) = rest.split_at_checked(len)?;
    *rest = tail;
    std::str::from_utf8(text).ok()
}

fn take_ref(rest: &mut &[u8]) -> Option<ListRef> {
    match take_varint(rest)? {
        1 => Some(ListRef::One(u32::try_from(take_varint(rest)?).ok()?)),
        2 => Some(ListRef::At(take_varint(rest)?, u32::try_from(take_varint(rest)?).ok()?)),
        _ => None,
    }
}

/// Reads everything there is in a sidecar: for tests and as a target for a fuzzer.
pub fn walk(bytes: &[u8]) -> Option<u64> {
    let trailer = bytes.get(bytes.len().checked_sub(TRAILER_BYTES)?..)?;
    let (at, len, crc) = IndexFooter::locate(trailer)?;
    let start = usize::try_from(at).ok()?;
    let footer = bytes.get(start..start.checked_add(len as usize)?)?;
    if crc32c::crc32c(footer) != crc {
        return None;
    }
    let footer = IndexFooter::parse(footer, at)?;
    let mut postings = 0;
    for label in &footer.labels {
        let section = bytes.get(label.offset as usize..(label.offset + label.len) as usize)?;
        let section = Section::new(label, Bytes::copy_from_slice(section))?;
        let mut lists = vec![label.all];
        section.for_each(|_, list| lists.push(list))?;
        for list in lists {
            match list {
                ListRef::One(s) if s < footer.series => postings += 1,
                ListRef::One(_) => return None,
                ListRef::At(offset, len) => {
                    let start = usize::try_from(offset).ok()?;
                    let posting = bytes.get(start..start.checked_add(len as usize)?)?;
                    postings += decode_posting(posting, footer.series)?.len();
                }
            }
        }
    }
    Some(postings)
}
