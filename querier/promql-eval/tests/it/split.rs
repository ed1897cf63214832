//! The same scripts, with every operator's work split over series as far as it says that it may be: parts of two
//! series, partial results merged. An engine that spreads a query over partitions and machines relies on this.

use std::sync::Arc;

use sextant_model::{Labels, SeriesBuf, SeriesSet};
use sextant_promql_eval::{
    EvalContext, EvalError, EvalParams, Node, RawSeries, SeriesProvider, Split, Value, finish, plan,
    testing::{Answer, EvalTime, Memory, Target, TargetQuery, answer_value},
};

use crate::scripts::run_all;

const PART: usize = 2;

#[derive(Default)]
struct InParts(Memory);

impl Target for InParts {
    fn clear(&mut self) -> Result<(), String> {
        self.0.clear()
    }

    fn load(&mut self, series: &[(Labels, SeriesBuf)]) -> Result<(), String> {
        self.0.load(series)
    }

    fn evaluate(&self, query: &TargetQuery<'_>) -> Result<Answer, String> {
        let expr = sextant_promql::parse_expr(query.text).map_err(|e| e.to_string())?;
        let params = match query.time {
            EvalTime::Instant(t) => EvalParams::instant(t),
            EvalTime::Range(from, to, step) => EvalParams::range(from, to, step),
        };
        let run = || {
            let plan = plan(&expr, &params)?;
            let ctx = EvalContext::new(params.max_samples);
            let value = self.value(&plan.root, &ctx)?;
            Ok((finish(&plan, value, &ctx)?, ctx))
        };
        let (result, ctx) = run().map_err(|e: EvalError| e.to_string())?;
        Ok(Answer {
            value: answer_value(&result),
            warnings: ctx.annotations.warnings(query.text),
            infos: ctx.annotations.infos(query.text),
        })
    }
}

impl InParts {
    fn value(&self, node: &Arc<Node>, ctx: &EvalContext) -> Result<Value, EvalError> {
        if let Some(select) = node.as_select() {
            return Ok(Value::Series(RawSeries::new(self.0.source.select(select)?)));
        }
        let mut inputs = node.children().iter().map(|c| self.value(c, ctx)).collect::<Result<Vec<_>, _>>()?;
        match node.split() {
            Split::Leaf | Split::Whole => node.apply(inputs, ctx),
            Split::PerSeries => {
                let first = inputs.remove(0);
                let mut results = Vec::new();
                for part in parts(&first) {
                    let mut all = vec![part];
                    all.extend(inputs.iter().cloned());
                    results.push(node.apply(all, ctx)?);
                }
                Ok(concat(results))
            }
            Split::Partial => {
                let mut merged = node.new_partial()?;
                for part in parts(&inputs.remove(0)) {
                    let mut partial = node.new_partial()?;
                    let Value::Vector(block) = part else { panic!("not an instant vector") };
                    node.partial(&mut partial, block, ctx)?;
                    merged.merge(partial)?;
                }
                node.finish(merged, ctx)
            }
        }
    }
}

/// At least one part, so that an operator with nothing to do still gives an empty result.
fn parts(value: &Value) -> Vec<Value> {
    match value {
        Value::Series(raw) => {
            (0..raw.len().max(1)).step_by(PART).map(|at| Value::Series(raw.slice(at..at + PART))).collect()
        }
        Value::Vector(block) => {
            let rows: Vec<usize> = (0..block.len()).collect();
            if rows.is_empty() {
                return vec![value.clone()];
            }
            rows.chunks(PART).map(|rows| Value::Vector(block.take_rows(rows))).collect()
        }
        other => vec![other.clone()],
    }
}

fn concat(values: Vec<Value>) -> Value {
    let mut values = values.into_iter();
    match values.next() {
        Some(Value::Vector(mut all)) => {
            for value in values {
                let Value::Vector(block) = value else { panic!("parts of different kinds") };
                all.append(block);
            }
            Value::Vector(all)
        }
        Some(Value::Series(first)) => {
            let mut set = SeriesSet::new();
            let mut drop_name = Vec::new();
            for value in std::iter::once(Value::Series(first)).chain(values) {
                let Value::Series(raw) = value else { panic!("parts of different kinds") };
                for i in raw.rows.clone() {
                    let (t, v) = raw.set.floats(i);
                    let buf = SeriesBuf {
                        t: t.to_vec(),
                        v: v.to_vec(),
                        start: raw.set.starts(i).to_vec(),
                        h: raw.set.histograms(i).to_vec(),
                    };
                    set.push(raw.set.labels[i].clone(), &buf);
                    drop_name.push(raw.drops_name(i));
                }
            }
            Value::Series(RawSeries::with_dropped_names(set, drop_name.into()))
        }
        Some(other) => other,
        None => panic!("no part"),
    }
}

#[test]
fn prometheus_scripts_in_parts() {
    run_all(&mut InParts::default());
}
