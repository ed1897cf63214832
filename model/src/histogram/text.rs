//! Text forms: the one that Prometheus shows, and the `{{...}}` notation of PromQL tests.

use std::fmt;

use super::buckets::Bucket;
use super::{Histogram, ResetHint};

/// The widest gap that [`Histogram::test_expression`] writes out as zeros; all valid exponential layouts of schema 0 or
/// lower are narrower. It bounds the text of a histogram from the network.
const TEST_EXPRESSION_GAP_MAX: usize = 1 << 16;

impl fmt::Display for Histogram {
    /// `{count:4, sum:2.5, [-2,-1):1, (0.5,1]:3}`: populated buckets in value order.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{count:{}, sum:{}", Number::count(self.count, self.integer), Number::float(self.sum))?;
        let negative: Vec<_> = self.negative_buckets_iter().filter(|bucket| bucket.count != 0.0).collect();
        for bucket in negative.iter().rev() {
            write!(f, ", {}", BucketText { bucket, integer: self.integer })?;
        }
        if self.zero_count != 0.0 {
            write!(f, ", {}", BucketText { bucket: &self.zero_bucket(), integer: self.integer })?;
        }
        for bucket in self.positive_buckets_iter().filter(|bucket| bucket.count != 0.0) {
            write!(f, ", {}", BucketText { bucket: &bucket, integer: self.integer })?;
        }
        f.write_str("}")
    }
}

impl Histogram {
    /// The notation of PromQL tests, `{{schema:1 count:3 sum:5 buckets:[1 2]}}`, which has one run of buckets a side:
    /// gaps are filled with zeros. Of a side with a gap wider than 65,536 only the first run is written.
    pub fn test_expression(&self) -> String {
        let mut h = self.clone();
        h.compact(TEST_EXPRESSION_GAP_MAX);
        let number =
            |key: &str, value: f64| (value != 0.0).then(|| format!("{key}:{}", Number::float(value)));
        let hint = match h.reset_hint {
            ResetHint::Unknown => None,
            ResetHint::Reset => Some("counter_reset_hint:reset".to_owned()),
            ResetHint::NoReset => Some("counter_reset_hint:not_reset".to_owned()),
            ResetHint::Gauge => Some("counter_reset_hint:gauge".to_owned()),
        };
        let side = |offset_key: &str, key: &str, spans: &[super::Span], buckets: &[f64]| {
            let first = spans.first();
            let run = buckets.get(..first.map_or(0, |span| span.length as usize)).unwrap_or(buckets);
            let offset =
                first.filter(|span| span.offset != 0).map(|span| format!("{offset_key}:{}", span.offset));
            [offset, (!run.is_empty()).then(|| format!("{key}:{}", list(run)))]
        };
        let fields = [
            (h.schema != 0).then(|| format!("schema:{}", h.schema)),
            number("count", h.count),
            number("sum", h.sum),
            number("z_bucket", h.zero_count),
            number("z_bucket_w", h.zero_threshold),
            h.uses_custom_buckets().then(|| format!("custom_values:{}", list(&h.custom_values))),
            hint,
        ]
        .into_iter()
        .chain(side("offset", "buckets", &h.positive_spans, &h.positive_buckets))
        .chain(side("n_offset", "n_buckets", &h.negative_spans, &h.negative_buckets))
        .flatten()
        .collect::<Vec<_>>();
        format!("{{{{{}}}}}", fields.join(" "))
    }
}

fn list(values: &[f64]) -> String {
    let values: Vec<_> = values.iter().map(|&value| Number::float(value).to_string()).collect();
    format!("[{}]", values.join(" "))
}

/// `(1,2]:3`, with square brackets for inclusive bounds.
struct BucketText<'a> {
    bucket: &'a Bucket,
    integer: bool,
}

impl fmt::Display for BucketText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Bucket { lower, upper, lower_inclusive, upper_inclusive, count, .. } = *self.bucket;
        let open = if lower_inclusive { '[' } else { '(' };
        let close = if upper_inclusive { ']' } else { ')' };
        let (lower, upper) = (Number::float(lower), Number::float(upper));
        write!(f, "{open}{lower},{upper}{close}:{}", Number::count(count, self.integer))
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        BucketText { bucket: self, integer: false }.fmt(f)
    }
}

/// A number as Go's `%g` prints it, since users compare the text: the fewest digits that identify it, with an exponent
/// of at least two digits below 10^-4 and from 10^6 on. Counts of integer histograms are plain integers.
struct Number {
    value: f64,
    integer: bool,
}

impl Number {
    fn float(value: f64) -> Self {
        Self { value, integer: false }
    }

    fn count(value: f64, integer: bool) -> Self {
        Self { value, integer }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.value;
        if value.is_nan() {
            return f.write_str("NaN");
        }
        if value.is_infinite() {
            return f.write_str(if value > 0.0 { "+Inf" } else { "-Inf" });
        }
        if self.integer {
            return write!(f, "{value:.0}");
        }
        let scientific = format!("{value:e}");
        let Some((mantissa, exponent)) = scientific.split_once('e') else { return f.write_str(&scientific) };
        let exponent: i32 = exponent.parse().unwrap_or(0);
        if (-4..6).contains(&exponent) {
            return write!(f, "{value}");
        }
        let sign = if exponent < 0 { '-' } else { '+' };
        write!(f, "{mantissa}e{sign}{:02}", exponent.unsigned_abs())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Span;
    use super::*;

    #[test]
    fn test_expression_fills_gaps() {
        let h = Histogram {
            reset_hint: ResetHint::Gauge,
            schema: 1,
            count: 6.0,
            sum: 1e300,
            zero_threshold: 0.001,
            zero_count: 1.0,
            positive_spans: vec![Span { offset: 2, length: 1 }, Span { offset: 1, length: 2 }],
            positive_buckets: vec![1.0, 0.5, 0.0],
            negative_spans: vec![Span { offset: 0, length: 1 }],
            negative_buckets: vec![3.5],
            ..Histogram::default()
        };
        assert_eq!(
            h.test_expression(),
            "{{schema:1 count:6 sum:1e+300 z_bucket:1 z_bucket_w:0.001 counter_reset_hint:gauge offset:2 \
             buckets:[1 0 0.5] n_buckets:[3.5]}}"
        );
        assert_eq!(Histogram::default().test_expression(), "{{}}");
    }

    #[test]
    fn numbers_print_as_go_prints_them() {
        let cases = [
            (100_000.0, "100000"),
            (2_349_209.324, "2.349209324e+06"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (-0.0, "-0"),
            (1e100, "1e+100"),
            (f64::INFINITY, "+Inf"),
            (f64::NAN, "NaN"),
        ];
        for (value, expected) in cases {
            assert_eq!(Number::float(value).to_string(), expected);
        }
    }

    #[test]
    fn a_hostile_gap_does_not_become_text() {
        let h = Histogram {
            positive_spans: vec![Span { offset: 0, length: 1 }, Span { offset: i32::MAX, length: 1 }],
            positive_buckets: vec![1.0, 2.0],
            ..Histogram::default()
        };
        assert_eq!(h.test_expression(), "{{buckets:[1]}}");
    }
}
