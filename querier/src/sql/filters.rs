//! What of a `WHERE` clause a series scan can do itself: label matchers and time bounds.
//!
//! A label that a series does not have is NULL in SQL and `""` to a matcher, so `<>` becomes two matchers (`!=` the value
//! and `!=` empty) and `IS NULL` becomes `= ""`. What is taken here is answered exactly: DataFusion does not filter again.

use datafusion::{
    common::ScalarValue,
    logical_expr::{BinaryExpr, Expr, Operator, expr::InList},
};
use sextant_model::{MatchOp, Matcher};

/// Matchers and time bounds of a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanFilter {
    /// All must match.
    pub matchers: Vec<Matcher>,
    /// First timestamp, inclusive, milliseconds.
    pub start: i64,
    /// Last timestamp, inclusive, milliseconds.
    pub end: i64,
}

impl Default for ScanFilter {
    fn default() -> Self {
        Self { matchers: Vec::new(), start: i64::MIN, end: i64::MAX }
    }
}

/// Names columns: which hold labels, and which holds the time (none for a table without samples).
pub trait ColumnNames {
    /// The label behind a column.
    fn label_of(&self, column: &str) -> Option<String>;
    /// Whether the column is the sample's time.
    fn is_time(&self, column: &str) -> bool;
}

impl ScanFilter {
    /// Takes a filter expression into the scan; `false` where it cannot be answered exactly, and then nothing changed.
    pub fn push(&mut self, names: &dyn ColumnNames, expr: &Expr) -> bool {
        let mut next = self.clone();
        let taken = next.take(names, expr);
        if taken {
            *self = next;
        }
        taken
    }

    fn take(&mut self, names: &dyn ColumnNames, expr: &Expr) -> bool {
        match expr {
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
                self.take(names, left) && self.take(names, right)
            }
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => match (&**left, &**right) {
                (Expr::Column(c), Expr::Literal(v, _)) => self.compare(names, &c.name, *op, v),
                (Expr::Literal(v, _), Expr::Column(c)) => {
                    op.swap().is_some_and(|op| self.compare(names, &c.name, op, v))
                }
                _ => false,
            },
            Expr::Between(b) if !b.negated => match (&*b.expr, &*b.low, &*b.high) {
                (Expr::Column(c), Expr::Literal(low, _), Expr::Literal(high, _)) => {
                    self.compare(names, &c.name, Operator::GtEq, low)
                        && self.compare(names, &c.name, Operator::LtEq, high)
                }
                _ => false,
            },
            Expr::InList(InList { expr, list, negated }) => self.in_list(names, expr, list, *negated),
            Expr::IsNull(e) => self.null(names, e, MatchOp::Equal),
            Expr::IsNotNull(e) => self.null(names, e, MatchOp::NotEqual),
            Expr::Like(l) if !l.case_insensitive && l.escape_char.is_none() => {
                match (&*l.expr, &*l.pattern) {
                    (Expr::Column(c), Expr::Literal(p, _)) => match (names.label_of(&c.name), text(p)) {
                        (Some(label), Some(pattern)) => {
                            let op = if l.negated { MatchOp::NotRegex } else { MatchOp::Regex };
                            self.matcher(&label, op, &like_to_regex(&pattern))
                                && self.matcher(&label, MatchOp::NotEqual, "")
                        }
                        _ => false,
                    },
                    _ => false,
                }
            }
            _ => false,
        }
    }

    fn matcher(&mut self, label: &str, op: MatchOp, value: &str) -> bool {
        match Matcher::new(label, op, value) {
            Ok(m) => {
                self.matchers.push(m);
                true
            }
            Err(_) => false,
        }
    }

    fn null(&mut self, names: &dyn ColumnNames, expr: &Expr, op: MatchOp) -> bool {
        let Expr::Column(c) = expr else { return false };
        names.label_of(&c.name).is_some_and(|label| self.matcher(&label, op, ""))
    }

    fn in_list(&mut self, names: &dyn ColumnNames, expr: &Expr, list: &[Expr], negated: bool) -> bool {
        let Expr::Column(c) = expr else { return false };
        let Some(label) = names.label_of(&c.name) else { return false };
        let values: Option<Vec<String>> =
            list.iter().map(|e| if let Expr::Literal(v, _) = e { text(v) } else { None }).collect();
        let Some(values) = values else { return false };
        let pattern = values.iter().map(|v| regex_escape(v)).collect::<Vec<_>>().join("|");
        let op = if negated { MatchOp::NotRegex } else { MatchOp::Regex };
        self.matcher(&label, op, &pattern) && self.matcher(&label, MatchOp::NotEqual, "")
    }

    fn compare(&mut self, names: &dyn ColumnNames, column: &str, op: Operator, value: &ScalarValue) -> bool {
        if names.is_time(column) {
            return self.time(op, value);
        }
        let (Some(label), Some(value)) = (names.label_of(column), text(value)) else { return false };
        match op {
            Operator::Eq if !value.is_empty() => self.matcher(&label, MatchOp::Equal, &value),
            Operator::NotEq => {
                self.matcher(&label, MatchOp::NotEqual, &value) && self.matcher(&label, MatchOp::NotEqual, "")
            }
            Operator::RegexMatch | Operator::RegexNotMatch => {
                let op = if op == Operator::RegexMatch { MatchOp::Regex } else { MatchOp::NotRegex };
                self.matcher(&label, op, &format!("(?s:.*)(?:{value})(?s:.*)"))
                    && self.matcher(&label, MatchOp::NotEqual, "")
            }
            _ => false,
        }
    }

    fn time(&mut self, op: Operator, value: &ScalarValue) -> bool {
        // Floor and whether the literal is a whole millisecond: `time > 1.5 ms` is `time >= 2 ms`.
        let Some((floor, whole)) = millis(value) else { return false };
        match op {
            Operator::Eq if whole => {
                self.start = self.start.max(floor);
                self.end = self.end.min(floor);
            }
            Operator::Gt => self.start = self.start.max(floor.saturating_add(1)),
            Operator::GtEq => {
                self.start = self.start.max(if whole { floor } else { floor.saturating_add(1) })
            }
            Operator::Lt => self.end = self.end.min(if whole { floor.saturating_sub(1) } else { floor }),
            Operator::LtEq => self.end = self.end.min(floor),
            _ => return false,
        }
        true
    }
}

fn text(value: &ScalarValue) -> Option<String> {
    match value {
        ScalarValue::Utf8(Some(s)) | ScalarValue::LargeUtf8(Some(s)) | ScalarValue::Utf8View(Some(s)) => {
            Some(s.clone())
        }
        ScalarValue::Dictionary(_, v) => text(v),
        _ => None,
    }
}

fn millis(value: &ScalarValue) -> Option<(i64, bool)> {
    Some(match value {
        ScalarValue::TimestampSecond(Some(v), _) => (v.checked_mul(1000)?, true),
        ScalarValue::TimestampMillisecond(Some(v), _) => (*v, true),
        ScalarValue::TimestampMicrosecond(Some(v), _) => (v.div_euclid(1000), v.rem_euclid(1000) == 0),
        ScalarValue::TimestampNanosecond(Some(v), _) => {
            (v.div_euclid(1_000_000), v.rem_euclid(1_000_000) == 0)
        }
        _ => return None,
    })
}

fn regex_escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if "\\.+*?()|[]{}^$#&-~".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

fn like_to_regex(pattern: &str) -> String {
    let mut out = String::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            '%' => out.push_str("(?s:.*)"),
            '_' => out.push_str("(?s:.)"),
            '\\' => out.push_str(&regex_escape(&chars.next().unwrap_or('\\').to_string())),
            c => out.push_str(&regex_escape(&c.to_string())),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use datafusion::prelude::{col, lit};

    use super::*;

    struct Names;

    impl ColumnNames for Names {
        fn label_of(&self, column: &str) -> Option<String> {
            match column {
                "name" => Some("__name__".into()),
                "pod" => Some("pod".into()),
                _ => None,
            }
        }

        fn is_time(&self, column: &str) -> bool {
            column == "time"
        }
    }

    fn push(e: Expr) -> Option<ScanFilter> {
        let mut f = ScanFilter::default();
        f.push(&Names, &e).then_some(f)
    }

    #[test]
    fn labels_and_times_reach_the_scan() {
        let ms = |v| lit(ScalarValue::TimestampMillisecond(Some(v), Some("UTC".into())));
        let f =
            push(col("name").eq(lit("up")).and(col("time").gt(ms(5))).and(col("time").lt_eq(ms(9)))).unwrap();
        assert_eq!((f.start, f.end, f.matchers[0].to_string().as_str()), (6, 9, "__name__=\"up\""));
        let f = push(col("pod").not_eq(lit("a"))).unwrap();
        assert!(!f.matchers.iter().all(|m| m.matches("")) && f.matchers.iter().all(|m| m.matches("b")));
        let f = push(col("pod").in_list(vec![lit("a.b"), lit("c")], false)).unwrap();
        assert!(f.matchers.iter().all(|m| m.matches("a.b")) && !f.matchers.iter().all(|m| m.matches("axb")));
        let f = push(col("pod").like(lit("a_%"))).unwrap();
        assert!(f.matchers.iter().all(|m| m.matches("abc")) && !f.matchers.iter().all(|m| m.matches("a")));
        assert!(push(col("pod").is_null()).unwrap().matchers[0].matches(""));
        assert!(push(col("value").gt(lit(1.0))).is_none());
        assert!(push(col("pod").eq(col("name"))).is_none());
        let ns = lit(ScalarValue::TimestampNanosecond(Some(1_500_000), None));
        assert_eq!(push(col("time").gt_eq(ns.clone())).unwrap().start, 2);
        assert_eq!(push(col("time").lt(ns)).unwrap().end, 1);
    }
}
