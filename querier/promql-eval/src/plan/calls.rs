//! Function calls: which operator computes which function.

use std::sync::Arc;

use sextant_model::{METRIC_NAME, MatchOp, Matcher};
use sextant_promql::{CallExpr, Expr, PosRange, ValueType, VectorSelector};

use super::{Histograms, Planner, Scope};
use crate::{
    date::DatePart,
    error::EvalError,
    functions::{Absent, Elementwise, ElementwiseKind, MathFunction, ScalarFunction, Sort, SortKey},
    histogram::{HistogramQuantile, HistogramStatistic, QuantileOutput},
    info::Info,
    labels::LabelRewrite,
    node::{Node, Operator},
    range::{RangeFunction, RangeKind},
    select::{InstantOutput, SelectorTime},
    step_counts::FirstUser,
};

/// The range vector that a function looks at.
struct Ranged {
    series: Arc<Node>,
    window: crate::range::Window,
    pos: PosRange,
    first_user: Option<FirstUser>,
}

impl Ranged {
    fn boxed(
        series: Arc<Node>,
        window: crate::range::Window,
        pos: PosRange,
        first_user: Option<FirstUser>,
    ) -> Box<Self> {
        Box::new(Self { series, window, pos, first_user })
    }
}

impl Planner<'_> {
    pub(super) fn call(&mut self, call: &CallExpr, scope: &Scope<'_>) -> Result<Arc<Node>, EvalError> {
        let mut scope = scope.under(call.func.name);
        if HistogramStatistic::needs_totals_only(call.func.name) {
            if scope.histograms == Histograms::Any {
                scope.histograms = Histograms::Totals;
            }
        } else if matches!(
            call.func.name,
            "histogram_quantile" | "histogram_quantiles" | "histogram_fraction"
        ) {
            scope = scope.needing_buckets();
        }
        let scope = &scope;
        let name = call.func.name;
        if let Some(kind) = RangeKind::of(name) {
            return self.range_function(call, kind, scope);
        }
        match name {
            "timestamp" | "start_timestamp" => return self.timestamp(call, scope),
            "absent_over_time" => return self.absent_over_time(call, scope),
            "info" => return self.info(call, scope),
            "histogram_quantile" | "histogram_quantiles" | "histogram_fraction" => {
                return self.histogram_quantile(call, scope);
            }
            _ => {}
        }
        let operator = self.call_operator(call, scope)?;
        let children = self.vector_and_scalar_args(call, scope)?;
        Ok(Node::new(operator, children, scope.steps))
    }

    /// The operator of a call whose inputs are its arguments. Apart from the recursion, so that a level of it takes
    /// little stack.
    fn call_operator(&self, call: &CallExpr, scope: &Scope<'_>) -> Result<Operator, EvalError> {
        let name = call.func.name;
        let seconds = |ms: i64| Operator::Number(ms as f64 / 1000.0);
        Ok(match name {
            "time" => Operator::Time,
            "pi" => Operator::Number(std::f64::consts::PI),
            "start" => seconds(self.params.start_ms),
            "end" => seconds(self.params.end_ms),
            "step" => seconds(self.params.step_ms),
            "range" => seconds(self.params.end_ms.saturating_sub(self.params.start_ms)),
            "absent" => Operator::Absent(Absent { labels: absent_labels(arg(call, 0)?) }),
            "scalar" => Operator::ScalarFunction(ScalarFunction::Scalar),
            "vector" => Operator::ScalarFunction(ScalarFunction::Vector),
            "max_of" => Operator::ScalarFunction(ScalarFunction::MaxOf),
            "min_of" => Operator::ScalarFunction(ScalarFunction::MinOf),
            "label_replace" => {
                valid_label_name(call, 1, "destination")?;
                let [dst, replacement, src, regex] =
                    [string(call, 1)?, string(call, 2)?, string(call, 3)?, string(call, 4)?];
                Operator::LabelRewrite(LabelRewrite::replace(dst, replacement, src, regex)?)
            }
            "label_join" => {
                for i in 3..call.args.len() {
                    valid_label_name(call, i, "source")?;
                }
                valid_label_name(call, 1, "destination")?;
                let sources: Result<Vec<&str>, _> = (3..call.args.len()).map(|i| string(call, i)).collect();
                Operator::LabelRewrite(LabelRewrite::join(string(call, 1)?, string(call, 2)?, &sources?))
            }
            "sort" | "sort_desc" | "sort_by_label" | "sort_by_label_desc" => sort(call, scope)?,
            _ => match HistogramStatistic::of(name) {
                Some(statistic) => Operator::HistogramStatistic(statistic),
                None => Operator::Elementwise(Elementwise { kind: elementwise(name)? }),
            },
        })
    }

    /// Every argument that is not a string.
    fn vector_and_scalar_args(
        &mut self,
        call: &CallExpr,
        scope: &Scope<'_>,
    ) -> Result<Vec<Arc<Node>>, EvalError> {
        let mut children = Vec::with_capacity(call.args.len());
        // `hour()` is `hour(vector(time()))`.
        if call.args.is_empty() && DatePart::of(call.func.name).is_some() {
            let time = Node::new(Operator::Time, vec![], scope.steps);
            let vector = Operator::ScalarFunction(ScalarFunction::Vector);
            children.push(Node::new(vector, vec![time], scope.steps));
        }
        for a in &call.args {
            if a.value_type() != ValueType::String {
                children.push(self.expr(a, scope)?);
            }
        }
        Ok(children)
    }

    fn range_function(
        &mut self,
        call: &CallExpr,
        kind: RangeKind,
        scope: &Scope<'_>,
    ) -> Result<Arc<Node>, EvalError> {
        let mut ranged = None;
        let mut scalars = Vec::new();
        for a in &call.args {
            match self.range_argument(a.unwrap_parens(), scope)? {
                None => scalars.push(self.expr(a, scope)?),
                some => ranged = some,
            }
        }
        let ranged = ranged.ok_or(EvalError::Internal("a range function without a range vector"))?;
        self.range_node(call, kind, *ranged, scalars, scope)
    }

    fn range_argument(
        &mut self,
        argument: &Expr,
        scope: &Scope<'_>,
    ) -> Result<Option<Box<Ranged>>, EvalError> {
        match argument {
            Expr::MatrixSelector(m) => {
                let (series, window) = self.matrix_selector(m, scope);
                Ok(Some(Ranged::boxed(series, window, m.pos, Some(scope.first_user.clone()))))
            }
            Expr::Subquery(s) => {
                let (series, time, range_ms) = self.subquery(s, scope, 0)?;
                Ok(Some(Ranged::boxed(series, self.plain_window(time, range_ms), s.pos, None)))
            }
            _ => Ok(None),
        }
    }

    /// Apart from the recursion, so that a level of it takes little stack.
    fn range_node(
        &self,
        call: &CallExpr,
        kind: RangeKind,
        ranged: Ranged,
        scalars: Vec<Arc<Node>>,
        scope: &Scope<'_>,
    ) -> Result<Arc<Node>, EvalError> {
        check_extended(call.func.name, &ranged.window)?;
        let op = RangeFunction {
            // The argument that Prometheus' annotations point at is the first one, whatever its type.
            pos: if kind == RangeKind::QuantileOverTime {
                arg(call, 0)?.unwrap_parens().pos()
            } else {
                ranged.pos
            },
            use_start_timestamps: self.params.use_start_timestamps,
            type_and_unit_labels: self.params.type_and_unit_labels,
            weight: scope.weight,
            first_user: ranged.first_user,
            ..RangeFunction::new(kind, ranged.window)
        };
        let mut children = vec![ranged.series];
        children.extend(scalars);
        Ok(Node::new(Operator::RangeFunction(op), children, scope.steps))
    }

    fn plain_window(&self, time: SelectorTime, range_ms: i64) -> crate::range::Window {
        crate::range::Window {
            time,
            range_ms,
            lookback_ms: self.params.lookback_ms,
            anchored: false,
            smoothed: false,
            text: format!("subquery[{}]", super::selectors::duration_text(range_ms)).into(),
        }
    }

    fn absent_over_time(&mut self, call: &CallExpr, scope: &Scope<'_>) -> Result<Arc<Node>, EvalError> {
        let present = self.range_function(call, RangeKind::PresentOverTime, scope)?;
        let op = Operator::Absent(Absent { labels: absent_labels(arg(call, 0)?) });
        Ok(Node::new(op, vec![present], scope.steps))
    }

    fn timestamp(&mut self, call: &CallExpr, scope: &Scope<'_>) -> Result<Arc<Node>, EvalError> {
        let start = call.func.name == "start_timestamp";
        if let Expr::VectorSelector(v) = arg(call, 0)?.unwrap_parens()
            && (!start || self.params.use_start_timestamps)
        {
            let output = if start { InstantOutput::StartTimestamp } else { InstantOutput::Timestamp };
            return self.instant(v, output, scope);
        }
        let child = self.expr(arg(call, 0)?, scope)?;
        let kind = if start { ElementwiseKind::Nothing } else { ElementwiseKind::StepTime };
        Ok(Node::new(Operator::Elementwise(Elementwise { kind }), vec![child], scope.steps))
    }

    fn histogram_quantile(&mut self, call: &CallExpr, scope: &Scope<'_>) -> Result<Arc<Node>, EvalError> {
        let (vector, output) = match call.func.name {
            "histogram_quantile" => (1, QuantileOutput::Quantile),
            "histogram_fraction" => (2, QuantileOutput::Fraction),
            _ => (0, QuantileOutput::Quantiles { label: string(call, 1)?.to_owned() }),
        };
        let mut children = vec![self.expr(arg(call, vector)?, scope)?];
        let mut scalar_pos = Vec::new();
        for (i, a) in call.args.iter().enumerate() {
            if i != vector && a.value_type() == ValueType::Scalar {
                children.push(self.expr(a, scope)?);
                scalar_pos.push(a.unwrap_parens().pos());
            }
        }
        let op =
            HistogramQuantile { output, vector_pos: arg(call, vector)?.unwrap_parens().pos(), scalar_pos };
        Ok(Node::new(Operator::HistogramQuantile(op), children, scope.steps))
    }

    fn info(&mut self, call: &CallExpr, scope: &Scope<'_>) -> Result<Arc<Node>, EvalError> {
        let base = self.expr(arg(call, 0)?, scope)?;
        let matchers: Vec<Matcher> = match call.args.get(1).map(Expr::unwrap_parens) {
            Some(Expr::VectorSelector(v)) => v.matchers.clone(),
            Some(_) => return Err(EvalError::execution("expected label selectors only in call to info")),
            None => Vec::new(),
        };
        let mut wanted = matchers.clone();
        if !wanted.iter().any(|m| m.name == METRIC_NAME) {
            wanted.push(Matcher::equal(METRIC_NAME, "target_info"));
        } else if wanted.iter().all(|m| m.name != METRIC_NAME || m.is_negative()) {
            // Without a positive matcher on the name, every info metric is meant, not every metric.
            let info = Matcher::new(METRIC_NAME, MatchOp::Regex, ".+_info");
            wanted.extend(info.map_err(|e| EvalError::execution(e.to_string())));
        }
        let time = self.info_time(arg(call, 0)?);
        let leaf = self.info_leaf(&wanted, &time, scope);
        let info =
            self.instant_over(leaf.clone(), &wanted, time, InstantOutput::InfoTimestamp, call.pos, scope);
        let op = Info::new(&wanted, &matchers);
        Ok(Node::new(Operator::Info(op), vec![base, info], scope.steps))
    }

    /// The reference time of the first selector of an expression, through the subqueries around it.
    fn info_time(&self, expr: &Expr) -> SelectorTime {
        let mut time = SelectorTime { at_ms: None, offset_ms: 0 };
        let mut expr = expr;
        loop {
            let selector: &VectorSelector = match expr {
                Expr::VectorSelector(v) => v,
                Expr::MatrixSelector(m) => &m.selector,
                Expr::Subquery(s) => {
                    time = self.nested(time, s.at, s.offset_ms);
                    expr = &s.expr;
                    continue;
                }
                other => {
                    let children = other.children();
                    let first = children.into_iter().find(|c| !sextant_promql::selectors(c).is_empty());
                    match first {
                        Some(child) => expr = child,
                        None => return time,
                    }
                    continue;
                }
            };
            return self.nested(time, selector.at, selector.offset_ms);
        }
    }

    fn nested(
        &self,
        outer: SelectorTime,
        at: Option<sextant_promql::AtModifier>,
        offset_ms: i64,
    ) -> SelectorTime {
        let own = self.selector_time(at, offset_ms);
        if own.is_fixed() {
            return own;
        }
        SelectorTime { at_ms: outer.at_ms, offset_ms: outer.offset_ms + offset_ms }
    }
}

fn arg(call: &CallExpr, i: usize) -> Result<&Expr, EvalError> {
    call.args.get(i).ok_or(EvalError::Internal("a call lacks an argument"))
}

fn string(call: &CallExpr, i: usize) -> Result<&str, EvalError> {
    match arg(call, i)?.unwrap_parens() {
        Expr::StringLiteral(s) => Ok(&s.val),
        _ => Err(EvalError::Internal("an argument is not a string literal")),
    }
}

/// A label's name is not empty and is UTF-8.
fn valid_label_name(call: &CallExpr, i: usize, what: &str) -> Result<(), EvalError> {
    match arg(call, i)?.unwrap_parens() {
        Expr::StringLiteral(s) if s.val.is_empty() || s.raw.is_some() => {
            Err(EvalError::execution(format!("invalid {what} label name in {}(): {}", call.func.name, s.val)))
        }
        _ => Ok(()),
    }
}

fn elementwise(name: &str) -> Result<ElementwiseKind, EvalError> {
    if let Some(part) = DatePart::of(name) {
        return Ok(ElementwiseKind::Date(part));
    }
    if let Some(f) = MathFunction::of(name) {
        return Ok(ElementwiseKind::Math(f));
    }
    Ok(match name {
        "clamp" => ElementwiseKind::Clamp,
        "clamp_min" => ElementwiseKind::ClampMin,
        "clamp_max" => ElementwiseKind::ClampMax,
        "round" => ElementwiseKind::Round,
        _ => return Err(EvalError::execution(format!("function {name} is not implemented"))),
    })
}

fn sort(call: &CallExpr, scope: &Scope<'_>) -> Result<Operator, EvalError> {
    let labels: Result<Vec<&str>, _> = (1..call.args.len()).map(|i| string(call, i)).collect();
    let key = match call.func.name {
        "sort" | "sort_desc" => SortKey::Value,
        _ => SortKey::Labels(labels?.into_iter().map(str::to_owned).collect()),
    };
    let descending = call.func.name.ends_with("_desc");
    Ok(Operator::Sort(Sort { key, descending, several_steps: scope.steps.count > 1, pos: call.pos }))
}

/// The labels of the series that `absent` gives: those that the selector fixes with exactly one `=`.
fn absent_labels(expr: &Expr) -> sextant_model::Labels {
    let matchers = match expr.unwrap_parens() {
        Expr::VectorSelector(v) => &v.matchers,
        Expr::MatrixSelector(m) => &m.selector.matchers,
        _ => return sextant_model::Labels::empty(),
    };
    let mut builder = sextant_model::LabelsBuilder::default();
    let mut seen: Vec<&str> = Vec::new();
    for m in matchers.iter().filter(|m| m.name != METRIC_NAME) {
        if m.op == MatchOp::Equal && !seen.contains(&m.name.as_str()) {
            builder.set(&m.name, &m.value);
            seen.push(&m.name);
        } else {
            builder.remove(&m.name);
        }
    }
    builder.build()
}

const ANCHORED: &[&str] = &["changes", "delta", "increase", "rate", "resets"];
const SMOOTHED: &[&str] = &["delta", "increase", "rate"];

fn check_extended(name: &str, window: &crate::range::Window) -> Result<(), EvalError> {
    for (used, word, allowed) in
        [(window.anchored, "anchored", ANCHORED), (window.smoothed, "smoothed", SMOOTHED)]
    {
        if used && !allowed.contains(&name) {
            return Err(EvalError::execution(format!(
                "{word} modifier can only be used with: {} - not with {name}",
                allowed.join(", ")
            )));
        }
    }
    Ok(())
}
