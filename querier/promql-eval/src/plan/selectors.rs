//! Selectors: from syntax to leaves and the operators right above them.

use std::sync::Arc;

use sextant_model::{METRIC_NAME, MatchOp, Matcher};
use sextant_promql::{AtModifier, MatrixSelector, VectorSelector};

use super::{Histograms, Planner, Scope, SelectorRange};
use crate::{
    error::EvalError,
    histogram::HistogramTotals,
    node::{Node, Operator},
    range::{RangeFunction, RangeKind, Window},
    select::{InstantOutput, InstantSelect, SelectorTime},
};

impl Planner<'_> {
    pub(super) fn selector_time(&self, at: Option<AtModifier>, offset_ms: i64) -> SelectorTime {
        let at_ms = at.map(|at| match at {
            AtModifier::Timestamp(t) => t,
            AtModifier::Start => self.params.start_ms,
            AtModifier::End => self.params.end_ms,
        });
        SelectorTime { at_ms, offset_ms }
    }

    pub(super) fn instant_selector(
        &mut self,
        v: &VectorSelector,
        scope: &Scope<'_>,
    ) -> Result<Arc<Node>, EvalError> {
        let output = if v.smoothed { InstantOutput::Smoothed } else { InstantOutput::Value };
        self.instant(v, output, scope)
    }

    pub(super) fn instant(
        &mut self,
        v: &VectorSelector,
        output: InstantOutput,
        scope: &Scope<'_>,
    ) -> Result<Arc<Node>, EvalError> {
        let time = self.selector_time(v.at, v.offset_ms);
        let leaf = self.leaf(v, &time, 0, scope);
        Ok(self.instant_over(leaf, &v.matchers, time, output, v.pos, scope))
    }

    pub(super) fn instant_over(
        &self,
        leaf: Arc<Node>,
        matchers: &[Matcher],
        time: SelectorTime,
        output: InstantOutput,
        pos: sextant_promql::PosRange,
        scope: &Scope<'_>,
    ) -> Arc<Node> {
        let op = InstantSelect {
            text: selector_text(matchers).into(),
            time,
            lookback_ms: self.params.lookback_ms,
            output,
            pos,
            weight: scope.weight,
            first_user: scope.first_user.clone(),
        };
        Node::new(Operator::InstantSelect(op), vec![leaf], scope.steps)
    }

    /// A range selector at the top of an instant query.
    pub(super) fn raw_selector(
        &mut self,
        m: &MatrixSelector,
        scope: &Scope<'_>,
    ) -> Result<Arc<Node>, EvalError> {
        let (leaf, window) = self.matrix_selector(m, scope);
        let op = RangeFunction {
            pos: m.pos,
            weight: scope.weight,
            first_user: Some(scope.first_user.clone()),
            ..RangeFunction::new(RangeKind::Raw, window)
        };
        Ok(Node::new(Operator::RangeFunction(op), vec![leaf], scope.steps))
    }

    pub(super) fn matrix_selector(&mut self, m: &MatrixSelector, scope: &Scope<'_>) -> (Arc<Node>, Window) {
        let v = &m.selector;
        let time = self.selector_time(v.at, v.offset_ms);
        let leaf = self.leaf(v, &time, m.range_ms, scope);
        let window = Window {
            time,
            range_ms: m.range_ms,
            lookback_ms: self.params.lookback_ms,
            anchored: v.anchored,
            smoothed: v.smoothed,
            text: format!("{}[{}]", selector_text(&v.matchers), duration_text(m.range_ms)).into(),
        };
        (leaf, window)
    }

    fn leaf(
        &mut self,
        v: &VectorSelector,
        time: &SelectorTime,
        range_ms: i64,
        scope: &Scope<'_>,
    ) -> Arc<Node> {
        let lookback = self.params.lookback_ms;
        let (mut start, mut end) = time.at_ms.map_or(scope.span, |t| (t, t));
        // Windows and the look-back are open on the left: the millisecond at their far end is not needed.
        let before = match range_ms {
            0 => lookback,
            _ if v.anchored || v.smoothed => lookback.saturating_add(range_ms),
            _ => range_ms,
        };
        start = start.saturating_sub(before - 1);
        if v.smoothed {
            end = end.saturating_add(lookback);
        }
        let request = SelectorRange {
            matchers: v.matchers.as_slice().into(),
            start_ms: start.saturating_sub(v.offset_ms),
            end_ms: end.saturating_sub(v.offset_ms),
            step_ms: scope.step_ms,
            range_ms,
            function: scope.above,
        };
        let leaf = self.leaves.leaf(request, scope.steps);
        if scope.histograms == Histograms::Totals {
            return Node::new(Operator::Totals(HistogramTotals), vec![leaf], scope.steps);
        }
        leaf
    }

    /// The leaf of `info`'s second argument: the info series around the reference time of the first argument.
    pub(super) fn info_leaf(
        &mut self,
        matchers: &[Matcher],
        time: &SelectorTime,
        scope: &Scope<'_>,
    ) -> Arc<Node> {
        let (start, end) = time.at_ms.map_or(scope.span, |t| (t, t));
        let request = SelectorRange {
            matchers: matchers.into(),
            start_ms: start.saturating_sub(time.offset_ms).saturating_sub(self.params.lookback_ms - 1),
            end_ms: end.saturating_sub(time.offset_ms),
            step_ms: scope.step_ms,
            range_ms: 0,
            function: "info",
        };
        self.leaves.leaf(request, scope.steps)
    }
}

/// Matchers as a selector: `name{a="b"}`.
pub fn selector_text(matchers: &[Matcher]) -> String {
    let name = matchers.iter().find(|m| m.name == METRIC_NAME && m.op == MatchOp::Equal);
    let rest: Vec<String> =
        matchers.iter().filter(|m| !name.is_some_and(|n| n == *m)).map(ToString::to_string).collect();
    let name = name.map_or("", |m| m.value.as_str());
    if rest.is_empty() && !name.is_empty() {
        name.to_owned()
    } else {
        format!("{name}{{{}}}", rest.join(","))
    }
}

/// Milliseconds in the largest unit that divides them.
pub(super) fn duration_text(ms: i64) -> String {
    for (unit, size) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)] {
        if ms != 0 && ms % size == 0 {
            return format!("{}{unit}", ms / size);
        }
    }
    format!("{ms}ms")
}
