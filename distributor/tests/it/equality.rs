//! What was sent is what arrived: every item once, bit for bit, in one shard, whatever epochs, connections and spellings
//! do.

use std::collections::BTreeMap;

use prost::Message;
use sextant_distributor::DistributorConfig;
use sextant_model::{Exemplar, HistogramSample, Labels, Sample, TenantId, stale_nan};
use sextant_proto::{
    SeriesWrite, ShardError, Temporality, TenantLimits, WriteRequest, WriteSink,
    remote_write::{Histogram, HistogramCount, HistogramZeroCount, Label, SampleV1},
};

use crate::{
    fake::Stored,
    rng::Rng,
    send::{Bench, Series, Wire, labels, v1, v2, written},
};

fn target_labels(target: u64, n: u64) -> Vec<(String, String)> {
    let (name, instance, n) = (format!("m_{}", n % 7), format!("i{target}"), n.to_string());
    labels(&[("__name__", &name), ("instance", &instance), ("job", "j"), ("n", &n), ("zone", "")])
}

fn text(pairs: &[(String, String)]) -> String {
    let kept = pairs.iter().filter(|(_, v)| !v.is_empty()).map(|(n, v)| (n.as_str(), v.as_str()));
    Labels::from_pairs(kept).unwrap().to_string()
}

/// What must have arrived, in order of nothing.
#[derive(Default)]
struct Sent(BTreeMap<String, Vec<(i64, u64, i64)>>);

impl Sent {
    fn add(&mut self, series: &[Series], has_starts: bool) {
        for s in series {
            let start = |start: i64| if has_starts { start } else { 0 };
            let items = s.samples.iter().map(|&(t, v, of)| (t, v.to_bits(), start(of)));
            self.0.entry(text(&s.labels)).or_default().extend(items);
        }
    }

    fn check(mut self, bench: &Bench) {
        self.0.retain(|_, items| !items.is_empty());
        self.0.values_mut().for_each(|items| items.sort_unstable());
        let mut got: BTreeMap<String, _> =
            bench.fake.stored().into_iter().map(|((_, series), s)| (series, s.samples)).collect();
        got.values_mut().for_each(|items| items.sort_unstable());
        assert_eq!(got.len(), self.0.len(), "number of series");
        for (series, items) in self.0 {
            let differs = got[&series].iter().zip(&items).find(|(got, sent)| got != sent);
            assert_eq!((differs, got[&series].len()), (None, items.len()), "{series}");
        }
    }
}

/// A scrape of some targets, with values whose bits are easily lost.
fn scrape(rng: &mut Rng, t: i64) -> Vec<Series> {
    // No −0: encoders leave it out as a default, so a sender cannot send it.
    let special = [f64::NAN, stale_nan(), 0.0, f64::INFINITY, f64::MIN_POSITIVE / 2.0, 0.1 + 0.2];
    let mut out = Vec::new();
    for target in 0..3 {
        for n in 0..20 {
            if rng.below(10) == 0 {
                continue;
            }
            let mut labels = target_labels(target, n);
            if rng.below(4) == 0 {
                labels.reverse();
            }
            let sample = |rng: &mut Rng, i: i64| {
                let v = match rng.below(8) {
                    0 => special[rng.below(special.len() as u64) as usize],
                    _ => f64::from_bits(rng.next()),
                };
                (t + i * 15_000, v, if rng.below(5) == 0 { t - 1 } else { 0 })
            };
            let count = if rng.below(6) == 0 { 3 } else { 1 };
            let samples = (0..count).map(|i| sample(rng, i)).collect();
            out.push(Series { labels, samples, ..Series::default() });
        }
    }
    out
}

/// Moves the labels of some series behind their samples, which protobuf allows.
fn labels_last(message: &Wire) -> Wire {
    let mut out = Vec::new();
    let mut request = sextant_proto::remote_write::WriteRequestV1::decode(&*message.bytes).unwrap();
    for (i, s) in request.timeseries.iter_mut().enumerate() {
        let mut body = Vec::new();
        let tail = s.labels.split_off(if i % 3 == 0 { s.labels.len() / 2 } else { s.labels.len() });
        let put = |body: &mut Vec<u8>, message: &dyn Fn(&mut Vec<u8>), tag: u8| {
            let mut inner = Vec::new();
            message(&mut inner);
            body.push(tag << 3 | 2);
            prost::encoding::encode_varint(inner.len() as u64, body);
            body.extend(inner);
        };
        let label = |body: &mut Vec<u8>, l: &Label| put(body, &|b| l.encode(b).unwrap(), 1);
        s.labels.iter().for_each(|l| label(&mut body, l));
        s.samples.iter().for_each(|x: &SampleV1| put(&mut body, &|b| x.encode(b).unwrap(), 2));
        tail.iter().for_each(|l| label(&mut body, l));
        put(&mut out, &|b| b.extend(&body), 1);
    }
    Wire { bytes: out, is_v2: false }
}

/// One connection: scrapes in one version, each sent until it is taken.
async fn connection(bench: &Bench, seed: u64, is_v2: bool, sent: &parking_lot::Mutex<Sent>) {
    let mut rng = Rng::new(seed);
    for i in 0..25 {
        let t = 1_000_000 * seed as i64 + i * 60_000;
        let series = scrape(&mut rng, t);
        let message = match (is_v2, rng.below(3)) {
            (true, _) => v2(&series),
            (false, 0) => labels_last(&v1(&series)),
            (false, _) => v1(&series),
        };
        let shard = rng.below(3) as usize;
        match rng.below(8) {
            0 => bench.fake.begin_epoch(shard, true),
            1 => bench.fake.begin_epoch(shard, false),
            2 => bench.fake.begin_epochs_before_appends(shard, 2),
            3 => {
                bench.fake.fail_next(shard, ShardError::Unavailable("no majority".into()), rng.below(2) == 0)
            }
            _ => {}
        }
        let mut tries = 0;
        loop {
            let answer = bench.send(&message).await;
            if answer.status == 204 {
                break;
            }
            assert_eq!(answer.status, 503, "{}", answer.body);
            tries += 1;
            assert!(tries < 10, "{}", answer.body);
        }
        sent.lock().add(&series, is_v2);
    }
}

#[tokio::test]
async fn two_connections_of_both_versions_under_epochs_and_failures() {
    for seed in 1..=12 {
        let bench = Bench::new(3);
        let sent = parking_lot::Mutex::new(Sent::default());
        tokio::join!(
            connection(&bench, seed, false, &sent),
            connection(&bench, seed + 1000, true, &sent),
            connection(&bench, seed + 2000, false, &sent),
        );
        assert_eq!(bench.fake.series().len(), 60);
        sent.into_inner().check(&bench);
    }
}

#[tokio::test]
async fn a_small_cache_and_a_split_target_lose_nothing() {
    let config = DistributorConfig {
        cached_series_max: 10,
        target_split: 4,
        cached_tenants_max: 1,
        ..Default::default()
    };
    let bench = Bench::with(3, config, TenantLimits::default());
    let sent = parking_lot::Mutex::new(Sent::default());
    tokio::join!(connection(&bench, 5, false, &sent), connection(&bench, 6, true, &sent));
    sent.into_inner().check(&bench);
    assert!(bench.fake.shards_used() > 1);
}

#[tokio::test]
async fn labels_are_sent_once_an_epoch_and_a_target_stays_in_one_shard() {
    let bench = Bench::new(3);
    let series: Vec<Series> = (0..50)
        .map(|n| Series { labels: target_labels(0, n), samples: vec![(1, 1.0, 0)], ..Series::default() })
        .collect();
    for _ in 0..5 {
        assert_eq!(bench.send(&v1(&series)).await.status, 204);
        assert_eq!(bench.send(&v2(&series)).await.status, 204);
    }
    assert_eq!(bench.fake.lock().new_series, 50);
    assert_eq!(bench.fake.shards_used(), 1);
    (0..3).for_each(|s| bench.fake.begin_epoch(s, false));
    assert_eq!(bench.send(&v1(&series[1..])).await.status, 204);
    assert_eq!(bench.fake.lock().new_series, 99);
}

#[tokio::test]
async fn the_same_request_twice_is_stored_once() {
    let bench = Bench::new(1);
    let message = v1(&[Series::new(&[("__name__", "a")], 1, 1.0), Series::new(&[("__name__", "b")], 1, 2.0)]);
    for _ in 0..3 {
        assert_eq!(bench.send(&message).await.status, 204);
    }
    bench.fake.begin_epoch(0, false);
    assert_eq!(bench.send(&message).await.status, 204);
    let ids = bench.fake.lock().write_ids.clone();
    assert!(ids.len() == 4 && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(bench.fake.lock().duplicates, 3);
    let mut sent = Sent::default();
    sent.add(&[Series::new(&[("__name__", "a")], 1, 1.0), Series::new(&[("__name__", "b")], 1, 2.0)], false);
    sent.check(&bench);
    let other = TenantId::new("other").unwrap();
    let body = crate::send::snappy(&message.bytes);
    assert_eq!(bench.distributor.remote_write(&other, &Default::default(), body).await.status, 204);
    assert_ne!(bench.fake.lock().write_ids[4], ids[0], "the id is the tenant's too");
}

#[tokio::test]
async fn duplicates_and_spellings_of_one_series_in_a_request() {
    for is_v2 in [false, true] {
        let bench = Bench::new(2);
        let pairs = [("__name__", "m"), ("a", "1"), ("b", "2")];
        let reversed = [("b", "2"), ("a", "1"), ("__name__", "m")];
        let with_empty = [("__name__", "m"), ("a", "1"), ("b", "2"), ("c", "")];
        let mut sent = Sent::default();
        for t in [10, 20] {
            let series = [
                Series::new(&pairs, t, 1.0),
                Series::new(&reversed, t + 1, 2.0),
                Series::new(&pairs, t + 2, 3.0),
                Series::new(&with_empty, t + 3, 4.0),
                Series { labels: labels(&[("__name__", "nothing")]), ..Series::default() },
            ];
            let message = if is_v2 { v2(&series[..4]) } else { v1(&series) };
            assert_eq!(bench.send(&message).await.status, 204);
            sent.add(&series, false);
        }
        sent.check(&bench);
        assert_eq!(bench.fake.lock().new_series, 1, "one series, learned once");
    }
}

fn histogram(t: i64) -> Histogram {
    Histogram {
        count: Some(HistogramCount::CountInt(3)),
        sum: 0.3,
        schema: 3,
        zero_count: Some(HistogramZeroCount::ZeroCountInt(1)),
        zero_threshold: 1e-128,
        positive_spans: vec![sextant_proto::remote_write::BucketSpan { offset: -2, length: 2 }],
        positive_deltas: vec![1, 0],
        timestamp: t,
        ..Histogram::default()
    }
}

#[tokio::test]
async fn histograms_and_exemplars_arrive_whole() {
    for is_v2 in [false, true] {
        let bench = Bench::new(2);
        let series = Series {
            labels: labels(&[("__name__", "h"), ("job", "j")]),
            histograms: vec![
                histogram(5),
                Histogram { sum: stale_nan(), timestamp: 6, ..Histogram::default() },
            ],
            exemplars: vec![(5, 0.1, labels(&[("trace_id", "abc")])), (6, 0.2, labels(&[]))],
            ..Series::default()
        };
        let message = if is_v2 { v2(&[series]) } else { v1(&[series]) };
        let answer = bench.send(&message).await;
        assert_eq!(answer.status, 204, "{}", answer.body);
        if is_v2 {
            assert_eq!(written(&answer), [Some(0), Some(2), Some(2)]);
        }
        let (_, Stored { histograms, exemplars, .. }) = bench.fake.stored().pop_first().unwrap();
        assert_eq!((histograms[0].0, histograms[0].2.positive_buckets.as_slice()), (5, &[1.0, 1.0][..]));
        assert_eq!((histograms[0].2.sum.to_bits(), histograms[0].2.schema), (0.3f64.to_bits(), 3));
        assert!(histograms[1].2.is_stale());
        assert_eq!((exemplars[0].t, exemplars[0].v), (5, 0.1));
        assert_eq!(exemplars[0].labels, Labels::from_pairs([("trace_id", "abc")]).unwrap());
        assert_eq!(exemplars.len(), 2);
    }
}

/// The way in of the agent and of OTLP.
#[tokio::test]
async fn decoded_requests() {
    let bench = Bench::new(3);
    let tenant = TenantId::new("t").unwrap();
    let of = |n: i64, temporality| SeriesWrite {
        labels: Labels::from_pairs([("__name__", "m"), ("n", &n.to_string())]).unwrap(),
        samples: vec![Sample { t: n, v: -(n as f64) / 3.0, start: n - 1 }],
        histograms: vec![HistogramSample {
            t: n,
            start: 0,
            h: sextant_model::Histogram { integer: true, ..Default::default() },
        }],
        exemplars: vec![Exemplar { t: n, v: 0.5, labels: Labels::empty() }],
        temporality,
        ..SeriesWrite::default()
    };
    let series: Vec<SeriesWrite> = (0..20)
        .map(|n| of(n, if n % 2 == 0 { Temporality::Delta } else { Temporality::Cumulative }))
        .collect();
    for write_id in [None, None, Some(7)] {
        (0..3).for_each(|s| bench.fake.begin_epoch(s, false));
        let request = WriteRequest { series: series.clone(), write_id, ..WriteRequest::default() };
        let summary = bench.distributor.write(&tenant, request).await.unwrap();
        assert_eq!((summary.samples, summary.histograms, summary.exemplars), (20, 20, 20));
        assert!(summary.refused.is_empty());
    }
    let stored = bench.fake.stored();
    assert_eq!(stored.len(), 20);
    for ((_, series), s) in stored {
        // The first two had the same id, the third its own.
        assert_eq!((s.samples.len(), s.histograms.len(), s.exemplars.len()), (2, 2, 2), "{series}");
        let (t, bits, start) = s.samples[0];
        assert_eq!((bits, start), ((-(t as f64) / 3.0).to_bits(), t - 1));
        assert_eq!(s.is_delta, t % 2 == 0);
    }
}

#[tokio::test]
async fn a_shard_that_never_settles_fails_the_request_and_nothing_is_answered_before_all_shards() {
    let bench = Bench::new(1);
    let message = v1(&[Series::new(&[("__name__", "a")], 1, 1.0)]);
    assert_eq!(bench.send(&message).await.status, 204);
    bench.fake.begin_epoch(0, false);
    bench.fake.begin_epochs_before_appends(0, 1000);
    // Batches that bring all labels are taken in every epoch.
    let next = v1(&[Series::new(&[("__name__", "a")], 2, 1.0)]);
    assert_eq!(bench.send(&next).await.status, 204);
    for (e, status) in [
        (ShardError::Overloaded("memory bound reached".into()), 429),
        (ShardError::Unavailable("no majority".into()), 503),
        (ShardError::Malformed("bad".into()), 500),
    ] {
        let reason = e.to_string();
        bench.fake.fail_next(0, e, false);
        let answer = bench.send(&v1(&[Series::new(&[("__name__", "a")], 3, 1.0)])).await;
        assert_eq!(answer.status, status);
        assert!(answer.body.contains(&reason), "{}", answer.body);
        let retry = crate::send::header(&answer, "Retry-After");
        assert_eq!(retry.is_some(), status != 500, "{:?}", answer.headers);
    }
}
