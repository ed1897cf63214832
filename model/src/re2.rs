//! RE2's syntax for the `regex` crate: the two differ in what is a literal and in what is Unicode.
//!
//! In RE2, as Go has it, `\d`, `\w`, `\s` and `\b` are ASCII, `\Q…\E` quotes, a brace that begins no repetition is a
//! literal, and a class has neither nested classes nor set operators.

use regex::{Regex, RegexBuilder};

/// The longest expression that is compiled, bytes: its tree takes some hundred times as much memory.
const LONGEST: usize = 256 << 10;
/// The largest compiled expression, bytes.
const LARGEST: usize = 10 << 20;
/// The largest lazily built automaton, bytes.
const LARGEST_DFA: usize = 2 << 20;
/// The largest count of a repetition.
const MOST_REPEATS: u32 = 1000;

/// Compiles an expression that must match a whole value, with `.` matching every character: `^(?s:…)$`, as Prometheus
/// anchors matchers and `label_replace`. The error is one line of text.
pub fn anchored_regex(pattern: &str) -> Result<Regex, String> {
    if pattern.len() > LONGEST {
        return Err(format!("it has {} bytes, more than {LONGEST}", pattern.len()));
    }
    let translated = translate(pattern)?;
    RegexBuilder::new(&format!("^(?s:{translated})$"))
        .size_limit(LARGEST)
        .dfa_size_limit(LARGEST_DFA)
        .build()
        .map_err(|e| match e {
            regex::Error::CompiledTooBig(limit) => format!("compiled it is larger than {limit} bytes"),
            other => other.to_string().lines().last().unwrap_or_default().to_owned(),
        })
}

/// An expression of RE2 as one of the `regex` crate.
fn translate(pattern: &str) -> Result<String, String> {
    let mut t = Translator { rest: pattern, out: String::with_capacity(pattern.len() + 16) };
    let mut depth = 0usize;
    while let Some(c) = t.next() {
        match c {
            '\\' => t.escape()?,
            '[' => t.class()?,
            '{' => t.repetition()?,
            '}' | ']' => t.literal(c),
            '(' => {
                depth += 1;
                t.group()?;
            }
            ')' => {
                depth = depth.checked_sub(1).ok_or("unexpected )")?;
                t.out.push(c);
            }
            _ => t.out.push(c),
        }
    }
    if depth > 0 { Err("missing closing )".to_owned()) } else { Ok(t.out) }
}

struct Translator<'a> {
    rest: &'a str,
    out: String,
}

/// One member of a class.
enum Member {
    Char(char),
    /// A class within the class, as the `regex` crate writes it.
    Set(String),
}

impl Translator<'_> {
    fn next(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }

    fn literal(&mut self, c: char) {
        if c.is_ascii_punctuation() {
            self.out.push('\\');
        }
        // These two are assertions with a backslash.
        if matches!(c, '<' | '>') {
            self.out.pop();
        }
        self.out.push(c);
    }

    /// What follows a backslash outside of a class.
    fn escape(&mut self) -> Result<(), String> {
        let c = self.next().ok_or("trailing backslash at end of expression")?;
        match c {
            'Q' => {
                let (quoted, rest) = self.rest.split_once("\\E").unwrap_or((self.rest, ""));
                self.out.push_str(&regex::escape(quoted));
                self.rest = rest;
            }
            'b' => self.out.push_str(r"(?-u:\b)"),
            'p' | 'P' => {
                let name = self.property(c)?;
                self.out.push_str(&name);
            }
            _ if c.is_ascii_punctuation() => self.literal(c),
            _ => match perl_class(c) {
                Some((negated, members)) => {
                    self.out.push_str(if negated { "[^" } else { "[" });
                    self.out.push_str(members);
                    self.out.push(']');
                }
                None => self.plain_escape(c),
            },
        }
        Ok(())
    }

    /// An escape that both know: `\n`, `\x41`, `\A`, `\z` …
    fn plain_escape(&mut self, c: char) {
        self.out.push('\\');
        self.out.push(c);
    }

    /// `\pL` or `\p{Greek}`, after the letter.
    fn property(&mut self, p: char) -> Result<String, String> {
        let end = match self.rest.strip_prefix('{') {
            Some(rest) => rest.find('}').ok_or("invalid character class range")? + 2,
            None => self.rest.chars().next().ok_or("invalid character class range")?.len_utf8(),
        };
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        Ok(format!("\\{p}{name}"))
    }

    /// A class, after its `[`.
    fn class(&mut self) -> Result<(), String> {
        const OPEN: &str = "missing closing ]";
        self.out.push('[');
        if let Some(rest) = self.rest.strip_prefix('^') {
            self.rest = rest;
            self.out.push('^');
        }
        let mut first = true;
        loop {
            if !first && let Some(rest) = self.rest.strip_prefix(']') {
                self.rest = rest;
                self.out.push(']');
                return Ok(());
            }
            first = false;
            let low = match self.member()?.ok_or(OPEN)? {
                Member::Set(set) => {
                    self.out.push_str(&set);
                    continue;
                }
                Member::Char(c) => c,
            };
            self.literal(low);
            let is_range = self.rest.starts_with('-') && !self.rest.starts_with("-]");
            if !is_range {
                continue;
            }
            self.rest = &self.rest[1..];
            match self.member()?.ok_or(OPEN)? {
                Member::Char(high) if high >= low => {
                    self.out.push('-');
                    self.literal(high);
                }
                _ => return Err("invalid character class range".to_owned()),
            }
        }
    }

    /// The next member of a class; `None` at the end of the text.
    fn member(&mut self) -> Result<Option<Member>, String> {
        if self.rest.starts_with("[:")
            && let Some(end) = self.rest.find(":]")
        {
            let (name, rest) = self.rest.split_at(end + 2);
            self.rest = rest;
            return Ok(Some(Member::Set(name.to_owned())));
        }
        let Some(c) = self.next() else { return Ok(None) };
        if c != '\\' {
            return Ok(Some(Member::Char(c)));
        }
        let c = self.next().ok_or("trailing backslash at end of expression")?;
        if let Some((negated, members)) = perl_class(c) {
            let set = if negated { format!("[^{members}]") } else { members.to_owned() };
            return Ok(Some(Member::Set(set)));
        }
        Ok(Some(match c {
            'p' | 'P' => Member::Set(self.property(c)?),
            'a' => Member::Char('\x07'),
            'f' => Member::Char('\x0c'),
            't' => Member::Char('\t'),
            'n' => Member::Char('\n'),
            'r' => Member::Char('\r'),
            'v' => Member::Char('\x0b'),
            'x' => Member::Char(self.hexadecimal()?),
            _ if c.is_ascii_alphanumeric() => return Err(format!("invalid escape sequence: `\\{c}`")),
            _ => Member::Char(c),
        }))
    }

    /// `41` or `{1F600}`, after `\x`.
    fn hexadecimal(&mut self) -> Result<char, String> {
        let (digits, rest) = match self.rest.strip_prefix('{') {
            Some(rest) => rest.split_once('}').ok_or("invalid escape sequence: `\\x`")?,
            None => self.rest.split_at_checked(2).ok_or("invalid escape sequence: `\\x`")?,
        };
        self.rest = rest;
        let code = u32::from_str_radix(digits, 16).ok().and_then(char::from_u32);
        code.ok_or_else(|| format!("invalid escape sequence: `\\x{digits}`"))
    }

    /// After `{`: a repetition, or a literal brace.
    fn repetition(&mut self) -> Result<(), String> {
        let number = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
        let counts = self.rest.split_once('}').map(|(counts, _)| counts).filter(|counts| {
            match counts.split_once(',') {
                None => number(counts),
                Some((low, high)) => number(low) && (high.is_empty() || number(high)),
            }
        });
        let Some(counts) = counts else {
            self.literal('{');
            return Ok(());
        };
        let fits = |n: &str| n.is_empty() || n.parse::<u32>().is_ok_and(|n| n <= MOST_REPEATS);
        if !counts.split(',').all(fits) {
            return Err(format!("invalid repeat count: `{{{counts}}}`"));
        }
        self.out.push('{');
        self.out.push_str(counts);
        self.out.push('}');
        self.rest = &self.rest[counts.len() + 1..];
        Ok(())
    }

    /// After `(`: the flags or the name of a group.
    fn group(&mut self) -> Result<(), String> {
        self.out.push('(');
        let Some(rest) = self.rest.strip_prefix('?') else { return Ok(()) };
        let end = if rest.starts_with("P<") || rest.starts_with('<') {
            rest.find('>').ok_or("invalid named capture")?
        } else {
            let end = rest.find([':', ')']).ok_or("missing closing )")?;
            if !rest[..end].chars().all(|c| matches!(c, 'i' | 'm' | 's' | 'U' | '-')) {
                return Err(format!("invalid or unsupported Perl syntax: `(?{}`", &rest[..end]));
            }
            // A parenthesis that ends flags is the group's own, and is counted as such.
            end - usize::from(rest[end..].starts_with(')') && end > 0)
        };
        let (head, rest) = rest.split_at(end + 1);
        self.out.push('?');
        self.out.push_str(head);
        self.rest = rest;
        Ok(())
    }
}

/// Perl's classes: whether negated, and what is in them.
fn perl_class(c: char) -> Option<(bool, &'static str)> {
    let members = match c.to_ascii_lowercase() {
        'd' => "0-9",
        's' => r"\t\n\x0c\r ",
        'w' => "0-9A-Za-z_",
        _ => return None,
    };
    Some((c.is_ascii_uppercase(), members))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, value: &str) -> bool {
        anchored_regex(pattern).unwrap().is_match(value)
    }

    #[test]
    fn classes_are_ascii() {
        assert!(matches(r"\d+", "123") && !matches(r"\d+", "\u{663}"));
        assert!(matches(r"\w+", "a_1") && !matches(r"\w", "\u{e9}") && matches(r"[^\w]", "\u{e9}"));
        assert!(matches(r"[\D]", "x") && !matches(r"[\D]", "1") && matches(r"\S\s", "a\t"));
        assert!(matches(r"a\b.*", "a\u{e9}") && !matches(r"a\b.*", "ab"));
    }

    #[test]
    fn literals_that_the_crate_has_as_syntax() {
        assert!(matches("{a}", "{a}") && matches("a{,5}", "a{,5}") && matches("a{2,3}", "aaa"));
        assert!(matches("a]", "a]") && matches("[]a]+", "a]") && matches("[a[b]+", "[ab"));
        assert!(matches("[a&&b]+", "&ab") && matches("[+--]+", ",") && matches("[a~~]+", "~"));
        assert!(matches(r"\<\>\_\-", "<>_-") && matches(r"\Qa.b*\E+", "a.b**") && matches(r"\Qa(", "a("));
        assert!(matches("[[:alpha:]_]+", "a_") && matches(r"[\x41-\x{43}]", "B") && matches("[-a]", "-"));
        assert!(matches("(?i)ab(?-i:c)", "ABc") && matches("(?P<n>a)(?<m>b)(?:c)()", "abc"));
        assert!(matches("", "") && matches("a#b c", "a#b c") && matches(r"\pL\p{Greek}", "a\u{3b1}"));
    }

    #[test]
    fn what_is_refused() {
        for pattern in [
            "(",
            ")",
            "a)(b",
            "[a",
            "[b-a]",
            "a{1001}",
            "a{1,2000}",
            "\\",
            "(?x)a",
            "(?=a)",
            r"\1",
            "*",
            "(?",
        ] {
            assert!(anchored_regex(pattern).is_err(), "{pattern}");
        }
        assert!(anchored_regex("((a{1000}){1000}){1000}").unwrap_err().contains("larger than"));
        assert!(anchored_regex(&"(".repeat(100_000)).is_err());
        assert!(anchored_regex(&format!("{}a{}", "(".repeat(100_000), ")".repeat(100_000))).is_err());
        assert!(anchored_regex(&"a.".repeat(5 << 20)).unwrap_err().contains("more than"));
    }
}
