//! Functions of PostgreSQL that clients call on the catalogue and the session, for one session.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use arrow_array::{
    ArrayRef, BooleanArray, Int32Array, Int64Array, StringArray,
    builder::{ListBuilder, StringBuilder},
    cast::AsArray,
    types::Int64Type,
};
use arrow_schema::{DataType, Field};
use datafusion::{
    common::exec_err,
    error::Result,
    execution::FunctionRegistry,
    logical_expr::{
        ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
    },
};

use super::{
    catalog::{Catalog, PROMQL},
    types::ColumnType,
};

/// The version of PostgreSQL whose catalogue and protocol are spoken.
pub const SERVER_VERSION: &str = "16.0";
/// The same as a number.
pub const SERVER_VERSION_NUM: &str = "160000";

/// What `version()` says.
pub fn version() -> String {
    format!("PostgreSQL {SERVER_VERSION} (Sextant {})", env!("CARGO_PKG_VERSION"))
}

type Body = dyn Fn(&Call) -> Result<ArrayRef> + Send + Sync;

struct PgFunction {
    name: &'static str,
    signature: Signature,
    returns: DataType,
    body: Arc<Body>,
}

impl fmt::Debug for PgFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}()", self.name)
    }
}

impl PartialEq for PgFunction {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && Arc::ptr_eq(&self.body, &other.body)
    }
}

impl Eq for PgFunction {}

impl Hash for PgFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

/// The arguments of a call, for a number of rows.
struct Call {
    args: Vec<ArrayRef>,
    types: Vec<DataType>,
    rows: usize,
}

impl Call {
    /// An argument as texts; NULL where there is no such argument.
    fn texts(&self, i: usize) -> Result<StringArray> {
        match self.args.get(i) {
            Some(a) => Ok(arrow_cast::cast(a, &DataType::Utf8)?.as_string::<i32>().clone()),
            None => Ok(StringArray::new_null(self.rows)),
        }
    }

    /// An argument as numbers.
    fn numbers(&self, i: usize) -> Result<Int64Array> {
        match self.args.get(i) {
            Some(a) => Ok(arrow_cast::cast(a, &DataType::Int64)?.as_primitive::<Int64Type>().clone()),
            None => Ok(Int64Array::new_null(self.rows)),
        }
    }

    fn map_texts(&self, i: usize, f: impl Fn(&str) -> Option<String>) -> Result<ArrayRef> {
        Ok(Arc::new(self.texts(i)?.iter().map(|t| t.and_then(&f)).collect::<StringArray>()))
    }

    fn map_numbers(&self, i: usize, f: impl Fn(i64) -> Option<String>) -> Result<ArrayRef> {
        Ok(Arc::new(self.numbers(i)?.iter().map(|n| n.and_then(&f)).collect::<StringArray>()))
    }

    fn repeat(&self, text: Option<&str>) -> ArrayRef {
        Arc::new((0..self.rows).map(|_| text).collect::<StringArray>())
    }
}

impl ScalarUDFImpl for PgFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.returns.clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = args.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        let types = args.arg_fields.iter().map(|f| f.data_type().clone()).collect();
        let arrays = args.args.iter().map(|a| a.to_array(rows)).collect::<Result<Vec<_>>>()?;
        let answer = (self.body)(&Call { args: arrays, types, rows })?;
        if constant {
            return Ok(ColumnarValue::Scalar(datafusion::common::ScalarValue::try_from_array(&answer, 0)?));
        }
        Ok(ColumnarValue::Array(answer))
    }
}

/// Registers the functions of a session.
pub fn register(registry: &mut dyn FunctionRegistry, catalog: &Arc<Catalog>) -> Result<()> {
    let mut add = |name: &'static str, returns: DataType, body: Arc<Body>| -> Result<()> {
        let any = TypeSignature::OneOf(vec![TypeSignature::Nullary, TypeSignature::VariadicAny]);
        let signature = Signature::new(any, Volatility::Immutable);
        registry.register_udf(Arc::new(ScalarUDF::from(PgFunction { name, signature, returns, body })))?;
        Ok(())
    };
    for (name, text) in constants(catalog) {
        add(name, DataType::Utf8, Arc::new(move |c| Ok(c.repeat(text.as_deref()))))?;
    }
    for name in TRUE {
        add(name, DataType::Boolean, Arc::new(|c| Ok(Arc::new(BooleanArray::from(vec![true; c.rows])))))?;
    }
    for name in FALSE {
        add(name, DataType::Boolean, Arc::new(|c| Ok(Arc::new(BooleanArray::from(vec![false; c.rows])))))?;
    }
    for name in ZERO {
        add(name, DataType::Int64, Arc::new(|c| Ok(Arc::new(Int64Array::from(vec![0; c.rows])))))?;
    }
    let pid = catalog.pid;
    add(
        "pg_backend_pid",
        DataType::Int32,
        Arc::new(move |c| Ok(Arc::new(Int32Array::from(vec![pid; c.rows])))),
    )?;
    add("set_config", DataType::Utf8, Arc::new(|c| c.map_texts(1, |t| Some(t.to_owned()))))?;
    add("quote_ident", DataType::Utf8, Arc::new(|c| c.map_texts(0, |t| Some(quote_ident(t)))))?;
    add("quote_literal", DataType::Utf8, Arc::new(|c| c.map_texts(0, |t| Some(super::params::quoted(t)))))?;
    add("format_type", DataType::Utf8, Arc::new(|c| c.map_numbers(0, |oid| Some(format_type(oid)))))?;
    add("pg_size_pretty", DataType::Utf8, Arc::new(|c| c.map_numbers(0, |n| Some(format!("{n} bytes")))))?;
    add(
        "pg_typeof",
        DataType::Utf8,
        Arc::new(|c| {
            let name = c.types.first().map(|t| ColumnType::of_data_type(t).sql_name());
            Ok(c.repeat(name.as_deref()))
        }),
    )?;
    add(
        "to_regtype",
        DataType::Int64,
        Arc::new(|c| {
            let oid = |t: &str| {
                ColumnType::from_name(t.trim_start_matches("pg_catalog.")).map(|t| i64::from(t.oid()))
            };
            Ok(Arc::new(c.texts(0)?.iter().map(|t| t.and_then(oid)).collect::<Int64Array>()))
        }),
    )?;
    add(
        "to_regproc",
        DataType::Int64,
        Arc::new(|c| {
            let oid = |t: &str| (t.rsplit('.').next() == Some("promql")).then_some(PROMQL);
            Ok(Arc::new(c.texts(0)?.iter().map(|t| t.and_then(oid)).collect::<Int64Array>()))
        }),
    )?;
    add(
        "pg_char_to_encoding",
        DataType::Int64,
        Arc::new(|c| Ok(Arc::new(Int64Array::from(vec![6; c.rows])))),
    )?;
    add(
        "format",
        DataType::Utf8,
        Arc::new(|c| {
            let args = (0..c.args.len()).map(|i| c.texts(i)).collect::<Result<Vec<_>>>()?;
            let row = |i: usize| {
                let values: Vec<Option<&str>> = args.iter().map(|a| a.iter().nth(i).flatten()).collect();
                values.first().copied().flatten().map(|f| format_text(f, &values[1..]))
            };
            Ok(Arc::new((0..c.rows).map(row).collect::<StringArray>()))
        }),
    )?;
    let of_promql = |text: &'static str| -> Arc<Body> {
        Arc::new(move |c| c.map_numbers(0, |oid| (oid == PROMQL).then(|| text.to_owned())))
    };
    let arguments =
        "expression text, start timestamp with time zone, \"end\" timestamp with time zone, step interval";
    add("pg_get_function_arguments", DataType::Utf8, of_promql(arguments))?;
    add("pg_get_function_identity_arguments", DataType::Utf8, of_promql(arguments))?;
    add("pg_get_function_result", DataType::Utf8, of_promql("SETOF samples"))?;
    session(&mut add, catalog)
}

/// The functions that depend on the session's tables and settings.
fn session(
    add: &mut dyn FnMut(&'static str, DataType, Arc<Body>) -> Result<()>,
    catalog: &Arc<Catalog>,
) -> Result<()> {
    let this = catalog.clone();
    add(
        "current_setting",
        DataType::Utf8,
        Arc::new(move |c| {
            let missing_ok = c
                .args
                .get(1)
                .is_some_and(|a| a.as_boolean_opt().is_some_and(|b| !b.is_empty() && b.value(0)));
            let names = c.texts(0)?;
            let values = names.iter().map(|name| {
                let Some(name) = name else { return Ok(None) };
                match this.settings.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)) {
                    Some((_, value)) => Ok(Some(value.clone())),
                    None if missing_ok => Ok(None),
                    None => exec_err!("unrecognized configuration parameter \"{name}\""),
                }
            });
            Ok(Arc::new(values.collect::<Result<StringArray>>()?))
        }),
    )?;
    let this = catalog.clone();
    add(
        "to_regclass",
        DataType::Int64,
        Arc::new(move |c| {
            let oid = |t: &str| {
                let name =
                    t.trim_start_matches("public.").trim_start_matches("pg_catalog.").trim_matches('"');
                this.relations.iter().find(|r| r.name == name).map(|r| r.oid)
            };
            Ok(Arc::new(c.texts(0)?.iter().map(|t| t.and_then(oid)).collect::<Int64Array>()))
        }),
    )?;
    let hidden: Vec<i64> = catalog.relations.iter().filter(|r| r.hidden()).map(|r| r.oid).collect();
    add(
        "pg_table_is_visible",
        DataType::Boolean,
        Arc::new(move |c| {
            let visible = |oid: i64| !hidden.contains(&oid);
            Ok(Arc::new(c.numbers(0)?.iter().map(|oid| oid.map(visible)).collect::<BooleanArray>()))
        }),
    )?;
    let this = catalog.clone();
    add(
        "regclass_name",
        DataType::Utf8,
        Arc::new(move |c| {
            c.map_texts(0, |t| {
                let named =
                    t.parse::<i64>().ok().and_then(|oid| this.relations.iter().find(|r| r.oid == oid));
                Some(named.map_or_else(|| t.to_owned(), |r| r.name.clone()))
            })
        }),
    )?;
    let user = catalog.user.clone();
    add("pg_get_userbyid", DataType::Utf8, Arc::new(move |c| Ok(c.repeat(Some(&user)))))?;
    let list = DataType::List(Arc::new(Field::new("item", DataType::Utf8, true)));
    add(
        "current_schemas",
        list,
        Arc::new(|c| {
            let implicit = c
                .args
                .first()
                .is_some_and(|a| a.as_boolean_opt().is_some_and(|b| !b.is_empty() && b.value(0)));
            let mut lists = ListBuilder::new(StringBuilder::new());
            for _ in 0..c.rows {
                if implicit {
                    lists.values().append_value("pg_catalog");
                }
                lists.values().append_value("public");
                lists.append(true);
            }
            Ok(Arc::new(lists.finish()))
        }),
    )
}

/// Functions that say the same for every row; `None` is NULL.
fn constants(catalog: &Catalog) -> Vec<(&'static str, Option<String>)> {
    let mut constants: Vec<(&'static str, Option<String>)> = vec![
        ("version", Some(version())),
        ("current_schema", Some("public".into())),
        ("getdatabaseencoding", Some("UTF8".into())),
        ("pg_client_encoding", Some("UTF8".into())),
        ("pg_encoding_to_char", Some("UTF8".into())),
        ("pg_tablespace_location", Some(String::new())),
    ];
    for name in ["current_database", "current_catalog"] {
        constants.push((name, Some(catalog.database.clone())));
    }
    for name in ["current_user", "session_user", "current_role", "user"] {
        constants.push((name, Some(catalog.user.clone())));
    }
    constants.extend(NULL.iter().map(|name| (*name, None)));
    constants
}

/// Functions that know nothing of what is asked.
const NULL: &[&str] = &[
    "obj_description",
    "col_description",
    "shobj_description",
    "pg_get_expr",
    "pg_get_constraintdef",
    "pg_get_functiondef",
    "pg_get_function_sqlbody",
    "pg_get_indexdef",
    "pg_get_partkeydef",
    "pg_get_partition_constraintdef",
    "pg_get_ruledef",
    "pg_get_serial_sequence",
    "pg_get_statisticsobjdef_columns",
    "pg_get_triggerdef",
    "pg_get_viewdef",
    "pg_advisory_unlock_all",
    "inet_client_addr",
    "inet_server_addr",
];

/// What is visible and allowed: every table to everyone.
const TRUE: &[&str] = &[
    "pg_type_is_visible",
    "pg_function_is_visible",
    "pg_operator_is_visible",
    "pg_collation_is_visible",
    "pg_conversion_is_visible",
    "pg_opclass_is_visible",
    "pg_statistics_obj_is_visible",
    "pg_ts_config_is_visible",
    "pg_ts_dict_is_visible",
    "pg_ts_parser_is_visible",
    "pg_ts_template_is_visible",
    "has_any_column_privilege",
    "has_column_privilege",
    "has_database_privilege",
    "has_function_privilege",
    "has_schema_privilege",
    "has_sequence_privilege",
    "has_table_privilege",
    "has_tablespace_privilege",
    "has_type_privilege",
    "pg_has_role",
];

const FALSE: &[&str] = &[
    "pg_is_in_recovery",
    "pg_is_other_temp_schema",
    "pg_relation_is_publishable",
    "pg_relation_is_updatable",
    "row_security_active",
    "pg_cancel_backend",
    "pg_terminate_backend",
];

const ZERO: &[&str] = &[
    "pg_relation_size",
    "pg_total_relation_size",
    "pg_table_size",
    "pg_indexes_size",
    "pg_database_size",
    "pg_tablespace_size",
    "pg_my_temp_schema",
    "txid_current",
    "inet_server_port",
];

/// An identifier, in quotes where it needs them.
fn quote_ident(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    let keyword = matches!(
        name,
        "all"
            | "and"
            | "as"
            | "case"
            | "desc"
            | "end"
            | "from"
            | "group"
            | "in"
            | "limit"
            | "not"
            | "null"
            | "or"
            | "order"
            | "select"
            | "table"
            | "then"
            | "to"
            | "user"
            | "when"
            | "where"
            | "with"
    );
    if plain && !keyword { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// A text with `%s`, `%I` and `%L` replaced by values, and `%%` by `%`.
fn format_text(text: &str, values: &[Option<&str>]) -> String {
    let mut out = String::new();
    let mut values = values.iter();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, if c == '%' { chars.next() } else { None }) {
            ('%', Some('s')) => out.push_str(values.next().copied().flatten().unwrap_or("")),
            ('%', Some('I')) => out.push_str(&quote_ident(values.next().copied().flatten().unwrap_or(""))),
            ('%', Some('L')) => match values.next().copied().flatten() {
                Some(v) => out.push_str(&super::params::quoted(v)),
                None => out.push_str("NULL"),
            },
            ('%', other) => out.extend(other),
            (c, _) => out.push(c),
        }
    }
    out
}

fn format_type(oid: i64) -> String {
    match oid {
        0 => return "-".into(),
        2249 => return "record".into(),
        _ => {}
    }
    u32::try_from(oid).ok().and_then(ColumnType::from_oid).map_or_else(|| "???".into(), |t| t.sql_name())
}
