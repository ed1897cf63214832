//! The test language: commands in column 0 with indented lines below them, `#` comments.

use regex::Regex;
use sextant_model::{HistogramSample, Labels, SeriesBuf, is_stale_nan, stale_nan};
use sextant_promql::{
    LoadLine, SequenceValue, parse_duration, parse_load_line, parse_series, parse_signed_duration,
};

/// One command.
#[derive(Debug)]
pub enum Command {
    /// Drops all data.
    Clear,
    /// Adds data.
    Load(Load),
    /// Evaluates a query and checks the answer.
    Eval(Box<Eval>),
}

/// Data to add.
#[derive(Debug)]
pub struct Load {
    /// Each series with its samples, in order of time.
    pub series: Vec<(Labels, SeriesBuf)>,
}

/// When a query is evaluated, milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvalTime {
    /// Once.
    Instant(i64),
    /// From, to, every.
    Range(i64, i64, i64),
}

/// A query with what is expected of it.
#[derive(Debug)]
pub struct Eval {
    /// Its line in the script, from 1.
    pub line: usize,
    /// When it is evaluated.
    pub time: EvalTime,
    /// The expression.
    pub query: String,
    /// What must be so.
    pub expect: Expectation,
}

/// How an expected text is compared.
#[derive(Debug, Clone)]
pub enum Pattern {
    /// Any text.
    Any,
    /// This text.
    Text(String),
    /// A text that the expression matches somewhere.
    Regex(Regex),
}

impl Pattern {
    /// Whether a text is as expected.
    pub fn matches(&self, text: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Text(t) => t == text,
            Self::Regex(r) => r.is_match(text),
        }
    }
}

/// One expected series.
#[derive(Debug)]
pub struct ExpectedSeries {
    /// Its labels; `None` for a scalar.
    pub labels: Option<Labels>,
    /// Its values, one per step.
    pub values: Vec<SequenceValue>,
}

/// What is expected of an answer.
#[derive(Debug, Default)]
pub struct Expectation {
    /// The query fails.
    pub fail: Option<Pattern>,
    /// Warnings; each must occur and no other may.
    pub warn: Vec<Pattern>,
    /// Infos.
    pub info: Vec<Pattern>,
    /// There is no warning.
    pub no_warn: bool,
    /// There is no info.
    pub no_info: bool,
    /// The series come in this order.
    pub ordered: bool,
    /// The answer is this string.
    pub string: Option<String>,
    /// The answer of an instant query is a matrix on this grid: from, to, every.
    pub range_vector: Option<(i64, i64, i64)>,
    /// The series.
    pub series: Vec<ExpectedSeries>,
}

/// Why a script cannot be read.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct ScriptError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong.
    pub reason: String,
}

/// Reads a script.
pub fn parse_script(text: &str) -> Result<Vec<Command>, ScriptError> {
    let lines: Vec<(usize, &str)> = text
        .lines()
        .enumerate()
        .map(|(i, l)| (i + 1, l.trim()))
        .filter(|(_, l)| !l.starts_with('#'))
        .collect();
    let mut commands = Vec::new();
    let mut at = 0;
    while let Some(&(line, text)) = lines.get(at) {
        at += 1;
        if text.is_empty() {
            continue;
        }
        let body_end = lines[at..]
            .iter()
            .position(|(_, l)| l.is_empty() || is_command(l))
            .map_or(lines.len(), |n| at + n);
        let body = &lines[at..body_end];
        let error = |reason: String| ScriptError { line, reason };
        if text == "clear" {
            commands.push(Command::Clear);
        } else if text.starts_with("load") {
            commands.push(Command::Load(load(line, text, body)?));
            at = body_end;
        } else if text.starts_with("eval") {
            commands.push(Command::Eval(Box::new(eval(line, text, body)?)));
            at = body_end;
        } else {
            return Err(error(format!("invalid command {text:?}")));
        }
    }
    Ok(commands)
}

fn is_command(line: &str) -> bool {
    line == "clear" || line.starts_with("load ") || line.starts_with("load_with") || line.starts_with("eval")
}

fn load(line: usize, text: &str, body: &[(usize, &str)]) -> Result<Load, ScriptError> {
    let error = |line: usize, reason: String| ScriptError { line, reason };
    let (word, interval) = text
        .split_once(char::is_whitespace)
        .ok_or_else(|| error(line, "load without an interval".to_owned()))?;
    let with_nhcb = match word {
        "load" => false,
        "load_with_nhcb" => true,
        other => return Err(error(line, format!("invalid command {other:?}"))),
    };
    let interval = parse_duration(interval.trim()).map_err(|e| error(line, e.to_string()))?;
    let mut series: Vec<(Labels, SeriesBuf)> = Vec::new();
    let mut starts: Vec<(Labels, Vec<Option<i64>>)> = Vec::new();
    for &(line, text) in body {
        match parse_load_line(text).map_err(|e| error(line, e.to_string()))? {
            LoadLine::Starts(labels, offsets) => starts.push((labels, offsets)),
            LoadLine::Samples(labels, values) => {
                let of = starts.iter().find(|(l, _)| *l == labels).map_or(&[][..], |(_, s)| s);
                series.push((labels, samples(interval, &values, of)));
            }
        }
    }
    if with_nhcb {
        let extra = super::nhcb::convert(&series).map_err(|e| error(line, e))?;
        series.extend(extra);
    }
    Ok(Load { series })
}

fn samples(interval: i64, values: &[SequenceValue], starts: &[Option<i64>]) -> SeriesBuf {
    let mut buf = SeriesBuf::default();
    for (i, value) in values.iter().enumerate() {
        let t = interval * i as i64;
        let start = starts.get(i).copied().flatten().map_or(0, |offset| t + offset);
        match value {
            SequenceValue::Omitted => {}
            SequenceValue::Float(v) => {
                buf.t.push(t);
                buf.v.push(if is_stale_nan(*v) { stale_nan() } else { *v });
                buf.start.push(start);
            }
            SequenceValue::Histogram(h, _) => {
                buf.h.push(HistogramSample { t, start, h: h.as_ref().clone() });
            }
        }
    }
    buf
}

fn eval(line: usize, text: &str, body: &[(usize, &str)]) -> Result<Eval, ScriptError> {
    let error = |reason: &str| ScriptError { line, reason: format!("{reason}: {text:?}") };
    let mut words = text.splitn(2, char::is_whitespace);
    let mut expect = Expectation::default();
    match words.next().and_then(|w| w.strip_prefix("eval")) {
        Some("") => {}
        Some("_fail") => expect.fail = Some(Pattern::Any),
        Some("_warn") => expect.warn.push(Pattern::Any),
        Some("_info") => expect.info.push(Pattern::Any),
        Some("_ordered") => expect.ordered = true,
        _ => return Err(error("invalid eval command")),
    }
    let mut rest = words.next().unwrap_or("").trim_start();
    let mut word = || -> Option<&str> {
        let (w, tail) = rest.split_once(char::is_whitespace)?;
        rest = tail.trim_start();
        Some(w)
    };
    let millis =
        |w: Option<&str>| w.and_then(|w| parse_signed_duration(w).ok()).ok_or_else(|| error("invalid time"));
    let time = match (word(), word()) {
        (Some("instant"), Some("at")) => EvalTime::Instant(millis(word())?),
        (Some("range"), Some("from")) => {
            let from = millis(word())?;
            word().filter(|w| *w == "to").ok_or_else(|| error("expected to"))?;
            let to = millis(word())?;
            word().filter(|w| *w == "step").ok_or_else(|| error("expected step"))?;
            if to < from {
                return Err(error("end timestamp is before start timestamp"));
            }
            EvalTime::Range(from, to, millis(word())?)
        }
        _ => return Err(error("invalid eval command")),
    };
    let query = rest.to_owned();
    for &(line, text) in body {
        expectation(&mut expect, text).map_err(|reason| ScriptError { line, reason })?;
    }
    Ok(Eval { line, time, query, expect })
}

fn expectation(expect: &mut Expectation, text: &str) -> Result<(), String> {
    if let Some(message) = text.strip_prefix("expected_fail_message ") {
        expect.fail = Some(Pattern::Text(message.trim().to_owned()));
        return Ok(());
    }
    if let Some(pattern) = text.strip_prefix("expected_fail_regexp ") {
        expect.fail = Some(Pattern::Regex(Regex::new(pattern.trim()).map_err(|e| e.to_string())?));
        return Ok(());
    }
    if let Some(what) = text.strip_prefix("expect ") {
        return expect_line(expect, what.trim());
    }
    if let Some(v) = number(text) {
        expect.series.push(ExpectedSeries { labels: None, values: vec![SequenceValue::Float(v)] });
        return Ok(());
    }
    let (labels, values) = parse_series(text).map_err(|e| e.to_string())?;
    expect.series.push(ExpectedSeries { labels: Some(labels), values });
    Ok(())
}

fn number(text: &str) -> Option<f64> {
    match text.to_ascii_lowercase().as_str() {
        "nan" => Some(f64::NAN),
        "inf" | "+inf" => Some(f64::INFINITY),
        "-inf" => Some(f64::NEG_INFINITY),
        plain => plain.parse().ok(),
    }
}

fn expect_line(expect: &mut Expectation, what: &str) -> Result<(), String> {
    if let Some(text) = what.strip_prefix("string ") {
        expect.string = Some(unquote(text.trim())?);
        return Ok(());
    }
    if let Some(grid) = what.strip_prefix("range vector from ") {
        let words: Vec<&str> = grid.split_whitespace().collect();
        let [from, "to", to, "step", step] = words[..] else { return Err(format!("invalid range {grid:?}")) };
        let ms = |w: &str| parse_signed_duration(w).map_err(|e| e.to_string());
        expect.range_vector = Some((ms(from)?, ms(to)?, ms(step)?));
        return Ok(());
    }
    let (kind, rest) = what.split_once(char::is_whitespace).unwrap_or((what, ""));
    let rest = rest.trim();
    let pattern = if let Some(text) = rest.strip_prefix("msg:") {
        Pattern::Text(text.trim().to_owned())
    } else if let Some(regex) = rest.strip_prefix("regex:") {
        Pattern::Regex(Regex::new(regex.trim()).map_err(|e| e.to_string())?)
    } else if rest.is_empty() {
        Pattern::Any
    } else {
        return Err(format!("invalid expectation {what:?}"));
    };
    match kind {
        "fail" => expect.fail = Some(pattern),
        "warn" => expect.warn.push(pattern),
        "info" => expect.info.push(pattern),
        "no_warn" => expect.no_warn = true,
        "no_info" => expect.no_info = true,
        "ordered" => expect.ordered = true,
        _ => return Err(format!("invalid expectation {what:?}")),
    }
    Ok(())
}

/// A string as a query writes it.
fn unquote(text: &str) -> Result<String, String> {
    match sextant_promql::parse_expr(text) {
        Ok(sextant_promql::Expr::StringLiteral(s)) => Ok(s.val),
        Ok(_) => Err(format!("not a string: {text}")),
        Err(e) => Err(e.to_string()),
    }
}
