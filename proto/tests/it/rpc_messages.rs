//! What is asked arrives, what is answered comes back.

use bytes::{Buf as _, BufMut as _, Bytes};
use http::uri::PathAndQuery;
use sextant_model::{MatchOp, Matcher};
use sextant_proto::{
    DeleteOutcome, DeleteRequest, ErrorClass, SelectLimits, ShardClient as _, ShardError, ShardId,
    ShardStats, WriteBatchBuilder,
    rpc::{FixedPlacement, RemoteOptions, RemoteShards, endpoint},
};
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

use crate::nodes::*;

const SHARD: ShardId = ShardId(0);

#[tokio::test]
async fn every_method_comes_back_whole() {
    let cluster = Cluster::start().await;
    cluster.state.lock().set = set_of(20, 30);
    let client = cluster.client(Some(1));
    assert_eq!(client.shard_count(), 1);
    assert_eq!(client.epoch(SHARD), 0);
    let outcome = client.append(SHARD, batch(1)).await.unwrap();
    assert_eq!((outcome.epoch, outcome.new_refs, outcome.duplicate), (1, vec![0], false));
    assert!(client.append(SHARD, batch(1)).await.unwrap().duplicate);
    assert_eq!(client.epoch(SHARD), 1);

    let mut request = everything();
    request.matchers = vec![
        Matcher::equal("a", "b"),
        Matcher::new("c", MatchOp::NotRegex, "x.*y|z").unwrap(),
        Matcher::new("d", MatchOp::NotEqual, "").unwrap(),
    ];
    request.limits = SelectLimits { series_max: 20, samples_max: 600 };
    let set = set_of(20, 30);
    assert_same(&client.select(SHARD, request.clone()).await.unwrap(), &set);
    {
        let state = cluster.state.lock();
        let seen = &state.seen[0];
        let all = |r: &sextant_proto::SelectRequest| {
            let m: Vec<_> = r.matchers.iter().map(|m| (m.name.clone(), m.op, m.value.clone())).collect();
            (r.tenant.clone(), m, r.start, r.end, r.after, r.limits)
        };
        assert_eq!(all(seen), all(&request));
        assert!(seen.matchers[1].matches("other") && !seen.matchers[1].matches("z"));
    }
    assert_eq!(client.series(SHARD, everything()).await.unwrap(), set.labels);
    for label in [None, Some("pod".to_owned())] {
        let values = client.label_values(SHARD, everything(), label.clone()).await.unwrap();
        assert_eq!(values, [format!("{label:?}"), "b".repeat(2 << 20), String::new()]);
    }
    assert_eq!(client.exemplars(SHARD, everything()).await.unwrap(), exemplars());
    let metadata = client.metadata(SHARD, tenant(), 8).await.unwrap();
    assert_eq!((&*metadata[0].name, &*metadata[0].metadata.help, metadata.len()), ("up", "8", 1));
    let stats = ShardStats { series: 4, samples: 2, min_t: i64::MAX, max_t: i64::MIN };
    assert_eq!(client.stats(SHARD, tenant(), 4).await.unwrap(), stats);
    assert_eq!(client.tenants(SHARD).await.unwrap().len(), 2);
    let delete = DeleteRequest {
        tenant: tenant(),
        id: u128::MAX,
        now_ms: 3,
        selectors: vec![request.matchers],
        start: -1,
        end: 1,
    };
    let outcome = client.delete(SHARD, delete).await.unwrap();
    assert_eq!(outcome, DeleteOutcome { position: 9, pending: 3 });
    assert_eq!(cluster.state.lock().deleted[0].selectors[0].len(), 3);

    let metrics = client.metrics();
    assert_eq!((metrics.requests(), metrics.retries(), metrics.errors()), (11, 0, 0));
    let mut text = String::new();
    metrics.render_client(&mut text);
    assert!(text.contains("sextant_shard_client_requests_total{method=\"label_values\"} 2\n"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_series_come_in_parts() {
    let cluster = Cluster::start().await;
    let set = set_of(100_000, 6);
    cluster.state.lock().set = set.clone();
    let client = cluster.client(Some(1));
    assert_same(&client.select(SHARD, everything()).await.unwrap(), &set);
    assert_eq!(client.series(SHARD, everything()).await.unwrap(), set.labels);
    let found = client.find(SHARD, everything()).await.unwrap();
    // The empty one is left out.
    assert_eq!(found.iter().map(|f| f.labels().len()).collect::<Vec<_>>(), [50_000, 100_000]);
    assert_eq!((found[1].estimate(0), found[1].estimate(99_999)), (6, 6));
    for from in (0..100_000).step_by(12_345) {
        let range = from..(from + 12_345).min(100_000);
        assert_same(&found[1].read(range.clone()).await.unwrap(), &set.slice(range));
    }
    assert_eq!(found[0].labels()[1], set.labels[2]);
    assert_eq!(found[0].read(1..2).await.unwrap().v, set.slice(2..3).v);
}

#[tokio::test]
async fn more_than_the_limits_allow_is_an_error_even_where_the_node_lets_it_pass() {
    let cluster = Cluster::start().await;
    cluster.state.lock().set = set_of(10, 10);
    let client = cluster.client(Some(1));
    for (series_max, samples_max, named) in [(9, 1000, "series_max"), (10, 99, "samples_max")] {
        let request =
            sextant_proto::SelectRequest { limits: SelectLimits { series_max, samples_max }, ..everything() };
        let e = client.select(SHARD, request.clone()).await.unwrap_err();
        assert!(matches!(&e, ShardError::Limit(text) if text.contains(named)), "{e}");
        assert!(matches!(client.find(SHARD, request).await, Err(ShardError::Limit(_))));
    }
    // Of all selections together.
    for (samples_max, fits) in [(149, false), (150, true)] {
        let limits = SelectLimits { series_max: 10, samples_max };
        let request = sextant_proto::SelectRequest { limits, ..everything() };
        assert_eq!(client.find(SHARD, request).await.is_ok(), fits);
    }
}

#[tokio::test]
async fn what_a_shard_says_comes_back_at_once() {
    let cluster = Cluster::start().await;
    let client = cluster.client(Some(1));
    let text = || "why\n é".to_owned();
    let table = [
        (ShardError::StaleEpoch { current: 77 }, ErrorClass::Unavailable),
        (ShardError::Overloaded(text()), ErrorClass::TooManyRequests),
        (ShardError::Malformed(text()), ErrorClass::Internal),
        (ShardError::Limit("x".repeat(2000)), ErrorClass::Unprocessable),
    ];
    for (e, class) in table {
        cluster.mood(1, Mood::Says(e.clone()));
        let appended = client.append(SHARD, batch(1)).await.unwrap_err();
        let selected = client.select(SHARD, everything()).await.unwrap_err();
        for got in [appended, selected] {
            assert_eq!((format!("{got:?}"), got.class()), (format!("{e:?}"), class));
        }
    }
    assert_eq!(client.epoch(SHARD), 77);
    let metrics = client.metrics();
    assert_eq!((metrics.requests(), metrics.retries(), metrics.errors()), (8, 0, 8));
    // Epochs that end and go back (a log that lost its end) are followed too.
    cluster.mood(1, Mood::Well);
    let mut b = WriteBatchBuilder::default();
    b.sample(3, 1, 1.0, 0);
    let e = client.append(SHARD, b.finish(&header(5, 77))).await.unwrap_err();
    assert!(matches!(e, ShardError::StaleEpoch { current: 1 }));
    assert_eq!(client.epoch(SHARD), 1);
}

#[tokio::test]
async fn a_batch_over_the_limit_is_not_sent() {
    let cluster = Cluster::start().await;
    let client = cluster.client(Some(1));
    let large = client.append(SHARD, vec![0; 32 << 20].into()).await.unwrap_err();
    assert!(matches!(&large, ShardError::Limit(t) if t.contains("33554432")), "{large}");
    assert_eq!(cluster.state.lock().appends, 0);
    let mut b = WriteBatchBuilder::default();
    let series = b.new_series(labels(0).as_bytes(), 0);
    (0..2_000_000).for_each(|i| b.sample(series, i, 1.0, 0));
    let allowed = b.finish(&header(9, 0));
    assert!(allowed.len() > 20 << 20);
    client.append(SHARD, allowed).await.unwrap();
}

#[tokio::test]
async fn another_cluster_is_refused() {
    let cluster = Cluster::start().await;
    let mut options = RemoteOptions::new(CLUSTER + 1);
    (options.write_timeout, options.read_timeout) =
        (std::time::Duration::from_secs(1), std::time::Duration::from_secs(1));
    let client = RemoteShards::new(&FixedPlacement::new(cluster.view(Some(1))), options);
    let e = client.append(SHARD, batch(1)).await.unwrap_err().to_string();
    assert!(e.contains("this node belongs to cluster 00000000000000c1"), "{e}");
    let e = client.tenants(SHARD).await.unwrap_err().to_string();
    assert!(e.contains("this node belongs to cluster"), "{e}");
    assert_eq!(cluster.state.lock().appends, 0);
}

/// Messages as they are.
#[derive(Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let n = buffer.remaining();
        Ok(Some(buffer.copy_to_bytes(n)))
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_in_words() {
    let cluster = Cluster::start().await;
    let address = cluster.state.lock().addresses[0].clone();
    let channel = endpoint("http", &address).unwrap().connect_lazy();
    let send = async |method: &str, message: Vec<u8>| {
        let mut grpc = tonic::client::Grpc::new(channel.clone());
        grpc.ready().await.unwrap();
        let path: PathAndQuery = format!("/sextant.v1.Shards/{method}").parse().unwrap();
        let message = tonic::Request::new(Bytes::from(message));
        let status = grpc.unary(message, path, Raw).await.map(drop).unwrap_err();
        (status.code(), status.message().to_owned())
    };
    let head = |version: u8| [&[version][..], &CLUSTER.to_le_bytes(), &[0; 4]].concat();
    use tonic::Code::*;
    let table = [
        (
            "Append",
            head(2),
            InvalidArgument,
            "version 2 is not spoken here: this node reads versions up to 1",
        ),
        ("Tenants", head(0), InvalidArgument, "version 0 is not spoken here"),
        ("Tenants", vec![], InvalidArgument, "the request has no head"),
        ("Select", vec![1, 2], InvalidArgument, "the request has no head"),
        ("Select", head(1), Internal, "the request cannot be read: cut short"),
        ("Delete", head(1), Internal, "the request cannot be read: cut short"),
        ("Stats", [head(1), vec![1, b'/', 0]].concat(), Internal, "not a tenant id"),
        ("Select", vec![1; 9 << 20], OutOfRange, "message length too large"),
        ("Nothing", head(1), Unimplemented, "no such method"),
    ];
    for (method, message, code, text) in table {
        let got = send(method, message).await;
        assert!(got.0 == code && got.1.contains(text), "{method}: {got:?}, not {text}");
    }
}

#[tokio::test]
async fn the_server_ends_an_answer_whose_time_has_passed() {
    let cluster = Cluster::start().await;
    cluster.state.lock().reads_hang = true;
    let address = cluster.state.lock().addresses[0].clone();
    let mut grpc = tonic::client::Grpc::new(endpoint("http", &address).unwrap().connect_lazy());
    grpc.ready().await.unwrap();
    let select = [&[1][..], &CLUSTER.to_le_bytes(), &[0; 4], &[1, b't'], &[0; 6]].concat();
    let mut request = tonic::Request::new(Bytes::from(select));
    request.set_timeout(std::time::Duration::from_secs(1));
    let path = PathAndQuery::from_static("/sextant.v1.Shards/Select");
    // The barrier is passed; nobody drops the stream.
    let mut stream = grpc.server_streaming(request, path, Raw).await.unwrap().into_inner();
    assert_eq!(stream.message().await.unwrap_err().code(), tonic::Code::DeadlineExceeded);
    Cluster::until(&cluster.dropped, 1).await;
}
