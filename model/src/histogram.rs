//! Native histograms: the structure; the operations are in `histogram/`, one file per noun or verb.
//!
//! Every rule follows Prometheus 3's `FloatHistogram` (behaviour, not code). Methods of [`Histogram`]:
//!
//! ```text
//! buckets     uses_custom_buckets() -> bool            is_stale() -> bool
//!             positive_buckets_iter() / negative_buckets_iter() -> impl Iterator<Item = Bucket>
//!             all_buckets() / all_buckets_reverse()    -> impl Iterator<Item = Bucket>   (value order, zero bucket in)
//!             cumulative_buckets()                     -> impl Iterator<Item = Bucket>   (positive only)
//!             zero_bucket() -> Bucket                  bucket_bound(index, schema, custom_values) -> f64  (free fn)
//! validate    validate() -> Result<(), HistogramError>
//! compact     compact(max_empty_buckets: usize)
//! reduce      reduce_resolution(target: i32) -> Result<(), HistogramError>
//!             copy_to_schema(target: i32) -> Result<Histogram, HistogramError>
//! arithmetic  mul(f64)   div(f64)   add(&other) / sub(&other) -> Result<Combined, HistogramError>
//!             kahan_add(&other, &mut Option<Histogram>) -> Result<Combined, HistogramError>
//!             difference(&previous) -> Result<(Histogram, Combined), HistogramError>
//!             Combined { counter_reset_collision, nhcb_bounds_reconciled }
//! resets      detect_reset(&previous) -> bool
//! equality    equals(&other) -> bool (bitwise)         same_up_to(&other, epsilon) -> bool
//! quantile    quantile(q) -> f64, quantile_with_info(q) -> (f64, NanInfo)   fraction(lower, upper) -> f64
//!             fraction_with_info(..) -> (f64, NanInfo)  avg()  stdvar()  stddev() -> f64
//! trim        trim_upper(&self, f64) -> Histogram  (`h </ x`)     trim_lower(&self, f64) -> Histogram  (`h >/ x`)
//! classic     bucket_quantile(q, &mut Vec<ClassicBucket>) -> BucketQuantile   (free fns)
//!             bucket_fraction(lower, upper, &mut Vec<ClassicBucket>) -> f64
//! text        Display ({count:.., sum:.., [a,b]:n, ..})   test_expression() -> String ({{schema:.. ..}})
//! codec       encode(&mut Vec<u8>)   decode(&mut &[u8]) -> Result<Histogram, DecodeError>
//! deltas      positive_deltas() / negative_deltas() -> Option<Vec<i64>>
//!             deltas_to_counts(&[i64]) -> Vec<f64>     counts_to_deltas(&[f64]) -> Option<Vec<i64>>   (free fns)
//! numbers     kahan_inc(inc, sum, c) -> (sum, c)       almost_equal(a, b, epsilon) -> bool            (free fns)
//! ```

mod arithmetic;
mod bounds;
mod buckets;
mod cell;
mod classic;
mod codec;
mod compact;
mod custom;
mod deltas;
mod difference;
mod equality;
mod fraction;
mod interpolate;
mod merge;
mod moments;
mod quantile;
mod reduce;
mod resets;
mod spans;
mod text;
mod trim;
mod validate;
mod zero;

pub use arithmetic::Combined;
pub use bounds::{EXPONENTIAL_SCHEMA_MAX, EXPONENTIAL_SCHEMA_MIN, bucket_bound, is_exponential_schema};
pub use buckets::Bucket;
pub use cell::kahan_inc;
pub use classic::{BucketQuantile, ClassicBucket, ForcedMonotonic, bucket_fraction, bucket_quantile};
pub use codec::{DecodeError, MAX_LIST_LENGTH};
pub use deltas::{counts_to_deltas, deltas_to_counts};
pub use equality::almost_equal;
pub use quantile::NanInfo;
pub use validate::{HistogramError, Side};

use crate::is_stale_nan;

/// The schema of histograms with custom buckets (NHCB).
pub const CUSTOM_BUCKETS_SCHEMA: i32 = -53;

/// What is known of a counter reset between a histogram and the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
#[repr(u8)]
pub enum ResetHint {
    /// Not known: compare the histograms.
    #[default]
    Unknown = 0,
    /// A reset happened.
    Reset = 1,
    /// No reset happened.
    NoReset = 2,
    /// A gauge histogram: resets have no meaning.
    Gauge = 3,
}

/// A run of consecutive buckets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Span {
    /// Gap to the span before it in buckets; for the first span its first bucket's index.
    pub offset: i32,
    /// How many consecutive buckets it has.
    pub length: u32,
}

/// A native histogram. Bucket counts are **absolute** (not deltas) and floats: integer histograms convert without
/// loss up to 2^53. `integer` remembers what was sent.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Histogram {
    /// Reset hint.
    pub reset_hint: ResetHint,
    /// −4 to 8 (bucket bounds are powers of `2^(2^-schema)`), or [`CUSTOM_BUCKETS_SCHEMA`].
    pub schema: i32,
    /// Whether it was sent as an integer histogram.
    pub integer: bool,
    /// Width of the zero bucket.
    pub zero_threshold: f64,
    /// Observations in the zero bucket.
    pub zero_count: f64,
    /// All observations.
    pub count: f64,
    /// Sum of observations; the stale NaN marks staleness.
    pub sum: f64,
    /// Spans of positive buckets.
    pub positive_spans: Vec<Span>,
    /// Counts of positive buckets, as many as the spans have buckets.
    pub positive_buckets: Vec<f64>,
    /// Spans of negative buckets.
    pub negative_spans: Vec<Span>,
    /// Counts of negative buckets.
    pub negative_buckets: Vec<f64>,
    /// Upper bounds of custom buckets, without the last, +Inf.
    pub custom_values: Vec<f64>,
}

impl Histogram {
    /// Whether the buckets have custom bounds.
    pub fn uses_custom_buckets(&self) -> bool {
        self.schema == CUSTOM_BUCKETS_SCHEMA
    }

    /// Whether this is no histogram but the end of a series.
    pub fn is_stale(&self) -> bool {
        is_stale_nan(self.sum)
    }
}
