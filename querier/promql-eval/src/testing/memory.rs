//! A store in memory that evaluates with [`crate::evaluate`].

use std::collections::BTreeMap;

use sextant_model::{Histogram, HistogramSample, Labels, ResetHint, SeriesBuf, SeriesSet, is_stale_nan};

use super::{Answer, AnswerValue, EvalTime, Target, TargetQuery};
use crate::{EvalContext, EvalError, EvalParams, QueryResult, Select, SeriesProvider, evaluate, plan};

/// Series in memory.
#[derive(Debug, Default, Clone)]
pub struct MemorySource {
    series: BTreeMap<Labels, SeriesBuf>,
}

impl MemorySource {
    /// Drops all data.
    pub fn clear(&mut self) {
        self.series.clear();
    }

    /// Adds samples behind those of a series.
    pub fn add(&mut self, labels: Labels, samples: SeriesBuf) {
        let buf = self.series.entry(labels).or_default();
        let known = buf.t.len();
        buf.t.extend(samples.t);
        buf.v.extend(samples.v);
        if !samples.start.is_empty() {
            buf.start.resize(known, 0);
            buf.start.extend(samples.start);
        }
        buf.h.extend(samples.h);
        buf.h.sort_by_key(|h| h.t);
        set_hints(&mut buf.h);
    }
}

/// Sets reset hints as Prometheus' store gives them back: within a chunk nothing was reset; a chunk begins where
/// something was or where the layout changes, and what is not written in the script is not known there.
fn set_hints(samples: &mut [HistogramSample]) {
    let mut previous: Option<Histogram> = None;
    for sample in samples {
        let h = &mut sample.h;
        if h.reset_hint == ResetHint::Gauge || is_stale_nan(h.sum) {
            previous = (!is_stale_nan(h.sum)).then(|| h.clone());
            continue;
        }
        h.reset_hint = match &previous {
            _ if h.reset_hint == ResetHint::Reset => ResetHint::Reset,
            None => ResetHint::Unknown,
            Some(p) if p.reset_hint == ResetHint::Gauge => ResetHint::Unknown,
            Some(p) if p.schema != h.schema || p.zero_threshold != h.zero_threshold => ResetHint::Unknown,
            Some(p) => {
                h.reset_hint = ResetHint::Unknown;
                if h.detect_reset(p) { ResetHint::Unknown } else { ResetHint::NoReset }
            }
        };
        previous = Some(Histogram { reset_hint: ResetHint::Unknown, ..h.clone() });
    }
}

impl SeriesProvider for MemorySource {
    fn select(&self, select: &Select) -> Result<SeriesSet, EvalError> {
        let mut out = SeriesSet::new();
        let inside = |t: i64| (select.start_ms..=select.end_ms).contains(&t);
        for (labels, buf) in &self.series {
            if !select.matchers.iter().all(|m| m.matches(labels.get(&m.name).unwrap_or(""))) {
                continue;
            }
            let mut part = SeriesBuf::default();
            for i in (0..buf.t.len()).filter(|&i| inside(buf.t[i])) {
                part.t.push(buf.t[i]);
                part.v.push(buf.v[i]);
                if !buf.start.is_empty() {
                    part.start.push(buf.start[i]);
                }
            }
            part.h = buf.h.iter().filter(|h| inside(h.t)).cloned().collect();
            if !part.is_empty() {
                out.push(labels.clone(), &part);
            }
        }
        Ok(out)
    }
}

/// The target of this crate's own tests.
#[derive(Debug, Default)]
pub struct Memory {
    /// The data.
    pub source: MemorySource,
    /// Changes the parameters of each evaluation.
    pub adjust: Option<fn(&mut EvalParams)>,
}

impl Target for Memory {
    fn clear(&mut self) -> Result<(), String> {
        self.source.clear();
        Ok(())
    }

    fn load(&mut self, series: &[(Labels, SeriesBuf)]) -> Result<(), String> {
        for (labels, buf) in series {
            self.source.add(labels.clone(), buf.clone());
        }
        Ok(())
    }

    fn evaluate(&self, query: &TargetQuery<'_>) -> Result<Answer, String> {
        let expr = sextant_promql::parse_expr(query.text).map_err(|e| e.to_string())?;
        let mut params = match query.time {
            EvalTime::Instant(t) => EvalParams::instant(t),
            EvalTime::Range(from, to, step) => EvalParams::range(from, to, step),
        };
        if let Some(adjust) = self.adjust {
            adjust(&mut params);
        }
        let plan = plan(&expr, &params).map_err(|e| e.to_string())?;
        let ctx = EvalContext::new(params.max_samples);
        let result = evaluate(&plan, &self.source, &ctx).map_err(|e| e.to_string())?;
        Ok(Answer {
            value: answer_value(&result),
            warnings: ctx.annotations.warnings(query.text),
            infos: ctx.annotations.infos(query.text),
        })
    }
}

/// A result as scripts compare it.
pub fn answer_value(result: &QueryResult) -> AnswerValue {
    match result {
        QueryResult::Scalar { v, .. } => AnswerValue::Scalar(*v),
        QueryResult::String { s, .. } => AnswerValue::String(s.to_string()),
        QueryResult::Vector(_) => AnswerValue::Vector(
            result
                .series()
                .into_iter()
                .filter_map(|s| s.points.into_iter().next().map(|(_, cell)| (s.labels, cell)))
                .collect(),
        ),
        QueryResult::Matrix(_) | QueryResult::Raw(_) => {
            AnswerValue::Matrix(result.series().into_iter().map(|s| (s.labels, s.points)).collect())
        }
    }
}
