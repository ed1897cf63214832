//! Series for tests, and the naive answers to compare with.

use std::{collections::BTreeMap, sync::Arc};

use object_store::ObjectStore;
use rand::{Rng, SeedableRng, rngs::StdRng};
use sextant_model::{
    Exemplar, Histogram, HistogramSample, Labels, Matcher, MetricMetadata, MetricType, ResetHint, SeriesBuf,
    SeriesSet, Span, TenantId, stale_nan,
};
use sextant_storage::{
    BlockCache, BlockOptions, BlockReader, SeriesSource, StoreOptions, open_store, series_order,
    upload_block, write_block,
};

/// Series in memory.
#[derive(Default, Clone)]
pub struct Series {
    pub rows: Vec<Row>,
    pub families: Vec<(String, MetricMetadata)>,
}

#[derive(Clone)]
pub struct Row {
    pub labels: Labels,
    pub key: Option<u64>,
    pub buf: SeriesBuf,
    pub exemplars: Vec<Exemplar>,
    pub metadata: Option<MetricMetadata>,
}

impl SeriesSource for Series {
    fn len(&self) -> usize {
        self.rows.len()
    }
    fn labels(&self, i: usize) -> Labels {
        self.rows[i].labels.clone()
    }
    fn time_key(&self, i: usize) -> Option<u64> {
        self.rows[i].key
    }
    fn read(&self, i: usize, buf: &mut SeriesBuf) {
        let b = &self.rows[i].buf;
        buf.t.extend(&b.t);
        buf.v.extend(&b.v);
        buf.start.extend(&b.start);
        buf.h.extend(b.h.iter().cloned());
    }
    fn exemplars(&self, i: usize) -> Vec<Exemplar> {
        self.rows[i].exemplars.clone()
    }
    fn metadata(&self, i: usize) -> Option<MetricMetadata> {
        self.rows[i].metadata.clone()
    }
    fn families(&self) -> Vec<(String, MetricMetadata)> {
        self.families.clone()
    }
}

impl Series {
    pub fn sorted(mut self) -> Self {
        self.rows.sort_by(|a, b| series_order(&a.labels, &b.labels));
        self
    }

    /// What a reader must return.
    pub fn select(&self, matchers: &[Matcher], start: i64, end: i64) -> SeriesSet {
        let mut found: Vec<(Labels, SeriesBuf)> = Vec::new();
        for r in &self.rows {
            if !matchers.iter().all(|m| m.matches(r.labels.get(&m.name).unwrap_or(""))) {
                continue;
            }
            let mut b = SeriesBuf::default();
            for (k, &t) in r.buf.t.iter().enumerate().filter(|(_, t)| (start..=end).contains(*t)) {
                b.t.push(t);
                b.v.push(r.buf.v[k]);
                if !r.buf.start.is_empty() {
                    b.start.push(r.buf.start[k]);
                }
            }
            b.h.extend(r.buf.h.iter().filter(|h| (start..=end).contains(&h.t)).cloned());
            if let Some(first) = b.h.first_mut().filter(|_| start > i64::MIN) {
                let before = r.buf.h.iter().rev().find(|h| h.t < start);
                first.h.reset_hint = first.h.hint_after(before.map(|b| &b.h));
            }
            if !b.is_empty() {
                found.push((r.labels.clone(), b));
            }
        }
        found.sort_by(|a, b| a.0.cmp(&b.0));
        let mut set = SeriesSet::new();
        for (labels, b) in &found {
            set.push(labels.clone(), b);
        }
        set
    }
}

/// A set in a form that compares bits and forgives the ways to say "no start timestamp".
pub type Plain = BTreeMap<String, (Vec<(i64, u64, i64)>, Vec<String>)>;

pub fn plain(set: &SeriesSet) -> Plain {
    assert!(set.labels.is_sorted(), "series are in order");
    assert_eq!(set.offsets.len(), set.len() + 1);
    let mut out = Plain::new();
    for i in 0..set.len() {
        let (t, v) = set.floats(i);
        let starts = set.starts(i);
        let floats = t
            .iter()
            .zip(v)
            .enumerate()
            .map(|(k, (&t, v))| (t, v.to_bits(), starts.get(k).copied().unwrap_or(0)))
            .collect();
        let histograms = set.histograms(i).iter().map(histogram_bits).collect();
        assert!(out.insert(set.labels[i].to_string(), (floats, histograms)).is_none(), "series are unique");
    }
    out
}

fn histogram_bits(s: &HistogramSample) -> String {
    let bits = |v: &[f64]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    let h = &s.h;
    format!(
        "{} {} {:?} {} {} {:?} {:?} {:?} {:?} {:?} {:?}",
        s.t,
        s.start,
        h.reset_hint,
        h.schema,
        h.integer,
        bits(&[h.zero_threshold, h.zero_count, h.count, h.sum]),
        h.positive_spans,
        bits(&h.positive_buckets),
        h.negative_spans,
        bits(&h.negative_buckets),
        bits(&h.custom_values)
    )
}

/// Series of every awkward kind.
pub fn hard_set(seed: u64, count: usize, samples: usize) -> Series {
    let mut rng = StdRng::seed_from_u64(seed);
    let names = ["up", "http_requests_total", "cpu_seconds", "x", "container_memory", "weird name"];
    let mut rows: BTreeMap<Vec<u8>, Row> = BTreeMap::new();
    let base = 1_700_000_000_000i64;
    let grids: Vec<Vec<i64>> = (0..5)
        .map(|g| {
            (0..samples as i64).map(|i| base + g * 1_237 + i * 15_000 + rng.random_range(0..6)).collect()
        })
        .collect();
    for i in 0..count {
        let mut pairs = vec![];
        if i % 17 != 0 {
            pairs.push(("__name__".to_owned(), names[rng.random_range(0..names.len())].to_owned()));
        }
        pairs.push(("pod".to_owned(), format!("pod-{}", rng.random_range(0..(count / 3 + 1)))));
        if rng.random_bool(0.7) {
            pairs.push(("job".to_owned(), format!("job{}", rng.random_range(0..3))));
        }
        if rng.random_bool(0.1) {
            pairs.push((format!("rare{}", rng.random_range(0..20)), "é\"\n".repeat(rng.random_range(1..4))));
        }
        if rng.random_bool(0.1) {
            pairs.push(("Zone".to_owned(), format!("z{}", rng.random_range(0..2))));
        }
        if rng.random_bool(0.05) {
            pairs.push(("POD".to_owned(), "upper".to_owned()));
        }
        pairs.push(("i".to_owned(), i.to_string()));
        let labels = Labels::from_pairs(pairs).unwrap();
        let g = rng.random_range(0..grids.len());
        let (key, t) = match rng.random_range(0..10) {
            0 => (None, irregular(&mut rng, base, samples)),
            1 => (Some(g as u64), grids[g].iter().copied().filter(|_| rng.random_bool(0.8)).collect()),
            2 => {
                let from = rng.random_range(0..samples);
                (Some(g as u64), grids[g][from..].to_vec())
            }
            3 => (Some(g as u64), grids[g][..rng.random_range(0..3).min(samples)].to_vec()),
            4 => (None, grids[g].clone()),
            5 => (Some(g as u64), irregular(&mut rng, base, samples)),
            _ => (Some(g as u64), grids[g].clone()),
        };
        let v = values(&mut rng, i, t.len());
        let start = match i % 9 {
            0 => t.iter().map(|t| t - t.rem_euclid(100_000)).collect(),
            1 => t.iter().enumerate().map(|(k, _)| if k < 3 { 0 } else { base }).collect(),
            _ => Vec::new(),
        };
        let mut buf = SeriesBuf { t, v, start, h: Vec::new() };
        if i % 11 == 3 {
            let keep: Vec<bool> = buf.t.iter().map(|_| rng.random_bool(0.3)).collect();
            let mut float = SeriesBuf::default();
            for (k, keep) in keep.into_iter().enumerate() {
                if keep {
                    float.t.push(buf.t[k]);
                    float.v.push(buf.v[k]);
                } else {
                    buf.h.push(HistogramSample { t: buf.t[k], start: buf.t[k] % 3, h: histogram(&mut rng) });
                }
            }
            float.h = buf.h;
            buf = float;
        }
        let exemplars = (0..rng.random_range(0..3) * usize::from(i % 5 == 0))
            .map(|k| Exemplar {
                t: base + k as i64 * 1000,
                v: rng.random(),
                labels: Labels::from_pairs([("trace_id", format!("{:x}", rng.random::<u64>()))]).unwrap(),
            })
            .collect();
        let metadata = (i % 3 == 0).then(|| MetricMetadata {
            metric_type: MetricType::ALL[i % 8],
            help: format!("help {}", i % 4),
            unit: "s".into(),
        });
        rows.insert(labels.as_bytes().to_vec(), Row { labels, key, buf, exemplars, metadata });
    }
    let families = vec![(
        "family_without_series".to_owned(),
        MetricMetadata { metric_type: MetricType::Gauge, help: "h".into(), unit: String::new() },
    )];
    Series { rows: rows.into_values().collect(), families }.sorted()
}

fn irregular(rng: &mut StdRng, base: i64, n: usize) -> Vec<i64> {
    let mut t = base - 1_000_000;
    (0..rng.random_range(1..=n))
        .map(|_| {
            t += match rng.random_range(0..20) {
                0 => 5_000_000_000,
                _ => rng.random_range(1..100_000),
            };
            t
        })
        .collect()
}

fn values(rng: &mut StdRng, i: usize, n: usize) -> Vec<f64> {
    let mut sum = 0.0;
    (0..n)
        .map(|k| match i % 14 {
            0 => 1.0,
            1 => {
                sum += f64::from(rng.random_range(0..100));
                sum
            }
            2 => f64::from(rng.random_range(0..1_000_000)) / 1000.0,
            3 => f64::from_bits(rng.random()),
            4 if k % 5 == 0 => stale_nan(),
            4 => f64::from(rng.random_range(-5..5)),
            5 => {
                sum = if rng.random_bool(0.02) { 0.0 } else { sum + f64::from(rng.random_range(0..9)) };
                sum
            }
            6 => 9_007_199_254_740_992.0 + 2.0 * k as f64,
            7 => (k as f64) * 0.1,
            8 if k % 7 == 3 => [-0.0, f64::INFINITY, f64::NAN, f64::from_bits(0x7ff8_dead_beef_0001)][k % 4],
            8 => k as f64,
            9 => rng.random::<f64>() * 1e9,
            10 => f64::from(rng.random_range(0..3)) * 4096.0,
            11 => rng.random_range(0..1u64 << 40) as f64,
            12 => f64::NAN,
            _ => f64::MIN_POSITIVE * k as f64,
        })
        .collect()
}

fn histogram(rng: &mut StdRng) -> Histogram {
    let custom = rng.random_bool(0.3);
    let n = rng.random_range(0..6usize);
    Histogram {
        reset_hint: [ResetHint::Unknown, ResetHint::Reset, ResetHint::NoReset, ResetHint::Gauge]
            [rng.random_range(0..4)],
        schema: if custom { -53 } else { rng.random_range(-4..9) },
        integer: rng.random(),
        zero_threshold: 2.938735877055719e-39,
        zero_count: rng.random_range(0..9) as f64,
        count: rng.random(),
        sum: if rng.random_bool(0.1) { stale_nan() } else { rng.random() },
        positive_spans: vec![Span { offset: rng.random_range(-9..9), length: n as u32 }; usize::from(n > 0)],
        positive_buckets: (0..n).map(|_| rng.random_range(0..1000) as f64).collect(),
        negative_spans: vec![Span { offset: -1, length: 2 }; usize::from(!custom)],
        negative_buckets: if custom { vec![] } else { vec![0.5, -0.0] },
        custom_values: if custom { vec![0.1, 1.0, f64::MAX] } else { vec![] },
    }
}

pub fn tenant() -> TenantId {
    TenantId::anonymous()
}

pub fn memory() -> Arc<dyn ObjectStore> {
    open_store("memory://", &StoreOptions::default()).unwrap()
}

pub async fn stored(store: &Arc<dyn ObjectStore>, series: &Series, options: BlockOptions) -> BlockReader {
    let files = write_block(series, options).unwrap().expect("series");
    upload_block(store, &tenant(), &files).await.unwrap();
    BlockReader::open(store.clone(), &tenant(), Arc::new(files.meta), &[], BlockCache::new(16 << 20))
        .await
        .unwrap()
}

/// A store that answers every n-th put with an error after storing it.
#[derive(Debug)]
pub struct LossyStore {
    inner: Arc<dyn ObjectStore>,
    every: u64,
    puts: std::sync::atomic::AtomicU64,
}

impl LossyStore {
    pub fn new(inner: Arc<dyn ObjectStore>, every: u64) -> Self {
        Self { inner, every, puts: Default::default() }
    }
}

impl std::fmt::Display for LossyStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("lossy")
    }
}

#[async_trait::async_trait]
impl ObjectStore for LossyStore {
    async fn put_opts(
        &self,
        location: &object_store::path::Path,
        payload: object_store::PutPayload,
        opts: object_store::PutOptions,
    ) -> object_store::Result<object_store::PutResult> {
        let n = self.puts.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let result = self.inner.put_opts(location, payload, opts).await;
        if n.is_multiple_of(self.every) {
            return Err(object_store::Error::Generic { store: "lossy", source: "the answer is lost".into() });
        }
        result
    }

    async fn put_multipart_opts(
        &self,
        location: &object_store::path::Path,
        opts: object_store::PutMultipartOptions,
    ) -> object_store::Result<Box<dyn object_store::MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(
        &self,
        location: &object_store::path::Path,
        options: object_store::GetOptions,
    ) -> object_store::Result<object_store::GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: futures::stream::BoxStream<'static, object_store::Result<object_store::path::Path>>,
    ) -> futures::stream::BoxStream<'static, object_store::Result<object_store::path::Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(
        &self,
        prefix: Option<&object_store::path::Path>,
    ) -> futures::stream::BoxStream<'static, object_store::Result<object_store::ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(
        &self,
        prefix: Option<&object_store::path::Path>,
    ) -> object_store::Result<object_store::ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(
        &self,
        from: &object_store::path::Path,
        to: &object_store::path::Path,
        options: object_store::CopyOptions,
    ) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
