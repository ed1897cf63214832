//! What is refused, how much of it, and what the answer says.

use sextant_distributor::{RemoteWriteHeaders, fuzz};
use sextant_model::TenantId;
use sextant_proto::{ShardError, TenantLimits};

use super::{
    encode::{
        Numbers, V2, bytes, double, exemplar_v2, label, metadata_v2, number, sample, sample_v2, series,
    },
    shards::{Shards, header, send, written},
};

#[tokio::test]
async fn bodies_that_are_not_what_they_should_be() {
    let shards = Shards::new(1);
    let d = shards.plain();
    let good = series(&[("__name__", "m")], &[(1, 1.0)]);
    let table: Vec<(u32, Vec<u8>, &str)> = vec![
        (1, vec![0x0a, 0xff], "malformed prometheus.WriteRequest: cut short at byte 1"),
        (1, vec![0x0a, 5, 1], "length goes past the end"),
        (1, vec![0x00], "field number out of range"),
        (1, vec![0x0b], "unknown wire type"),
        (1, good[..good.len() - 1].to_vec(), "length goes past the end at byte 1"),
        (1, bytes(1, &[label("__name__", "m"), vec![0x12, 9]].concat()), "length goes past the end"),
        (1, bytes(1, &[label("__name__", "m"), bytes(2, &[0x10, 0xff])].concat()), "cut short"),
        (1, bytes(1, &[label("__name__", "m"), bytes(4, &[0x08])].concat()), "malformed histogram"),
        (1, bytes(3, &[0x08]), "cut short"),
        (1, V2::default().message(), "fields of 2.0"),
        (2, vec![0x2a, 5, 1], "malformed io.prometheus.write.v2.Request: length goes past the end"),
        (2, bytes(4, b"x"), "the first symbol must be the empty text"),
        (2, bytes(5, &[0x0a, 2, 0xff, 0xff]), "cut short"),
    ];
    for (version, message, reason) in table {
        let answer = send(&d, version, &message).await;
        assert_eq!(answer.status, 400, "{message:?}: {answer:?}");
        assert!(answer.body.contains(reason), "{message:?}: {}", answer.body);
        assert_eq!(written(&answer), if version == 2 { vec!["0"; 3] } else { vec![] });
    }
    for (body, status) in [(&b"0not snappy"[..], 400), (&[0xff, 0xff, 0xff, 0xff, 0x0f], 413), (&[], 400)] {
        let answer =
            d.remote_write(&TenantId::anonymous(), &RemoteWriteHeaders::default(), body.into()).await;
        assert_eq!(answer.status, status, "{body:?}: {answer:?}");
    }
    assert!(shards.0.lock().stored.is_empty());
    // Nothing is a valid request of nothing.
    assert_eq!(send(&d, 1, &[]).await.status, 204);
    assert_eq!(send(&d, 2, &[]).await.status, 204);
    assert_eq!(shards.0.lock().appends, 0);
}

#[tokio::test]
async fn good_series_are_stored_beside_refused_ones() {
    let good = |t| series(&[("__name__", "good")], &[(t, 1.0)]);
    let value = [label("__name__", "m"), bytes(1, &[bytes(1, b"a"), bytes(2, b"\xff")].concat())].concat();
    let table: Vec<(Vec<u8>, &str)> = vec![
        (series(&[("job", "x")], &[(1, 1.0), (2, 1.0)]), r#"got {job="x"}: no metric name"#),
        (series(&[], &[(1, 1.0)]), "got {}: no metric name"),
        (series(&[("__name__", "")], &[(1, 1.0)]), "no metric name"),
        (
            series(&[("__name__", "m"), ("a", "1"), ("a", "2")], &[(1, 1.0)]),
            r#"labels {__name__="m", a="1", a="2"}, duplicated label a"#,
        ),
        (series(&[("__name__", "m"), ("", "1")], &[(1, 1.0)]), "a label name is empty"),
        (bytes(1, &[value, sample(1, 1.0)].concat()), "not UTF-8"),
        (bytes(1, &[bytes(1, &[0x0a, 9]), sample(1, 1.0)].concat()), "malformed labels"),
        (bytes(1, &sample(1, 1.0)), "no metric name"),
    ];
    for (i, (bad, reason)) in table.iter().enumerate() {
        let shards = Shards::new(2);
        let d = shards.plain();
        // Twice: what is refused is refused again, with known series around it.
        for t in 0..2 {
            let answer = send(&d, 1, &[good(t), bad.clone(), good(t + 10)].concat()).await;
            assert_eq!(answer.status, 400, "{i}: {answer:?}");
            assert!(answer.body.contains(reason), "{i}: {}", answer.body);
        }
        let state = shards.0.lock();
        assert_eq!(state.names(), ["good"], "{i}");
        assert_eq!(state.of("good").samples.len(), 4, "{i}");
    }
}

#[tokio::test]
async fn partial_writes_of_2_0_say_what_was_written() {
    let shards = Shards::new(1);
    let d = shards.plain();
    let labels = [("__name__", "m"), ("a", "1")];
    let table: Vec<(Box<dyn Fn(&mut V2)>, &str)> = vec![
        (Box::new(|v| v.raw(&[1, 999], &sample_v2(1, 1.0, 0))), "outside of symbols table (size 6)"),
        (Box::new(|v| v.raw(&[1, 2, 3], &sample_v2(1, 1.0, 0))), "invalid labelRefs length 3"),
        (Box::new(|v| v.raw(&[2, 2], &sample_v2(1, 1.0, 0))), "no metric name"),
        (Box::new(|v| v.raw(&[1, 2, 0, 2], &sample_v2(1, 1.0, 0))), "a label name is empty"),
        (Box::new(|v| v.raw(&[1, 2, 3, 4, 3, 4], &sample_v2(1, 1.0, 0))), "duplicated label a"),
        (
            Box::new(|v| v.raw(&[1, 2], &[metadata_v2(1, 999, 0), sample_v2(1, 1.0, 0)].concat())),
            "metadata help_ref 999 outside of symbols table (size 6)",
        ),
        (
            Box::new(|v| v.raw(&[1, 2], &[metadata_v2(1, 0, 999), sample_v2(1, 1.0, 0)].concat())),
            "metadata unit_ref 999",
        ),
        (Box::new(|v| v.raw(&[1, 2], &exemplar_v2(&[], 1, 1.0))), "at least one sample or histogram"),
        (Box::new(|v| v.raw(&[1, 2], &[])), "at least one sample or histogram"),
        (Box::new(|v| v.raw(&[3, 4], &metadata_v2(1, 4, 0))), "no metric name"),
    ];
    for (i, (bad, reason)) in table.iter().enumerate() {
        let mut v2 = V2::default();
        v2.refs(&labels);
        let trace = v2.refs(&[("trace_id", "x")]);
        v2.symbols.truncate(6);
        bad(&mut v2);
        let fields = [sample_v2(i as i64, 2.0, 1), exemplar_v2(&trace[..0], 1, 0.5)].concat();
        v2.series(&labels, &fields);
        let answer = send(&d, 2, &v2.message()).await;
        assert_eq!(answer.status, 400, "{i}: {answer:?}");
        assert!(answer.body.contains(reason), "{i}: {}", answer.body);
        assert_eq!(written(&answer), ["1", "0", "1"], "{i}");
    }
    let state = shards.0.lock();
    assert_eq!(state.names(), [r#"m{a="1"}"#]);
    assert_eq!(state.of(r#"m{a="1"}"#).samples.len(), table.len());
}

#[tokio::test]
async fn exemplars_never_fail_a_request() {
    let shards = Shards::new(1);
    let d = shards.plain();
    let long = "x".repeat(121);
    let mut v2 = V2::default();
    let mut fields = sample_v2(1, 1.0, 0);
    for labels in
        [&[("trace_id", "abc")][..], &[], &[("trace_id", &long)], &[("a", "1"), ("a", "2")], &[("", "x")]]
    {
        fields.extend(exemplar_v2(&v2.refs(labels), 1, 1.0));
    }
    fields.extend(exemplar_v2(&[1, 999], 1, 1.0));
    v2.series(&[("__name__", "m")], &fields);
    let answer = send(&d, 2, &v2.message()).await;
    assert_eq!((answer.status, written(&answer)), (204, vec!["1".into(), "0".into(), "2".into()]));
    let one = bytes(3, &[label("trace_id", &long), double(2, 1.0), number(3, 5)].concat());
    let two = bytes(3, &[label("trace_id", "abc"), double(2, 1.0), number(3, 5)].concat());
    let body = bytes(1, &[label("__name__", "n"), sample(1, 1.0), one, two].concat());
    assert_eq!(send(&d, 1, &body).await.status, 204);
    assert_eq!(shards.0.lock().of("n").exemplars[0].labels.to_string(), r#"{trace_id="abc"}"#);
    let mut out = String::new();
    d.metrics().render(&mut out);
    assert!(out.contains("sextant_distributor_exemplars_dropped_total 5"), "{out}");
}

#[tokio::test]
async fn many_refusals_are_counted_and_the_first_are_named() {
    let shards = Shards::new(1);
    let d = shards.plain();
    let body: Vec<u8> =
        (0..500).flat_map(|i| series(&[("n", &i.to_string())], &[(1, 1.0), (2, 1.0)])).collect();
    let answer = send(&d, 1, &[body, series(&[("__name__", "m")], &[(1, 1.0)])].concat()).await;
    assert_eq!(answer.status, 400);
    assert_eq!(answer.body.lines().count(), 101);
    assert!(answer.body.ends_with("1000 samples, histograms and exemplars refused in all, 1 stored\n"));
}

#[tokio::test]
async fn what_shards_cannot_do_now_can_be_repeated() {
    let shards = Shards::new(1);
    let d = shards.plain();
    let body = series(&[("__name__", "m")], &[(1, 1.0)]);
    for (error, status) in [
        (ShardError::Unavailable("no leader".into()), 503),
        (ShardError::Overloaded("memory".into()), 429),
        (ShardError::Malformed("bug".into()), 500),
    ] {
        shards.0.lock().fail(error);
        let answer = send(&d, 1, &body).await;
        assert_eq!(answer.status, status, "{answer:?}");
        assert_eq!(header(&answer, "Retry-After").is_some(), status != 500);
    }
    assert_eq!(send(&d, 1, &body).await.status, 204);
}

#[tokio::test]
async fn symbols_do_not_multiply_into_memory() {
    let shards = Shards::new(1);
    let limits =
        TenantLimits { max_request_bytes: 1 << 20, max_label_value_length: 0, ..TenantLimits::default() };
    let d = shards.distributor(limits, Default::default());
    let mut v2 = V2::default();
    let long = "x".repeat(100_000);
    for i in 0..100 {
        let n = i.to_string();
        v2.series(&[("__name__", "m"), ("n", &n), ("v", &long)], &sample_v2(1, 1.0, 0));
    }
    let answer = send(&d, 2, &v2.message()).await;
    assert_eq!(answer.status, 413, "{answer:?}");
    assert!(answer.body.contains("max_request_bytes"), "{}", answer.body);
    assert!(shards.0.lock().stored.is_empty());
}

#[test]
fn any_bytes_are_walked_without_a_panic() {
    let mut v2 = V2::default();
    let trace = v2.refs(&[("trace_id", "x")]);
    let fields = [sample_v2(1, 1.0, 1), exemplar_v2(&trace, 1, 1.0), metadata_v2(1, 1, 1)].concat();
    v2.series(&[("__name__", "m"), ("a", "1")], &fields);
    let histogram =
        bytes(4, &[number(1, 3), double(3, 1.0), number(4, 2), bytes(11, &number(2, 1))].concat());
    let v1 = [
        bytes(1, &[label("__name__", "m"), sample(1, 1.0), histogram, label("a", "b")].concat()),
        bytes(3, &[number(1, 1), bytes(2, b"m"), bytes(4, b"help")].concat()),
        series(&[("__name__", "m"), ("job", "x")], &[(1, 0.0), (2, 3.0)]),
    ]
    .concat();
    let numbers = &mut Numbers(1);
    for message in [v1, v2.message()] {
        for n in 0..=message.len() {
            fuzz::fuzz_walk(&message[..n], false);
            fuzz::fuzz_walk(&message[..n], true);
        }
        for _ in 0..20_000 {
            let mut changed = message.clone();
            for _ in 0..1 + numbers.below(3) {
                let at = numbers.below(changed.len() as u64) as usize;
                changed[at] = numbers.next() as u8;
            }
            fuzz::fuzz_walk(&changed, false);
            fuzz::fuzz_walk(&changed, true);
            let mut block = snap::raw::Encoder::new().compress_vec(&changed).unwrap();
            let at = numbers.below(block.len() as u64) as usize;
            block[at] = numbers.next() as u8;
            fuzz::fuzz_body(&block);
        }
    }
}
