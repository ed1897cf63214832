//! Tokens: their kinds, the keywords, and how an error message names a token.

use crate::{ast::PosRange, quote};

macro_rules! token_kinds {
    ($($(#[$doc:meta])* $variant:ident = $name:literal $text:literal,)*) => {
        /// What a token is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub(crate) enum TokenKind { $($(#[$doc])* $variant,)* }

        impl TokenKind {
            /// The name in token listings, as Prometheus' grammar spells it.
            pub(crate) fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The fixed text of the token, empty where it has none.
            fn fixed_text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

token_kinds! {
    Error = "ERROR" "",
    Eof = "EOF" "",
    Comment = "COMMENT" "",
    Identifier = "IDENTIFIER" "",
    MetricIdentifier = "METRIC_IDENTIFIER" "",
    Number = "NUMBER" "",
    Duration = "DURATION" "",
    String = "STRING" "",
    LeftParen = "LEFT_PAREN" "(",
    RightParen = "RIGHT_PAREN" ")",
    LeftBrace = "LEFT_BRACE" "{",
    RightBrace = "RIGHT_BRACE" "}",
    LeftBracket = "LEFT_BRACKET" "[",
    RightBracket = "RIGHT_BRACKET" "]",
    Comma = "COMMA" ",",
    Colon = "COLON" ":",
    Eql = "EQL" "=",
    // Test series.
    OpenHist = "OPEN_HIST" "{{",
    CloseHist = "CLOSE_HIST" "}}",
    Blank = "BLANK" "_",
    Times = "TIMES" "x",
    Space = "SPACE" "<space>",
    SumDesc = "SUM_DESC" "",
    CountDesc = "COUNT_DESC" "",
    SchemaDesc = "SCHEMA_DESC" "",
    OffsetDesc = "OFFSET_DESC" "",
    NegativeOffsetDesc = "NEGATIVE_OFFSET_DESC" "",
    BucketsDesc = "BUCKETS_DESC" "",
    NegativeBucketsDesc = "NEGATIVE_BUCKETS_DESC" "",
    ZeroBucketDesc = "ZERO_BUCKET_DESC" "",
    ZeroBucketWidthDesc = "ZERO_BUCKET_WIDTH_DESC" "",
    CustomValuesDesc = "CUSTOM_VALUES_DESC" "",
    ResetHintDesc = "COUNTER_RESET_HINT_DESC" "",
    HintUnknown = "UNKNOWN_COUNTER_RESET" "",
    HintReset = "COUNTER_RESET" "",
    HintNotReset = "NOT_COUNTER_RESET" "",
    HintGauge = "GAUGE_TYPE" "",
    // Operators.
    Add = "ADD" "+",
    Sub = "SUB" "-",
    Mul = "MUL" "*",
    Div = "DIV" "/",
    Mod = "MOD" "%",
    Pow = "POW" "^",
    EqlC = "EQLC" "==",
    Neq = "NEQ" "!=",
    Lss = "LSS" "<",
    Gtr = "GTR" ">",
    Lte = "LTE" "<=",
    Gte = "GTE" ">=",
    EqlRegex = "EQL_REGEX" "=~",
    NeqRegex = "NEQ_REGEX" "!~",
    TrimUpper = "TRIM_UPPER" "</",
    TrimLower = "TRIM_LOWER" ">/",
    At = "AT" "@",
    Land = "LAND" "and",
    Lor = "LOR" "or",
    Lunless = "LUNLESS" "unless",
    Atan2 = "ATAN2" "atan2",
    // Aggregators.
    Avg = "AVG" "avg",
    Bottomk = "BOTTOMK" "bottomk",
    Count = "COUNT" "count",
    CountValues = "COUNT_VALUES" "count_values",
    Group = "GROUP" "group",
    Max = "MAX" "max",
    Min = "MIN" "min",
    Quantile = "QUANTILE" "quantile",
    Stddev = "STDDEV" "stddev",
    Stdvar = "STDVAR" "stdvar",
    Sum = "SUM" "sum",
    Topk = "TOPK" "topk",
    Limitk = "LIMITK" "limitk",
    LimitRatio = "LIMIT_RATIO" "limit_ratio",
    // Keywords.
    Bool = "BOOL" "bool",
    By = "BY" "by",
    GroupLeft = "GROUP_LEFT" "group_left",
    GroupRight = "GROUP_RIGHT" "group_right",
    Fill = "FILL" "fill",
    FillLeft = "FILL_LEFT" "fill_left",
    FillRight = "FILL_RIGHT" "fill_right",
    Ignoring = "IGNORING" "ignoring",
    Offset = "OFFSET" "offset",
    Smoothed = "SMOOTHED" "smoothed",
    Anchored = "ANCHORED" "anchored",
    On = "ON" "on",
    Without = "WITHOUT" "without",
    // Names with a meaning behind `@` and in durations.
    Start = "START" "start",
    End = "END" "end",
    Step = "STEP" "step",
    Range = "RANGE" "range",
    MinOf = "MIN_OF" "min_of",
    MaxOf = "MAX_OF" "max_of",
}

use TokenKind as T;

/// The words that are not plain identifiers, compared without case.
const WORDS: &[TokenKind] = &[
    T::Land,
    T::Lor,
    T::Lunless,
    T::Atan2,
    T::Avg,
    T::Bottomk,
    T::Count,
    T::CountValues,
    T::Group,
    T::Max,
    T::Min,
    T::Quantile,
    T::Stddev,
    T::Stdvar,
    T::Sum,
    T::Topk,
    T::Limitk,
    T::LimitRatio,
    T::Bool,
    T::By,
    T::GroupLeft,
    T::GroupRight,
    T::Fill,
    T::FillLeft,
    T::FillRight,
    T::Ignoring,
    T::Offset,
    T::Smoothed,
    T::Anchored,
    T::On,
    T::Without,
    T::Start,
    T::End,
    T::Step,
    T::Range,
    T::MinOf,
    T::MaxOf,
];

/// The kind of a word that is a keyword or a number (`Inf`, `NaN`).
pub(crate) fn keyword(word: &[u8]) -> Option<TokenKind> {
    if is_special_number(word) {
        return Some(T::Number);
    }
    WORDS.iter().copied().find(|k| k.fixed_text().as_bytes().eq_ignore_ascii_case(word))
}

/// Whether a word is `Inf` or `NaN`, in any case.
pub(crate) fn is_special_number(word: &[u8]) -> bool {
    word.eq_ignore_ascii_case(b"inf") || word.eq_ignore_ascii_case(b"nan")
}

/// The kind of a histogram field's name.
pub(crate) fn histogram_field(word: &[u8]) -> Option<TokenKind> {
    Some(match word.to_ascii_lowercase().as_slice() {
        b"sum" => T::SumDesc,
        b"count" => T::CountDesc,
        b"schema" => T::SchemaDesc,
        b"offset" => T::OffsetDesc,
        b"n_offset" => T::NegativeOffsetDesc,
        b"buckets" => T::BucketsDesc,
        b"n_buckets" => T::NegativeBucketsDesc,
        b"z_bucket" => T::ZeroBucketDesc,
        b"z_bucket_w" => T::ZeroBucketWidthDesc,
        b"custom_values" => T::CustomValuesDesc,
        b"counter_reset_hint" => T::ResetHintDesc,
        _ => return None,
    })
}

/// The kind of a counter reset hint's value.
pub(crate) fn reset_hint(word: &[u8]) -> Option<TokenKind> {
    Some(match word.to_ascii_lowercase().as_slice() {
        b"unknown" => T::HintUnknown,
        b"reset" => T::HintReset,
        b"not_reset" => T::HintNotReset,
        b"gauge" => T::HintGauge,
        _ => return None,
    })
}

impl TokenKind {
    fn is_operator(self) -> bool {
        (T::Add as u8..=T::Atan2 as u8).contains(&(self as u8))
    }

    /// Whether it names an aggregation.
    pub(crate) fn is_aggregator(self) -> bool {
        (T::Avg as u8..=T::LimitRatio as u8).contains(&(self as u8))
    }

    fn is_keyword(self) -> bool {
        (T::Bool as u8..=T::Without as u8).contains(&(self as u8))
    }

    /// Whether it has a meaning behind `@` or in durations, and is otherwise a name or a function.
    pub(crate) fn is_soft_function(self) -> bool {
        (T::Start as u8..=T::MaxOf as u8).contains(&(self as u8))
    }

    /// Whether it can be a metric's name in front of braces.
    pub(crate) fn is_metric_name(self) -> bool {
        self.is_aggregator()
            || self.is_soft_function()
            || matches!(
                self,
                T::Identifier
                    | T::MetricIdentifier
                    | T::By
                    | T::Land
                    | T::Lor
                    | T::Lunless
                    | T::Offset
                    | T::Without
                    | T::Anchored
                    | T::Smoothed
            )
    }

    /// Whether it can be a label's name in a grouping.
    pub(crate) fn is_grouping_label(self) -> bool {
        (self.is_metric_name() && self != T::Without)
            || matches!(self, T::Bool | T::GroupLeft | T::GroupRight | T::Ignoring | T::On | T::Atan2)
    }

    /// Whether it compares in a label matcher.
    pub(crate) fn is_match_op(self) -> bool {
        matches!(self, T::Eql | T::Neq | T::EqlRegex | T::NeqRegex)
    }
}

/// A token with its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: TokenKind,
    pub(crate) pos: PosRange,
}

/// How an error message names a token of the given text.
pub(crate) fn describe(kind: TokenKind, text: &[u8]) -> String {
    let class = match kind {
        T::Eof => return "end of input".to_owned(),
        T::Comment => "comment ",
        T::Identifier => "identifier ",
        T::MetricIdentifier => "metric identifier ",
        T::String => "string ",
        T::Number => "number ",
        T::Duration => "duration ",
        _ => "",
    };
    let shown = String::from_utf8_lossy(text);
    if matches!(kind, T::Identifier | T::MetricIdentifier) {
        format!("{class}{}", quote::quote(text))
    } else if kind.is_keyword() {
        format!("<{shown}>")
    } else if kind.is_operator() {
        format!("<op:{shown}>")
    } else if kind.is_aggregator() {
        format!("<aggr:{shown}>")
    } else if text.len() > 10 {
        let cut: String = shown.chars().take(10).collect();
        format!("{class}{}...", quote::quote(cut.as_bytes()))
    } else {
        format!("{class}{}", quote::quote(text))
    }
}
