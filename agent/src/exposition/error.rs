//! What may be wrong with an exposition, and where.

/// Why an exposition cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// A text format.
    #[error("line {line}, column {column}: {fault}")]
    Text {
        /// From 1.
        line: usize,
        /// From 1, in bytes.
        column: usize,
        /// What is wrong there.
        fault: TextFault,
    },
    /// The protobuf format.
    #[error("message {message}, at byte {offset}: {reason}")]
    Protobuf {
        /// Which metric family, from 1.
        message: usize,
        /// Where its length stands.
        offset: usize,
        /// What is wrong with it.
        reason: String,
    },
}

/// What is wrong at a place of a text format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextFault {
    /// Bytes that are not UTF-8.
    #[error("invalid UTF-8")]
    InvalidUtf8,
    /// The last line has no line feed.
    #[error("unexpected end of input")]
    UnexpectedEnd,
    /// A line that begins with none of the things it may begin with.
    #[error("expected a metric name, a brace or a comment")]
    ExpectedStart,
    /// A character that may not stand in a metric name.
    #[error("invalid metric name")]
    InvalidMetricName,
    /// A sample without a name.
    #[error("metric name not set")]
    MissingMetricName,
    /// Two quoted names in one sample.
    #[error("multiple metric names: {0:?}")]
    SecondMetricName(String),
    /// A comment of metadata without the metric's name.
    #[error("expected a metric name after {0}")]
    ExpectedMetadataName(&'static str),
    /// A comment of metadata without its text.
    #[error("expected text in {0}")]
    ExpectedMetadataText(&'static str),
    /// An unknown type.
    #[error("invalid metric type {0:?}")]
    InvalidType(String),
    /// A unit that is not the end of the metric's name.
    #[error("unit {unit:?} is not a suffix of metric {metric:?}")]
    UnitNotSuffix {
        /// The unit.
        unit: String,
        /// The metric.
        metric: String,
    },
    /// Something else where a label's name must stand.
    #[error("expected a label name")]
    ExpectedLabelName,
    /// No `=` after a label's name.
    #[error("expected '=' after label name {0:?}")]
    ExpectedEquals(String),
    /// No quoted text after `=`.
    #[error("expected '\"' at the start of the value of label {0:?}")]
    ExpectedLabelValue(String),
    /// A quoted text without its closing quote in the line.
    #[error("unterminated quoted text")]
    UnterminatedText,
    /// A backslash before another character than `\`, `"` and `n`.
    #[error("invalid escape sequence \\{0}")]
    InvalidEscape(char),
    /// Neither `,` nor `}` after a label.
    #[error("expected a comma or a closing brace")]
    ExpectedCommaOrBrace,
    /// `__name__` as a label.
    #[error("label name {0:?} is reserved")]
    ReservedLabel(String),
    /// A label twice.
    #[error("duplicate label name {0:?}")]
    DuplicateLabel(String),
    /// No value after the series.
    #[error("expected a value after the metric")]
    ExpectedValue,
    /// A value that is no number of the format.
    #[error("expected a float as value, got {0:?}")]
    InvalidFloat(String),
    /// A timestamp that is no number of the format.
    #[error("invalid timestamp {0:?}")]
    InvalidTimestamp(String),
    /// More text in a line than may be.
    #[error("unexpected {0:?} at the end of the line")]
    TrailingText(String),
    /// An exemplar without a value.
    #[error("expected a value after the exemplar's labels")]
    ExpectedExemplarValue,
    /// A label `le` or `quantile` that is no number.
    #[error("expected a float as value of label {label:?}, got {value:?}")]
    InvalidBoundary {
        /// `le` or `quantile`.
        label: &'static str,
        /// Its value.
        value: String,
    },
    /// OpenMetrics without its end mark.
    #[error("data does not end with # EOF")]
    MissingEof,
    /// OpenMetrics with something after its end mark.
    #[error("unexpected data after # EOF")]
    DataAfterEof,
    /// A second line of the same metadata.
    #[error("second {kind} line for metric {metric:?}")]
    RepeatedMetadata {
        /// HELP, TYPE or UNIT.
        kind: &'static str,
        /// The metric.
        metric: String,
    },
    /// Metadata after samples of its family.
    #[error("{kind} line after samples of metric {metric:?}")]
    MetadataAfterSamples {
        /// HELP, TYPE or UNIT.
        kind: &'static str,
        /// The metric.
        metric: String,
    },
    /// A negative count where observations are counted.
    #[error("negative {what} for histogram {metric:?}")]
    NegativeCount {
        /// Which count.
        what: &'static str,
        /// The metric.
        metric: String,
    },
    /// A rule of OpenMetrics is broken by text that is well-formed.
    #[error("metric {metric:?}: {rule}")]
    Rule {
        /// The metric.
        metric: String,
        /// The rule, in words.
        rule: &'static str,
    },
}
