//! The fuzz target over seeded texts: words of the language in any order, and expressions with bytes changed.
//! `SEXTANT_FUZZ_CASES` sets how many.

use sextant_promql::testing::fuzz_parse;

const WORDS: &[&str] = &[
    "foo",
    "bar:x",
    "sum",
    "avg by (a)",
    "topk",
    "rate",
    "max_over_time",
    "(",
    ")",
    "(",
    ")",
    "[5m]",
    "[1h:1m]",
    "[step():]",
    "[",
    "]",
    ":",
    "{",
    "}",
    "a=\"b\"",
    "a!~\"x.*\"",
    "\"x.y\"",
    ",",
    "+",
    "-",
    "*",
    "/",
    "^",
    "%",
    "== bool",
    ">=",
    "and",
    "or",
    "unless",
    "on (a)",
    "ignoring (b)",
    "group_left (c)",
    "group_right",
    "fill (1)",
    "fill_left(-2)",
    "offset 5m",
    "offset -1m",
    "@ 100",
    "@ start()",
    "anchored",
    "smoothed",
    "1",
    "0x1f",
    "1e3",
    "NaN",
    "Inf",
    "5m",
    "1h30m",
    "'s'",
    "`raw`",
    "\"\\xff\"",
    "without (a)",
    "by",
    "label_replace",
    "time()",
    "vector(1)",
    "# c\n",
    "abs",
    "</",
    ">/",
    "atan2",
    "min_of(1, step())",
    "{\"utf 8\"}",
    "quantile(0.5, foo)",
    "count_values(\"v\", foo)",
    "-foo",
    "foo[1m+1m]",
];

const EXPRESSIONS: &[&str] = &[
    "sum by (a, \"b c\") (rate(foo{a=\"b\",c!~\"d|e\"}[5m] offset -1m)) / on (a) group_left (c) bar ^ 2 > bool 3",
    "histogram_quantile(0.9, sum without (le) (rate({\"x.y\"}[step() * 2 + 1m] anchored @ end())))",
    "max_over_time(sum(foo)[1h:max_of(1m, step())] @ 5 offset -(1m)) fill_left (1) or -bar @ start()",
    "label_replace(foo, \"dst\", \"$1\", 'src', `(.*)\\n`) + fill (0x1F) ignoring () topk(3, -(-foo)) </ NaN",
    "count_values without (z) (\"v\", foo smoothed) and on () vector(-1e-7) unless -1 ^ -2 * 1h30m",
];

#[test]
fn seeded_texts() {
    let cases = std::env::var("SEXTANT_FUZZ_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(5_000);
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut random = move |n: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as usize % n
    };
    for _ in 0..cases {
        let mut words = String::new();
        for _ in 0..=random(12) {
            words.push_str(WORDS[random(WORDS.len())]);
            words.push(' ');
        }
        fuzz_parse(words.as_bytes());
        let mut bytes = EXPRESSIONS[random(EXPRESSIONS.len())].as_bytes().to_vec();
        for _ in 0..=random(4) {
            let (at, other) = (random(bytes.len()), random(bytes.len()));
            match random(5) {
                0 => bytes[at] = random(256) as u8,
                1 => bytes[at] = bytes[other],
                2 => _ = bytes.drain(at.min(other)..at.max(other).min(at.min(other) + 8)),
                3 => {
                    let word = WORDS[random(WORDS.len())].bytes();
                    bytes.splice(at..at, word);
                }
                _ => bytes.truncate(at.max(1)),
            }
            if bytes.is_empty() {
                break;
            }
        }
        fuzz_parse(&bytes);
    }
}
