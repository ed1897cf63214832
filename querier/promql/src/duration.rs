//! Duration expressions: arithmetic inside of brackets and behind `offset`.

use crate::ast::{Expr, PosRange};

/// A duration expression; numbers are seconds.
#[derive(Clone, Debug, PartialEq)]
pub enum DurationExpr {
    /// `30`, `5m`, `-4`.
    Number {
        /// Seconds.
        val: f64,
        /// It was written with units and prints with units.
        duration: bool,
        /// Where it stands.
        pos: PosRange,
    },
    /// `step()`: the query's step.
    Step(PosRange),
    /// `range()`: the query's end minus its start.
    Range(PosRange),
    /// `min_of(a, b)`.
    MinOf(Box<DurationExpr>, Box<DurationExpr>, PosRange),
    /// `max_of(a, b)`.
    MaxOf(Box<DurationExpr>, Box<DurationExpr>, PosRange),
    /// `+a` or `-a`.
    Unary {
        /// `-` was given.
        negative: bool,
        /// The operand.
        expr: Box<DurationExpr>,
        /// Where it stands.
        pos: PosRange,
    },
    /// `a op b`.
    Binary {
        /// The operator.
        op: DurationOp,
        /// Left of the operator.
        lhs: Box<DurationExpr>,
        /// Right of the operator.
        rhs: Box<DurationExpr>,
        /// Where it stands.
        pos: PosRange,
    },
    /// `(a)`.
    Paren(Box<DurationExpr>, PosRange),
}

/// Operators of duration expressions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DurationOp {
    /// `+`
    Add,
    /// `-`
    Sub,
    /// `*`
    Mul,
    /// `/`
    Div,
    /// `%`
    Mod,
    /// `^`
    Pow,
}

impl DurationOp {
    /// As written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Sub => "-",
            Self::Mul => "*",
            Self::Div => "/",
            Self::Mod => "%",
            Self::Pow => "^",
        }
    }
}

impl DurationExpr {
    /// Where it stands.
    pub fn pos(&self) -> PosRange {
        match self {
            Self::Number { pos, .. } | Self::Unary { pos, .. } | Self::Binary { pos, .. } => *pos,
            Self::Step(pos) | Self::Range(pos) | Self::Paren(_, pos) => *pos,
            Self::MinOf(_, _, pos) | Self::MaxOf(_, _, pos) => *pos,
        }
    }
}

/// Why a duration expression has no usable value. The range is that of the whole expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}:{}: {kind}", .pos.start, .pos.end)]
pub struct DurationError {
    /// Where the expression stands.
    pub pos: PosRange,
    /// What is wrong.
    pub kind: DurationErrorKind,
}

/// What is wrong with the value of a duration expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DurationErrorKind {
    /// A range or a step is zero or negative.
    #[error("duration must be greater than 0")]
    NotPositive,
    /// The value is not a number of milliseconds that fits.
    #[error("duration is out of range")]
    OutOfRange,
    /// `/ 0`
    #[error("division by zero")]
    DivisionByZero,
    /// `% 0`
    #[error("modulo by zero")]
    ModuloByZero,
}

/// What `step()` and `range()` stand for, in seconds.
#[derive(Clone, Copy, Debug)]
struct Env {
    step: f64,
    range: f64,
}

/// Evaluates every duration expression of a query that runs from `start_ms` to `end_ms` every `step_ms` (0 for an
/// instant query) and stores the results in the tree's `*_ms` fields.
pub fn resolve_durations(
    expr: &mut Expr,
    start_ms: i64,
    end_ms: i64,
    step_ms: i64,
) -> Result<(), DurationError> {
    let env = Env { step: step_ms as f64 / 1000.0, range: end_ms.saturating_sub(start_ms) as f64 / 1000.0 };
    let mut todo = vec![expr];
    while let Some(expr) = todo.pop() {
        match expr {
            Expr::VectorSelector(v) => set(&v.offset_expr, &mut v.offset_ms, env, true)?,
            Expr::MatrixSelector(m) => {
                set(&m.range_expr, &mut m.range_ms, env, false)?;
                set(&m.selector.offset_expr, &mut m.selector.offset_ms, env, true)?;
            }
            Expr::Subquery(s) => {
                set(&s.offset_expr, &mut s.offset_ms, env, true)?;
                if let Some(step) = &s.step_expr {
                    s.step_ms = Some(millis(step, env, false)?);
                }
                set(&s.range_expr, &mut s.range_ms, env, false)?;
            }
            _ => {}
        }
        let mut children = expr.children_mut();
        children.reverse();
        todo.extend(children);
    }
    Ok(())
}

fn set(expr: &Option<DurationExpr>, ms: &mut i64, env: Env, negative: bool) -> Result<(), DurationError> {
    if let Some(expr) = expr {
        *ms = millis(expr, env, negative)?;
    }
    Ok(())
}

fn millis(expr: &DurationExpr, env: Env, negative: bool) -> Result<i64, DurationError> {
    let fail = |kind| DurationError { pos: expr.pos(), kind };
    let seconds = seconds(expr, env).map_err(fail)?;
    if seconds <= 0.0 && !negative {
        return Err(fail(DurationErrorKind::NotPositive));
    }
    // Prometheus keeps nanoseconds in 64 bits; a duration that does not fit there has no value.
    if seconds.is_nan() || (seconds * 1e9).abs() >= 9_223_372_036_854_775_807.0 {
        return Err(fail(DurationErrorKind::OutOfRange));
    }
    Ok((seconds * 1000.0) as i64)
}

fn seconds(expr: &DurationExpr, env: Env) -> Result<f64, DurationErrorKind> {
    Ok(match expr {
        DurationExpr::Number { val, .. } => *val,
        DurationExpr::Step(_) => env.step,
        DurationExpr::Range(_) => env.range,
        DurationExpr::MinOf(a, b, _) => go_min(seconds(a, env)?, seconds(b, env)?),
        DurationExpr::MaxOf(a, b, _) => -go_min(-seconds(a, env)?, -seconds(b, env)?),
        DurationExpr::Unary { negative: true, expr, .. } => -seconds(expr, env)?,
        DurationExpr::Unary { expr, .. } | DurationExpr::Paren(expr, _) => seconds(expr, env)?,
        DurationExpr::Binary { op, lhs, rhs, .. } => {
            let (l, r) = (seconds(lhs, env)?, seconds(rhs, env)?);
            match op {
                DurationOp::Add => l + r,
                DurationOp::Sub => l - r,
                DurationOp::Mul => l * r,
                DurationOp::Div if r == 0.0 => return Err(DurationErrorKind::DivisionByZero),
                DurationOp::Div => l / r,
                DurationOp::Mod if r == 0.0 => return Err(DurationErrorKind::ModuloByZero),
                DurationOp::Mod => l % r,
                DurationOp::Pow => l.powf(r),
            }
        }
    })
}

/// The lesser of two numbers; NaN where one is NaN (`f64::min` would drop it).
fn go_min(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.min(b) }
}
