//! Round trips, bad inputs, cuts and flipped bits.

use proptest::prelude::*;
use sextant_model::{
    Exemplar, Histogram, HistogramSample, Labels, MetricMetadata, MetricType, SeriesBuf, SeriesSet, Span,
};

use super::{
    list::{Item, ListParts, decode_list},
    refusal::{Refused, TEXT_BYTES_MAX, decode_refused, encode_refused},
    series::{NotTaken, Part, Parts, SetParts},
    *,
};
use crate::{
    ErrorClass, ExemplarSeries, MetadataEntry, ShardError, ShardStats,
    rpc::{Leader, LocalError},
};

fn select() -> SelectRequest {
    SelectRequest {
        tenant: TenantId::new("team-1").unwrap(),
        matchers: vec![
            Matcher::equal("__name__", "up"),
            Matcher::new("job", MatchOp::NotEqual, "").unwrap(),
            Matcher::new("pod", MatchOp::Regex, "a.*|b").unwrap(),
            Matcher::new("é", MatchOp::NotRegex, "x+").unwrap(),
        ],
        start: i64::MIN,
        end: i64::MAX,
        after: u64::MAX,
        limits: SelectLimits { series_max: 7, samples_max: usize::MAX },
    }
}

fn matchers(m: &[Matcher]) -> Vec<(String, MatchOp, String)> {
    m.iter().map(|m| (m.name.clone(), m.op, m.value.clone())).collect()
}

fn labels(i: usize) -> Labels {
    Labels::from_pairs([("__name__", "m"), ("i", &format!("{i:06}"))]).unwrap()
}

fn histogram(k: i64) -> HistogramSample {
    let h = Histogram {
        schema: 3,
        count: 5.0,
        sum: k as f64,
        zero_threshold: 0.001,
        zero_count: 2.0,
        positive_spans: vec![Span { offset: 0, length: 2 }],
        positive_buckets: vec![1.0, 2.0],
        ..Histogram::default()
    };
    HistogramSample { t: k, start: k / 2, h }
}

fn same(a: &SeriesSet, b: &SeriesSet) {
    let bits = |s: &SeriesSet| s.v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    assert_eq!(a.labels, b.labels);
    assert_eq!(a.offsets, b.offsets);
    assert_eq!(a.t, b.t);
    assert_eq!(bits(a), bits(b));
    assert_eq!(a.start, b.start);
    assert_eq!(a.h_offsets, b.h_offsets);
    assert_eq!(a.h, b.h);
}

fn through(set: &SeriesSet, target: usize) -> (SeriesSet, Vec<usize>) {
    let messages: Vec<_> = SetParts::new(set.clone(), target).collect();
    let sizes = messages.iter().map(Bytes::len).collect();
    let mut parts = Parts::default();
    for m in messages {
        parts.push(Part::decode(m).unwrap(), usize::MAX, usize::MAX).unwrap();
    }
    (parts.read(0..parts.labels.len()).unwrap(), sizes)
}

fn small_set() -> SeriesSet {
    let mut set = SeriesSet::new();
    let nan = f64::from_bits(sextant_model::STALE_NAN_BITS);
    let plain = SeriesBuf { t: vec![-5, 0, 15_000], v: vec![1.5, -0.0, nan], ..SeriesBuf::default() };
    set.push(labels(0), &plain);
    let started = SeriesBuf { t: vec![1, 2], v: vec![1.0, 2.0], start: vec![1, 0], h: vec![histogram(3)] };
    set.push(labels(1), &started);
    set.push(labels(2), &SeriesBuf { h: vec![histogram(1), histogram(2)], ..SeriesBuf::default() });
    set
}

#[test]
fn requests_come_back() {
    let (cluster, shard) = (7u128 << 100, ShardId(9));
    let message: Bytes = [request_head(cluster, shard), Bytes::from_static(b"batch")].concat().into();
    let opened = open_request(&message).unwrap();
    assert_eq!((opened.cluster, opened.shard, &opened.body[..]), (cluster, shard, &b"batch"[..]));
    assert_eq!(opened.body.as_ptr(), message[21..].as_ptr(), "the batch was copied");

    let r = select();
    let check = |back: &SelectRequest| {
        assert_eq!(matchers(&back.matchers), matchers(&r.matchers));
        let all = |r: &SelectRequest| (r.tenant.clone(), r.start, r.end, r.after, r.limits);
        assert_eq!(all(back), all(&r));
    };
    check(&decode_select(&encode_select(&r)).unwrap());
    for label in [None, Some("job"), Some("")] {
        let (back, l) = decode_label_values(&encode_label_values(&r, label)).unwrap();
        check(&back);
        assert_eq!(l.as_deref(), label);
    }
    assert_eq!(decode_tenant(&encode_tenant(&r.tenant, 5)), Ok((r.tenant.clone(), 5)));
    let delete = DeleteRequest {
        tenant: r.tenant.clone(),
        id: u128::MAX - 3,
        now_ms: 1_700_000_000_000,
        selectors: vec![],
        start: -1,
        end: i64::MAX,
    };
    assert!(decode_delete(&encode_delete(&delete)).unwrap().selectors.is_empty());
    let delete = DeleteRequest { selectors: vec![r.matchers.clone(), vec![]], ..delete };
    let back = decode_delete(&encode_delete(&delete)).unwrap();
    assert_eq!(
        (back.tenant, back.id, back.now_ms, back.start, back.end),
        (delete.tenant, delete.id, delete.now_ms, delete.start, delete.end)
    );
    assert_eq!(matchers(&back.selectors[0]), matchers(&r.matchers));
    assert!(back.selectors[1].is_empty());
}

#[test]
fn outcomes_come_back() {
    let outcome = AppendOutcome {
        epoch: u64::MAX,
        new_refs: vec![0, 7, u32::MAX, u32::MAX - 1],
        duplicate: true,
        refused: vec![
            Refusal { series: 0x8000_0001, samples: 1, kind: RefusalKind::SeriesLimit },
            Refusal { series: 5, samples: u32::MAX, kind: RefusalKind::OutsideWindow },
        ],
    };
    assert_eq!(decode_append_outcome(&encode_append_outcome(&outcome)).unwrap(), outcome);
    let none = AppendOutcome::default();
    assert_eq!(decode_append_outcome(&encode_append_outcome(&none)).unwrap(), none);
    let outcome = DeleteOutcome { position: 300, pending: 0 };
    assert_eq!(decode_delete_outcome(&encode_delete_outcome(&outcome)).unwrap(), outcome);
}

fn list_comes_back<T: Item + Clone + PartialEq + std::fmt::Debug>(items: &[T]) {
    for target in [1, 20, 1 << 20] {
        let messages: Vec<_> = ListParts::new(items.to_vec(), target).collect();
        assert!(target > 1 || messages.len() == items.len());
        let back: Vec<T> = messages.iter().flat_map(|m| decode_list::<T>(m).unwrap()).collect();
        assert_eq!(back, items);
    }
}

#[test]
fn lists_come_back() {
    list_comes_back::<String>(&[]);
    list_comes_back(&[String::new(), "a".to_owned(), "é".repeat(100)]);
    list_comes_back(&[labels(0), Labels::empty(), labels(5)]);
    list_comes_back(&[TenantId::anonymous(), TenantId::new("b").unwrap()]);
    let e = |t: i64| Exemplar { t, v: t as f64 / 3.0, labels: labels(t as usize) };
    list_comes_back(&[
        ExemplarSeries { labels: labels(1), exemplars: vec![e(1), e(2)] },
        ExemplarSeries { labels: labels(2), exemplars: vec![] },
    ]);
    let metadata =
        MetricMetadata { metric_type: MetricType::Summary, help: "h\n".to_owned(), unit: String::new() };
    list_comes_back(&[MetadataEntry { name: "up".to_owned(), metadata }]);
    list_comes_back(&[ShardStats { series: 1, samples: u64::MAX, min_t: i64::MAX, max_t: i64::MIN }]);
}

#[test]
fn every_refusal_comes_back_with_its_class() {
    let text = || "why: é".to_owned();
    let leader = || Some(Leader { node: 3, address: "host:1".to_owned() });
    let all: Vec<(Refused, ErrorClass)> = vec![
        (Refused::Local(LocalError::NotHere), ErrorClass::NotFound),
        (Refused::Local(LocalError::NotLeader { leader: None, term: 0 }), ErrorClass::Unprocessable),
        (Refused::Local(LocalError::NotLeader { leader: leader(), term: 9 }), ErrorClass::Unprocessable),
        (Refused::Protocol(text()), ErrorClass::BadRequest),
        (Refused::Local(ShardError::StaleEpoch { current: u64::MAX }.into()), ErrorClass::Unavailable),
        (Refused::Local(ShardError::Overloaded(text()).into()), ErrorClass::TooManyRequests),
        (Refused::Local(ShardError::Unavailable(text()).into()), ErrorClass::Unavailable),
        (Refused::Local(ShardError::Malformed(text()).into()), ErrorClass::Internal),
        (Refused::Local(ShardError::Limit(text()).into()), ErrorClass::Unprocessable),
    ];
    for (refused, class) in &all {
        let back = decode_refused(&encode_refused(refused)).unwrap();
        assert_eq!(format!("{back:?}"), format!("{refused:?}"));
        assert_eq!(back.class(), *class, "{refused:?}");
    }
    let long = Refused::Protocol("é".repeat(TEXT_BYTES_MAX));
    let back = decode_refused(&encode_refused(&long)).unwrap();
    assert_eq!(back.text(), "é".repeat(TEXT_BYTES_MAX / 2));
}

#[test]
fn sets_come_back_in_parts_of_any_size() {
    let set = small_set();
    for target in [1, 60, 1 << 20] {
        same(&through(&set, target).0, &set);
    }
    assert_eq!(SetParts::new(SeriesSet::new(), 100).count(), 0);
    same(&through(&SeriesSet::new(), 1).0, &SeriesSet::new());
}

#[test]
fn a_series_larger_than_a_part_is_several_pieces() {
    let mut set = SeriesSet::new();
    set.push(labels(0), &SeriesBuf { t: vec![1], v: vec![1.0], ..SeriesBuf::default() });
    let n = 200_000i64;
    let long = SeriesBuf {
        t: (0..n).map(|i| 1_700_000_000_000 + i * 15_000).collect(),
        v: (0..n).map(|i| i as f64).collect(),
        start: (0..n).map(|i| if i < 100_000 { 0 } else { 17 }).collect(),
        h: (0..9000).map(histogram).collect(),
    };
    set.push(labels(1), &long);
    set.push(labels(2), &SeriesBuf { t: vec![2], v: vec![2.0], ..SeriesBuf::default() });
    let (back, sizes) = through(&set, 1 << 20);
    same(&back, &set);
    assert!(sizes.len() >= 4 && sizes.iter().all(|&n| n < 2 << 20), "{sizes:?}");
    // Regular timestamps and equal starts take a byte each.
    let total: usize = sizes.iter().sum();
    assert!(total < n as usize * 10 + 9000 * 60 + 4096, "{total}");
}

#[test]
fn a_range_of_the_series_is_read_without_the_others() {
    let set = small_set();
    let mut parts = Parts::default();
    for m in SetParts::new(set.clone(), 1) {
        parts.push(Part::decode(m).unwrap(), usize::MAX, usize::MAX).unwrap();
    }
    assert_eq!((0..3).map(|i| parts.estimate(i)).collect::<Vec<_>>(), [3, 18, 32]);
    same(&parts.read(1..2).unwrap(), &set.slice(1..2));
    assert_eq!(parts.read(2..3).unwrap().h, set.slice(2..3).h);
    assert!(parts.read(3..3).unwrap().is_empty());
}

#[test]
fn start_timestamps_may_begin_in_a_later_piece() {
    let part = |buf: SeriesBuf, continues: bool| {
        let mut set = SeriesSet::new();
        set.push(labels(0), &buf);
        let mut part = Part::decode(SetParts::new(set, 1).next().unwrap()).unwrap();
        part.continues = continues;
        part
    };
    let buf = |t: i64, start: &[i64]| SeriesBuf {
        t: vec![t],
        v: vec![0.5],
        start: start.to_vec(),
        ..SeriesBuf::default()
    };
    let mut parts = Parts::default();
    for (t, start, continues) in [(1, &[][..], false), (2, &[9], true), (3, &[], true)] {
        parts.push(part(buf(t, start), continues), 9, 9).unwrap();
    }
    let set = parts.read(0..1).unwrap();
    assert_eq!((set.t, set.start, set.labels.len()), (vec![1, 2, 3], vec![0, 9, 0], 1));
}

#[test]
fn limits_hold_before_samples_are_read() {
    let parts: Vec<_> = SetParts::new(small_set(), 1).map(|m| Part::decode(m).unwrap()).collect();
    let take = |series: usize, samples: usize| {
        let mut all = Parts::default();
        parts.iter().try_for_each(|p| all.push(p.clone(), series, samples))
    };
    assert_eq!(take(3, 8), Ok(()));
    assert_eq!(take(2, 8), Err(NotTaken::TooManySeries));
    assert_eq!(take(3, 7), Err(NotTaken::TooManySamples));
}

#[test]
fn parts_that_do_not_follow_each_other_are_refused() {
    let parts: Vec<_> = SetParts::new(small_set(), 1).map(|m| Part::decode(m).unwrap()).collect();
    let take = |order: &[usize], continues: bool| {
        let mut all = Parts::default();
        order
            .iter()
            .try_for_each(|&i| {
                let mut part = parts[i].clone();
                part.continues = continues;
                all.push(part, 9, 99)
            })
            .map_err(|e| if let NotTaken::Malformed(e) = e { e.0 } else { "limit" })
    };
    assert_eq!(take(&[0, 1, 2], false), Ok(()));
    assert_eq!(take(&[1, 0], false), Err("series out of order"));
    assert_eq!(take(&[0, 0], false), Err("series out of order"));
    assert_eq!(take(&[0], true), Err("a part goes on with another series"));
}

#[test]
fn bad_messages_say_what_is_wrong() {
    let long = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 2];
    let head = |extra: &[u8]| [&[1, b't', 0, 0, 0, 0, 0][..], extra].concat();
    let of_select = |b: &[u8]| decode_select(b).map(drop);
    let table: Vec<(Vec<u8>, &str)> = vec![
        (vec![], "cut short"),
        (vec![9], "cut short"),
        (vec![1, b'/'], "not a tenant id"),
        (vec![1, 0xff], "text is not UTF-8"),
        (head(&[]), "cut short"),
        (head(&[100]), "count larger than the input"),
        (head(&[1, 9, 0, 0]), "unknown operator of a matcher"),
        (head(&[1, 0, 5, 0]), "cut short"),
        (head(&[1, 2, 0, 1, b'(']), "invalid regular expression"),
        (head(&[0, 0]), "bytes after the end"),
        ([&[1, b't', 0, 0][..], &long].concat(), "varint too long"),
        (head(&[&[0x81, 0x20][..], &[0; 3 * (MATCHERS_MAX + 1)]].concat()), "too many matchers"),
    ];
    for (i, (bytes, reason)) in table.iter().enumerate() {
        assert_eq!(of_select(bytes).unwrap_err().0, *reason, "row {i}: {bytes:?}");
    }
    let flag = [&head(&[0])[..], &[2]].concat();
    assert_eq!(decode_label_values(&flag).unwrap_err().0, "flag is neither 0 nor 1");
    let delete = |selectors: &[u8]| {
        let bytes = [&[1, b't'][..], &[0; 19], selectors].concat();
        decode_delete(&bytes).map(drop).map_err(|e| e.0)
    };
    assert_eq!(delete(&[0]), Ok(()));
    assert_eq!(delete(&[2, 0]), Err("count larger than the input"));
    assert_eq!(delete(&[&[0x81, 0x20][..], &[0; MATCHERS_MAX + 1]].concat()), Err("too many selectors"));

    let outcome = |b: &[u8]| decode_append_outcome(b).unwrap_err().0;
    assert_eq!(outcome(&[2, 0, 0, 0, 0]), "unknown version of the answer");
    assert_eq!(outcome(&[1, 0, 2, 0, 0]), "flag is neither 0 nor 1");
    assert_eq!(outcome(&[1, 0, 0, 99, 0]), "count larger than the input");
    assert_eq!(outcome(&[1, 0, 0, 1, 0x80, 0x80, 0x80, 0x80, 0x10, 0]), "number out of range");
    assert_eq!(outcome(&[1, 0, 0, 0, 1, 1, 1, 3]), "unknown kind of refusal");
    assert_eq!(outcome(&[1, 0, 0, 0, 0, 0]), "bytes after the end");

    assert_eq!(decode_list::<Labels>(&[1, 1, 2, 1, b'a']).unwrap_err().0, "labels are not canonical");
    assert_eq!(decode_list::<ShardStats>(&[1, 1, 0]).unwrap_err().0, "count larger than the input");
    assert_eq!(decode_list::<String>(&[]).unwrap_err().0, "cut short");

    let refused = |b: &[u8]| decode_refused(b).unwrap_err().0;
    assert_eq!(refused(&[2, 1]), "unknown version of the refusal");
    assert_eq!(refused(&[1, 99]), "unknown kind of refusal");
    assert_eq!(refused(&[1, 1, 0]), "bytes after the end");
    assert_eq!(refused(&[1, 2, 0, 1, 0]), "cut short");

    // flags, selection, pieces { label bytes, floats, t bytes, start bytes, histograms, h bytes }, labels, columns
    let part = |bytes: &[u8]| Part::decode(Bytes::copy_from_slice(bytes)).unwrap_err().0;
    let max = [0xff, 0xff, 0xff, 0xff, 0x0f];
    assert_eq!(part(&[9]), "unknown version of the answer");
    assert_eq!(part(&[1, 2, 0, 0]), "unknown flags of a part");
    assert_eq!(part(&[1, 0, 0, 9, 0, 0, 0, 0, 0, 0]), "count larger than the input");
    assert_eq!(part(&[1, 0, 0, 1, 0, 2, 1, 0, 0, 0]), "more samples than bytes");
    assert_eq!(part(&[1, 0, 0, 1, 0, 0, 0, 0, 2, 1]), "more samples than bytes");
    assert_eq!(part(&[1, 0, 0, 1, 0, 2, 2, 1, 0, 0]), "fewer start timestamps than samples");
    assert_eq!(part(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 1]), "the columns are not as long as the index says");
    assert_eq!(part(&[1, 0, 0, 1, 1, 0, 0, 0, 0, 0, 9]), "labels are not canonical");
    let huge = [&[1, 0, 0, 1, 0][..], &max, &max, &[0, 0, 0]].concat();
    assert_eq!(part(&huge), "the columns are not as long as the index says");
    let far = [&[1, 0, 0, 2, 0, 0][..], &max, &[0, 0], &max, &[0, 0, 0, 0, 0, 0]].concat();
    assert_eq!(part(&far), "columns larger than the part");

    // Columns are looked at when they are read.
    let read = |bytes: &[u8]| {
        let part = Part::decode(Bytes::copy_from_slice(bytes)).unwrap();
        part.read(part.pieces[0], &mut SeriesBuf::default()).unwrap_err().0
    };
    assert_eq!(read(&[1, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0]), "bytes after the end");
    assert_eq!(read(&[1, 0, 0, 1, 0, 0, 0, 0, 1, 3, 0, 0, 9]), "not a histogram");
    assert_eq!(read(&[1, 0, 0, 1, 0, 1, 1, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0]), "cut short");

    let bad_head = |b: &[u8]| open_request(&Bytes::copy_from_slice(b)).map(drop).unwrap_err();
    assert_eq!(bad_head(&[]), BadHead::Short);
    assert_eq!(bad_head(&[1; 20]), BadHead::Short);
    assert_eq!(bad_head(&[2; 21]), BadHead::Version(2));
}

/// A well-formed message of each kind behind its number.
fn seeds() -> Vec<Vec<u8>> {
    let r = select();
    let delete = DeleteRequest {
        tenant: r.tenant.clone(),
        id: 3,
        now_ms: 5,
        selectors: vec![r.matchers.clone()],
        start: 0,
        end: 9,
    };
    let outcome = AppendOutcome {
        epoch: 3,
        new_refs: vec![1, 300],
        duplicate: false,
        refused: vec![Refusal { series: 3, samples: 4, kind: RefusalKind::OutsideWindow }],
    };
    fn list<T: Item>(item: T) -> Bytes {
        ListParts::new(vec![item], 1).next().unwrap()
    }
    let leader = Some(Leader { node: 3, address: "host:1".to_owned() });
    let exemplars = vec![Exemplar { t: 1, v: 2.0, labels: labels(3) }];
    let metadata = MetricMetadata { help: "h".to_owned(), ..MetricMetadata::default() };
    let messages: Vec<Bytes> = vec![
        encode_select(&r),
        encode_label_values(&r, Some("x")),
        encode_delete(&delete),
        encode_tenant(&r.tenant, 300),
        encode_append_outcome(&outcome),
        encode_delete_outcome(&DeleteOutcome { position: 300, pending: 2 }),
        encode_refused(&Refused::Local(LocalError::NotLeader { leader, term: 2 })).into(),
        list("text".to_owned()),
        list(labels(1)),
        list(ExemplarSeries { labels: labels(2), exemplars }),
        list(MetadataEntry { name: "up".to_owned(), metadata }),
        list(r.tenant.clone()),
        SetParts::new(small_set(), 1 << 20).next().unwrap(),
    ];
    let number = |(i, m): (usize, Bytes)| [&[i as u8][..], &m].concat();
    messages.into_iter().enumerate().map(number).collect()
}

#[test]
fn every_cut_and_every_flipped_bit_is_an_error_or_a_message_never_a_panic() {
    for seed in seeds() {
        for n in 0..seed.len() {
            fuzz_message(&seed[..n]);
        }
        for i in 1..seed.len() {
            for bit in 0..8 {
                let mut b = seed.clone();
                b[i] ^= 1 << bit;
                fuzz_message(&b);
            }
        }
        fuzz_message(&seed);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        fuzz_message(&bytes);
    }

    #[test]
    fn any_set_comes_back(
        series in prop::collection::vec(
            (prop::collection::vec((any::<i64>(), any::<u64>(), any::<i64>()), 0..20), any::<bool>(), 0i64..4),
            1..12,
        ),
        target in 1usize..400,
    ) {
        let mut set = SeriesSet::new();
        for (i, (samples, has_start, histograms)) in series.iter().enumerate() {
            let buf = SeriesBuf {
                t: samples.iter().map(|s| s.0).collect(),
                v: samples.iter().map(|s| f64::from_bits(s.1)).collect(),
                start: if *has_start { samples.iter().map(|s| s.2).collect() } else { Vec::new() },
                h: (0..*histograms).map(histogram).collect(),
            };
            // A series has a sample.
            if !buf.is_empty() {
                set.push(labels(i), &buf);
            }
        }
        same(&through(&set, target).0, &set);
    }
}
