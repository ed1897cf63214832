//! Remote write 1.0 and 2.0 through epoch changes, other numbers of shards, lost answers and odd spellings.

use std::collections::BTreeMap;

use sextant_model::{Labels, STALE_NAN_BITS, TenantId};
use sextant_proto::{ShardError, TenantLimits};

use super::{
    encode::{Numbers, V2, bytes, double, label, label_fields, number, sample, sample_v2, series},
    shards::{Shards, headers, send},
};

type Sent = BTreeMap<Labels, Vec<(i64, u64)>>;

/// One series message in one of the forms that the protocol allows, and what it says.
fn message(n: u64, t: i64, numbers: &mut Numbers, sent: &mut Sent) -> Vec<u8> {
    let (target, metric) = (format!("host-{}", n % 5), format!("metric_{}", n / 5));
    let job = if n.is_multiple_of(7) { "" } else { "api" };
    let mut labels =
        vec![("__name__", metric.as_str()), ("instance", target.as_str()), ("job", job), ("zone", "a")];
    let identity = Labels::from_pairs(labels.clone()).unwrap();
    if numbers.below(10) == 0 {
        labels.reverse();
    }
    let mut values = vec![(t, numbers.below(4) as f64)];
    if numbers.below(10) == 0 {
        values.push((t + 1, f64::from_bits(STALE_NAN_BITS)));
    }
    sent.entry(identity).or_default().extend(values.iter().map(|(t, v)| (*t, v.to_bits())));
    let fields: Vec<u8> = values.iter().flat_map(|&(t, v)| sample(t, v)).collect();
    match numbers.below(20) {
        0 => bytes(1, &[fields, label_fields(&labels)].concat()),
        1 => bytes(1, &[label_fields(&labels[..2]), fields, label_fields(&labels[2..])].concat()),
        2 => bytes(1, &[number(15, 3), label_fields(&labels), fields, bytes(9, b"later")].concat()),
        3 => {
            let all = label_fields(&labels);
            // A longer varint for the first length: another spelling of the same labels.
            let long = [&[all[0], all[1] | 0x80, 0][..], &all[2..]].concat();
            bytes(1, &[long, fields].concat())
        }
        _ => bytes(1, &[label_fields(&labels), fields].concat()),
    }
}

fn message_v2(v2: &mut V2, n: u64, t: i64, numbers: &mut Numbers, sent: &mut Sent) {
    let (target, metric) = (format!("host-{}", n % 5), format!("metric_{}", n / 5));
    let job = if n.is_multiple_of(7) { "" } else { "api" };
    let labels = [("__name__", metric.as_str()), ("instance", target.as_str()), ("job", job), ("zone", "a")];
    let v = numbers.below(4) as f64;
    sent.entry(Labels::from_pairs(labels).unwrap()).or_default().push((t, v.to_bits()));
    v2.series(&labels, &sample_v2(t, v, 0));
}

async fn run(seed: u64) {
    let numbers = &mut Numbers(seed);
    let shards = Shards::new(1 + numbers.below(4) as usize);
    let config = sextant_distributor::DistributorConfig {
        // Small enough that the cache is emptied now and then.
        cached_series_max: if numbers.below(3) == 0 { 40 } else { 10_000 },
        ..Default::default()
    };
    // Two distributors, as two connections that reach different ones.
    let distributors = [
        shards.distributor(TenantLimits::default(), config.clone()),
        shards.distributor(TenantLimits::default(), config),
    ];
    let mut sent = Sent::new();
    let mut lost = 0;
    for request in 0..60 {
        let t = 1000 + request * 15_000;
        let (from, count) = (numbers.below(40), 10 + numbers.below(40));
        let version = 1 + u32::from(numbers.below(4) == 0);
        let body = if version == 1 {
            (from..from + count).flat_map(|n| message(n, t, numbers, &mut sent)).collect::<Vec<u8>>()
        } else {
            let mut v2 = V2::default();
            (from..from + count).for_each(|n| message_v2(&mut v2, n, t, numbers, &mut sent));
            v2.message()
        };
        {
            let mut state = shards.0.lock();
            match numbers.below(12) {
                0 => state.begin_epoch(),
                1 => state.begin_epochs_before_any_append(1),
                2 => state.set_shard_count(1 + numbers.below(4) as usize),
                3 => state.lose_answer(),
                4 => state.fail(ShardError::Unavailable("no leader".into())),
                5 => state.fail(ShardError::Overloaded("memory".into())),
                _ => {}
            }
        }
        let mut attempts = 0;
        loop {
            let d = &distributors[numbers.below(2) as usize];
            let answer = send(d, version, &body).await;
            if answer.status == 204 {
                break;
            }
            assert!(matches!(answer.status, 429 | 503), "{answer:?}");
            assert!(answer.headers.iter().any(|h| h.0 == "Retry-After"), "{answer:?}");
            lost += 1;
            attempts += 1;
            assert!(attempts < 10);
        }
        shards.0.lock().begin_epochs_before_any_append(0);
    }
    let state = shards.0.lock();
    for values in sent.values_mut() {
        values.sort_unstable();
    }
    let mut arrived = Sent::new();
    for ((_, labels), stored) in &state.stored {
        let values = arrived.entry(labels.clone()).or_default();
        values.extend(stored.samples.iter().map(|(t, v, _)| (*t, *v)));
        values.sort_unstable();
    }
    let different = |a: &Sent, b: &Sent| {
        a.iter()
            .find(|(l, v)| b.get(*l) != Some(*v))
            .map(|(l, v)| (l.to_string(), v.clone(), b.get(l).cloned()))
    };
    assert_eq!(different(&sent, &arrived), None, "seed {seed}, {lost} requests repeated");
    assert_eq!(different(&arrived, &sent), None, "seed {seed}, {lost} requests repeated");
}

#[tokio::test]
async fn what_is_sent_is_what_arrives() {
    for seed in 0..60 {
        run(seed).await;
    }
}

#[tokio::test]
async fn known_series_are_sent_without_labels_and_spellings_are_one_series() {
    let shards = Shards::new(2);
    let d = shards.plain();
    let forms = [
        [("__name__", "m"), ("a", "1"), ("b", "2")],
        [("b", "2"), ("a", "1"), ("__name__", "m")],
        [("a", "1"), ("__name__", "m"), ("b", "2")],
    ];
    for t in 0..6 {
        let body = series(&forms[t as usize % 3], &[(t, 1.0)]);
        assert_eq!(send(&d, 1, &body).await.status, 204);
    }
    let mut v2 = V2::default();
    v2.series(&forms[1], &sample_v2(6, 1.0, 0));
    assert_eq!(send(&d, 2, &v2.message()).await.status, 204);
    let state = shards.0.lock();
    assert_eq!(state.new_series, 1, "labels were sent once");
    assert_eq!(state.of(r#"m{a="1", b="2"}"#).samples.len(), 7);
    assert_eq!(d.cached_series(), 4, "three spellings of 1.0 and one of 2.0");
}

#[tokio::test]
async fn a_longer_label_set_is_not_taken_for_the_predicted_one() {
    let shards = Shards::new(1);
    let d = shards.plain();
    let a = [("__name__", "a"), ("x", "1")];
    let b = [("__name__", "b"), ("x", "1")];
    let longer = [("__name__", "b"), ("x", "1"), ("y", "2")];
    let pair = |second: &[(&str, &str)], t| [series(&a, &[(t, 1.0)]), series(second, &[(t, 2.0)])].concat();
    for t in 0..3 {
        assert_eq!(send(&d, 1, &pair(&b, t)).await.status, 204);
    }
    assert_eq!(send(&d, 1, &pair(&longer, 3)).await.status, 204);
    // More labels after the sample make it another series, too.
    let late = bytes(1, &[label_fields(&b), sample(4, 3.0), label("y", "2")].concat());
    assert_eq!(send(&d, 1, &[series(&a, &[(4, 1.0)]), late].concat()).await.status, 204);
    let state = shards.0.lock();
    assert_eq!(state.of(r#"b{x="1"}"#).samples.len(), 3);
    assert_eq!(state.of(r#"b{x="1", y="2"}"#).samples.len(), 2);
}

#[tokio::test]
async fn values_pass_to_the_bit() {
    let shards = Shards::new(1);
    let d = shards.plain();
    let bits = [0, 1 << 63, STALE_NAN_BITS, 0x7ff8_0000_0000_0001, 0x7ff0_0000_0000_0000, 1];
    let values: Vec<(i64, f64)> = bits.iter().zip(-3..).map(|(b, t)| (t, f64::from_bits(*b))).collect();
    assert_eq!(send(&d, 1, &series(&[("__name__", "m")], &values)).await.status, 204);
    // One sample a message, with every field left out that may be.
    for (t, v) in &values {
        let m = [bytes(2, &[double(1, *v), number(2, (*t + 100) as u64)].concat())].concat();
        let body = bytes(1, &[label("__name__", "n"), m].concat());
        assert_eq!(send(&d, 1, &body).await.status, 204);
    }
    let empty = bytes(1, &[label("__name__", "n"), bytes(2, &[])].concat());
    assert_eq!(send(&d, 1, &empty).await.status, 204);
    let state = shards.0.lock();
    let got: Vec<u64> = state.of("m").samples.iter().map(|s| s.1).collect();
    assert_eq!(got, bits);
    let got = state.of("n").samples;
    assert_eq!(got[0], (0, 0, 0));
    assert_eq!(got[1..].iter().map(|s| s.1).collect::<Vec<_>>(), bits);
}

#[tokio::test]
async fn a_repeated_request_has_the_same_write_id_in_every_distributor() {
    let shards = Shards::new(1);
    let (a, b) = (shards.plain(), shards.plain());
    let body = series(&[("__name__", "m")], &[(1, 1.0)]);
    shards.0.lock().lose_answer();
    assert_eq!(send(&a, 1, &body).await.status, 503);
    assert_eq!(send(&b, 1, &body).await.status, 204);
    assert_eq!(send(&a, 1, &series(&[("__name__", "m")], &[(2, 1.0)])).await.status, 204);
    let state = shards.0.lock();
    assert_eq!(state.write_ids[0], state.write_ids[1]);
    assert_ne!(state.write_ids[1], state.write_ids[2]);
    assert_eq!(state.of("m").samples.len(), 2);
}

#[tokio::test]
async fn epochs_that_end_again_and_again_end_in_unavailable() {
    let shards = Shards::new(1);
    let d = shards.plain();
    let body = |t| series(&[("__name__", "m")], &[(t, 1.0)]);
    assert_eq!(send(&d, 1, &body(1)).await.status, 204);
    shards.0.lock().begin_epochs_before_any_append(1);
    assert_eq!(send(&d, 1, &body(2)).await.status, 204);
    (0..9).for_each(|n| shards.0.lock().fail(ShardError::StaleEpoch { current: n }));
    let answer = send(&d, 1, &body(3)).await;
    assert_eq!((answer.status, shards.0.lock().failures_left()), (503, 4));
}

#[tokio::test]
async fn tenants_do_not_share_series() {
    let shards = Shards::new(1);
    let d = shards.plain();
    let body = snap::raw::Encoder::new().compress_vec(&series(&[("__name__", "m")], &[(1, 1.0)])).unwrap();
    for tenant in ["a", "b"] {
        let tenant = TenantId::new(tenant).unwrap();
        let answer = d.remote_write(&tenant, &headers(1), body.clone().into()).await;
        assert_eq!(answer.status, 204);
    }
    let state = shards.0.lock();
    assert_eq!(state.stored.keys().map(|(t, _)| t.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert_ne!(state.write_ids[0], state.write_ids[1]);
}

#[tokio::test]
async fn a_target_stays_in_one_shard_and_its_metadata_is_sent_once() {
    let shards = Shards::new(4);
    let d = shards.plain();
    let mut v2 = V2::default();
    let help = v2.symbol("help");
    for i in 0..40 {
        let name = format!("metric_{}", i % 10);
        let host = format!("host-{}", i / 10);
        let labels = [("__name__", name.as_str()), ("instance", &host), ("job", "api")];
        let fields = [sample_v2(1, 1.0, 0), super::encode::metadata_v2(2, help, 0)].concat();
        v2.series(&labels, &fields);
    }
    for _ in 0..2 {
        assert_eq!(send(&d, 2, &v2.message()).await.status, 204);
    }
    shards.0.lock().begin_epoch();
    let state = shards.0.lock();
    assert_eq!(state.metadata.len(), 10);
    let mut by_host: BTreeMap<String, std::collections::BTreeSet<u32>> = BTreeMap::new();
    for (labels, places) in &state.places {
        by_host.entry(labels.get("instance").unwrap().to_owned()).or_default().extend(places);
    }
    assert!(by_host.values().all(|places| places.len() == 1), "{by_host:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_of_one_tenant_run_side_by_side() {
    side_by_side(10_000).await;
    // One request empties the cache while another is between its walk and its labels.
    side_by_side(20).await;
}

async fn side_by_side(cached_series_max: usize) {
    let shards = Shards::new(3);
    let config = sextant_distributor::DistributorConfig { cached_series_max, ..Default::default() };
    let d = std::sync::Arc::new(shards.distributor(TenantLimits::default(), config));
    let mut tasks = Vec::new();
    for c in 0..8u64 {
        let (d, shards) = (d.clone(), shards.clone());
        tasks.push(tokio::spawn(async move {
            for t in 0..40 {
                let mut body = Vec::new();
                for n in 0..30 {
                    let (name, host) = (format!("m{n}"), format!("h{}", (n + c) % 6));
                    let labels = [("__name__", name.as_str()), ("instance", &host), ("job", "j")];
                    body.extend(series(&labels, &[((t * 8 + c) as i64, c as f64)]));
                    if n == 7 {
                        // The same series once more in the request, spelt otherwise.
                        let other = [labels[1], labels[0], labels[2]];
                        body.extend(series(&other, &[((t * 8 + c) as i64 + 100_000, c as f64)]));
                    }
                }
                if t % 10 == c {
                    shards.0.lock().begin_epoch();
                }
                assert_eq!(send(&d, 1, &body).await.status, 204);
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let state = shards.0.lock();
    assert_eq!(state.stored.values().map(|s| s.samples.len()).sum::<usize>(), 8 * 40 * 31);
    for ((_, labels), stored) in &state.stored {
        let n: u64 = labels.metric_name()[1..].parse().unwrap();
        let host: u64 = labels.get("instance").unwrap()[1..].parse().unwrap();
        for (t, v, _) in &stored.samples {
            let c = f64::from_bits(*v) as u64;
            assert_eq!((t % 8) as u64, c);
            assert_eq!((n + c) % 6, host, "{labels}");
        }
    }
}
