//! Sequences of start timestamps: durations relative to the sample's time, with steps and repetitions.

use super::MAX_SEQUENCE;
use crate::duration_text::{DurationTextError, parse_duration};

/// Why a text is not a sequence of start timestamps.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartSequenceError {
    /// A part is not `_`, `_xn`, `d`, `dxn`, `d+dxn` or `d-dxn`.
    #[error("invalid start timestamp sequence item {0:?}")]
    Item(String),
    /// A duration is none.
    #[error("invalid start timestamp: {0}")]
    Duration(#[from] DurationTextError),
    /// A repetition is none.
    #[error("invalid repetition {0:?} in start timestamp sequence")]
    Repetition(String),
    /// There are more than [`MAX_SEQUENCE`] values.
    #[error("more than {MAX_SEQUENCE} start timestamps in one series")]
    TooLong,
}

/// Parses `_ -1m -30s+10sx3`: milliseconds, `None` where the sample has no start timestamp. A value with `xn` stands
/// n + 1 times, `_xn` n times.
pub fn parse_start_sequence(text: &str) -> Result<Vec<Option<i64>>, StartSequenceError> {
    let mut out = Vec::new();
    for item in text.split_whitespace() {
        let (value, times) = match item.split_once('x') {
            Some((value, times)) => (value, Some(repetition(times)?)),
            None => (item, None),
        };
        if value == "_" {
            if times == Some(0) {
                return Err(StartSequenceError::Repetition("0".to_owned()));
            }
            room(&out, times.unwrap_or(1))?;
            out.extend(std::iter::repeat_n(None, times.unwrap_or(1)));
            continue;
        }
        let (base, step) = base_and_step(item, value)?;
        if step.is_some() && times.is_none() {
            return Err(StartSequenceError::Item(item.to_owned()));
        }
        let count = times.unwrap_or(0).saturating_add(1);
        room(&out, count)?;
        let values = std::iter::successors(Some(base), |ms| Some(ms.saturating_add(step.unwrap_or(0))));
        out.extend(values.take(count).map(Some));
    }
    Ok(out)
}

fn room(out: &[Option<i64>], count: usize) -> Result<(), StartSequenceError> {
    if count > MAX_SEQUENCE.saturating_sub(out.len()) { Err(StartSequenceError::TooLong) } else { Ok(()) }
}

fn repetition(text: &str) -> Result<usize, StartSequenceError> {
    text.parse().map_err(|_| StartSequenceError::Repetition(text.to_owned()))
}

fn base_and_step(item: &str, value: &str) -> Result<(i64, Option<i64>), StartSequenceError> {
    let signs = |c| matches!(c, '+' | '-');
    let unsigned = value.strip_prefix(signs).unwrap_or(value);
    let base_len = value.len() - unsigned.len() + unsigned.find(signs).unwrap_or(unsigned.len());
    let (base, step) = value.split_at(base_len);
    if base.is_empty() {
        return Err(StartSequenceError::Item(item.to_owned()));
    }
    let step = if step.is_empty() { None } else { Some(signed(step)?) };
    Ok((signed(base)?, step))
}

fn signed(text: &str) -> Result<i64, StartSequenceError> {
    Ok(match text.strip_prefix('-') {
        Some(positive) => -parse_duration(positive)?,
        None => parse_duration(text.strip_prefix('+').unwrap_or(text))?,
    })
}
