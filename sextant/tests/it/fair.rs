//! One tenant's heavy queries and another's light one: whose turn it is, and what is refused.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use sextant_model::{Labels, Sample, TenantId};
use sextant_promql_eval::QueryKind;
use sextant_proto::{SeriesWrite, WriteRequest, WriteSink};
use sextant_querier::{PromQuery, QueryError};

use crate::stack::Stack;

const HEAVY: usize = 1000;
/// Places for queries, of which one tenant may have three quarters.
const PLACES: usize = 20;

fn query(text: &str) -> PromQuery {
    PromQuery {
        query: text.to_owned(),
        kind: QueryKind::Instant,
        start: 3_600_000,
        end: 3_600_000,
        step: 0,
        timeout: None,
        lookback: None,
        partial: false,
    }
}

/// A light query may begin at once, since the other tenant never has all places; so it waits for no more heavy ones than those
/// that run beside it and get their share of the cores, when it begins and where it goes on: at most twice [`PLACES`] end before it
/// does, of a thousand.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_light_query_is_not_behind_a_thousand_heavy_ones() {
    let stack = Stack::start(1).await;
    let (heavy, light) = (TenantId::new("heavy").unwrap(), TenantId::new("light").unwrap());
    for tenant in [&heavy, &light] {
        let series = (0..20)
            .map(|i| SeriesWrite {
                labels: Labels::from_pairs([("__name__", "m"), ("i", &i.to_string())]).unwrap(),
                samples: (0..240).map(|t| Sample { t: t * 15_000, v: (t * i) as f64, start: 0 }).collect(),
                ..SeriesWrite::default()
            })
            .collect();
        stack.distributor.write(tenant, WriteRequest { series, ..WriteRequest::default() }).await.unwrap();
    }
    let (ended, refused) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..HEAVY {
        let (querier, heavy) = (stack.querier.clone(), heavy.clone());
        let (ended, refused) = (ended.clone(), refused.clone());
        tasks.spawn(async move {
            match querier.promql(&[heavy], query("sum(max_over_time(rate(m[5m])[50m:1s]))")).await {
                Ok(_) => ended.fetch_add(1, SeqCst),
                Err(QueryError::Overloaded(text)) => {
                    assert!(text.contains("max_queued_queries (256)"), "{text}");
                    refused.fetch_add(1, SeqCst)
                }
                Err(e) => panic!("{e}"),
            };
        });
    }
    // All have come when what the queue does not take is refused.
    let taken = 256 + PLACES * 3 / 4;
    while refused.load(SeqCst) + ended.load(SeqCst) < HEAVY - taken {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    for _ in 0..10 {
        let before = ended.load(SeqCst);
        stack.querier.promql(std::slice::from_ref(&light), query("m{i=\"3\"}")).await.unwrap();
        let between = ended.load(SeqCst) - before;
        assert!(between <= 2 * PLACES, "{between} heavy queries ended before a light one");
    }
    assert!(ended.load(SeqCst) < taken, "the heavy queries were over too soon to tell");
    tasks.abort_all();
}
