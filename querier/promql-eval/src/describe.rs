//! Plans as text, for EXPLAIN.

use std::fmt::Write as _;

use crate::{
    node::{Node, Operator},
    plan::{Plan, describe_selector},
    select::{InstantOutput, SelectorTime},
};

impl Node {
    /// One line: the operator with what decides its result.
    pub fn describe(&self) -> String {
        match &self.operator {
            Operator::Select(s) => {
                format!("Select #{} {} [{}, {}]", s.id, describe_selector(&s.matchers), s.start_ms, s.end_ms)
            }
            Operator::Number(v) => format!("Number {v}"),
            Operator::Text(s) => format!("String {s:?}"),
            Operator::Time => "Time".to_owned(),
            Operator::Totals(_) => "HistogramTotals".to_owned(),
            Operator::InstantSelect(op) => {
                let what = match op.output {
                    InstantOutput::Value => "",
                    InstantOutput::Timestamp => " timestamp",
                    InstantOutput::StartTimestamp => " start_timestamp",
                    InstantOutput::Smoothed => " smoothed",
                    InstantOutput::InfoTimestamp => " info",
                };
                format!("InstantSelect{what} {}{} lookback={}ms", op.text, time(&op.time), op.lookback_ms)
            }
            Operator::RangeFunction(op) => {
                let mut out =
                    format!("RangeFunction {}({}{})", op.kind.name(), op.window.text, time(&op.window.time));
                for (word, used) in [(" anchored", op.window.anchored), (" smoothed", op.window.smoothed)] {
                    if used {
                        out.push_str(word);
                    }
                }
                out
            }
            Operator::Subquery(op) => {
                let step = self.children.first().map_or(0, |c| c.steps.step_ms);
                format!("Subquery range={}ms step={step}ms{}", op.range_ms, time(&op.time))
            }
            Operator::Broadcast => format!("StepInvariant steps={}", self.steps.count),
            Operator::Negate => "Negate".to_owned(),
            Operator::Elementwise(op) => format!("Map {}", op.name()),
            Operator::HistogramStatistic(op) => format!("Map {}", op.name),
            Operator::VectorScalar(op) => {
                let side = if op.scalar_first { "scalar first" } else { "vector first" };
                format!(
                    "VectorScalar {}{} ({side})",
                    op.op.as_str(),
                    if op.return_bool { " bool" } else { "" }
                )
            }
            Operator::ScalarBinary(op) => format!("ScalarBinary {}", op.op.as_str()),
            Operator::ScalarFunction(op) => format!("ScalarFunction {}", op.name()),
            Operator::VectorBinary(op) => {
                format!("VectorBinary {}{}", op.op.as_str(), matching(&op.matching))
            }
            Operator::SetOperation(op) => {
                format!("SetOperation {}{}", op.op.as_str(), matching(&op.matching))
            }
            Operator::Aggregate(op) => format!("Aggregate {}{}", op.kind.name(), op.grouping.describe()),
            Operator::Absent(op) => format!("Absent {}", op.labels),
            Operator::Rank(op) => format!("Rank {}{}", op.op.as_str(), op.grouping.describe()),
            Operator::QuantileAggregate(op) => format!("Quantile{}", op.grouping.describe()),
            Operator::CountValues(op) => op.describe(),
            Operator::HistogramQuantile(op) => op.name().to_owned(),
            Operator::LabelRewrite(op) => op.describe(),
            Operator::Sort(op) => op.name().to_owned(),
            Operator::Info(_) => "Info".to_owned(),
        }
    }
}

fn time(time: &SelectorTime) -> String {
    let mut out = String::new();
    if let Some(at) = time.at_ms {
        let _ = write!(out, " @ {at}ms");
    }
    if time.offset_ms != 0 {
        let _ = write!(out, " offset {}ms", time.offset_ms);
    }
    out
}

fn matching(m: &sextant_promql::VectorMatching) -> String {
    let mut out = format!(" {}", m.card.as_str());
    if m.on || !m.labels.is_empty() {
        let _ = write!(out, " {} ({})", if m.on { "on" } else { "ignoring" }, m.labels.join(", "));
    }
    out
}

impl Plan {
    /// The tree as indented lines, the root first.
    pub fn describe(&self) -> String {
        let mut out = String::new();
        let mut todo = vec![(&self.root, 0)];
        while let Some((node, depth)) = todo.pop() {
            let _ = writeln!(out, "{:indent$}{}", "", node.describe(), indent = depth * 2);
            todo.extend(node.children.iter().rev().map(|c| (c, depth + 1)));
        }
        out
    }
}
