//! Prints trees over several lines, as `format_query` answers them.
//!
//! An expression that fits a line is printed on one, wherever it stands; the indent does not count.

use std::fmt::{self, Write};

use crate::{
    ast::{AggregateExpr, BinaryExpr, CallExpr, Expr},
    printer::{sign, write_aggregate_head, write_expr, write_lhs, write_operator, write_subquery_suffix},
};

/// Prometheus' line limit.
pub const DEFAULT_LINE_LIMIT: usize = 100;

/// The expression, split where a part is longer than `line_limit` bytes, with an indent of two spaces per level.
pub fn prettify(expr: &Expr, line_limit: usize) -> String {
    let mut pretty = Pretty { out: String::new(), line_limit };
    // Writing to a string does not fail.
    let _ = pretty.expr(expr, 0);
    pretty.out
}

struct Pretty {
    out: String,
    line_limit: usize,
}

/// Counts down the bytes that still fit.
struct Budget(usize);

impl Write for Budget {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 = self.0.checked_sub(text.len()).ok_or(fmt::Error)?;
        Ok(())
    }
}

impl Pretty {
    fn fits(&self, expr: &Expr) -> bool {
        write_expr(&mut Budget(self.line_limit), expr).is_ok()
    }

    fn indent(&mut self, level: usize) {
        self.out.extend(std::iter::repeat_n("  ", level));
    }

    fn expr(&mut self, expr: &Expr, level: usize) -> fmt::Result {
        match expr {
            // The operator stands in front, the indent in front of it.
            Expr::Unary(e) => {
                self.indent(level);
                self.out.push_str(sign(e));
                let start = self.out.len();
                self.expr(&e.expr, level)?;
                let spaces = self.out.get(start..).map_or(0, |t| t.len() - t.trim_start().len());
                self.out.replace_range(start..start + spaces, "");
                Ok(())
            }
            Expr::Subquery(e) => {
                // As in Prometheus, a subquery that fits has no indent.
                if self.fits(expr) {
                    return write_expr(&mut self.out, expr);
                }
                self.expr(&e.expr, level)?;
                write_subquery_suffix(&mut self.out, e)
            }
            Expr::Aggregate(e) if !self.fits(expr) => self.aggregate(e, level),
            Expr::Binary(e) if !self.fits(expr) => self.binary(e, level),
            Expr::Call(e) if !self.fits(expr) => self.call(e, level),
            Expr::Paren(e) if !self.fits(expr) => {
                self.indent(level);
                self.out.push_str("(\n");
                self.expr(&e.expr, level + 1)?;
                self.close(level);
                Ok(())
            }
            _ => {
                self.indent(level);
                write_expr(&mut self.out, expr)
            }
        }
    }

    fn close(&mut self, level: usize) {
        self.out.push('\n');
        self.indent(level);
        self.out.push(')');
    }

    fn aggregate(&mut self, e: &AggregateExpr, level: usize) -> fmt::Result {
        self.indent(level);
        write_aggregate_head(&mut self.out, e)?;
        self.out.push_str("(\n");
        if let Some(param) = &e.param {
            self.expr(param, level + 1)?;
            self.out.push_str(",\n");
        }
        self.expr(&e.expr, level + 1)?;
        self.close(level);
        Ok(())
    }

    fn binary(&mut self, e: &BinaryExpr, level: usize) -> fmt::Result {
        if matches!(e.lhs, Expr::NumberLiteral(_)) {
            self.indent(level + 1);
            write_lhs(&mut self.out, e)?;
        } else {
            self.expr(&e.lhs, level + 1)?;
        }
        self.out.push('\n');
        self.indent(level);
        write_operator(&mut self.out, e)?;
        self.out.push('\n');
        self.expr(&e.rhs, level + 1)
    }

    fn call(&mut self, e: &CallExpr, level: usize) -> fmt::Result {
        self.indent(level);
        self.out.push_str(e.func.name);
        self.out.push_str("(\n");
        for (i, arg) in e.args.iter().enumerate() {
            if i > 0 {
                self.out.push_str(",\n");
            }
            self.expr(arg, level + 1)?;
        }
        self.close(level);
        Ok(())
    }
}
