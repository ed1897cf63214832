//! What a session remembers: its settings and its transaction; and what kind of answer a statement has.

use std::collections::BTreeMap;

use datafusion::logical_expr::sqlparser::ast::{
    CloseCursor, Expr, FetchDirection, Set, Statement, Value, ValueWithSpan,
};

use super::{
    error::PgError,
    functions::{SERVER_VERSION, SERVER_VERSION_NUM},
    rewrite,
};

/// Settings that a client is told at the start, and again when they change.
pub const REPORTED: &[&str] = &[
    "application_name",
    "client_encoding",
    "DateStyle",
    "default_transaction_read_only",
    "in_hot_standby",
    "integer_datetimes",
    "IntervalStyle",
    "is_superuser",
    "scram_iterations",
    "server_encoding",
    "server_version",
    "session_authorization",
    "standard_conforming_strings",
    "TimeZone",
];

/// Settings that a client may set to anything, and that keep their value: answers are always given this way.
const FIXED: &[&str] = &[
    "client_encoding",
    "DateStyle",
    "default_transaction_read_only",
    "integer_datetimes",
    "IntervalStyle",
    "server_encoding",
    "server_version",
    "server_version_num",
    "standard_conforming_strings",
    "TimeZone",
    "transaction_read_only",
];

/// The settings of a session, by name; names are compared without case.
#[derive(Clone, Debug)]
pub struct Settings(BTreeMap<String, (String, String)>);

impl Settings {
    /// The settings of a new session.
    pub fn new(user: &str) -> Self {
        let mut settings = Self(BTreeMap::new());
        for (name, value) in [
            ("application_name", ""),
            ("bytea_output", "hex"),
            ("client_encoding", "UTF8"),
            ("client_min_messages", "notice"),
            ("DateStyle", "ISO, MDY"),
            ("default_transaction_isolation", "read committed"),
            ("default_transaction_read_only", "on"),
            ("extra_float_digits", "1"),
            ("in_hot_standby", "off"),
            ("integer_datetimes", "on"),
            ("IntervalStyle", "postgres"),
            ("is_superuser", "off"),
            ("lc_collate", "C"),
            ("lc_ctype", "C"),
            ("lock_timeout", "0"),
            ("max_identifier_length", "63"),
            ("max_index_keys", "32"),
            ("scram_iterations", "4096"),
            ("search_path", "\"$user\", public"),
            ("server_encoding", "UTF8"),
            ("server_version", SERVER_VERSION),
            ("server_version_num", SERVER_VERSION_NUM),
            ("session_authorization", user),
            ("standard_conforming_strings", "on"),
            ("statement_timeout", "0"),
            ("TimeZone", "UTC"),
            ("transaction_isolation", "read committed"),
            ("transaction_read_only", "on"),
        ] {
            settings.put(name, value);
        }
        settings
    }

    fn put(&mut self, name: &str, value: &str) {
        let key = name.to_ascii_lowercase();
        let name = self.0.get(&key).map_or_else(|| name.to_owned(), |(n, _)| n.clone());
        self.0.insert(key, (name, value.to_owned()));
    }

    /// The value of a setting.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(&name.to_ascii_lowercase()).map(|(_, v)| v.as_str())
    }

    /// Sets a value; the name as it is reported where the client is to be told.
    pub fn set(&mut self, name: &str, value: &str) -> Result<Option<&'static str>, PgError> {
        if name.eq_ignore_ascii_case("statement_timeout") {
            milliseconds(value)?;
        }
        if name.eq_ignore_ascii_case("client_encoding")
            && !["utf8", "utf-8", "unicode", "sql_ascii"].contains(&value.to_ascii_lowercase().as_str())
        {
            return Err(PgError::new(
                "22023",
                format!("invalid value for parameter \"client_encoding\": \"{value}\""),
            )
            .with_hint("Texts are UTF8."));
        }
        if FIXED.iter().any(|f| f.eq_ignore_ascii_case(name)) {
            return Ok(None);
        }
        self.put(name, value);
        Ok(REPORTED.iter().find(|r| r.eq_ignore_ascii_case(name)).copied())
    }

    /// Every setting.
    pub fn all(&self) -> Vec<(String, String)> {
        self.0.values().cloned().collect()
    }

    /// The time that a statement may take by `statement_timeout`.
    pub fn statement_timeout(&self) -> Option<std::time::Duration> {
        let ms = self.get("statement_timeout").and_then(|v| milliseconds(v).ok())?;
        (ms > 0).then(|| std::time::Duration::from_millis(ms))
    }
}

/// A time of a setting: a number of milliseconds, or with a unit.
fn milliseconds(text: &str) -> Result<u64, PgError> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let factor = match text[digits..].trim() {
        "" | "ms" => 1.0,
        "us" => 0.001,
        "s" => 1000.0,
        "min" => 60_000.0,
        "h" => 3_600_000.0,
        "d" => 86_400_000.0,
        _ => f64::NAN,
    };
    match text[..digits].parse::<f64>() {
        Ok(n) if factor.is_finite() => Ok((n * factor) as u64),
        _ => Err(PgError::new(
            "22023",
            format!("invalid value for parameter \"statement_timeout\": \"{text}\""),
        )),
    }
}

/// What kind of answer a statement has.
#[derive(Clone, Debug)]
pub enum Kind {
    /// Rows that are planned; with the command's tag.
    Rows(&'static str),
    /// The value of a setting, or of all.
    Show(String),
    /// A setting's new value; `None` is the first one.
    Set(String, Option<String>),
    /// A transaction begins.
    Begin,
    /// It ends, well or not.
    End(&'static str),
    /// A savepoint: within a transaction, kept or gone back to.
    Savepoint(&'static str),
    /// Prepared statements are forgotten: one, or all.
    Deallocate(Option<String>),
    /// The session is as new.
    Discard,
    /// `PREPARE name AS statement`.
    Prepare(String, Box<Statement>),
    /// `EXECUTE name(values)`.
    Execute(String, Vec<Expr>),
    /// `DECLARE name CURSOR FOR query`; whether it outlives the transaction.
    Declare(String, Box<Statement>, bool),
    /// `FETCH n FROM name`; `None` is all.
    Fetch(String, Option<usize>),
    /// `MOVE`-less end of a cursor, or of all.
    Close(Option<String>),
    /// Nothing happens; the tag says that it did.
    Nothing(&'static str),
}

impl Kind {
    /// The kind of a statement; whatever would write is refused.
    pub fn of(statement: &Statement) -> Result<Self, PgError> {
        Ok(match statement {
            Statement::Query(_) => Self::Rows("SELECT"),
            Statement::Explain { statement, .. } => match &**statement {
                Statement::Query(_) => Self::Rows("EXPLAIN"),
                other => return Err(PgError::read_only(&command(other))),
            },
            Statement::ExplainTable { .. } => Self::Rows("SELECT"),
            Statement::ShowVariable { variable } => {
                let words: Vec<&str> = variable.iter().map(|i| i.value.as_str()).collect();
                Self::Show(setting_name(&words.join(".")))
            }
            Statement::Set(set) => Self::of_set(set)?,
            Statement::Reset(reset) => {
                let text = reset.to_string();
                let name = text.split_whitespace().last().unwrap_or("ALL").to_owned();
                if name.eq_ignore_ascii_case("all") { Self::Nothing("RESET") } else { Self::Set(name, None) }
            }
            Statement::StartTransaction { .. } => Self::Begin,
            Statement::Commit { .. } => Self::End("COMMIT"),
            Statement::Rollback { savepoint: None, .. } => Self::End("ROLLBACK"),
            Statement::Rollback { .. } => Self::Savepoint("ROLLBACK"),
            Statement::Savepoint { .. } => Self::Savepoint("SAVEPOINT"),
            Statement::ReleaseSavepoint { .. } => Self::Savepoint("RELEASE"),
            Statement::Discard { .. } => Self::Discard,
            Statement::Deallocate { name, .. } => {
                let all = name.quote_style.is_none() && name.value.eq_ignore_ascii_case("all");
                Self::Deallocate((!all).then(|| name.value.clone()))
            }
            Statement::Prepare { name, statement, .. } => {
                if rewrite::query_of(statement).is_none() {
                    return Err(PgError::read_only(&command(statement)));
                }
                Self::Prepare(name.value.clone(), statement.clone())
            }
            Statement::Execute { name: Some(name), parameters, .. } => {
                let name = name.0.last().and_then(|p| p.as_ident()).map(|i| i.value.clone());
                Self::Execute(name.unwrap_or_default(), parameters.clone())
            }
            Statement::Declare { stmts } => match stmts.as_slice() {
                [d] => match (d.names.first(), &d.for_query) {
                    (Some(name), Some(query)) => Self::Declare(
                        name.value.clone(),
                        Box::new(Statement::Query(query.clone())),
                        d.hold == Some(true),
                    ),
                    _ => return Err(PgError::unsupported("DECLARE without a query")),
                },
                _ => return Err(PgError::unsupported("DECLARE of several names")),
            },
            Statement::Fetch { name, direction, .. } => {
                Self::Fetch(name.value.clone(), fetch_count(direction)?)
            }
            Statement::Close { cursor } => Self::Close(match cursor {
                CloseCursor::All => None,
                CloseCursor::Specific { name } => Some(name.value.clone()),
            }),
            Statement::LISTEN { .. } => Self::Nothing("LISTEN"),
            Statement::UNLISTEN { .. } => Self::Nothing("UNLISTEN"),
            Statement::ShowTables { .. } => Self::Rows("SELECT"),
            Statement::Copy { .. } => return Err(PgError::unsupported("COPY")),
            other => return Err(PgError::read_only(&command(other))),
        })
    }

    fn of_set(set: &Set) -> Result<Self, PgError> {
        Ok(match set {
            Set::SingleAssignment { variable, values, .. } => {
                let name = variable.to_string().replace('"', "");
                let values: Vec<String> = values.iter().map(value_text).collect();
                let value = values.join(", ");
                Self::Set(name, (!value.eq_ignore_ascii_case("default")).then_some(value))
            }
            Set::SetTimeZone { value, .. } => Self::Set("TimeZone".into(), Some(value_text(value))),
            Set::SetNames { charset_name, .. } => {
                Self::Set("client_encoding".into(), Some(charset_name.value.clone()))
            }
            Set::SetTransaction { .. }
            | Set::SetSessionAuthorization(_)
            | Set::SetRole { .. }
            | Set::SetNamesDefault {} => Self::Nothing("SET"),
            other => return Err(PgError::unsupported(other)),
        })
    }

    /// Whether the statement may stand in a failed transaction.
    pub fn ends_transaction(&self) -> bool {
        matches!(self, Self::End(_) | Self::Savepoint("ROLLBACK"))
    }
}

/// `SHOW` names some settings in words.
fn setting_name(words: &str) -> String {
    match words.to_ascii_lowercase().as_str() {
        "transaction.isolation.level" => "transaction_isolation".into(),
        "time.zone" => "TimeZone".into(),
        "session.authorization" => "session_authorization".into(),
        _ => words.to_owned(),
    }
}

fn value_text(value: &Expr) -> String {
    match value {
        Expr::Value(v) => match &v.value {
            Value::SingleQuotedString(s) | Value::EscapedStringLiteral(s) => s.clone(),
            other => other.to_string(),
        },
        Expr::Identifier(i) => i.value.clone(),
        other => other.to_string(),
    }
}

fn fetch_count(direction: &FetchDirection) -> Result<Option<usize>, PgError> {
    let number = |v: &ValueWithSpan| {
        let text = v.to_string();
        text.parse().map_err(|_| PgError::unsupported(format_args!("FETCH {text}")))
    };
    Ok(match direction {
        FetchDirection::Count { limit } | FetchDirection::Forward { limit: Some(limit) } => {
            Some(number(limit)?)
        }
        FetchDirection::Next | FetchDirection::Forward { limit: None } => Some(1),
        FetchDirection::All | FetchDirection::ForwardAll => None,
        _ => return Err(PgError::new("55000", "cursor can only scan forward")),
    })
}

/// The words that name a statement.
fn command(statement: &Statement) -> String {
    let text = statement.to_string();
    let mut words = text.split_whitespace().map(str::to_ascii_uppercase);
    let first = words.next().unwrap_or_default();
    match (first.as_str(), words.next()) {
        ("CREATE" | "DROP" | "ALTER", Some(second)) => format!("{first} {second}"),
        _ => first,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(sql: &str) -> Result<Kind, PgError> {
        Kind::of(&rewrite::parse(sql).unwrap()[0])
    }

    #[test]
    fn statements_are_told_apart() {
        assert!(matches!(kind("select 1"), Ok(Kind::Rows("SELECT"))));
        assert!(matches!(kind("begin isolation level repeatable read read only"), Ok(Kind::Begin)));
        assert!(
            matches!(kind("SHOW TRANSACTION ISOLATION LEVEL"), Ok(Kind::Show(n)) if n == "transaction_isolation")
        );
        assert!(matches!(kind("show server_version_num"), Ok(Kind::Show(n)) if n == "server_version_num"));
        assert!(
            matches!(kind("SET extra_float_digits = 3"), Ok(Kind::Set(n, Some(v))) if n == "extra_float_digits" && v == "3")
        );
        assert!(matches!(kind("SET client_encoding TO 'UTF8'"), Ok(Kind::Set(_, Some(v))) if v == "UTF8"));
        assert!(matches!(
            kind("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"),
            Ok(Kind::Nothing("SET"))
        ));
        assert!(matches!(kind("SET TIME ZONE 'Europe/Berlin'"), Ok(Kind::Set(..))));
        assert!(
            matches!(kind("reset statement_timeout"), Ok(Kind::Set(n, None)) if n == "statement_timeout")
        );
        assert!(matches!(kind("DISCARD ALL"), Ok(Kind::Discard)));
        assert!(matches!(kind("deallocate all"), Ok(Kind::Deallocate(None))));
        assert!(matches!(kind("DEALLOCATE PREPARE x"), Ok(Kind::Deallocate(Some(n))) if n == "x"));
        assert!(matches!(kind("unlisten *"), Ok(Kind::Nothing("UNLISTEN"))));
        assert!(matches!(kind("close all"), Ok(Kind::Close(None))));
        assert!(
            matches!(kind("declare c no scroll cursor for select 1"), Ok(Kind::Declare(n, _, false)) if n == "c")
        );
        assert!(matches!(kind("fetch forward 5 from c"), Ok(Kind::Fetch(n, Some(5))) if n == "c"));
        assert!(matches!(kind("fetch all in c"), Ok(Kind::Fetch(_, None))));
        for (sql, command) in [
            ("insert into m values (1)", "INSERT"),
            ("create table t (a int)", "CREATE TABLE"),
            ("drop table t", "DROP TABLE"),
            ("delete from m", "DELETE"),
        ] {
            let e = kind(sql).unwrap_err();
            assert_eq!(
                (e.code, e.message),
                ("25006", format!("cannot execute {command} in a read-only transaction"))
            );
        }
    }

    #[test]
    fn settings() {
        let mut s = Settings::new("me");
        assert_eq!(s.set("TIMEZONE", "Europe/Berlin").unwrap(), None);
        assert_eq!(s.get("timezone"), Some("UTC"));
        assert_eq!(s.set("application_name", "x").unwrap(), Some("application_name"));
        s.set("statement_timeout", "2s").unwrap();
        assert_eq!(s.statement_timeout(), Some(std::time::Duration::from_secs(2)));
        assert!(s.set("statement_timeout", "soon").is_err());
        assert!(s.set("client_encoding", "LATIN1").is_err());
    }
}
