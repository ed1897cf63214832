//! Prints trees in Prometheus' canonical form, on one line.

use std::fmt::{self, Display, Formatter, Write};

use sextant_model::{METRIC_NAME, MatchOp, Matcher, is_valid_label_name};

use crate::{
    ast::{
        AggregateExpr, AtModifier, BinaryExpr, CallExpr, Cardinality, Expr, MatrixSelector, NumberLiteral,
        StringLiteral, SubqueryExpr, UnaryExpr, VectorMatching, VectorSelector,
    },
    duration::DurationExpr,
    duration_text::format_duration,
    number::{format_float, format_float_general},
    operators::BinaryOp,
    quote::quote,
};

impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write_expr(f, self)
    }
}

/// Writes an expression; stops at the writer's first error.
pub(crate) fn write_expr(out: &mut dyn Write, expr: &Expr) -> fmt::Result {
    match expr {
        Expr::NumberLiteral(e) => write_number(out, e),
        Expr::StringLiteral(e) => write_string(out, e),
        Expr::VectorSelector(e) => write_vector(out, e),
        Expr::MatrixSelector(e) => write_matrix(out, e),
        Expr::Subquery(e) => {
            write_expr(out, &e.expr)?;
            write_subquery_suffix(out, e)
        }
        Expr::Call(e) => write_call(out, e),
        Expr::Aggregate(e) => write_aggregate(out, e),
        Expr::Binary(e) => {
            write_lhs(out, e)?;
            out.write_char(' ')?;
            write_operator(out, e)?;
            out.write_char(' ')?;
            write_expr(out, &e.rhs)
        }
        Expr::Unary(e) => {
            out.write_str(sign(e))?;
            write_expr(out, &e.expr)
        }
        Expr::Paren(e) => {
            out.write_char('(')?;
            write_expr(out, &e.expr)?;
            out.write_char(')')
        }
    }
}

/// A sign binds weaker than a power: the infinity of `Inf ^ x` must not get one.
pub(crate) fn write_lhs(out: &mut dyn Write, e: &BinaryExpr) -> fmt::Result {
    match &e.lhs {
        Expr::NumberLiteral(n) if e.op == BinaryOp::Pow && n.val == f64::INFINITY => out.write_str("Inf"),
        lhs => write_expr(out, lhs),
    }
}

pub(crate) fn sign(e: &UnaryExpr) -> &'static str {
    if e.negative { "-" } else { "+" }
}

fn write_number(out: &mut dyn Write, e: &NumberLiteral) -> fmt::Result {
    out.write_str(&number_text(e.val, e.duration))
}

fn number_text(val: f64, duration: bool) -> String {
    if duration { format_duration((val * 1000.0).round() as i64) } else { format_float(val) }
}

fn write_string(out: &mut dyn Write, e: &StringLiteral) -> fmt::Result {
    out.write_str(&quote(e.raw.as_deref().unwrap_or(e.val.as_bytes())))
}

fn write_call(out: &mut dyn Write, e: &CallExpr) -> fmt::Result {
    write!(out, "{}(", e.func.name)?;
    for (i, arg) in e.args.iter().enumerate() {
        if i > 0 {
            out.write_str(", ")?;
        }
        write_expr(out, arg)?;
    }
    out.write_char(')')
}

fn write_aggregate(out: &mut dyn Write, e: &AggregateExpr) -> fmt::Result {
    write_aggregate_head(out, e)?;
    out.write_char('(')?;
    if let Some(param) = &e.param {
        write_expr(out, param)?;
        out.write_str(", ")?;
    }
    write_expr(out, &e.expr)?;
    out.write_char(')')
}

/// The operator with its grouping, up to the parenthesis.
pub(crate) fn write_aggregate_head(out: &mut dyn Write, e: &AggregateExpr) -> fmt::Result {
    out.write_str(e.op.as_str())?;
    if e.without || !e.grouping.is_empty() {
        write_labels(out, if e.without { " without" } else { " by" }, &e.grouping)?;
        out.write_char(' ')?;
    }
    Ok(())
}

fn write_labels(out: &mut dyn Write, keyword: &str, labels: &[String]) -> fmt::Result {
    write!(out, "{keyword} (")?;
    for (i, label) in labels.iter().enumerate() {
        if i > 0 {
            out.write_str(", ")?;
        }
        write_label_name(out, label)?;
    }
    out.write_char(')')
}

fn write_label_name(out: &mut dyn Write, label: &str) -> fmt::Result {
    if is_valid_label_name(label) { out.write_str(label) } else { out.write_str(&quote(label.as_bytes())) }
}

/// The operator with `bool` and the matching.
pub(crate) fn write_operator(out: &mut dyn Write, e: &BinaryExpr) -> fmt::Result {
    out.write_str(e.op.as_str())?;
    if e.return_bool {
        out.write_str(" bool")?;
    }
    e.matching.as_ref().map_or(Ok(()), |m| write_matching(out, m))
}

fn write_matching(out: &mut dyn Write, m: &VectorMatching) -> fmt::Result {
    let group = match m.card {
        Cardinality::ManyToOne => Some(" group_left"),
        Cardinality::OneToMany => Some(" group_right"),
        Cardinality::OneToOne | Cardinality::ManyToMany => None,
    };
    if m.on || !m.labels.is_empty() || group.is_some() {
        write_labels(out, if m.on { " on" } else { " ignoring" }, &m.labels)?;
    }
    if let Some(group) = group {
        write_labels(out, group, &m.include)?;
    }
    match (m.fill_lhs, m.fill_rhs) {
        // To the bit, so that a NaN equals itself.
        (Some(l), Some(r)) if l.to_bits() == r.to_bits() => {
            write!(out, " fill ({})", format_float_general(l))
        }
        (lhs, rhs) => {
            if let Some(l) = lhs {
                write!(out, " fill_left ({})", format_float_general(l))?;
            }
            rhs.map_or(Ok(()), |r| write!(out, " fill_right ({})", format_float_general(r)))
        }
    }
}

fn write_vector(out: &mut dyn Write, e: &VectorSelector) -> fmt::Result {
    write_selector(out, e)?;
    write_at(out, e.at)?;
    write_extended(out, e)?;
    write_offset(out, e.offset_ms, e.offset_expr.as_ref())
}

fn write_matrix(out: &mut dyn Write, e: &MatrixSelector) -> fmt::Result {
    write_selector(out, &e.selector)?;
    out.write_char('[')?;
    write_range(out, e.range_ms, e.range_expr.as_ref())?;
    out.write_char(']')?;
    write_extended(out, &e.selector)?;
    write_at(out, e.selector.at)?;
    write_offset(out, e.selector.offset_ms, e.selector.offset_expr.as_ref())
}

/// The name and the matchers, sorted, without the modifiers.
fn write_selector(out: &mut dyn Write, e: &VectorSelector) -> fmt::Result {
    let name = e.name.as_deref().unwrap_or_default();
    let in_front =
        |m: &Matcher| m.name == METRIC_NAME && m.op == MatchOp::Equal && m.value == name && !name.is_empty();
    let mut matchers: Vec<String> = e.matchers.iter().filter(|m| !in_front(m)).map(matcher_text).collect();
    matchers.sort();
    out.write_str(name)?;
    if !matchers.is_empty() || name.is_empty() {
        write!(out, "{{{}}}", matchers.join(","))?;
    }
    Ok(())
}

fn matcher_text(m: &Matcher) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write_label_name(&mut text, &m.name);
    let _ = write!(text, "{}{}", m.op, quote(m.value.as_bytes()));
    text
}

fn write_at(out: &mut dyn Write, at: Option<AtModifier>) -> fmt::Result {
    match at {
        None => Ok(()),
        Some(AtModifier::Timestamp(ms)) => write!(out, " @ {:.3}", ms as f64 / 1000.0),
        Some(AtModifier::Start) => out.write_str(" @ start()"),
        Some(AtModifier::End) => out.write_str(" @ end()"),
    }
}

fn write_extended(out: &mut dyn Write, e: &VectorSelector) -> fmt::Result {
    if e.anchored {
        out.write_str(" anchored")
    } else if e.smoothed {
        out.write_str(" smoothed")
    } else {
        Ok(())
    }
}

fn write_offset(out: &mut dyn Write, ms: i64, expr: Option<&DurationExpr>) -> fmt::Result {
    if ms == 0 && expr.is_none() {
        return Ok(());
    }
    out.write_str(" offset ")?;
    write_range(out, ms, expr)
}

fn write_range(out: &mut dyn Write, ms: i64, expr: Option<&DurationExpr>) -> fmt::Result {
    match expr {
        Some(expr) => write_duration(out, expr),
        None => out.write_str(&format_duration(ms)),
    }
}

/// The brackets of a subquery with its modifiers.
pub(crate) fn write_subquery_suffix(out: &mut dyn Write, e: &SubqueryExpr) -> fmt::Result {
    out.write_char('[')?;
    write_range(out, e.range_ms, e.range_expr.as_ref())?;
    out.write_char(':')?;
    if e.step_expr.is_some() || e.step_ms.is_some_and(|ms| ms != 0) {
        write_range(out, e.step_ms.unwrap_or_default(), e.step_expr.as_ref())?;
    }
    out.write_char(']')?;
    write_at(out, e.at)?;
    write_offset(out, e.offset_ms, e.offset_expr.as_ref())
}

impl Display for DurationExpr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write_duration(f, self)
    }
}

fn write_duration(out: &mut dyn Write, expr: &DurationExpr) -> fmt::Result {
    match expr {
        DurationExpr::Number { val, duration, .. } => out.write_str(&number_text(*val, *duration)),
        DurationExpr::Step(_) => out.write_str("step()"),
        DurationExpr::Range(_) => out.write_str("range()"),
        DurationExpr::MinOf(a, b, _) => write_duration_pair(out, "min_of", a, b),
        DurationExpr::MaxOf(a, b, _) => write_duration_pair(out, "max_of", a, b),
        DurationExpr::Unary { negative, expr, .. } => {
            out.write_str(if *negative { "-" } else { "" })?;
            write_duration(out, expr)
        }
        DurationExpr::Binary { op, lhs, rhs, .. } => {
            write_duration(out, lhs)?;
            write!(out, " {} ", op.as_str())?;
            write_duration(out, rhs)
        }
        DurationExpr::Paren(expr, _) => {
            out.write_char('(')?;
            write_duration(out, expr)?;
            out.write_char(')')
        }
    }
}

fn write_duration_pair(out: &mut dyn Write, name: &str, a: &DurationExpr, b: &DurationExpr) -> fmt::Result {
    write!(out, "{name}(")?;
    write_duration(out, a)?;
    out.write_str(", ")?;
    write_duration(out, b)?;
    out.write_char(')')
}
