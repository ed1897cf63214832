//! Running a script against a target.

use sextant_model::{Labels, SeriesBuf};
use sextant_promql::{AtModifier, Expr};

use super::{Answer, AnswerValue, Command, Eval, EvalTime, compare};

/// One query to a target.
#[derive(Clone, Copy, Debug)]
pub struct TargetQuery<'a> {
    /// The expression.
    pub text: &'a str,
    /// When it is evaluated.
    pub time: EvalTime,
}

/// What stores series and answers queries. Errors are texts: a script compares them.
pub trait Target {
    /// Drops all data.
    fn clear(&mut self) -> Result<(), String>;

    /// Adds data; samples of a series may come in several loads, in order of time.
    fn load(&mut self, series: &[(Labels, SeriesBuf)]) -> Result<(), String>;

    /// Answers a query, or gives its error.
    fn evaluate(&self, query: &TargetQuery<'_>) -> Result<Answer, String>;
}

/// What became of one `eval`.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Its line in the script.
    pub line: usize,
    /// The query.
    pub query: String,
    /// What was not as expected.
    pub failure: Option<String>,
}

/// What became of a script.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Each `eval`, in order.
    pub outcomes: Vec<Outcome>,
}

impl Report {
    /// How many passed.
    pub fn passed(&self) -> usize {
        self.outcomes.iter().filter(|o| o.failure.is_none()).count()
    }

    /// Those that failed.
    pub fn failures(&self) -> impl Iterator<Item = &Outcome> {
        self.outcomes.iter().filter(|o| o.failure.is_some())
    }
}

/// Runs a script from an empty store. An error means that data could not be stored or dropped.
pub fn run_script(commands: &[Command], target: &mut dyn Target) -> Result<Report, String> {
    target.clear()?;
    let mut report = Report::default();
    for command in commands {
        match command {
            Command::Clear => target.clear()?,
            Command::Load(load) => target.load(&load.series)?,
            Command::Eval(eval) => report.outcomes.push(Outcome {
                line: eval.line,
                query: eval.query.clone(),
                failure: check(eval, target).err(),
            }),
        }
    }
    Ok(report)
}

fn check(eval: &Eval, target: &dyn Target) -> Result<(), String> {
    let result = target.evaluate(&TargetQuery { text: &eval.query, time: eval.time });
    let answer = match (&eval.expect.fail, result) {
        (Some(pattern), Err(text)) => {
            // Where a text is compared, the rest of our own wording is free.
            let contained = matches!(pattern, super::Pattern::Text(t) if text.contains(t.as_str()));
            return if contained || pattern.matches(&text) {
                Ok(())
            } else {
                Err(format!("expected failure {pattern:?}, got {text:?}"))
            };
        }
        (Some(_), Ok(answer)) => return Err(format!("expected a failure, got {:?}", answer.value)),
        (None, Err(text)) => return Err(format!("failed: {text}")),
        (None, Ok(answer)) => answer,
    };
    compare::check(&eval.expect, eval.time, &answer)?;
    match eval.time {
        EvalTime::Instant(at) => {
            check_pinned(eval, at, &answer, target)?;
            if eval.expect.ordered { Ok(()) } else { check_as_range(eval, at, &answer, target) }
        }
        EvalTime::Range(..) => Ok(()),
    }
}

/// An instant query must give the same in the middle of a range query, where its type allows one.
fn check_as_range(eval: &Eval, at: i64, instant: &Answer, target: &dyn Target) -> Result<(), String> {
    const MINUTE: i64 = 60_000;
    if matches!(instant.value, AnswerValue::String(_) | AnswerValue::Matrix(_)) || asks_for_range(&eval.query)
    {
        return Ok(());
    }
    let time = EvalTime::Range(at - MINUTE, at + MINUTE, MINUTE);
    let range = target
        .evaluate(&TargetQuery { text: &eval.query, time })
        .map_err(|e| format!("as a range query: failed: {e}"))?;
    let AnswerValue::Matrix(series) = range.value else {
        return Err("a range query without a matrix".to_owned());
    };
    let mut vector: Vec<(Labels, crate::Cell)> = series
        .into_iter()
        .filter_map(|(labels, points)| {
            points.into_iter().find(|(t, _)| *t == at).map(|(_, cell)| (labels, cell))
        })
        .collect();
    let value = match (&instant.value, vector.pop()) {
        (AnswerValue::Scalar(_), Some((_, crate::Cell::Float(v)))) => AnswerValue::Scalar(v),
        (_, last) => {
            vector.extend(last);
            AnswerValue::Vector(vector)
        }
    };
    compare::check_value(&eval.expect, eval.time, &value).map_err(|e| format!("as a range query: {e}"))
}

/// With `@ <time>` at each selector an instant query must give the same at any evaluation time, unless a function uses
/// that time.
fn check_pinned(eval: &Eval, at: i64, answer: &Answer, target: &dyn Target) -> Result<(), String> {
    if !matches!(answer.value, AnswerValue::Vector(_)) || asks_for_range(&eval.query) {
        return Ok(());
    }
    let Ok(mut expr) = sextant_promql::parse_expr(&eval.query) else { return Ok(()) };
    if !pin(&mut expr, at) {
        return Ok(());
    }
    let text = expr.to_string();
    for time in [0, at / 9, at * 2 + 1] {
        let query = TargetQuery { text: &text, time: EvalTime::Instant(time) };
        let answer = target.evaluate(&query).map_err(|e| format!("as {text} at {time} ms: failed: {e}"))?;
        compare::check_value(&eval.expect, eval.time, &answer.value)
            .map_err(|e| format!("as {text} at {time} ms: {e}"))?;
    }
    Ok(())
}

/// Sets `@` where there is none; what is inside of a subquery gets it from there. False where a function uses the
/// evaluation time.
fn pin(expr: &mut Expr, at: i64) -> bool {
    const USES_TIME: &[&str] = &[
        "day_of_month",
        "day_of_week",
        "day_of_year",
        "days_in_month",
        "end",
        "hour",
        "minute",
        "month",
        "predict_linear",
        "range",
        "start",
        "step",
        "time",
        "timestamp",
        "year",
    ];
    let at_modifier = Some(AtModifier::Timestamp(at));
    match expr {
        Expr::VectorSelector(v) => v.at = v.at.or(at_modifier),
        Expr::MatrixSelector(m) => m.selector.at = m.selector.at.or(at_modifier),
        Expr::Subquery(s) => {
            s.at = s.at.or(at_modifier);
            let mut safe = true;
            sextant_promql::walk(&s.expr, |e| {
                safe &= !matches!(e, Expr::Call(c) if USES_TIME.contains(&c.func.name));
                true
            });
            return safe;
        }
        Expr::Call(c) if USES_TIME.contains(&c.func.name) => return false,
        _ => {}
    }
    // `info` takes matchers in the form of a selector: they have no time.
    let matchers_last = matches!(expr, Expr::Call(c) if c.func.name == "info");
    let children = expr.children_mut();
    let n = if matchers_last { 1 } else { children.len() };
    children.into_iter().take(n).all(|c| pin(c, at))
}

/// Whether a query asks for the parameters of its evaluation other than by `@ start()` and `@ end()`, which are the
/// evaluation time's own in both forms.
fn asks_for_range(query: &str) -> bool {
    let mut rest = query.replace(' ', "");
    for at in ["@start()", "@end()"] {
        rest = rest.replace(at, "");
    }
    ["start()", "end()", "step()", "range()"].iter().any(|f| rest.contains(f))
}
