//! Label sets in one canonical encoding: a label set is its bytes.
//!
//! Encoding: for each label, in order of name: varint length of the name, the name, varint length of the value, the
//! value. Names are unique, no value is empty. Equal sets have equal bytes, so identity is a comparison of bytes.

use std::{cmp::Ordering, fmt};

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_128;

/// The label that holds the metric name.
pub const METRIC_NAME: &str = "__name__";

/// 128-bit hash (XXH3) of the canonical label bytes: a series' identity within a tenant.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct SeriesId(pub u128);

/// An immutable canonical label set; cloning is cheap. Its bytes may be a slice of a larger piece of memory, which lives as
/// long as one of its sets does.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Labels(Bytes);

/// Why bytes or pairs are not a label set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// Two labels have one name.
    #[error("duplicate label name {0:?}")]
    Duplicate(String),
    /// A label's name is empty.
    #[error("empty label name (value {0:?})")]
    EmptyName(String),
    /// The bytes are cut, not UTF-8, not in order, or hold an empty value.
    #[error("malformed label bytes: {0}")]
    Malformed(&'static str),
}

impl Labels {
    /// The empty set.
    pub fn empty() -> Self {
        Self(Bytes::new())
    }

    /// A set of the given pairs. Labels with an empty value are left out, as Prometheus does; a name that occurs
    /// twice or is empty is an error.
    pub fn from_pairs<N: AsRef<str>, V: AsRef<str>>(
        pairs: impl IntoIterator<Item = (N, V)>,
    ) -> Result<Self, LabelError> {
        let mut builder = LabelsBuilder::default();
        let mut seen: Vec<(String, String)> =
            pairs.into_iter().map(|(n, v)| (n.as_ref().to_owned(), v.as_ref().to_owned())).collect();
        seen.sort();
        for pair in seen.windows(2) {
            if pair[0].0 == pair[1].0 {
                return Err(LabelError::Duplicate(pair[0].0.clone()));
            }
        }
        for (name, value) in seen {
            if name.is_empty() {
                return Err(LabelError::EmptyName(value));
            }
            builder.set(&name, &value);
        }
        Ok(builder.build())
    }

    /// Takes bytes in the canonical encoding, after checking every rule of it.
    pub fn from_canonical_bytes(bytes: &[u8]) -> Result<Self, LabelError> {
        check(bytes)?;
        Ok(Self(Bytes::copy_from_slice(bytes)))
    }

    /// The same without a copy.
    pub fn from_canonical(bytes: Bytes) -> Result<Self, LabelError> {
        check(&bytes)?;
        Ok(Self(bytes))
    }

    /// Takes bytes that this crate encoded before (head arenas, cached blocks), without checking them again. Bytes
    /// that are not canonical give wrong answers later, never undefined behaviour.
    pub fn from_trusted_bytes(bytes: &[u8]) -> Self {
        Self(Bytes::copy_from_slice(bytes))
    }

    /// The same without a copy.
    pub fn from_trusted(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// The canonical encoding.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The series' identity within its tenant.
    pub fn series_id(&self) -> SeriesId {
        SeriesId(xxh3_128(&self.0))
    }

    /// The labels in order of name.
    pub fn iter(&self) -> LabelIter<'_> {
        LabelIter(&self.0)
    }

    /// The value of a label, or `None` where the set does not have it.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(n, _)| *n == name).map(|(_, v)| v)
    }

    /// The value of `__name__`, or `""`.
    pub fn metric_name(&self) -> &str {
        self.get(METRIC_NAME).unwrap_or("")
    }

    /// How many labels the set has.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether the set has no label.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The labels whose name `keep` accepts.
    pub fn filter(&self, mut keep: impl FnMut(&str) -> bool) -> Self {
        let mut out = Vec::with_capacity(self.0.len());
        for (n, v) in self.iter() {
            if keep(n) {
                put(&mut out, n, v);
            }
        }
        Self(out.into())
    }

    /// A builder that starts from this set.
    pub fn to_builder(&self) -> LabelsBuilder {
        LabelsBuilder { pairs: self.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect() }
    }
}

/// Checks every rule of the canonical encoding.
fn check(bytes: &[u8]) -> Result<(), LabelError> {
    let mut rest = bytes;
    let mut last: Option<&str> = None;
    while !rest.is_empty() {
        let name = take(&mut rest)?;
        let value = take(&mut rest)?;
        if name.is_empty() {
            return Err(LabelError::EmptyName(value.to_owned()));
        }
        if value.is_empty() {
            return Err(LabelError::Malformed("empty value"));
        }
        match last.map(|l| l.cmp(name)) {
            Some(Ordering::Equal) => return Err(LabelError::Duplicate(name.to_owned())),
            Some(Ordering::Greater) => return Err(LabelError::Malformed("names out of order")),
            _ => last = Some(name),
        }
    }
    Ok(())
}

impl Ord for Labels {
    /// Prometheus' order: pair by pair, name then value; a prefix comes first.
    fn cmp(&self, other: &Self) -> Ordering {
        self.iter().cmp(other.iter())
    }
}

impl PartialOrd for Labels {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Default for Labels {
    fn default() -> Self {
        Self::empty()
    }
}

/// [`Labels::pairs`].
struct Pairs<'a>(&'a Labels);

impl fmt::Display for Pairs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, (n, v)) in self.0.iter().enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            if crate::matcher::is_valid_label_name(n) {
                write!(f, "{comma}{n}={v:?}")?
            } else {
                write!(f, "{comma}{n:?}={v:?}")?
            }
        }
        f.write_str("}")
    }
}

impl Labels {
    /// The text form that Prometheus' error texts have, `{__name__="name", a="b"}`.
    pub fn pairs(&self) -> impl fmt::Display {
        Pairs(self)
    }
}

impl fmt::Display for Labels {
    /// Prometheus' text form, `name{a="b"}`, quoted where a name is not a legacy name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.metric_name();
        let quoted_name = !name.is_empty() && !crate::matcher::is_valid_legacy_metric_name(name);
        if !quoted_name {
            f.write_str(name)?;
        }
        if !quoted_name && !name.is_empty() && self.len() == 1 {
            return Ok(());
        }
        f.write_str("{")?;
        let mut first = true;
        if quoted_name {
            write!(f, "{name:?}")?;
            first = false;
        }
        for (n, v) in self.iter().filter(|(n, _)| *n != METRIC_NAME) {
            if !first {
                f.write_str(", ")?;
            }
            first = false;
            if crate::matcher::is_valid_label_name(n) {
                write!(f, "{n}={v:?}")?
            } else {
                write!(f, "{n:?}={v:?}")?
            }
        }
        f.write_str("}")
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl<'a> IntoIterator for &'a Labels {
    type Item = (&'a str, &'a str);
    type IntoIter = LabelIter<'a>;

    fn into_iter(self) -> LabelIter<'a> {
        self.iter()
    }
}

/// Iterates over canonical label bytes.
#[derive(Clone)]
pub struct LabelIter<'a>(&'a [u8]);

impl<'a> LabelIter<'a> {
    /// Iterates over bytes in the canonical encoding, which are trusted; it ends early at bytes that are not.
    pub fn over(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
}

impl<'a> Iterator for LabelIter<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let name = take(&mut self.0).ok()?;
        let value = take(&mut self.0).ok()?;
        Some((name, value))
    }
}

/// Builds a label set; setting an empty value removes the label.
#[derive(Default, Clone, Debug)]
pub struct LabelsBuilder {
    /// Sorted by name, unique, no empty value.
    pairs: Vec<(String, String)>,
}

impl LabelsBuilder {
    /// Sets a label, in place of one with the same name; an empty value removes it.
    pub fn set(&mut self, name: &str, value: &str) -> &mut Self {
        match self.pairs.binary_search_by(|(n, _)| n.as_str().cmp(name)) {
            Ok(i) if value.is_empty() => drop(self.pairs.remove(i)),
            Ok(i) => self.pairs[i].1 = value.to_owned(),
            Err(_) if value.is_empty() => {}
            Err(i) => self.pairs.insert(i, (name.to_owned(), value.to_owned())),
        }
        self
    }

    /// Removes a label.
    pub fn remove(&mut self, name: &str) -> &mut Self {
        self.set(name, "")
    }

    /// The value set for a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs.binary_search_by(|(n, _)| n.as_str().cmp(name)).ok().map(|i| self.pairs[i].1.as_str())
    }

    /// The labels set so far, in order of name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(n, v)| (n.as_str(), v.as_str()))
    }

    /// The canonical set.
    pub fn build(&self) -> Labels {
        let mut out = Vec::with_capacity(self.pairs.iter().map(|(n, v)| n.len() + v.len() + 4).sum());
        for (n, v) in &self.pairs {
            put(&mut out, n, v);
        }
        Labels(out.into())
    }
}

/// Appends one label in the canonical encoding; the caller keeps names in order and unique and values non-empty.
pub(crate) fn put(out: &mut Vec<u8>, name: &str, value: &str) {
    put_len(out, name.len());
    out.extend_from_slice(name.as_bytes());
    put_len(out, value.len());
    out.extend_from_slice(value.as_bytes());
}

fn put_len(out: &mut Vec<u8>, mut n: usize) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn take<'a>(rest: &mut &'a [u8]) -> Result<&'a str, LabelError> {
    let mut n = 0usize;
    let mut shift = 0;
    loop {
        let (&b, tail) = rest.split_first().ok_or(LabelError::Malformed("cut length"))?;
        *rest = tail;
        if shift > 28 {
            return Err(LabelError::Malformed("length too large"));
        }
        n |= ((b & 0x7f) as usize) << shift;
        if b == 0 && shift > 0 {
            // The same set must not have two encodings, or it would be two series.
            return Err(LabelError::Malformed("length longer than it need be"));
        }
        if b < 0x80 {
            break;
        }
        shift += 7;
    }
    if n > rest.len() {
        return Err(LabelError::Malformed("cut text"));
    }
    let (text, tail) = rest.split_at(n);
    *rest = tail;
    std::str::from_utf8(text).map_err(|_| LabelError::Malformed("text is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_not_canonical_are_refused() {
        let table: [(&[u8], &str); 9] = [
            (b"\x01", "cut text"),
            (b"\x01a", "cut length"),
            (b"\x01a\x02b", "cut text"),
            (b"\x80\x80\x80\x80\x80\x01", "length too large"),
            (b"\x81\x00a\x01b", "length longer than it need be"),
            (b"\x01a\x81\x80\x00b", "length longer than it need be"),
            (b"\x01a\x00", "empty value"),
            (b"\x01b\x01x\x01a\x01x", "names out of order"),
            (b"\x01a\x01\xff", "text is not UTF-8"),
        ];
        for (bytes, reason) in table {
            let e = Labels::from_canonical_bytes(bytes).unwrap_err();
            assert!(matches!(e, LabelError::Malformed(r) if r == reason), "{bytes:?}: {e}");
        }
        let e = Labels::from_canonical_bytes(b"\x01a\x01x\x01a\x01y").unwrap_err();
        assert!(matches!(e, LabelError::Duplicate(_)), "{e}");
        let e = Labels::from_canonical_bytes(b"\x00\x01x").unwrap_err();
        assert!(matches!(e, LabelError::EmptyName(_)), "{e}");
    }

    #[test]
    fn order_of_pairs_does_not_matter_and_empty_values_go() {
        let a = Labels::from_pairs([("b", "2"), ("__name__", "m"), ("a", "1"), ("z", "")]).unwrap();
        let b = Labels::from_pairs([("a", "1"), ("b", "2"), ("__name__", "m")]).unwrap();
        assert_eq!(a, b);
        assert_eq!(a.series_id(), b.series_id());
        assert_eq!(a.to_string(), r#"m{a="1", b="2"}"#);
        assert_eq!(Labels::from_canonical_bytes(a.as_bytes()).unwrap(), a);
        assert_eq!(a.filter(|n| n != "a").to_string(), r#"m{b="2"}"#);
    }

    #[test]
    fn bad_sets_are_refused() {
        assert!(matches!(Labels::from_pairs([("a", "1"), ("a", "2")]), Err(LabelError::Duplicate(_))));
        assert!(matches!(Labels::from_pairs([("", "1")]), Err(LabelError::EmptyName(_))));
        for bad in [
            &b"\x01"[..],
            b"\x01a\x05b",
            b"\x01b\x01x\x01a\x01x",
            b"\x01a\x00",
            b"\x01a\x01\xff",
            b"\xff\xff\xff\xff\xff\xff",
        ] {
            assert!(Labels::from_canonical_bytes(bad).is_err(), "{bad:?}");
        }
    }
}
