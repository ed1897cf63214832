//! Prometheus' own test scripts, loaded through the write path and evaluated from the head and again from merged blocks.

use std::sync::atomic::{AtomicU32, Ordering};

use sextant_model::{Labels, SeriesBuf, TenantId};
use sextant_promql_eval::{
    QueryKind,
    testing::{Answer, EvalTime, Target, TargetQuery, answer_value, parse_script, run_script},
};
use sextant_proto::{SeriesWrite, WriteRequest, WriteSink};
use sextant_querier::PromQuery;

use crate::stack::{Stack, conformance};

/// Every eval passes, wherever the samples are.
const EVALS: usize = 1_671;

/// Where samples are when they are read.
#[derive(Clone, Copy, Debug, PartialEq)]
enum From {
    Head,
    Flushed,
    Merged,
}

static NEXT_TENANT: AtomicU32 = AtomicU32::new(0);

struct Written<'a> {
    stack: &'a Stack,
    runtime: &'a tokio::runtime::Runtime,
    tenant: TenantId,
    from: From,
}

fn new_tenant() -> TenantId {
    TenantId::new(&format!("t{}", NEXT_TENANT.fetch_add(1, Ordering::Relaxed))).unwrap()
}

impl Target for Written<'_> {
    fn clear(&mut self) -> Result<(), String> {
        self.tenant = new_tenant();
        Ok(())
    }

    fn load(&mut self, series: &[(Labels, SeriesBuf)]) -> Result<(), String> {
        let series = series
            .iter()
            .map(|(labels, buf)| SeriesWrite {
                labels: labels.clone(),
                samples: buf
                    .t
                    .iter()
                    .zip(&buf.v)
                    .enumerate()
                    .map(|(i, (&t, &v))| sextant_model::Sample {
                        t,
                        v,
                        start: buf.start.get(i).copied().unwrap_or(0),
                    })
                    .collect(),
                histograms: buf.h.clone(),
                ..SeriesWrite::default()
            })
            .collect();
        let request = WriteRequest { series, ..WriteRequest::default() };
        let write = self.stack.distributor.write(&self.tenant, request);
        let summary = self.runtime.block_on(write).map_err(|e| e.to_string())?;
        for refused in &summary.refused {
            println!("  refused: {}: {}", refused.series, refused.reason);
        }
        match self.from {
            From::Head => {}
            From::Flushed => {
                self.runtime.block_on(self.stack.ingester.flush_now()).map_err(|e| e.to_string())?
            }
            From::Merged => self.runtime.block_on(self.stack.flush_and_compact(&self.tenant)),
        }
        Ok(())
    }

    fn evaluate(&self, query: &TargetQuery<'_>) -> Result<Answer, String> {
        let (kind, start, end, step) = match query.time {
            EvalTime::Instant(t) => (QueryKind::Instant, t, t, 0),
            EvalTime::Range(start, end, step) => (QueryKind::Range, start, end, step),
        };
        let question = PromQuery {
            query: query.text.to_owned(),
            kind,
            start,
            end,
            step,
            timeout: None,
            lookback: None,
            partial: false,
        };
        let tenants = [self.tenant.clone()];
        let answer = self
            .runtime
            .block_on(self.stack.querier.promql(&tenants, question))
            .map_err(|e| e.to_string())?;
        Ok(Answer { value: answer_value(&answer.result), warnings: answer.warnings, infos: answer.infos })
    }
}

fn run(from: From) {
    let Some(folder) = conformance("promql") else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let stack = runtime.block_on(Stack::start(2));
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "test"))
        .collect();
    files.sort();
    let (mut passed, mut total) = (0, 0);
    for file in files {
        let script = parse_script(&std::fs::read_to_string(&file).unwrap()).unwrap();
        let mut target = Written { stack: &stack, runtime: &runtime, tenant: new_tenant(), from };
        let report = run_script(&script, &mut target).unwrap();
        println!(
            "{}: {} passed, {} failed",
            file.file_name().unwrap().to_string_lossy(),
            report.passed(),
            report.outcomes.len() - report.passed()
        );
        for f in report.failures() {
            println!("  {}: {}: {}", f.line, f.query, f.failure.as_deref().unwrap_or(""));
        }
        passed += report.passed();
        total += report.outcomes.len();
    }
    println!("promql scripts, {from:?}: {passed} of {total} passed");
    assert!(passed == total && total >= EVALS, "{passed} of {total} passed");
    runtime.block_on(stack.ingester.shutdown());
}

#[test]
fn promql_scripts_from_the_head() {
    run(From::Head);
}

#[test]
fn promql_scripts_from_flushed_blocks() {
    run(From::Flushed);
}

#[test]
fn promql_scripts_from_merged_blocks() {
    run(From::Merged);
}
