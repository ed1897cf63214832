//! The syntax tree of PromQL, with the byte range of every node.
//!
//! Every variant of [`Expr`] is one box, so that an expression is two words and passing one costs little stack. The
//! parser bounds how deep a tree gets ([`crate::MAX_DEPTH`]); walking, printing and dropping a tree may recurse.

use sextant_model::Matcher;

use crate::{
    duration::DurationExpr,
    functions::Function,
    operators::{AggregateOp, BinaryOp},
};

/// A half-open range of byte offsets into the query's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
pub struct PosRange {
    /// The first byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

impl PosRange {
    /// The range `start..end`.
    pub fn new(start: usize, end: usize) -> Self {
        Self { start, end }
    }

    /// From the start of this range to the end of another.
    pub fn to(self, last: PosRange) -> Self {
        Self { start: self.start, end: last.end }
    }
}

/// What an expression evaluates to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ValueType {
    /// Nothing: the type of what is not a value.
    None,
    /// One number per step.
    Scalar,
    /// An instant vector.
    Vector,
    /// A range vector.
    Matrix,
    /// A string.
    String,
}

impl ValueType {
    /// The name in API answers: `none`, `scalar`, `vector`, `matrix`, `string`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Scalar => "scalar",
            Self::Vector => "vector",
            Self::Matrix => "matrix",
            Self::String => "string",
        }
    }

    /// The name in error messages.
    pub fn documented(self) -> &'static str {
        match self {
            Self::Vector => "instant vector",
            Self::Matrix => "range vector",
            other => other.as_str(),
        }
    }
}

/// An expression.
#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    /// `1`, `0x1f`, `Inf`, `5m`.
    NumberLiteral(Box<NumberLiteral>),
    /// `"text"`.
    StringLiteral(Box<StringLiteral>),
    /// `metric{label="value"} offset 5m`.
    VectorSelector(Box<VectorSelector>),
    /// `metric[5m]`.
    MatrixSelector(Box<MatrixSelector>),
    /// `expr[1h:5m]`.
    Subquery(Box<SubqueryExpr>),
    /// `rate(x)`.
    Call(Box<CallExpr>),
    /// `sum by (a) (x)`.
    Aggregate(Box<AggregateExpr>),
    /// `a + b`.
    Binary(Box<BinaryExpr>),
    /// `-a`.
    Unary(Box<UnaryExpr>),
    /// `(a)`.
    Paren(Box<ParenExpr>),
}

/// A number, or a duration used as a number of seconds.
#[derive(Clone, Debug, PartialEq)]
pub struct NumberLiteral {
    /// The value; seconds where it was written as a duration.
    pub val: f64,
    /// It was written as a duration (`5m`) and prints as one.
    pub duration: bool,
    /// Where it stands.
    pub pos: PosRange,
}

/// A string.
#[derive(Clone, Debug, PartialEq)]
pub struct StringLiteral {
    /// The value, unquoted; bytes that are not UTF-8 are replaced.
    pub val: String,
    /// The value's bytes, where they are not UTF-8 (`"\\xff"`).
    pub raw: Option<Vec<u8>>,
    /// Where it stands.
    pub pos: PosRange,
}

/// The `@` modifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AtModifier {
    /// `@ 1609746000`: milliseconds since the Unix epoch.
    Timestamp(i64),
    /// `@ start()`.
    Start,
    /// `@ end()`.
    End,
}

/// An instant vector selector.
#[derive(Clone, Debug, PartialEq)]
pub struct VectorSelector {
    /// The metric name, where it was written in front of the braces; `{"name"}` gives only a matcher.
    pub name: Option<String>,
    /// Every matcher, with the one on `__name__` (last, where it comes from `name`).
    pub matchers: Vec<Matcher>,
    /// The offset as an expression; set where it is more than a literal, resolved by [`crate::resolve_durations`].
    pub offset_expr: Option<DurationExpr>,
    /// The offset in milliseconds; where `offset_expr` is set, valid only after durations are resolved.
    pub offset_ms: i64,
    /// The `@` modifier.
    pub at: Option<AtModifier>,
    /// `anchored` was given.
    pub anchored: bool,
    /// `smoothed` was given.
    pub smoothed: bool,
    /// Where it stands, with its modifiers.
    pub pos: PosRange,
}

/// A range vector selector. Its offset and `@` are its vector selector's.
#[derive(Clone, Debug, PartialEq)]
pub struct MatrixSelector {
    /// The selector before the brackets, with `offset`, `@`, `anchored` and `smoothed` from behind them.
    pub selector: VectorSelector,
    /// The range in milliseconds; where `range_expr` is set, valid only after durations are resolved.
    pub range_ms: i64,
    /// The range as an expression; set where it is more than a literal.
    pub range_expr: Option<DurationExpr>,
    /// Where it stands, with its modifiers.
    pub pos: PosRange,
}

/// A subquery.
#[derive(Clone, Debug, PartialEq)]
pub struct SubqueryExpr {
    /// What is evaluated at each step.
    pub expr: Expr,
    /// The range in milliseconds; where `range_expr` is set, valid only after durations are resolved.
    pub range_ms: i64,
    /// The range as an expression; set where it is more than a literal.
    pub range_expr: Option<DurationExpr>,
    /// The step in milliseconds; `None` where the query leaves it to the default.
    pub step_ms: Option<i64>,
    /// The step as an expression; set where it is more than a literal.
    pub step_expr: Option<DurationExpr>,
    /// The offset in milliseconds; where `offset_expr` is set, valid only after durations are resolved.
    pub offset_ms: i64,
    /// The offset as an expression; set where it is more than a literal.
    pub offset_expr: Option<DurationExpr>,
    /// The `@` modifier.
    pub at: Option<AtModifier>,
    /// Where it stands, with its modifiers.
    pub pos: PosRange,
}

/// A function call.
#[derive(Clone, Debug, PartialEq)]
pub struct CallExpr {
    /// The function; compare `func.name`.
    pub func: &'static Function,
    /// The arguments, checked against the signature.
    pub args: Vec<Expr>,
    /// Where it stands, with the parentheses.
    pub pos: PosRange,
}

/// An aggregation.
#[derive(Clone, Debug, PartialEq)]
pub struct AggregateExpr {
    /// The operator.
    pub op: AggregateOp,
    /// What is aggregated.
    pub expr: Expr,
    /// `k`, the quantile, the ratio or the label name, for the operators that take one.
    pub param: Option<Expr>,
    /// The labels of `by` or `without`.
    pub grouping: Vec<String>,
    /// The labels are those of `without`.
    pub without: bool,
    /// Where it stands.
    pub pos: PosRange,
}

/// A binary operation.
#[derive(Clone, Debug, PartialEq)]
pub struct BinaryExpr {
    /// The operator.
    pub op: BinaryOp,
    /// Left of the operator.
    pub lhs: Expr,
    /// Right of the operator.
    pub rhs: Expr,
    /// `bool` was given.
    pub return_bool: bool,
    /// How series pair up; `None` unless both sides are vectors.
    pub matching: Option<VectorMatching>,
    /// Where it stands: from the start of the left side to the end of the right side.
    pub pos: PosRange,
}

/// A sign in front of an expression that is not a literal.
#[derive(Clone, Debug, PartialEq)]
pub struct UnaryExpr {
    /// `-` was given; else it is a `+`.
    pub negative: bool,
    /// The operand.
    pub expr: Expr,
    /// Where it stands, with the sign.
    pub pos: PosRange,
}

/// An expression in parentheses.
#[derive(Clone, Debug, PartialEq)]
pub struct ParenExpr {
    /// What is in the parentheses.
    pub expr: Expr,
    /// Where it stands, with the parentheses.
    pub pos: PosRange,
}

/// How many series of one side pair with one of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Cardinality {
    /// The default of arithmetic and comparisons.
    #[default]
    OneToOne,
    /// `group_left`: many on the left.
    ManyToOne,
    /// `group_right`: many on the right.
    OneToMany,
    /// `and`, `or`, `unless`.
    ManyToMany,
}

impl Cardinality {
    /// Prometheus' spelling: `one-to-one` and so on.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OneToOne => "one-to-one",
            Self::ManyToOne => "many-to-one",
            Self::OneToMany => "one-to-many",
            Self::ManyToMany => "many-to-many",
        }
    }
}

/// How the series of two vectors pair up.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct VectorMatching {
    /// How many on each side.
    pub card: Cardinality,
    /// `labels` are those of `on`; else those of `ignoring`.
    pub on: bool,
    /// The labels of `on` or `ignoring`.
    pub labels: Vec<String>,
    /// The labels that `group_left`/`group_right` copies from the "one" side.
    pub include: Vec<String>,
    /// The value for a series missing on the left.
    pub fill_lhs: Option<f64>,
    /// The value for a series missing on the right.
    pub fill_rhs: Option<f64>,
}

impl Expr {
    /// Where the expression stands.
    pub fn pos(&self) -> PosRange {
        match self {
            Self::NumberLiteral(e) => e.pos,
            Self::StringLiteral(e) => e.pos,
            Self::VectorSelector(e) => e.pos,
            Self::MatrixSelector(e) => e.pos,
            Self::Subquery(e) => e.pos,
            Self::Call(e) => e.pos,
            Self::Aggregate(e) => e.pos,
            Self::Binary(e) => e.pos,
            Self::Unary(e) => e.pos,
            Self::Paren(e) => e.pos,
        }
    }

    /// What it evaluates to. Looks through parentheses and signs without recursion; a binary operation is a scalar
    /// exactly where both sides are.
    pub fn value_type(&self) -> ValueType {
        let mut expr = self;
        loop {
            return match expr {
                Self::NumberLiteral(_) => ValueType::Scalar,
                Self::StringLiteral(_) => ValueType::String,
                Self::VectorSelector(_) | Self::Aggregate(_) => ValueType::Vector,
                Self::MatrixSelector(_) | Self::Subquery(_) => ValueType::Matrix,
                Self::Call(e) => e.func.return_type,
                Self::Binary(e) => e.value_type(),
                Self::Unary(e) => {
                    expr = &e.expr;
                    continue;
                }
                Self::Paren(e) => {
                    expr = &e.expr;
                    continue;
                }
            };
        }
    }

    /// The expression inside any parentheses.
    pub fn unwrap_parens(&self) -> &Expr {
        let mut expr = self;
        while let Self::Paren(p) = expr {
            expr = &p.expr;
        }
        expr
    }

    /// The direct sub-expressions, in the order of the text (an aggregation's parameter before its vector).
    pub fn children(&self) -> Vec<&Expr> {
        match self {
            Self::NumberLiteral(_)
            | Self::StringLiteral(_)
            | Self::VectorSelector(_)
            | Self::MatrixSelector(_) => Vec::new(),
            Self::Subquery(e) => vec![&e.expr],
            Self::Call(e) => e.args.iter().collect(),
            Self::Aggregate(e) => e.param.iter().chain([&e.expr]).collect(),
            Self::Binary(e) => vec![&e.lhs, &e.rhs],
            Self::Unary(e) => vec![&e.expr],
            Self::Paren(e) => vec![&e.expr],
        }
    }

    /// As [`Expr::children`], to change them.
    pub fn children_mut(&mut self) -> Vec<&mut Expr> {
        match self {
            Self::NumberLiteral(_)
            | Self::StringLiteral(_)
            | Self::VectorSelector(_)
            | Self::MatrixSelector(_) => Vec::new(),
            Self::Subquery(e) => vec![&mut e.expr],
            Self::Call(e) => e.args.iter_mut().collect(),
            Self::Aggregate(e) => e.param.iter_mut().chain([&mut e.expr]).collect(),
            Self::Binary(e) => vec![&mut e.lhs, &mut e.rhs],
            Self::Unary(e) => vec![&mut e.expr],
            Self::Paren(e) => vec![&mut e.expr],
        }
    }
}

impl BinaryExpr {
    /// Scalar where both sides are scalars, else vector. A chain of operators leans to the left, so the left side is
    /// followed without recursion.
    pub fn value_type(&self) -> ValueType {
        let mut binary = self;
        loop {
            if binary.rhs.value_type() != ValueType::Scalar {
                return ValueType::Vector;
            }
            match binary.lhs.unwrap_signs() {
                Expr::Binary(left) => binary = left,
                other if other.value_type() == ValueType::Scalar => return ValueType::Scalar,
                _ => return ValueType::Vector,
            }
        }
    }
}

impl Expr {
    /// The expression inside any parentheses and signs.
    fn unwrap_signs(&self) -> &Expr {
        let mut expr = self;
        loop {
            expr = match expr {
                Self::Paren(e) => &e.expr,
                Self::Unary(e) => &e.expr,
                other => return other,
            };
        }
    }
}
