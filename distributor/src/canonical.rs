//! From label pairs as a client sent them to the canonical encoding, once per new label set.
//!
//! Everything that is checked about labels is checked here. Labels with an empty value are left out and pairs are put
//! in order, as Prometheus does; names that are missing, empty or double are refused.

use sextant_model::METRIC_NAME;
use sextant_proto::TenantLimits;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::wire::{put_varint, varint};

/// Series names in error messages are cut after this many bytes.
const SHOWN_BYTES_MAX: usize = 512;

/// Pairs as they were sent.
pub(crate) type Pairs<'a> = Vec<(&'a [u8], &'a [u8])>;

/// Why a label set is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LabelRefusal {
    NoMetricName,
    EmptyName,
    NotUtf8,
    Duplicate(String),
    TooMany { count: usize, limit: usize },
    NameTooLong { name: String, size: usize, limit: usize },
    ValueTooLong { name: String, size: usize, limit: usize },
}

impl LabelRefusal {
    /// The sentence for the sender; `series` is the label set as text.
    pub(crate) fn reason(&self, series: &str) -> String {
        let limit_text = |key: &str, limit: usize, by: String| {
            format!("limit {key} ({limit}) exceeded by {by}; raise it with limits key {key}; series {series}")
        };
        match self {
            Self::NoMetricName => {
                format!("invalid metric name or labels, got {series}: no metric name (label __name__)")
            }
            Self::EmptyName => {
                format!("invalid metric name or labels, got {series}: a label name is empty")
            }
            Self::NotUtf8 => {
                format!("invalid metric name or labels, got {series}: a name or value is not UTF-8")
            }
            Self::Duplicate(name) => {
                format!("invalid labels for series, labels {series}, duplicated label {name}")
            }
            Self::TooMany { count, limit } => {
                limit_text("max_label_names_per_series", *limit, format!("{count} labels"))
            }
            Self::NameTooLong { name, size, limit } => {
                limit_text("max_label_name_length", *limit, format!("label name {name:?} ({size} bytes)"))
            }
            Self::ValueTooLong { name, size, limit } => {
                limit_text("max_label_value_length", *limit, format!("label {name:?} ({size} bytes)"))
            }
        }
    }
}

/// Checks and sorts pairs and appends their canonical encoding.
pub(crate) fn canonicalise(
    pairs: &mut Pairs<'_>,
    limits: &TenantLimits,
    out: &mut Vec<u8>,
) -> Result<(), LabelRefusal> {
    if !pairs.is_sorted_by(|a, b| a.0 < b.0) {
        pairs.sort();
    }
    let text = |b: &[u8]| shortened(&String::from_utf8_lossy(b)).into_owned();
    if let Some(pair) = pairs.windows(2).find(|p| p[0].0 == p[1].0) {
        return Err(LabelRefusal::Duplicate(text(pair[0].0)));
    }
    let over = |size: usize, limit: usize| limit > 0 && size > limit;
    let (mut count, mut named) = (0, false);
    for &(name, value) in pairs.iter() {
        if name.is_empty() {
            return Err(LabelRefusal::EmptyName);
        }
        if std::str::from_utf8(name).is_err() || std::str::from_utf8(value).is_err() {
            return Err(LabelRefusal::NotUtf8);
        }
        if value.is_empty() {
            continue;
        }
        if over(name.len(), limits.max_label_name_length) {
            let (size, limit) = (name.len(), limits.max_label_name_length);
            return Err(LabelRefusal::NameTooLong { name: text(name), size, limit });
        }
        if over(value.len(), limits.max_label_value_length) {
            let (size, limit) = (value.len(), limits.max_label_value_length);
            return Err(LabelRefusal::ValueTooLong { name: text(name), size, limit });
        }
        named |= name == METRIC_NAME.as_bytes();
        count += 1;
    }
    if !named {
        return Err(LabelRefusal::NoMetricName);
    }
    if over(count, limits.max_label_names_per_series) {
        return Err(LabelRefusal::TooMany { count, limit: limits.max_label_names_per_series });
    }
    for &(name, value) in pairs.iter().filter(|(_, value)| !value.is_empty()) {
        put_text(out, name);
        put_text(out, value);
    }
    Ok(())
}

/// Appends a length and bytes, as the canonical encoding has them.
pub(crate) fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    put_varint(out, text.len() as u64);
    out.extend_from_slice(text);
}

/// The pairs of canonical bytes; it ends early at bytes that are not.
pub(crate) fn pairs_of(canonical: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = canonical;
    let mut take = move || {
        let (n, len) = varint(rest).ok()?;
        let (text, tail) = rest.get(len..)?.split_at_checked(usize::try_from(n).ok()?)?;
        rest = tail;
        Some(text)
    };
    std::iter::from_fn(move || Some((take()?, take()?)))
}

/// Pairs as text for error messages, in order, shortened where they are very long.
pub(crate) fn show_pairs(pairs: &Pairs<'_>) -> String {
    let mut sorted = pairs.clone();
    sorted.sort();
    let mut out = String::from("{");
    for (i, (name, value)) in sorted.iter().enumerate() {
        let (name, value) = (String::from_utf8_lossy(name), String::from_utf8_lossy(value));
        out.push_str(if i > 0 { ", " } else { "" });
        if sextant_model::is_valid_label_name(&name) {
            out.push_str(&format!("{name}={value:?}"));
        } else {
            out.push_str(&format!("{name:?}={value:?}"));
        }
        if out.len() > SHOWN_BYTES_MAX {
            break;
        }
    }
    out.push('}');
    shortened(&out).into_owned()
}

fn shortened(text: &str) -> std::borrow::Cow<'_, str> {
    if text.len() <= SHOWN_BYTES_MAX {
        return text.into();
    }
    let end = (0..=SHOWN_BYTES_MAX).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
    format!("{}…", &text[..end]).into()
}

/// A series' place on the ring of shards, from its canonical labels alone: every distributor gets the same.
///
/// Series with the labels `job` and `instance` go where their target goes, so that samples of one scrape share their
/// timestamps in one shard. `split` cuts a target into so many parts by the hash of the metric name. Other series
/// spread by their whole label set.
pub(crate) fn route(tenant: &str, canonical: &[u8], split: u32) -> u32 {
    let (mut job, mut instance, mut metric) = (None, None, &[][..]);
    for (name, value) in pairs_of(canonical) {
        match name {
            b"job" => job = Some(value),
            b"instance" => instance = Some(value),
            _ if name == METRIC_NAME.as_bytes() => metric = value,
            _ => {}
        }
    }
    let mut hash = Xxh3::new();
    hash.update(tenant.as_bytes());
    if let (Some(job), Some(instance)) = (job, instance) {
        hash.update(&[0xff]);
        hash.update(job);
        hash.update(&[0xff]);
        hash.update(instance);
        if split > 1 {
            hash.update(&(xxh3_64(metric) % u64::from(split)).to_le_bytes());
        }
    } else {
        hash.update(&[0xfe]);
        hash.update(canonical);
    }
    (hash.digest() >> 32) as u32
}

/// The shard at a place on the ring.
#[inline]
pub(crate) fn shard_at(route: u32, shard_count: u32) -> u32 {
    ((u64::from(route) * u64::from(shard_count)) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use sextant_model::Labels;

    fn check(pairs: &[(&str, &str)], limits: &TenantLimits) -> Result<String, LabelRefusal> {
        let mut pairs: Pairs<'_> = pairs.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect();
        let mut out = Vec::new();
        canonicalise(&mut pairs, limits, &mut out)?;
        Ok(Labels::from_canonical_bytes(&out).unwrap().to_string())
    }

    #[test]
    fn order_and_empty_values_are_put_right() {
        let limits = TenantLimits::default();
        assert_eq!(
            check(&[("b", "2"), ("a", "1"), ("z", ""), ("__name__", "m")], &limits).unwrap(),
            r#"m{a="1", b="2"}"#
        );
    }

    #[test]
    fn bad_labels() {
        let limits = TenantLimits {
            max_label_names_per_series: 3,
            max_label_name_length: 8,
            max_label_value_length: 4,
            ..TenantLimits::default()
        };
        let table: &[(&[(&str, &str)], &str)] = &[
            (&[], "no metric name"),
            (&[("job", "x")], "no metric name"),
            (&[("__name__", "")], "no metric name"),
            (&[("__name__", "m"), ("", "x")], "label name is empty"),
            (&[("__name__", "m"), ("a", "1"), ("a", "1")], "duplicated label a"),
            (
                &[("__name__", "m"), ("a", "12345")],
                "limit max_label_value_length (4) exceeded by label \"a\" (5",
            ),
            (
                &[("__name__", "m"), ("abcdefghi", "1")],
                "limit max_label_name_length (8) exceeded by label name",
            ),
            (
                &[("__name__", "m"), ("a", "1"), ("b", "1"), ("c", "1")],
                "limit max_label_names_per_series (3)",
            ),
        ];
        for (pairs, expected) in table {
            let reason = check(pairs, &limits).unwrap_err().reason("{…}");
            assert!(reason.contains(expected), "{pairs:?}: {reason}");
        }
        let mut not_text: Pairs<'_> = vec![(b"__name__", b"m"), (b"a", b"\xff")];
        assert_eq!(canonicalise(&mut not_text, &limits, &mut Vec::new()), Err(LabelRefusal::NotUtf8));
    }

    #[test]
    fn a_target_stays_together_and_a_split_parts_it() {
        let of = |name: &str, instance: &str| {
            Labels::from_pairs([("__name__", name), ("job", "j"), ("instance", instance)]).unwrap()
        };
        let a = of("a", "1");
        let all: Vec<u32> = (0..64).map(|i| route("t", of(&format!("m{i}"), "1").as_bytes(), 1)).collect();
        assert!(all.iter().all(|r| *r == route("t", a.as_bytes(), 1)));
        assert_ne!(route("t", a.as_bytes(), 1), route("t", of("a", "2").as_bytes(), 1));
        assert_ne!(route("t", a.as_bytes(), 1), route("u", a.as_bytes(), 1));
        let split: std::collections::BTreeSet<u32> =
            (0..64).map(|i| route("t", of(&format!("m{i}"), "1").as_bytes(), 4)).collect();
        assert_eq!(split.len(), 4);
    }
}
