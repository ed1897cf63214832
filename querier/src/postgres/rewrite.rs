//! PostgreSQL's dialect as DataFusion plans it: parameters in place, and forms that DataFusion does not know in forms that it does.
//!
//! What is rewritten is what clients' catalogue queries and Grafana's macros use: functions and operators named with `pg_catalog.`,
//! casts to `regclass`, `oid` and other types of the catalogue, functions in `FROM`, `array(select …)`, `->>` on labels, and scalar
//! subqueries over the catalogue that PostgreSQL knows to have one row.

use std::{collections::BTreeSet, ops::ControlFlow};

use datafusion::logical_expr::sqlparser::{
    ast::{
        ArrayElemTypeDef, BinaryOperator, DataType, Expr, Function, FunctionArg, FunctionArgExpr,
        FunctionArguments, Ident, LimitClause, ObjectName, ObjectNamePart, Query, Select, SelectItem,
        SetExpr, Statement, TableAlias, TableFactor, TableWithJoins, Value, VisitMut, VisitorMut,
        visit_relations,
    },
    dialect::PostgreSqlDialect,
    keywords::Keyword,
    parser::{Parser, ParserError},
    tokenizer::{Token, TokenWithSpan, Tokenizer},
};

use super::{catalog, error::PgError, params};
use crate::error::QueryError;

/// Nesting that the parser follows.
const RECURSION_MAX: usize = 50;
/// Operators that one text may have: each may be a level of its tree, which is walked by recursion.
const OPERATORS_MAX: usize = 1000;

/// Statements of a text.
pub fn parse(sql: &str) -> Result<Vec<Statement>, PgError> {
    let dialect = PostgreSqlDialect {};
    let tokens = Tokenizer::new(&dialect, sql)
        .tokenize_with_location()
        .map_err(|e| PgError::syntax(&ParserError::TokenizerError(e.to_string()), sql))?;
    if too_deep(&tokens) {
        return Err(PgError::new("54001", too_deep_text())
            .with_hint("Long chains of OR are shorter as IN (…) or = ANY (…)."));
    }
    Parser::new(&dialect)
        .with_recursion_limit(RECURSION_MAX)
        .with_tokens_with_locations(tokens)
        .parse_statements()
        .map_err(|e| PgError::syntax(&e, sql))
}

fn too_deep(tokens: &[TokenWithSpan]) -> bool {
    tokens.iter().filter(|t| is_operator(&t.token)).count() > OPERATORS_MAX
}

fn too_deep_text() -> String {
    format!("a statement may have {OPERATORS_MAX} operators at most")
}

/// Refuses a text whose tree would be too deep to walk, whoever parses it.
pub fn refuse_deep(sql: &str) -> Result<(), QueryError> {
    match Tokenizer::new(&PostgreSqlDialect {}, sql).tokenize_with_location() {
        Ok(tokens) if too_deep(&tokens) => Err(QueryError::BadRequest(too_deep_text())),
        _ => Ok(()),
    }
}

/// Whether a token makes a tree deeper without a parenthesis.
fn is_operator(token: &Token) -> bool {
    match token {
        Token::Word(word) => matches!(
            word.keyword,
            Keyword::AND
                | Keyword::OR
                | Keyword::NOT
                | Keyword::UNION
                | Keyword::EXCEPT
                | Keyword::INTERSECT
                | Keyword::JOIN
                | Keyword::COLLATE
                | Keyword::IS
                | Keyword::LIKE
        ),
        Token::Plus
        | Token::Minus
        | Token::Mul
        | Token::Div
        | Token::Mod
        | Token::StringConcat
        | Token::Eq
        | Token::Neq
        | Token::Lt
        | Token::Gt
        | Token::LtEq
        | Token::GtEq
        | Token::DoubleColon
        | Token::Pipe
        | Token::Ampersand
        | Token::Caret
        | Token::Arrow
        | Token::LongArrow
        | Token::LBracket => true,
        _ => false,
    }
}

/// An expression from a text that is ours.
pub fn expression(sql: &str) -> Result<Expr, PgError> {
    Parser::new(&PostgreSqlDialect {})
        .try_with_sql(sql)
        .and_then(|mut p| p.parse_expr())
        .map_err(|e| PgError::syntax(&e, sql))
}

/// What a statement turned out to be.
#[derive(Debug, Default)]
pub struct Rewritten {
    /// Whether it reads the catalogue (`pg_catalog`, `information_schema`).
    pub catalog: bool,
    /// The names that PostgreSQL gives to the columns, where it is not the planner's; empty where all are the planner's.
    pub names: Vec<Option<String>>,
}

/// The parameters `$1`, `$2`, … of a statement, and the type that a cast around one gives it.
pub fn parameters(statement: &mut Statement) -> Vec<Option<String>> {
    let mut found = Parameters::default();
    let _ = statement.visit(&mut found);
    let count = found.all.last().copied().unwrap_or(0);
    (1..=count).map(|i| found.casts.iter().find(|(n, _)| *n == i).map(|(_, t)| t.clone())).collect()
}

#[derive(Default)]
struct Parameters {
    all: BTreeSet<usize>,
    casts: Vec<(usize, String)>,
}

impl VisitorMut for Parameters {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        let (limit, offset) = match &query.limit_clause {
            Some(LimitClause::LimitOffset { limit, offset, .. }) => {
                (limit.as_ref(), offset.as_ref().map(|o| &o.value))
            }
            _ => (None, None),
        };
        let counts = [limit, offset].into_iter().flatten().filter_map(placeholder);
        self.casts.extend(counts.map(|i| (i, "bigint".to_owned())));
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Cast { expr, data_type, .. } = expr
            && let Some(i) = placeholder(expr)
        {
            self.casts.push((i, data_type.to_string()));
        }
        if let Some(i) = placeholder(expr) {
            self.all.insert(i);
        }
        ControlFlow::Continue(())
    }
}

/// The number of a parameter; PostgreSQL has 65,535 at most.
fn placeholder(expr: &Expr) -> Option<usize> {
    let Expr::Value(value) = expr else { return None };
    let Value::Placeholder(name) = &value.value else { return None };
    name.strip_prefix('$')?.parse().ok().filter(|i| (1..=65_535).contains(i))
}

/// Rewrites a statement; `parameter` gives the expression for a parameter, from 0, or leaves it as it is.
pub fn rewrite(
    statement: &mut Statement,
    parameter: &dyn Fn(usize) -> Option<Expr>,
) -> Result<Rewritten, PgError> {
    let names = match statement {
        Statement::Query(query) => name_columns(&mut query.body),
        _ => Vec::new(),
    };
    let catalog = visit_relations(statement, |name| match of_catalog(name) {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    })
    .is_break();
    if let ControlFlow::Break(e) = statement.visit(&mut Rewriter { parameter, catalog }) {
        return Err(e);
    }
    if catalog && let ControlFlow::Break(e) = statement.visit(&mut Subqueries) {
        return Err(e);
    }
    Ok(Rewritten { catalog, names })
}

/// Whether a relation is one of the catalogue's.
fn of_catalog(name: &ObjectName) -> bool {
    let parts: Vec<String> =
        name.0.iter().filter_map(|p| p.as_ident()).map(|i| i.value.to_lowercase()).collect();
    match parts.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [table] => catalog::is_table(table),
        [.., schema, _] => matches!(*schema, "pg_catalog" | "information_schema"),
        _ => false,
    }
}

/// Gives each column without a name one that is unlike all others, and returns the names that PostgreSQL gives.
fn name_columns(body: &mut SetExpr) -> Vec<Option<String>> {
    match body {
        SetExpr::Select(select) => {
            let whole =
                |i: &SelectItem| matches!(i, SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. });
            if !select.projection.iter().all(whole) {
                return Vec::new();
            }
            let name = |(i, item): (usize, &mut SelectItem)| match item {
                SelectItem::UnnamedExpr(expr) if column_name(expr).is_none() => {
                    let name = expression_name(expr).unwrap_or_else(|| "?column?".to_owned());
                    let expr = expr.clone();
                    *item =
                        SelectItem::ExprWithAlias { expr, alias: Ident::new(format!("column {}", i + 1)) };
                    if let SelectItem::ExprWithAlias { alias, .. } = item {
                        alias.quote_style = Some('"');
                    }
                    Some(name)
                }
                _ => None,
            };
            select.projection.iter_mut().enumerate().map(name).collect()
        }
        SetExpr::Query(query) => name_columns(&mut query.body),
        SetExpr::SetOperation { left, .. } => name_columns(left),
        _ => Vec::new(),
    }
}

fn column_name(expr: &Expr) -> Option<&Ident> {
    match expr {
        Expr::Identifier(ident) => Some(ident),
        Expr::CompoundIdentifier(parts) => parts.last(),
        _ => None,
    }
}

/// The name that PostgreSQL gives to a column of an expression.
fn expression_name(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) => column_name(expr).map(|i| i.value.clone()),
        Expr::Function(f) => f.name.0.last()?.as_ident().map(|i| i.value.to_lowercase()),
        Expr::Cast { expr, data_type, .. } => expression_name(expr).or_else(|| {
            super::types::ColumnType::from_name(&data_type.to_string()).map(|t| t.scalar.name.into())
        }),
        Expr::Nested(e) | Expr::Collate { expr: e, .. } => expression_name(e),
        Expr::CompoundFieldAccess { root, .. } => expression_name(root),
        Expr::Case { .. } => Some("case".into()),
        Expr::Extract { .. } => Some("extract".into()),
        Expr::Exists { .. } => Some("exists".into()),
        Expr::Array(_) => Some("array".into()),
        Expr::Floor { .. } => Some("floor".into()),
        Expr::Ceil { .. } => Some("ceil".into()),
        Expr::Substring { .. } => Some("substring".into()),
        Expr::Trim { .. } => Some("btrim".into()),
        Expr::Position { .. } => Some("position".into()),
        Expr::Interval(_) => Some("interval".into()),
        Expr::AtTimeZone { .. } => Some("timezone".into()),
        Expr::Value(v) if matches!(v.value, Value::Boolean(_)) => Some("bool".into()),
        _ => None,
    }
}

struct Rewriter<'a> {
    parameter: &'a dyn Fn(usize) -> Option<Expr>,
    catalog: bool,
}

impl VisitorMut for Rewriter<'_> {
    type Break = PgError;

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<PgError> {
        match function_in_from(factor) {
            Ok(Some(derived)) => *factor = derived,
            Ok(None) => {}
            Err(e) => return ControlFlow::Break(e),
        }
        ControlFlow::Continue(())
    }

    fn post_visit_relation(&mut self, name: &mut ObjectName) -> ControlFlow<PgError> {
        if name.0.len() == 1 && of_catalog(name) {
            name.0.insert(0, ObjectNamePart::Identifier(Ident::new("pg_catalog")));
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<PgError> {
        if let Some(i) = placeholder(expr) {
            if let Some(value) = (self.parameter)(i - 1) {
                *expr = value;
            }
            return ControlFlow::Continue(());
        }
        match rewrite_expr(expr, self.catalog) {
            Ok(Some(new)) => *expr = new,
            Ok(None) => {}
            Err(e) => return ControlFlow::Break(e),
        }
        ControlFlow::Continue(())
    }
}

fn null() -> Expr {
    Expr::Value(Value::Null.into())
}

fn text_of(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Value(v) => match &v.value {
            Value::SingleQuotedString(s) | Value::EscapedStringLiteral(s) => Some(s),
            _ => None,
        },
        Expr::Nested(e) => text_of(e),
        _ => None,
    }
}

/// A call of a function with one argument, or with two.
fn call(name: &str, args: Vec<Expr>) -> Result<Expr, PgError> {
    let Expr::Function(mut f) = expression(&format!("{name}()"))? else {
        return Err(PgError::new("XX000", "not a call"));
    };
    if let FunctionArguments::List(list) = &mut f.args {
        list.args = args.into_iter().map(|a| FunctionArg::Unnamed(FunctionArgExpr::Expr(a))).collect();
    }
    Ok(Expr::Function(f))
}

fn rewrite_expr(expr: &mut Expr, catalog: bool) -> Result<Option<Expr>, PgError> {
    Ok(match expr {
        Expr::Function(f) => function(f, catalog)?,
        Expr::Cast { expr: inner, data_type, .. } => cast(inner, data_type)?,
        Expr::Collate { expr, .. } => Some((**expr).clone()),
        Expr::BinaryOp { left, op, right } => match op {
            BinaryOperator::PGCustomBinaryOperator(parts) => {
                let symbol = parts.last().map_or("", String::as_str);
                match expression(&format!("a {symbol} b"))? {
                    Expr::BinaryOp { op: named, .. } => *op = named,
                    _ => return Err(PgError::new("42883", format!("operator {symbol} is not known"))),
                }
                None
            }
            BinaryOperator::Arrow | BinaryOperator::LongArrow if text_of(right).is_some() => {
                Some(call("get_field", vec![(**left).clone(), (**right).clone()])?)
            }
            // Texts of the form `{…}` stand for arrays in the catalogue.
            _ if catalog => {
                for side in [left, right] {
                    if let Some(items) = text_of(side).and_then(params::array_items) {
                        **side = text_array(&items)?;
                    }
                }
                None
            }
            _ => None,
        },
        Expr::AnyOp { right, .. } | Expr::AllOp { right, .. } => {
            if let Expr::Nested(inner) = &**right
                && !matches!(**inner, Expr::Subquery(_))
            {
                *right = inner.clone();
            }
            if let Some(items) = text_of(right).and_then(params::array_items) {
                **right = text_array(&items)?;
            }
            None
        }
        _ => None,
    })
}

fn text_array(items: &[Option<String>]) -> Result<Expr, PgError> {
    let items = items.iter().map(|i| i.as_deref().map_or("NULL".into(), params::quoted));
    expression(&format!("ARRAY[{}]", items.collect::<Vec<_>>().join(",")))
}

/// The arguments of a call that are expressions.
fn arguments(f: &Function) -> Vec<&Expr> {
    match &f.args {
        FunctionArguments::List(list) => list
            .args
            .iter()
            .filter_map(|a| match a {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(e)) => Some(e),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    }
}

fn function(f: &mut Function, catalog: bool) -> Result<Option<Expr>, PgError> {
    let schema = |p: &ObjectNamePart| {
        p.as_ident().is_some_and(|i| matches!(i.value.as_str(), "pg_catalog" | "information_schema"))
    };
    if f.name.0.len() == 2 && schema(&f.name.0[0]) {
        f.name.0.remove(0);
    }
    let name = f.name.0.last().and_then(|p| p.as_ident()).map(|i| i.value.to_lowercase());
    match name.as_deref() {
        // DataFusion's arrays begin at 1.
        Some("array_lower") => return Ok(Some(expression("1")?)),
        Some("array_upper") => f.name = ObjectName::from(vec![Ident::new("array_length")]),
        Some("array") => {
            if let FunctionArguments::Subquery(query) = &f.args {
                // What the catalogue's queries gather (options, privileges, memberships), nothing here has.
                if catalog {
                    return Ok(Some(expression("CAST(NULL AS VARCHAR[])")?));
                }
                let mut query = query.clone();
                query.order_by = None;
                if let SetExpr::Select(select) = &mut *query.body {
                    aggregate(select, "array_agg")?;
                }
                return Ok(Some(Expr::Subquery(query)));
            }
        }
        // Without a time zone of the session there is nothing to convert to.
        Some("timezone") => {
            if let [_, time] = arguments(f).as_slice() {
                return Ok(Some((*time).clone()));
            }
        }
        _ => {}
    }
    Ok(None)
}

/// Wraps a select's one column in an aggregate, if it has none.
fn aggregate(select: &mut Select, name: &str) -> Result<(), PgError> {
    if let [SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }] =
        select.projection.as_mut_slice()
    {
        *expr = call(name, vec![expr.clone()])?;
    }
    Ok(())
}

/// A data type that DataFusion knows for one that it does not.
fn plain_type(data_type: &DataType) -> Result<Option<&'static str>, PgError> {
    Ok(match data_type {
        DataType::Custom(name, _) => {
            let last = name.0.last().and_then(|p| p.as_ident()).map(|i| i.value.to_lowercase());
            match last.as_deref() {
                Some("oid" | "xid" | "cid" | "regproc" | "int8") => Some("BIGINT"),
                Some("int4") => Some("INT"),
                Some("int2") => Some("SMALLINT"),
                Some("float8") => Some("DOUBLE"),
                Some("float4") => Some("REAL"),
                Some("bool") => Some("BOOLEAN"),
                Some("timestamptz") => Some("TIMESTAMP WITH TIME ZONE"),
                Some("timestamp") => Some("TIMESTAMP"),
                Some("date") => Some("DATE"),
                Some("interval") => Some("INTERVAL"),
                Some("bytea") => Some("BYTEA"),
                Some("numeric") => Some("DECIMAL(38, 10)"),
                Some(
                    "text" | "name" | "char" | "varchar" | "bpchar" | "cstring" | "unknown" | "json"
                    | "jsonb" | "uuid" | "citext" | "regtype" | "sql_identifier" | "character_data"
                    | "cardinal_number" | "yes_or_no",
                ) => Some("VARCHAR"),
                _ => return Err(PgError::new("42704", format!("type \"{name}\" does not exist"))),
            }
        }
        DataType::JSON
        | DataType::JSONB
        | DataType::Uuid
        | DataType::Character(_)
        | DataType::CharacterVarying(_)
        | DataType::CharVarying(_) => Some("VARCHAR"),
        DataType::Array(ArrayElemTypeDef::SquareBracket(inner, _)) => match plain_type(inner)? {
            Some("BIGINT") => Some("BIGINT[]"),
            Some("INT") => Some("INT[]"),
            Some("SMALLINT") => Some("SMALLINT[]"),
            Some("DOUBLE") => Some("DOUBLE[]"),
            Some("VARCHAR") => Some("VARCHAR[]"),
            Some(other) => return Err(PgError::unsupported(format_args!("a cast to {other}[]"))),
            None => None,
        },
        _ => None,
    })
}

fn cast(inner: &Expr, data_type: &mut DataType) -> Result<Option<Expr>, PgError> {
    let name = data_type.to_string().to_lowercase();
    match name.trim_start_matches("pg_catalog.") {
        "regclass" if text_of(inner).is_some() => return Ok(Some(call("to_regclass", vec![inner.clone()])?)),
        "regclass" => return Ok(Some(call("regclass_name", vec![inner.clone()])?)),
        "regtype" if text_of(inner).is_some() => return Ok(Some(call("to_regtype", vec![inner.clone()])?)),
        "regtype" => return Ok(Some(call("format_type", vec![inner.clone(), null()])?)),
        "regproc" if text_of(inner).is_some() => return Ok(Some(call("to_regproc", vec![inner.clone()])?)),
        "regproc" | "regnamespace" => return Ok(Some(inner.clone())),
        _ => {}
    }
    // `'x'::regclass::oid` is a number already.
    if let Expr::Function(f) = inner
        && f.name.to_string() == "regclass_name"
        && name == "oid"
    {
        return Ok(arguments(f).first().map(|e| (*e).clone()));
    }
    if let Some(plain) = plain_type(data_type)?
        && let Expr::Cast { data_type: known, .. } = expression(&format!("CAST(a AS {plain})"))?
    {
        *data_type = known;
    }
    Ok(None)
}

/// `f(x) AS y` in `FROM` as a subquery: `(SELECT f(x) AS y) AS y`, sets unnested.
fn function_in_from(factor: &mut TableFactor) -> Result<Option<TableFactor>, PgError> {
    let (name, args, alias, lateral) = match factor {
        TableFactor::Table { name, args: Some(args), alias, with_ordinality: false, .. } => {
            (name, &args.args, alias, false)
        }
        TableFactor::Function { name, args, alias, lateral, with_ordinality: false } => {
            (name, &*args, alias, *lateral)
        }
        _ => return Ok(None),
    };
    let Some(function) = name.0.last().and_then(|p| p.as_ident()).map(|i| i.value.to_lowercase()) else {
        return Ok(None);
    };
    if function == "promql" {
        return Ok(None);
    }
    let args: Vec<Expr> = args
        .iter()
        .filter_map(|a| match a {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(e)) => Some(e.clone()),
            _ => None,
        })
        .collect();
    let mut value = call(&function, args)?;
    if function == "generate_series" || function.starts_with("regexp_split_to_") {
        value = call("unnest", vec![value])?;
    }
    let column = alias.as_ref().map_or_else(|| Ident::new(function), |a| a.name.clone());
    let Statement::Query(mut query) = parse("SELECT 1")?.remove(0) else { return Ok(None) };
    if let SetExpr::Select(select) = &mut *query.body {
        select.projection = vec![SelectItem::ExprWithAlias { expr: value, alias: column.clone() }];
    }
    let alias =
        alias.clone().unwrap_or(TableAlias { explicit: true, name: column, columns: Vec::new(), at: None });
    Ok(Some(TableFactor::Derived { lateral, subquery: query, alias: Some(alias), sample: None }))
}

/// Scalar subqueries over the catalogue: NULL where a table is always empty, else the greatest of what PostgreSQL knows to be one.
struct Subqueries;

impl VisitorMut for Subqueries {
    type Break = PgError;

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<PgError> {
        let Expr::Subquery(query) = expr else { return ControlFlow::Continue(()) };
        let SetExpr::Select(select) = &mut *query.body else { return ControlFlow::Continue(()) };
        let empty = |t: &TableWithJoins| match &t.relation {
            TableFactor::Table { name, .. } => {
                name.0.last().and_then(|p| p.as_ident()).is_some_and(|i| catalog::is_empty(&i.value))
            }
            // A function over the catalogue's arrays, all of which are NULL.
            TableFactor::Derived { .. } | TableFactor::UNNEST { .. } => true,
            _ => false,
        };
        if select.from.iter().any(empty) {
            *expr = null();
            return ControlFlow::Continue(());
        }
        if !select.from.is_empty() && !aggregates(select) {
            if let Err(e) = aggregate(select, "max") {
                return ControlFlow::Break(e);
            }
            query.order_by = None;
            query.limit_clause = None;
        }
        ControlFlow::Continue(())
    }
}

/// Whether a select's one column is an aggregate already.
fn aggregates(select: &Select) -> bool {
    let [SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }] =
        select.projection.as_slice()
    else {
        return true;
    };
    let text = expr.to_string().to_lowercase();
    ["count(", "max(", "min(", "sum(", "avg(", "array_agg(", "string_agg(", "bool_or(", "bool_and("]
        .iter()
        .any(|a| text.contains(a))
}

/// The query of a statement that has one.
pub fn query_of(statement: &Statement) -> Option<&Query> {
    match statement {
        Statement::Query(q) => Some(q),
        _ => None,
    }
}
