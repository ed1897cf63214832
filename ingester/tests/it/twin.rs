//! The head against a naive twin: maps of maps, one entry per sample, no compression, no groups, no indexes.

mod ops;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use proptest::prelude::*;
use sextant_ingester::head::{
    Applied, Command, Head, TenantFlush, block_order, decode_delete, encode_delete,
};
use sextant_model::{Labels, MatchOp, Matcher, SeriesBuf, SeriesSet, TenantId};
use sextant_proto::{
    AppendOutcome, BatchHeader, DeleteRequest, RefusalKind, SERIES_DELTA, SelectLimits, SelectRequest,
    WriteBatchBuilder, WriteBatchView,
};

use ops::{Item, Op, TENANTS, Value, histogram, is_delta, labels, op};

#[derive(Clone, Default)]
struct Total {
    start: i64,
    t: i64,
    before: Option<f64>,
    total: f64,
}

type Samples = BTreeMap<i64, (Value, i64)>;
type Rows = BTreeMap<Labels, Samples>;

/// What is known of one generation.
#[derive(Default)]
struct TwinGeneration {
    end: Option<u64>,
    tenants: HashMap<usize, Rows>,
    known: HashMap<usize, BTreeSet<usize>>,
}

#[derive(Default)]
struct Twin {
    generations: Vec<TwinGeneration>,
    t_max: HashMap<usize, i64>,
    totals: HashMap<(usize, usize), Total>,
    histogram_totals: HashMap<(usize, usize), Total>,
}

impl Twin {
    fn new() -> Self {
        Self { generations: vec![TwinGeneration::default()], ..Self::default() }
    }

    /// Applies items in the order of the batch: floats, then histograms. Returns refusals by series.
    fn write(
        &mut self,
        tenant: usize,
        items: &[Item],
        window: i64,
        max_series: u64,
    ) -> BTreeMap<(usize, bool), u32> {
        let mut refused = BTreeMap::new();
        let generation = self.generations.last_mut().unwrap();
        let known = generation.known.entry(tenant).or_default();
        for i in items {
            if !known.contains(&i.series) && (max_series == 0 || (known.len() as u64) < max_series) {
                known.insert(i.series);
            }
        }
        let floor = match self.t_max.get(&tenant) {
            Some(t) if window >= 0 => t - window,
            _ => i64::MIN,
        };
        let is_float = |i: &&Item| matches!(i.value, Value::Float(_));
        let floats = items.iter().filter(is_float);
        let histograms = items.iter().filter(|i| !is_float(i));
        let mut newest = None;
        for i in floats.chain(histograms) {
            if !known.contains(&i.series) || i.t < floor {
                *refused.entry((i.series, known.contains(&i.series))).or_default() += 1;
                continue;
            }
            let (mut value, mut start) = (i.value.clone(), i.start);
            newest = newest.max(Some(i.t));
            if is_delta(i.series) {
                let is_histogram = matches!(value, Value::Histogram(_));
                let totals = if is_histogram { &mut self.histogram_totals } else { &mut self.totals };
                let v = match value {
                    Value::Float(b) => f64::from_bits(b),
                    Value::Histogram(n) => f64::from(n),
                };
                let sum = match totals.get_mut(&(tenant, i.series)) {
                    Some(x) if i.t < x.t => {
                        *refused.entry((i.series, true)).or_default() += 1;
                        continue;
                    }
                    Some(x) if v.is_nan() => {
                        start = x.start;
                        v
                    }
                    Some(x) => {
                        if i.t > x.t {
                            x.before = Some(x.total);
                        }
                        x.total = x.before.map_or(v, |b| b + v);
                        x.t = i.t;
                        start = x.start;
                        x.total
                    }
                    None => {
                        if !v.is_nan() {
                            let x = Total { start, t: i.t, before: None, total: v };
                            totals.insert((tenant, i.series), x);
                        }
                        v
                    }
                };
                value = if is_histogram { Value::Histogram(sum as u32) } else { Value::Float(sum.to_bits()) };
            }
            let rows = generation.tenants.entry(tenant).or_default();
            rows.entry(labels(i.series)).or_default().insert(i.t, (value, start));
        }
        if let Some(t) = newest {
            let max = self.t_max.entry(tenant).or_insert(t);
            *max = t.max(*max);
        }
        refused
    }

    fn seal(&mut self, position: u64) {
        self.generations.last_mut().unwrap().end = Some(position);
        self.generations.push(TwinGeneration::default());
    }

    /// Takes samples out of everything written so far.
    fn delete(&mut self, tenant: usize, selectors: &[Vec<Matcher>], range: (i64, i64), position: u64) {
        if self.generations.last().unwrap().known.contains_key(&tenant) {
            self.seal(position);
        }
        for rows in self.generations.iter_mut().filter_map(|g| g.tenants.get_mut(&tenant)) {
            for (labels, samples) in rows.iter_mut() {
                if selectors.iter().any(|s| matches(s, labels)) {
                    samples.retain(|t, _| *t < range.0 || *t > range.1);
                }
            }
            rows.retain(|_, samples| !samples.is_empty());
        }
    }

    fn read(&self, tenant: usize, after: u64, range: (i64, i64)) -> Rows {
        let mut out = Rows::new();
        for g in self.generations.iter().filter(|g| g.end.is_none_or(|e| e > after)) {
            for (labels, samples) in g.tenants.get(&tenant).into_iter().flatten() {
                let inside = samples.range(range.0..=range.1).map(|(t, s)| (*t, s.clone()));
                let mut inside = inside.peekable();
                if inside.peek().is_some() {
                    out.entry(labels.clone()).or_default().extend(inside);
                }
            }
        }
        out
    }
}

/// One comparable line per sample.
fn text_of_twin(rows: &Rows) -> Vec<String> {
    let mut out = Vec::new();
    for (labels, samples) in rows {
        for (t, (value, start)) in samples {
            match value {
                Value::Float(b) => out.push(format!("{labels} {t} {b:x} {start}")),
                Value::Histogram(n) => out.push(format!("{labels} {t} {} {start}", histogram(*n))),
            }
        }
    }
    out.sort();
    out
}

fn text_of_series(labels: &Labels, s: &SeriesBuf, out: &mut Vec<String>) {
    assert!(s.t.windows(2).all(|w| w[0] < w[1]) && s.h.windows(2).all(|w| w[0].t < w[1].t));
    for (i, (t, v)) in s.t.iter().zip(&s.v).enumerate() {
        out.push(format!("{labels} {t} {:x} {}", v.to_bits(), s.start.get(i).unwrap_or(&0)));
    }
    out.extend(s.h.iter().map(|h| format!("{labels} {} {} {}", h.t, h.h, h.start)));
}

fn text_of_set(set: &SeriesSet) -> Vec<String> {
    assert!(set.labels.windows(2).all(|w| w[0] < w[1]));
    let mut out = Vec::new();
    for (i, labels) in set.labels.iter().enumerate() {
        let (t, v) = set.floats(i);
        let s = SeriesBuf {
            t: t.to_vec(),
            v: v.to_vec(),
            start: set.starts(i).to_vec(),
            h: set.histograms(i).to_vec(),
        };
        assert!(!s.is_empty());
        text_of_series(labels, &s, &mut out);
    }
    out.sort();
    out
}

struct Run {
    head: Head,
    twin: Twin,
    log: Vec<Bytes>,
    outcomes: Vec<String>,
    refs: HashMap<(usize, u64, usize), u32>,
    /// Where each tenant's last deletion is in the log.
    deleted: HashMap<String, usize>,
    builder: WriteBatchBuilder,
}

impl Run {
    fn apply(&mut self, payload: Bytes) -> Applied {
        self.log.push(payload.clone());
        let applied = self.head.apply(self.log.len() as u64, &payload);
        self.outcomes.push(format!("{applied:?}"));
        applied
    }

    fn write(&mut self, tenant: usize, items: &[Item], window: i64, max_series: u64, by_ref: bool) {
        let epoch = self.head.epoch();
        let mut new: Vec<usize> = Vec::new();
        let mut named = HashMap::new();
        for i in items {
            let series = i.series;
            let known = self.refs.get(&(tenant, epoch, series)).filter(|_| by_ref).copied();
            let name = *named.entry(series).or_insert_with(|| {
                known.unwrap_or_else(|| {
                    new.push(series);
                    let flags = if is_delta(series) { SERIES_DELTA } else { 0 };
                    self.builder.new_series(labels(series).as_bytes(), flags)
                })
            });
            match i.value {
                Value::Float(b) => self.builder.sample(name, i.t, f64::from_bits(b), i.start),
                Value::Histogram(n) => {
                    let mut encoded = Vec::new();
                    histogram(n).encode(&mut encoded);
                    self.builder.histogram(name, i.t, i.start, &encoded);
                }
            }
        }
        let header = BatchHeader {
            tenant: TENANTS[tenant],
            write_id: (self.log.len() as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835),
            epoch,
            max_series,
            ooo_window_ms: window,
            now_ms: 0,
        };
        let payload = Command::Write(&self.builder.finish(&header)).encode();
        let Applied::Written(Ok(outcome)) = self.apply(payload) else { panic!("not written") };
        self.check_outcome(&outcome, tenant, items, &new, &named, (window, max_series));
    }

    fn check_outcome(
        &mut self,
        outcome: &AppendOutcome,
        tenant: usize,
        items: &[Item],
        new: &[usize],
        named: &HashMap<usize, u32>,
        (window, max_series): (i64, u64),
    ) {
        let refused = self.twin.write(tenant, items, window, max_series);
        let mut got: BTreeMap<(usize, bool), u32> = BTreeMap::new();
        for r in &outcome.refused {
            let series = named.iter().find(|(_, n)| **n == r.series).unwrap().0;
            *got.entry((*series, r.kind == RefusalKind::OutsideWindow)).or_default() += r.samples;
        }
        assert_eq!(got, refused);
        assert!(!outcome.duplicate);
        for (series, r) in new.iter().zip(&outcome.new_refs) {
            if *r != u32::MAX {
                self.refs.insert((tenant, outcome.epoch, *series), *r);
            }
        }
    }

    fn of(ops: &[Op]) -> Self {
        let mut run = Self {
            head: Head::new(),
            twin: Twin::new(),
            log: Vec::new(),
            outcomes: Vec::new(),
            refs: HashMap::new(),
            deleted: HashMap::new(),
            builder: WriteBatchBuilder::default(),
        };
        for op in ops {
            match op {
                Op::Write { tenant, items, window, max_series, by_ref } => {
                    run.write(*tenant, items, *window, *max_series, *by_ref);
                }
                Op::Scrapes { tenant, first, count, t, step, rows } => {
                    for row in 0..*rows as i64 {
                        let item = |k: usize| Item {
                            series: first + k,
                            t: t + row * step,
                            value: Value::Float(((row * 3 + k as i64) as f64 / 4.0).to_bits()),
                            start: if first % 7 == 0 { 9 } else { 0 },
                        };
                        let items: Vec<_> = (0..*count).map(item).collect();
                        run.write(*tenant, &items, -1, 0, true);
                    }
                }
                Op::Repeat(i) if !run.log.is_empty() => {
                    let i = i % run.log.len();
                    let payload = run.log[i].clone();
                    match Command::decode(&payload) {
                        Some(Command::Write(batch)) => {
                            // After a deletion the same batch is a new one; one that was refused is not remembered.
                            let batch = WriteBatchView::parse(batch).unwrap();
                            let stored = run.outcomes[i].contains("refused: []");
                            if stored && run.deleted.get(batch.header.tenant).is_none_or(|at| *at < i) {
                                let applied = run.apply(payload.clone());
                                let Applied::Written(Ok(o)) = applied else { panic!("not written") };
                                assert!(o.duplicate && o.refused.is_empty());
                            }
                        }
                        Some(Command::Delete(body)) => {
                            let id = decode_delete(body).unwrap().id;
                            let epoch = run.head.epoch();
                            if let Applied::Deleted(Ok(o)) = run.apply(payload.clone()) {
                                assert_eq!(u128::from(o.position) | 1 << 100, id);
                            }
                            assert_eq!(run.head.epoch(), epoch);
                        }
                        _ => {}
                    }
                }
                Op::Repeat(_) => {}
                Op::Delete { tenant, selectors, range } => {
                    let mut all = matcher_sets();
                    all.retain(|s| !s.is_empty());
                    let selectors: Vec<_> = selectors.iter().map(|i| all[i % all.len()].clone()).collect();
                    let position = run.log.len() as u64 + 1;
                    let request = DeleteRequest {
                        tenant: TenantId::new(TENANTS[*tenant]).unwrap(),
                        id: u128::from(position) | 1 << 100,
                        now_ms: 0,
                        selectors: selectors.clone(),
                        start: range.0,
                        end: range.1,
                    };
                    let payload = Command::Delete(&encode_delete(&request)).encode();
                    let Applied::Deleted(Ok(o)) = run.apply(payload) else { panic!("not deleted") };
                    assert_eq!(o.position, position);
                    run.twin.delete(*tenant, &selectors, *range, position);
                    run.deleted.insert(TENANTS[*tenant].to_owned(), run.log.len() - 1);
                }
                Op::Seal => {
                    run.apply(Command::Seal.encode());
                    run.twin.seal(run.log.len() as u64);
                }
            }
        }
        run
    }
}

fn request(tenant: usize, after: u64, range: (i64, i64), matchers: Vec<Matcher>) -> SelectRequest {
    SelectRequest {
        tenant: TenantId::new(TENANTS[tenant]).unwrap(),
        matchers,
        start: range.0,
        end: range.1,
        after,
        limits: SelectLimits::default(),
    }
}

fn matcher_sets() -> Vec<Vec<Matcher>> {
    let m = |n: &str, op, v: &str| Matcher::new(n, op, v).unwrap();
    use MatchOp::{Equal, NotEqual, NotRegex, Regex};
    vec![
        vec![],
        vec![m("__name__", Equal, "m1")],
        vec![m("instance", Equal, "")],
        vec![m("instance", NotEqual, "")],
        vec![m("instance", NotEqual, "host-0"), m("i", Regex, "1.*")],
        vec![m("instance", Regex, "host-1|"), m("__name__", NotEqual, "m0")],
        vec![m("instance", NotRegex, "host-.|x")],
        vec![m("instance", NotRegex, "host-1|")],
        vec![m("i", Regex, "3|4|5|99"), m("nothing", NotEqual, "x")],
        vec![m("nothing", Regex, ".+")],
        vec![m("kind", NotRegex, "")],
    ]
}

fn matches(matchers: &[Matcher], labels: &Labels) -> bool {
    matchers.iter().all(|m| m.matches(labels.get(&m.name).unwrap_or("")))
}

fn check_reads(head: &Head, twin: &Twin, min_after: u64) {
    let all = (i64::MIN, i64::MAX);
    let ends: Vec<u64> = twin.generations.iter().filter_map(|g| g.end).filter(|e| *e >= min_after).collect();
    let afters: BTreeSet<u64> = [min_after].into_iter().chain(ends).collect();
    for tenant in 0..TENANTS.len() {
        for &after in &afters {
            for range in [all, (0, 2500), (2500, 2500), (7001, 90_000)] {
                let want = twin.read(tenant, after, range);
                let got = head.select(&request(tenant, after, range, vec![])).unwrap();
                assert_eq!(text_of_set(&got), text_of_twin(&want), "after {after} range {range:?}");
            }
            for matchers in matcher_sets() {
                let range = (100, 40_000);
                let mut want = twin.read(tenant, after, range);
                want.retain(|l, _| matches(&matchers, l));
                let r = request(tenant, after, range, matchers.clone());
                assert_eq!(text_of_set(&head.select(&r).unwrap()), text_of_twin(&want), "{matchers:?}");
                let mut series = head.series(&r).unwrap();
                series.sort();
                assert_eq!(series, want.keys().cloned().collect::<Vec<_>>(), "{matchers:?}");
                let values = |name| {
                    want.keys().filter_map(|l| l.get(name)).map(str::to_owned).collect::<BTreeSet<_>>()
                };
                assert_eq!(
                    head.label_values(&r, Some("instance")).unwrap(),
                    Vec::from_iter(values("instance"))
                );
                let names: BTreeSet<String> = want
                    .keys()
                    .flat_map(|l| l.iter().map(|(n, _)| n.to_owned()).collect::<Vec<_>>())
                    .collect();
                assert_eq!(head.label_values(&r, None).unwrap(), Vec::from_iter(names));
            }
        }
    }
}

fn check_flush(head: &Head, twin: &Twin) {
    for (generation, want) in head.sealed().iter().zip(&twin.generations) {
        for tenant in generation.tenants() {
            let i = TENANTS.iter().position(|t| *t == tenant.id().as_str()).unwrap();
            let flush = TenantFlush::new(tenant);
            let (mut text, mut buf) = (Vec::new(), SeriesBuf::default());
            let mut times: HashMap<u64, Vec<i64>> = HashMap::new();
            for k in 0..flush.len() {
                flush.read(k, &mut buf);
                text_of_series(&flush.labels(k), &buf, &mut text);
                if let Some(key) = flush.time_key(k) {
                    assert!(buf.h.is_empty());
                    assert_eq!(times.entry(key).or_insert_with(|| buf.t.clone()), &buf.t);
                }
                assert!(k == 0 || block_order(&flush.labels(k - 1), &flush.labels(k)).is_lt());
            }
            text.sort();
            assert_eq!(text, text_of_twin(want.tenants.get(&i).unwrap_or(&Rows::new())));
        }
    }
}

fn check(ops: &[Op]) {
    let run = Run::of(ops);
    check_reads(&run.head, &run.twin, 0);
    check_flush(&run.head, &run.twin);

    let again = Head::new();
    for (i, payload) in run.log.iter().enumerate() {
        assert_eq!(format!("{:?}", again.apply(i as u64 + 1, payload)), run.outcomes[i]);
    }
    check_reads(&again, &run.twin, 0);

    let Some(last) = run.head.sealed().last().cloned() else { return };
    let position = last.end().unwrap();
    let restored = Head::new();
    let (index, checkpoint) = last.checkpoint().unwrap();
    assert_eq!(index, position);
    restored.restore(index, &checkpoint).unwrap();
    for i in position as usize..run.log.len() {
        let outcome = format!("{:?}", restored.apply(i as u64 + 1, &run.log[i]));
        // What a deletion answers depends on the generations in memory.
        let same = outcome == run.outcomes[i] || run.outcomes[i].starts_with("Deleted(");
        assert!(same, "{outcome} and {}", run.outcomes[i]);
    }
    check_reads(&restored, &run.twin, position);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_head_reads_as_its_twin(ops in proptest::collection::vec(op(), 1..25)) {
        check(&ops);
    }
}
