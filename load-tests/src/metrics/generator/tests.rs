//! The stream is the same for the same seed, and holds what its description says.

use std::collections::{BTreeMap, HashSet};

use super::{
    series::{Target, names},
    *,
};

fn shape() -> Shape {
    Shape {
        series: 2000,
        scrapes: 8,
        batch: 300,
        connections: 3,
        churn_percent: 50,
        native_per_thousand: 10,
        seed: 1,
        start_ms: 1_700_000_000_000,
    }
}

#[derive(Default)]
struct Kept {
    requests: Vec<(usize, Vec<u8>)>,
    scrapes: Vec<usize>,
}

impl Sink for Kept {
    fn request(&mut self, connection: usize, body: Vec<u8>) -> Result<()> {
        self.requests.push((connection, body));
        Ok(())
    }

    fn scraped(&mut self, scrapes: usize) -> Result<()> {
        self.scrapes.push(scrapes);
        Ok(())
    }
}

fn kept(shape: &Shape, natives: Natives) -> (Kept, Totals) {
    let mut kept = Kept::default();
    let totals = generate(shape, natives, &mut kept).unwrap();
    (kept, totals)
}

/// A message's fields: number and bytes; a varint is its value in little-endian.
fn fields(mut b: &[u8]) -> Vec<(u64, Vec<u8>)> {
    fn varint(b: &mut &[u8]) -> u64 {
        let mut n = 0;
        for shift in (0..).step_by(7) {
            let byte = b[0];
            *b = &b[1..];
            n |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        n
    }
    let mut out = Vec::new();
    while !b.is_empty() {
        let key = varint(&mut b);
        let value = match key & 7 {
            0 => varint(&mut b).to_le_bytes().to_vec(),
            1 => b.split_off(..8).unwrap().to_vec(),
            2 => {
                let n = varint(&mut b) as usize;
                b.split_off(..n).unwrap().to_vec()
            }
            other => panic!("wire type {other}"),
        };
        out.push((key >> 3, value));
    }
    out
}

fn labels_of(series: &[u8]) -> BTreeMap<String, String> {
    let pairs = fields(series).into_iter().filter(|(f, _)| *f == 1).map(|(_, pair)| {
        let mut strings = fields(&pair).into_iter().map(|(_, s)| String::from_utf8(s).unwrap());
        (strings.next().unwrap(), strings.next().unwrap_or_default())
    });
    pairs.collect()
}

/// Each series of the stream by its labels' bytes, with its samples' bytes in order.
fn by_series(kept: &Kept) -> BTreeMap<Vec<u8>, Vec<Vec<u8>>> {
    let mut out: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (_, body) in &kept.requests {
        let raw = snap::raw::Decoder::new().decompress_vec(body).unwrap();
        for (field, series) in fields(&raw) {
            assert_eq!(field, 1);
            let (labels, samples): (Vec<_>, Vec<_>) = fields(&series).into_iter().partition(|(f, _)| *f == 1);
            assert_eq!(samples.len(), 1);
            let mut sample = vec![samples[0].0 as u8];
            sample.extend_from_slice(&samples[0].1);
            out.entry(labels.into_iter().flat_map(|(_, b)| b).collect()).or_default().push(sample);
        }
    }
    out
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_seed_others() {
    let (one, totals) = kept(&shape(), Natives::Sent);
    let (two, again) = kept(&shape(), Natives::Sent);
    assert_eq!(totals, again);
    assert!(one.requests == two.requests);
    let (other, _) = kept(&Shape { seed: 2, ..shape() }, Natives::Sent);
    assert!(one.requests != other.requests);
    assert_eq!(one.scrapes, (1..=8).collect::<Vec<_>>());
}

#[test]
fn totals_are_what_the_stream_holds() {
    let (kept, totals) = kept(&shape(), Natives::Sent);
    let series = by_series(&kept);
    let count = |field: u8| series.values().flatten().filter(|s| s[0] == field).count() as u64;
    // Half of four targets is replaced half way.
    assert_eq!((totals.samples, totals.series), (2000 * 8, 3000));
    assert_eq!(
        (series.len() as u64, count(2), count(4)),
        (3000, totals.samples - totals.natives, totals.natives)
    );
    assert_eq!(totals.natives, 2000 * 8 / 100);
    assert_eq!(totals.requests, kept.requests.len() as u64);
    assert_eq!(totals.bytes, kept.requests.iter().map(|(_, b)| b.len() as u64).sum::<u64>());
}

#[test]
fn floats_are_the_same_without_native_histograms() {
    let (with, totals) = kept(&shape(), Natives::Sent);
    let (without, fewer) = kept(&shape(), Natives::LeftOut);
    let mut with = by_series(&with);
    with.retain(|_, samples| samples[0][0] == 2);
    assert!(with == by_series(&without));
    assert_eq!((fewer.samples, fewer.natives), (totals.samples - totals.natives, 0));
    assert_eq!(fewer.series, 3000 - 30);
}

#[test]
fn a_connection_keeps_its_series_and_their_order() {
    let (kept, _) = kept(&shape(), Natives::Sent);
    let mut connection_of = BTreeMap::new();
    let mut last = BTreeMap::new();
    for (connection, body) in &kept.requests {
        let raw = snap::raw::Decoder::new().decompress_vec(body).unwrap();
        for (_, series) in fields(&raw) {
            let labels = labels_of(&series);
            assert_eq!(connection_of.entry(labels.clone()).or_insert(*connection), connection);
            let (field, sample) = fields(&series).pop().unwrap();
            let t =
                fields(&sample).into_iter().find(|(f, _)| *f == if field == 2 { 2 } else { 15 }).unwrap().1;
            let t = i64::from_le_bytes(t.try_into().unwrap());
            let before = last.insert(labels, t).unwrap_or(0);
            assert!(t > before, "{t} after {before}");
        }
    }
    assert_eq!(connection_of.values().collect::<HashSet<_>>().len(), 3);
}

#[test]
fn classic_histograms_are_cumulative() {
    let mut target = Target::new(&shape(), 0, 0);
    let mut random = Random(5);
    for _ in 0..20 {
        target.step(&mut random);
    }
    let mut histograms: BTreeMap<String, Vec<(String, f64)>> = BTreeMap::new();
    for s in &target.series {
        let labels = labels_of(&s.labels);
        if let (true, Value::Float(v)) =
            (labels["__name__"].starts_with("http_request_duration_seconds_"), s.value())
        {
            let part = labels.get("le").unwrap_or(&labels["__name__"]).clone();
            histograms.entry(labels["handler"].clone()).or_default().push((part, v));
        }
    }
    assert_eq!(histograms.len(), 6);
    for parts in histograms.values() {
        assert_eq!(parts.len(), 12);
        assert!(parts[..10].is_sorted_by(|a, b| a.1 < b.1), "{parts:?}");
        assert_eq!((parts[9].0.as_str(), parts[9].1), ("+Inf", parts[11].1));
    }
}

#[test]
fn labels_without_the_name_tell_counters_apart() {
    let target = Target::new(&shape(), 3, 0);
    let mut seen = HashSet::new();
    for s in &target.series {
        let mut labels = labels_of(&s.labels);
        let name = labels.remove("__name__").unwrap();
        assert!(!name.ends_with("_total") || seen.insert(labels.clone()), "{name} {labels:?}");
    }
    assert_eq!(seen.len(), 225);
}

#[test]
fn series_have_between_11_and_15_labels_and_every_name_of_the_list() {
    let targets: Vec<Target> = (0..30).map(|i| Target::new(&shape(), i, 0)).collect();
    let mut seen = HashSet::new();
    let (mut least, mut most) = (usize::MAX, 0);
    for s in targets.iter().flat_map(|t| &t.series) {
        let mut labels = labels_of(&s.labels);
        (least, most) = (least.min(labels.len()), most.max(labels.len()));
        seen.extend(labels.remove("__name__"));
    }
    assert_eq!((least, most), (11, 15));
    for name in names::all() {
        assert!(seen.contains(&name), "{name}");
    }
}

/// The series of a shape's first scrape, to ask which a query reads.
pub(in crate::metrics) struct Catalogue {
    names: Vec<String>,
    series: Vec<BTreeMap<String, String>>,
}

impl Catalogue {
    pub(in crate::metrics) fn new(shape: &Shape) -> Self {
        let targets = (0..shape.series.div_ceil(SERIES_PER_TARGET)).map(|i| Target::new(shape, i, 0));
        let series = targets.flat_map(|t| t.series).map(|s| labels_of(&s.labels)).collect();
        Self { names: names::all(), series }
    }

    /// Each selector of an expression (a known name, matchers or both) and how many series it selects.
    pub(in crate::metrics) fn selected_by(&self, expr: &str) -> Vec<(String, usize)> {
        let names = self.names.join("|");
        let selector = regex::Regex::new(&format!(r#"\b({names})\b(\{{[^}}]*\}})?|(\{{[^}}]*\}})"#)).unwrap();
        let matcher = regex::Regex::new(r#"(\w+)(=~|!~|!=|=)"([^"]*)""#).unwrap();
        selector
            .captures_iter(expr)
            .map(|c| {
                let mut conditions: Vec<(String, bool, regex::Regex)> = Vec::new();
                if let Some(name) = c.get(1) {
                    let pattern = format!("^{}$", name.as_str());
                    conditions.push(("__name__".to_owned(), true, regex::Regex::new(&pattern).unwrap()));
                }
                let matchers = c.get(2).or(c.get(3)).map_or("", |m| m.as_str());
                for m in matcher.captures_iter(matchers) {
                    let value = if m[2].ends_with('~') {
                        format!("^(?:{})$", &m[3])
                    } else {
                        format!("^{}$", regex::escape(&m[3]))
                    };
                    let positive = !m[2].starts_with('!');
                    conditions.push((m[1].to_owned(), positive, regex::Regex::new(&value).unwrap()));
                }
                let n = self.series.iter().filter(|labels| {
                    conditions.iter().all(|(name, positive, value)| {
                        value.is_match(labels.get(name).map_or("", String::as_str)) == *positive
                    })
                });
                (c[0].to_owned(), n.count())
            })
            .collect()
    }
}
