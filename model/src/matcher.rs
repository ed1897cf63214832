//! Label matchers, with RE2's regular expressions, anchored at both ends.

use std::fmt;

use regex::Regex;

use crate::re2::anchored_regex;

/// How a matcher compares.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum MatchOp {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`
    Regex,
    /// `!~`
    NotRegex,
}

impl fmt::Display for MatchOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Regex => "=~",
            Self::NotRegex => "!~",
        })
    }
}

/// Why a matcher cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid regular expression {pattern:?}: {reason}")]
pub struct MatcherError {
    /// The expression as written.
    pub pattern: String,
    /// What the expression compiler says.
    pub reason: String,
}

/// One label matcher. A label that a series does not have has the empty value.
#[derive(Clone)]
pub struct Matcher {
    /// The label's name.
    pub name: String,
    /// How it compares.
    pub op: MatchOp,
    /// The value or the regular expression as written.
    pub value: String,
    compiled: Option<Compiled>,
}

#[derive(Clone)]
enum Compiled {
    /// The expression is an alternation of these literals, in order, so that postings can be looked up instead of
    /// scanned.
    Literals(Vec<String>),
    /// `prefix.*suffix`, `prefix.+suffix`: what most dashboards ask, and compiling it costs more than asking.
    Affix {
        prefix: String,
        suffix: String,
        /// Bytes that must be between them: 0 or 1, as any character has at least one.
        between: usize,
    },
    Regex(Regex),
}

impl Matcher {
    /// Makes a matcher; fails where the regular expression does not compile.
    pub fn new(name: impl Into<String>, op: MatchOp, value: impl Into<String>) -> Result<Self, MatcherError> {
        let (name, value) = (name.into(), value.into());
        let compiled = match op {
            MatchOp::Equal | MatchOp::NotEqual => None,
            MatchOp::Regex | MatchOp::NotRegex => {
                let simple = literal_alternation(&value).map(Compiled::Literals).or_else(|| affix(&value));
                Some(match simple {
                    Some(simple) => simple,
                    None => Compiled::Regex(
                        anchored_regex(&value)
                            .map_err(|reason| MatcherError { pattern: value.clone(), reason })?,
                    ),
                })
            }
        };
        Ok(Self { name, op, value, compiled })
    }

    /// `name="value"`.
    pub fn equal(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { name: name.into(), op: MatchOp::Equal, value: value.into(), compiled: None }
    }

    /// Whether a label value matches; `""` stands for a label that is not there.
    pub fn matches(&self, value: &str) -> bool {
        match (self.op, &self.compiled) {
            (MatchOp::Equal, _) => value == self.value,
            (MatchOp::NotEqual, _) => value != self.value,
            (MatchOp::Regex, Some(c)) => c.is_match(value),
            (MatchOp::NotRegex, Some(c)) => !c.is_match(value),
            (MatchOp::Regex | MatchOp::NotRegex, None) => false,
        }
    }

    /// Whether a series without the label matches.
    pub fn matches_empty(&self) -> bool {
        self.matches("")
    }

    /// The values the matcher is limited to, where it is `=` or a regular expression that is an alternation of
    /// literals (`a|b|c`); for negated matchers the values it excludes.
    pub fn literals(&self) -> Option<Vec<&str>> {
        match (&self.op, &self.compiled) {
            (MatchOp::Equal | MatchOp::NotEqual, _) => Some(vec![&self.value]),
            (_, Some(Compiled::Literals(l))) => Some(l.iter().map(String::as_str).collect()),
            _ => None,
        }
    }

    /// Whether the matcher is `!=` or `!~`.
    pub fn is_negative(&self) -> bool {
        matches!(self.op, MatchOp::NotEqual | MatchOp::NotRegex)
    }
}

impl Compiled {
    fn is_match(&self, value: &str) -> bool {
        match self {
            Self::Literals(literals) => literals.binary_search_by(|l| l.as_str().cmp(value)).is_ok(),
            Self::Affix { prefix, suffix, between } => {
                value.len() >= prefix.len() + between + suffix.len()
                    && value.starts_with(prefix.as_str())
                    && value.ends_with(suffix.as_str())
            }
            Self::Regex(regex) => regex.is_match(value),
        }
    }
}

fn affix(pattern: &str) -> Option<Compiled> {
    let (mut before, mut after, mut between) = (String::new(), String::new(), None);
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        let literal = match c {
            '.' if between.is_none() => {
                between = Some(match chars.next()? {
                    '*' => 0,
                    '+' => 1,
                    _ => return None,
                });
                continue;
            }
            // Punctuation stands for itself; letters and digits would be a class or a reference.
            '\\' => chars.next().filter(char::is_ascii_punctuation)?,
            '.' | '+' | '*' | '?' | '(' | ')' | '[' | ']' | '{' | '}' | '^' | '$' | '|' => return None,
            plain => plain,
        };
        let side = if between.is_none() { &mut before } else { &mut after };
        side.push(literal);
    }
    Some(Compiled::Affix { prefix: before, suffix: after, between: between? })
}

fn literal_alternation(pattern: &str) -> Option<Vec<String>> {
    let plain =
        |c: char| !matches!(c, '\\' | '.' | '+' | '*' | '?' | '(' | ')' | '[' | ']' | '{' | '}' | '^' | '$');
    if !pattern.chars().all(plain) {
        return None;
    }
    let mut literals: Vec<String> = pattern.split('|').map(str::to_owned).collect();
    literals.sort_unstable();
    literals.dedup();
    Some(literals)
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.op == other.op && self.value == other.value
    }
}

impl Eq for Matcher {}

impl std::hash::Hash for Matcher {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (&self.name, self.op, &self.value).hash(state);
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{:?}", self.name, self.op, self.value)
    }
}

impl fmt::Debug for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// `[a-zA-Z_][a-zA-Z0-9_]*`: a label name that needs no quotes.
pub fn is_valid_label_name(name: &str) -> bool {
    name.bytes()
        .enumerate()
        .all(|(i, b)| b.is_ascii_alphabetic() || b == b'_' || (i > 0 && b.is_ascii_digit()))
        && !name.is_empty()
}

/// `[a-zA-Z_:][a-zA-Z0-9_:]*`: a metric name that needs no quotes.
pub fn is_valid_legacy_metric_name(name: &str) -> bool {
    name.bytes()
        .enumerate()
        .all(|(i, b)| b.is_ascii_alphabetic() || b == b'_' || b == b':' || (i > 0 && b.is_ascii_digit()))
        && !name.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regular_expressions_are_anchored() {
        let m = Matcher::new("a", MatchOp::Regex, "b.*|c").unwrap();
        assert!(m.matches("bcd") && m.matches("c") && !m.matches("xc") && !m.matches_empty());
        let m = Matcher::new("a", MatchOp::Regex, "x|y").unwrap();
        assert_eq!(m.literals(), Some(vec!["x", "y"]));
        assert!(m.matches("x") && !m.matches("x|y"));
        let m = Matcher::new("a", MatchOp::NotRegex, "x|").unwrap();
        assert!(!m.matches_empty() && m.matches("z"));
        assert!(Matcher::new("a", MatchOp::Regex, "(").is_err());
    }

    #[test]
    fn affixes_match_as_the_expression_does() {
        let patterns = [
            ".*", ".+", "a.*", "a.+", ".*b", ".+b", "a.*b", "ab.+ba", r"a\.b.*", r"\..+\|", "é.+", "a.*ab",
            "a-b_c/.*",
        ];
        let values = [
            "", "a", "b", "ab", "aab", "ab\nba", "abba", "aba", "a.b", "a.bc", "a\n", "é", "éé", "aé", ".x|",
            ".|", "axb", "a-b_c/", "a-b_c/1", "ba",
        ];
        for pattern in patterns {
            let m = Matcher::new("a", MatchOp::Regex, pattern).unwrap();
            assert!(matches!(m.compiled, Some(Compiled::Affix { .. })), "{pattern}");
            let regex = anchored_regex(pattern).unwrap();
            for value in values {
                assert_eq!(m.matches(value), regex.is_match(value), "{pattern} {value:?}");
            }
        }
        for pattern in ["a.*?", "a.*+", "a.", "a.*b.*", "a.{2}", r"a.*\d", "a.*|b", "(a.*)", "a?.*", r"a.*\"]
        {
            let m = Matcher::new("a", MatchOp::Regex, pattern);
            let general = m.as_ref().map_or(true, |m| matches!(m.compiled, Some(Compiled::Regex(_))));
            assert!(general, "{pattern}");
        }
    }
}
