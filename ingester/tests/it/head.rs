//! Exemplars, metadata, counts and limits of the head.

use sextant_ingester::head::{Applied, Command, Head, TenantFlush};
use sextant_model::{Labels, Matcher, MetricMetadata, MetricType};
use sextant_proto::{
    AppendOutcome, BatchHeader, RefusalKind, SelectLimits, SelectRequest, ShardError, WriteBatchBuilder,
};

use crate::support::{ALL, tenant};

fn labels(name: &str, i: usize) -> Labels {
    Labels::from_pairs([("__name__", name.to_owned()), ("i", i.to_string())]).unwrap()
}

fn request(matchers: Vec<Matcher>, after: u64) -> SelectRequest {
    SelectRequest {
        tenant: tenant("a"),
        matchers,
        start: ALL.0,
        end: ALL.1,
        after,
        limits: SelectLimits::default(),
    }
}

struct Log {
    head: Head,
    index: u64,
    builder: WriteBatchBuilder,
}

impl Log {
    fn new() -> Self {
        Self { head: Head::new(), index: 0, builder: WriteBatchBuilder::default() }
    }

    fn apply(&mut self, payload: &[u8]) -> Applied {
        self.index += 1;
        self.head.apply(self.index, payload)
    }

    fn finish(&mut self, max_series: u64, ooo_window_ms: i64) -> Result<AppendOutcome, ShardError> {
        let header = BatchHeader {
            tenant: "a",
            write_id: u128::from(self.index),
            epoch: self.head.epoch(),
            max_series,
            ooo_window_ms,
            now_ms: 0,
        };
        let payload = Command::Write(&self.builder.finish(&header)).encode();
        match self.apply(&payload) {
            Applied::Written(outcome) => outcome,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn exemplars_and_metadata_come_back_from_memory_and_for_blocks() {
    let mut log = Log::new();
    let trace = Labels::from_pairs([("trace_id", "abc")]).unwrap();
    let counter = MetricMetadata { metric_type: MetricType::Counter, help: "h".into(), unit: "s".into() };
    for round in 0..3 {
        for i in 0..3 {
            let r = log.builder.new_series(labels("m_total", i).as_bytes(), 0);
            log.builder.sample(r, round * 10, 1.0, 0);
            if i > 0 {
                // The same exemplar in each round, and one of its own.
                log.builder.exemplar(r, 5, 0.5, trace.as_bytes());
                log.builder.exemplar(r, 5 + round, 0.5, trace.as_bytes());
            }
        }
        let help = MetricMetadata { help: format!("h{round}"), ..counter.clone() };
        log.builder.metadata("m", &help);
        log.builder.metadata("m", &counter);
        log.finish(0, -1).unwrap();
        if round < 2 {
            log.apply(&Command::Seal.encode());
        }
    }
    let found = log.head.exemplars(&request(vec![], 0)).unwrap();
    let names: Vec<_> = found.iter().map(|e| (e.labels.clone(), e.exemplars.len())).collect();
    assert_eq!(names, [(labels("m_total", 1), 3), (labels("m_total", 2), 3)]);
    let last = log.head.sealed()[1].end().unwrap();
    let found = log.head.exemplars(&request(vec![Matcher::equal("i", "2")], last)).unwrap();
    assert_eq!(found[0].exemplars.iter().map(|e| e.t).collect::<Vec<_>>(), [5, 7]);
    let metadata = log.head.metadata(&tenant("a"), 0).unwrap();
    let helps: Vec<_> = metadata.iter().map(|e| (e.name.as_str(), e.metadata.help.as_str())).collect();
    assert_eq!(helps, [("m", "h"), ("m", "h2"), ("m", "h1"), ("m", "h0")]);
    assert_eq!(log.head.metadata(&tenant("a"), last).unwrap().len(), 2);
    let stats = log.head.stats(&tenant("a"), 0).unwrap();
    assert_eq!((stats.series, stats.samples, stats.min_t, stats.max_t), (3, 9, 0, 20));
    assert_eq!(log.head.tenants(), [tenant("a")]);
    assert_eq!(log.head.stats(&tenant("b"), 0).unwrap().min_t, i64::MAX);

    let flush = TenantFlush::new(log.head.sealed()[1].tenants().remove(0));
    assert_eq!((flush.len(), flush.exemplars(0).len(), flush.exemplars(1).len()), (3, 0, 2));
    assert_eq!(flush.metadata(0).unwrap().help, "h");
    assert_eq!(flush.families().len(), 2);
}

#[test]
fn limits_are_errors_and_refusals_never_cut_answers() {
    let mut log = Log::new();
    for i in 0..5 {
        let r = log.builder.new_series(labels("m", i).as_bytes(), 0);
        log.builder.sample(r, 1000, 1.0, 0);
    }
    let outcome = log.finish(3, -1).unwrap();
    assert_eq!(outcome.new_refs, [0, 1, 2, u32::MAX, u32::MAX]);
    assert!(outcome.refused.iter().all(|r| r.kind == RefusalKind::SeriesLimit && r.samples == 1));
    log.builder.sample(0, 899, 1.0, 0);
    log.builder.sample(1, 900, 1.0, 0);
    let outcome = log.finish(0, 100).unwrap();
    assert_eq!((outcome.refused.len(), outcome.refused[0].kind), (1, RefusalKind::OutsideWindow));

    let mut r = request(vec![], 0);
    assert_eq!(log.head.select(&r).unwrap().sample_count(), 4);
    r.limits = SelectLimits { series_max: 3, samples_max: 4 };
    assert_eq!(log.head.select(&r).unwrap().sample_count(), 4);
    r.limits.samples_max = 3;
    assert!(matches!(log.head.select(&r), Err(ShardError::Limit(e)) if e.contains("3 samples")));
    r.limits = SelectLimits { series_max: 2, samples_max: 100 };
    assert!(matches!(log.head.select(&r), Err(ShardError::Limit(e)) if e.contains("2 series")));
    assert!(matches!(log.head.series(&r), Err(ShardError::Limit(_))));
}

#[test]
fn a_batch_that_is_wrong_leaves_nothing_behind() {
    let mut log = Log::new();
    let fresh = log.builder.new_series(labels("m", 0).as_bytes(), 0);
    log.builder.sample(fresh, 1, 1.0, 0);
    log.builder.new_series(b"\x01b\x01x\x01a\x01x", 0);
    assert!(matches!(log.finish(0, -1), Err(ShardError::Malformed(_))));
    let fresh = log.builder.new_series(labels("m", 0).as_bytes(), 0);
    log.builder.histogram(fresh, 1, 0, b"no histogram");
    assert!(matches!(log.finish(0, -1), Err(ShardError::Malformed(_))));
    log.builder.sample(7, 1, 1.0, 0);
    assert!(matches!(log.finish(0, -1), Err(ShardError::Malformed(_))));
    assert!(log.head.active().is_empty());
    assert!(matches!(log.apply(b"\xff"), Applied::Unknown));
}

#[test]
fn a_manifest_older_than_the_grace_time_is_an_error_not_a_partial_answer() {
    let mut log = Log::new();
    let r = log.builder.new_series(labels("m", 0).as_bytes(), 0);
    log.builder.sample(r, 1, 1.0, 0);
    log.finish(0, -1).unwrap();
    log.apply(&Command::Seal.encode());
    let end = log.head.sealed()[0].end().unwrap();
    log.apply(&Command::Flushed(end).encode());
    assert_eq!(log.head.select(&request(vec![], 0)).unwrap().len(), 1);
    assert_eq!(log.head.reap(end, std::time::Duration::from_secs(60)), 0);
    assert_eq!(log.head.reap(end - 1, std::time::Duration::ZERO), 0);
    assert_eq!(log.head.reap(end, std::time::Duration::ZERO), 1);
    assert!(matches!(log.head.select(&request(vec![], 0)), Err(ShardError::Unavailable(_))));
    assert!(log.head.select(&request(vec![], end)).unwrap().is_empty());
}
